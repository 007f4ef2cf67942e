"""Splits a configuration into tokens.

A lexer of our own, because a configuration string runs to the matching parenthesis, which no regular expression finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lark import Token
from lark.lexer import Lexer, LexerState

from edgeos.click.source import Span

_SKIPPED: Final = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_TOKEN: Final = re.compile(
    r"(?P<NUMBER>[0-9]+(?![\w@]))"
    r"|(?P<NAME>[A-Za-z_@][\w@]*(?:/[\w@]+)*)"
    r"|(?P<VARIABLE>\$[A-Za-z_]\w*)"
    r"|(?P<OPERATOR>\.\.\.|->|=>|::|\|\||[;,\[\]{}|(])",
    re.ASCII,
)
_OPERATORS: Final = {
    "->": "ARROW", "=>": "ARROW", "::": "IS", ";": "END", ",": "COMMA", "[": "OPEN_PORT", "]": "CLOSE_PORT",
    "{": "OPEN", "}": "CLOSE", "|": "BAR", "||": "OR", "...": "DOTS",
}  # fmt: skip
_KEYWORDS: Final = {"elementclass": "ELEMENTCLASS", "require": "REQUIRE", "define": "DEFINE"}
_CONFIG_PART: Final = re.compile(r"""\\.|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'[^']*'|[()]""", re.DOTALL)


class LexicalError(Exception):
    """A character that starts no token, or something that is not closed."""

    def __init__(self, span: Span, text: str) -> None:
        super().__init__(text)
        self.span = span
        self.text = text


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text. Raises LexicalError."""
    at = 0
    while True:
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
        if at == len(text):
            return
        found = _TOKEN.match(text, at)
        if found is None:
            raise LexicalError(Span(at, at + 1), _why_no_token(text, at))
        kind, word = found.lastgroup or "", found.group()
        end = found.end()
        if word == "(":
            end = _config_end(text, at)
            yield Token("CONFIG", text[at + 1 : end - 1], start_pos=at, end_pos=end)
        else:
            kind = _OPERATORS[word] if kind == "OPERATOR" else _KEYWORDS.get(word, kind)
            yield Token(kind, word, start_pos=at, end_pos=end)
        at = end


class ClickLexer(Lexer):
    """The tokens for lark's parser."""

    __future_interface__ = 2

    def __init__(self, _conf: Any) -> None:
        pass

    def lex(self, lexer_state: LexerState, parser_state: Any) -> Iterator[Token]:
        """The tokens of the text that lark was given."""
        return tokens(str(lexer_state.text.text))


def _why_no_token(text: str, at: int) -> str:
    if text.startswith("/*", at):
        return "comment without an end; close it with */"
    if text[at] == ")":
        return "')' without a '('"
    if text[at].isdigit():
        return "names start with a letter, '_' or '@'"
    return f"'{text[at]}' is not part of the language"


def _config_end(text: str, start: int) -> int:
    """The offset behind the parenthesis that closes the one at `start`; those in quotes and comments do not count."""
    depth = 0
    for part in _CONFIG_PART.finditer(text, start):
        if part.group() == "(":
            depth += 1
        elif part.group() == ")":
            depth -= 1
            if depth == 0:
                return part.end()
    raise LexicalError(Span(start, start + 1), "'(' without a ')'")
