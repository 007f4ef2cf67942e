"""A configuration's text, positions in it, and errors that show the line they are about."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from edgeos.errors import EdgeosError
from edgeos.findings import printable

FINDINGS_MAX = 50
"""Errors that are shown of one configuration; the rest are counted."""

_SHOWN_COLUMNS_MAX = 160


@dataclass(frozen=True)
class Span:
    """A part of a text: offsets of its first character and behind its last one."""

    start: int
    end: int


@dataclass(frozen=True)
class Source:
    """The text of a configuration and the name it goes by in messages."""

    name: str
    text: str
    _lines: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [0, *(index + 1 for index, character in enumerate(self.text) if character == "\n")]
        object.__setattr__(self, "_lines", tuple(starts))

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect.bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def where(self, span: Span) -> str:
        """`file:line:column` of the start of a span."""
        line, column = self.position(span.start)
        return f"{printable(self.name)}:{line}:{column}"

    def excerpt(self, span: Span) -> str:
        """The line that a span starts in, with a caret under its first character and tildes under the rest."""
        line, column = self.position(span.start)
        start = self._lines[line - 1]
        end = self._lines[line] - 1 if line < len(self._lines) else len(self.text)
        first = max(0, column - 1 - _SHOWN_COLUMNS_MAX // 2)
        shown = _plain(self.text[start + first : min(end, start + first + _SHOWN_COLUMNS_MAX)])
        marked = max(1, min(span.end, end) - span.start)
        room = max(1, len(shown) - (column - 1 - first))
        return f"  {shown}\n  {' ' * (column - 1 - first)}^{'~' * (min(marked, room) - 1)}"


def _plain(text: str) -> str:
    """One character for one, so that the caret stands where it should; none that a terminal would act on."""
    return "".join(c if c.isprintable() else " " if c in "\t\r\v\f" else "?" for c in text)


class ClickError(EdgeosError):
    """A configuration is wrong. `findings` holds each error as `file:line:column: message`, `str()` their lines too."""

    def __init__(self, findings: list[tuple[str, str]]) -> None:
        self.findings = tuple(text for text, _ in findings)
        blocks = [f"{text}\n{excerpt}" for text, excerpt in findings[:FINDINGS_MAX]]
        if len(findings) > FINDINGS_MAX:
            blocks.append(f"and {len(findings) - FINDINGS_MAX} more errors")
        super().__init__("\n".join(blocks))


class Report:
    """Collects the errors of one configuration; those about the same place and text are kept once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._findings: dict[tuple[Span, str], None] = {}

    def error(self, span: Span, text: str) -> None:
        """Adds an error about a part of the text."""
        self._findings.setdefault((span, printable(text)))

    @property
    def failed(self) -> bool:
        return bool(self._findings)

    def raise_if_any(self) -> None:
        """Raises ClickError with everything found so far, in the order of the text."""
        if self._findings:
            found = sorted(self._findings, key=lambda finding: finding[0].start)
            where, excerpt = self.source.where, self.source.excerpt
            raise ClickError([(f"{where(span)}: {text}", excerpt(span)) for span, text in found])
