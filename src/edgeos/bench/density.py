"""`edgeos bench density`: memory and idle CPU of thousands of live clients, an FWP each, beside processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from edgeos.bench.machine import this_machine
from edgeos.bench.memory import per_unit
from edgeos.bench.programs import SOURCES, Programs
from edgeos.bench.progress import Steps
from edgeos.bench.resident import Resident, resident
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import ratio
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError
from edgeos.guest_build import build

KIB = 1024
MOST = 15_000
IDLE_PERCENT_MAX = 1.0
DRIFT_BYTES_MAX = 256
"""None, as far as can be told: one page for 16 clients. The measuring program's own heap moves by a fifth of it."""

TIME_MAX = 120.0  # seconds for one run
LOOKED_AT = 50  # processes whose memory is read, spread over all

_NOTES = (
    "each client has an FWP of its own; in every round each sends a packet, and each answer is checked to hold the "
    "client's own count, so that no FWP was exchanged or started over",
    "memory is that of the node's process after some rounds minus before the first client, page tables included; drift "
    "is what it grew by from there to the end, after idling and as many rounds again",
    "idle CPU is the process's, over seconds in which nobody sends, as a share of one core",
    "a process per client: a static C program, forked, that answers over a pair of sockets; proportional pages and "
    "page tables, so what its copies share counts once",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures, and for how long each."""

    clients: Sequence[int]
    processes: Sequence[int]
    repetitions: int
    rounds: int
    idle_seconds: float


FULL = Plan(clients=(1000, 5000, MOST), processes=(1000, 5000), repetitions=3, rounds=20, idle_seconds=5.0)
QUICK = Plan(clients=(1000, MOST), processes=(200,), repetitions=1, rounds=5, idle_seconds=1.0)


def run(quick: bool = False) -> Result:
    """Measures nodes and processes, each in fresh processes. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    processes: dict[int, dict[str, float | None]] = {}
    not_measured = ["what the system keeps for a process beside its pages, and for an FWP's memory mappings"]
    with Programs() as programs, Steps(plan.repetitions * len(plan.clients) + len(plan.processes)) as steps:
        module = programs.folder / "reflect.wasm"
        build(SOURCES / "reflect.c", module, cache=CodeCache())
        for _ in range(plan.repetitions):
            for clients in plan.clients:
                steps.next(f"{clients:,} live clients")
                try:
                    found[clients].append(_run_node(module, clients, plan))
                except EdgeosError as error:
                    not_measured.append(f"{clients:,} clients: {error}")
        for clients in plan.processes:
            steps.next(f"{clients:,} processes")
            try:
                processes[clients] = _run_processes(programs.make("echo_processes"), clients, plan)
            except EdgeosError as error:
                not_measured.append(f"{clients:,} processes: {error}")
        compiler = programs.compiler
    fwps = {clients: figures_of(runs) for clients, runs in found.items()}
    most = fwps.get(MOST, {})
    common = max(processes, default=None)
    ratios = {
        "process_vs_client_memory": ratio(
            processes[common]["share"] if common else None, most.get("share") if most else None
        )
    }
    return Result(
        benchmark="density",
        quick=quick,
        machine=machine,
        results={
            "fwps": [{"clients": clients, **figures} for clients, figures in fwps.items()],
            "processes": [{"clients": clients, **figures} for clients, figures in processes.items()],
        },
        ratios=ratios,
        bars=(
            Bar(name=f"live clients that were all answered, of {MOST:,}", value=float(max(fwps, default=0)), bar=MOST),
            Bar(
                name=f"idle CPU with {MOST:,} live clients",
                value=most.get("idle_percent"),
                bar=IDLE_PERCENT_MAX,
                better="lower",
                unit="% of a core",
            ),
            Bar(
                name=f"drift with {MOST:,} live clients",
                value=most.get("drift"),
                bar=DRIFT_BYTES_MAX,
                better="lower",
                unit="bytes a client",
            ),
        ),
        notes=(*_NOTES, f"C programs by {compiler}"),
        not_measured=tuple(dict.fromkeys(not_measured)),
        tables=(_table(fwps, processes),),
    )


def figures_of(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Medians over runs as `edgeos.bench.live` prints them: bytes a client, percent of a core, seconds."""
    before, after, end = ([Resident(**run[when]) for run in runs] for when in ("before", "after", "end"))
    clients = runs[0]["clients"]
    units = [per_unit(first, then, clients) for first, then in zip(before, after, strict=True)]
    drifts = [(last.rss - then.rss) / clients for then, last in zip(after, end, strict=True)]
    return {
        "answers": float(runs[0]["answers"]),
        "resident": median(unit["rss"] or 0.0 for unit in units),
        "page_tables": median(unit["page_tables"] or 0.0 for unit in units),
        "share": median((unit["pss"] or unit["rss"] or 0.0) + (unit["page_tables"] or 0.0) for unit in units),
        "drift": median(drifts),
        "idle_percent": median(100 * run["idle_cpu"] for run in runs),
        "first_seconds": median(run["first_seconds"] for run in runs),
        "round_seconds": median(run["round_seconds"] for run in runs),
    }


def _run_node(module: Path, clients: int, plan: Plan) -> dict[str, Any]:
    arguments = (str(module), str(clients), str(plan.rounds), str(plan.idle_seconds))
    command = [sys.executable, "-m", "edgeos.bench.live", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIME_MAX, check=False)
    if found.returncode != 0:
        raise EdgeosError((found.stderr.strip() or "the node ended").splitlines()[-1])
    figures: dict[str, Any] = json.loads(found.stdout)
    return figures


def _run_processes(program: Path, clients: int, plan: Plan) -> dict[str, float | None]:
    command = [str(program), str(clients), str(2 * plan.rounds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stderr is not None
            if parent.stdout.readline() != b"ready\n":
                raise EdgeosError(parent.stderr.read().decode(errors="replace").strip() or "they did not start")
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            sample = [int(child) for child in children[:: max(1, len(children) // LOOKED_AT)]]
            memory = [resident(child) for child in sample]
            ticks = sum(map(_cpu_ticks, sample))
            time.sleep(plan.idle_seconds)
            ticks = sum(map(_cpu_ticks, sample)) - ticks
        finally:
            parent.kill()  # its children end with it
    shares = [one.pss + one.page_tables for one in memory if one.pss is not None]
    busy = ticks / os.sysconf("SC_CLK_TCK") / plan.idle_seconds
    return {
        "resident": median(one.rss for one in memory),
        "page_tables": median(one.page_tables for one in memory),
        "share": median(shares) if shares else None,
        "idle_percent": 100 * busy * clients / len(sample),
    }


def _cpu_ticks(pid: int) -> int:
    """CPU time that a process has used, in ticks of the system's clock."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _table(fwps: dict[int, dict[str, float]], processes: dict[int, dict[str, float | None]]) -> Table:
    columns = ("KiB a client", "of these page tables", "drift, bytes", "idle, % of a core", "round, ms")
    table = plain_table("clients", "", *columns, left=2, title="Live clients")

    def cell(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
        return "-" if value is None else f"{value / scale:,.{digits}f}"

    for clients, one in fwps.items():
        memory = (cell(one["resident"] + one["page_tables"], KIB), cell(one["page_tables"], KIB))
        idle = (cell(one["drift"], 1, 0), cell(one["idle_percent"], 1, 3), cell(one["round_seconds"], 1e-3))
        table.add_row(f"{clients:,}", "FWPs", *memory, *idle)
    for clients, process in processes.items():
        memory = (cell(process["share"], KIB), cell(process["page_tables"], KIB))
        table.add_row(f"{clients:,}", "processes, proportional", *memory, "-", cell(process["idle_percent"], 1, 3), "-")
    return table
