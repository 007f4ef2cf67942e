"""Builds a manifest's guests before worker processes need them, so that they find them ready and errors show once."""

from __future__ import annotations

from collections.abc import Callable

from edgeos.code_cache import CodeCache
from edgeos.guest import check_kept, load_guest
from edgeos.settings import Manifest


def load_guests(manifest: Manifest, progress: Callable[[str], None] | None) -> None:
    """Raises GuestError that names the template."""
    cache = CodeCache()
    guests = {template.name: load_guest(template, cache, progress) for template in manifest.templates}
    check_kept(manifest, guests)
