"""`edgeos bench listen`: echo over TCP, an FWP for each connection, beside processes, threads and one event loop."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from statistics import median
from typing import Any

from rich.table import Table

from edgeos import _native
from edgeos.bench.cores import load_cores, pinned, service_cores
from edgeos.bench.machine import this_machine
from edgeos.bench.programs import SOURCES, Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import ratio
from edgeos.code_cache import CodeCache
from edgeos.descriptors import require_descriptors
from edgeos.errors import EdgeosError
from edgeos.guest_build import build
from edgeos.node import Node
from edgeos.settings import ChainSettings, Manifest, PortSettings, TemplateSettings
from edgeos.units import approximate_duration

FWPS = "FWP per connection"
PROCESSES = "process per connection"
THREADS = "thread per connection"
UVLOOP = "uvloop"
ASYNCIO = "asyncio"
BARE = "bare loop"
"""The physical limit: a C program that reads and sends on in one loop, and does nothing else."""
COMPARED = 1000
"""Connections at which the ratios are taken."""

MESSAGE_BYTES = 64
BUSY_LOAD = 0.95
"""Share of its core from which the load generator may be what limits a figure."""

START_SECONDS = 30.0
LOAD_SECONDS = 120.0

_NOTES = (
    f"one message of {MESSAGE_BYTES} bytes is in flight on each connection, over loopback; the load generator is one C "
    "program with epoll on a core of its own, and checks every byte",
    "messages a second and the time of a message are medians of the repetitions; the subjects take turns",
    "isolation: an FWP, a process for each connection; threads share their memory, an event loop shares everything",
    "the bare loop is the limit: a C program that does no more than the system calls for a message; what it and the "
    "load generator need is spent in the kernel's TCP, twice for each message, and no service over TCP can save it",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures, and for how long each."""

    connections: Sequence[int]
    repetitions: int
    warm_up_ms: int
    milliseconds: int


FULL = Plan(connections=(1, 100, COMPARED, 5000), repetitions=3, warm_up_ms=400, milliseconds=1200)
QUICK = Plan(connections=(1, 100, COMPARED), repetitions=1, warm_up_ms=50, milliseconds=150)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the load generator saw: messages a second, times of a message, and the share of a core that it used."""

    rate: float
    p50_ns: float
    p99_ns: float
    generator_busy: float


_Key = tuple[str, int]  # subject, connections


def run(quick: bool = False) -> Result:
    """Measures everything in turns, several times over, and takes medians. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    missing = {} if util.find_spec("uvloop") else {UVLOOP: "not installed: pip install 'edgeos[bench]'"}
    samples: dict[_Key, list[Load]] = defaultdict(list)
    failed: dict[_Key, str] = {}
    with Programs() as programs:
        bench = _Bench(programs, plan)
        subjects = [name for name in (FWPS, PROCESSES, THREADS, UVLOOP, ASYNCIO, BARE) if name not in missing]
        with Steps(len(subjects) * len(plan.connections) * plan.repetitions) as steps:
            for _ in range(plan.repetitions):
                for connections in plan.connections:
                    for subject in subjects:
                        steps.next(f"{subject}, {connections:,} connections")
                        try:
                            samples[subject, connections].append(bench.measure(subject, connections))
                        except EdgeosError as error:
                            if subject == FWPS:
                                raise
                            failed[subject, connections] = str(error)
    loads = {key: _median(values) for key, values in samples.items() if key not in failed}
    ratios = _ratios(loads)
    not_measured = ["real networks: clients and services share one machine"]
    not_measured += [f"{name}: {why}" for name, why in missing.items()]
    not_measured += [f"{name} with {connections:,} connections: {why}" for (name, connections), why in failed.items()]
    if machine.cores == 1:
        not_measured.append("the load generator on a core of its own: there is one core only, so services share it")
    return Result(
        benchmark="listen",
        quick=quick,
        machine=machine,
        results={"loads": [_row(key, load) for key, load in loads.items()]},
        ratios=ratios,
        bars=(
            Bar(name="vs_process_per_connection_1000", value=ratios["vs_process_per_connection_1000"], bar=3, goal=10),
            Bar(name="vs_uvloop_1000", value=ratios["vs_uvloop_1000"], bar=2),
        ),
        notes=(*_NOTES, f"C programs by {programs.compiler}", *_limited(loads)),
        not_measured=tuple(not_measured),
        tables=(_table(plan, loads),),
    )


class _Bench:
    """The programs and the guest that take part, and the cores that they run on."""

    def __init__(self, programs: Programs, plan: Plan) -> None:
        self.plan = plan
        self.load = programs.make("echo_load")
        self.serve = programs.make("echo_serve")
        self.guest = programs.folder / "echo.wasm"
        build(SOURCES / "echo.c", self.guest, cache=CodeCache())
        self.load_cores, self.service_cores = load_cores(), service_cores()

    def measure(self, subject: str, connections: int) -> Load:
        """Starts the service on its cores, loads it, and ends it. Raises EdgeosError."""
        if subject == FWPS:
            with self._node(connections) as port:
                return self._load(subject, port, connections)
        command = {
            PROCESSES: [str(self.serve), "process"],
            THREADS: [str(self.serve), "thread"],
            BARE: [str(self.serve), "loop"],
            UVLOOP: [sys.executable, "-m", "edgeos.bench.echo_async", "uvloop"],
            ASYNCIO: [sys.executable, "-m", "edgeos.bench.echo_async", "asyncio"],
        }[subject]
        with self._service(command) as port:
            return self._load(subject, port, connections)

    @contextmanager
    def _node(self, connections: int) -> Iterator[int]:
        settings = PortSettings(name="echo", kind="tcp", listen="127.0.0.1:1", max_connections=connections + 16)
        require_descriptors(Manifest(ports=(settings,)))
        port = _native.open_listener(
            "echo",
            "tcp",
            "127.0.0.1",
            0,
            backlog=4096,
            max_connections=settings.max_connections,
            max_per_client=settings.max_connections,
        )
        template = TemplateSettings(name="guest", module=self.guest, memory=256 * 1024)
        with Node() as node:
            node.add_port(port)
            node.add_template(template)
            node.add_chain(
                ChainSettings(name="echo", path=("echo", "guest"), isolate="connection", max_fwps=connections + 16)
            )
            node.add_rule("any", chain="echo")
            with pinned(self.service_cores):
                node.start()
            yield port.port_number
            statistics = node.statistics(guest_counters=False)
        chain = statistics.chain("echo")
        if statistics.balance != 0 or chain.activations < connections:
            raise EdgeosError(f"{chain.activations} FWPs for {connections} connections, balance {statistics.balance}")

    @contextmanager
    def _service(self, command: Sequence[str]) -> Iterator[int]:
        with pinned(self.service_cores):
            service = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stderr is not None
        try:
            line = service.stdout.readline()
            if not line.strip().isdigit():
                raise EdgeosError(f"the service does not start: {service.stderr.read().strip()[-300:]}")
            yield int(line)
        finally:
            service.stdin.close()
            try:
                service.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
            service.stdout.close()
            service.stderr.close()

    def _load(self, subject: str, port: int, connections: int) -> Load:
        numbers = (port, connections, MESSAGE_BYTES, self.plan.warm_up_ms, self.plan.milliseconds)
        with pinned(self.load_cores):
            load = subprocess.Popen(
                [str(self.load), *map(str, numbers)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        try:
            found, words = load.communicate(timeout=LOAD_SECONDS)
        except subprocess.TimeoutExpired:
            load.kill()
            load.communicate()
            raise EdgeosError(f"{subject} does not answer {connections} connections in time") from None
        if load.returncode != 0:
            raise EdgeosError(f"{subject}: {words.strip()[-300:]}")
        return load_of(found)


def load_of(line: str) -> Load:
    """The line that the program `echo_load` prints."""
    messages, elapsed_ns, p50_ns, p99_ns, busy = map(float, line.split())
    return Load(rate=messages / (elapsed_ns / 1e9), p50_ns=p50_ns, p99_ns=p99_ns, generator_busy=busy)


def _median(loads: Sequence[Load]) -> Load:
    return Load(
        rate=median(load.rate for load in loads),
        p50_ns=median(load.p50_ns for load in loads),
        p99_ns=median(load.p99_ns for load in loads),
        generator_busy=max(load.generator_busy for load in loads),
    )


def _ratios(loads: dict[_Key, Load]) -> dict[str, float | None]:
    def versus(other: str) -> float | None:
        pair = [loads.get((name, COMPARED)) for name in (FWPS, other)]
        return ratio(*(load.rate if load else None for load in pair))

    return {
        "vs_process_per_connection_1000": versus(PROCESSES),
        "vs_thread_per_connection_1000": versus(THREADS),
        "vs_uvloop_1000": versus(UVLOOP),
        "vs_asyncio_1000": versus(ASYNCIO),
        "vs_bare_loop_1000": versus(BARE),
    }


def _row(key: _Key, load: Load) -> dict[str, Any]:
    subject, connections = key
    return {
        "subject": subject,
        "connections": connections,
        "messages_per_second": load.rate,
        "p50_ns": load.p50_ns,
        "p99_ns": load.p99_ns,
        "generator_busy": load.generator_busy,
    }


def _limited(loads: dict[_Key, Load]) -> tuple[str, ...]:
    at_limit = [f"{name} at {count:,}" for (name, count), load in loads.items() if load.generator_busy >= BUSY_LOAD]
    if not at_limit:
        return ()
    return (f"the load generator used its whole core, so these could have done more: {'; '.join(at_limit)}",)


def _table(plan: Plan, loads: dict[_Key, Load]) -> Table:
    columns = ("messages/s", "p50", "p99", "generator")
    table = plain_table("connections", "service", *columns, left=0, title="Echo over TCP, 64 bytes")
    table.columns[1].justify = "left"
    for connections in plan.connections:
        for (subject, count), load in loads.items():
            if count == connections:
                times = (approximate_duration(load.p50_ns), approximate_duration(load.p99_ns))
                table.add_row(f"{count:,}", subject, f"{load.rate:,.0f}", *times, f"{load.generator_busy:.0%}")
    return table
