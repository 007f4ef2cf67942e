"""`edgeos bench churn`: clients that come and go, an FWP each, beside a process for each client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from edgeos.bench.churn_runs import LIVE_MOST, MESSAGES, SECOND_NS, SPARE, Churn, Crowd, run_crowd
from edgeos.bench.machine import this_machine
from edgeos.bench.processes import Peer, peers, time_peer
from edgeos.bench.programs import SOURCES, Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import Summary, ratio
from edgeos.code_cache import CodeCache
from edgeos.guest_build import build
from edgeos.units import approximate_duration

MILLISECOND_NS = 1_000_000
MIB = 1 << 20
COMPARED = Crowd(rate=10_000, lifetime_ns=100 * MILLISECOND_NS, messages=MESSAGES, seconds=0)
"""The crowd whose activations are compared with the start of processes; its `seconds` are the plan's."""

ONCE_NS = 10 * MILLISECOND_NS
"""What is left of the life of a client that sends one message."""

FORK_EXEC = "fork+exec static no-op"
POSIX_SPAWN = "posix_spawn static no-op"
DRIFT_MIB_MAX = 1.0

_NOTES = (
    f"a client sends {MESSAGES} messages in the first half of its life and is silent in the second, then the node "
    "takes its FWP back; each message is answered by the client's own FWP; in the table of new clients with every "
    "message each sends one",
    "messages are due at an even rate and come from memory; the node spins on one core; latency is from when a message "
    "was due to its answer, so waiting for a node that was busy, or not on its core, is in it",
    "activation is from a new client's look-up in the flow table to the call of its handler, by the node's own "
    "histogram over the whole run, its cold start included",
    "lost: dropped for any reason; growth is that of the process's resident memory in the second half of a run",
    "a process per client: started and waited for one after the other, by a C program; it handles nothing",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures, and for how long each."""

    crowds: Sequence[tuple[int, int]]  # new clients a second, nanoseconds of life
    once: Sequence[int]  # new clients a second that send one message
    repetitions: int
    seconds: float


_LIVES = [10 * MILLISECOND_NS, 100 * MILLISECOND_NS, SECOND_NS, 10 * SECOND_NS]
_RATES = [1_000, 10_000, 50_000]
FULL = Plan(
    crowds=[(rate, life) for rate in _RATES for life in _LIVES],
    once=(10_000, 20_000, 50_000, 100_000, 150_000, 200_000, 300_000),
    repetitions=3,
    seconds=2.0,
)
QUICK = Plan(
    crowds=[(rate, life) for rate in _RATES for life in _LIVES[:2]],
    once=(10_000, 50_000, 100_000, 200_000),
    repetitions=1,
    seconds=0.5,
)
LIVES_SEEN = 2.5
"""A run lasts so many lifetimes at least, so that its second half begins when as many leave as come."""


def run(quick: bool = False) -> Result:
    """Measures every crowd several times over, and takes medians. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    crowds, skipped = _crowds(plan)
    found: dict[Crowd, list[Churn]] = defaultdict(list)
    with Programs() as programs, Steps(_steps(plan, crowds)) as steps:
        module = programs.folder / "reflect.wasm"
        build(SOURCES / "reflect.c", module, cache=CodeCache())
        starts = _processes(programs, quick, steps)
        for repetition in range(plan.repetitions):
            for crowd in crowds:
                if repetition == 0 or crowd.seconds <= 2 * plan.seconds:
                    steps.next(f"{crowd.rate:,} a second, {approximate_duration(crowd.lifetime_ns)}")
                    found[crowd].append(run_crowd(crowd, module))
        compiler = programs.compiler
    figures = {crowd: _median(runs) for crowd, runs in found.items()}
    lived = {crowd: one for crowd, one in figures.items() if crowd.messages > 1}
    once = {crowd: one for crowd, one in figures.items() if crowd.messages == 1}
    most = most_without_loss(once)
    compared = next(
        (one for c, one in lived.items() if (c.rate, c.lifetime_ns) == (COMPARED.rate, COMPARED.lifetime_ns)), None
    )
    fork_exec = starts[FORK_EXEC].p50_ns
    kept_up = {crowd: one for crowd, one in lived.items() if one.kept_up}
    return Result(
        benchmark="churn",
        quick=quick,
        machine=machine,
        results={
            "crowds": [_row(crowd, one) for crowd, one in lived.items()],
            "once": [_row(crowd, one) for crowd, one in once.items()],
            "once_most_without_loss": most,
            "processes": {name: asdict(summary) for name, summary in starts.items()},
        },
        ratios={
            "activate_vs_fork_exec": ratio(fork_exec, compared.activation_p50_ns if compared else None),
            "activate_p99_vs_fork_exec_p50": ratio(fork_exec, compared.activation_p99_ns if compared else None),
            "new_clients_per_second_vs_fork_exec": ratio(most, SECOND_NS / fork_exec),
        },
        bars=(
            Bar(
                name="messages lost below saturation",
                value=float(sum(one.lost for one in kept_up.values())) if kept_up else None,
                bar=0,
                better="lower",
            ),
            Bar(
                name="growth of memory, the most of all crowds",
                value=max(one.drift for one in kept_up.values()) / MIB if kept_up else None,
                bar=DRIFT_MIB_MAX,
                better="lower",
                unit="MiB",
            ),
        ),
        notes=(*_NOTES, f"C programs by {compiler}"),
        not_measured=("network devices: messages come from memory", *skipped, *_behind(lived)),
        tables=(_table("Clients that live", lived), _table("New clients with every message", once), _peers(starts)),
    )


def most_without_loss(once: dict[Crowd, Churn]) -> float | None:
    """The highest rate up to which the node kept up and nothing was lost; None when even the lowest lost something."""
    most = None
    for crowd, one in sorted(once.items(), key=lambda item: item[0].rate):
        if one.lost or not one.kept_up:
            break
        most = float(crowd.rate)
    return most


def _crowds(plan: Plan) -> tuple[list[Crowd], list[str]]:
    crowds, skipped = [], []
    for rate, life in plan.crowds:
        seconds = max(plan.seconds, LIVES_SEEN * life / SECOND_NS)
        crowd = Crowd(rate=rate, lifetime_ns=life, messages=MESSAGES, seconds=seconds)
        if SPARE * crowd.live > LIVE_MOST:
            lives = f"{rate:,} a second that live {approximate_duration(life)}"
            skipped.append(f"{lives}: {crowd.live:,} at a time are more than the {LIVE_MOST:,} that a run has room for")
        else:
            crowds.append(crowd)
    once = [Crowd(rate=rate, lifetime_ns=ONCE_NS, messages=1, seconds=plan.seconds / 2) for rate in plan.once]
    return [*crowds, *once], skipped


def _steps(plan: Plan, crowds: Sequence[Crowd]) -> int:
    short = sum(crowd.seconds <= 2 * plan.seconds for crowd in crowds)
    return len(crowds) + (plan.repetitions - 1) * short + 2


def _processes(programs: Programs, quick: bool, steps: Steps) -> dict[str, Summary]:
    spawn, noop = programs.make("spawn"), programs.make("noop")
    chosen: list[Peer] = [peer for peer in peers(noop, quick) if peer.name in (FORK_EXEC, POSIX_SPAWN)]
    starts = {}
    for peer in chosen:
        steps.next(peer.name)
        starts[peer.name] = Summary.of(time_peer(spawn, peer)[1])
    return starts


def _median(runs: Sequence[Churn]) -> Churn:
    """Of every figure; what was lost in any run, and whether all kept up."""
    values = {key: median(getattr(one, key) for one in runs) for key in Churn.__dataclass_fields__}
    values.update(lost=max(one.lost for one in runs), kept_up=all(one.kept_up for one in runs))
    return Churn(**values)


def _row(crowd: Crowd, one: Churn) -> dict[str, Any]:
    return {"offered_rate": crowd.rate, "lifetime_ns": crowd.lifetime_ns, "messages": crowd.messages, **asdict(one)}


def _behind(lived: dict[Crowd, Churn]) -> list[str]:
    return [
        f"{crowd.rate:,} a second that live {approximate_duration(crowd.lifetime_ns)}: the node did not keep up, so "
        f"what it lost ({one.lost:,}) is not below saturation"
        for crowd, one in lived.items()
        if not one.kept_up
    ]


def _table(title: str, figures: dict[Crowd, Churn]) -> Table:
    columns = ("at a time", "activation p50", "p99", "latency p50", "p99", "made on path", "lost", "growth, KiB")
    table = plain_table("new a second", "life", *columns, left=0, title=title)
    for crowd, one in figures.items():
        times = (one.activation_p50_ns, one.activation_p99_ns, one.latency_p50_ns, one.latency_p99_ns)
        table.add_row(
            f"{crowd.rate:,}",
            approximate_duration(crowd.lifetime_ns),
            f"{one.peak:,.0f}",
            *map(approximate_duration, times),
            f"{one.made_on_path:,.0f}",
            f"{one.lost:,}" + ("" if one.kept_up else " (behind)"),
            f"{one.drift / 1024:,.0f}",
        )
    return table


def _peers(starts: dict[str, Summary]) -> Table:
    table = plain_table("a process per client", "p50", "p99", "new a second", title="Processes")
    for name, one in starts.items():
        times = (approximate_duration(one.p50_ns), approximate_duration(one.p99_ns))
        table.add_row(name, *times, f"{SECOND_NS / one.p50_ns:,.0f}")
    return table
