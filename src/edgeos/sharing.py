"""Whether several workers can share a node's ports, such that a client always comes to the same one, and how.

The kernel steers what arrives at a port by one address of each packet: the source where clients enter chains, the
destination where a port is only ever a chain's far end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from edgeos.findings import BadValueError, quoted, shown
from edgeos.graph import FORWARD, ChainGraph, build_graph
from edgeos.settings import Manifest

_ONE_WORKER = "workers = 1"

_ALLOWED_AND_WHY = {
    "pcap": (_ONE_WORKER, "a capture file is read by one worker"),
    "memory": (_ONE_WORKER, "a program's memory is that of one process"),
}
"""Kinds of port that one worker alone can have."""


def number_of_workers(manifest: Manifest) -> int:
    """How many worker processes the node has: what `workers` says, or what fits the ports and the cores."""
    if manifest.node.workers:
        return manifest.node.workers
    if any(True for _ in what_keeps_workers_apart(manifest, graphs_of(manifest))):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // threads_of_worker(manifest))


def threads_of_worker(manifest: Manifest) -> int:
    """Threads of a worker that are busy when it is."""
    return 2 if manifest.node.mover == "dedicated" else 1


def graphs_of(manifest: Manifest) -> dict[str, ChainGraph]:
    """The chains of a manifest without findings."""
    ports, templates = ([record.name for record in records] for records in (manifest.ports, manifest.templates))
    return {chain.name: build_graph(chain, ports, templates) for chain in manifest.chains}


def steered_by_destination(manifest: Manifest) -> set[str]:
    """The ports at which the client of a packet is its destination."""
    sides = _sides(manifest, graphs_of(manifest))
    return {port for port, found in sides.items() if found and FORWARD not in found}


def what_keeps_workers_apart(
    manifest: Manifest, graphs: Mapping[str, ChainGraph]
) -> Iterator[tuple[str, str, BadValueError]]:
    """Why there can be only one worker: tables, keys, findings."""
    sides = _sides(manifest, graphs)
    for port in manifest.ports:
        table = f"port.{quoted(port.name)}"
        workers = f"{manifest.node.workers or 'several'} workers"
        if port.kind in _ALLOWED_AND_WHY:
            yield table, "kind", BadValueError(f"{shown(port.kind)} with {workers}", *_ALLOWED_AND_WHY[port.kind])
        elif port.proxy_protocol and _isolates_clients(manifest, port.name, graphs):
            problem = BadValueError(
                f'a PROXY header that names clients, isolate = "client", and {workers}',
                'isolate = "connection" in all chains of the port, or workers = 1',
                "a worker is chosen before the header is read",
            )
            yield table, "proxy_protocol", problem
        elif len(sides[port.name]) > 1:
            problem = BadValueError(
                f"a port where clients enter some chains and that others only lead to, with {workers}",
                "one of the two for each port, or workers = 1",
                "workers are chosen by the source of a packet, or by its destination",
            )
            yield table, "", problem


def _isolates_clients(manifest: Manifest, port: str, graphs: Mapping[str, ChainGraph]) -> bool:
    """True if anybody who comes by the port is to find his other connections' FWP."""
    return any(
        (rule.isolate or chain.isolate) == "client"
        for chain in manifest.chains
        for rule in manifest.rules
        if rule.chain == chain.name and port in {entry.port for entry in graphs[chain.name].entries}
    )


def _sides(manifest: Manifest, graphs: Mapping[str, ChainGraph]) -> dict[str, set[int]]:
    """The directions in which messages enter chains at each port."""
    sides: dict[str, set[int]] = {port.name: set() for port in manifest.ports}
    for graph in graphs.values():
        for entry in graph.entries:
            sides[entry.port].add(entry.direction)
    for rule in manifest.rules:
        for direction, port in enumerate(_known(rule.pass_ports, sides)):
            sides[port].add(direction)
    return sides


def _known(ports: Sequence[str], sides: Mapping[str, set[int]]) -> Sequence[str]:
    return ports if all(port in sides for port in ports) else ()
