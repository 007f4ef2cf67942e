"""Click's codes for ports: how many an element has, which push and which pull, and what flows where inside it.

ports       "1/1", "1/1-2", "1/-", "1-/=": inputs/outputs; "=" means as many as inputs
processing  "h/l", "a/ah": h push, l pull, a agnostic, one letter a port, the last one for all that follow
flow        "x/x", "x/y", "xy/x", "#/#": packets go from a port to those of the same letter; "#" to the same number
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PUSH: Final = "h"
PULL: Final = "l"
AGNOSTIC: Final = "a"

_RANGE: Final = re.compile(r"(\d+)?(-)?(\d+)?")


@dataclass(frozen=True)
class Count:
    """How many ports there may be; `most` is None without a bound."""

    least: int
    most: int | None

    def __str__(self) -> str:
        if self.most is None:
            return f"{self.least} or more" if self.least else "any number"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"

    def allows(self, number: int) -> bool:
        """Whether an element may have so many."""
        return number >= self.least and (self.most is None or number <= self.most)


def port_counts(code: str, inputs: int) -> tuple[Count, Count]:
    """Allowed inputs and outputs of an element with so many inputs connected."""
    left, right = code.split("/")
    return _count(left), Count(inputs, inputs) if right == "=" else _count(right)


def fixed_counts(code: str) -> tuple[int | None, int | None]:
    """Inputs and outputs where their number is fixed."""
    return tuple(  # type: ignore[return-value]
        None if side == "=" or _count(side).most != _count(side).least else _count(side).least
        for side in code.split("/")
    )


def _count(code: str) -> Count:
    match = _RANGE.fullmatch(code)
    assert match is not None, f"'{code}' is not a port count"
    least, dash, most = match.groups()
    if not dash:
        return Count(int(least), int(least))
    return Count(int(least or 0), None if most is None else int(most))


def processing(code: str, out: bool, port: int) -> str:
    """PUSH, PULL or AGNOSTIC for a port."""
    letters = code.split("/")[out] or AGNOSTIC
    return letters[min(port, len(letters) - 1)]


def flows(code: str, source: int, target: int) -> bool:
    """Whether packets from an input may leave by an output."""
    left, right = code.split("/")
    if not left or not right:
        return False
    a, b = left[min(source, len(left) - 1)], right[min(target, len(right) - 1)]
    return source == target if a == b == "#" else a == b
