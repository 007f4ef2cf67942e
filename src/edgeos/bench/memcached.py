"""`edgeos bench memcached`: an FWP for each client beside a memcached process for each, and one shared by all."""

from __future__ import annotations

import select
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from rich.table import Table

from edgeos.bench.cores import load_cores, pinned, service_cores
from edgeos.bench.machine import this_machine
from edgeos.bench.memcached_parked import Parked, measure_parked, notes, parked_table
from edgeos.bench.memcached_subjects import (
    FWPS,
    NULL,
    PROCESSES,
    SHARED,
    Subject,
    memcached_program,
    node,
    null_responder,
    processes,
    shared_process,
)
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.resident import Resident
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import ratio
from edgeos.errors import EdgeosError
from edgeos.units import approximate_duration

KIB = 1024
COMPARED = 1000
"""Clients at which the ratios are taken."""

COMPARED_BYTES = 100
"""Bytes of the values with which they are taken."""

SMALL_BYTES = 20
"""Bytes of the ten values that each client holds while memory is read."""

OFFERED_SHARE = 0.7
"""Of the requests a second that the node carries in a closed loop, offered to all."""

MIXES: Mapping[str, int] = {"GET-heavy": 10, "SET-heavy": 90}
"""Percent of requests that store; the others read."""

QUANTILES = (*((0.5 + number) / 100 for number in range(99)), 0.99, 0.999, 1.0)
RUN_SECONDS = 60.0

_NOTES = (
    "each client has an address of its own, one connection and ten keys; keys and operations are chosen at random, and "
    "every answer is compared byte for byte; GET-heavy stores with 10 % of its requests, SET-heavy with 90 %",
    "closed loop: one request in flight on each connection; offered load: requests at random times (Poisson) whether "
    f"or not answers come, {OFFERED_SHARE:.0%} of what the node carries in the closed loop; times run from the "
    "intended moment, unanswered requests count with the time they waited",
    "the subjects take turns on the same cores, and are stopped while they are not measured; ratios are medians of the "
    f"repetitions' own ratios, at {COMPARED:,} clients, GET-heavy, {COMPARED_BYTES} bytes",
    f"memory: proportional set sizes with ten values of {SMALL_BYTES} bytes for each client; the process of the "
    "data plane, Python included, against the sum of the memcached processes (-t 1)",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures: clients, the sizes of values at each number of clients, and for how long."""

    sizes: Mapping[int, Sequence[int]]
    repetitions: int
    offered_repetitions: int
    warm_up_ms: int
    milliseconds: int
    offered_ms: int
    parked: int
    """Clients that are away while their caches are kept; a quarter of them comes back."""
    seconds: float = 60.0
    """After which no more repetitions are begun, nor other numbers of clients."""


FULL = Plan(
    sizes={
        10: (COMPARED_BYTES,),
        100: (10, COMPARED_BYTES, KIB),
        300: (COMPARED_BYTES,),
        COMPARED: (10, COMPARED_BYTES, KIB),
    },
    repetitions=3,
    offered_repetitions=3,
    warm_up_ms=150,
    milliseconds=600,
    offered_ms=1500,
    parked=4000,
    seconds=210.0,
)
QUICK = Plan(
    sizes={10: (COMPARED_BYTES,), COMPARED: (COMPARED_BYTES,)},
    repetitions=1,
    offered_repetitions=1,
    warm_up_ms=150,
    milliseconds=600,
    offered_ms=800,
    parked=1000,
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One run of the load generator: requests a second, and the times that they took at QUANTILES, ns."""

    rate: float
    unanswered: int
    times_ns: tuple[float, ...]
    generator_busy: float

    @property
    def p50_ns(self) -> float:
        return self.times_ns[49]

    @property
    def p99_ns(self) -> float:
        return self.times_ns[-3]

    @property
    def p999_ns(self) -> float:
        return self.times_ns[-2]


@dataclass(frozen=True)
class Case:
    """What one figure is of. `offered` are requests a second, 0 for the closed loop."""

    clients: int
    mix: str
    bytes: int
    offered: float = 0.0


def run(quick: bool = False, plan: Plan | None = None) -> Result:
    """Measures everything in turns, several times over. Raises EdgeosError."""
    machine = this_machine()
    plan = plan or (QUICK if quick else FULL)
    program = memcached_program()
    with Programs() as programs:
        bench = _Bench(plan, programs.make("memcached_load"))
        null = bench.measure_null(programs.make("memcached_null"))
        with bench.subjects(program) as subjects, Steps(bench.steps(len(subjects))) as steps:
            memory = bench.measure_memory(subjects, steps)
            loads = bench.measure_loads(subjects, steps)
    parked = measure_parked(plan.parked, plan.parked // 4, SMALL_BYTES)
    medians = {key: _median(values) for key, values in loads.items()}
    results = dict(sorted(medians.items(), key=lambda entry: entry[0][1].clients))
    rows = [_row(name, case, load) for (name, case), load in results.items()]
    client_kib = _client_kib(memory)
    ratios = {**_ratios(loads, memory), "memory_live_vs_parked": _live_vs_parked(client_kib, parked)}
    not_measured = ["real networks: clients and services share one machine"]
    if program is None:
        not_measured.append("memcached, as a process for each client and as one for all: it is not installed")
    not_measured += bench.skipped
    if machine.cores == 1:
        not_measured.append("the load generator on a core of its own: there is one core only, so services share it")
    return Result(
        benchmark="memcached",
        quick=quick,
        machine=machine,
        results={
            "loads": rows,
            "null_responder": {"requests_per_second": null.rate, "generator_busy": null.generator_busy},
            "memory": [
                {"subject": name, "clients": clients, **asdict(held)} for (name, clients), held in memory.items()
            ],
            "client_kib": client_kib,
            "parked": parked.as_dict(),
            "quantiles": QUANTILES,
        },
        ratios=ratios,
        bars=(
            Bar(name="p99_vs_processes_1000", value=ratios["p99_vs_processes_1000"], bar=50, goal=1000),
            Bar(name="throughput_vs_processes_1000", value=ratios["throughput_vs_processes_1000"], bar=4),
            Bar(name="memory_vs_processes_1000", value=ratios["memory_vs_processes_1000"], bar=40),
            Bar(name="throughput_vs_shared_1000", value=ratios["throughput_vs_shared_1000"], bar=0.8),
            Bar(name="one client more", value=client_kib, bar=64, better="lower", unit="KiB"),
        ),
        notes=(*_NOTES, *notes(), _null_note(null, results), f"C programs by {programs.compiler}"),
        not_measured=tuple(not_measured),
        tables=(_closed_table(results), _offered_table(results), _memory_table(memory), parked_table(parked)),
    )


class _Generator:
    """The load generator with its connections to one subject. A context manager."""

    def __init__(self, program: Path, subject: Subject, clients: int, cores: set[int]) -> None:
        self._subject = subject
        numbers = (subject.address, subject.step, subject.port, clients)
        with pinned(cores):
            self._process = subprocess.Popen(
                [str(program), *map(str, numbers)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def store(self, size: int) -> None:
        """Each client stores its ten values."""
        self._ask(f"{size} 0 0 0 0")

    def run(self, size: int, set_percent: int, rate: float, warm_up_ms: int, milliseconds: int) -> Load:
        """One run. Raises EdgeosError when the subject does not do its work."""
        answered, unanswered, elapsed, busy, *times = map(
            float, self._ask(f"{size} {set_percent} {rate:.0f} {warm_up_ms} {milliseconds}").split()
        )
        if len(times) != len(QUANTILES):
            raise EdgeosError(f"the load generator has printed {len(times)} times instead of {len(QUANTILES)}")
        return Load(
            rate=answered / (elapsed / 1e9), unanswered=int(unanswered), times_ns=tuple(times), generator_busy=busy
        )

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], RUN_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            _, words = self._process.communicate()
            raise EdgeosError(f"{self._subject.name}: {words.strip()[-300:] or 'no answer in time'}")
        return line


class _Bench:
    """The plan, the load generator, and the cores that services and the generator run on."""

    def __init__(self, plan: Plan, load: Path) -> None:
        self.plan = plan
        self._load = load
        self.skipped: list[str] = []
        self._end = time.monotonic() + plan.seconds
        self._load_cores = load_cores()
        self._service_cores = service_cores()

    def steps(self, subjects: int) -> int:
        cases = sum(len(sizes) * len(MIXES) * self.plan.repetitions for sizes in self.plan.sizes.values())
        offered = sum(len(self._offered_mixes(clients)) for clients in self.plan.sizes) * self.plan.offered_repetitions
        return subjects * (len(self.plan.sizes) + cases + offered)

    @contextmanager
    def subjects(self, program: str | None) -> Iterator[list[Subject]]:
        """All of them, paused."""
        most = max(self.plan.sizes)
        with ExitStack() as stack:
            found = [stack.enter_context(node(most, self._service_cores))]
            if program is not None:
                found.append(stack.enter_context(processes(program, most, self._service_cores)))
                found.append(stack.enter_context(shared_process(program, most, self._service_cores)))
            for subject in found:
                subject.pause()
            yield found

    def _generator(self, subject: Subject, clients: int) -> _Generator:
        subject.resume()
        try:
            return _Generator(self._load, subject, clients, self._load_cores)
        finally:
            subject.pause()

    def measure_null(self, program: Path) -> Load:
        """What the load generator can do, with a responder that does next to nothing."""
        most = max(self.plan.sizes)
        with null_responder(program, self._service_cores) as subject, self._generator(subject, most) as generator:
            subject.resume()
            return generator.run(COMPARED_BYTES, MIXES["GET-heavy"], 0, self.plan.warm_up_ms, self.plan.milliseconds)

    def measure_memory(self, subjects: Sequence[Subject], steps: Steps) -> dict[tuple[str, int], Resident]:
        """With no client (the node and the shared process), then with ever more of them."""
        found = {(subject.name, 0): subject.memory(0) for subject in subjects if not subject.step}
        for clients in self.plan.sizes:
            for subject in subjects:
                steps.next(f"{subject.name}, memory of {clients:,} clients")
                with self._generator(subject, clients) as generator:
                    subject.resume()
                    generator.store(SMALL_BYTES)
                    subject.pause()
                    found[subject.name, clients] = subject.memory(clients)
        return found

    def measure_loads(self, subjects: Sequence[Subject], steps: Steps) -> dict[tuple[str, Case], list[Load]]:
        """Closed loops, then the offered load that follows from them; most clients first, as ratios are taken there."""
        found: dict[tuple[str, Case], list[Load]] = defaultdict(list)
        for clients, sizes in sorted(self.plan.sizes.items(), reverse=True):
            if found and self._late():
                self.skipped.append(f"throughput and latency of {clients:,} clients: the run took too long already")
                continue
            with ExitStack() as stack:
                pairs = [(s, stack.enter_context(self._generator(s, clients))) for s in subjects]
                for size in sizes:
                    for mix in MIXES:
                        self._take_turns(pairs, Case(clients, mix, size), self.plan.repetitions, found, steps)
                for mix in self._offered_mixes(clients):
                    capacity = median(load.rate for load in found[FWPS, Case(clients, mix, COMPARED_BYTES)])
                    offered = Case(clients, mix, COMPARED_BYTES, OFFERED_SHARE * capacity)
                    self._take_turns(pairs, offered, self.plan.offered_repetitions, found, steps)
        return found

    def _offered_mixes(self, clients: int) -> tuple[str, ...]:
        """Both where ratios are taken; elsewhere the usual one."""
        return tuple(MIXES) if clients == max(self.plan.sizes) else ("GET-heavy",)

    def _late(self) -> bool:
        return time.monotonic() > self._end

    def _take_turns(
        self,
        pairs: Sequence[tuple[Subject, _Generator]],
        case: Case,
        repetitions: int,
        found: dict[tuple[str, Case], list[Load]],
        steps: Steps,
    ) -> None:
        milliseconds = self.plan.offered_ms if case.offered else self.plan.milliseconds
        for number in range(repetitions):
            if number and self._late():
                return
            for subject, generator in pairs:
                steps.next(f"{subject.name}, {case.clients:,} clients, {case.mix}, {case.bytes} bytes")
                subject.resume()
                load = generator.run(case.bytes, MIXES[case.mix], case.offered, self.plan.warm_up_ms, milliseconds)
                subject.pause()
                found[subject.name, case].append(load)


def _median(loads: Sequence[Load]) -> Load:
    return Load(
        rate=median(load.rate for load in loads),
        unanswered=int(median(load.unanswered for load in loads)),
        times_ns=tuple(median(times) for times in zip(*(load.times_ns for load in loads), strict=True)),
        generator_busy=max(load.generator_busy for load in loads),
    )


def _paired(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The median of the ratios of runs that followed each other."""
    found = [value for a, b in zip(one, other, strict=False) if (value := ratio(a, b)) is not None]
    return median(found) if found else None


def _ratios(
    loads: Mapping[tuple[str, Case], Sequence[Load]], memory: Mapping[tuple[str, int], Resident]
) -> dict[str, float | None]:
    def rates(name: str, mix: str = "GET-heavy") -> list[float]:
        return [load.rate for load in loads.get((name, Case(COMPARED, mix, COMPARED_BYTES)), ())]

    def tails(name: str, mix: str = "GET-heavy") -> list[float]:
        return [
            load.p99_ns
            for (subject, case), found in loads.items()
            if (subject, case.clients, case.mix) == (name, COMPARED, mix) and case.offered
            for load in found
        ]

    def held(name: str) -> int | None:
        found = memory.get((name, COMPARED))
        return found.pss if found else None

    return {
        "p99_vs_processes_1000": _paired(tails(PROCESSES), tails(FWPS)),
        "p99_vs_processes_1000_set_heavy": _paired(tails(PROCESSES, "SET-heavy"), tails(FWPS, "SET-heavy")),
        "throughput_vs_processes_1000": _paired(rates(FWPS), rates(PROCESSES)),
        "throughput_vs_processes_1000_set_heavy": _paired(rates(FWPS, "SET-heavy"), rates(PROCESSES, "SET-heavy")),
        "memory_vs_processes_1000": ratio(held(PROCESSES), held(FWPS)),
        "throughput_vs_shared_1000": _paired(rates(FWPS), rates(SHARED)),
        "throughput_vs_shared_1000_set_heavy": _paired(rates(FWPS, "SET-heavy"), rates(SHARED, "SET-heavy")),
        "p99_vs_shared_1000": _paired(tails(SHARED), tails(FWPS)),
    }


def _client_kib(memory: Mapping[tuple[str, int], Resident]) -> float | None:
    """What one client more costs the node, with the page tables."""
    before, after = memory[FWPS, 0], memory.get((FWPS, COMPARED))
    if after is None or before.pss is None or after.pss is None:
        return None
    return (after.pss + after.page_tables - before.pss - before.page_tables) / COMPARED / KIB


def _live_vs_parked(client_kib: float | None, parked: Parked) -> float | None:
    """How much more a client takes that is there than one that is away."""
    return None if client_kib is None else ratio(client_kib * KIB, parked.bytes_per_client)


def _row(subject: str, case: Case, load: Load) -> dict[str, Any]:
    return {
        "subject": subject,
        **asdict(case),
        "requests_per_second": load.rate,
        "unanswered": load.unanswered,
        "p50_ns": load.p50_ns,
        "p99_ns": load.p99_ns,
        "p999_ns": load.p999_ns,
        "times_ns": load.times_ns,
        "generator_busy": load.generator_busy,
    }


def _null_note(null: Load, results: Mapping[tuple[str, Case], Load]) -> str:
    most = max(case.clients for _, case in results)
    quickest = max(load.rate for (_, case), load in results.items() if not case.offered and case.clients == most)
    return (
        f"the load generator, one C program with epoll on a core of its own, does {null.rate:,.0f} requests a second "
        f"with {most:,} clients of a {NULL}, which only reads and writes; the quickest subject got "
        f"{quickest / null.rate:.0%} of that"
    )


def _times(load: Load) -> tuple[str, str, str]:
    return (
        approximate_duration(load.p50_ns),
        approximate_duration(load.p99_ns),
        approximate_duration(load.p999_ns),
    )


def _closed_table(results: Mapping[tuple[str, Case], Load]) -> Table:
    columns = ("clients", "mix", "value", "subject", "requests/s", "p50", "p99", "p99.9", "generator")
    table = plain_table(*columns, left=0, title="Closed loop")
    for column in (1, 3):
        table.columns[column].justify = "left"
    for (name, case), load in results.items():
        if not case.offered:
            cells = (f"{case.clients:,}", case.mix, f"{case.bytes:,} B", name, f"{load.rate:,.0f}")
            table.add_row(*cells, *_times(load), f"{load.generator_busy:.0%}")
    return table


def _offered_table(results: Mapping[tuple[str, Case], Load]) -> Table:
    columns = ("clients", "mix", "offered/s", "subject", "answered/s", "unanswered", "p50", "p99", "p99.9")
    table = plain_table(*columns, left=0, title=f"Offered load, values of {COMPARED_BYTES} bytes")
    for column in (1, 3):
        table.columns[column].justify = "left"
    for (name, case), load in results.items():
        if case.offered:
            what = (f"{case.clients:,}", case.mix, f"{case.offered:,.0f}", name)
            table.add_row(*what, f"{load.rate:,.0f}", f"{load.unanswered:,}", *_times(load))
    return table


def _memory_table(memory: Mapping[tuple[str, int], Resident]) -> Table:
    table = plain_table("clients", "subject", "MiB", "page tables, MiB", left=0, title="Memory, proportional set size")
    table.columns[1].justify = "left"
    for (name, clients), held in sorted(memory.items(), key=lambda entry: entry[0][1]):
        size = "-" if held.pss is None else f"{held.pss / KIB / KIB:,.1f}"
        table.add_row(f"{clients:,}", name, size, f"{held.page_tables / KIB / KIB:,.1f}")
    return table
