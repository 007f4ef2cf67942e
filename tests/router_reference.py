"""What an IPv4 router with two interfaces does to a frame, by RFC 1812 and RFC 791, written plainly and for itself.

It knows the Ethernet address of every neighbour, routes by the longest prefix, supports record route and timestamp, and
puts no fragments together that are sent to itself.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass

ECHO_REPLY, UNREACHABLE, QUENCH, REDIRECT, ECHO, TIME_EXCEEDED, PARAMETER = 0, 3, 4, 5, 8, 11, 12
NET, PROTOCOL, PORT, NEED_FRAGMENTS, HOST = 0, 2, 3, 4, 1
ICMP, TCP, UDP = 1, 6, 17
OWN_TTL = 254  # of what the router sends itself, when it has left
ERRORS = (UNREACHABLE, QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER)

Address = ipaddress.IPv4Address


@dataclass(frozen=True)
class Interface:
    """A device of the router: its addresses and what lies behind it."""

    name: str
    address: ipaddress.IPv4Interface
    mac: bytes
    mtu: int


@dataclass(frozen=True)
class Sent:
    """A datagram that leaves unchanged in the rest, in as many pieces as the device needs."""

    device: str
    next_hop: Address
    datagram: bytes


@dataclass(frozen=True)
class Error:
    """An ICMP error that leaves; `quoted` is the datagram that it is about, as it was when it went wrong."""

    device: str
    next_hop: Address
    source: Address
    to: Address
    type: int
    code: int
    quoted: bytes
    pointer: range = range(0)
    mtu: int = 0
    gateway: Address | None = None


Outcome = Sent | Error


class BadOptionError(Exception):
    """An option is wrong; `place` are the bytes of the header that it takes."""

    def __init__(self, place: range) -> None:
        super().__init__(place)
        self.place = place


def checksum(data: bytes) -> int:
    """The Internet checksum, added up word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += (data[at] << 8) + (data[at + 1] if at + 1 < len(data) else 0)
    while total > 0xFFFF:
        total = total % 0x10000 + total // 0x10000
    return 0xFFFF - total


def with_checksum(header: bytes) -> bytes:
    """The header with the checksum that it should have."""
    blank = header[:10] + b"\0\0" + header[12:]
    return blank[:10] + struct.pack("!H", checksum(blank)) + blank[12:]


class Router:
    """Routes map prefixes to a device and, where the hosts are not on its link, a gateway."""

    def __init__(
        self,
        interfaces: Mapping[str, Interface],
        routes: Mapping[ipaddress.IPv4Network, tuple[str, Address | None]],
        milliseconds: int,
    ) -> None:
        self.interfaces = interfaces
        self.routes = routes
        self.milliseconds = milliseconds
        self.own = {interface.address.ip for interface in interfaces.values()}
        self.broadcasts = {i.address.network.broadcast_address for i in interfaces.values()}

    def handle(self, device: str, frame: bytes) -> list[Outcome]:
        """What leaves because of a frame that arrives."""
        arrived = self.interfaces[device]
        to_all = bool(frame[0] & 1) if frame else False
        if len(frame) < 14 or (not to_all and frame[:6] != arrived.mac) or frame[12:14] != b"\x08\x00":
            return []
        datagram = self._valid(frame[14:])
        if datagram is None:
            return []
        source, target = Address(datagram[12:16]), Address(datagram[16:20])
        excused = target in self.own
        if not excused and (source in self.broadcasts or int(source) in (0, 0xFFFFFFFF)):
            return []
        if int(source) >> 24 in (0, 127) or int(source) >> 29 == 7:
            return []
        return self._route(datagram, arrived, to_all)

    @staticmethod
    def _valid(data: bytes) -> bytes | None:
        """The datagram without what lies behind it; None if RFC 1812, 5.2.2 wants it gone."""
        if len(data) < 20 or data[0] >> 4 != 4:
            return None
        header, total = (data[0] & 15) * 4, int.from_bytes(data[2:4], "big")
        if header < 20 or total < header or len(data) < total or checksum(data[:header]) != 0:
            return None
        return data[:total]

    def _route(self, datagram: bytes, arrived: Interface, to_all: bool) -> list[Outcome]:
        target = Address(datagram[16:20])
        if target in self.own:
            return self._for_itself(datagram, to_all)
        if target in self.broadcasts or int(target) >> 24 in (0, 127) or int(target) >> 29 == 7:
            return []
        way = self._way(target)
        if way is None:
            return self._error(datagram, to_all, UNREACHABLE, NET)
        leaving, next_hop = way
        if to_all:
            return []  # RFC 1812, 5.3.4
        outcomes: list[Outcome] = []
        on_link = Address(datagram[12:16]) in leaving.address.network
        if leaving is arrived and on_link and not self._has_source_route(datagram):
            outcomes += self._error(datagram, to_all, REDIRECT, HOST, gateway=next_hop)
        try:
            datagram = self._options(datagram, leaving.address.ip)
        except BadOptionError as bad:
            return outcomes + self._error(datagram, to_all, PARAMETER, 0, pointer=bad.place)
        if datagram[8] <= 1:
            return outcomes + self._error(datagram, to_all, TIME_EXCEEDED, 0)
        header = (datagram[0] & 15) * 4
        aged = with_checksum(datagram[:8] + bytes([datagram[8] - 1]) + datagram[9:header]) + datagram[header:]
        if len(aged) > leaving.mtu and aged[6] & 0x40:
            return outcomes + self._error(aged, to_all, UNREACHABLE, NEED_FRAGMENTS, mtu=leaving.mtu)
        return [*outcomes, Sent(leaving.name, next_hop, aged)]

    def _way(self, target: Address) -> tuple[Interface, Address] | None:
        fitting = [network for network in self.routes if target in network]
        if not fitting:
            return None
        device, gateway = self.routes[max(fitting, key=lambda network: network.prefixlen)]
        return self.interfaces[device], gateway or target

    def _for_itself(self, datagram: bytes, to_all: bool) -> list[Outcome]:
        fragment = int.from_bytes(datagram[6:8], "big") & 0x3FFF
        header = (datagram[0] & 15) * 4
        if fragment:
            return []
        protocol = datagram[9]
        if protocol == ICMP:
            return [] if to_all else self._echo(datagram, header)
        if protocol in (TCP, UDP):
            return self._error(datagram, to_all, UNREACHABLE, PORT)
        return self._error(datagram, to_all, UNREACHABLE, PROTOCOL)

    def _echo(self, datagram: bytes, header: int) -> list[Outcome]:
        """The reply to an echo request; it is routed like any datagram, with a new time to live."""
        if len(datagram) < header + 8 or datagram[header] != ECHO:
            return []
        source = Address(datagram[12:16])
        way = self._way(source) if source not in self.own | self.broadcasts else None
        if way is None:
            return []
        body = datagram[header:]
        sum_before = int.from_bytes(body[2:4], "big")
        sum_after = checksum(struct.pack("!HHH", sum_before ^ 0xFFFF, 0xFFFF ^ (ECHO << 8 | body[1]), body[1]))
        body = bytes([ECHO_REPLY, body[1]]) + struct.pack("!H", sum_after) + body[4:]
        leaving, next_hop = way
        turned = (
            datagram[:6]
            + bytes([0, 0, OWN_TTL])
            + datagram[9:12]
            + datagram[16:20]
            + datagram[12:16]
            + datagram[20:header]
        )
        try:
            turned = self._options(turned + body, leaving.address.ip)[:header]
        except BadOptionError:
            return []
        return [Sent(leaving.name, next_hop, with_checksum(turned) + body)]

    @staticmethod
    def _has_source_route(datagram: bytes) -> bool:
        try:
            return any(datagram[at] in (131, 137) for at, _ in _options_of(datagram))
        except BadOptionError:
            return False

    def _options(self, datagram: bytes, mine: Address) -> bytes:
        """The datagram with this router's address in record route options, and its time in timestamps."""
        header = bytearray(datagram[: (datagram[0] & 15) * 4])
        for at, size in _options_of(datagram):
            if header[at] == 7:
                self._record(header, at, size, mine)
            elif header[at] == 68:
                self._stamp(header, at, size, mine)
        changed = bytes(header) != datagram[: len(header)]
        return (with_checksum(bytes(header)) if changed else bytes(header)) + datagram[len(header) :]

    @staticmethod
    def _record(header: bytearray, at: int, size: int, mine: Address) -> None:
        place = range(at, at + size)
        if size < 3 or header[at + 2] < 4:
            raise BadOptionError(place)
        free = size - (header[at + 2] - 1)
        if free == 0:
            return
        if free < 4:
            raise BadOptionError(place)
        where = at + header[at + 2] - 1
        header[where : where + 4] = mine.packed
        header[at + 2] += 4

    def _stamp(self, header: bytearray, at: int, size: int, mine: Address) -> None:
        place = range(at, at + size)
        if size < 4 or header[at + 2] < 5 or header[at + 3] & 15 not in (0, 1, 3):
            raise BadOptionError(place)
        kind = header[at + 3] & 15
        entry = 4 if kind == 0 else 8
        where = at + header[at + 2] - 1
        if where + entry > at + size:
            if kind != 3:
                if header[at + 3] >> 4 == 15:
                    raise BadOptionError(place)
                header[at + 3] += 16
            return
        if kind == 3 and Address(bytes(header[where : where + 4])) not in self.own:
            return
        if kind == 1:
            header[where : where + 4] = mine.packed
        header[where + entry - 4 : where + entry] = struct.pack("!I", self.milliseconds)
        header[at + 2] += entry

    def _error(
        self,
        datagram: bytes,
        to_all: bool,
        kind: int,
        code: int,
        *,
        pointer: range = range(0),
        mtu: int = 0,
        gateway: Address | None = None,
    ) -> list[Outcome]:
        """The error, unless RFC 1812, 4.3.2.7 forbids it."""
        source, target = Address(datagram[12:16]), Address(datagram[16:20])
        header = (datagram[0] & 15) * 4
        if to_all or int(target) >> 29 == 7 or int.from_bytes(datagram[6:8], "big") & 0x1FFF:
            return []
        if datagram[9] == ICMP and (len(datagram) <= header or datagram[header] in ERRORS):
            return []
        way = self._way(source)
        if (
            way is None
            or source in self.broadcasts | self.own
            or int(source) >> 24 in (0, 127)
            or int(source) >> 29 == 7
        ):
            return []
        leaving, next_hop = way
        return [Error(leaving.name, next_hop, leaving.address.ip, source, kind, code, datagram, pointer, mtu, gateway)]


def _options_of(datagram: bytes) -> list[tuple[int, int]]:
    """Where each option starts, and its length."""
    header = (datagram[0] & 15) * 4
    found, at = [], 20
    while at < header and datagram[at] != 0:
        if datagram[at] == 1:
            at += 1
            continue
        size = datagram[at + 1] if at + 1 < header else 0
        if size < 2 or at + size > header:
            raise BadOptionError(range(at, header + 1))
        found.append((at, size))
        at += size
    return found
