"""`edgeos bench startup`: from a client's first message to its own FWP, beside processes and containers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from edgeos.bench.lifecycle import BURST, Lifecycle, load_bridge, measure_activation, measure_lifecycle, memory_mode
from edgeos.bench.machine import this_machine
from edgeos.bench.processes import Peer, peers, runc_peer, time_peer
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Bar, Result, plain_table
from edgeos.bench.samples import Summary, ratio
from edgeos.checkpoint import Checkpoint
from edgeos.errors import EdgeosError
from edgeos.settings import ChainSettings, TemplateSettings
from edgeos.units import approximate_duration

FORK_EXEC = "fork+exec /bin/true"
RUNC = "runc run static no-op"
MODES = ("guard", "compact")
LIVE = 64
"""FWPs that are alive while one is created; as many as a pool keeps ready by default."""

DEFAULT_MODE = memory_mode(ChainSettings(name="").max_fwps + TemplateSettings(name="").ready_high + 1)
"""What a node with one chain and default settings chooses."""

BARS = {
    "create_vs_fork_exec": 300,
    "activate_vs_fork_exec": 1_000,
    "activate_p99_vs_fork_exec_p50": 300,
    "activate_vs_runc": 30_000,
}

_NOTES = (
    "processes are timed by a small static C program; ended = started, run, ended and waited for, which is what the "
    "ratios use; returned = until fork or posix_spawn gave the parent back its control",
    "create, first call and recycle are timed one by one in the native kernel (bridge appliance, 64-byte message); "
    "create takes a slot of the engine that was used before, recycle includes giving the old memory back",
    "activate runs from the look-up of a new client's first message to the call of its handler: flow table, rule, "
    "binding and the copy into the FWP; the node's own histogram gives it, with buckets of 6 % rounded up",
)


def run(quick: bool = False) -> Result:
    """Measures everything in rounds, so that each subject sees each disturbance. Raises EdgeosError."""
    machine = this_machine()
    rounds = 2 if quick else 5
    not_measured = ["aarch64, bare metal and other kernels: this is one machine"]
    with Programs() as programs:
        spawn, noop = programs.make("spawn"), programs.make("noop")
        processes = peers(noop, quick)
        try:
            processes.append(runc_peer(noop, programs, quick))
        except EdgeosError as error:
            not_measured.append(f"{RUNC}: {error}")
        with Steps(rounds * (len(processes) + len(MODES) * 2)) as steps:
            measured = _Measured()
            guest = load_bridge()
            for _ in range(rounds):
                for peer in processes:
                    steps.next(peer.name)
                    measured.add_process(peer, *time_peer(spawn, peer))
                for mode in MODES:
                    _measure_fwps(measured, guest, mode, quick, steps)
        notes = (*_NOTES, f"C programs by {programs.compiler}", *measured.notes())
    results = measured.results()
    ratios = _ratios(results)
    bars = tuple(Bar(name=name, value=ratios[name], bar=bar, goal=2 * bar) for name, bar in BARS.items())
    return Result(
        benchmark="startup",
        quick=quick,
        machine=machine,
        results=results,
        ratios=ratios,
        bars=bars,
        notes=notes,
        not_measured=tuple(not_measured),
        tables=(_table(results),),
    )


class _Measured:
    """Samples as they come in."""

    def __init__(self) -> None:
        self._processes: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
        self._lives: dict[str, list[Lifecycle]] = defaultdict(list)
        self._activations: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))

    def add_process(self, peer: Peer, returned: list[float], ended: list[float]) -> None:
        for kept, new in zip(self._processes[peer.name], (returned, ended), strict=True):
            kept.extend(new)

    def add_life(self, mode: str, life: Lifecycle) -> None:
        self._lives[mode].append(life)

    def add_activation(self, mode: str, arrival: str, activation: Any) -> None:
        self._activations[mode][arrival].append(activation)

    def results(self) -> dict[str, Any]:
        processes = {
            name: {"returned": asdict(Summary.of(returned)), "ended": asdict(Summary.of(ended))}
            for name, (returned, ended) in self._processes.items()
        }
        return {"processes": processes, "fwp": {mode: self._fwp(mode) for mode in MODES}, "default_mode": DEFAULT_MODE}

    def notes(self) -> list[str]:
        alone = [run for runs in self._activations.values() for run in runs["one"]]
        late, evicted = sum(run.made_on_path for run in alone), sum(run.evicted for run in alone)
        notes = [f"{late} clients that came alone found no ready FWP and waited for a new one"] if late else []
        if evicted:
            notes.append(f"{evicted} clients that came alone had to wait until another one was evicted")
        return notes

    def _fwp(self, mode: str) -> dict[str, Any]:
        lives, activations = self._lives[mode], self._activations[mode]
        steps = {
            step: asdict(Summary.of([sample for life in lives for sample in getattr(life, step)]))
            for step in ("create", "first_call", "recycle")
        }
        arrivals = {f"activate_{arrival}": _merged(runs) for arrival, runs in activations.items()}
        return {
            **steps,
            "activate": arrivals.pop("activate_one"),
            **arrivals,
            "lifecycles_per_second": 1e9 / median(life.whole_ns for life in lives),
        }


def _merged(runs: list[Any]) -> dict[str, float]:
    """Medians over the rounds of what each round's histogram says; the longest of all is kept as it is."""
    return {
        "count": sum(run.clients for run in runs),
        "p50_ns": median(run.p50_ns for run in runs),
        "p99_ns": median(run.p99_ns for run in runs),
        "max_ns": max(run.max_ns for run in runs),
        "peak": max(run.peak for run in runs),
        "evicted": sum(run.evicted for run in runs),
        "made_on_path": sum(run.made_on_path for run in runs),
    }


def _measure_fwps(measured: _Measured, guest: Checkpoint, mode: str, quick: bool, steps: Steps) -> None:
    lives, clients = (5_000, 5_000) if quick else (50_000, 20_000)
    steps.next(f"create, recycle ({mode})")
    measured.add_life(mode, measure_lifecycle(guest, mode=mode, rounds=lives, live=LIVE))
    steps.next(f"activate ({mode})")
    measured.add_activation(mode, "one", measure_activation(mode=mode, clients=clients))
    measured.add_activation(mode, "burst", measure_activation(mode=mode, clients=clients, at_once=BURST))


def _ratios(results: dict[str, Any]) -> dict[str, float | None]:
    fork_exec = results["processes"][FORK_EXEC]["ended"]["p50_ns"]
    runc = results["processes"].get(RUNC, {}).get("ended", {}).get("p50_ns")
    fwp = results["fwp"][DEFAULT_MODE]
    activate = fwp["activate"]
    return {
        "create_vs_fork_exec": ratio(fork_exec, fwp["create"]["p50_ns"]),
        "activate_vs_fork_exec": ratio(fork_exec, activate["p50_ns"]),
        "activate_p99_vs_fork_exec_p50": ratio(fork_exec, activate["p99_ns"]),
        "activate_vs_runc": ratio(runc, activate["p50_ns"]),
        "recycle_vs_fork_exec": ratio(fork_exec, fwp["recycle"]["p50_ns"]),
    }


def _table(results: dict[str, Any]) -> Table:
    table = plain_table("start of", "node.memory", "p50", "p99", "fork+exec is so many times", left=2, title="Startup")
    fork_exec = results["processes"][FORK_EXEC]["ended"]["p50_ns"]

    def add(name: str, memory: str, figures: dict[str, float]) -> None:
        times = f"{fork_exec / figures['p50_ns']:,.2f}" if figures["p50_ns"] else "-"
        durations = (approximate_duration(figures[key]) for key in ("p50_ns", "p99_ns"))
        table.add_row(name, memory, *durations, times)

    for name, process in results["processes"].items():
        add(f"{name}, ended", "", process["ended"])
    add("posix_spawn /bin/true, returned", "", results["processes"]["posix_spawn /bin/true"]["returned"])
    for mode, fwp in results["fwp"].items():
        memory = f"{mode} (default)" if mode == results["default_mode"] else mode
        for step in ("create", "first_call", "recycle", "activate"):
            add(f"FWP, {step.replace('_', ' ')}", memory, fwp[step])
        add(f"FWP, activate, {BURST} new clients in one burst", memory, fwp["activate_burst"])
        table.add_row("FWP, lifecycles a second", memory, f"{fwp['lifecycles_per_second']:,.0f}", "", "")
    return table
