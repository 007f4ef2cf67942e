"""Ports: where messages enter and leave a node."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from edgeos import _native
from edgeos.bundle import bundle, unbundled
from edgeos.endpoint import is_path, parse_ip_endpoint
from edgeos.errors import PortError
from edgeos.native_rule import native_rule
from edgeos.settings import PortSettings

Port = _native.Port

_KINDS: dict[type[Port], str] = {
    _native.PcapPort: "pcap",
    _native.TapPort: "tap",
    _native.AfPacketPort: "afpacket",
    _native.AfXdpPort: "afxdp",
    _native.XdpPairPort: "afxdp",
    _native.MemoryPort: "memory",
}

_ALL_QUEUES = -1


def port_kind(port: Port) -> str:
    """The kind of an open port, as in a manifest."""
    return port.kind if isinstance(port, _native.Listener) else _KINDS[type(port)]


def open_port_settings(port: Port) -> PortSettings:
    """What is known of a port that a program has opened."""
    if isinstance(port, _native.Listener):
        return PortSettings(name=port.name, kind=port.kind, listen=port.listen, max_connections=port.max_connections)
    return PortSettings(name=port.name, kind="memory")


def packet_memory(ports: Sequence[PortSettings]) -> _native.Umem | None:
    """Memory for those of the ports that are AF_XDP's, to share; None where they had better have their own."""
    devices = [_queues_of(port) for port in ports if port.kind == "afxdp" and port.fd is None]
    try:
        return _native.Umem(devices) if len(devices) > 1 else None
    except (RuntimeError, OSError):
        return None  # opening them one by one tells which is at fault


def locked_bytes(ports: Sequence[PortSettings]) -> int:
    """Packet memory that the AF_XDP ports lock; without those whose device cannot be asked, which opening will tell."""
    total = 0
    for port in ports:
        if port.kind == "afxdp":
            with suppress(RuntimeError, OSError):
                total += _native.Umem.bytes_for([_queues_of(port)])
    return total


def open_native_port(port: PortSettings, memory: _native.Umem | None = None) -> Port:
    """Opens the file or device. Raises PortError that names the port. `memory` is for the AF_XDP ports of one node."""
    try:
        if port.kind == "pcap":
            return _native.PcapPort(port.name, str(port.read or ""), str(port.write or ""))
        if port.kind == "tap":
            return _native.TapPort(port.name, port.device or "", fd=-1 if port.fd is None else port.fd)
        if port.kind == "afpacket":
            return _native.AfPacketPort(port.name, port.device or "", fd=-1 if port.fd is None else port.fd)
        if port.kind == "afxdp":
            return _open_afxdp(port, memory)
        if port.is_listener:
            return _open_listener(port)
    except (RuntimeError, OSError) as error:
        raise PortError(f"port.{port.name}: {error}") from None
    raise PortError(f"port.{port.name}: a memory port is made with edgeos.testing.memory_port and added to the node")


def open_shared_afxdp(port: PortSettings, workers: int, *, by_destination: bool) -> list[int]:
    """What each of several workers has of an AF_XDP port, for the caller to keep. Raises RuntimeError or OSError."""
    device, queue = _queues_of(port)
    take = [native_rule(match) for match in port.take]
    try:
        link, spaces = _native.open_xdp_pairs(
            device, workers=workers, by_destination=by_destination, queue=queue, take=take
        )
        return _bundled("", [[space, link] for space in spaces])
    except (RuntimeError, OSError) as error:
        if port.fallback == "none":
            raise
        group = _native.open_packet_group(device, sockets=workers, by_destination=by_destination)
        return _bundled(f"AF_PACKET, because {error}", [[file] for file in group])


def _bundled(note: str, files_of_workers: list[list[int]]) -> list[int]:
    bundles: list[int] = []
    try:
        for files in files_of_workers:
            bundles.append(bundle(note, files))
        return bundles
    except BaseException:
        for file in bundles:  # they would hold on to the device
            os.close(file)
        raise
    finally:
        for file in {file for files in files_of_workers for file in files}:
            os.close(file)


def _open_afxdp(port: PortSettings, memory: _native.Umem | None) -> Port:
    if port.fd is not None:
        with unbundled(port.fd) as (note, files):
            if note:
                return _native.AfPacketPort(port.name, port.device or "", note, files[0])
            return _native.XdpPairPort(port.name, port.device or "", files[0], everything=not port.take)
    try:
        if memory is not None:
            try:
                return _afxdp_port(port, memory)
            except (RuntimeError, OSError):
                pass  # a device whose driver cannot share memory with the others' may still do with its own
        return _afxdp_port(port, _native.Umem([_queues_of(port)]))
    except (RuntimeError, OSError) as error:
        if port.fallback == "none":
            raise
        return _native.AfPacketPort(port.name, port.device or "", f"AF_PACKET, because {error}")


def _afxdp_port(port: PortSettings, memory: _native.Umem) -> _native.AfXdpPort:
    device, queue = _queues_of(port)
    return _native.AfXdpPort(port.name, device, memory, queue, [native_rule(match) for match in port.take])


def _queues_of(port: PortSettings) -> tuple[str, int]:
    return port.device or "", _ALL_QUEUES if port.queues is None else port.queues


def _open_listener(port: PortSettings) -> Port:
    _, address, number = split_endpoint(port.listen or "")
    return _native.open_listener(
        port.name,
        port.kind,
        address,
        number,
        backlog=port.backlog,
        max_connections=port.max_connections,
        max_per_client=port.max_per_client,
        client_prefix_v6=port.client_prefix_v6,
        accept_rate=port.accept_rate,
        open_timeout_ns=port.open_timeout_ns,
        idle_timeout_ns=port.idle_timeout_ns,
        proxy_protocol=port.proxy_protocol,
        mode=port.mode,
        output_limit=port.output_limit,
        fd=-1 if port.fd is None else port.fd,
    )


def split_endpoint(text: str) -> tuple[str, str, int]:
    """Kind, address and port number of an endpoint: of TCP, or of a Unix socket, whose address is its path."""
    if is_path(text):
        return "unix", text, 0
    endpoint = parse_ip_endpoint(text)
    return "tcp", str(endpoint.address), endpoint.port


@contextmanager
def open_port(settings: PortSettings) -> Iterator[Port]:
    """Opens a port before the node that uses it, so that what is wrong with it shows early.

    The port is closed when the block has ended and the node that it was added to is closed.
    """
    yield open_native_port(settings)
