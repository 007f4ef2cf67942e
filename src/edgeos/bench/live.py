"""Live clients that have passed traffic: what they hold in memory and cost while nobody sends.

As a program, so that each figure comes from a fresh process:

    python -m edgeos.bench.live MODULE CLIENTS ROUNDS SECONDS

lets CLIENTS clients send one packet in each of ROUNDS rounds, checks every answer, leaves them alone for SECONDS, and
goes on for as many rounds again; prints one line of JSON.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeos import _native
from edgeos.bench.resident import Resident, resident
from edgeos.errors import EdgeosError
from edgeos.node import Node
from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings
from edgeos.testing import udp_packet

ANSWER_SECONDS = 60.0
"""A round that takes longer is not going to end."""

_COUNT_AT = 42  # where the guest `reflect` writes its count
_CLIENT_AT = slice(26, 30)  # the packet's source address, IPv4
_IDLE_TIMEOUT_NS = 3600 * 10**9
_POLL_SECONDS = 0.001


@dataclass(frozen=True, kw_only=True)
class Density:
    """One run: memory before any client, after the first rounds and at the end; CPU seconds a second while idle.

    `answers` were checked one by one: each client's n-th answer holds n.
    """

    clients: int
    answers: int
    before: Resident
    after: Resident
    end: Resident
    idle_cpu: float
    first_seconds: float
    round_seconds: float


class Clients:
    """Clients of a running node, each with an address and an FWP of its own."""

    def __init__(self, node: Node, port: _native.MemoryPort, count: int) -> None:
        self.node = node
        self.answers = 0
        self._port = port
        self._packets = [udp_packet(address(client), "192.0.2.1", bytes(22)) for client in range(count)]
        self._rounds = 0

    def send_round(self) -> float:
        """Every client sends a packet and gets its answer. Seconds that took. Raises EdgeosError."""
        begin = time.monotonic()
        for packet in self._packets:
            if not self._port.inject(packet):
                raise EdgeosError("the port does not take a packet of each client")
        answered: list[bytes] = []
        while len(answered) < len(self._packets):
            answered += [data for data, _ in self._port.take()]
            if time.monotonic() - begin > ANSWER_SECONDS:
                raise EdgeosError(f"{len(answered)} of {len(self._packets)} clients were answered: {self.dropped()}")
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - begin
        self._rounds += 1
        self._check(answered)
        return seconds

    def dropped(self) -> dict[str, int]:
        """Messages that the chain dropped, by reason."""
        dropped = self.node.statistics(guest_counters=False).chain("edge").dropped
        return {reason: count for reason, count in dropped.items() if count}

    def _check(self, answered: Sequence[bytes]) -> None:
        self.answers += len(answered)
        if len({answer[_CLIENT_AT] for answer in answered}) != len(self._packets):
            raise EdgeosError("some client was answered twice")
        counts = {struct.unpack_from("<I", answer, _COUNT_AT)[0] for answer in answered}
        if counts != {self._rounds}:
            raise EdgeosError(f"in round {self._rounds} clients' counts are {sorted(counts)[:8]}")


def address(client: int) -> str:
    """Of a client by its number, up to 16 million."""
    return f"10.{client >> 16}.{client >> 8 & 255}.{client & 255}"


@contextmanager
def live_clients(module: Path, count: int) -> Iterator[Clients]:
    """A node whose clients are answered by FWPs of the guest `reflect`. Raises EdgeosError, LimitError."""
    port = _native.MemoryPort("lan", capacity=count, lossless=True)
    with Node(NodeSettings(max_flows=max(65536, 2 * count))) as node:
        node.add_port(port)
        node.add_template(TemplateSettings(name="reflect", module=module))
        node.add_chain(
            ChainSettings(name="edge", path=("lan", "reflect"), max_fwps=count, idle_timeout_ns=_IDLE_TIMEOUT_NS)
        )
        node.add_rule("ip", chain="edge")
        node.start()
        yield Clients(node, port, count)
        statistics = node.statistics(guest_counters=False)
        chain = statistics.chain("edge")
        if statistics.balance != 0 or chain.live != count or chain.activations != count:
            raise EdgeosError(f"{chain.live} of {count} clients live, balance {statistics.balance}")


def measure(module: Path, count: int, rounds: int, idle_seconds: float) -> Density:
    """Of this process. Raises EdgeosError."""
    with live_clients(module, count) as clients:
        before = resident("self")
        first = clients.send_round()
        for _ in range(rounds):
            clients.send_round()
        after = resident("self")
        begin = time.process_time()
        time.sleep(idle_seconds)
        idle = (time.process_time() - begin) / idle_seconds
        last = [clients.send_round() for _ in range(rounds)]
        return Density(
            clients=count,
            answers=clients.answers,
            before=before,
            after=after,
            end=resident("self"),
            idle_cpu=idle,
            first_seconds=first,
            round_seconds=sorted(last)[len(last) // 2],
        )


if __name__ == "__main__":
    found = measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(asdict(found)))
