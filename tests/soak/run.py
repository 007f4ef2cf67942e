"""The node under test, the cycle of faults, and what must hold after each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import edgeos
from edgeos import ChainSettings, Node, NodeSettings, NodeStatistics, PortSettings, TemplateSettings
from edgeos.bench.resident import resident
from soak.faults import FAULTS, calm
from soak.network import LINES, Network, network
from soak.supervised import WORKERS_PORT, Supervised, supervised
from soak.traffic import Tally, Traffic

GUESTS = Path(__file__).resolve().parents[1] / "guests"
PORT = 8007
FAULT_SECONDS = 5.0
CALM_ATTEMPTS = 3
"""A calm stretch must pass without a flaw; on a machine that is busy elsewhere a packet may be lost on the way."""

REST_SECONDS = 30.0
RESIDENT_GROWTH_MAX = 16 << 20
"""Bytes from the end of the first cycle, in which every FWP was in use, to the end of the last, Python's included."""

FILES_GROWTH_MAX = 0
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Held:
    """What this process, with the node in it, and the supervisor of workers hold when all is quiet."""

    resident: int
    files: int


class Soak:
    """One run. `problems` are what did not hold."""

    def __init__(self, around: Network, node: Node, workers: Supervised, seconds: float) -> None:
        self.problems: list[str] = []
        self._network = around
        self._node = node
        self._workers = workers
        self._begin = time.monotonic()
        self._end = self._begin + seconds
        self._runs = 0

    def run(self) -> None:
        """Calm, cycles of all faults until the time is over (two at least) or something does not hold, calm."""
        self._calm()
        first: Held | None = None
        cycles = 0
        faults = (*FAULTS, self._workers.workers_killed)
        while cycles < 2 or time.monotonic() + len(faults) * FAULT_SECONDS < self._end:
            for fault in faults:
                self._stretch(fault)
                if self.problems:
                    return
            cycles += 1
            held = self._held()
            first = first or held
        self._calm()
        assert first is not None
        last = self._settled(first)
        grown, files = last.resident - first.resident, last.files - first.files
        print(
            f"{cycles} cycles; from the first to the last memory grew by {grown / MIB:.1f} MiB, open files by {files}"
        )
        if grown > RESIDENT_GROWTH_MAX:
            self.problems.append(f"memory grew by {grown / MIB:.1f} MiB")
        if files > FILES_GROWTH_MAX:
            self.problems.append(f"{files} more files are open")

    def _settled(self, first: Held) -> Held:
        """What is held in the end; files of a process that is just being prepared get the time to close."""
        end = time.monotonic() + REST_SECONDS
        while (held := self._held()).files > first.files + FILES_GROWTH_MAX and time.monotonic() < end:
            time.sleep(0.2)
        return held

    def _calm(self) -> None:
        if not any(self._stretch(calm).flawless for _ in range(CALM_ATTEMPTS)):
            self.problems.append("something was lost although nothing was done to the node")

    def _stretch(self, fault: Callable[[Network, int, float], None]) -> Tally:
        """The fault, with traffic; then everything must have come to rest and be accounted for."""
        self._runs += 1
        name = fault.__name__.replace("_", " ")
        kills = self._kills()
        with Traffic(self._network, (PORT, WORKERS_PORT), self._runs) as tally:
            fault(self._network, PORT, FAULT_SECONDS)
        statistics = self._rest(name)
        held = self._held()
        failures = f", failed {tally.failures}" if tally.failures else ""
        print(
            f"{time.monotonic() - self._begin:5.0f} s  {name}: {tally.arrived:,} of {tally.sent:,} packets, "
            f"{sum(tally.exchanges.values()):,} exchanges{failures}, {self._kills() - kills} FWPs killed, "
            f"{sum(chain.activations for chain in statistics.chains):,} activations so far, "
            f"{held.resident / MIB:.1f} MiB, {held.files} files",
            flush=True,
        )
        if "wrong bytes" in tally.failures or "traffic did not end" in tally.failures:
            self.problems.append(f"{name}: {tally.failures}")
        if not all(tally.exchanges.values()) or tally.arrived == 0:
            self.problems.append(f"{name}: nobody was served")
        if "trapping" in name and self._kills() == kills:
            self.problems.append(f"{name}: no FWP was killed")
        return tally

    def _rest(self, name: str) -> NodeStatistics:
        """Waits until no message is in flight, no client lives and no connection is open; checks the sums."""
        end = time.monotonic() + REST_SECONDS
        while True:
            self._node.wait(0.05)
            statistics = self._node.statistics(guest_counters=False)
            live = sum(chain.live for chain in statistics.chains)
            open_connections = statistics.port("web").connections
            if statistics.in_flight == live == open_connections == 0:
                break
            if time.monotonic() > end:
                self.problems.append(
                    f"{name}: after {REST_SECONDS:g} s there are {statistics.in_flight} messages in flight, {live} "
                    f"live FWPs, {open_connections} open connections"
                )
                break
        self.check(statistics, name)
        self.problems += [f"{name}: {problem}" for problem in self._workers.problems()]
        return statistics

    def check(self, statistics: NodeStatistics, name: str) -> None:
        """The law of conservation, for the node and each chain."""
        for what, balance in (("the node", statistics.balance), *((c.name, c.balance) for c in statistics.chains)):
            if balance != 0:
                self.problems.append(f"{name}: {balance} messages of {what} are not accounted for")

    def _kills(self) -> int:
        return sum(sum(chain.kills.values()) for chain in self._node.statistics(guest_counters=False).chains)

    def _held(self) -> Held:
        memory, files = self._workers.held()
        return Held(resident=resident("self").rss + memory, files=len(os.listdir("/proc/self/fd")) + files)


@contextmanager
def running_node(around: Network) -> Iterator[Node]:
    """A node with two lines and a listener, in the middle namespace."""
    (_, lan, wan), (_, xlan, xwan), _ = LINES
    with Node(NodeSettings(wait="adaptive")) as node:
        for device in (lan, wan):
            node.add_port(PortSettings(name=device, kind="afpacket", device=device))
        for device in (xlan, xwan):
            node.add_port(PortSettings(name=device, kind="afxdp", device=device, fallback="afpacket"))
        node.add_port(PortSettings(name="web", kind="tcp", listen=f"0.0.0.0:{PORT}", idle_timeout_ns=10**10))
        node.add_template(TemplateSettings(name="hostile", source=GUESTS / "hostile.c"))
        node.add_template(TemplateSettings(name="monitor", appliance="monitor"))
        node.add_template(TemplateSettings(name="echo", source=GUESTS / "echo.c"))
        come_and_go = {"isolate": "client", "idle_timeout_ns": 300_000_000}
        node.add_chain(
            ChainSettings(name="edge", path=(lan, "hostile", "monitor", wan), max_fwps=4000, **come_and_go)  # type: ignore[arg-type]
        )
        node.add_chain(ChainSettings(name="xedge", path=(xlan, "monitor", xwan), max_fwps=2000, **come_and_go))  # type: ignore[arg-type]
        node.add_chain(ChainSettings(name="service", path=("web", "echo"), isolate="connection", max_fwps=300))
        for chain in ("edge", "xedge", "service"):
            node.add_rule("any", chain=chain)
        with around.middle.entered():
            node.start()
        yield node


def soak(seconds: float) -> int:
    """The whole run; the exit status."""
    print(f"soak for {seconds:g} s, edgeos {edgeos.__version__}", flush=True)
    with network() as around, running_node(around) as node, supervised(around) as workers:
        run = Soak(around, node, workers, seconds)
        run.run()
        statistics = node.stop()
        run.check(statistics, "in the end")
        if balance := workers.end():
            run.problems.append(f"in the end: {balance} messages of worker processes are not accounted for")
    modes = {port.name: port.mode for port in statistics.ports if port.mode}
    print(f"received {statistics.received:,}, balance {statistics.balance}, ports {modes}")
    for problem in run.problems:
        print(f"PROBLEM: {problem}")
    print("soak: " + ("failed" if run.problems else "all was well"))
    return 1 if run.problems else 0
