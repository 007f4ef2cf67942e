"""Places the boxes of a drawing in rows, so that most lines run downwards, are short and cross little.

The method is the usual one for directed graphs (Sugiyama, Tagawa, Toda 1981): turn round the lines that close cycles,
give each box the row behind its last predecessor, put a stand-in into every row that a line passes, order rows by the
middle of their neighbours, and move boxes towards those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 12
STAND_IN_WIDTH = 12.0


@dataclass(frozen=True)
class Layout:
    """`middle` and `row` of each box; `lines` are the corners of each edge between its two boxes, as (middle, row)."""

    middle: Sequence[float]
    row: Sequence[int]
    lines: Sequence[Sequence[tuple[float, int]]]
    width: float
    rows: int


def lay_out(widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float) -> Layout:
    """Places boxes of these widths; `edges` go from box to box, `gap` is kept between neighbours in a row."""
    forward = _without_cycles(len(widths), edges)
    row = _rows(len(widths), forward)
    width = list(widths)
    paths: list[list[int]] = []
    for source, target in forward:
        path = [source]
        for between in range(row[source] + 1, row[target]):
            width.append(STAND_IN_WIDTH)
            row.append(between)
            path.append(len(width) - 1)
        paths.append([*path, target])
    above, below = _neighbours(paths)
    order = _ordered(row, above, below)
    middle = _positions(order, width, above, below, gap)
    lines = []
    for (source, target), (first, _), path in zip(edges, forward, paths, strict=True):
        inner = [(middle[node], row[node]) for node in path[1:-1]]
        lines.append(inner if source in (first, target) else inner[::-1])
    count = len(widths)
    extent = max((m + w / 2 for m, w in zip(middle, width, strict=True)), default=0.0)
    return Layout(middle[:count], row[:count], lines, extent, max(row, default=-1) + 1)


def _without_cycles(count: int, edges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The edges, those turned round that lead back to a box which is still being gone through."""
    onward: dict[int, list[int]] = defaultdict(list)
    entered = {target for source, target in edges if source != target}
    for source, target in edges:
        onward[source].append(target)
    state = [0] * count  # 1: on the way, 2: done
    back: set[tuple[int, int]] = set()
    for root in [*(n for n in range(count) if n not in entered), *range(count)]:
        if state[root]:
            continue
        state[root] = 1
        waiting = [(root, iter(onward[root]))]
        while waiting:
            node, rest = waiting[-1]
            following = next(rest, None)
            if following is None:
                state[node] = 2
                waiting.pop()
            elif state[following] == 1:
                back.add((node, following))
            elif state[following] == 0:
                state[following] = 1
                waiting.append((following, iter(onward[following])))
    return [(target, source) if (source, target) in back else (source, target) for source, target in edges]


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The row of each box: one below the lowest of those that lead to it, and sources right above what they lead to."""
    onward: dict[int, list[int]] = defaultdict(list)
    waiting = [0] * count
    for source, target in edges:
        if source != target:
            onward[source].append(target)
            waiting[target] += 1
    row = [0] * count
    ready = [node for node in range(count) if waiting[node] == 0]
    first = list(ready)
    while ready:
        node = ready.pop()
        for target in onward[node]:
            row[target] = max(row[target], row[node] + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    for node in first:
        row[node] = min((row[target] for target in onward[node]), default=1) - 1
    return row


_Neighbours = Mapping[int, Sequence[int]]


def _neighbours(paths: Sequence[Sequence[int]]) -> tuple[_Neighbours, _Neighbours]:
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for path in paths:
        for upper, lower in pairwise(path):
            above[lower].append(upper)
            below[upper].append(lower)
    return above, below


def _ordered(row: Sequence[int], above: _Neighbours, below: _Neighbours) -> list[list[int]]:
    """The boxes of each row from left to right: the order with the fewest crossings of those that the sweeps find."""
    rows: list[list[int]] = [[] for _ in range(max(row, default=-1) + 1)]
    for node, number in enumerate(row):
        rows[number].append(node)
    best, fewest = [list(r) for r in rows], _crossings(rows, below)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for index in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            place = {node: number for number, node in enumerate(rows[index - 1 if down else index + 1])}
            seen = above if down else below
            own = {node: number for number, node in enumerate(rows[index])}

            def key(
                node: int, place: dict[int, int] = place, seen: _Neighbours = seen, own: dict[int, int] = own
            ) -> float:
                near = [place[other] for other in seen.get(node, ()) if other in place]
                return sum(near) / len(near) if near else float(own[node])

            rows[index].sort(key=key)
        count = _crossings(rows, below)
        if count < fewest:
            best, fewest = [list(r) for r in rows], count
    return best


def _crossings(rows: Sequence[Sequence[int]], below: _Neighbours) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        place = {node: number for number, node in enumerate(lower)}
        ends: list[int] = []
        for node in upper:
            here = sorted(place[target] for target in below.get(node, ()) if target in place)
            total += sum(1 for target in here for end in ends if end > target)
            ends += here
    return total


def _positions(
    rows: Sequence[Sequence[int]], width: Sequence[float], above: _Neighbours, below: _Neighbours, gap: float
) -> list[float]:
    """The middle of each box: as near to those of its neighbours as the boxes beside it allow."""
    middle = [0.0] * len(width)
    for row in rows:
        at = 0.0
        for node in row:
            middle[node] = at + width[node] / 2
            at += width[node] + gap
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            seen = above if sweep % 2 == 0 else below
            wanted = [_mean([middle[other] for other in seen.get(node, ())], middle[node]) for node in row]
            _spread(row, wanted, width, middle, gap)
    left = min((m - w / 2 for m, w in zip(middle, width, strict=True)), default=0.0)
    return [m - left for m in middle]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _spread(
    row: Sequence[int], wanted: Sequence[float], width: Sequence[float], middle: list[float], gap: float
) -> None:
    """Puts a row's boxes where they want to be; those that would touch move apart by the same amount together."""
    groups: list[tuple[float, list[int]]] = []  # left end of a group of boxes that touch, and their places in the row
    for index, node in enumerate(row):
        left, members = wanted[index] - width[node] / 2, [index]
        while groups and groups[-1][0] + _extent(row, groups[-1][1], width, gap) > left:
            _, before = groups.pop()
            members = before + members
            left = _mean([wanted[m] - width[row[m]] / 2 - _offset(row, members, m, width, gap) for m in members], left)
        groups.append((left, members))
    for left, members in groups:
        for member in members:
            node = row[member]
            middle[node] = left + _offset(row, members, member, width, gap) + width[node] / 2


def _extent(row: Sequence[int], members: Sequence[int], width: Sequence[float], gap: float) -> float:
    return sum(width[row[m]] + gap for m in members)


def _offset(row: Sequence[int], members: Sequence[int], member: int, width: Sequence[float], gap: float) -> float:
    return sum(width[row[m]] + gap for m in members if m < member)
