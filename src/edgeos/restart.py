"""What differs between two manifests that a running node cannot change: it must be started again for that.

Listeners can come and go, so of ports these are the ones for packets, and what belongs to a socket that is to stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from edgeos.findings import quoted
from edgeos.settings import Manifest, NodeSettings, PortSettings

_OF_SOCKETS = ("backlog", "mode", "proxy_protocol")


def what_must_restart(before: Manifest, after: Manifest, *, sockets_stay: bool = False) -> str:
    """The differences by name, for a message; empty if there are none.

    With `sockets_stay` somebody else keeps the sockets, so a listener may get other limits at the address that it has.
    """
    changes = [*_port_changes(before, after, sockets_stay), *_upstream_changes(before, after)]
    if before.unmatched is not None and after.unmatched is None:
        changes.append("[unmatched], which is gone")
    if kernels_part(before.node) != kernels_part(after.node):
        changes += [f"node.{key}" for key in _differing(kernels_part(before.node), kernels_part(after.node))]
    return " and ".join(changes)


def kernels_part(settings: NodeSettings) -> NodeSettings:
    """Without the keys that are the supervisor's business."""
    return replace(settings, drain_timeout_ns=0, orphan_timeout_ns=0)


def same_place(one: PortSettings, other: PortSettings) -> bool:
    """True for listeners at the same address."""
    return one.is_listener and (one.kind, one.listen) == (other.kind, other.listen)


def _port_changes(before: Manifest, after: Manifest, sockets_stay: bool) -> Iterator[str]:
    earlier, later = ({port.name: port for port in manifest.ports} for manifest in (before, after))
    for name, port in earlier.items():
        now = later.get(name)
        if now is None:
            yield from () if port.is_listener else (f"port.{quoted(name)}, which is gone",)
        elif not port.is_listener or not now.is_listener:
            yield from (f"port.{quoted(name)}.{key}" for key in _differing(port, now))
        elif same_place(port, now):
            fixed = [key for key in _differing(port, now) if key in _OF_SOCKETS or not sockets_stay]
            yield from (f"port.{quoted(name)}.{key}" for key in fixed)
    for name, port in later.items():
        if name not in earlier and not port.is_listener:
            yield f"port.{quoted(name)}, which is new"


def _upstream_changes(before: Manifest, after: Manifest) -> Iterator[str]:
    earlier, later = ({record.name: record for record in manifest.upstreams} for manifest in (before, after))
    yield from (f"upstream.{quoted(name)}, which is gone" for name in earlier if name not in later)
    yield from (f"upstream.{quoted(name)}, which is new" for name in later if name not in earlier)
    yield from (f"upstream.{quoted(name)}.address" for name in later if earlier.get(name, later[name]) != later[name])
    if list(earlier) != list(later) and earlier.keys() == later.keys():
        yield "the order of upstreams"


def _differing(before: PortSettings | NodeSettings, after: PortSettings | NodeSettings) -> list[str]:
    names = [field.name for field in fields(before) if getattr(before, field.name) != getattr(after, field.name)]
    return [name.removesuffix("_ns") for name in names if name != "fd"]
