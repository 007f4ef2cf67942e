"""How many files a node may have open: each connection of a listener is one."""

from __future__ import annotations

import resource

from edgeos.errors import LimitError
from edgeos.settings import Manifest

SPARE_DESCRIPTORS = 256
"""For everything but connections: ports, the engine, the program itself."""


def needed_descriptors(manifest: Manifest) -> int:
    """Files that may be open when all listeners are full; a guest that may connect has an upstream for each client."""
    clients = sum(port.max_connections for port in manifest.ports if port.kind in ("tcp", "unix"))
    connects = any(template.grant.connect for template in manifest.templates)
    return clients * (2 if connects else 1) + SPARE_DESCRIPTORS


def require_descriptors(manifest: Manifest) -> None:
    """Raises this process's limit of open files as far as its listeners need; LimitError with the fix if it may not."""
    if not any(port.is_listener for port in manifest.ports):
        return
    needed = needed_descriptors(manifest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    within = hard == resource.RLIM_INFINITY or hard >= needed
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if within else (needed, needed))
    except (OSError, ValueError):
        raise LimitError(
            f"the listeners need up to {needed} open files, this process may have {hard}; lower max_connections, or as "
            f"root: ulimit -Hn {needed} in the shell that starts edgeos, or LimitNOFILE={needed} in its systemd unit"
        ) from None
