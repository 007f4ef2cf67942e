"""What differs between two manifests that a running node cannot change: it must be started again for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from edgeos.findings import quoted
from edgeos.settings import Manifest, NodeSettings, PortSettings, UpstreamSettings


def what_must_restart(before: Manifest, after: Manifest) -> str:
    """The differences by name, for a message; empty if there are none."""
    changes = [*_changes("port", before.ports, after.ports), *_changes("upstream", before.upstreams, after.upstreams)]
    if before.unmatched is not None and after.unmatched is None:
        changes.append("[unmatched], which is gone")
    if kernels_part(before.node) != kernels_part(after.node):
        changes += [f"node.{key}" for key in _differing(kernels_part(before.node), kernels_part(after.node))]
    return " and ".join(changes)


def kernels_part(settings: NodeSettings) -> NodeSettings:
    """Without the keys that are the supervisor's business."""
    return replace(settings, drain_timeout_ns=0, orphan_timeout_ns=0)


def _changes(
    section: str,
    before: Sequence[PortSettings] | Sequence[UpstreamSettings],
    after: Sequence[PortSettings] | Sequence[UpstreamSettings],
) -> Iterator[str]:
    earlier, later = ({record.name: record for record in records} for records in (before, after))
    for name in [*earlier, *(name for name in later if name not in earlier)]:
        table = f"{section}.{quoted(name)}"
        if name not in later:
            yield f"{table}, which is gone"
        elif name not in earlier:
            yield f"{table}, which is new"
        else:
            yield from (f"{table}.{key}" for key in _differing(earlier[name], later[name]))
    if list(earlier) != list(later) and earlier.keys() == later.keys():
        yield f"the order of {section}s"


def _differing(before: object, after: object) -> list[str]:
    names = [field.name for field in fields(before)]  # type: ignore[arg-type]
    return [name.removesuffix("_ns") for name in names if getattr(before, name) != getattr(after, name)]
