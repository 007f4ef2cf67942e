"""`edgeos bench click`: the gallery's configurations as FWPs, beside the same ones in native Click."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from edgeos.bench.click_cases import CASES, Case
from edgeos.bench.click_native import NativeClick, find_click
from edgeos.bench.click_runs import TOLERANCE, template_of
from edgeos.bench.machine import this_machine
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import ratio
from edgeos.click.build import build_configuration
from edgeos.click.place import router_of
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError

RUN_TIMEOUT_SECONDS = 120
SHARED = "one FWP"
CROWD = 1000
"""Clients of the run in which memory is taken: with fewer, what a node needs for itself would count as theirs."""

_NOTES = (
    "frames come from a port in memory, are looked up in the flow table, copied into the FWP, handled, and copied to a "
    "port; those of many clients arrive in turns; 64 bytes each, but for the payloads of intrusion detection",
    "native Click takes the same frames from a mapped capture file in memory and counts them into nothing; from when "
    "packets begin to flow until the last one has been dealt with, nothing subtracted",
    "of both the frames that left are counted: a run whose share of them is another one than the case's is an error",
    f"memory: what the process grew by while {CROWD:,} clients came, a client; the node's own share is in it, and what "
    "elements keep: behind an ARPQuerier, packets that waited for the first answer",
    "vs_click = native Click's time a packet over that of one FWP for all",
)


NATIVE_TRIES = 3
"""A queue overflows when the system takes the core away for long; frames that are dropped there are less work."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often and how long; `frames` is what one native run deals with."""

    repetitions: int
    seconds: float
    clients: Sequence[int]
    frames: int


FULL = Plan(repetitions=3, seconds=0.4, clients=(1, 100, CROWD), frames=400_000)
QUICK = Plan(repetitions=1, seconds=0.12, clients=(1, 100), frames=100_000)

_Samples = dict[tuple[str, str], list[float]]  # case and column to nanoseconds a packet


def run(quick: bool = False, click: Path | None = None) -> Result:
    """Measures every case in turns. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    program = find_click(click)
    not_measured = [] if program else ["native Click: no program `click` on the search path; --click says where it is"]
    not_measured += [f"{case.name} in native Click: {case.not_native}" for case in CASES if case.not_native]
    if CROWD not in plan.clients:
        not_measured.append(f"memory a client: a quick run has no {CROWD:,} clients")
    samples: _Samples = defaultdict(list)
    memory: dict[str, int] = {}
    with ExitStack() as stack:
        native = stack.enter_context(NativeClick(program)) if program else None
        steps = stack.enter_context(Steps(len(CASES) * (plan.repetitions + 1)))
        built = {}
        for case in CASES:
            steps.next(f"{case.name}: build")
            built[case.name] = _build(case)
        for _ in range(plan.repetitions):
            for case in CASES:
                steps.next(case.name)
                if native is not None and not case.not_native:
                    samples[case.name, "native"].append(_native(native, case, plan))
                _ours(case, plan, samples, memory)
    times = {key: median(values) for key, values in samples.items()}
    ratios = {f"vs_click.{case.name}": _vs_click(times, case) for case in CASES}
    return Result(
        benchmark="click",
        quick=quick,
        machine=machine,
        results={"configurations": [_row(plan, case, times, samples, built, memory) for case in CASES]},
        ratios=ratios,
        bars=tuple(Bar(name=name, value=value, bar=1, goal=2) for name, value in ratios.items()),
        notes=(*_NOTES, *([native.version] if native else [])),
        not_measured=tuple(not_measured),
        tables=(_table(plan, times, built, memory),),
    )


def _build(case: Case) -> tuple[float, int]:
    """Seconds to read and compile the configuration with nothing kept, and bytes of the module."""
    with tempfile.TemporaryDirectory(prefix="edgeos-bench-") as folder:
        begin = time.perf_counter()
        module = build_configuration(router_of(template_of(case)), cache=CodeCache(Path(folder)))
        return time.perf_counter() - begin, len(module)


def _ours(case: Case, plan: Plan, samples: _Samples, memory: dict[str, int]) -> None:
    """All runs of a case, in a process of their own, so that no run inherits memory of another case."""
    command = [sys.executable, "-m", "edgeos.bench.click_runs", case.name, str(plan.seconds), *map(str, plan.clients)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise EdgeosError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{case.name} failed")
    for found in json.loads(done.stdout):
        column = SHARED if found["isolate"] == "shared" else str(found["clients"])
        samples[case.name, column].append(found["ns_per_packet"])
        if column == str(CROWD):
            memory.setdefault(case.name, found["grown_bytes"] // CROWD)


def _native(native: NativeClick, case: Case, plan: Plan) -> float:
    for _ in range(NATIVE_TRIES):
        found = native.run(case, case.traffic(1), plan.frames)
        if abs(found.left / found.frames - case.passed) <= TOLERANCE:
            return found.elapsed_ns / found.frames
    raise EdgeosError(f"{case.name} in native Click: {found.left} of {found.frames} left, {case.passed:.1%} must")


def _vs_click(times: dict[tuple[str, str], float], case: Case) -> float | None:
    return ratio(times.get((case.name, "native")), times[case.name, SHARED])


def _row(
    plan: Plan,
    case: Case,
    times: dict[tuple[str, str], float],
    samples: _Samples,
    built: dict[str, tuple[float, int]],
    memory: dict[str, int],
) -> dict[str, Any]:
    seconds, size = built[case.name]
    figures = {
        column: {
            "ns_per_packet": time_ns,
            "packets_per_second": 1e9 / time_ns,
            "ns_min": min(samples[name, column]),
            "ns_max": max(samples[name, column]),
        }
        for (name, column), time_ns in times.items()
        if name == case.name
    }
    return {
        "name": case.name,
        "one_fwp": figures[SHARED],
        "native": figures.get("native"),
        "fwp_per_client": {str(clients): figures[str(clients)] for clients in plan.clients},
        "module_bytes": size,
        "build_seconds": seconds,
        "bytes_per_client": memory.get(case.name),
    }


def _table(
    plan: Plan,
    times: dict[tuple[str, str], float],
    built: dict[str, tuple[float, int]],
    memory: dict[str, int],
) -> Table:
    clients = [str(number) for number in plan.clients]
    heads = ("Mpkt/s", "ns", *(f"{number} FWPs" if number != "1" else "1 client" for number in clients))
    columns = (*heads, "native", "guest KiB", "KiB a client", "build s")
    table = plain_table("configuration", *columns, title="One FWP for all, one a client, native Click; ns a packet")
    for case in CASES:
        name = case.name
        seconds, size = built[name]
        cells = [1000 / times[name, SHARED], *(times[name, column] for column in (SHARED, *clients))]
        native = times.get((name, "native"))
        table.add_row(
            name,
            *(f"{cell:.3g}" for cell in cells),
            "-" if native is None else f"{native:.3g}",
            f"{size / 1024:.1f}",
            f"{memory[name] / 1024:.1f}" if name in memory else "-",
            f"{seconds:.2f}",
        )
    return table
