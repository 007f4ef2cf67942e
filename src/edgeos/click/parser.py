"""From the text of a configuration to its syntax tree; lark does the parsing, by the grammar below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NoReturn

from lark import Lark, Token, Transformer, UnexpectedToken, v_args
from lark.exceptions import VisitError

from edgeos.click import syntax
from edgeos.click.lexer import ClickLexer, LexicalError
from edgeos.click.source import Report, Source, Span

TEXT_MAX: Final = 4 * 2**20
"""Characters of the longest configuration."""

PORT_MAX: Final = 65535

_GRAMMAR: Final = r"""
start: statement*

?statement: chain | elementclass | require | define | _semicolon
_semicolon: END
elementclass: ELEMENTCLASS NAME of
require: REQUIRE CONFIG
define: DEFINE CONFIG

chain: first_group (ARROW group)*
first_group: first_end (COMMA first_end)*
group: end (COMMA end)*
first_end: element ports?
end: ports? element ports?
ports: OPEN_PORT NUMBER (COMMA NUMBER)* CLOSE_PORT

?element: named | declared | anonymous
named: NAME
declared: NAME IS of CONFIG?
anonymous: NAME CONFIG -> anonymous_name
         | compound CONFIG?

?of: class_name | compound
class_name: NAME
compound: OPEN body (OR body)* [OR DOTS] CLOSE
body: (formals BAR)? statement*
formals: (formal (COMMA formal)*)?
formal: NAME? VARIABLE

%declare NUMBER NAME VARIABLE CONFIG ARROW IS END COMMA OPEN_PORT CLOSE_PORT OPEN CLOSE BAR OR DOTS
%declare ELEMENTCLASS REQUIRE DEFINE
"""

_SHOWN: Final = {
    "NUMBER": "a port number", "NAME": "a name", "VARIABLE": "a $variable", "CONFIG": "'('", "ARROW": "'->'",
    "IS": "'::'", "END": "';'", "COMMA": "','", "OPEN_PORT": "'['", "CLOSE_PORT": "']'", "OPEN": "'{'", "CLOSE": "'}'",
    "BAR": "'|'", "OR": "'||'", "DOTS": "'...'", "ELEMENTCLASS": "elementclass", "REQUIRE": "require",
    "DEFINE": "define", "$END": "the end",
}  # fmt: skip


def parse(source: Source) -> syntax.Script:
    """The syntax tree of a configuration. Raises ClickError with the position of the first mistake."""
    if len(source.text) > TEXT_MAX:
        _fail(source, Span(0, 1), f"the configuration has {len(source.text)} characters; allowed: {TEXT_MAX}")
    try:
        tree: syntax.Script = _PARSER.parse(source.text)  # type: ignore[assignment]
    except LexicalError as error:
        _fail(source, error.span, error.text)
    except UnexpectedToken as error:
        _fail(source, _span_of(error.token, len(source.text)), _unexpected(error))
    except VisitError as error:
        if isinstance(error.orig_exc, LexicalError):
            _fail(source, error.orig_exc.span, error.orig_exc.text)
        raise
    return tree


def _fail(source: Source, span: Span, text: str) -> NoReturn:
    report = Report(source)
    report.error(span, text)
    report.raise_if_any()
    raise AssertionError("a report with an error raises")


def _span_of(token: Token, end: int) -> Span:
    if token.type == "$END" or token.start_pos is None or token.end_pos is None:
        return Span(max(0, end - 1), end)
    return Span(token.start_pos, token.end_pos)


def _unexpected(error: UnexpectedToken) -> str:
    found = "the end" if error.token.type == "$END" else "'('" if error.token.type == "CONFIG" else f"'{error.token}'"
    expected = sorted(_SHOWN[name] for name in error.accepts or error.expected)
    text = f"found {found}; expected: {', '.join(expected)}"
    if error.token.type == "OPEN_PORT":
        text += "; an input port is written behind an arrow"
    return text


def _spanned(parts: Iterable[Any]) -> Span:
    spans = [part.span if isinstance(part, syntax.Node) else _span_of(part, 0) for part in parts if part is not None]
    return Span(spans[0].start, spans[-1].end) if spans else syntax.NO_SPAN


class _Ports(syntax.Node):
    """Port numbers in brackets, until they are part of an end."""

    def __init__(self, numbers: tuple[int, ...], span: Span) -> None:
        super().__init__(span=span)
        object.__setattr__(self, "numbers", numbers)

    numbers: tuple[int, ...]


def _config(token: Token | None) -> syntax.Config | None:
    return None if token is None else syntax.Config(str(token), span=_span_of(token, 0))


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes the nodes of the tree as the parser finds them."""

    def start(self, *statements: Any) -> syntax.Script:
        return syntax.Script(_statements(statements), span=_spanned(statements))

    def elementclass(self, word: Token, name: Token, of: Any) -> syntax.ElementClass:
        return syntax.ElementClass(str(name), of, span=_spanned((word, name)))

    def require(self, word: Token, config: Token) -> syntax.Require:
        return syntax.Require(syntax.Config(str(config), span=_span_of(config, 0)), span=_spanned((word, config)))

    def define(self, word: Token, config: Token) -> syntax.Define:
        return syntax.Define(syntax.Config(str(config), span=_span_of(config, 0)), span=_spanned((word, config)))

    def chain(self, *parts: Any) -> syntax.Chain:
        groups = tuple(part for part in parts if isinstance(part, tuple))
        arrows = tuple(str(part) for part in parts if isinstance(part, Token))
        return syntax.Chain(groups, arrows, span=Span(groups[0][0].span.start, groups[-1][-1].span.end))

    def group(self, *parts: Any) -> tuple[syntax.End, ...]:
        return tuple(part for part in parts if isinstance(part, syntax.End))

    first_group = group

    def end(self, *parts: Any) -> syntax.End:
        index = 1 if isinstance(parts[0], _Ports) else 0
        inputs = parts[0].numbers if index else None
        outputs = parts[index + 1].numbers if len(parts) > index + 1 else None
        return syntax.End(parts[index], inputs, outputs, span=_spanned(parts))

    first_end = end

    def ports(self, *parts: Token) -> _Ports:
        numbers = [part for part in parts if part.type == "NUMBER"]
        for part in numbers:
            if len(part) > len(str(PORT_MAX)) or int(part) > PORT_MAX:
                raise LexicalError(_span_of(part, 0), f"port numbers go up to {PORT_MAX}")
        return _Ports(tuple(int(part) for part in numbers), _spanned(parts))

    def named(self, name: Token) -> syntax.Named:
        return syntax.Named(str(name), span=_span_of(name, 0))

    def declared(self, name: Token, _is: Token, of: Any, config: Token | None = None) -> syntax.Declared:
        return syntax.Declared(str(name), of, _config(config), span=_spanned((name, of)))

    def anonymous(self, of: syntax.Compound, config: Token | None = None) -> syntax.Anonymous:
        return syntax.Anonymous(of, _config(config), span=of.span)

    def anonymous_name(self, name: Token, config: Token) -> syntax.Anonymous:
        return syntax.Anonymous(self.class_name(name), _config(config), span=_span_of(name, 0))

    def class_name(self, name: Token) -> syntax.ClassName:
        return syntax.ClassName(str(name), span=_span_of(name, 0))

    def compound(self, *parts: Any) -> syntax.Compound:
        bodies = tuple(part for part in parts if isinstance(part, syntax.Body))
        extends = any(isinstance(part, Token) and part.type == "DOTS" for part in parts)
        return syntax.Compound(bodies, extends, span=_spanned(parts))

    def body(self, *parts: Any) -> syntax.Body:
        formals = parts[0] if parts and isinstance(parts[0], tuple) else ()
        statements = _statements(parts)
        return syntax.Body(formals, statements, span=_spanned(statements))

    def formals(self, *parts: Any) -> tuple[syntax.Formal, ...]:
        return tuple(part for part in parts if isinstance(part, syntax.Formal))

    def formal(self, *parts: Token) -> syntax.Formal:
        keyword = str(parts[0]) if len(parts) > 1 else ""
        return syntax.Formal(str(parts[-1])[1:], keyword, span=_spanned(parts))


def _statements(parts: Iterable[Any]) -> tuple[syntax.Statement, ...]:
    kinds = (syntax.Chain, syntax.ElementClass, syntax.Require, syntax.Define)
    return tuple(part for part in parts if isinstance(part, kinds))


_PARSER: Final = Lark(_GRAMMAR, parser="lalr", lexer=ClickLexer, transformer=_Builder())
