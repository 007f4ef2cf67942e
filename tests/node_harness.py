"""A node between memory ports, run step by step on the test's own thread, and the guests in tests/guests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeos import ChainSettings, Node, NodeSettings, NodeStatistics, TemplateSettings, testing
from edgeos._native import MemoryPort

GUESTS = Path(__file__).resolve().parent / "guests"
MILLISECOND_NS = 1_000_000
ITERATIONS_MAX = 100_000


def guest(name: str, source: str | None = None, **settings: object) -> TemplateSettings:
    """A template of a guest in tests/guests, with a small pool so that nodes are made quickly."""
    values = {"ready_low": 1, "ready_high": 4, "source": GUESTS / f"{source or name}.c", **settings}
    return TemplateSettings(name=name, **values)  # type: ignore[arg-type]


@dataclass
class Rig:
    """A running node with its memory ports by name."""

    node: Node
    ports: dict[str, MemoryPort]

    def inject(self, port: str, *frames: bytes) -> None:
        for frame in frames:
            assert self.ports[port].inject(frame)

    def settle(self) -> NodeStatistics:
        """Runs until there is nothing more to do; every message is accounted for after each step."""
        for _ in range(ITERATIONS_MAX):
            busy = self.node.run_once()
            self.check()
            if not busy:
                return self.check()
        raise AssertionError("the node does not come to rest")

    def check(self) -> NodeStatistics:
        """The statistics, after the law of conservation has been checked for the node and each chain."""
        statistics = self.node.statistics(guest_counters=False)
        assert statistics.balance == 0, statistics
        for chain in statistics.chains:
            assert chain.balance == 0, chain
        return statistics

    def pass_through(self, port: str, *frames: bytes, out: str | None = None) -> list[bytes]:
        """Injects frames, runs the node, and takes what came out of a port (the other one of two)."""
        self.inject(port, *frames)
        self.settle()
        return self.take(out or next(name for name in self.ports if name != port))

    def take(self, port: str) -> list[bytes]:
        return [data for data, _ in self.ports[port].take()]


@contextmanager
def rig(
    templates: Sequence[TemplateSettings],
    chains: Sequence[ChainSettings],
    rules: Sequence[tuple[str, str]] | None = None,
    *,
    ports: Sequence[str] = ("lan", "wan"),
    lossless: bool = False,
    capacity: int = 4096,
    settings: NodeSettings | None = None,
) -> Iterator[Rig]:
    """A node of these parts. Rules pair a match with a chain or "drop"; without them all goes to the first chain."""
    with ExitStack() as stack:
        node = stack.enter_context(Node(settings))
        made = {
            name: stack.enter_context(testing.memory_port(name, lossless=lossless, capacity=capacity)) for name in ports
        }
        for port in made.values():
            node.add_port(port)
        for template in templates:
            node.add_template(template)
        for chain in chains:
            node.add_chain(chain)
        for match, name in rules or (("any", chains[0].name),):
            node.add_rule(match, chain=None if name == "drop" else name, drop=name == "drop")
        yield Rig(node, made)


@contextmanager
def line(
    *templates: TemplateSettings, settings: NodeSettings | None = None, lossless: bool = False, **chain: object
) -> Iterator[Rig]:
    """A node with one chain, a line from lan to wan that everything takes."""
    values = {"name": "edge", "path": ("lan", *(t.name for t in templates), "wan"), "max_fwps": 32, **chain}
    with rig(templates, [ChainSettings(**values)], settings=settings, lossless=lossless) as made:  # type: ignore[arg-type]
        yield made


def client_packet(client: int, payload: bytes = b"", *, sport: int = 40000, dport: int = 53) -> bytes:
    """A UDP packet of client 10.0.x.y to one server; the payload starts at byte 42."""
    return testing.udp_packet(f"10.0.{client >> 8}.{client & 255}", "192.0.2.1", payload, sport=sport, dport=dport)
