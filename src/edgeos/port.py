"""Ports: where messages enter and leave a node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeos import _native
from edgeos.errors import PortError
from edgeos.settings import PortSettings

Port = _native.Port

_KINDS: dict[type[Port], str] = {
    _native.PcapPort: "pcap",
    _native.TapPort: "tap",
    _native.AfPacketPort: "afpacket",
    _native.MemoryPort: "memory",
}


def port_kind(port: Port) -> str:
    """The kind of an open port, as in a manifest."""
    return _KINDS[type(port)]


def open_native_port(port: PortSettings) -> Port:
    """Opens the file or device. Raises PortError that names the port."""
    try:
        if port.kind == "pcap":
            return _native.PcapPort(port.name, str(port.read or ""), str(port.write or ""))
        if port.kind == "tap":
            return _native.TapPort(port.name, port.device or "")
        if port.kind == "afpacket":
            return _native.AfPacketPort(port.name, port.device or "")
    except (RuntimeError, OSError) as error:
        raise PortError(f"port.{port.name}: {error}") from None
    raise PortError(f"port.{port.name}: a memory port is made with edgeos.testing.memory_port and added to the node")


@contextmanager
def open_port(settings: PortSettings) -> Iterator[Port]:
    """Opens a port before the node that uses it, so that what is wrong with it shows early.

    The port is closed when the block has ended and the node that it was added to is closed.
    """
    yield open_native_port(settings)
