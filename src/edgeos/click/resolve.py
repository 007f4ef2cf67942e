"""Which ports push and which pull: the same at both ends of a connection; agnostic elements follow their neighbours.

Kinds spread from the ports that have one by their class. Where two meet that differ, the error names both origins.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from edgeos.click.configuration import Connection
from edgeos.click.element import Element
from edgeos.click.ports import AGNOSTIC, PULL, PUSH, flows, processing
from edgeos.click.source import Report

_WORDS = {PUSH: "push", PULL: "pull"}


@dataclass(frozen=True)
class _Port:
    element: int
    out: bool
    number: int


@dataclass(frozen=True)
class _Found:
    """The kind of a port, and the port that it comes from."""

    kind: str
    origin: _Port


def resolve(elements: Sequence[Element], connections: Sequence[Connection], report: Report) -> None:
    """Sets `pushes_in` and `pushes_out` of the elements, and reports ports that do not fit."""
    found: dict[_Port, _Found] = {}
    neighbours = _neighbours(connections)
    waiting: deque[_Port] = deque()
    for index, element in enumerate(elements):
        for port in _ports(index, element):
            kind = processing(element.processing, port.out, port.number)
            if kind != AGNOSTIC:
                found[port] = _Found(kind, port)
                waiting.append(port)
    while waiting:
        port = waiting.popleft()
        here = found[port]
        for other, connection in neighbours[port]:
            there = found.get(other)
            if there is None:
                found[other] = here
                waiting.append(other)
            elif there.kind != here.kind:
                _conflict(elements, connection, found, report)
        element = elements[port.element]
        if processing(element.processing, port.out, port.number) != AGNOSTIC:
            continue
        for other in _linked(port, element):
            there = found.get(other)
            if there is None:
                found[other] = here
                waiting.append(other)
            elif there.kind != here.kind:
                _mixed(elements, port, here, there, report)
    for index, element in enumerate(elements):
        kinds = {port: found[port].kind if port in found else PUSH for port in _ports(index, element)}
        element.pushes_in = tuple(kinds[_Port(index, False, n)] == PUSH for n in range(element.n_inputs))
        element.pushes_out = tuple(kinds[_Port(index, True, n)] == PUSH for n in range(element.n_outputs))
    _check_uses(elements, connections, report)


def _ports(index: int, element: Element) -> list[_Port]:
    inputs = [_Port(index, False, number) for number in range(element.n_inputs)]
    return inputs + [_Port(index, True, number) for number in range(element.n_outputs)]


def _neighbours(connections: Sequence[Connection]) -> dict[_Port, list[tuple[_Port, Connection]]]:
    result: dict[_Port, list[tuple[_Port, Connection]]] = defaultdict(list)
    for c in connections:
        source, target = _Port(c.source, True, c.output), _Port(c.target, False, c.input)
        result[source].append((target, c))
        result[target].append((source, c))
    return result


def _linked(port: _Port, element: Element) -> list[_Port]:
    """The agnostic ports on the other side of an element that packets of this port go to or come from."""
    count = element.n_inputs if port.out else element.n_outputs
    others = [_Port(port.element, not port.out, number) for number in range(count)]
    return [
        other
        for other in others
        if processing(element.processing, other.out, other.number) == AGNOSTIC
        and (
            flows(element.flow, other.number, port.number)
            if port.out
            else flows(element.flow, port.number, other.number)
        )
    ]


def _name(elements: Sequence[Element], port: _Port) -> str:
    return f"{'output' if port.out else 'input'} {port.number} of '{elements[port.element].name}'"


def _conflict(elements: Sequence[Element], c: Connection, found: dict[_Port, _Found], report: Report) -> None:
    source, target = _Port(c.source, True, c.output), _Port(c.target, False, c.input)
    texts = []
    for port in (source, target):
        kind, origin = found[port].kind, found[port].origin
        by = "" if origin == port else f" (by {_name(elements, origin)})"
        texts.append(f"{_WORDS[kind]} {_name(elements, port)}{by}")
    fix = "a Queue between them" if found[source].kind == PUSH else "an Unqueue between them"
    report.error(c.span, f"{texts[0]} is connected to {texts[1]}; fix: {fix}")


def _mixed(elements: Sequence[Element], port: _Port, here: _Found, there: _Found, report: Report) -> None:
    push, pull = (here, there) if here.kind == PUSH else (there, here)
    element = elements[port.element]
    text = (
        f"'{element.name}' lies between push {_name(elements, push.origin)} and pull {_name(elements, pull.origin)}; "
        "fix: a Queue or an Unqueue between them"
    )
    report.error(element.span, text)


def _check_uses(elements: Sequence[Element], connections: Sequence[Connection], report: Report) -> None:
    """A push output and a pull input have one connection each."""
    outputs: dict[tuple[int, int], Connection] = {}
    inputs: dict[tuple[int, int], Connection] = {}
    for c in connections:
        source, target = elements[c.source], elements[c.target]
        if source.pushes_out[c.output] and (c.source, c.output) in outputs:
            _twice(elements, outputs[c.source, c.output], c, f"push output {c.output} of '{source.name}'", True, report)
        if not target.pushes_in[c.input] and (c.target, c.input) in inputs:
            _twice(elements, inputs[c.target, c.input], c, f"pull input {c.input} of '{target.name}'", False, report)
        outputs.setdefault((c.source, c.output), c)
        inputs.setdefault((c.target, c.input), c)


def _twice(
    elements: Sequence[Element], first: Connection, second: Connection, what: str, out: bool, report: Report
) -> None:
    names = [elements[c.target if out else c.source].name for c in (first, second)]
    fix = "a Tee" if out else "an Unqueue for each"
    report.error(
        second.span, f"{what} has two connections: {'to' if out else 'from'} '{names[0]}' and '{names[1]}'; fix: {fix}"
    )
