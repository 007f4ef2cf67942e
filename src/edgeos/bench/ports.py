"""`edgeos bench ports`: the latency that each kind of port adds, beside a bridge of the kernel and nothing at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.table import Table

from edgeos.bench.machine import this_machine
from edgeos.bench.middlebox import RECEIVER_ADDRESS, PacketKind, Spaces, spaces
from edgeos.bench.programs import Programs
from edgeos.bench.progress import Steps
from edgeos.bench.result import Missing, Result, by_reason, plain_table
from edgeos.bench.samples import ratio
from edgeos.errors import EdgeosError
from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings
from edgeos.units import approximate_duration

NOTHING, BRIDGE = "one veth pair", "kernel bridge"
PORTS: tuple[PacketKind, ...] = ("tap", "afpacket", "afxdp")
WAITS: tuple[Literal["spin", "adaptive", "block"], ...] = ("spin", "adaptive", "block")
PAUSES_US = (0, 1000)
"""Between an answer and the next question: none, and long enough that a node that waits has gone to sleep."""

_NOTES = (
    "one UDP packet of 64 bytes at a time goes to a server in another namespace and back; one C program that never "
    "sleeps is client and server, on a core of its own; the node runs on the others, with the bridge appliance",
    "a round trip passes the node twice; what a port adds is the difference to one veth pair between the namespaces",
    "with a pause of a millisecond after each answer a node with wait = adaptive or block sleeps when a packet comes",
    "medians of the repetitions; the subjects take turns",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often and for how long each is measured."""

    repetitions: int
    milliseconds: int


FULL = Plan(repetitions=5, milliseconds=500)
QUICK = Plan(repetitions=1, milliseconds=100)


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """Nanoseconds of a round trip, how many there were, and how many questions had no answer."""

    count: int
    p50_ns: float
    p99_ns: float
    max_ns: float
    unanswered: int


_Key = tuple[str, str, int]  # subject, wait, pause


def run(quick: bool = False) -> Result:
    """Measures everything in turns, several times over, and takes medians. Raises EdgeosError."""
    machine = this_machine()
    plan = QUICK if quick else FULL
    samples: dict[_Key, list[RoundTrip]] = defaultdict(list)
    failed: list[Missing] = []
    with Programs() as programs:
        program = programs.make("round_trip")
        subjects = _subjects()
        with Steps(plan.repetitions * len(subjects)) as steps:
            for _ in range(plan.repetitions):
                for (name, wait), middle in subjects.items():
                    steps.next(f"{name} {wait}")
                    try:
                        for pause, trip in _measure(program, middle, plan).items():
                            samples[name, wait, pause].append(trip)
                    except EdgeosError as error:
                        failed.append(Missing(name, f"{name} {wait}".strip(), str(error)))
        compiler = programs.compiler
    trips = {key: _median(values) for key, values in samples.items()}
    return Result(
        benchmark="ports",
        quick=quick,
        machine=machine,
        results={"round_trips": [_row(key, trip, trips) for key, trip in trips.items()]},
        ratios=_ratios(trips),
        bars=(),
        notes=(*_NOTES, f"C programs by {compiler}"),
        not_measured=("network cards", *by_reason(dict.fromkeys(failed))),
        tables=(_table(trips),),
    )


def _subjects() -> dict[tuple[str, str], Callable[[Spaces], AbstractContextManager[object]]]:
    subjects: dict[tuple[str, str], Callable[[Spaces], AbstractContextManager[object]]] = {
        (NOTHING, ""): Spaces.nothing,
        (BRIDGE, ""): Spaces.bridge,
    }
    for port in PORTS:
        for wait in WAITS:
            subjects[port, wait] = partial(_node, kind=port, wait=wait)
    return subjects


def _node(
    around: Spaces, *, kind: PacketKind, wait: Literal["spin", "adaptive", "block"]
) -> AbstractContextManager[object]:
    template = TemplateSettings(name="bridge", appliance="bridge")
    chain = ChainSettings(name="edge", path=("lan", "bridge", "wan"), isolate="client", max_fwps=64)
    return around.node(kind, NodeSettings(wait=wait), template, chain)


def _measure(
    program: Path, middle: Callable[[Spaces], AbstractContextManager[object]], plan: Plan
) -> dict[int, RoundTrip]:
    with ExitStack() as stack:
        around = stack.enter_context(spaces())
        stack.enter_context(middle(around))
        return {pause: _round_trips(program, around, plan.milliseconds, pause) for pause in PAUSES_US}


def _round_trips(program: Path, around: Spaces, milliseconds: int, pause: int) -> RoundTrip:
    numbers = (RECEIVER_ADDRESS, str(milliseconds), str(pause))
    count, p50, p99, most, unanswered = around.run([str(program), "{sender}", "{receiver}", *numbers])
    return RoundTrip(count=count, p50_ns=p50, p99_ns=p99, max_ns=most, unanswered=unanswered)


def _median(trips: Sequence[RoundTrip]) -> RoundTrip:
    return RoundTrip(**{key: median(getattr(one, key) for one in trips) for key in RoundTrip.__dataclass_fields__})


def added_ns(key: _Key, trips: dict[_Key, RoundTrip]) -> float | None:
    """What a subject adds to the median round trip over one veth pair."""
    nothing = trips.get((NOTHING, "", key[2]))
    return None if nothing is None else trips[key].p50_ns - nothing.p50_ns


def _row(key: _Key, trip: RoundTrip, trips: dict[_Key, RoundTrip]) -> dict[str, Any]:
    name, wait, pause = key
    return {"subject": name, "wait": wait, "pause_us": pause, **asdict(trip), "added_ns": added_ns(key, trips)}


def _ratios(trips: dict[_Key, RoundTrip]) -> dict[str, float | None]:
    bridge = trips.get((BRIDGE, "", 0))
    ratios = {}
    for port in PORTS:
        trip = trips.get((port, "spin", 0))
        ratios[f"{port}_vs_bridge"] = ratio(trip.p50_ns if trip else None, bridge.p50_ns if bridge else None)
    return ratios


def _table(trips: dict[_Key, RoundTrip]) -> Table:
    columns = [f"{what}{', 1 ms apart' if pause else ''}" for pause in PAUSES_US for what in ("p50", "p99", "added")]
    table = plain_table("between the ends", "wait", *columns, left=2, title="UDP echo of 64 bytes, there and back")
    for name, wait in dict.fromkeys(key[:2] for key in trips):
        cells = []
        for pause in PAUSES_US:
            trip = trips.get((name, wait, pause))
            added = added_ns((name, wait, pause), trips) if trip else None
            times = (trip.p50_ns, trip.p99_ns) if trip else (None, None)
            cells += ["-" if time is None else approximate_duration(max(0.0, time)) for time in (*times, added)]
        table.add_row(name, wait, *cells)
    return table
