"""A Click configuration in its place: read for a template, and held against the stage of a chain that it is to be.

    device 0   what stands in front of the stage, the client's side: its one link in
    device k   what the stage's out port k - 1 leads to

A name gets its number from the template's `devices`, or else when it is first met, see `edgeos.click.devices`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeos.click.devices import DEVICES_MAX
from edgeos.click.source import ClickError, Source
from edgeos.errors import GuestError
from edgeos.findings import BadValueError, counted, listed, shown
from edgeos.graph import FORWARD, REVERSE, ChainGraph, Destination, Stage
from edgeos.settings import SLOT_GAP, SLOT_SIZE_DEFAULT, SLOTS_DEFAULT, STACK_MIN, Grants, TemplateSettings
from edgeos.units import format_size

if TYPE_CHECKING:
    from edgeos.click.router import Router

TEXT_BYTES_MAX = 16 * 2**20

_KEPT = 64  # configurations that are not read again, since a manifest is checked more than once
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


class ConfigurationError(BadValueError):
    """A configuration has mistakes, which are said one below the other with their places."""

    def __init__(self, path: Path, error: ClickError) -> None:
        found = f"{counted(len(error.findings), 'mistake')} in {shown(str(path))}"
        super().__init__(found, f"a Click configuration without any\n{error}")


def router_of(template: TemplateSettings) -> Router:
    """The router of a template that has `click`. Raises ClickError, or GuestError when the file cannot be read."""
    assert template.click is not None
    text = _read(template.click)
    key = (str(template.click), text, tuple(sorted(template.define.items())), template.devices)
    router = _load(*key)
    if not router.has_same_files():
        _load.cache_clear()
        router = _load(*key)
    return router


@functools.lru_cache(_KEPT)
def _load(name: str, text: str, variables: tuple[tuple[str, str], ...], devices: tuple[str, ...]) -> Router:
    from edgeos.click.router import load  # noqa: PLC0415  (parser and elements cost those nothing who have no use for them)

    return load(Source(name, text), dict(variables), devices)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_BYTES_MAX + 1)
        if len(content) > TEXT_BYTES_MAX:
            raise GuestError(f"{path}: found a larger file; allowed: at most {TEXT_BYTES_MAX} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise GuestError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise GuestError(f"{path}: found byte 0x{byte:02x} at offset {error.start}; allowed: UTF-8 text") from None


def grants(template: TemplateSettings) -> Grants:
    """What a template's guests may do: what it grants and, for a configuration, the timers that its elements need.

    Whoever names a Shaper has asked for its timer, so the manifest need not say so again.
    """
    if template.click is None or template.grant.timer or not router_of(template).timer:
        return template.grant
    return replace(template.grant, timer=True)


def check_template(template: TemplateSettings) -> Iterator[tuple[str, BadValueError]]:
    """What is wrong with a template's configuration and the keys that belong to it."""
    if template.click is None:
        for key in ("define", "devices"):
            if value := getattr(template, key):
                yield key, BadValueError(listed(map(shown, value)), f"no {key} without click")
        return
    if template.config:
        yield "config", BadValueError("config beside click", "define, for $variables of the configuration")
    if len(template.devices) > DEVICES_MAX:
        yield "devices", BadValueError(f"{len(template.devices)} names", f"at most {DEVICES_MAX}")
        return
    if len(set(template.devices)) < len(template.devices):
        yield "devices", BadValueError("a name twice", "each device once")
        return
    try:
        router_of(template)
    except ClickError as error:
        yield "click", ConfigurationError(template.click, error)
    except GuestError as error:
        yield "click", BadValueError(str(error), "a Click configuration")


def check_room(template: TemplateSettings) -> Iterator[tuple[str, BadValueError]]:
    """Whether slots, stack and the packets that a configuration may keep fit the memory; tables come on top."""
    if template.click is None:
        return
    from edgeos.click.emit import pool_size  # noqa: PLC0415

    try:
        packets = pool_size(router_of(template))
    except (ClickError, GuestError):
        return  # said by check_template
    slots = SLOTS_DEFAULT if template.slots is None else template.slots
    slot_size = SLOT_SIZE_DEFAULT if template.slot_size is None else template.slot_size
    needed = (slots + packets) * (slot_size + SLOT_GAP) + (template.stack or STACK_MIN)
    if needed > template.memory:
        found = f'"{format_size(template.memory)}" for {slots} slots and {packets} packets that elements may keep'
        yield "memory", BadValueError(found, f"at least {format_size(-(-needed // 65536) * 65536)}")


def unused_definitions(template: TemplateSettings) -> list[str]:
    """Variables that the template defines and the configuration does not name."""
    if template.click is None or not template.define:
        return []
    named = {match[1] or match[2] for match in _VARIABLE.finditer(_read(template.click))}
    return [name for name in template.define if name not in named]


def check_stages(graph: ChainGraph, templates: Mapping[str, TemplateSettings]) -> Iterator[BadValueError]:
    """What keeps configurations from being the stages that a chain makes them."""
    for stage in graph.stages:
        template = templates.get(stage.template)
        if template is not None and template.click is not None:
            yield from _check_stage(stage, graph, router_of(template))


def _check_stage(stage: Stage, graph: ChainGraph, router: Router) -> Iterator[BadValueError]:
    links_in, links_out = len(stage.outs[REVERSE]), len(stage.outs[FORWARD])
    if router.devices and links_in != 1:
        found = f"{links_in} links into {stage.name}, whose configuration has devices"
        yield BadValueError(found, "one link in, which is device 0; or FromRing and ToRing")
        return
    for name, number in router.devices.items():
        if number > links_out:
            found = f"device {shown(name)}, number {number}, of {stage.name} with {counted(links_out, 'out port')}"
            yield BadValueError(found, f"devices 0 to {links_out}")
    yield from _check_names(stage, graph, router.devices)
    rings = {"FromRing": links_in + links_out, "ToRing": max(links_in, links_out)}
    for element in router.elements:
        kind = type(element).__name__
        if kind in rings:
            number, ports = int(element["N"]), rings[kind]
            if number >= ports:
                yield BadValueError(f"{kind}({number}) in {stage.name}", f"{kind}(0) to {kind}({ports - 1})")


def _check_names(stage: Stage, graph: ChainGraph, devices: Mapping[str, int]) -> Iterator[BadValueError]:
    """A device that is called like a neighbour of the stage is that neighbour, or the traffic would go astray."""
    around = [*stage.outs[REVERSE][:1], *stage.outs[FORWARD]]
    names = [_name(destination, graph.stages) for destination in around]
    for name, number in devices.items():
        if name in names and number < len(names) and names[number] != name:
            found = f"device {shown(name)} of {stage.name} as number {number}, where {shown(names[number])} stands"
            order = ", ".join(f'"{device}"' for device in names)
            yield BadValueError(found, f"number {names.index(name)}", f"add devices = [{order}] to the template")


def _name(destination: Destination, stages: Sequence[Stage]) -> str:
    return destination[1] if destination[0] == "port" else stages[destination[1]].name
