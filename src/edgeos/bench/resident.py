"""How much memory processes hold, read from /proc; run as a program, a node with idle or active clients.

    python -m edgeos.bench.resident MODE READY CLIENTS IN_A_ROW LIVES

makes a node with that `node.memory`, READY ready FWPs of the bridge appliance, and CLIENTS clients that have sent ten
messages each, IN_A_ROW of them at once; with LIVES above 1 as many others have been served by their FWPs before, and
have left. Prints one line of JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edgeos.errors import EdgeosError

CLIENTS = 1000
MESSAGES = 10
SIZES = (64, 512, 128, 320, 96, 448, 192, 256, 384, 64)
"""Bytes of a client's messages."""

_HEADERS = 42  # bytes of Ethernet, IPv4 and UDP
_IDLE_TIMEOUT_NS = 3600 * 10**9
_RUNS_MAX = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Bytes that a process holds: resident pages, its share of those that others map too, and page tables."""

    rss: int
    pss: int | None
    page_tables: int


def resident(pid: int | Literal["self"]) -> Resident:
    """Of a running process. `pss` is None where the system does not tell."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return Resident(rss=_bytes("VmRSS", status), pss=None, page_tables=_bytes("VmPTE", status))
    return Resident(rss=_bytes("Rss", rollup), pss=_bytes("Pss", rollup), page_tables=_bytes("VmPTE", status))


def _bytes(key: str, text: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found.group(1)) if found else 0


def _node_memory(mode: Literal["guard", "compact"], ready: int, clients: int, in_a_row: int, lives: int) -> Resident:
    """Of this process with a node in it that does what the arguments say. Raises EdgeosError."""
    from edgeos import _native  # noqa: PLC0415  (whoever only reads /proc does without the kernel)
    from edgeos.node import Node  # noqa: PLC0415
    from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings  # noqa: PLC0415
    from edgeos.testing import FakeClock  # noqa: PLC0415

    lan, wan = _native.MemoryPort("lan"), _native.MemoryPort("wan", sink=True)
    with Node(NodeSettings(memory=mode)) as node:
        node.add_port(lan)
        node.add_port(wan)
        # The pool is filled once and not refilled: one FWP is always left.
        node.add_template(
            TemplateSettings(name="bridge", appliance="bridge", ready_low=1, ready_high=ready, ready_max=1)
        )
        node.add_chain(
            ChainSettings(
                name="edge", path=("lan", "bridge", "wan"), max_fwps=CLIENTS, idle_timeout_ns=_IDLE_TIMEOUT_NS
            )
        )
        node.add_rule("ip", chain="edge")
        clock = FakeClock(node)
        _settle(node)
        for life in range(lives):
            clock.advance(2 * _IDLE_TIMEOUT_NS / 1e9)
            while node.statistics(guest_counters=False).chain("edge").live:
                _settle(node)
            for packets in _traffic(life * clients, clients, in_a_row):
                for packet in packets:
                    lan.inject(packet)
                _settle(node)
        chain = node.statistics(guest_counters=False).chain("edge")
        stage = chain.stages[0]
        if (chain.live, chain.sent) != (clients, lives * clients * MESSAGES) or stage.created != ready:
            raise EdgeosError(f"{chain.live} of {clients} clients live, {chain.sent} messages sent")
        if stage.recycled != (lives - 1) * clients:
            raise EdgeosError(f"{stage.recycled} FWPs were recycled, {(lives - 1) * clients} expected")
        return resident("self")


def _settle(node: object) -> None:
    run_once = node.run_once  # type: ignore[attr-defined]
    for _ in range(_RUNS_MAX):
        if not run_once():
            return
    raise EdgeosError("the node did not come to rest")


def _traffic(first: int, clients: int, in_a_row: int) -> Iterator[list[bytes]]:
    """Round after round, `in_a_row` messages of each client from number `first` on in one burst."""
    from edgeos.testing import udp_packet  # noqa: PLC0415

    for begin in range(0, MESSAGES, in_a_row):
        for client in range(first, first + clients):
            address = f"10.0.{client >> 8}.{client & 255}"
            sizes = SIZES[begin : begin + in_a_row]
            yield [udp_packet(address, "192.0.2.1", bytes(size - _HEADERS)) for size in sizes]


if __name__ == "__main__":
    mode: Literal["guard", "compact"] = "guard" if sys.argv[1] == "guard" else "compact"
    print(json.dumps(asdict(_node_memory(mode, *map(int, sys.argv[2:6])))))
