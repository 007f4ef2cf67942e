"""From a syntax tree to a configuration without compound elements.

Each compound element becomes its parts, whose names begin with its own (`fw/c`), between two stand-ins: one for its
inputs, one for its outputs. When all are in place, connections through stand-ins are joined and the stand-ins are gone.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from edgeos.click import syntax
from edgeos.click.arguments import Argument, split, substitute
from edgeos.click.configuration import Configuration, Connection, FlatElement
from edgeos.click.source import Report, Source, Span

ELEMENTS_MAX: Final = 20_000
CONNECTIONS_MAX: Final = 100_000
DEPTH_MAX: Final = 64
"""Compound elements within each other."""

PortCounts = Callable[[str], tuple[int | None, int | None]]
"""Inputs and outputs of an element class, None for a number that is not fixed."""


Element = syntax.Named | syntax.Declared | syntax.Anonymous
Port = tuple[int, int]
"""An element or stand-in, and the number of one of its ports."""


@dataclass(frozen=True)
class _Class:
    """An element class as a name means it at some place: a primitive one, or compound alternatives with their scope."""

    name: str
    bodies: tuple[tuple[syntax.Body, _Scope], ...] = ()


@dataclass
class _Scope:
    """What names mean within one compound element, or in the configuration itself. `defining`: classes around it."""

    classes: dict[str, _Class]
    variables: dict[str, str]
    defining: tuple[str, ...] = ()


@dataclass
class _Instance:
    """An element of a scope. Connections to its inputs go to `inputs`, those from its outputs come from `outputs`."""

    name: str
    of: _Class
    arguments: list[Argument]
    span: Span
    inputs: int
    outputs: int
    used_inputs: set[int] = field(default_factory=set)
    used_outputs: set[int] = field(default_factory=set)


@dataclass
class _Level:
    """One scope while its statements are gone through."""

    scope: _Scope
    prefix: str
    declared: frozenset[str]
    table: dict[str, _Instance] = field(default_factory=dict)
    made: dict[int, _Instance] = field(default_factory=dict)  # by id() of the element in the tree
    compounds: list[_Instance] = field(default_factory=list)


class _TooLargeError(Exception):
    """The configuration has grown beyond a limit, which is in the report."""


def flatten(
    script: syntax.Script,
    source: Source,
    classes: Collection[str],
    counts: PortCounts,
    variables: Mapping[str, str],
) -> Configuration:
    """The configuration of a tree. `variables` take the place of those that it defines. Raises ClickError."""
    report = Report(source)
    maker = _Maker(report, classes, counts, variables)
    scope = _Scope({}, dict(variables))
    with contextlib.suppress(_TooLargeError):
        maker.expand(script.statements, _Level(scope, "", _declared_names(script.statements)), ())
    report.raise_if_any()
    connections = maker.joined()
    report.raise_if_any()
    return Configuration(
        source, tuple(maker.elements), connections, tuple(maker.requirements), MappingProxyType(scope.variables)
    )


class _Maker:
    """Collects elements and connections; elements are numbered from 0 up, stand-ins from -1 down."""

    def __init__(self, report: Report, classes: Collection[str], counts: PortCounts, given: Mapping[str, str]) -> None:
        self.report = report
        self.classes = classes
        self.counts = counts
        self.given = given
        self.elements: list[FlatElement] = []
        self.requirements: list[str] = []
        self.stand_ins = 0
        self.edges: dict[Port, dict[Port, Span]] = {}
        self.edge_count = 0

    # ---- One scope: elements first, then what connects them, then what its compound elements consist of ----

    def expand(self, statements: Sequence[syntax.Statement], level: _Level, around: tuple[str, ...]) -> None:
        """Adds what the statements say."""
        for statement in statements:
            if isinstance(statement, syntax.Chain):
                self._elements_of(statement, level)
            elif isinstance(statement, syntax.ElementClass):
                self._define_class(statement, level.scope)
            elif isinstance(statement, syntax.Define):
                self._define_variables(statement, level.scope)
            else:
                self.requirements += [argument.text for argument in split(statement.config.text, 0)]
        for statement in statements:
            if isinstance(statement, syntax.Chain):
                self._connect(statement, level)
        for instance in level.compounds:
            self._expand_compound(instance, around)

    def _elements_of(self, chain: syntax.Chain, level: _Level) -> None:
        for group in chain.groups:
            for end, element in _with_classes(group, level):
                if isinstance(element, syntax.Declared):
                    self._declare(element, id(end.element), level)
                elif isinstance(element, syntax.Anonymous):
                    level.made[id(end.element)] = self._make("", element.of, element.config, element.span, level)
                elif element.name not in level.declared and element.name not in level.table:
                    of = syntax.ClassName(element.name, span=element.span)
                    level.made[id(end.element)] = self._make("", of, None, element.span, level)

    def _declare(self, element: syntax.Declared, key: int, level: _Level) -> None:
        known = level.table.get(element.name)
        if known is not None:
            line, _ = self.report.source.position(known.span.start)
            what = "means the compound element's own ports here" if known.inputs < 0 and not known.of.bodies else ""
            self.report.error(element.span, f"'{element.name}' " + (what or f"is declared already, in line {line}"))
        elif element.name in self.classes:
            self.report.error(element.span, f"'{element.name}' is an element class; an element needs another name")
        else:
            level.table[element.name] = self._make(element.name, element.of, element.config, element.span, level)
        level.made[key] = level.table.get(element.name) or self._nothing(element.span)

    def _nothing(self, span: Span) -> _Instance:
        """Stands for an element that cannot be made, so that the rest is checked."""
        self.stand_ins -= 1
        return _Instance("", _Class(""), [], span, self.stand_ins, self.stand_ins)

    def _make(
        self, name: str, of: syntax.ClassReference, config: syntax.Config | None, span: Span, level: _Level
    ) -> _Instance:
        found = self._class(of, level.scope)
        if found is None:
            return self._nothing(span)
        if not name:
            name = self._anonymous_name(found.name or "Compound", level)
        arguments: list[Argument] = []
        if config is not None:
            pieces = split(config.text, config.span.start + 1)
            arguments = substitute(pieces, level.scope.variables, self.report)
        full = level.prefix + name
        if found.bodies:
            self.stand_ins -= 2
            instance = _Instance(full, found, arguments, span, self.stand_ins + 1, self.stand_ins)
            level.compounds.append(instance)
        else:
            index = len(self.elements)
            if index == ELEMENTS_MAX:
                self.report.error(span, f"the configuration has more elements than the {ELEMENTS_MAX} that are allowed")
                raise _TooLargeError
            self.elements.append(FlatElement(full, found.name, tuple(arguments), span))
            instance = _Instance(full, found, arguments, span, index, index)
        level.table.setdefault(name, instance)
        return instance

    def _anonymous_name(self, of: str, level: _Level) -> str:
        number = len(level.table) + 1
        while f"{of}@{number}" in level.table or f"{of}@{number}" in level.declared:
            number += 1
        return f"{of}@{number}"

    # ---- Classes and variables ----

    def _class(self, of: syntax.ClassReference, scope: _Scope) -> _Class | None:
        if isinstance(of, syntax.Compound):
            return _Class("", tuple((body, scope) for body in of.bodies))
        if of.name in scope.classes:
            return scope.classes[of.name]
        if of.name in scope.defining:
            chain = " -> ".join([*scope.defining[scope.defining.index(of.name) :], of.name])
            self.report.error(of.span, f"elementclass {of.name} contains itself: {chain}")
            return None
        if of.name in self.classes:
            return _Class(of.name)
        hints = [*self.classes, *scope.classes]
        close = difflib.get_close_matches(of.name.lower(), {hint.lower() for hint in hints}, n=3, cutoff=0.6)
        nearest_ones = [hint for lower in close for hint in hints if hint.lower() == lower]
        advice = f"; nearest: {', '.join(dict.fromkeys(nearest_ones))}" if nearest_ones else ""
        self.report.error(of.span, f"there is no element '{of.name}' and no element class of this name{advice}")
        return None

    def _define_class(self, statement: syntax.ElementClass, scope: _Scope) -> None:
        if isinstance(statement.of, syntax.ClassName):
            found = self._class(statement.of, scope)
            if found is not None:
                scope.classes[statement.name] = found
            return
        # Its inside sees the classes that there are now: what is declared later does not change it.
        seen = _Scope(dict(scope.classes), scope.variables, (*scope.defining, statement.name))
        bodies = [(body, seen) for body in statement.of.bodies]
        if statement.of.extends:
            known = scope.classes.get(statement.name)
            if known is None or not known.bodies:
                text = f"'...' needs an elementclass {statement.name} before it"
                self.report.error(statement.span, text)
            else:
                bodies += known.bodies
        scope.classes[statement.name] = _Class(statement.name, tuple(bodies))

    def _define_variables(self, statement: syntax.Define, scope: _Scope) -> None:
        pieces = split(statement.config.text, statement.config.span.start + 1)
        for piece in pieces:
            match = re.fullmatch(r"\$([A-Za-z_]\w*)(?:\s+(.*))?", piece.text, re.DOTALL | re.ASCII)
            if match is None:
                self.report.error(piece.span, "found no variable; allowed: define($NAME value, …)")
            elif match[1] not in self.given:
                value = substitute([Argument(match[2] or "", piece.span)], scope.variables, self.report)
                scope.variables[match[1]] = ", ".join(argument.text for argument in value)

    # ---- Compound elements ----

    def _expand_compound(self, instance: _Instance, around: tuple[str, ...]) -> None:
        chosen = self._choose(instance)
        if chosen is None:
            return
        body, scope, variables = chosen
        if len(around) == DEPTH_MAX:
            text = f"compound elements lie more than {DEPTH_MAX} deep: {' -> '.join((*around[:4], '…'))}"
            self.report.error(instance.span, text)
            raise _TooLargeError
        inner = _Scope(dict(scope.classes), {**scope.variables, **variables}, scope.defining)
        level = _Level(inner, f"{instance.name}/", _declared_names(body.statements))
        level.table["input"] = _Instance("input", _Class("input"), [], body.span, instance.inputs, instance.inputs)
        level.table["output"] = _Instance("output", _Class("output"), [], body.span, instance.outputs, instance.outputs)
        self.expand(body.statements, level, (*around, instance.of.name or instance.name))
        self._check_ports(instance, "input", instance.used_inputs, level.table["input"].used_outputs)
        self._check_ports(instance, "output", instance.used_outputs, level.table["output"].used_inputs)

    def _choose(self, instance: _Instance) -> tuple[syntax.Body, _Scope, dict[str, str]] | None:
        """The first alternative that takes the arguments and has the ports that are used."""
        problems = []
        for body, scope in instance.of.bodies:
            variables, problem = _bound(body.formals, instance.arguments)
            inputs, outputs = _own_ports(body)
            if not problem and instance.used_inputs - inputs:
                problem = f"it has no input {max(instance.used_inputs - inputs)}"
            if not problem and instance.used_outputs - outputs:
                problem = f"it has no output {max(instance.used_outputs - outputs)}"
            if not problem:
                return body, scope, variables
            problems.append(problem)
        what = f"'{instance.name}'" + (f" of elementclass {instance.of.name}" if instance.of.name else "")
        self.report.error(instance.span, f"{what}: {'; or '.join(dict.fromkeys(problems))}")
        return None

    def _check_ports(self, instance: _Instance, word: str, outside: set[int], inside: set[int]) -> None:
        missing = sorted(set(range(max(inside, default=-1) + 1)) - inside)
        if missing:
            text = f"'{instance.name}': nothing inside is connected to {word} {missing[0]}, but to {word} {max(inside)}"
            self.report.error(instance.span, text)

    # ---- Connections ----

    def _connect(self, chain: syntax.Chain, level: _Level) -> None:
        groups = [[(end, self._instance(end, level)) for end in group] for group in chain.groups]
        for end, _ in groups[-1]:
            if end.outputs is not None:
                self.report.error(end.span, "an output port at the end of a chain leads nowhere")
        for left, arrow, right in zip(groups, chain.arrows, groups[1:], strict=False):
            every = arrow == "=>"
            outputs = self._ports(left, level, every, True)
            inputs = self._ports(right, level, every, False)
            self._join(outputs, inputs, Span(left[0][0].span.start, right[-1][0].span.end), right[0][0].span)

    def _instance(self, end: syntax.End, level: _Level) -> _Instance:
        made = level.made.get(id(end.element))
        if made is not None:
            return made
        assert not isinstance(end.element, syntax.Anonymous), "every anonymous element has been made"
        return level.table.get(end.element.name) or self._nothing(end.span)

    def _ports(
        self, group: Sequence[tuple[syntax.End, _Instance]], level: _Level, every: bool, out: bool
    ) -> list[tuple[_Instance, int]] | _Instance:
        """The ports that a group names; one element whose number of ports is not known stands for as many as needed."""
        ports: list[tuple[_Instance, int]] = []
        for end, instance in group:
            numbers = end.outputs if out else end.inputs
            if numbers is None and every:
                count = self._count(instance, out)
                if count is None and len(group) == 1:
                    return instance
                numbers = tuple(range(1 if count is None else count))
            ports += [(instance, number) for number in ((0,) if numbers is None else numbers)]
        return ports

    def _count(self, instance: _Instance, out: bool) -> int | None:
        if instance.of.bodies:
            return len(_own_ports(instance.of.bodies[0][0])[out])
        return self.counts(instance.of.name)[out] if instance.of.name in self.classes else None

    def _join(
        self,
        outputs: list[tuple[_Instance, int]] | _Instance,
        inputs: list[tuple[_Instance, int]] | _Instance,
        span: Span,
        target: Span,
    ) -> None:
        if isinstance(outputs, _Instance) and isinstance(inputs, _Instance):
            self.report.error(target, "how many ports '=>' joins cannot be seen; write them, such as [0, 1] => [0, 1]")
            return
        if isinstance(outputs, _Instance):
            outputs = [(outputs, number) for number in range(len(inputs))]  # type: ignore[arg-type]
        if isinstance(inputs, _Instance):
            inputs = [(inputs, number) for number in range(len(outputs))]
        if len(outputs) != len(inputs) and 1 not in (len(outputs), len(inputs)):
            self.report.error(target, f"{len(outputs)} outputs cannot be joined to {len(inputs)} inputs")
            return
        for index in range(max(len(outputs), len(inputs))):
            source, output = outputs[index if len(outputs) > 1 else 0]
            into, number = inputs[index if len(inputs) > 1 else 0]
            source.used_outputs.add(output)
            into.used_inputs.add(number)
            self.edges.setdefault((source.outputs, output), {}).setdefault((into.inputs, number), span)
            self.edge_count += 1
        if self.edge_count > CONNECTIONS_MAX:
            self.report.error(
                span, f"the configuration has more connections than the {CONNECTIONS_MAX} that are allowed"
            )
            raise _TooLargeError

    def joined(self) -> tuple[Connection, ...]:
        """The connections between elements, those through stand-ins joined. Each keeps the place of its first part."""
        found = []
        for source, number in list(self.edges):
            if source < 0:
                continue
            for (target, port), span in self._reached((source, number)).items():
                found.append(Connection(source, number, target, port, span))
                if len(found) > CONNECTIONS_MAX:
                    text = f"the configuration has more connections than the {CONNECTIONS_MAX} that are allowed"
                    self.report.error(span, text)
                    return ()
        return tuple(found)

    def _reached(self, start: Port) -> dict[Port, Span]:
        reached: dict[Port, Span] = {}
        seen = {start}
        waiting = [(port, span) for port, span in self.edges[start].items()]
        while waiting:
            port, span = waiting.pop()
            if port in seen:
                continue
            seen.add(port)
            if port[0] >= 0:
                reached[port] = span
            else:
                waiting += [(onward, span) for onward in self.edges.get(port, ())]
        return dict(sorted(reached.items()))


def _declared_names(statements: Sequence[syntax.Statement]) -> frozenset[str]:
    names = set()
    for statement in statements:
        if isinstance(statement, syntax.Chain):
            for group in statement.groups:
                names |= {end.element.name for end in group if isinstance(end.element, syntax.Declared)}
                names |= {element.name for _, element in _multiple(group) if isinstance(element, syntax.Declared)}
    return frozenset(names)


def _multiple(group: Sequence[syntax.End]) -> Iterator[tuple[syntax.End, Element]]:
    """The elements of a group; in `a, b :: X` a is declared too."""
    following: syntax.Declared | None = None
    result: list[tuple[syntax.End, Element]] = []
    for end in reversed(group):
        element = end.element
        if isinstance(element, syntax.Declared):
            following = element
        elif isinstance(element, syntax.Named) and following and end.inputs is None and end.outputs is None:
            element = syntax.Declared(element.name, following.of, following.config, span=element.span)
        else:
            following = None
        result.append((end, element))
    return reversed(result)


def _with_classes(group: Sequence[syntax.End], level: _Level) -> Iterator[tuple[syntax.End, Element]]:
    """As `_multiple`, but what has been declared before stays what it is."""
    for end, element in _multiple(group):
        known = isinstance(end.element, syntax.Named) and end.element.name in level.table
        yield end, end.element if known else element


def _own_ports(body: syntax.Body) -> tuple[set[int], set[int]]:
    """Inputs and outputs that the statements of a compound element use."""
    inputs: set[int] = set()
    outputs: set[int] = set()
    for statement in body.statements:
        if isinstance(statement, syntax.Chain):
            for place, group in enumerate(statement.groups):
                for end in group:
                    if not isinstance(end.element, syntax.Named):
                        continue
                    if end.element.name == "input" and place < len(statement.arrows):
                        inputs |= set(end.outputs if end.outputs is not None else (0,))
                    if end.element.name == "output" and place > 0:
                        outputs |= set(end.inputs if end.inputs is not None else (0,))
    return inputs, outputs


def _bound(formals: Sequence[syntax.Formal], arguments: Sequence[Argument]) -> tuple[dict[str, str], str]:
    """The variables that arguments give to a compound element, or why they do not fit it."""
    keywords = {formal.keyword: formal.name for formal in formals if formal.keyword and formal.keyword != "__REST__"}
    rest = next((formal.name for formal in formals if formal.keyword == "__REST__"), None)
    places = [formal.name for formal in formals if not formal.keyword]
    values: dict[str, str] = {}
    extra: list[str] = []
    for argument in arguments:
        word, _, value = argument.text.partition(" ")
        if word in keywords and keywords[word] not in values:
            values[keywords[word]] = value.strip()
        elif places:
            values[places.pop(0)] = argument.text
        else:
            extra.append(argument.text)
    wanted = [formal for formal in formals if formal.keyword != "__REST__" and formal.name not in values]
    if wanted:
        return {}, f"the argument {wanted[0]} is missing"
    if extra and rest is None:
        return {}, f"it has {len(formals)} arguments, found {len(arguments)}"
    if rest is not None:
        values[rest] = ", ".join(extra)
    return values, ""
