"""Parts for tests of guests, manifests and nodes: memory ports, packet builders and a fake clock.

    with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, edgeos.Node() as node:
        node.add_port(lan)
        node.add_port(wan)
        ...
        lan.inject(testing.udp_packet("10.0.0.1", "10.0.0.2", b"hello"))
        while node.run_once():
            pass
        assert wan.take() == [...]

Addresses are written as text; packets are Ethernet frames as bytes, with correct checksums.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from edgeos import _native
from edgeos.node import Node

CLIENT_MAC = bytes.fromhex("020000000001")
SERVER_MAC = bytes.fromhex("020000000002")

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_UDP = 17
_TCP = 6


@contextmanager
def memory_port(name: str, *, capacity: int = 4096, lossless: bool = False) -> Iterator[_native.MemoryPort]:
    """A port that a program feeds with `inject(frame, time_ns)` and reads with `take()`.

    `capacity` is in packets, each way. A lossless port is not read on while a chain is full; another one drops.
    """
    yield _native.MemoryPort(name, capacity=capacity, lossless=lossless)


class FakeClock:
    """The time by which a node's timeouts run; it stands still until it is moved.

    A node without a fake clock uses the system's monotonic time.
    """

    def __init__(self, node: Node, start_ns: int = 1_000_000_000) -> None:
        self._node = node
        self.now_ns = start_ns
        node.set_fake_time(start_ns)

    def advance(self, seconds: float) -> None:
        """Moves the clock on and lets the node notice."""
        self.now_ns += int(seconds * 1e9)
        self._node.set_fake_time(self.now_ns)


def ethernet_frame(
    payload: bytes, ethertype: int, *, src: bytes = CLIENT_MAC, dst: bytes = SERVER_MAC, vlan: int | None = None
) -> bytes:
    """An Ethernet frame, with an 802.1Q tag if `vlan` is given."""
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return dst + src + tag + struct.pack("!H", ethertype) + payload


def udp_packet(
    src: str, dst: str, payload: bytes = b"", *, sport: int = 40000, dport: int = 53, vlan: int | None = None
) -> bytes:
    """A UDP datagram over IPv4 or IPv6, by the kind of the addresses."""
    header = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    return _ip_packet(src, dst, _UDP, header + payload, checksum_at=6, vlan=vlan)


def tcp_packet(
    src: str,
    dst: str,
    payload: bytes = b"",
    *,
    sport: int = 40000,
    dport: int = 80,
    flags: int = 0x10,
    seq: int = 0,
    ack: int = 0,
    vlan: int | None = None,
) -> bytes:
    """A TCP segment over IPv4 or IPv6; `flags` as in the header (0x02 SYN, 0x10 ACK, 0x01 FIN, 0x04 RST)."""
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 65535, 0, 0)
    return _ip_packet(src, dst, _TCP, header + payload, checksum_at=16, vlan=vlan)


def reply_to(frame: bytes) -> bytes:
    """The same UDP or TCP packet on its way back: addresses and ports exchanged, which keeps the checksums."""
    ethertype_at = 16 if frame[12:14] == b"\x81\x00" else 12
    ip = ethertype_at + 2
    version = frame[ip] >> 4
    size, at = (4, ip + 12) if version == 4 else (16, ip + 8)
    ports = at + 2 * size
    return (
        frame[6:12]
        + frame[0:6]
        + frame[12:at]
        + frame[at + size : at + 2 * size]
        + frame[at : at + size]
        + frame[ports + 2 : ports + 4]
        + frame[ports : ports + 2]
        + frame[ports + 4 :]
    )


def _ip_packet(src: str, dst: str, protocol: int, segment: bytes, *, checksum_at: int, vlan: int | None) -> bytes:
    source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    if source.version != destination.version:
        raise ValueError(f"{src} and {dst} are of different versions of IP")
    pseudo = source.packed + destination.packed + struct.pack("!IHBB", len(segment), 0, 0, protocol)
    checksum = internet_checksum(pseudo + segment)
    if checksum == 0 and protocol == _UDP:  # where 0 says that there is none (RFC 768)
        checksum = 0xFFFF
    segment = segment[:checksum_at] + struct.pack("!H", checksum) + segment[checksum_at + 2 :]
    if source.version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0)
        header += source.packed + destination.packed
        header = header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:]
    else:
        header = struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + source.packed + destination.packed
    return ethernet_frame(header + segment, _ETHERTYPE[source.version], vlan=vlan)


def internet_checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    padded = data + b"\x00" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
