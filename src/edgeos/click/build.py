"""From a router to a guest's module: its C, compiled and kept under everything that went into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeos.click.emit import emit
from edgeos.click.router import Router
from edgeos.code_cache import CodeCache
from edgeos.guest_build import build_code


def build_configuration(
    router: Router,
    *,
    stack: int | None = None,
    slots: int | None = None,
    slot_size: int | None = None,
    cache: CodeCache | None = None,
    progress: Callable[[str], None] | None = None,
) -> bytes:
    """The module of a configuration; the arguments are those of `edgeos.guest_build.build`. Raises GuestError."""
    name = Path(router.configuration.source.name).name
    return build_code(emit(router), name, stack=stack, slots=slots, slot_size=slot_size, cache=cache, progress=progress)
