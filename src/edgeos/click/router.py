"""A configuration put together and checked: elements with their arguments, connected, each port push or pull."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeos.click.arguments import bind
from edgeos.click.configuration import Configuration, FlatElement
from edgeos.click.devices import DEVICES_MAX, Devices
from edgeos.click.element import Element, ElementError
from edgeos.click.flatten import flatten
from edgeos.click.kinds import DeviceName
from edgeos.click.parser import parse
from edgeos.click.ports import fixed_counts, port_counts
from edgeos.click.registry import element_classes
from edgeos.click.resolve import resolve
from edgeos.click.source import Report, Source

FILE_MAX = 1 << 20
"""Bytes of a file that an element reads."""

NAME_MAX = 200
"""Characters of an element's name, those of the compound elements around it included."""


@dataclass(frozen=True)
class Router:
    """A configuration that is free of errors. `elements` stand in an order in which each comes after those it uses.

    `files` are the texts that its elements have read.
    """

    configuration: Configuration
    elements: tuple[Element, ...]
    outgoing: Mapping[Element, Mapping[int, tuple[Element, int]]]
    incoming: Mapping[Element, Mapping[int, tuple[Element, int]]]
    connections: tuple[tuple[Element, int, Element, int], ...]
    devices: Mapping[str, int]
    files: Mapping[Path, str]

    @property
    def timer(self) -> bool:
        """Whether the guest needs grant.timer."""
        return any(element.timer for element in self.elements)

    def has_same_files(self) -> bool:
        """Whether the files that its elements have read are still the same."""
        try:
            return all(path.read_text("utf-8") == text for path, text in self.files.items())
        except (OSError, ValueError):
            return False


def load(source: Source, variables: Mapping[str, str] | None = None, devices: Sequence[str] = ()) -> Router:
    """The router of a configuration's text. Raises ClickError with everything that is wrong with it.

    `variables` take the place of those that it defines; `devices` are names of devices in the order of their numbers.
    """
    classes = element_classes()
    configuration = flatten(
        parse(source), source, classes, lambda name: fixed_counts(classes[name].ports), variables or {}
    )
    report = Report(source)
    surroundings = _Surroundings(Devices(devices), Path(source.name).parent)
    elements = _make(configuration, surroundings, report)
    report.raise_if_any()
    resolve(elements, configuration.connections, report)
    report.raise_if_any()
    _name_symbols(elements)
    _number_devices(elements, report)
    for element in elements:
        try:
            element.check()
        except ElementError as error:
            report.error(error.span or element.span, f"'{element.name}': {error}")
    report.raise_if_any()
    return _router(configuration, elements, surroundings)


class _Surroundings:
    """What elements may ask."""

    def __init__(self, devices: Devices, folder: Path) -> None:
        self.devices = devices
        self.folder = folder
        self.files: dict[Path, str] = {}
        self.by_name: dict[str, Element] = {}

    def find(self, asking: Element, name: str) -> Element | None:
        """The element of this name: first beside the one that asks, then in the compound elements around it."""
        prefix = asking.name
        while prefix:
            prefix = prefix.rpartition("/")[0]
            found = self.by_name.get(f"{prefix}/{name}" if prefix else name)
            if found is not None:
                return found
        return None

    def device(self, name: str) -> int:
        """The number of a device."""
        return self.devices.number(name)

    def read_file(self, name: str) -> str:
        """The text of a file, relative to the configuration's folder."""
        path = self.folder / name
        if not path.is_file():  # a pipe would never end
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        if path.stat().st_size > FILE_MAX:
            raise ValueError(f"it has more than {FILE_MAX} bytes")
        self.files[path] = path.read_text("utf-8")
        return self.files[path]


def _make(configuration: Configuration, surroundings: _Surroundings, report: Report) -> list[Element]:
    used = _used_ports(configuration)
    elements = []
    classes = element_classes()
    for index, flat in enumerate(configuration.elements):
        cls = classes[flat.of]
        inputs, outputs = used[index]
        _check_ports(flat, cls, inputs, outputs, report)
        if len(flat.name) > NAME_MAX:
            report.error(flat.span, f"the name has {len(flat.name)} characters; allowed: {NAME_MAX}")
        bound = bind(cls.parameters, flat.arguments, f"'{flat.name}'", flat.span, report)
        if bound is not None:
            n_inputs, n_outputs = max(inputs, default=-1) + 1, max(outputs, default=-1) + 1
            element = cls(flat.name, flat.span, bound, n_inputs, n_outputs, surroundings)
            elements.append(element)
            if flat.name in surroundings.by_name:
                report.error(flat.span, f"there are two elements '{flat.name}'")
            surroundings.by_name[flat.name] = element
    return elements


def _used_ports(configuration: Configuration) -> dict[int, tuple[set[int], set[int]]]:
    used: dict[int, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for c in configuration.connections:
        used[c.source][1].add(c.output)
        used[c.target][0].add(c.input)
    return used


def _check_ports(flat: FlatElement, cls: type[Element], inputs: set[int], outputs: set[int], report: Report) -> None:
    allowed = port_counts(cls.ports, max(inputs, default=-1) + 1)
    for word, ports, count in (("input", inputs, allowed[0]), ("output", outputs, allowed[1])):
        number = max(ports, default=-1) + 1
        if count.most is not None and number > count.most:
            text = f"'{flat.name}' has no {word} {number - 1}: {flat.of} has {count} of them"
            report.error(flat.span, text)
            continue
        missing = sorted(set(range(max(number, count.least))) - ports)
        if missing:
            report.error(flat.span, f"{word} {missing[0]} of '{flat.name}' is not connected")


def _number_devices(elements: Sequence[Element], report: Report) -> None:
    """Devices get their numbers in the order of the text, and each in port one element."""
    takers: dict[int, Element] = {}
    for element in elements:
        names = [element[p.name] for p in element.parameters if isinstance(p.kind, DeviceName)]
        for name in names:
            if element.device(name) >= DEVICES_MAX:
                report.error(
                    element.span, f"'{element.name}': there is no device {name}; allowed: 0 to {DEVICES_MAX - 1}"
                )
        number = element.in_port
        if number is not None:
            other = takers.setdefault(number, element)
            if other is not element:
                text = f"'{element.name}' and '{other.name}' take the packets of the same device"
                report.error(element.span, text)


def _name_symbols(elements: Sequence[Element]) -> None:
    taken: set[str] = set()
    for element in elements:
        base = "e_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in element.name)[:64]
        symbol, number = base, 2
        while symbol in taken:
            symbol, number = f"{base}_{number}", number + 1
        taken.add(symbol)
        element.symbol = symbol


def _router(configuration: Configuration, elements: Sequence[Element], surroundings: _Surroundings) -> Router:
    outgoing: dict[Element, dict[int, tuple[Element, int]]] = {element: {} for element in elements}
    incoming: dict[Element, dict[int, tuple[Element, int]]] = {element: {} for element in elements}
    connections = []
    for c in configuration.connections:
        source, target = elements[c.source], elements[c.target]
        connections.append((source, c.output, target, c.input))
        if source.pushes_out[c.output]:
            outgoing[source][c.output] = (target, c.input)
        else:
            incoming[target][c.input] = (source, c.output)
    return Router(
        configuration,
        _ordered(elements),
        outgoing,
        incoming,
        tuple(connections),
        surroundings.devices.numbers(),
        surroundings.files,
    )


def _ordered(elements: Sequence[Element]) -> tuple[Element, ...]:
    """Each element after those that it uses; elements that use each other keep their order."""
    done: dict[Element, None] = {}
    for element in elements:
        waiting = [(element, iter(element.uses))]
        entered = {element}
        while waiting:
            current, uses = waiting[-1]
            following = next((used for used in uses if used not in done and used not in entered), None)
            if following is not None:
                entered.add(following)
                waiting.append((following, iter(following.uses)))
            else:
                done.setdefault(current)
                waiting.pop()
    return tuple(done)
