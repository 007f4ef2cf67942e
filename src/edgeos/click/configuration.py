"""A configuration without compound elements: elements and the connections between their ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeos.click.arguments import Argument
from edgeos.click.source import Source, Span


@dataclass(frozen=True)
class FlatElement:
    """An element: its name with those of the compound elements around it, its class, and its arguments."""

    name: str
    of: str
    arguments: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True)
class Connection:
    """From an output to an input; elements by their place in the configuration."""

    source: int
    output: int
    target: int
    input: int
    span: Span


@dataclass(frozen=True)
class Configuration:
    """Elements and connections, all from one text. `requirements` are the packages that it names."""

    source: Source
    elements: tuple[FlatElement, ...]
    connections: tuple[Connection, ...]
    requirements: tuple[str, ...]
    variables: Mapping[str, str]

    def __str__(self) -> str:
        lines = []
        for element in self.elements:
            arguments = ", ".join(argument.text for argument in element.arguments)
            lines.append(f"{element.name} :: {element.of}" + (f"({arguments});" if arguments else ";"))
        for c in self.connections:
            source, target = self.elements[c.source].name, self.elements[c.target].name
            lines.append(f"{source} [{c.output}] -> [{c.input}] {target};")
        return "".join(f"{line}\n" for line in lines)
