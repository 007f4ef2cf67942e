"""What a supervisor knows of its workers: immutable records for reports, JSON and the control socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgeos.statistics import NodeStatistics

State = Literal["starting", "running", "waiting", "draining", "ended"]


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """One place of a worker. `core` is the one that its data plane is pinned to, None for any.

    `statistics` are those of the process that runs now, `past` the last known ones of its predecessors, summed up.
    A place that is waiting had processes that ended too often, and gets its next one later; `problem` says of what the
    last one died.
    """

    index: int
    state: State
    pid: int | None
    core: int | None
    restarts: int
    problem: str
    statistics: NodeStatistics | None
    past: NodeStatistics

    @property
    def lost(self) -> int:
        """Messages that were on their way in processes that died, as far as is known."""
        return self.past.lost

    def as_dict(self, *, with_statistics: bool) -> dict[str, Any]:
        """Plain JSON values."""
        plain: dict[str, Any] = {
            "index": self.index,
            "state": self.state,
            "pid": self.pid,
            "core": self.core,
            "restarts": self.restarts,
            "lost": self.lost,
            "problem": self.problem,
        }
        if with_statistics:
            plain["statistics"] = None if self.statistics is None else self.statistics.as_dict()
        return plain
