"""One run of `edgeos bench scale`: many clients through one FWP, an FWP each or a chain each, from memory or a wire."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeos import _native
from edgeos.bench.cores import pinned, service_cores
from edgeos.bench.live import address
from edgeos.bench.middlebox import END, PacketKind, Spaces
from edgeos.errors import EdgeosError
from edgeos.node import Node
from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings
from edgeos.testing import udp_packet

MEMORY_RATE = 500_000
WIRE_RATE = 50_000
"""Messages a second that are offered when latency is measured, over all clients."""

SECOND_NS = 1_000_000_000
_IDLE_TIMEOUT_NS = 3600 * SECOND_NS
_PAYLOAD = bytes(22)  # 64 bytes with the headers
_SPARE = 16  # FWPs, for what is not a client's
WARM_LAPS = 3  # in which every client has sent, before anything is counted
_SETTLE_SECONDS = 0.3  # beyond these, on a wire
_MAKE_SECONDS = 100e-6  # for an FWP that is made on the path, in a place that was never used
_DRAIN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What messages pass: how FWPs are shared, and how many are in a row."""

    name: str
    isolate: Literal["shared", "client"]
    length: int

    def fwps(self, clients: int) -> int:
        """How many live when every client has sent."""
        return self.length * (clients if self.isolate == "client" else 1)


SHARED = Subject(name="one shared FWP", isolate="shared", length=1)
PER_CLIENT = Subject(name="FWP per client", isolate="client", length=1)
CHAIN_PER_CLIENT = Subject(name="chain of 3 per client", isolate="client", length=3)
SUBJECTS = (SHARED, PER_CLIENT, CHAIN_PER_CLIENT)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Time under way in nanoseconds at the fixed load, messages that were lost of those sent, and messages a second."""

    p50_ns: float
    p99_ns: float
    p999_ns: float
    sent: int
    lost: int
    late: float
    throughput: float


def from_memory(subject: Subject, clients: int, module: Path, seconds: float) -> Passage:
    """From when a message was due to its arrival in the sink, by the kernel's clock. Raises EdgeosError."""
    warm_up = WARM_LAPS * clients
    offered = int(MEMORY_RATE * seconds)
    sink = _native.MemoryPort("wan", sink=True, untimed=warm_up + offered // 20)
    source = _native.MemoryPort(
        "lan", loop=_packets(clients), loop_limit=warm_up + offered, rate=MEMORY_RATE, unpaced=warm_up, lossless=True
    )
    with _memory_node(subject, clients, module, source, sink) as node:
        if not node.wait(seconds + _DRAIN_SECONDS):
            raise EdgeosError(f"{subject.name}, {clients:,} clients: the node does not come to its end")
        statistics = node.stop()
    if statistics.balance != 0:
        raise EdgeosError(f"{subject.name}, {clients:,} clients: balance {statistics.balance}")
    return Passage(
        p50_ns=sink.latency_ns(0.5),
        p99_ns=sink.latency_ns(0.99),
        p999_ns=sink.latency_ns(0.999),
        sent=statistics.received,
        lost=statistics.received - statistics.sent,
        late=0.0,
        throughput=_throughput(subject, clients, module, seconds / 2),
    )


def _throughput(subject: Subject, clients: int, module: Path, seconds: float) -> float:
    """Messages a second when the port delivers as fast as the node takes, and waits when a chain is full."""
    sink = _native.MemoryPort("wan", sink=True)
    source = _native.MemoryPort("lan", loop=_packets(clients), lossless=True)
    with _memory_node(subject, clients, module, source, sink) as node:
        node.wait(seconds / 5)
        while node.statistics(guest_counters=False).received < WARM_LAPS * clients:
            node.wait(seconds / 10)
        before = node.statistics(guest_counters=False)
        node.wait(seconds)
        after = node.statistics(guest_counters=False)
    return (after.sent - before.sent) / ((after.elapsed_ns - before.elapsed_ns) / SECOND_NS)


def _memory_node(
    subject: Subject, clients: int, module: Path, source: _native.MemoryPort, sink: _native.MemoryPort
) -> Node:
    node = Node(NodeSettings(wait="spin"))
    node.add_port(source)
    node.add_port(sink)
    node.add_template(_template(module))
    node.add_chain(_chain(subject, clients))
    node.add_rule("any", chain="edge")
    with pinned(service_cores()):
        node.start()
    return node


def from_wire(
    subject: Subject, clients: int, module: Path, seconds: float, *, spaces: Spaces, kind: PacketKind, paced: Path
) -> Passage:
    """From the sender's hand-over to the kernel to the receiver, through a node's ports. Raises EdgeosError."""
    with spaces.node(kind, NodeSettings(wait="spin"), _template(module), _chain(subject, clients)):
        return through(spaces, paced, clients, seconds, ready_seconds=_MAKE_SECONDS * subject.fwps(clients))


def through(spaces: Spaces, paced: Path, clients: int, seconds: float, *, ready_seconds: float = 0.0) -> Passage:
    """The same through whatever is in the middle now, and is ready for all clients after so long."""
    warm_up = _SETTLE_SECONDS + max(WARM_LAPS * clients / WIRE_RATE, ready_seconds)
    sent, received, _, p50, p99, p999, _, late = _paced(spaces, paced, clients, WIRE_RATE, warm_up, seconds)
    _, most, elapsed_ns, *_ = _paced(spaces, paced, clients, 0, _SETTLE_SECONDS / 2, seconds / 2)
    return Passage(
        p50_ns=p50,
        p99_ns=p99,
        p999_ns=p999,
        sent=sent,
        lost=sent - received,
        late=late / max(1, sent),
        throughput=most / (elapsed_ns / SECOND_NS),
    )


def _paced(spaces: Spaces, paced: Path, clients: int, rate: int, warm_up: float, seconds: float) -> list[int]:
    times = (str(int(1000 * warm_up)), str(int(1000 * seconds)))
    return spaces.run([str(paced), "{sender}", END, "{receiver}", END, str(clients), str(rate), *times])


def _template(module: Path) -> TemplateSettings:
    return TemplateSettings(name="rewrite", module=module)


def _chain(subject: Subject, clients: int) -> ChainSettings:
    return ChainSettings(
        name="edge",
        path=("lan", *["rewrite"] * subject.length, "wan"),
        isolate=subject.isolate,
        max_fwps=subject.fwps(clients) + _SPARE,
        idle_timeout_ns=_IDLE_TIMEOUT_NS,
    )


def _packets(clients: int) -> list[tuple[bytes, int]]:
    """One of each client, in an order that no cache foresees and that is the same in each run."""
    order = random.Random(1).sample(range(clients), clients)
    return [(udp_packet(address(client), "192.0.2.1", _PAYLOAD), 0) for client in order]
