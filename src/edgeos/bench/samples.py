"""Repeated measurements in a few numbers: medians and tails, never means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile, a value that was measured. ValueError without samples or outside 0 to 100."""
    if not samples:
        raise ValueError("no samples")
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is no percentage")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Durations in nanoseconds: how many there were, the median, the 99th percentile and the extremes."""

    count: int
    p50_ns: float
    p99_ns: float
    min_ns: float
    max_ns: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """Of one or more samples, nanoseconds."""
        return cls(
            count=len(samples),
            p50_ns=percentile(samples, 50),
            p99_ns=percentile(samples, 99),
            min_ns=min(samples),
            max_ns=max(samples),
        )


def ratio(one: float | None, other: float | None) -> float | None:
    """How many times `other` goes into `one`; None when either was not measured or `other` is 0."""
    return one / other if one is not None and other else None
