"""Capture files in, capture files out: through the Python API and through the command line."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from node_harness import client_packet, guest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.utils import PcapNgReader, PcapReader, RawPcapReader, wrpcap, wrpcapng

from edgeos import (
    ChainSettings,
    EdgeosError,
    Node,
    NodeSettings,
    NodeStatistics,
    PortSettings,
    TemplateSettings,
    testing,
)
from edgeos.service.run_directory import connect

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
START_SECONDS = 30.0
BRIDGE = TemplateSettings(name="wire", appliance="bridge", ready_low=1, ready_high=4)


def write_capture(path: Path, frames: Sequence[bytes]) -> Path:
    """A pcap file with microsecond times 0, 1, 2, … and the lengths as they are, of any size."""
    records = b"".join(struct.pack("<IIII", 1000, n, len(f), len(f)) + f for n, f in enumerate(frames))
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + records)
    return path


def read_capture(path: Path) -> list[bytes]:
    with RawPcapReader(str(path)) as reader:
        return [data for data, _ in reader]


def run(
    ports: Sequence[PortSettings],
    chains: Sequence[ChainSettings],
    rules: Sequence[tuple[str, str]],
    *,
    templates: Sequence[TemplateSettings] = (BRIDGE,),
    settings: NodeSettings | None = None,
) -> NodeStatistics:
    """Runs a node to the end of its files."""
    with Node(settings) as node:
        for port in ports:
            node.add_port(port)
        for template in templates:
            node.add_template(template)
        for chain in chains:
            node.add_chain(chain)
        for match, chain_name in rules:
            node.add_rule(match, chain=chain_name)
        statistics = node.run()
    assert statistics.balance == 0
    assert statistics.in_flight == 0
    return statistics


def source(path: Path) -> PortSettings:
    return PortSettings(name="lan", kind="pcap", read=path)


def sink(path: Path, name: str = "wan") -> PortSettings:
    return PortSettings(name=name, kind="pcap", write=path)


EDGE = ChainSettings(name="edge", path=("lan", "wire", "wan"), max_fwps=64)


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_order_and_bytes_are_kept(tmp_path: Path, mover: str) -> None:
    frames = [client_packet(n % 7, b"%d" % n * 50, sport=n % 3) for n in range(2000)]
    statistics = run(
        [source(write_capture(tmp_path / "in.pcap", frames)), sink(tmp_path / "out.pcap")],
        [EDGE],
        [("any", "edge")],
        settings=NodeSettings(mover=mover),  # type: ignore[arg-type]
    )
    out = read_capture(tmp_path / "out.pcap")
    assert statistics.sent == len(out) == 2000, "a file is not read on while a chain is full"
    for client in range(7):
        mine = client_packet(client)[26:30]
        assert [f for f in out if f[26:30] == mine] == [f for f in frames if f[26:30] == mine]


def test_both_directions(tmp_path: Path) -> None:
    there = [client_packet(n, b"there") for n in range(50)]
    back = [testing.reply_to(frame) for frame in there]
    ports = [
        PortSettings(
            name="lan",
            kind="pcap",
            read=write_capture(tmp_path / "lan.pcap", there),
            write=tmp_path / "lan-out.pcap",
        ),
        PortSettings(
            name="wan", kind="pcap", read=write_capture(tmp_path / "wan.pcap", back), write=tmp_path / "wan-out.pcap"
        ),
    ]
    statistics = run(ports, [EDGE], [("any", "edge")])
    assert sorted(read_capture(tmp_path / "wan-out.pcap")) == sorted(there)
    assert sorted(read_capture(tmp_path / "lan-out.pcap")) == sorted(back)
    assert statistics.chain("edge").activations == 50, "both directions are the same clients"


def test_several_chains_vlans_fragments_and_non_ip(tmp_path: Path) -> None:
    whole = IP(src="10.0.0.1", dst="192.0.2.1", id=5) / UDP(sport=1, dport=53) / Raw(bytes(3000))
    pieces = [bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / piece) for piece in fragment(whole, 1000)]
    assert len(pieces) == 4
    arp = bytes(Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1", pdst="10.0.0.2"))
    tagged = [testing.udp_packet("10.0.0.1", "192.0.2.1", b"tagged", vlan=vlan) for vlan in (5, 6)]
    tcp = testing.tcp_packet("10.0.0.1", "192.0.2.1", b"tcp")
    frames = [arp, *tagged, pieces[2], pieces[0], pieces[1], pieces[3], tcp]
    chains = [
        ChainSettings(name=name, path=("lan", name, "wan"), max_fwps=16) for name in ("others", "five", "tcp", "rest")
    ]
    templates = [TemplateSettings(name=c.name, appliance="bridge", ready_low=1, ready_high=2) for c in chains]
    statistics = run(
        [source(write_capture(tmp_path / "in.pcap", frames)), sink(tmp_path / "out.pcap")],
        chains,
        [("non-ip", "others"), ("vlan 5", "five"), ("tcp", "tcp"), ("ip", "rest")],
        templates=templates,
    )
    assert sorted(read_capture(tmp_path / "out.pcap")) == sorted(frames)
    assert {c.name: c.sent for c in statistics.chains} == {"others": 1, "five": 1, "tcp": 1, "rest": 5}


@pytest.mark.parametrize("cut", [1, 8, 15, 16, 17, 60])
def test_a_truncated_capture_is_processed_as_far_as_it_goes(tmp_path: Path, cut: int) -> None:
    frames = [client_packet(n, bytes(100)) for n in range(20)]
    path = write_capture(tmp_path / "in.pcap", frames)
    path.write_bytes(path.read_bytes()[:-cut])
    statistics = run([source(path), sink(tmp_path / "out.pcap")], [EDGE], [("any", "edge")])
    assert read_capture(tmp_path / "out.pcap") == frames[:19]
    problem = statistics.port("lan").problem
    assert "in.pcap" in problem
    assert "19" in problem
    assert statistics.port("wan").problem == ""


def test_garbage_in_the_middle_ends_the_file_there(tmp_path: Path) -> None:
    frames = [client_packet(n) for n in range(20)]
    path = write_capture(tmp_path / "in.pcap", frames)
    data = bytearray(path.read_bytes())
    at = 24 + 10 * (16 + len(frames[0]))
    data[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    statistics = run([source(path), sink(tmp_path / "out.pcap")], [EDGE], [("any", "edge")])
    assert read_capture(tmp_path / "out.pcap") == frames[:10]
    assert statistics.port("lan").problem


def test_packets_of_all_sizes(tmp_path: Path) -> None:
    """Too short and too long ones are counted as such; the others pass, and nothing else is disturbed."""
    sizes = [0, 1, 13, 14, 60, 1514, 2048, 2049, 9000, 65535]
    longest = client_packet(1, bytes(1000)) + bytes(65_000)
    frames = [longest[:size] for size in sizes]
    statistics = run(
        [source(write_capture(tmp_path / "in.pcap", frames)), sink(tmp_path / "out.pcap")], [EDGE], [("any", "edge")]
    )
    assert statistics.dropped == {"malformed": 3}
    assert statistics.chain("edge").dropped == {"oversize": 3}
    assert sorted(map(len, read_capture(tmp_path / "out.pcap"))) == [14, 60, 1514, 2048]


def test_an_empty_capture(tmp_path: Path) -> None:
    statistics = run(
        [source(write_capture(tmp_path / "in.pcap", [])), sink(tmp_path / "out.pcap")], [EDGE], [("any", "edge")]
    )
    assert statistics.received == 0
    assert read_capture(tmp_path / "out.pcap") == []


def test_pcapng_is_read(tmp_path: Path) -> None:
    frames = [client_packet(n) for n in range(10)]
    wrpcapng(str(tmp_path / "in.pcapng"), [Ether(frame) for frame in frames])
    with PcapNgReader(str(tmp_path / "in.pcapng")) as reader:
        assert len(list(reader)) == 10
    run([source(tmp_path / "in.pcapng"), sink(tmp_path / "out.pcap")], [EDGE], [("any", "edge")])
    assert sorted(read_capture(tmp_path / "out.pcap")) == sorted(frames)


def test_times_of_the_capture_are_kept(tmp_path: Path) -> None:
    packets = [Ether(client_packet(1, b"%d" % n)) for n in range(3)]
    for n, packet in enumerate(packets):
        packet.time = 1_700_000_000 + n * 0.5
    wrpcap(str(tmp_path / "in.pcap"), packets)
    run([source(tmp_path / "in.pcap"), sink(tmp_path / "out.pcap")], [EDGE], [("any", "edge")])
    with PcapReader(str(tmp_path / "out.pcap")) as reader:
        assert [float(packet.time) for packet in reader] == [1_700_000_000, 1_700_000_000.5, 1_700_000_001]


def test_an_endless_guest_does_not_stop_a_file(tmp_path: Path) -> None:
    loop = client_packet(1, bytes([8, 0]))
    others = [client_packet(n, bytes(2)) for n in range(2, 10)]
    statistics = run(
        [source(write_capture(tmp_path / "in.pcap", [*others, loop, *others])), sink(tmp_path / "out.pcap")],
        [ChainSettings(name="edge", path=("lan", "actor", "wan"), max_fwps=64)],
        [("any", "edge")],
        templates=[guest("actor", config=b"0", budget_ns=5_000_000)],
    )
    assert statistics.chain("edge").kills == {"budget": 1}
    assert sorted(read_capture(tmp_path / "out.pcap")) == sorted(others * 2)


# ---- The command line ----


def edgeos_up(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeos", "up", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_first_example_runs_as_it_is(tmp_path: Path) -> None:
    for name in ("first-steps.toml", "first-steps.pcap"):
        shutil.copy(EXAMPLES / name, tmp_path)
    done = edgeos_up(tmp_path, "first-steps.toml", "--json", "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    edge = result["chains"][0]
    assert result["balance"] == 0
    assert edge["name"] == "edge"
    assert edge["received"] == edge["sent"] + sum(edge["dropped"].values()) > 0
    assert len(read_capture(tmp_path / "first-steps-out.pcap")) == edge["sent"]
    assert "edge" in done.stdout


MANIFEST = """
[port.lan]
kind = "pcap"
read = "in.pcap"
[port.wan]
kind = "pcap"
write = "out.pcap"
[template.fw]
appliance = "firewall"
config = '''
allow udp dst 192.168.1.0/24 port 53
deny all
'''
[chain.edge]
path = ["lan", "fw", "wan"]
isolate = "client"
max_fwps = 64
[[rule]]
match = "ip"
chain = "edge"
"""


def test_a_firewall_from_a_manifest(tmp_path: Path) -> None:
    allowed = [testing.udp_packet(f"10.0.0.{n}", "192.168.1.9", b"q", dport=53) for n in range(1, 6)]
    denied = [testing.udp_packet(f"10.0.0.{n}", "192.168.1.9", b"q", dport=54) for n in range(1, 6)]
    write_capture(tmp_path / "in.pcap", allowed + denied)
    (tmp_path / "edge.toml").write_text(MANIFEST)
    done = edgeos_up(tmp_path, "edge.toml", "--json", "-", "--quiet")
    assert done.returncode == 0, done.stderr
    edge = json.loads(done.stdout)["chains"][0]
    assert (edge["sent"], edge["dropped"], edge["activations"]) == (5, {"verdict": 5}, 5)
    assert sorted(read_capture(tmp_path / "out.pcap")) == sorted(allowed)


def test_a_truncated_capture_is_reported_to_the_user(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "in.pcap", [client_packet(n) for n in range(5)])
    path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / "edge.toml").write_text(MANIFEST)
    done = edgeos_up(tmp_path, "edge.toml", "--json", "result.json")
    assert "in.pcap" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["received"] == 4


def runs(folder: Path) -> bool:
    """Whether the node with its control socket there runs."""
    try:
        with connect(folder / "tap.toml", folder / "run") as client:
            return bool(client.ask("status")["state"] == "running")
    except EdgeosError:
        return False


@pytest.mark.privileged
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_signals_end_a_running_node_with_its_summary(tmp_path: Path, number: signal.Signals, mover: str) -> None:
    """On TAP devices, which never end, in a network namespace of its own."""
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no user have a network namespace")
    (tmp_path / "tap.toml").write_text(
        f'[node]\nmover = "{mover}"\n[port.lan]\nkind = "tap"\ndevice = "eos-lan"\n[port.wan]\nkind = "tap"\n'
        'device = "eos-wan"\n[template.wire]\nappliance = "bridge"\n[chain.edge]\npath = ["lan", "wire", "wan"]\n'
        '[[rule]]\nmatch = "any"\nchain = "edge"\n'
    )
    command = ["unshare", "-Urn", sys.executable, "-m", "edgeos", "up", "tap.toml", "--json", "result.json"]
    command += ["--run-dir", "run"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while process.poll() is None and not runs(tmp_path) and time.monotonic() < end:
                time.sleep(0.05)
            if process.poll() is not None and "/dev/net/tun" in (error := process.communicate()[1]):
                pytest.skip(error)
            process.send_signal(number)
            output, error = process.communicate(timeout=START_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, error
    assert "edge" in output
    assert "Traceback" not in error
    assert json.loads((tmp_path / "result.json").read_text())["balance"] == 0
