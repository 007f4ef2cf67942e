"""What a benchmark hands back: figures, ratios, the bars they are held against, and what could not be measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeos.bench.machine import Machine

CASES_NAMED = 3
"""Cases that were not measured for one reason are named up to so many, and counted beyond."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A promise about one figure: the bar to reach and the goal beyond it. `value` is None when it was not measured."""

    name: str
    value: float | None
    bar: float
    goal: float | None = None
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None when the figure was not measured."""
        return self._reaches(self.bar)

    @property
    def goal_met(self) -> bool | None:
        """Whether the goal is reached; None when there is none, or the figure was not measured."""
        return self._reaches(self.goal)

    def _reaches(self, limit: float | None) -> bool | None:
        if self.value is None or limit is None:
            return None
        return self.value >= limit if self.better == "higher" else self.value <= limit

    def as_dict(self) -> dict[str, Any]:
        """All fields and both verdicts."""
        return {**asdict(self), "met": self.met, "goal_met": self.goal_met}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of a benchmark. `tables` show `results` to people; `not_measured` says what lacks and why."""

    benchmark: str
    quick: bool
    machine: Machine
    results: Mapping[str, Any]
    ratios: Mapping[str, float | None]
    bars: tuple[Bar, ...]
    notes: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()
    tables: tuple[Table, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; a ratio that could not be taken is null."""
        return {
            "benchmark": self.benchmark,
            "quick": self.quick,
            "machine": asdict(self.machine),
            "results": dict(self.results),
            "ratios": dict(self.ratios),
            "bars": [bar.as_dict() for bar in self.bars],
            "notes": list(self.notes),
            "not_measured": list(self.not_measured),
        }

    def report(self) -> RenderableType:
        """The whole result for a terminal."""
        parts: list[RenderableType] = [Text(line) for line in self.machine.lines()]
        for table in (*self.tables, _bars(self.bars)):
            parts += [Text(), table]
        parts.append(Text())
        if self.quick:
            parts.append(Text("quick run: few repetitions, so the figures are rough"))
        parts += [Text(f"note: {note}") for note in self.notes]
        parts += [Text(f"not measured: {what}") for what in self.not_measured]
        return Group(*parts)


class Missing(NamedTuple):
    """A case that was not measured: its kind, such as a port's, its name, and why."""

    kind: str
    case: str
    why: str


def by_reason(missing: Iterable[Missing]) -> list[str]:
    """A line for each reason. Many cases of one reason are counted, and only their kinds told."""
    found: dict[str, list[Missing]] = defaultdict(list)
    for one in missing:
        found[one.why].append(one)
    return [f"{_cases(cases)}: {why}" for why, cases in found.items()]


def _cases(missing: list[Missing]) -> str:
    names = [one.case for one in missing]
    if len(names) <= CASES_NAMED:
        return "; ".join(names)
    return f"{len(names)} cases of {', '.join(dict.fromkeys(one.kind for one in missing))}"


def plain_table(*columns: str, left: int = 1, title: str | None = None) -> Table:
    """A table without lines whose first `left` columns hold words and the others numbers."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _bars(bars: tuple[Bar, ...]) -> Table:
    table = plain_table("figure", "measured", "bar", "", "goal", "", title="Bars and goals")
    for bar in bars:
        sign = ">=" if bar.better == "higher" else "<="
        table.add_row(
            bar.name + (f", {bar.unit}" if bar.unit else ""),
            "-" if bar.value is None else _figure(bar.value),
            f"{sign} {_figure(bar.bar)}",
            _verdict(bar.met),
            "-" if bar.goal is None else f"{sign} {_figure(bar.goal)}",
            _verdict(bar.goal_met),
        )
    return table


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(met: bool | None) -> Text:
    if met is None:
        return Text("-")
    return Text("met", style="green") if met else Text("not met", style="red")
