"""Where a listener listens and an upstream is reached: an IP address with a port, or the path of a Unix socket."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from edgeos.findings import BadValueError, shown

SOCKET_PATH_BYTES_MAX = 107  # sun_path of Linux, less the closing NUL
ADDRESS_CHARACTERS_MAX = 64
IP_HINT = 'an IP address and a port, such as "127.0.0.1:8080" or "[::1]:8080"'
PATH_HINT = f'a path with a /, of at most {SOCKET_PATH_BYTES_MAX} bytes, such as "/run/app.sock"'

_IP_PORT = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_EVERYWHERE = {"": "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class IpEndpoint:
    """An address and a port of TCP or UDP."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def is_path(text: str) -> bool:
    """True if the text means a Unix socket: paths have a slash, addresses have none."""
    return "/" in text


def parse_ip_endpoint(text: str) -> IpEndpoint:
    """Reads `address:port`. Raises BadValueError."""
    parts = _IP_PORT.fullmatch(text) if len(text) <= ADDRESS_CHARACTERS_MAX else None
    if parts is None:
        raise BadValueError(shown(text), IP_HINT, _missing_part(text))
    port = int(parts["port"])
    if not 1 <= port <= 65535:
        raise BadValueError(shown(text), "a port from 1 to 65535")
    host = parts["six"] if parts["six"] is not None else parts["four"]
    if host in _EVERYWHERE:
        raise BadValueError(shown(text), IP_HINT, f'did you mean "{_EVERYWHERE[host]}:{port}"?')
    try:
        address = ipaddress.IPv6Address(host) if parts["six"] is not None else ipaddress.IPv4Address(host)
    except ValueError:
        raise BadValueError(shown(text), IP_HINT, "names are not looked up") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise BadValueError(shown(text), "an address without a zone")
    return IpEndpoint(address, port)


def check_socket_path(text: str) -> None:
    """Raises BadValueError unless the text can be the path of a Unix socket."""
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise BadValueError(shown(text), "a path in Unicode") from None
    if not is_path(text) or b"\0" in encoded or len(encoded) > SOCKET_PATH_BYTES_MAX or text.endswith("/"):
        raise BadValueError(shown(text), PATH_HINT)


def _missing_part(text: str) -> str:
    """What to do about an address alone, or a port alone."""
    if text.isascii() and text.isdigit() and len(text) <= 5:
        return f'did you mean "0.0.0.0:{text}"?'
    try:
        version = ipaddress.ip_address(text).version
    except ValueError:
        return ""
    return f'add a port: "[{text}]:80"' if version == 6 else f'add a port: "{text}:80"'
