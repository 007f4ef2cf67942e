"""What the element table says about a class, in words for people."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from edgeos.click.arguments import Parameter
from edgeos.click.element import Element, handler_names
from edgeos.click.ports import AGNOSTIC, PULL, PUSH

_WORDS = {PUSH: "push", PULL: "pull", AGNOSTIC: "push or pull"}


def processing(of: type[Element]) -> str:
    """How packets come and go: `push → pull`, or one word when both sides are alike; "-" stands for no ports."""
    left, right = (_side(letters) for letters in of.processing.split("/"))
    counts = of.ports.split("/")
    sides = [words if count != "0" else "-" for words, count in zip((left, right), counts, strict=True)]
    return sides[0] if sides[0] == sides[1] else " → ".join(sides)


def _side(letters: str) -> str:
    return ", ".join(dict.fromkeys(_WORDS[letter] for letter in letters or AGNOSTIC))


def usage(of: type[Element]) -> str:
    """The arguments as one writes them; those in brackets may be left out."""
    return ", ".join(_usage(parameter) for parameter in of.parameters)


def _usage(parameter: Parameter) -> str:
    if parameter.many:
        return f"{parameter.name} …"
    text = parameter.name if parameter.position else f"{parameter.name} {parameter.kind.usage}"
    return text if parameter.required else f"[{text}]"


def handlers(of: type[Element]) -> str:
    """The handlers, each with r, w or rw."""
    return ", ".join(f"{name} ({modes})" for name, modes in handler_names(of).items())


def description(of: type[Element]) -> str:
    """All of its documentation."""
    return inspect.getdoc(of) or ""


def table(classes: Iterable[type[Element]]) -> Table:
    """All classes, one a line."""
    rows = Table("element", "ports", "packets", "arguments", "what it does", "handlers", box=None, padding=(0, 2, 0, 0))
    rows.pad_edge = False
    for of in classes:
        cells = (of.__name__, of.ports, processing(of), usage(of), of.summary(), handlers(of))
        rows.add_row(*(Text(cell) for cell in cells))
    return rows


def card(of: type[Element]) -> Text:
    """Everything about one class."""
    lines = [f"{of.__name__}({usage(of)})", "", description(of), "", f"ports     {of.ports} ({processing(of)})"]
    for number, parameter in enumerate(of.parameters):
        default = (
            "" if parameter.required or parameter.many or parameter.default is None else f", else {parameter.default}"
        )
        needed = ", required" if parameter.required else ""
        head = "arguments " if number == 0 else " " * 10
        lines.append(f"{head}{parameter.name}: {parameter.kind.allowed}{needed}{default}")
    lines.append(f"handlers  {handlers(of) or 'none'}")
    return Text("\n".join(lines))


# ---- The page docs/click-elements.md ----

_HEAD = """# Click elements

All element classes that a [Click configuration](click.md) may name, with their arguments in Click's syntax. This page
is made from the element table: `python -m edgeos.click.reference > docs/click-elements.md`; a test keeps it up to date.

Arguments in brackets may be left out; those in capitals with a value behind them are given by that name, the others by
their place or name. A port is push or pull as Click's manual has it; "push or pull" follows what it is connected to.
Handlers are read (r) or written (w) by `edgeos read` and `edgeos write` as `element.handler`.

An element that expects an IP packet takes the header that CheckIPHeader or MarkIPHeader has found, or the packet's
first byte where none has; what holds no whole IPv4 header is dropped by elements that would change it. Time is that of
the packets, so nothing needs the grant of a clock; elements with rates and timeouts that act by themselves need
`timer`. What a configuration says is built in: handlers change rates, limits, switches and tables, not addresses.
"""


def page(classes: Iterable[type[Element]]) -> str:
    """The reference as Markdown: a table of all classes, then a section for each family."""
    families: dict[str, list[type[Element]]] = {}
    for of in classes:
        families.setdefault(of.__module__, []).append(of)
    parts = [_HEAD]
    for module in sorted(families):
        title = " ".join((sys.modules[module].__doc__ or "").split()).rstrip(".")
        parts.append(f"## {title}\n")
        parts.append("| element | ports | packets | arguments | handlers |\n|---|---|---|---|---|")
        parts += [_row(of) for of in families[module]]
        parts.append("")
        parts += [f"**{of.__name__}.** {_paragraph(of)}\n" for of in families[module]]
    return "\n".join(parts).rstrip() + "\n"


def _row(of: type[Element]) -> str:
    cells = (f"`{of.__name__}`", of.ports, processing(of), _code(usage(of)), handlers(of))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _paragraph(of: type[Element]) -> str:
    return " ".join(description(of).split()).replace("<", "\\<")


if __name__ == "__main__":
    from edgeos.click.registry import element_classes

    print(page(element_classes().values()), end="")
