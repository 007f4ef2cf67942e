"""What a node did, for people: the live table while it runs and the summary at its end.

Names of counters and words of problems may come from guests and files, so all text is made printable, and none of it is
read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgeos.findings import printable
from edgeos.settings import LISTENER_KINDS
from edgeos.units import NANOSECONDS, approximate_duration, format_size

if TYPE_CHECKING:
    from edgeos.service.records import WorkerRecord
    from edgeos.statistics import ChainStatistics, NodeStatistics


class LiveReport:
    """The live table on a terminal; call it with each new statistics. A context manager that clears it at the end."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._previous: NodeStatistics | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, statistics: NodeStatistics) -> None:
        self._live.update(live_table(statistics, self._previous), refresh=True)
        self._previous = statistics


def live_table(statistics: NodeStatistics, previous: NodeStatistics | None = None) -> RenderableType:
    """The state of each chain, with rates since the previous statistics."""
    before = {chain.name: chain.received for chain in previous.chains} if previous else {}
    seconds = (statistics.elapsed_ns - (previous.elapsed_ns if previous else 0)) / NANOSECONDS["s"]
    table = _table("chain", "per second", *_CHAIN_COLUMNS, title=f"edgeos, {_elapsed(statistics)}")
    for chain in statistics.chains:
        rate = (chain.received - before.get(chain.name, 0)) / seconds if seconds > 0 else 0
        _add(table, chain.name, f"{rate:,.0f}", *_chain_cells(chain))
    others = [t for t in (_parking(statistics), _listeners(statistics), _tenants(statistics)) if t.row_count]
    return Group(table, *others, *_tables_of_counts(statistics), *_problems(statistics))


def summary(statistics: NodeStatistics, workers: Sequence[WorkerRecord] = ()) -> RenderableType:
    """Everything that was counted, chain by chain, port by port and worker by worker; empty tables are left out."""
    chains = _table("chain", *_CHAIN_COLUMNS)
    for chain in statistics.chains:
        _add(chains, chain.name, *_chain_cells(chain))
    parts: list[RenderableType] = [chains, *_tables_of_counts(statistics)]
    parts.extend(
        [
            _stages(statistics),
            _parking(statistics),
            _ports(statistics),
            *_modes(statistics),
            _listeners(statistics),
            _tenants(statistics),
            _unmatched(statistics),
            _workers(workers),
            _balance(statistics),
            *_problems(statistics),
        ]
    )
    return Group(*(part for part in parts if not isinstance(part, Table) or part.row_count))


_CHAIN_COLUMNS = ("received", "sent", "dropped", "activations", "p50", "p99", "live", "peak", "kills", "evicted")


def _chain_cells(chain: ChainStatistics) -> list[str]:
    measured = chain.activations > 0
    return [
        _count(chain.received),
        _count(chain.sent),
        _count(sum(chain.dropped.values())),
        _count(chain.activations),
        approximate_duration(chain.activation_p50_ns) if measured else "-",
        approximate_duration(chain.activation_p99_ns) if measured else "-",
        _count(chain.live),
        _count(chain.peak),
        _count(sum(chain.kills.values())),
        _count(chain.evicted),
    ]


def _tables_of_counts(statistics: NodeStatistics) -> list[Table]:
    """Drops by reason and kills by cause, where there are any."""
    drops = [("node", statistics.dropped), *((chain.name, chain.dropped) for chain in statistics.chains)]
    kills = [(chain.name, chain.kills) for chain in statistics.chains]
    tables = [_counts(("dropped by", "reason", "messages"), drops), _counts(("killed in", "cause", "FWPs"), kills)]
    return [table for table in tables if table.row_count]


def _counts(columns: tuple[str, str, str], counts: Iterable[tuple[str, Mapping[str, int]]]) -> Table:
    table = _table(*columns, left=2)
    for where, by_reason in counts:
        for reason, number in by_reason.items():
            if number:
                _add(table, where, reason, _count(number))
    return table


def _stages(statistics: NodeStatistics) -> Table:
    table = _table("chain", "stage", "handled", "ready", "counters", left=2)
    for chain in statistics.chains:
        for stage in chain.stages:
            counters = "  ".join(f"{name} {_count(value)}" for name, value in stage.counters.items())
            _add(table, chain.name, stage.name, _count(stage.handled), _count(stage.ready), counters)
    return table


def _parking(statistics: NodeStatistics) -> Table:
    """Clients whose data is kept while they are away, where a chain keeps any."""
    table = _table("parked in", "clients", "bytes", "parked", "resumed", "p99", "dropped for", "refused", left=1)
    for chain in statistics.chains:
        parking = chain.parking
        if parking.parked or parking.refused:
            numbers = map(_count, (parking.clients, parking.bytes, parking.parked, parking.resumed))
            time = approximate_duration(parking.resume_p99_ns) if parking.resumed else "-"
            _add(table, chain.name, *numbers, time, _reasons(parking.dropped), _reasons(parking.refused))
    return table


def _ports(statistics: NodeStatistics) -> Table:
    columns = ("received", "bytes", "sent", "bytes", "send dropped", "receive overrun")
    table = _table("port", "kind", *columns, left=2)
    for port in statistics.ports:
        numbers = (port.received, port.received_bytes, port.sent, port.sent_bytes, port.send_dropped)
        _add(table, port.name, port.kind, *map(_count, (*numbers, port.receive_overrun)))
    return table


def _listeners(statistics: NodeStatistics) -> Table:
    """Who came to each listener, and what became of them."""
    table = _table("listener", "connections", "accepted", "received", "sent", "refused", "ended", left=1)
    for port in statistics.ports:
        if port.kind in LISTENER_KINDS:
            numbers = (port.connections, port.accepted, port.received_bytes, port.sent_bytes)
            _add(table, port.name, *map(_count, numbers), _reasons(port.refused), _reasons(port.ended))
    return table


def _tenants(statistics: NodeStatistics) -> Table:
    """What each tenant's clients use, and what its quotas turned away."""
    table = _table("tenant", "clients", "FWPs", "memory", "CPU time", "copied", "received", "refused", left=1)
    for tenant in statistics.tenants:
        used = (format_size(tenant.memory), approximate_duration(tenant.cpu_ns), _count(tenant.copied_bytes))
        refused = {**tenant.refused, **({"killed": tenant.killed} if tenant.killed else {})}
        cells = (_count(tenant.clients), _count(tenant.fwps), *used, _count(tenant.received), _reasons(refused))
        _add(table, tenant.name, *cells)
    return table


def _unmatched(statistics: NodeStatistics) -> Table:
    """Clients that no rule matched, where there are any that were asked about."""
    table = _table("no rule matches", "asked", "answered", "failed", "defaulted", "late", "turned away")
    counted = statistics.unmatched
    if counted.asked or counted.turned_away:
        numbers = (
            counted.asked,
            counted.answered,
            counted.failed,
            counted.defaulted,
            counted.late,
            counted.turned_away,
        )
        _add(table, "clients", *map(_count, numbers))
    return table


def _workers(workers: Sequence[WorkerRecord]) -> Table:
    """What each worker did, where there are several, or one has died."""
    table = _table("worker", "core", "received", "sent", "restarts", "lost", left=2)
    if len(workers) < 2 and not any(worker.restarts for worker in workers):
        return table
    for worker in workers:
        counted = [part for part in (worker.statistics, worker.past) if part is not None]
        numbers = (sum(part.received for part in counted), sum(part.sent for part in counted))
        core = "any" if worker.core is None else str(worker.core)
        _add(table, str(worker.index), core, *map(_count, (*numbers, worker.restarts, worker.lost)))
    return table


def _reasons(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{reason} {_count(number)}" for reason, number in counts.items()) or "-"


def _balance(statistics: NodeStatistics) -> Text:
    """The conservation law with this node's numbers."""
    emitted = sum(chain.emitted for chain in statistics.chains)
    dropped = sum(statistics.dropped.values()) + sum(sum(chain.dropped.values()) for chain in statistics.chains)
    consumed = f" + consumed {_count(statistics.consumed)}" if statistics.consumed else ""
    lost = f" + lost {_count(statistics.lost)}" if statistics.lost else ""
    return Text(
        f"received {_count(statistics.received)} + emitted {_count(emitted)} = sent {_count(statistics.sent)}{consumed}"
        f" + dropped {_count(dropped)}{lost} + in flight {_count(statistics.in_flight)}, in {_elapsed(statistics)}"
    )


def _modes(statistics: NodeStatistics) -> list[Text]:
    return [Text(f"port {port.name}: {printable(port.mode)}") for port in statistics.ports if port.mode]


def _problems(statistics: NodeStatistics) -> list[Text]:
    found = [(f"port {port.name}", port.problem) for port in statistics.ports if port.problem]
    if statistics.unmatched.problem:
        found.append(("unmatched.callback", statistics.unmatched.problem))
    return [Text(f"{where}: {printable(problem)}") for where, problem in found]


def _table(*columns: str, left: int = 1, title: str | None = None) -> Table:
    """A table whose first `left` columns hold words and the others numbers."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        words = index < left or column in ("counters", "dropped for", "refused", "ended")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))


def _count(number: int) -> str:
    return f"{number:,}"


def _elapsed(statistics: NodeStatistics) -> str:
    return approximate_duration(statistics.elapsed_ns)
