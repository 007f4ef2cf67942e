"""`edgeos bench listen`: echo over TCP, an FWP for each connection, beside processes, threads and one event loop."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import util
from itertools import product
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from edgeos.bench.cores import load_cores, pinned
from edgeos.bench.listen_links import LOOPBACK, ONE_CORE, TUN, Link, Loopback, tun_link
from edgeos.bench.listen_subjects import ASYNCIO, BARE, FWPS, PROCESSES, SUBJECTS, THREADS, UVLOOP, Services
from edgeos.bench.machine import this_machine
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.errors import EdgeosError
from edgeos.units import approximate_duration

COMPARED = 1000
"""Connections at which the ratios are taken."""

MESSAGE_BYTES = 64
BUSY_LOAD = 0.95
"""Share of its core from which the load generator may be what limits a figure."""

LOAD_SECONDS = 120.0

_NOTES = (
    f"one message of {MESSAGE_BYTES} bytes is in flight on each connection; the load generators are C programs on a "
    "core of their own, and check every byte",
    "tun: clients elsewhere; the generator speaks TCP by itself behind a TUN device, so that the service's system does "
    "the service's part of TCP only, and what it does for a packet that arrives is done on the generator's core",
    "tun, one core: the same, but what is done for a packet that arrives is done on the service's core, too",
    "loopback: clients in the service's system, which does the clients' TCP, too, and each side bears a part of the "
    "other's. The promised ratios are those over tun; the others stand beside them",
    "messages a second and the time of a message are medians of the repetitions, ratios those of the repetitions' own "
    "ratios; the subjects take turns",
    "isolation: an FWP, a process for each connection; threads share their memory, an event loop shares everything",
    "the bare loop is the limit: a C program that does no more than the system calls for a message",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures, and for how long each."""

    connections: Sequence[int]
    repetitions: int
    warm_up_ms: int
    milliseconds: int


FULL = Plan(connections=(1, 100, COMPARED, 5000), repetitions=5, warm_up_ms=150, milliseconds=450)
QUICK = Plan(connections=(1, COMPARED), repetitions=1, warm_up_ms=50, milliseconds=150)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the load generator saw: messages a second, times of a message, and the share of a core that it used."""

    rate: float
    p50_ns: float
    p99_ns: float
    generator_busy: float


class Case(NamedTuple):
    """What one figure is of."""

    link: str
    subject: str
    connections: int

    def __str__(self) -> str:
        return f"{self.subject} with {self.connections:,} connections over {self.link}"


def run(quick: bool = False, plan: Plan | None = None) -> Result:
    """Measures everything in turns, several times over, and takes medians. Raises EdgeosError."""
    machine = this_machine()
    plan = plan or (QUICK if quick else FULL)
    with Programs() as programs:
        bench = _Bench(plan, programs)
        bench.measure_all()
        compiler = programs.compiler
    loads = {case: _median(values) for case, values in bench.samples.items() if case not in bench.failed}
    ratios = ratios_of({case: bench.samples[case] for case in loads})
    not_measured = ["real networks: clients and services share one machine"]
    not_measured += [f"{name}: {why}" for name, why in bench.missing.items()]
    not_measured += [f"{case}: {why}" for case, why in bench.failed.items()]
    if machine.cores == 1:
        not_measured.append("the load generator on a core of its own: there is one core only, so services share it")
    return Result(
        benchmark="listen",
        quick=quick,
        machine=machine,
        results={"loads": [_row(case, load) for case, load in loads.items()]},
        ratios=ratios,
        bars=(
            Bar(name="vs_process_per_connection_1000", value=ratios["vs_process_per_connection_1000"], bar=3, goal=10),
            Bar(name="vs_uvloop_1000", value=ratios["vs_uvloop_1000"], bar=2),
        ),
        notes=(*_NOTES, f"C programs by {compiler}", *limits(loads)),
        not_measured=tuple(not_measured),
        tables=tuple(_table(link, loads) for link in dict.fromkeys(case.link for case in loads)),
    )


class _Bench:
    """What takes part, what was measured of it, and why something was not."""

    def __init__(self, plan: Plan, programs: Programs) -> None:
        self.samples: dict[Case, list[Load]] = defaultdict(list)
        self.failed: dict[Case, str] = {}
        self.missing: dict[str, str] = {}
        if not util.find_spec("uvloop"):
            self.missing[UVLOOP] = "not installed: pip install 'edgeos[bench]'"
        self._plan = plan
        self._programs = programs
        self._services = Services(programs)
        self._subjects = [name for name in SUBJECTS if name not in self.missing]

    def measure_all(self) -> None:
        """Over two links in turns, then over the third, which must not be there meanwhile: see `listen_links`."""
        per_link = self._plan.repetitions * len(self._subjects)
        with Steps(per_link * (2 * len(self._plan.connections) + 1)) as steps:
            with ExitStack() as stack:
                links = [*self._opened(TUN, stack), Loopback(self._programs)]
                self._take_turns(links, self._plan.connections, steps)
            with ExitStack() as stack:
                self._take_turns(self._opened(ONE_CORE, stack), [COMPARED], steps)

    def _opened(self, name: str, stack: ExitStack) -> list[Link]:
        """The link; none, and why, where there can be none."""
        try:
            return [stack.enter_context(tun_link(self._programs, one_core=name == ONE_CORE))]
        except EdgeosError as error:
            self.missing[f"clients elsewhere, over {name}"] = str(error)
            return []

    def _take_turns(self, links: Sequence[Link], connections: Sequence[int], steps: Steps) -> None:
        for _ in range(self._plan.repetitions):
            for count, link, subject in product(connections, links, self._subjects):
                case = Case(link.name, subject, count)
                steps.next(str(case))
                try:
                    with self._services.started(subject, link, count) as port:
                        self.samples[case].append(measure(link, port, count, self._plan))
                except EdgeosError as error:
                    if subject == FWPS:
                        raise
                    self.failed[case] = str(error)


def measure(link: Link, port: int, connections: int, plan: Plan) -> Load:
    """What a service at that port of the link carries. Raises EdgeosError when it does not do its work."""
    command, files = link.load_command(port, (connections, MESSAGE_BYTES, plan.warm_up_ms, plan.milliseconds))
    with pinned(load_cores()):
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=files)
    try:
        found, words = load.communicate(timeout=LOAD_SECONDS)
    except subprocess.TimeoutExpired:
        load.kill()
        load.communicate()
        raise EdgeosError(f"{connections} connections were not answered in time") from None
    if load.returncode != 0:
        raise EdgeosError(words.strip()[-300:] or f"the load generator ended with {load.returncode}")
    link.check()
    return load_of(found)


def load_of(line: str) -> Load:
    """The line that a load generator prints."""
    messages, elapsed_ns, p50_ns, p99_ns, busy = map(float, line.split())
    return Load(rate=messages / (elapsed_ns / 1e9), p50_ns=p50_ns, p99_ns=p99_ns, generator_busy=busy)


def _median(loads: Sequence[Load]) -> Load:
    return Load(
        rate=median(load.rate for load in loads),
        p50_ns=median(load.p50_ns for load in loads),
        p99_ns=median(load.p99_ns for load in loads),
        generator_busy=max(load.generator_busy for load in loads),
    )


def ratios_of(samples: Mapping[Case, Sequence[Load]]) -> dict[str, float | None]:
    """Of messages a second at COMPARED connections: over tun, and with a suffix over the others.

    Medians of the repetitions' own ratios, whose two sides were measured soon after each other.
    """
    pairs = {
        "vs_process_per_connection": (FWPS, PROCESSES),
        "vs_thread_per_connection": (FWPS, THREADS),
        "vs_uvloop": (FWPS, UVLOOP),
        "vs_asyncio": (FWPS, ASYNCIO),
        "vs_bare_loop": (FWPS, BARE),
        "bare_loop_vs_process_per_connection": (BARE, PROCESSES),
        "bare_loop_vs_uvloop": (BARE, UVLOOP),
    }

    def of(link: str, one: str, other: str) -> float | None:
        both = (samples.get(Case(link, subject, COMPARED), ()) for subject in (one, other))
        ratios = [ours.rate / theirs.rate for ours, theirs in zip(*both, strict=False)]
        return median(ratios) if ratios else None

    return {
        f"{name}_{COMPARED}{suffix}": of(link, *pair)
        for link, suffix in ((TUN, ""), (ONE_CORE, "_one_core"), (LOOPBACK, "_loopback"))
        for name, pair in pairs.items()
    }


def _row(case: Case, load: Load) -> dict[str, Any]:
    return {
        **case._asdict(),
        "messages_per_second": load.rate,
        "p50_ns": load.p50_ns,
        "p99_ns": load.p99_ns,
        "generator_busy": load.generator_busy,
    }


def limits(loads: Mapping[Case, Load]) -> tuple[str, ...]:
    """Which figures the load generator limited, if any."""
    at_limit = [str(case) for case, load in loads.items() if load.generator_busy >= BUSY_LOAD]
    if not at_limit:
        return ()
    return (f"the load generator used its whole core, so these could have done more: {'; '.join(at_limit)}",)


def _table(link: str, loads: Mapping[Case, Load]) -> Table:
    columns = ("messages/s", "p50", "p99", "generator")
    table = plain_table("connections", "service", *columns, left=0, title=f"Echo over TCP, 64 bytes, {link}")
    table.columns[1].justify = "left"
    for case, load in sorted(loads.items(), key=lambda entry: entry[0].connections):
        if case.link == link:
            times = (approximate_duration(load.p50_ns), approximate_duration(load.p99_ns))
            table.add_row(
                f"{case.connections:,}", case.subject, f"{load.rate:,.0f}", *times, f"{load.generator_busy:.0%}"
            )
    return table
