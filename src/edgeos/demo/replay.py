"""The demo without privileges: the same clients and node, with generated capture files in place of devices."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from edgeos.demo.scenario import (
    BLOCKED,
    BYSTANDERS,
    EVERYBODY,
    HOSTILE,
    MAGIC,
    PORT,
    SERVER,
    write_manifest,
)
from edgeos.demo.story import ClientResult, Story
from edgeos.errors import EdgeosError
from edgeos.manifest import load_manifest
from edgeos.node import Node
from edgeos.statistics import NodeStatistics
from edgeos.testing import tcp_packet

ROUNDS = 200
ATTACK_ROUND = 100
RUN_SECONDS_MAX = 60
SPACING_US = 100
_SOURCE_ADDRESS = slice(26, 30)  # in an Ethernet frame with an IPv4 packet

_PORTS = """\
[port.lan]
kind = "pcap"
read = "clients.pcap"

[port.wan]
kind = "pcap"
write = "server.pcap"
"""


def replay(story: Story, folder: Path) -> NodeStatistics:
    """Writes the capture, runs a node over it and tells what came out."""
    story.step(f"writing a capture: {len(EVERYBODY)} clients in turn, {ROUNDS} packets each, one of them deadly")
    write_pcap(folder / "clients.pcap", list(_frames()))
    story.step("running a node over it: lan → firewall → monitor → wan")
    manifest = load_manifest(write_manifest(folder, _PORTS))
    with Node.from_manifest(manifest, progress=story.note) as node:
        node.start()
        if not node.wait(RUN_SECONDS_MAX):
            raise EdgeosError("the node does not come to its end")
        clients = {client.address: client for chain in ("clients", "inspected") for client in node.clients(chain)}
        statistics = node.stop()
    results = _results(folder / "server.pcap")
    _tell(story, results, statistics)
    story.tables(results, clients, statistics)
    story.console.print()
    story.expect_accounts(statistics)
    return statistics


def _tell(story: Story, results: dict[str, ClientResult], statistics: NodeStatistics) -> None:
    short = {client: results[client].served for client in BYSTANDERS if results[client].served != ROUNDS}
    story.expect(not short, f"every packet of {len(BYSTANDERS)} clients reached the server's side", f"short: {short}")
    story.expect(results[BLOCKED].served == 0, f"no packet of {BLOCKED} did, which the firewall blocks")
    kills = {chain.name: chain.kills for chain in statistics.chains if any(chain.kills.values())}
    budget = kills.get("inspected", {}).get("budget", 0)
    story.expect(
        list(kills) == ["inspected"] and budget == 1,
        f"one FWP was killed, of {HOSTILE}, which overran its budget",
        f"killed: {kills}",
    )
    served = results[HOSTILE].served
    story.expect(
        ROUNDS - ATTACK_ROUND <= served < ROUNDS,
        f"{HOSTILE} lost {ROUNDS - served} of its packets and was served by a fresh FWP",
        f"{served} of {ROUNDS} packets came through",
    )


def _frames() -> Iterator[bytes]:
    for number in range(ROUNDS):
        for client in EVERYBODY:
            deadly = client == HOSTILE and number == ATTACK_ROUND
            payload = MAGIC if deadly else b"GET /%d" % number
            yield tcp_packet(client, SERVER, payload, dport=PORT, seq=number)


def _results(path: Path) -> dict[str, ClientResult]:
    results = dict.fromkeys(EVERYBODY, ClientResult())
    for frame in read_pcap(path):
        client = ".".join(map(str, frame[_SOURCE_ADDRESS]))
        results[client] += ClientResult(served=1, received_bytes=len(frame))
    return {
        client: ClientResult(**{**vars(result), "failed": ROUNDS - result.served}) for client, result in results.items()
    }


def write_pcap(path: Path, frames: list[bytes]) -> None:
    """A capture file of Ethernet frames, in the format of libpcap."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, frame in enumerate(frames):
            seconds, microseconds = divmod(number * SPACING_US, 1_000_000)
            file.write(struct.pack("<IIII", seconds, microseconds, len(frame), len(frame)) + frame)


def read_pcap(path: Path) -> Iterator[bytes]:
    """The frames of a capture file that the node wrote: libpcap's format, this machine's byte order."""
    data = path.read_bytes()
    at = 24
    while at + 16 <= len(data):
        captured = struct.unpack_from("=I", data, at + 8)[0]
        yield data[at + 16 : at + 16 + captured]
        at += 16 + captured
