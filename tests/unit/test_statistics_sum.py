"""Sums over workers, those that died included, keep the law; nothing is lost on the way through JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeos.statistics import ChainStatistics, NodeStatistics, ParkingStatistics, PortStatistics, StageStatistics
from edgeos.statistics_sum import NOTHING, after_death, statistics_from, total

number = st.integers(0, 10**9)
counts = st.dictionaries(st.sampled_from(["verdict", "no_rule", "killed"]), number)


def record(record_type: type, /, **values: Any) -> Any:
    """One whose other fields are 0, or empty."""
    empty = {"int": 0, "float": 0.0, "str": "", "dict[str, int]": {}, "bool": False}
    others = {f.name: empty[f.type] for f in fields(record_type) if f.name not in values and f.type in empty}
    return record_type(**others, **values)


@st.composite
def chains(draw: st.DrawFn, name: str) -> ChainStatistics:
    sent, consumed, in_flight, emitted = (draw(number) for _ in range(4))
    dropped = draw(counts)
    left = sent + consumed + in_flight + sum(dropped.values())
    emitted = min(emitted, left)
    times = {f"activation_{what}_ns": draw(number) for what in ("p50", "p99", "max")}
    stage = record(StageStatistics, name="fw", handled=draw(number), counters=draw(counts))
    messages = {"emitted": emitted, "sent": sent, "consumed": consumed, "in_flight": in_flight, "dropped": dropped}
    found = record(
        ChainStatistics, name=name, received=left - emitted, live=draw(number), stages=(stage,), **messages, **times
    )
    assert isinstance(found, ChainStatistics)
    return replace(found, parking=draw(parked()))


@st.composite
def parked(draw: st.DrawFn) -> ParkingStatistics:
    resumed, clients = draw(number), draw(st.integers(0, 3))
    dropped = draw(st.dictionaries(st.sampled_from(["keep_memory", "removed"]), number))
    return ParkingStatistics(
        parked=resumed + clients + sum(dropped.values()),
        resumed=resumed,
        clients=clients,
        bytes=1000 * clients,
        dropped=dropped,
        resume_p99_ns=draw(number),
    )


@st.composite
def nodes(draw: st.DrawFn) -> NodeStatistics:
    held, dropped = draw(st.integers(0, 64)), draw(counts)
    names = draw(st.lists(st.sampled_from(["edge", "others"]), unique=True))
    parts = tuple(draw(chains(name)) for name in names)
    problem = draw(st.sampled_from(["", "down"]))
    port = record(
        PortStatistics, name="lan", kind="tap", queued=draw(number), connections=draw(number), problem=problem
    )
    found = record(
        NodeStatistics,
        elapsed_ns=draw(number),
        in_flight=held + sum(chain.in_flight for chain in parts),
        received=held + sum(dropped.values()) + sum(chain.received for chain in parts),
        dropped=dropped,
        chains=parts,
        ports=(port,),
    )
    assert isinstance(found, NodeStatistics)
    return found


@given(st.lists(nodes(), max_size=4), st.lists(nodes(), max_size=3))
def test_sums_keep_the_law(living: list[NodeStatistics], dead: list[NodeStatistics]) -> None:
    found = total([*living, *map(after_death, dead)])
    assert found.balance == 0
    assert all(chain.balance == 0 for chain in found.chains)
    assert found.received == sum(part.received for part in (*living, *dead))
    assert found.lost == sum(part.in_flight for part in dead)
    assert found.in_flight == sum(part.in_flight for part in living)
    assert found.elapsed_ns == max((part.elapsed_ns for part in (*living, *dead)), default=0)
    assert len({chain.name for chain in found.chains}) == len(found.chains)
    for name in {chain.name for chain in found.chains}:
        parts = [chain for part in (*living, *dead) for chain in part.chains if chain.name == name]
        assert found.chain(name).stages[0].handled == sum(chain.stages[0].handled for chain in parts)
        assert found.chain(name).activation_p99_ns == max(chain.activation_p99_ns for chain in parts)
        parking = found.chain(name).parking
        assert parking.parked == parking.resumed + parking.clients + sum(parking.dropped.values())
        assert parking.bytes == 1000 * parking.clients
        assert parking.resume_p99_ns == max(chain.parking.resume_p99_ns for chain in parts)
        gone = [chain.parking.clients for part in dead for chain in part.chains if chain.name == name]
        assert parking.dropped.get("lost", 0) == sum(gone)
    if living or dead:
        assert found.port("lan").ended.get("lost", 0) == sum(part.ports[0].connections for part in dead)


@given(nodes())
def test_through_json_and_back(node: NodeStatistics) -> None:
    assert statistics_from(json.loads(json.dumps(node.as_dict()))) == node
    assert total([node]) == replace(NOTHING, **{f: getattr(node, f) for f in node.__dataclass_fields__})
