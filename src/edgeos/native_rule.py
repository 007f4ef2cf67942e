"""Matches as the kernel takes them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeos import _native
from edgeos.match import Match, Network

DROP = -1


def native_rule(
    match: Match,
    *,
    ports: Sequence[str] = (),
    id: int = 0,
    priority: int = 0,
    order: int = 0,
    action: int = DROP,
    isolation: int = 1,
    max_clients: int = 0,
    new_clients: int = 0,
    tenant: str = "",
) -> _native.Rule:
    """The kernel's rule; `ports` are the names of the node's, by number. The rest says what becomes of a flow."""
    return _native.Rule(
        id=id,
        priority=priority,
        order=order,
        action=action,
        isolation=isolation,
        max_clients=max_clients,
        new_clients=new_clients,
        tenant=tenant,
        ip=match.ip,
        ip_version=match.ip_version,
        ethertype=match.ethertype,
        protocol=match.protocol,
        source=_prefix(match.src),
        destination=_prefix(match.dst),
        source_ports=match.src_ports,
        destination_ports=match.dst_ports,
        any_port=match.any_port,
        vlan=match.vlan,
        port=None if match.port is None else ports.index(match.port),
        server_name=match.server_name or "",
    )


def _prefix(network: Network | None) -> tuple[bytes, int] | None:
    """A prefix over 16 bytes; IPv4 as the kernel keeps it, ::ffff:a.b.c.d."""
    if network is None:
        return None
    packed = network.network_address.packed
    if network.version == 4:
        return (bytes(10) + b"\xff\xff" + packed, 96 + network.prefixlen)
    return (packed, network.prefixlen)
