"""Finds clients that a listener and a port for packets would both serve.

A port on a device sees what comes in by it, and so does the system behind: a listener on an address of that device gets
the client's connection while a chain gets the same client's packets. One of the two has to leave it to the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeos.endpoint import Address, IpEndpoint, parse_ip_endpoint
from edgeos.errors import ManifestError
from edgeos.findings import BadValueError, quoted, shown
from edgeos.graph import REVERSE, ChainGraph
from edgeos.match import PROTOCOLS, Match
from edgeos.settings import Manifest, PortSettings

DEVICE_KINDS = ("afpacket", "afxdp")
"""Kinds of port that share a device with the system."""


@dataclass(frozen=True)
class _Service:
    """What a listener serves, as packets to it would look."""

    protocol: int
    address: Address
    port: int


def find_contention(
    manifest: Manifest, graphs: Mapping[str, ChainGraph], addresses: Mapping[str, set[Address]]
) -> Iterator[tuple[str, BadValueError]]:
    """For each listener that fights with a port for packets: its table and the finding. `addresses` are by device."""
    for listener in manifest.ports:
        endpoint = _endpoint(listener)
        if endpoint is None:
            continue
        for port in manifest.ports:
            if port.kind not in DEVICE_KINDS or not isinstance(port.device, str):
                continue
            for address in sorted(addresses.get(port.device, ()), key=str):
                service = _Service(PROTOCOLS[listener.kind], address, endpoint.port)
                directions = _directions(graphs, port.name)
                if _listens_on(endpoint, address) and _is_taken(manifest, directions, port.name, service):
                    yield f"port.{quoted(listener.name)}", _finding(listener, port, service, _is_far_end(directions))
                    break


def _endpoint(listener: PortSettings) -> IpEndpoint | None:
    if listener.kind not in ("tcp", "udp") or not isinstance(listener.listen, str):
        return None
    try:
        return parse_ip_endpoint(listener.listen)
    except ManifestError:
        return None


def _listens_on(endpoint: IpEndpoint, address: Address) -> bool:
    if not endpoint.address.is_unspecified:
        return endpoint.address == address
    # The IPv6 wildcard takes IPv4 too.
    return endpoint.address.version == 6 or address.version == 4


def _directions(graphs: Mapping[str, ChainGraph], port: str) -> dict[str, int]:
    """The direction in which packets from the port travel, by chain."""
    return {name: entry.direction for name, graph in graphs.items() for entry in graph.entries if entry.port == port}


def _is_far_end(directions: Mapping[str, int]) -> bool:
    """True if rules see what comes in at the port the other way round, as the answer to a client."""
    return bool(directions) and all(direction == REVERSE for direction in directions.values())


def _is_taken(manifest: Manifest, directions: Mapping[str, int], port: str, service: _Service) -> bool:
    """True if packets for the service that come in at the port may enter a chain before a rule drops them all."""
    for rule in sorted(manifest.rules, key=lambda rule: -rule.priority):
        if rule.pass_ports:
            # The clients' side is the first of the two.
            reverse = rule.pass_ports[0] != port
            if port in rule.pass_ports and _matches(rule.match, port, service, reverse=reverse, every_client=False):
                return True
        elif rule.chain is None:
            if _matches(rule.match, port, service, reverse=_is_far_end(directions), every_client=True):
                return False
        elif rule.chain in directions:
            reverse = directions[rule.chain] == REVERSE
            if _matches(rule.match, port, service, reverse=reverse, every_client=False):
                return True
    return False


def _matches(match: Match, port: str, service: _Service, *, reverse: bool, every_client: bool) -> bool:
    """True if packets for the service meet the match: those of every client, or those of some."""
    network, ports = (match.src, match.src_ports) if reverse else (match.dst, match.dst_ports)
    of_client = (match.dst, match.dst_ports) if reverse else (match.src, match.src_ports)
    return (
        match.ip is not False
        and match.ip_version in (0, service.address.version)
        and match.ethertype is None
        and match.protocol in (None, service.protocol)
        and match.port in (None, port)
        and (network is None or service.address in network)
        and all(allowed is None or allowed[0] <= service.port <= allowed[1] for allowed in (ports, match.any_port))
        and not (every_client and (match.vlan is not None or of_client != (None, None)))
    )


def _finding(listener: PortSettings, port: PortSettings, service: _Service, far_end: bool) -> BadValueError:
    endpoint = IpEndpoint(service.address, service.port)
    match = f"{listener.kind} {'src' if far_end else 'dst'} port {service.port} from {port.name}"
    return BadValueError(
        f"{shown(listener.listen)}, while port.{quoted(port.name)} takes packets to {endpoint} on {port.device}",
        "clients that either the listener or a chain of packets serves",
        f'drop those packets in a first [[rule]], match = "{match}"',
    )
