"""From a template's settings to a checkpointed guest: built, initialised once, and kept for the next start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from edgeos.checkpoint import Checkpoint, Counter, Layout, make_checkpoint
from edgeos.click.place import grants, router_of
from edgeos.code_cache import CodeCache
from edgeos.errors import GuestError
from edgeos.graph import build_graph
from edgeos.guest_build import build
from edgeos.installed import installed_version
from edgeos.settings import Manifest, TemplateSettings
from edgeos.share import share

WASMTIME_VERSION = installed_version("wasmtime")

CHECKPOINT_VERSION = 4
"""Raised when the rules for making a checkpoint change, so that older kept ones are not used."""


def appliance_source(name: str) -> Path:
    """The C source of an appliance that ships with edgeos."""
    return share("appliances", name, f"{name}.c")


def load_guest(
    template: TemplateSettings, cache: CodeCache, progress: Callable[[str], None] | None = None
) -> Checkpoint:
    """The guest of a template at its checkpoint. Raises GuestError that names the template."""
    try:
        module = _module(template, cache, progress)
        return _checkpoint(module, template, cache)
    except GuestError as error:
        raise GuestError(f"template.{template.name}: {error}") from None


def load_guests(
    templates: Iterable[TemplateSettings],
    given: Mapping[str, Checkpoint],
    cache: CodeCache,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Checkpoint]:
    """The guests of templates by name, those `given` as they are. Raises GuestError."""
    return {t.name: given.get(t.name) or load_guest(t, cache, progress) for t in templates}


def check_kept(manifest: Manifest, guests: Mapping[str, Checkpoint]) -> None:
    """Raises GuestError for a guest whose chain parks its clients though not all of its state can be copied."""
    ports, names = [port.name for port in manifest.ports], list(guests)
    for chain in (chain for chain in manifest.chains if chain.keep):
        for stage in build_graph(chain, ports, names).stages:
            if not guests[stage.template].fixed_table:
                raise GuestError(
                    f"chain.{chain.name}: keep is true, and the code of template.{stage.template} may change its "
                    "function table, which cannot be parked; keep function pointers in memory, or leave keep out"
                )


def _module(template: TemplateSettings, cache: CodeCache, progress: Callable[[str], None] | None) -> bytes:
    if template.module is not None:
        try:
            return template.module.read_bytes()
        except OSError as error:
            raise GuestError(f"{template.module} cannot be read: {error.strerror}") from None
    if template.click is not None:
        from edgeos.click.build import build_configuration  # noqa: PLC0415  (large; of no use to other templates)

        return build_configuration(
            router_of(template),
            stack=template.stack,
            slots=template.slots,
            slot_size=template.slot_size,
            cache=cache,
            progress=progress,
        )
    source = template.source if template.appliance is None else appliance_source(template.appliance)
    assert source is not None, "check_settings lets no template through without a guest"
    return build(
        source,
        stack=template.stack,
        slots=template.slots,
        slot_size=template.slot_size,
        tcp=template.tcp,
        cache=cache,
        progress=progress,
    )


def _checkpoint(module: bytes, template: TemplateSettings, cache: CodeCache) -> Checkpoint:
    granted = grants(template).calls
    rules = f"checkpoint {CHECKPOINT_VERSION}, memory {template.memory}, granted {granted}, wasmtime {WASMTIME_VERSION}"
    key: list[bytes | str] = [rules, module, template.config]

    def make() -> bytes:
        return _pack(make_checkpoint(module, template.config, memory_limit=template.memory, granted=granted))

    return _unpack(cache.get(key, make))


def _pack(checkpoint: Checkpoint) -> bytes:
    header = {
        "layout": asdict(checkpoint.layout),
        "initial_memory": checkpoint.initial_memory,
        "memory_max": checkpoint.memory_max,
        "fixed_table": checkpoint.fixed_table,
    }
    return json.dumps(header).encode() + b"\n" + checkpoint.wasm


def _unpack(packed: bytes) -> Checkpoint:
    header, _, wasm = packed.partition(b"\n")
    values = json.loads(header)
    layout = values["layout"]
    layout["counters"] = tuple(Counter(**counter) for counter in layout["counters"])
    return Checkpoint(
        wasm=wasm,
        layout=Layout(**layout),
        initial_memory=values["initial_memory"],
        memory_max=values["memory_max"],
        fixed_table=values["fixed_table"],
    )
