"""What a drawing writes about an element: its name, class and arguments."""

from __future__ import annotations

from collections.abc import Mapping

from edgeos.click.element import Element
from edgeos.click.router import Router
from edgeos.findings import printable

ARGUMENTS_CHARACTERS_MAX = 36


class Labels:
    """The texts of one configuration."""

    def __init__(self, router: Router) -> None:
        self._arguments: Mapping[str, str] = {
            flat.name: ", ".join(printable(argument.text) for argument in flat.arguments)
            for flat in router.configuration.elements
        }

    def short(self, element: Element) -> list[str]:
        """Lines for its box: the name, unless it has none of its own, and the class with the start of the arguments."""
        arguments = self._arguments[element.name]
        if len(arguments) > ARGUMENTS_CHARACTERS_MAX:
            arguments = arguments[: ARGUMENTS_CHARACTERS_MAX - 1] + "…"
        of = type(element).__name__ + (f"({arguments})" if arguments else "")
        return [of] if "@" in element.name.rpartition("/")[2] else [element.name, of]

    def full(self, element: Element) -> str:
        """Its declaration."""
        return f"{element.name} :: {type(element).__name__}({self._arguments[element.name]})"
