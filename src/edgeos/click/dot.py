"""A configuration as text for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator

from edgeos.click.element import Element
from edgeos.click.labels import Labels
from edgeos.click.router import Router


def dot(router: Router) -> str:
    """The graph; arrows are full where packets are pushed, hollow where they are pulled."""
    return "".join(f"{line}\n" for line in _lines(router))


def _lines(router: Router) -> Iterator[str]:
    yield "digraph configuration {"
    yield '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];'
    yield '  edge [fontname="sans-serif", fontsize=9];'
    numbers = {element: f"e{index}" for index, element in enumerate(router.elements)}
    labels = Labels(router)
    for element, number in numbers.items():
        yield f"  {number} [label={_quoted(labels.short(element))}];"
    for source, output, target, input_port in router.connections:
        head = "normal" if source.pushes_out[output] else "empty"
        marks = ", ".join([f"arrowhead={head}", *_port_labels(source, output, target, input_port)])
        yield f"  {numbers[source]} -> {numbers[target]} [{marks}];"
    yield "}"


def _port_labels(source: Element, output: int, target: Element, number: int) -> Iterator[str]:
    if source.n_outputs > 1:
        yield f'taillabel="{output}"'
    if target.n_inputs > 1:
        yield f'headlabel="{number}"'


def _quoted(lines: list[str]) -> str:
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
