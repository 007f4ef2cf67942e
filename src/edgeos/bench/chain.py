"""`edgeos bench chain`: messages a second through chains of FWPs, beside memcpy, one FWP without copies, and veth."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.table import Table

from edgeos.bench.chain_runs import Chain, build_rewriter, time_chain
from edgeos.bench.machine import this_machine
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import ratio
from edgeos.bench.veth import bridged_line
from edgeos.errors import EdgeosError

LONGEST = 6
LINE_RATE_MPPS = 14.88
"""64-byte frames a second on 10 Gbit/s Ethernet, millions."""

SLOT_STRIDE = 2112  # bytes from slot to slot in a guest with default settings
MODES: tuple[Literal["inline", "dedicated"], ...] = ("inline", "dedicated")

_NOTES = (
    "a message is a frame without its frame check sequence; it is looked up in the flow table, copied length + 1 times "
    "(from the port, from FWP to FWP, to the port), and each verdict is validated",
    "hop_vs_memcpy = time a message takes through 6 FWPs, look-up, calls and validation included, over the time of its "
    "7 copies by memcpy between 8 buffers with the slots' stride, in bursts of 64; both per hop, so the 7 cancels out",
    "the node is set up for one client, so by itself it chooses memories that lie apart: node.memory = guard",
    "inline, memcpy and one FWP are one busy thread each, so one core; dedicated has a second thread for the guests",
    "veth is the rate that reaches the last namespace, sent with sendmmsg, with or without a queueing discipline, "
    "whichever is quicker",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures, and for how long each."""

    lengths: Sequence[int]
    sizes: Sequence[int]
    repetitions: int
    seconds: float


FULL = Plan(lengths=range(1, LONGEST + 1), sizes=(64, 256, 1024, 1500), repetitions=5, seconds=0.25)
QUICK = Plan(lengths=(1, LONGEST), sizes=(64, 1024), repetitions=3, seconds=0.06)

_Key = tuple[str, int, int]  # what, length, size
_Job = tuple[_Key, Callable[[], float]]


def run(quick: bool = False) -> Result:
    """Measures everything in turns, several times over, and takes medians. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    not_measured = ["hardware: no network card takes part, the ports are in memory"]
    with Programs() as programs:
        jobs = _jobs(plan, programs)
        compiler = programs.compiler
        samples: dict[_Key, list[float]] = defaultdict(list)
        with Steps(len(jobs) * plan.repetitions + 2 * len(plan.sizes)) as steps:
            for _ in range(plan.repetitions):
                for key, job in jobs:
                    steps.next("{} of {}, {} B".format(*key))
                    samples[key].append(job())
            try:
                _measure_veth(plan, programs, samples, steps)
            except EdgeosError as error:
                not_measured.append(f"veth: {error}")
    if machine.cores == 1:
        not_measured.append("dedicated on a core of its own: there is one core only, so both threads share it")
    times = {key: median(values) for key, values in samples.items()}
    ratios = _ratios(times)
    return Result(
        benchmark="chain",
        quick=quick,
        machine=machine,
        results=_results(times, samples),
        ratios=ratios,
        bars=_bars(times, ratios),
        notes=(*_NOTES, f"C programs by {compiler}"),
        not_measured=tuple(not_measured),
        tables=(_table(plan, times),),
    )


def _jobs(plan: Plan, programs: Programs) -> list[_Job]:
    copy = programs.make("copy")
    single = build_rewriter(programs.folder, 1)
    jobs: list[_Job] = []
    for size in plan.sizes:
        for length in plan.lengths:
            for mode in MODES:
                chain = Chain(length=length, rewrites=1, size=size, mode=mode)
                jobs.append(((mode, length, size), partial(time_chain, chain, single, plan.seconds)))
            alone = Chain(length=1, rewrites=length, size=size, mode="inline")
            module = build_rewriter(programs.folder, length)
            jobs.append((("one FWP", length, size), partial(time_chain, alone, module, plan.seconds)))
            jobs.append((("memcpy", length, size), partial(_time_copies, copy, length, size, "call", plan.seconds)))
            if size == 64:
                job = partial(_time_copies, copy, length, size, "inline", plan.seconds)
                jobs.append((("inline copy", length, size), job))
    return jobs


def _time_copies(copy: Path, length: int, size: int, how: str, seconds: float) -> float:
    """Nanoseconds a message for as many copies as a chain of that length makes."""
    milliseconds = max(1, int(seconds * 1000))
    command = [str(copy), str(length + 1), str(size), str(SLOT_STRIDE), str(milliseconds), how]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    messages, elapsed_ns = map(int, found.stdout.split())
    return elapsed_ns / messages


def _measure_veth(plan: Plan, programs: Programs, samples: dict[_Key, list[float]], steps: Steps) -> None:
    if os.geteuid() != 0:
        raise EdgeosError("it needs root, for network namespaces")
    send = programs.make("send")
    for length in (1, LONGEST):
        with bridged_line(length) as line:
            for size in plan.sizes:
                steps.next(f"veth of {length}, {size} B")
                for _ in range(plan.repetitions):
                    milliseconds = int(plan.seconds * 1000)
                    samples["veth", length, size].append(line.time_messages(send, size=size, milliseconds=milliseconds))


def _mpps(nanoseconds: float | None) -> float | None:
    return ratio(1000.0, nanoseconds)


def _results(times: dict[_Key, float], samples: dict[_Key, list[float]]) -> dict[str, Any]:
    def rows(what: str, **constants: str) -> list[dict[str, Any]]:
        return [
            {
                "length": length,
                "size": size,
                **constants,
                "mpps": _mpps(time_ns),
                "ns_per_message": time_ns,
                "mpps_min": _mpps(max(samples[what, length, size])),
                "mpps_max": _mpps(min(samples[what, length, size])),
            }
            for (name, length, size), time_ns in times.items()
            if name == what
        ]

    return {
        "chain": [row for mode in MODES for row in rows(mode, mode=mode)],
        "one_fwp": rows("one FWP"),
        "memcpy": rows("memcpy", how="call") + rows("inline copy", how="inline"),
        "veth": rows("veth"),
    }


def _ratios(times: dict[_Key, float]) -> dict[str, float | None]:
    def of(one: str, other: str, size: int) -> float | None:
        return ratio(times.get((one, LONGEST, size)), times.get((other, LONGEST, size)))

    return {
        "hop_vs_memcpy_64": of("inline", "memcpy", 64),
        "hop_vs_memcpy_1024": of("inline", "memcpy", 1024),
        "hop_vs_inline_copy_64": of("inline", "inline copy", 64),
        "chain6_vs_one_fwp_64": of("inline", "one FWP", 64),
        "chain6_vs_one_fwp_1024": of("inline", "one FWP", 1024),
        "chain6_vs_veth6_64": of("veth", "inline", 64),
    }


def _bars(times: dict[_Key, float], ratios: dict[str, float | None]) -> tuple[Bar, ...]:
    mpps = _mpps(times["inline", LONGEST, 64])
    return (
        Bar(name="64 B through 6 FWPs on one core", value=mpps, bar=LINE_RATE_MPPS, goal=25, unit="Mpkt/s"),
        Bar(name="hop_vs_memcpy_64", value=ratios["hop_vs_memcpy_64"], bar=5, better="lower"),
        Bar(name="hop_vs_memcpy_1024", value=ratios["hop_vs_memcpy_1024"], bar=1.6, better="lower"),
        Bar(name="chain6_vs_veth6_64", value=ratios["chain6_vs_veth6_64"], bar=50),
    )


def _table(plan: Plan, times: dict[_Key, float]) -> Table:
    columns = (*MODES, "one FWP", "memcpy", "veth")
    table = plain_table("bytes", "FWPs", *columns, "ns a hop", "of memcpy", left=0, title="Chains, Mpkt/s")
    for size in plan.sizes:
        for length in plan.lengths:
            cells = (_mpps(times.get((what, length, size))) for what in columns)
            hops = [times[what, length, size] / (length + 1) for what in ("inline", "memcpy")]
            table.add_row(
                str(size),
                str(length),
                *("-" if cell is None else f"{cell:.3g}" for cell in cells),
                *(f"{hop:.3g}" for hop in hops),
            )
    return table
