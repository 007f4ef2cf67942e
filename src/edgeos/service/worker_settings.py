"""What a worker process is told: the manifest, kept as a file in the node's folder, and how one worker runs it."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import fields, replace
from pathlib import Path

from edgeos.restart import what_must_restart
from edgeos.settings import Manifest, PortSettings, TenantSettings
from edgeos.sharing import number_of_workers, steered_by_destination
from edgeos.system_limits import find_shortages, fwps_allowed, fwps_of, is_compact, this_system


def keep_manifest(manifest: Manifest, folder: Path) -> Path:
    """Writes the checked manifest where workers read it; only the owner may open the folder. Returns the file."""
    content = pickle.dumps(manifest)
    path = folder / f"manifest-{hashlib.sha256(content).hexdigest()[:16]}"
    path.write_bytes(content)
    return path


def kept_manifest(path: Path) -> Manifest:
    """What `keep_manifest` has written."""
    manifest = pickle.loads(path.read_bytes())
    assert isinstance(manifest, Manifest)
    return manifest


def manifest_of_worker(manifest: Manifest, workers: int) -> Manifest:
    """What one of so many workers runs: its share of what listeners and tenants may in all, and room for a reload."""
    ports = (_share(port, workers) for port in manifest.ports)
    node = replace(
        manifest.node,
        workers=1,
        memory="compact" if is_compact(manifest) else "guard",
        spare_fwps=max(manifest.node.spare_fwps, _room_to_reload(manifest)),
    )
    tenants = (_share_of_tenant(tenant, workers) for tenant in manifest.tenants)
    return replace(manifest, ports=tuple(ports), tenants=tuple(tenants), node=node)


def _share(port: PortSettings, workers: int) -> PortSettings:
    if port.kind == "afxdp" and workers > 1:
        return replace(port, queues=0)  # its own pair's, which has no other
    if not port.is_listener:
        return port
    connections, rate = -(-port.max_connections // workers), -(-port.accept_rate // workers)
    return replace(port, max_connections=connections, accept_rate=rate)


def _share_of_tenant(tenant: TenantSettings, workers: int) -> TenantSettings:
    quotas = {field.name: getattr(tenant, field.name) for field in fields(tenant) if field.name != "name"}
    return replace(tenant, **{name: -(-quota // workers) for name, quota in quotas.items()})


def _room_to_reload(manifest: Manifest) -> int:
    """FWPs for clients that stay in chains which a reload has replaced: all that may live, if the system allows it."""
    room = min(sum(chain.max_fwps for chain in manifest.chains), fwps_allowed(manifest) - fwps_of(manifest))
    spare = manifest.node.spare_fwps + room
    wanted = replace(manifest, node=replace(manifest.node, spare_fwps=spare))
    return spare if room > 0 and not any(find_shortages(wanted, this_system())) else 0


def what_workers_cannot_change(before: Manifest, after: Manifest) -> str:
    """What differs that workers must be started again for; empty if nothing does."""
    if number_of_workers(before) != number_of_workers(after):
        return "the number of workers"
    if changed := what_must_restart(before, after, sockets_stay=True):
        return changed
    if steered_by_destination(before) != steered_by_destination(after):
        return "the side of a port that clients are on"
    return ""


def socket_path(folder: Path, pid: int) -> Path:
    """Where a worker process answers."""
    return folder / f"worker-{pid}.sock"
