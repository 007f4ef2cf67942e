"""`edgeos bench listen`: echo over TCP, an FWP for each connection, beside processes, threads and one event loop.

edgeos takes part twice: with TCP within the FWP, past the kernel, and behind a listener, with the kernel's TCP as all
others. The promised ratios are those of the first.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import util
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from edgeos.bench.cores import load_cores, pinned
from edgeos.bench.listen_links import LOOPBACK, ONE_CORE, TAP, Link, Loopback, tap_link
from edgeos.bench.listen_subjects import (
    ASYNCIO,
    BARE,
    LISTENER,
    NODES,
    PROCESSES,
    SUBJECTS,
    TCP_FWPS,
    THREADS,
    UVLOOP,
    Services,
)
from edgeos.bench.machine import this_machine
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Missing, Result, by_reason, plain_table
from edgeos.errors import EdgeosError, PortError
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
    f"{TCP_FWPS}: past the kernel. It needs a device, CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON, and takes "
    "the packets of its service from the device by AF_XDP; each connection's FWP runs TCP for it. All others, edgeos' "
    "listener among them, use the kernel's TCP, without privileges. Clients, link and cores are the same",
    "tap: clients elsewhere, behind a router; the generator speaks TCP by itself behind a TAP device, so that the "
    "service's system does the service's part of TCP only, and what it does for a packet that arrives (with AF_XDP: a "
    "copy) is done on the generator's core",
    "tap, one core: the same, but what is done for a packet that arrives is done on the service's core, too. "
    f"{TCP_FWPS} is not measured there, as AF_XDP takes a packet where it is handed over, before another core could "
    "receive it; nor over loopback, which is no device for it",
    "loopback: clients in the service's system, which does the clients' TCP, too, and each side bears a part of the "
    "other's",
    f"ratios are those of {TCP_FWPS} over tap, which are promised; with listener_ those of the listener, and with a "
    "suffix over the other links",
    "messages a second and the time of a message are medians of the repetitions, ratios those of the repetitions' own "
    "ratios; the subjects take turns",
    f"isolation: an FWP ({TCP_FWPS}, {LISTENER}), a process for each connection; threads share their memory, an event "
    "loop shares everything",
    "the bare loop is the limit of what uses the kernel's TCP: a C program that does no more than the system calls for "
    "a message",
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
    """What the load generator saw: messages a second, times of a message, and the share of a core that it used.

    `repeated` is how often it sent something again that the service had not acknowledged within a second.
    """

    rate: float
    p50_ns: float
    p99_ns: float
    generator_busy: float
    repeated: int = 0


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
    not_measured += by_reason(
        Missing(f"{case.subject} over {case.link}", str(case), why) for case, why in bench.failed.items()
    )
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
        notes=(*_NOTES, f"C programs by {compiler}", *limits(loads), *repetitions(loads)),
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

    def measure_all(self) -> None:
        """Over two links in turns, then over the third, which must not be there meanwhile: see `listen_links`."""
        counts = self._plan.connections
        with ExitStack() as stack:
            self._take_turns([*self._opened(TAP, stack), Loopback(self._programs)], counts)
        with ExitStack() as stack:
            self._take_turns(self._opened(ONE_CORE, stack), [COMPARED])

    def _opened(self, name: str, stack: ExitStack) -> list[Link]:
        """The link; none, and why, where there can be none."""
        try:
            return [stack.enter_context(tap_link(self._programs, one_core=name == ONE_CORE))]
        except EdgeosError as error:
            self.missing[f"clients elsewhere, over {name}"] = str(error)
            return []

    def _take_turns(self, links: Sequence[Link], connections: Sequence[int]) -> None:
        cases = [(count, link, name) for count in connections for link in links for name in self._subjects_over(link)]
        with Steps(self._plan.repetitions * len(cases)) as steps:
            for _ in range(self._plan.repetitions):
                for count, link, subject in cases:
                    steps.next(str(Case(link.name, subject, count)))
                    self._measure(count, link, subject)

    def _subjects_over(self, link: Link) -> list[str]:
        lacking = {*self.missing, *((TCP_FWPS,) if link.device is None else ())}
        return [name for name in SUBJECTS if name not in lacking]

    def _measure(self, connections: int, link: Link, subject: str) -> None:
        case = Case(link.name, subject, connections)
        try:
            with self._services.started(subject, link, connections) as port:
                self.samples[case].append(measure(link, port, connections, self._plan))
        except PortError as error:  # AF_XDP, which not every system has
            self.failed[case] = str(error)
        except EdgeosError as error:
            if subject in NODES:
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


def load_of(output: str) -> Load:
    """What a load generator prints; only that of clients elsewhere says how often it repeated something."""
    messages, elapsed_ns, p50_ns, p99_ns, busy, *repeated = map(float, output.split())
    rate = messages / (elapsed_ns / 1e9)
    return Load(rate=rate, p50_ns=p50_ns, p99_ns=p99_ns, generator_busy=busy, repeated=int(sum(repeated)))


def _median(loads: Sequence[Load]) -> Load:
    return Load(
        rate=median(load.rate for load in loads),
        p50_ns=median(load.p50_ns for load in loads),
        p99_ns=median(load.p99_ns for load in loads),
        generator_busy=max(load.generator_busy for load in loads),
        repeated=sum(load.repeated for load in loads),
    )


def ratios_of(samples: Mapping[Case, Sequence[Load]]) -> dict[str, float | None]:
    """Of messages a second at COMPARED connections: over tap, and with a suffix over the others.

    Medians of the repetitions' own ratios, whose two sides were measured soon after each other.
    """
    peers = {
        "process_per_connection": PROCESSES,
        "thread_per_connection": THREADS,
        "uvloop": UVLOOP,
        "asyncio": ASYNCIO,
        "bare_loop": BARE,
    }

    def of(link: str, one: str, other: str) -> float | None:
        both = (samples.get(Case(link, subject, COMPARED), ()) for subject in (one, other))
        ratios = [ours.rate / theirs.rate for ours, theirs in zip(*both, strict=False)]
        return median(ratios) if ratios else None

    ratios = {
        f"vs_{name}_{COMPARED}": of(TAP, TCP_FWPS, peer) for name, peer in {**peers, "listener": LISTENER}.items()
    }
    for link, suffix in ((TAP, ""), (ONE_CORE, "_one_core"), (LOOPBACK, "_loopback")):
        for name, peer in peers.items():
            ratios[f"listener_vs_{name}_{COMPARED}{suffix}"] = of(link, LISTENER, peer)
        for name in ("process_per_connection", "uvloop"):
            ratios[f"bare_loop_vs_{name}_{COMPARED}{suffix}"] = of(link, BARE, peers[name])
    return ratios


def _row(case: Case, load: Load) -> dict[str, Any]:
    return {
        **case._asdict(),
        "messages_per_second": load.rate,
        "p50_ns": load.p50_ns,
        "p99_ns": load.p99_ns,
        "generator_busy": load.generator_busy,
        "repeated": load.repeated,
    }


def limits(loads: Mapping[Case, Load]) -> tuple[str, ...]:
    """Which figures the load generator limited, if any."""
    at_limit = [str(case) for case, load in loads.items() if load.generator_busy >= BUSY_LOAD]
    if not at_limit:
        return ()
    return (f"the load generator used its whole core, so these could have done more: {'; '.join(at_limit)}",)


def repetitions(loads: Mapping[Case, Load]) -> tuple[str, ...]:
    """Where clients had to send something again, if anywhere."""
    found = [f"{case} ({load.repeated:,} times)" for case, load in loads.items() if load.repeated]
    return (f"what clients sent was lost, or not acknowledged within a second: {'; '.join(found)}",) if found else ()


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
