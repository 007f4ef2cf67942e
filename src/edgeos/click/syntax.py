"""The syntax tree of a configuration, and its text again. Spans do not count when trees are compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeos.click.source import Span

NO_SPAN = Span(0, 0)


@dataclass(frozen=True)
class Node:
    """Any part of the tree; `span` is where it stands in the text."""

    span: Span = field(default=NO_SPAN, compare=False, kw_only=True)


@dataclass(frozen=True)
class Config(Node):
    """What stands between the parentheses of an element, as it was written."""

    text: str

    def __str__(self) -> str:
        return f"({self.text})"


@dataclass(frozen=True)
class ClassName(Node):
    """An element class by its name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Formal(Node):
    """A parameter of a compound element: `$name`, or `KEYWORD $name`."""

    name: str
    keyword: str = ""

    def __str__(self) -> str:
        return f"{self.keyword} ${self.name}".lstrip()


@dataclass(frozen=True)
class Body(Node):
    """One alternative of a compound element: its parameters and statements."""

    formals: tuple[Formal, ...]
    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        head = f"{', '.join(map(str, self.formals))} | " if self.formals else ""
        return head + " ".join(f"{statement};" for statement in self.statements)


@dataclass(frozen=True)
class Compound(Node):
    """A compound element in braces. `extends`: a class of this name that there was before is a last alternative."""

    bodies: tuple[Body, ...]
    extends: bool = False

    def __str__(self) -> str:
        return "{ " + " || ".join([*map(str, self.bodies), *(["..."] if self.extends else [])]) + " }"


ClassReference = ClassName | Compound


@dataclass(frozen=True)
class Named(Node):
    """An element, or an element class, by its name alone."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Declared(Node):
    """`name :: Class(config)`."""

    name: str
    of: ClassReference
    config: Config | None

    def __str__(self) -> str:
        return f"{self.name} :: {self.of}{self.config or ''}"


@dataclass(frozen=True)
class Anonymous(Node):
    """`Class(config)`, or a compound element without a name."""

    of: ClassReference
    config: Config | None

    def __str__(self) -> str:
        return f"{self.of}{self.config or ''}"


@dataclass(frozen=True)
class End(Node):
    """An element within a chain, with the port numbers written before and behind it; None where there are none."""

    element: Named | Declared | Anonymous
    inputs: tuple[int, ...] | None = None
    outputs: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"{_ports(self.inputs, '', ' ')}{self.element}{_ports(self.outputs, ' ', '')}"


@dataclass(frozen=True)
class Chain(Node):
    """Groups of elements joined by arrows, or one group alone: a declaration."""

    groups: tuple[tuple[End, ...], ...]
    arrows: tuple[str, ...]

    def __str__(self) -> str:
        texts = [", ".join(map(str, group)) for group in self.groups]
        return texts[0] + "".join(f" {arrow} {text}" for arrow, text in zip(self.arrows, texts[1:], strict=True))


@dataclass(frozen=True)
class ElementClass(Node):
    """`elementclass Name { … }`, or another name for a class."""

    name: str
    of: ClassReference

    def __str__(self) -> str:
        return f"elementclass {self.name} {self.of}"


@dataclass(frozen=True)
class Require(Node):
    """`require(…)`: packages that a configuration needs."""

    config: Config

    def __str__(self) -> str:
        return f"require{self.config}"


@dataclass(frozen=True)
class Define(Node):
    """`define($name value, …)`: variables."""

    config: Config

    def __str__(self) -> str:
        return f"define{self.config}"


Statement = Chain | ElementClass | Require | Define


@dataclass(frozen=True)
class Script(Node):
    """A whole configuration."""

    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return "".join(f"{statement};\n" for statement in self.statements)


def _ports(ports: tuple[int, ...] | None, before: str, behind: str) -> str:
    return "" if ports is None else f"{before}[{', '.join(map(str, ports))}]{behind}"
