"""The IP addresses of this machine's network devices, in the network namespace of the caller: getifaddrs(3)."""

from __future__ import annotations

import ctypes
import ipaddress
import socket

from edgeos.endpoint import Address


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
    ("destination", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]

# Where an address lies in struct sockaddr_in and sockaddr_in6, and its bytes.
_PLACES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}


def device_addresses() -> dict[str, set[Address]]:
    """The addresses of each device that has any; empty when the system does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(first)) != 0:
        return {}
    found: dict[str, set[Address]] = {}
    try:
        entry = first
        while entry:
            address = _address(entry.contents.address)
            if address is not None:
                found.setdefault(entry.contents.name.decode("utf-8", "surrogateescape"), set()).add(address)
            entry = entry.contents.next
    finally:
        libc.freeifaddrs(first)
    return found


def _address(pointer: int | None) -> Address | None:
    if not pointer:
        return None
    family = ctypes.c_uint16.from_address(pointer).value
    if family not in _PLACES:
        return None
    offset, size = _PLACES[socket.AddressFamily(family)]
    return ipaddress.ip_address(ctypes.string_at(pointer + offset, size))
