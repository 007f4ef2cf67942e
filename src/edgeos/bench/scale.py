"""`edgeos bench scale`: what it costs that each of many clients has an FWP of its own, in latency and throughput."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from edgeos.bench.chain_runs import build_rewriter
from edgeos.bench.cores import pinned, service_cores
from edgeos.bench.machine import this_machine
from edgeos.bench.middlebox import PacketKind, spaces
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Missing, Result, by_reason, plain_table
from edgeos.bench.samples import ratio
from edgeos.bench.scale_runs import (
    MEMORY_RATE,
    PER_CLIENT,
    SHARED,
    SUBJECTS,
    WIRE_RATE,
    Passage,
    Subject,
    from_memory,
    from_wire,
    through,
)
from edgeos.errors import EdgeosError
from edgeos.units import approximate_duration

COMPARED = 2000
"""Clients at which the ratios are taken."""

RATIO_MAX = 2.0
MEMORY = "memory"
KINDS: tuple[PacketKind, ...] = ("afpacket", "afxdp")
WIRE_ONLY = "none"
"""In place of a port, where no node takes part."""

BRIDGE = "kernel bridge"
PROCESSES = "process per client"
PROCESSES_MOST = 2000
STALLS_MS = 500
LATE_SHARE = 0.02
"""Of the packets that were sent more than 0.1 ms after they were due, from which the machine was not quiet."""


_NOTES = (
    f"messages of 64 bytes, {MEMORY_RATE:,} a second from memory and {WIRE_RATE:,} a second over veth, from all "
    "clients in an order mixed once; every client has sent before anything is counted; each FWP rewrites the Ethernet "
    "header",
    "memory: from when a message was due to its arrival in the port behind, by the kernel's clock, in buckets of 6 %; "
    "throughput with a port that waits when a chain is full",
    "afpacket, afxdp: from the sender's hand-over to the kernel until a receiver in another namespace has it; one C "
    "program that never sleeps sends and receives on a core of its own, and the node spins on the others; "
    "is what arrives when it sends as fast as it can, so receiving takes part of its time",
    "a process per client: a parent hands each packet to its client's process over a pair of sockets",
    "times are medians of the repetitions; the subjects take turns",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures, and for how long each."""

    clients: Sequence[int]
    memory_repetitions: int
    memory_seconds: float
    wire_repetitions: int
    wire_seconds: float


FULL = Plan(
    clients=(1, 10, 100, 1000, COMPARED, 10_000),
    memory_repetitions=3,
    memory_seconds=0.4,
    wire_repetitions=1,
    wire_seconds=0.8,
)
QUICK = Plan(clients=(1, COMPARED), memory_repetitions=1, memory_seconds=0.2, wire_repetitions=1, wire_seconds=0.1)

_Key = tuple[str, str, int]  # port, subject, clients
_Job = tuple[_Key, Callable[[], Passage]]


def run(quick: bool = False) -> Result:
    """Measures everything in turns, several times over, and takes medians. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    samples: dict[_Key, list[Passage]] = defaultdict(list)
    failed: dict[_Key, str] = {}
    with Programs() as programs:
        module = build_rewriter(programs.folder, 2)  # two rewrites undo each other
        memory = _memory_jobs(plan, module)
        wire = _wire_jobs(plan, module, programs.make("paced"), programs.make("relay"))
        with Steps(plan.memory_repetitions * len(memory) + plan.wire_repetitions * len(wire)) as steps:
            for repetitions, jobs in ((plan.memory_repetitions, memory), (plan.wire_repetitions, wire)):
                for _ in range(repetitions):
                    for key, job in jobs:
                        steps.next("{}, {}, {:,} clients".format(*key))
                        try:
                            samples[key].append(job())
                        except EdgeosError as error:
                            failed[key] = str(error)
        compiler = programs.compiler
        stalled = _stalled_share(programs.make("stalls"))
    passages = {key: _median(values) for key, values in samples.items() if values}
    ratios = _ratios(passages)
    not_measured = ["network cards"]
    not_measured += by_reason(_missing(key, why) for key, why in failed.items())
    if machine.cores == 1:
        not_measured.append("the load generator on a core of its own: there is one core only, so the node shares it")
    bars: dict[str, str] = {
        MEMORY: "per_client_vs_shared_2000",
        **{kind: f"per_client_vs_shared_2000_{kind}" for kind in KINDS},
    }
    return Result(
        benchmark="scale",
        quick=quick,
        machine=machine,
        results={"passages": [_row(key, one) for key, one in passages.items()], "stalled_share": stalled},
        ratios=ratios,
        bars=tuple(
            Bar(name=f"{name} (p99, {port})", value=ratios[name], bar=RATIO_MAX, better="lower")
            for port, name in bars.items()
        ),
        notes=(*_NOTES, f"C programs by {compiler}", _stalls(stalled), *_disturbed(passages)),
        not_measured=tuple(not_measured),
        tables=tuple(
            _table(port, passages) for port in (MEMORY, *KINDS, WIRE_ONLY) if any(k[0] == port for k in passages)
        ),
    )


def _memory_jobs(plan: Plan, module: Path) -> list[_Job]:
    return [
        ((MEMORY, subject.name, clients), partial(from_memory, subject, clients, module, plan.memory_seconds))
        for clients in plan.clients
        for subject in SUBJECTS
    ]


def _wire_jobs(plan: Plan, module: Path, paced: Path, relay: Path) -> list[_Job]:
    def node(kind: PacketKind, subject: Subject, clients: int) -> Passage:
        with spaces() as around:
            return from_wire(subject, clients, module, plan.wire_seconds, spaces=around, kind=kind, paced=paced)

    def bridge(clients: int) -> Passage:
        with spaces() as around, around.bridge():
            return through(around, paced, clients, plan.wire_seconds)

    def processes(clients: int) -> Passage:
        with spaces() as around, around.processes(relay, clients):
            return through(around, paced, clients, plan.wire_seconds)

    jobs: list[_Job] = []
    for clients in plan.clients:
        for kind in KINDS:
            jobs += [((kind, subject.name, clients), partial(node, kind, subject, clients)) for subject in SUBJECTS]
        jobs.append(((WIRE_ONLY, BRIDGE, clients), partial(bridge, clients)))
        if clients <= PROCESSES_MOST:
            jobs.append(((WIRE_ONLY, PROCESSES, clients), partial(processes, clients)))
    return jobs


def _median(passages: Sequence[Passage]) -> Passage:
    return Passage(**{key: median(getattr(one, key) for one in passages) for key in Passage.__dataclass_fields__})


def _ratios(passages: dict[_Key, Passage]) -> dict[str, float | None]:
    ratios: dict[str, float | None] = {}
    for port in (MEMORY, *KINDS):
        suffix = "" if port == MEMORY else f"_{port}"
        for clients in (COMPARED, 10_000):
            pair = [passages.get((port, subject.name, clients)) for subject in (PER_CLIENT, SHARED)]
            ratios[f"per_client_vs_shared_{clients}{suffix}"] = ratio(*(one.p99_ns if one else None for one in pair))
        rates = [passages.get((port, subject.name, COMPARED)) for subject in (SHARED, PER_CLIENT)]
        ratios[f"throughput_shared_vs_per_client_{COMPARED}{suffix}"] = ratio(
            *(one.throughput if one else None for one in rates)
        )
    processes = passages.get((WIRE_ONLY, PROCESSES, COMPARED))
    own = passages.get(("afpacket", PER_CLIENT.name, COMPARED))
    ratios[f"process_per_client_vs_fwp_per_client_{COMPARED}_afpacket"] = ratio(
        processes.p99_ns if processes else None, own.p99_ns if own else None
    )
    return ratios


def _missing(key: _Key, why: str) -> Missing:
    port, subject, clients = key
    if port == WIRE_ONLY:
        return Missing("veth without edgeos", f"{subject}, {clients:,} clients", why)
    return Missing(port, f"{port}, {subject}, {clients:,} clients", why)


def _row(key: _Key, one: Passage) -> dict[str, Any]:
    port, subject, clients = key
    return {"port": port, "subject": subject, "clients": clients, **asdict(one)}


def _stalled_share(program: Path) -> float:
    """Of the time, in which the machine keeps a program that only reads the clock from doing so."""
    with pinned(service_cores()):
        found = subprocess.run([str(program), str(STALLS_MS)], capture_output=True, text=True, timeout=60, check=True)
    elapsed_ns, stalled_ns, _ = map(int, found.stdout.split())
    return stalled_ns / elapsed_ns


def _stalls(share: float) -> str:
    return (
        f"a program that only reads the clock was stopped for {share:.2%} of the time, in pieces of more than 2 us: "
        "so much of the tails is the machine's"
    )


def _disturbed(passages: dict[_Key, Passage]) -> tuple[str, ...]:
    late = max((one.late for one in passages.values()), default=0.0)
    if late < LATE_SHARE:
        return ()
    return (
        f"the sender was late with up to {late:.0%} of the packets: other work ran, expect tails that are not ours",
    )


def _table(port: str, passages: dict[_Key, Passage]) -> Table:
    columns = ("p50", "p99", "p99.9", "lost", "messages/s")
    title = "Without edgeos, over veth" if port == WIRE_ONLY else f"Through {port}"
    table = plain_table("clients", "", *columns, left=2, title=title)
    for (where, subject, clients), one in passages.items():
        if where == port:
            times = map(approximate_duration, (one.p50_ns, one.p99_ns, one.p999_ns))
            table.add_row(f"{clients:,}", subject, *times, f"{one.lost / one.sent:.2%}", f"{one.throughput:,.0f}")
    return table
