"""Named values of guests that are read and written while the node runs: requests, answers and what was wrong.

A guest's counters (`EDGEOS_COUNTER`) are read without asking it; all other names go to its `edgeos_handler`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeos.errors import EdgeosError
from edgeos.findings import printable, shown
from edgeos.statistics import ClientStatistics, client_address

NAME_BYTES_MAX = 256
VALUE_BYTES_MAX = 65536

_DONE, _UNKNOWN, _NOT_ALLOWED, _BAD_VALUE, _NONE, _TOO_LARGE, _KILLED, _NO_CPU = range(8)
_ETHERNET = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


@dataclass(frozen=True, kw_only=True)
class HandlerAnswer:
    """What one client's FWP answered. `problem` says in words why there is no value; empty when there is one."""

    client: str
    value: bytes = b""
    problem: str = ""

    @property
    def text(self) -> str:
        """The value as text; bytes that are not UTF-8 become replacement characters."""
        return self.value.decode("utf-8", "replace")


def total(answers: Iterable[HandlerAnswer]) -> int | None:
    """The sum of all values; None unless each of them is a whole number in decimal digits."""
    values = [answer.text.strip() for answer in answers if not answer.problem]
    return sum(map(int, values)) if values and all(re.fullmatch(r"-?[0-9]{1,30}", value) for value in values) else None


def check_request(name: str, value: bytes) -> None:
    """Raises EdgeosError for what no guest can be asked."""
    if not name or len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise EdgeosError(f"found the handler {shown(name)}; allowed: a name of 1 to {NAME_BYTES_MAX} bytes")
    if len(value) > VALUE_BYTES_MAX:
        raise EdgeosError(f"found a value of {len(value)} bytes; allowed: at most {VALUE_BYTES_MAX}")


def address_bytes(client: str) -> bytes:
    """A client's address as the kernel keeps it. Raises EdgeosError."""
    if _ETHERNET.fullmatch(client):
        return bytes.fromhex(client.replace(":", "")) + bytes(10)
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        raise EdgeosError(f"found the client {shown(client)}; allowed: an IP or Ethernet address") from None
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def counter_answers(
    clients: Iterable[ClientStatistics], stage: str, name: str, client: str | None
) -> list[HandlerAnswer]:
    """The answers of a counter, read from the clients' statistics."""
    wanted = None if client is None else address_bytes(client)
    return [
        HandlerAnswer(client=found.address, value=str(found.counters[stage][name]).encode())
        for found in clients
        if name in found.counters[stage] and wanted in (None, found.address != "*" and address_bytes(found.address))
    ]


def guest_answer(raw: dict[str, Any], name: str) -> HandlerAnswer:
    """An answer of the kernel's. Raises EdgeosError for what holds for every client: no such name, no handlers."""
    status, value = raw["status"], raw["value"]
    if status == _UNKNOWN:
        raise EdgeosError(f"the guest has no handler {shown(name)}")
    if status == _NONE:
        raise EdgeosError(f"the guest has no handler {shown(name)}; it defines no edgeos_handler")
    problems = {
        _NOT_ALLOWED: f"{shown(name)} does not allow that: it can only be read, or only be written",
        _BAD_VALUE: printable(value.decode("utf-8", "replace")) or "the guest does not take this value",
        _TOO_LARGE: "no room: too few slots of its ring are free for a value of that size",
        _KILLED: f"the call ended its FWP: {raw['cause']}",
        _NO_CPU: "its tenant has used its CPU time: ask again later",
    }
    client = client_address(raw["address"], raw["is_ip"])
    if status in problems:
        return HandlerAnswer(client=client, problem=problems[status])
    return HandlerAnswer(client=client, value=value)
