"""From the text between an element's parentheses to its arguments, each with its position, and to their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeos.click.kinds import ArgumentError, Kind
from edgeos.click.source import Report, Span
from edgeos.findings import nearest

_PART: Final = re.compile(r"""\\<[^>]*>|\\.|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'[^']*'|,""", re.DOTALL)
_KEYWORD: Final = re.compile(r"([A-Z_][A-Z0-9_]*)(?:\s+(.*))?", re.DOTALL)
_VARIABLE: Final = re.compile(r"""\\.|'[^']*'|\$(?:(\w+)|\{(\w+)\})""", re.DOTALL | re.ASCII)
_SUBSTITUTED_MAX: Final = 1 << 20


@dataclass(frozen=True)
class Argument:
    """One argument: its text without comments and outer spaces, and where it stands in the configuration."""

    text: str
    span: Span


@dataclass(frozen=True)
class Parameter:
    """One thing that an element may be told. `position`: it is also known by its place; `many`: all that remain."""

    name: str
    kind: Kind
    default: Any = None
    required: bool = False
    position: bool = False
    many: bool = False


def required(name: str, kind: Kind) -> Parameter:
    """A parameter that must be given, by its place or name."""
    return Parameter(name, kind, required=True, position=True)


def optional(name: str, kind: Kind, default: Any = None) -> Parameter:
    """A parameter that may be given, by its place or name."""
    return Parameter(name, kind, default, position=True)


def keyword(name: str, kind: Kind, default: Any = None) -> Parameter:
    """A parameter that may be given by name."""
    return Parameter(name, kind, default)


def keyword_required(name: str, kind: Kind) -> Parameter:
    """A parameter that must be given by name."""
    return Parameter(name, kind, required=True)


def rest(name: str, kind: Kind) -> Parameter:
    """All arguments that have no parameter of their own; the value is a tuple."""
    return Parameter(name, kind, (), many=True)


@dataclass(frozen=True)
class Bound:
    """Values by parameter, and where each of them stands: a span, or one for each of `rest`."""

    values: Mapping[str, Any]
    spans: Mapping[str, tuple[Span, ...]]


def split(text: str, start: int) -> list[Argument]:
    """The arguments of a configuration string that begins at the offset `start`. An empty last one does not count."""
    found: list[Argument] = []
    first = 0
    for part in _PART.finditer(text):
        if part.group() == ",":
            found.append(_argument(text, first, part.start(), start))
            first = part.end()
    found.append(_argument(text, first, len(text), start))
    if not found[-1].text:
        found.pop()
    return found


def _argument(text: str, first: int, last: int, start: int) -> Argument:
    piece = text[first:last]
    plain = _PART.sub(lambda part: " " * len(part.group()) if part.group()[:2] in ("//", "/*") else part.group(), piece)
    left = len(plain) - len(plain.lstrip())
    trimmed = plain.strip()
    begin = start + first + left
    return Argument(trimmed, Span(begin, begin + max(1, len(trimmed))))


def substitute(arguments: Iterable[Argument], variables: Mapping[str, str], report: Report) -> list[Argument]:
    """The arguments with `$name` and `${name}` replaced; a value with commas makes several arguments."""
    result: list[Argument] = []
    for argument in arguments:
        if "$" not in argument.text:
            result.append(argument)
            continue
        text = _substituted(argument, variables, report)
        result += [Argument(piece.text, argument.span) for piece in split(text, 0)] if text.strip() else []
    return result


def _substituted(argument: Argument, variables: Mapping[str, str], report: Report) -> str:
    def value(part: re.Match[str]) -> str:
        name = part[1] or part[2]
        if name is None:
            return part.group()
        if name not in variables:
            hint = nearest(name, variables)
            report.error(argument.span, f"there is no variable ${name}" + (f"; {hint}" if hint else ""))
            return ""
        return variables[name]

    text = _VARIABLE.sub(value, argument.text)
    if len(text) > _SUBSTITUTED_MAX:
        report.error(argument.span, f"the argument has {len(text)} characters; allowed: {_SUBSTITUTED_MAX}")
        return ""
    return text


def bind(
    parameters: Sequence[Parameter], arguments: Sequence[Argument], owner: str, span: Span, report: Report
) -> Bound | None:
    """The values of an element's parameters; None when something is wrong, which is then in the report."""
    by_name = {parameter.name: parameter for parameter in parameters}
    places = iter([parameter for parameter in parameters if parameter.position])
    many = next((parameter for parameter in parameters if parameter.many), None)
    given: dict[str, list[Argument]] = {}
    fine = True
    for argument in arguments:
        match = _KEYWORD.fullmatch(argument.text)
        named = by_name.get(match[1]) if match else None
        if named is not None and not named.many and match is not None:
            shift = len(argument.text) - len(match[2] or "")
            inner = Argument(
                match[2] or "", Span(min(argument.span.start + shift, argument.span.end - 1), argument.span.end)
            )
            target: Parameter | None = named
        else:
            inner = argument
            target = next((place for place in places if place.name not in given), many)
        if target is None:
            fine = False
            report.error(argument.span, _too_many(owner, match[1] if match else "", parameters))
            continue
        if target.name in given and not target.many:
            fine = False
            report.error(argument.span, f"{owner}: {target.name} is given twice")
        given.setdefault(target.name, []).append(inner)
    values: dict[str, Any] = {}
    for parameter in parameters:
        pieces = given.get(parameter.name)
        if pieces is None:
            if parameter.required:
                fine = False
                report.error(span, f"{owner}: {parameter.name} is missing: {parameter.kind.allowed}")
            values[parameter.name] = parameter.default
            continue
        parsed = []
        for piece in pieces:
            try:
                parsed.append(parameter.kind.parse(piece.text))
            except ArgumentError as error:
                fine = False
                report.error(piece.span, f"{owner}: {parameter.name}: {error}")
        values[parameter.name] = tuple(parsed) if parameter.many else parsed[0] if parsed else None
    return Bound(values, {name: tuple(p.span for p in pieces) for name, pieces in given.items()}) if fine else None


def _too_many(owner: str, word: str, parameters: Sequence[Parameter]) -> str:
    names = [parameter.name for parameter in parameters]
    hint = nearest(word, names) if word else ""
    allowed = ", ".join(names) or "none"
    return f"{owner}: an argument too many; its arguments: {allowed}" + (f"; {hint}" if hint else "")
