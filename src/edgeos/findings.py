"""What is wrong with a value, said the same way everywhere: what was found, what is allowed, the nearest spelling."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from edgeos.errors import ManifestError

SHOWN_CHARACTERS_MAX = 60
LISTED_CHOICES_MAX = 24
NUMBER_BITS_MAX = 128
CLOSE_RATIO_MIN = 0.5  # so that one wrong letter of two still finds its word

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")


def counted(number: int, noun: str) -> str:
    """The number with its noun, as "1 port" or "2 ports"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class BadValueError(ManifestError):
    """One value that cannot be used. `found` is the value as shown to the user, `allowed` what would do instead."""

    def __init__(self, found: str, allowed: str, advice: str = "") -> None:
        super().__init__([f"found {found}; allowed: {allowed}" + (f"; {advice}" if advice else "")])
        self.found = found
        self.allowed = allowed
        self.advice = advice


def printable(text: str) -> str:
    """`text` with everything a terminal could act on (control characters, lone surrogates) written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shown(value: object) -> str:
    """A value as a message shows it: on one line, of bounded length, whatever it holds."""
    if isinstance(value, str):
        text = printable(value[:SHOWN_CHARACTERS_MAX]) + ("…" if len(value) > SHOWN_CHARACTERS_MAX else "")
        return f'"{text}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS_MAX:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    return printable(str(value))[:SHOWN_CHARACTERS_MAX]


def quoted(key: str) -> str:
    """A key as TOML writes it: bare where that is possible."""
    return key if _BARE_KEY.fullmatch(key) else shown(key)


def listed(choices: Iterable[str]) -> str:
    """The choices in one line, the first of them when there are many."""
    names = list(choices)
    more = len(names) - LISTED_CHOICES_MAX
    return ", ".join(names[:LISTED_CHOICES_MAX]) + (f" and {more} more" if more > 0 else "")


def nearest(word: str, choices: Iterable[str]) -> str:
    """`did you mean "…"?` with the choice spelled most like `word`; empty when none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word[:SHOWN_CHARACTERS_MAX].lower(), by_lower, n=1, cutoff=CLOSE_RATIO_MIN)
    return f'did you mean "{by_lower[close[0]]}"?' if close else ""


def unknown(word: str, choices: Collection[str], none: str = "nothing, there is none") -> BadValueError:
    """The finding for a word that is not among the choices; `none` says what that means when there are no choices."""
    return BadValueError(shown(word), listed(choices) or none, nearest(word, choices))


class Findings:
    """Collects findings, one line `file: table.key: …` each, and remembers which keys they were about.

    Checks of keys that must agree leave out those that are bad already, so that one mistake makes one line.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = "settings" if file is None else printable(str(file))
        self.problems: list[str] = []
        self._bad: set[tuple[str, str]] = set()

    def add(self, key: str, text: str) -> None:
        self.problems.append(f"{self.file}: {key}: {text}")

    def report(self, table: str, key: str, problem: BadValueError, attribute: str = "") -> None:
        self.add(f"{table}.{key}" if key else table, str(problem))
        self._bad.add((table, attribute or key))

    def is_bad(self, table: str, attributes: Iterable[str]) -> bool:
        return any((table, attribute) in self._bad for attribute in attributes)

    def raise_if_any(self) -> None:
        if self.problems:
            raise ManifestError(self.problems)
