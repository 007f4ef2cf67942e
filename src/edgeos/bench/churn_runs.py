"""Clients that come and go at a real node, at a steady rate, from memory: the runs of `edgeos bench churn`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeos import _native
from edgeos.bench.live import address
from edgeos.bench.resident import resident
from edgeos.errors import EdgeosError
from edgeos.node import Node
from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings
from edgeos.testing import udp_packet

MESSAGES = 4
"""Of a client in the first half of its life; then it is silent until the node takes its FWP back."""

SECOND_NS = 1_000_000_000
SPARE = 1.3  # room for clients that leave a little late, and for a generator that catches up
LATE_NS = 100_000_000
"""So much later some leave, whatever the lifetime: when the system disturbs, and while the first FWPs are made."""

LIVE_MOST = 15_000
"""Clients at a time for which a run makes room: as many as must live at once, see `bench density`."""

KEPT_UP = 0.98  # share of what was offered
DRAIN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """`rate` new clients a second, each of which is there for `lifetime_ns` and sends `messages`, for `seconds`."""

    rate: int
    lifetime_ns: int
    messages: int
    seconds: float

    @property
    def gap_ns(self) -> int:
        """Between two messages of a client; the last is half a life before its end."""
        return self.lifetime_ns // (2 * (self.messages - 1)) if self.messages > 1 else 0

    @property
    def idle_timeout_ns(self) -> int:
        """What is left of a life after the last message."""
        return self.lifetime_ns - self.gap_ns * (self.messages - 1)

    @property
    def live(self) -> int:
        """Clients at a time."""
        return max(1, self.rate * self.lifetime_ns // SECOND_NS)

    @property
    def live_max(self) -> int:
        """Room that a node needs for them."""
        return min(LIVE_MOST, int(SPARE * self.live) + self.rate * LATE_NS // SECOND_NS + 64)

    def loop(self) -> list[tuple[bytes, int]]:
        """The messages in their order; a client's address comes again when it is sure to have left.

        It begins with the first client alone, who stands in for those that would be amid their lives: as long as
        nobody knows them they would be new, and so many more than `rate`.
        """
        clients = 2 * self.live_max
        gap = self.gap_ns * self.rate // SECOND_NS  # in clients
        packets = [udp_packet(address(client), "192.0.2.1", bytes(22)) for client in range(clients)]
        return [
            (packets[max(0, begun - message * gap)], 0) for begun in range(clients) for message in range(self.messages)
        ]


@dataclass(frozen=True, kw_only=True)
class Churn:
    """What a node made of a crowd. `lost` messages were dropped for any reason; quantiles are buckets of 6 %.

    `latency` is from when a message was due to its answer. `drift` is what resident memory grew by in the second half.
    """

    rate: float
    activations: int
    received: int
    lost: int
    kept_up: bool
    activation_p50_ns: float
    activation_p99_ns: float
    latency_p50_ns: float
    latency_p99_ns: float
    peak: int
    made_on_path: int
    drift: int


def run_crowd(crowd: Crowd, module: Path) -> Churn:
    """Raises EdgeosError when messages are not accounted for."""
    per_second = crowd.rate * crowd.messages
    offered = int(per_second * crowd.seconds)
    port = _native.MemoryPort(
        "lan", loop=crowd.loop(), loop_limit=offered, rate=per_second, sink=True, untimed=offered // 10
    )
    with Node(NodeSettings(max_flows=65536, memory="compact", wait="spin")) as node:
        node.add_port(port)
        node.add_template(
            TemplateSettings(name="reflect", module=module, ready_low=min(64, crowd.live_max), ready_high=256)
        )
        node.add_chain(
            ChainSettings(
                name="edge",
                path=("lan", "reflect"),
                max_fwps=crowd.live_max,
                idle_timeout_ns=crowd.idle_timeout_ns,
            )
        )
        node.add_rule("ip", chain="edge")
        node.start()
        node.wait(crowd.seconds / 2)
        half = resident("self").rss
        node.wait(crowd.seconds / 2)
        drift = resident("self").rss - half
        in_time = node.statistics(guest_counters=False).received
        if not node.wait(DRAIN_SECONDS):
            raise EdgeosError(f"{crowd}: the node does not come to its end")
        statistics = node.stop()
    chain = statistics.chain("edge")
    lost = sum(chain.dropped.values()) + sum(statistics.dropped.values())
    if statistics.balance != 0 or statistics.received != offered:
        raise EdgeosError(f"{crowd}: balance {statistics.balance}, {statistics.received} of {offered} received")
    return Churn(
        rate=chain.activations / crowd.seconds,
        activations=chain.activations,
        received=statistics.received,
        lost=lost,
        kept_up=in_time >= KEPT_UP * offered,
        activation_p50_ns=chain.activation_p50_ns,
        activation_p99_ns=chain.activation_p99_ns,
        latency_p50_ns=port.latency_ns(0.5),
        latency_p99_ns=port.latency_ns(0.99),
        peak=chain.peak,
        made_on_path=chain.stages[0].made_on_path,
        drift=drift,
    )
