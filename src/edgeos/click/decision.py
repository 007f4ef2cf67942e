"""Ordered patterns over packet bytes become a decision graph, and that becomes straight-line C.

A pattern is an expression over tests. The graph of a group of patterns asks no test twice on a way through it: what a
test's answer says about others (`dst port 80` is true, so `dst port 443` is not) simplifies all that is left. A group
whose graph would grow beyond `NODES_MAX` is cut in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

DROP = -1
GROUP_MAX = 32
NODES_MAX = 2048


@dataclass(frozen=True)
class Field:
    """`size` bytes (1 to 4) at `offset` behind `base`: "network", "transport", "ether" or "data"."""

    base: str
    offset: int
    size: int


@dataclass(frozen=True)
class Has:
    """Whether the packet has `length` bytes behind `base`."""

    base: str
    length: int


@dataclass(frozen=True)
class Equal:
    """Whether `field & mask == value`."""

    field: Field
    mask: int
    value: int


@dataclass(frozen=True)
class Above:
    """Whether `field & mask > value`."""

    field: Field
    mask: int
    value: int


Test = Has | Equal | Above


@dataclass(frozen=True)
class Not:
    of: Expression


@dataclass(frozen=True)
class All:
    of: tuple[Expression, ...]


@dataclass(frozen=True)
class Any:
    of: tuple[Expression, ...]


@dataclass(frozen=True)
class Choice:
    """`condition ? then : other`."""

    condition: Expression
    then: Expression
    other: Expression


Expression = bool | Has | Equal | Above | Not | All | Any | Choice
Rules = tuple[tuple[Expression, int], ...]
"""Patterns in their order, each with the output that it leads to, or DROP."""


@dataclass(frozen=True)
class Node:
    test: Test
    yes: int
    no: int


@dataclass(frozen=True)
class Graph:
    """Nodes and where to start; an index below 0 is a result: -1 drops, -2 is output 0, -3 output 1 and so on."""

    nodes: tuple[Node, ...]
    start: int

    def decide(self, holds: Callable[[Test], bool]) -> int:
        """The output for a packet of which `holds` answers the tests."""
        at = self.start
        while at >= 0:
            node = self.nodes[at]
            at = node.yes if holds(node.test) else node.no
        return _output(at)


def all_of(*parts: Expression) -> Expression:
    """All parts hold; nothing is tested behind a part that does not."""
    if any(part is False for part in parts):
        return False
    flat = tuple(p for part in parts for p in (part.of if isinstance(part, All) else (part,)) if p is not True)
    return True if not flat else flat[0] if len(flat) == 1 else All(flat)


def any_of(*parts: Expression) -> Expression:
    """At least one part holds."""
    if any(part is True for part in parts):
        return True
    flat = tuple(p for part in parts for p in (part.of if isinstance(part, Any) else (part,)) if p is not False)
    return False if not flat else flat[0] if len(flat) == 1 else Any(flat)


def negate(part: Expression) -> Expression:
    """The part does not hold."""
    if isinstance(part, bool):
        return not part
    return part.of if isinstance(part, Not) else Not(part)


def choose(condition: Expression, then: Expression, other: Expression) -> Expression:
    """One of two expressions, as the condition says."""
    if isinstance(condition, bool):
        return then if condition else other
    return then if then == other else Choice(condition, then, other)


def _implied(known: Test, answer: bool, asked: Test) -> bool | None:
    """What the answer of one test says about another; None = nothing."""
    if known == asked:
        return answer
    if isinstance(known, Has):
        if not isinstance(asked, Has) or known.base != asked.base:
            return None
        if answer:
            return True if asked.length <= known.length else None
        return False if asked.length >= known.length else None
    if isinstance(asked, Has) or known.field != asked.field:
        return None
    return _implied_equal(known, answer, asked) if isinstance(known, Equal) else _implied_above(known, answer, asked)


def _implied_equal(known: Equal, answer: bool, asked: Equal | Above) -> bool | None:
    if answer:
        common = known.mask & asked.mask
        if isinstance(asked, Equal) and (known.value ^ asked.value) & common:
            return False
        if common != asked.mask:
            return None
        return True if isinstance(asked, Equal) else known.value & asked.mask > asked.value
    if isinstance(asked, Equal) and known.mask & asked.mask == known.mask and asked.value & known.mask == known.value:
        return False
    return None


def _implied_above(known: Above, answer: bool, asked: Equal | Above) -> bool | None:
    if isinstance(asked, Above):
        if known.mask != asked.mask or (asked.value > known.value if answer else asked.value < known.value):
            return None
        return answer
    if known.mask & asked.mask == known.mask and ((asked.value & known.mask) > known.value) != answer:
        return False
    return None


def _assume(part: Expression, known: Test, answer: bool) -> Expression:
    """What is left of an expression once a test is answered."""
    match part:
        case bool():
            return part
        case Not(of):
            return negate(_assume(of, known, answer))
        case All(of):
            return all_of(*(_assume(p, known, answer) for p in of))
        case Any(of):
            return any_of(*(_assume(p, known, answer) for p in of))
        case Choice(condition, then, other):
            return choose(
                _assume(condition, known, answer), _assume(then, known, answer), _assume(other, known, answer)
            )
        case _:
            implied = _implied(known, answer, part)
            return part if implied is None else implied


def _first_test(part: Expression) -> Test:
    while not isinstance(part, Has | Equal | Above):
        match part:
            case Not(of):
                part = of
            case All(of) | Any(of):
                part = of[0]
            case Choice(condition, _, _):
                part = condition
            case _:
                raise AssertionError(part)
    return part


def _tidy(rules: Iterator[tuple[Expression, int]]) -> Rules:
    """Without rules that never match, and without those behind one that always does."""
    kept = []
    for expression, output in rules:
        if expression is not False:
            kept.append((expression, output))
        if expression is True:
            break
    return tuple(kept)


def _output(index: int) -> int:
    return DROP if index == -1 else -2 - index


def _result(output: int) -> int:
    return -1 if output == DROP else -2 - output


class _TooLargeError(Exception):
    pass


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[Node | None] = []

    def group(self, rules: Rules, onward: int) -> int:
        """Adds a group's nodes; what matches none of its rules goes to `onward`. Returns where it starts."""
        size = len(self.nodes)
        try:
            return self._graph(rules, onward)
        except _TooLargeError:
            del self.nodes[size:]
        if len(rules) == 1:
            return self._straight(rules[0][0], _result(rules[0][1]), onward)
        half = len(rules) // 2
        return self.group(rules[:half], self.group(rules[half:], onward))

    def _graph(self, rules: Rules, onward: int) -> int:
        known: dict[Rules, int] = {}
        first = len(self.nodes)
        pending: list[tuple[int, Test, Rules, Rules]] = []

        def place(left: Rules) -> int:
            while left and left[0][0] is not True:
                if left in known:
                    return known[left]
                test = _first_test(left[0][0])
                yes, no = (_tidy((_assume(e, test, answer), o) for e, o in left) for answer in (True, False))
                if yes == no:
                    left = yes
                    continue
                if len(self.nodes) - first >= NODES_MAX:
                    raise _TooLargeError
                known[left] = len(self.nodes)
                self.nodes.append(None)
                pending.append((known[left], test, yes, no))
                return known[left]
            return _result(left[0][1]) if left else onward

        start = place(_tidy(iter(rules)))
        while pending:
            at, test, yes, no = pending.pop()
            self.nodes[at] = Node(test, place(yes), place(no))
        return start

    def _straight(self, part: Expression, yes: int, no: int) -> int:
        """One expression, test by test as it is written."""
        match part:
            case bool():
                return yes if part else no
            case Not(of):
                return self._straight(of, no, yes)
            case All(of):
                for p in reversed(of):
                    yes = self._straight(p, yes, no)
                return yes
            case Any(of):
                for p in reversed(of):
                    no = self._straight(p, yes, no)
                return no
            case Choice(condition, then, other):
                return self._straight(condition, self._straight(then, yes, no), self._straight(other, yes, no))
            case _:
                self.nodes.append(Node(part, yes, no))
                return len(self.nodes) - 1


def build(rules: Sequence[tuple[Expression, int]]) -> Graph:
    """The decision graph of patterns in their order; what matches none is dropped."""
    builder = _Builder()
    start = _result(DROP)
    for end in range(len(rules), 0, -GROUP_MAX):
        start = builder.group(tuple(rules[max(0, end - GROUP_MAX) : end]), start)
    return _compact([node for node in builder.nodes if node is not None], start)


def _compact(nodes: Sequence[Node], start: int) -> Graph:
    """Without nodes whose answer decides nothing and those that nothing leads to, in the order of a walk."""
    same: dict[int, int] = {}

    def follow(at: int) -> int:
        while at in same:
            at = same[at]
        return at

    changed = True
    while changed:
        changed = False
        for index, node in enumerate(nodes):
            if index not in same and follow(node.yes) == follow(node.no):
                same[index] = follow(node.yes)
                changed = True
    places: dict[int, int] = {}
    pending = [follow(start)]
    while pending:
        at = pending.pop()
        if at >= 0 and at not in places:
            places[at] = len(places)
            pending += [follow(nodes[at].no), follow(nodes[at].yes)]

    def place(at: int) -> int:
        return places[follow(at)] if follow(at) >= 0 else follow(at)

    kept = (nodes[at] for at in places)
    return Graph(tuple(Node(n.test, place(n.yes), place(n.no)) for n in kept), place(start))


def _raw(value: int, size: int) -> int:
    """A number as a little-endian machine loads it from a packet."""
    return int.from_bytes(value.to_bytes(size, "big"), "little")


def _load(field: Field, raw: bool) -> str:
    at = f"{field.base} + {field.offset}"
    match field.size:
        case 1:
            return f"{field.base}[{field.offset}]"
        case 3:
            return f"((uint32_t)click_get16({at}) << 8 | {field.base}[{field.offset + 2}])"
        case _:
            return f"click_{'raw' if raw else 'get'}{field.size * 8}({at})"


def _condition(test: Test) -> str:
    if isinstance(test, Has):
        return f"{test.base}_len >= {test.length}u"
    raw = isinstance(test, Equal) and test.field.size in (2, 4)
    mask, value = (_raw(n, test.field.size) if raw else n for n in (test.mask, test.value))
    whole = test.mask == (1 << 8 * test.field.size) - 1
    load = _load(test.field, raw)
    return f"{load if whole else f'({load} & {mask:#x}u)'} {'==' if isinstance(test, Equal) else '>'} {value:#x}u"


def to_c(graph: Graph, name: str, bases: dict[str, str]) -> str:
    """A C function `uint32_t name(const click_packet *p)`: the output, UINT32_MAX to drop.

    `bases` gives the C expression of each base's first byte. Tests are in host order where they compare sizes.
    """

    def go(index: int) -> str:
        if index >= 0:
            return f"goto n{index};"
        output = _output(index)
        return "return UINT32_MAX;" if output == DROP else f"return {output}u;"

    used = {n.test.base if isinstance(n.test, Has) else n.test.field.base for n in graph.nodes}
    lines = [f"static uint32_t {name}(const click_packet *p) {{"]
    for base in sorted(used):
        lines.append(f"    const uint8_t *const {base} = {bases[base]};")
        lines.append(f"    const uint32_t {base}_len = click_after(p, {base});")
        lines.append(f"    (void){base}_len;")
    lines += ["    (void)p;", f"    {go(graph.start)}"]
    for index, node in enumerate(graph.nodes):
        lines.append(f"n{index}:\n    if ({_condition(node.test)}) {go(node.yes)}\n    {go(node.no)}")
    return "\n".join([*lines, "}", ""])


def describe(graph: Graph) -> str:
    """The graph for people, a line a test: what handler `program` reads."""

    def go(index: int) -> str:
        return f"step {index}" if index >= 0 else "[X]" if _output(index) == DROP else f"[{_output(index)}]"

    def text(test: Test) -> str:
        if isinstance(test, Has):
            return f"{test.base} has {test.length} bytes"
        field, digits = test.field, 2 * test.field.size
        sign = "=" if isinstance(test, Equal) else ">"
        return f"{field.base}+{field.offset} & {test.mask:0{digits}x} {sign} {test.value:0{digits}x}"

    if graph.start < 0:
        return f"all -> {go(graph.start)}\n"
    head = "" if graph.start == 0 else f"start at step {graph.start}\n"
    steps = [f"{i:2} {text(n.test)}  yes->{go(n.yes)}  no->{go(n.no)}\n" for i, n in enumerate(graph.nodes)]
    return head + "".join(steps)
