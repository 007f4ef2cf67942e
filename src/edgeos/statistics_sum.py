"""Sums of what several workers have counted, and what is known of one that died.

Counts add up; durations and quantiles are those of the slowest worker, since quantiles of a sum cannot be known from
those of its parts. The law holds for sums too: received + emitted = sent + consumed + dropped + in flight + lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from functools import reduce
from typing import Any, TypeVar

from edgeos.statistics import (
    ChainStatistics,
    NodeStatistics,
    ParkingStatistics,
    PortStatistics,
    StageStatistics,
    TenantStatistics,
    UnmatchedStatistics,
)

_Record = TypeVar("_Record")

NOTHING = NodeStatistics(elapsed_ns=0, iterations=0, received=0, in_flight=0, flows=0, dropped={}, chains=(), ports=())


def total(parts: Iterable[NodeStatistics]) -> NodeStatistics:
    """The sum, record by record; chains, stages and ports are told by their names."""
    return reduce(_add, parts, NOTHING)


def after_death(last: NodeStatistics) -> NodeStatistics:
    """The last known counters of a worker that died: what was on its way is lost, who was connected was cut off."""
    chains = tuple(
        replace(
            chain,
            in_flight=0,
            lost=chain.lost + chain.in_flight,
            live=0,
            parking=_unparked(chain.parking),
            stages=tuple(replace(stage, ready=0) for stage in chain.stages),
        )
        for chain in last.chains
    )
    ports = tuple(
        replace(port, queued=0, lost=port.lost + port.queued, connections=0, ended=_cut_off(port))
        for port in last.ports
    )
    tenants = tuple(replace(tenant, memory=0, parked=0, fwps=0, clients=0) for tenant in last.tenants)
    unmatched = replace(last.unmatched, waiting=0, kept=0)
    lost = last.lost + last.in_flight
    return replace(
        last, in_flight=0, lost=lost, flows=0, chains=chains, ports=ports, tenants=tenants, unmatched=unmatched
    )


def statistics_from(plain: dict[str, Any]) -> NodeStatistics:
    """The records of what `NodeStatistics.as_dict` made plain; sums in it are left out."""
    return NodeStatistics(
        **{
            **_known(NodeStatistics, plain),
            "chains": tuple(
                ChainStatistics(
                    **{
                        **_known(ChainStatistics, chain),
                        "stages": tuple(StageStatistics(**_known(StageStatistics, s)) for s in chain["stages"]),
                        "parking": ParkingStatistics(**_known(ParkingStatistics, chain["parking"])),
                    }
                )
                for chain in plain["chains"]
            ),
            "ports": tuple(PortStatistics(**_known(PortStatistics, port)) for port in plain["ports"]),
            "unmatched": UnmatchedStatistics(**_known(UnmatchedStatistics, plain["unmatched"])),
            "tenants": tuple(TenantStatistics(**_known(TenantStatistics, tenant)) for tenant in plain["tenants"]),
        }
    )


def _known(record: type, plain: dict[str, Any]) -> dict[str, Any]:
    return {field.name: plain[field.name] for field in fields(record) if field.name in plain}


def _cut_off(port: PortStatistics) -> dict[str, int]:
    if not port.connections:
        return port.ended
    return {**port.ended, "lost": port.ended.get("lost", 0) + port.connections}


def _unparked(parking: ParkingStatistics) -> ParkingStatistics:
    """Those who were parked with the worker that died have lost their data."""
    if not parking.clients:
        return parking
    dropped = {**parking.dropped, "lost": parking.dropped.get("lost", 0) + parking.clients}
    return replace(parking, clients=0, bytes=0, dropped=dropped)


def _add(one: _Record, other: _Record) -> _Record:
    return type(one)(**{f.name: _sum(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(one)})  # type: ignore[arg-type]


def _sum(name: str, one: Any, other: Any) -> Any:
    if isinstance(one, bool):
        return one or other
    if is_dataclass(one):
        return _add(one, other)
    if isinstance(one, int | float):
        slowest = name == "elapsed_ns" or name.startswith(("activation_", "park_", "resume_"))
        return max(one, other) if slowest else one + other
    if isinstance(one, dict):
        return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    if isinstance(one, tuple):
        return _merge(one, other)
    return one if other in ("", one) else other if not one else f"{one}; {other}"


def _merge(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """Records of both, those of one name added up, in their order."""
    merged = {_identity(record): record for record in one}
    for record in other:
        known = merged.get(_identity(record))
        merged[_identity(record)] = record if known is None else _add(known, record)
    return tuple(merged.values())


def _identity(record: Any) -> object:
    assert is_dataclass(record), "statistics hold records only"
    return (getattr(record, "name", None), getattr(record, "retired", False))
