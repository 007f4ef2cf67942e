"""`edgeos bench memory`: what an idle and an active client's FWP hold in memory, beside processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from edgeos.bench.lifecycle import memory_mode
from edgeos.bench.machine import this_machine
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.resident import CLIENTS, MESSAGES, Resident, resident
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import ratio
from edgeos.errors import EdgeosError

KIB = 1024
ACTIVE_MAX = 32 * KIB
TIME_MAX = 120.0  # seconds for one node
MODES = ("guard", "compact")
DEFAULT_MODE = memory_mode(CLIENTS)
READY = CLIENTS + 1

_CASES = {
    # name: ready FWPs, clients, messages in a row, lives of each FWP
    "nothing": (1, 0, 1, 1),
    "idle": (READY, 0, 1, 1),
    "active": (READY, CLIENTS, 1, 1),
    "active_again": (READY, CLIENTS, 1, 2),
    "active_burst": (READY, CLIENTS, MESSAGES, 1),
}
_PYTHON_READY = "import sys; sys.stdout.write('r'); sys.stdout.flush(); sys.stdin.read()"

_NOTES = (
    f"each figure is the difference between a fresh process with {CLIENTS:,} FWPs of the bridge appliance and one with "
    "a single one; the kernel's records of an FWP and a client are in it, page tables are added; what a node allocates "
    "once whatever its clients, such as the flow table, is not",
    f"active: a client that has sent {MESSAGES} messages of 64 to 512 bytes, one at a time; in a burst: all at once, "
    "which touches as many slots; again: in an FWP that another client had before",
    "resident counts every mapped page in full, proportional (PSS) shares those that several map, such as the "
    "checkpoint's image and libc's pages; the bars hold resident + page tables, the ratios proportional + page tables, "
    "each the less flattering",
)
_NOT_MEASURED = (
    "what the system keeps for a process beside its pages and page tables (its task, its kernel stack, its files): "
    "some tens of KiB more for each process, and nothing for an FWP",
    "the mappings themselves (some 200 bytes each, up to 4 for an FWP)",
)


def run(quick: bool = False) -> Result:
    """Measures nodes and processes, each in fresh processes. Raises EdgeosError."""
    machine = this_machine()
    repetitions, copies = (1, 8) if quick else (3, 50)
    with Programs() as programs, Steps(len(MODES) * (1 + repetitions * len(_CASES)) + 2) as steps:
        fwp = {mode: _measure_mode(mode, repetitions, steps) for mode in MODES}
        steps.next("minimal process")
        minimal = _measure_processes([str(programs.make("pause"))], copies)
        steps.next("Python process")
        python = _measure_processes([sys.executable, "-c", _PYTHON_READY], min(copies, 8))
        notes = (*_NOTES, f"C programs by {programs.compiler}")
    default = fwp[DEFAULT_MODE]
    results: dict[str, Any] = {
        "clients": CLIENTS,
        "default_mode": DEFAULT_MODE,
        "fwp": fwp,
        "minimal_process": minimal,
        "python_process": python,
    }
    ratios = {
        "minimal_process_vs_active_client": ratio(_share(minimal), _share(default["active"])),
        "python_process_vs_active_client": ratio(_share(python), _share(default["active"])),
        "minimal_process_vs_idle_fwp": ratio(_share(minimal), _share(default["idle"])),
    }
    bars = tuple(
        Bar(name=name, value=default[case]["total"] / KIB, bar=ACTIVE_MAX / KIB, better="lower", unit="KiB")
        for name, case in (
            ("active client", "active"),
            ("active client, again", "active_again"),
            (f"active client, {MESSAGES} in a burst", "active_burst"),
        )
    )
    return Result(
        benchmark="memory",
        quick=quick,
        machine=machine,
        results=results,
        ratios=ratios,
        bars=bars,
        notes=notes,
        not_measured=_NOT_MEASURED,
        tables=(_table(results),),
    )


def per_unit(before: Resident, after: Resident, units: int) -> dict[str, float | None]:
    """Bytes of one unit; `total` is resident pages and page tables."""
    pss = None if before.pss is None or after.pss is None else (after.pss - before.pss) / units
    rss = (after.rss - before.rss) / units
    page_tables = (after.page_tables - before.page_tables) / units
    return {"rss": rss, "pss": pss, "page_tables": page_tables, "total": rss + page_tables}


def _share(figures: dict[str, Any]) -> float | None:
    """Proportional pages and page tables; None where the system does not tell."""
    return None if figures["pss"] is None else figures["pss"] + figures["page_tables"]


def _measure_mode(mode: str, repetitions: int, steps: Steps) -> dict[str, dict[str, Any]]:
    found: dict[str, list[Resident]] = {case: [] for case in _CASES}
    steps.next(f"native code ({mode})")
    _node_memory(
        mode, _CASES["nothing"]
    )  # compiles where that has not been done: a compiler's memory is not the node's
    for _ in range(repetitions):
        for case, arguments in _CASES.items():
            steps.next(f"{case.replace('_', ' ')} ({mode})")
            found[case].append(_node_memory(mode, arguments))
    base = _median(found.pop("nothing"))
    return {case: per_unit(base, _median(values), CLIENTS) for case, values in found.items()}


def _node_memory(mode: str, arguments: Sequence[int]) -> Resident:
    command = [sys.executable, "-m", "edgeos.bench.resident", mode, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIME_MAX, check=False)
    if found.returncode != 0:
        raise EdgeosError(f"the node to look at failed: {found.stderr.strip()[-500:]}")
    return Resident(**json.loads(found.stdout))


def _measure_processes(command: Sequence[str], copies: int) -> dict[str, Any]:
    """The median of several that run at the same time; each says when it is ready."""
    processes = []
    try:
        for _ in range(copies):
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout is not None
            if process.stdout.read(1) != b"r":
                raise EdgeosError(f"{Path(command[0]).name} ended before it could be looked at")
        found = _median([resident(process.pid) for process in processes])
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return {**asdict(found), "total": found.rss + found.page_tables}


def _median(found: Sequence[Resident]) -> Resident:
    shares = [one.pss for one in found if one.pss is not None]
    return Resident(
        rss=round(median(one.rss for one in found)),
        pss=round(median(shares)) if shares else None,
        page_tables=round(median(one.page_tables for one in found)),
    )


def _table(results: dict[str, Any]) -> Table:
    columns = ("resident", "proportional", "page tables", "resident + page tables")
    table = plain_table("KiB of", "node.memory", *columns, left=2, title="Memory")

    def add(name: str, mode: str, figures: dict[str, float | None]) -> None:
        cells = (figures[key] for key in ("rss", "pss", "page_tables", "total"))
        table.add_row(name, mode, *("-" if cell is None else f"{cell / KIB:,.1f}" for cell in cells))

    for mode, fwp in results["fwp"].items():
        memory = f"{mode} (default)" if mode == results["default_mode"] else mode
        add("idle ready FWP", memory, fwp["idle"])
        add("active client", memory, fwp["active"])
        add("active client, again", memory, fwp["active_again"])
        add(f"active client, {MESSAGES} messages in a burst", memory, fwp["active_burst"])
    add("minimal process", "", results["minimal_process"])
    add("Python process", "", results["python_process"])
    return table
