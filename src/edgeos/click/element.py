"""What an element class is: its ports, arguments, handlers and checks. The C that runs is its template.

An element class is a subclass of `Element` in a module of `edgeos.click.elements` and a template in
guest/include/click/elements, which is included once for each instance (see guest/include/click/runtime.h). `headers` of
guest/include/click are included once, before all elements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from edgeos.click.arguments import Bound, Parameter
from edgeos.click.source import Span

Found = TypeVar("Found", bound="Element")


@dataclass(frozen=True)
class Read:
    """A handler that is read: `ME(read_NAME)(click_text *out)` in the template."""

    name: str


@dataclass(frozen=True)
class Write:
    """A handler that is written: `ME(write_NAME)(const char *text, uint32_t len)` in the template."""

    name: str


class ElementError(Exception):
    """What is wrong with an element, and the argument that it is about (None: the element itself)."""

    def __init__(self, text: str, span: Span | None) -> None:
        super().__init__(text)
        self.span = span


class Surroundings(Protocol):
    """What an element may ask of the configuration that it stands in."""

    def find(self, asking: Element, name: str) -> Element | None:
        """The element of this name, seen from another one: first within the same compound element, then outward."""

    def device(self, name: str) -> int:
        """The number of a device, see `edgeos.click.devices`."""

    def read_file(self, name: str) -> str:
        """The text of a file that lies beside the configuration. Raises OSError, or ValueError when it is no text."""


class Element:
    """An element class; an object is one instance in a configuration. docs/click.md says how to write one."""

    ports: ClassVar[str] = ""
    processing: ClassVar[str] = "a/a"
    flow: ClassVar[str] = "x/x"
    parameters: ClassVar[Sequence[Parameter]] = ()
    handlers: ClassVar[Sequence[Read | Write]] = ()
    template: ClassVar[str] = ""
    headers: ClassVar[Sequence[str]] = ()
    action: ClassVar[bool] = False

    def __init__(
        self, name: str, span: Span, bound: Bound, n_inputs: int, n_outputs: int, surroundings: Surroundings
    ) -> None:
        self.name = name
        self.span = span
        self.n_inputs = n_inputs
        self.n_outputs = n_outputs
        self.symbol = ""
        self.uses: list[Element] = []
        self.pushes_in: tuple[bool, ...] = ()
        self.pushes_out: tuple[bool, ...] = ()
        self._bound = bound
        self._surroundings = surroundings

    @property
    def in_port(self) -> int | None:
        """The in port of the guest whose messages come to `ME(receive)(p)`."""
        return None

    @property
    def task(self) -> bool:
        """Whether `ME(task)()` runs at the end of every burst."""
        return False

    @property
    def timer(self) -> bool:
        """Whether `ME(timer)()` runs when `ME(due)` has come; the guest then needs grant.timer."""
        return False

    @property
    def init(self) -> bool:
        """Whether `ME(init)()` runs once per template."""
        return False

    @property
    def holds(self) -> bool:
        """Whether it keeps packets after its function has returned."""
        return False

    @property
    def packets(self) -> int:
        """Packets that it may keep or make at once."""
        return 0

    def __getitem__(self, name: str) -> Any:
        return self._bound.values[name]

    def given(self, name: str) -> bool:
        """Whether the configuration names this argument; otherwise its value is the default."""
        return name in self._bound.spans

    def error(self, text: str, argument: str | tuple[str, int] | None = None) -> ElementError:
        """An error to raise, about one argument by its name, or by name and number for a `rest`."""
        name, index = argument if isinstance(argument, tuple) else (argument, 0)
        spans = self._bound.spans.get(name or "", ())
        return ElementError(text, spans[index] if index < len(spans) else None)

    def find(self, name: str, of: type[Found], argument: str | tuple[str, int] | None = None) -> Found:
        """Another element by its name, whose C then stands before this one's. Raises ElementError."""
        found = self._surroundings.find(self, name)
        if found is None:
            raise self.error(f"there is no element '{name}'", argument)
        if not isinstance(found, of):
            raise self.error(f"'{name}' is a {type(found).__name__}; allowed: a {of.__name__}", argument)
        if found is not self:
            self.uses.append(found)
        return found

    def device(self, name: str) -> int:
        """The number of a device."""
        return self._surroundings.device(name)

    def read_file(self, name: str, argument: str) -> str:
        """The text of a file that an argument names, relative to the configuration. Raises ElementError."""
        try:
            return self._surroundings.read_file(name)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise self.error(f"'{name}' cannot be read: {reason}", argument) from None

    def check(self) -> None:
        """Checks what arguments and connections must keep to together. Raises ElementError."""

    def code(self) -> str:
        """C that stands before the template: tables and generated functions, named by ME()."""
        return ""

    def defines(self) -> dict[str, str | int]:
        """The constants that the template sees."""
        constants: dict[str, str | int] = {}
        for parameter in self.parameters:
            value = self[parameter.name]
            if value is not None and not parameter.many:
                constants |= parameter.kind.constants(f"ARG_{parameter.name}", value)
        return constants

    @classmethod
    def template_name(cls) -> str:
        """The template's file: the class name in snake case, unless `template` says otherwise."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__)
        return cls.template or f"{words.lower()}.h"

    @classmethod
    def summary(cls) -> str:
        """The first sentence of its documentation."""
        text = " ".join((cls.__doc__ or "").split())
        return text.split(". ")[0].removesuffix(".") + "."


def handler_names(of: type[Element]) -> Mapping[str, str]:
    """The handlers of a class: "r", "w" or "rw" by name."""
    names: dict[str, str] = {}
    for handler in of.handlers:
        names[handler.name] = names.get(handler.name, "") + ("r" if isinstance(handler, Read) else "w")
    return names
