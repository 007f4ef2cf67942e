"""A configuration of the gallery in a node between two ports in memory; run as a program, in a process of its own.

    python -m edgeos.bench.click_runs CASE SECONDS CLIENTS...

prints one line of JSON: for each number of clients the nanoseconds a frame with one FWP for all (`shared`) and with one
for each, and the bytes by which the process grew while its clients came.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from edgeos import _native
from edgeos.bench.click_cases import CASES, Case
from edgeos.bench.resident import resident
from edgeos.errors import EdgeosError
from edgeos.node import Node
from edgeos.settings import ChainSettings, TemplateSettings

WARM_UP_SECONDS = 0.03
SETTLE_SECONDS = 10.0
IDLE_TIMEOUT_NS = 3600 * 10**9
TOLERANCE = 0.01
"""How far the share of frames that left may be from what it must be: a few are under way when counters are read."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Nanoseconds a frame, and the bytes by which the process grew while its clients came."""

    isolate: str
    clients: int
    ns_per_packet: float
    grown_bytes: int


def template_of(case: Case) -> TemplateSettings:
    """The template that a case runs."""
    return TemplateSettings(
        name=case.name, click=case.path, define=case.define, memory=case.memory, ready_low=1, ready_high=1
    )


def measure(case: Case, isolate: Literal["shared", "client"], clients: int, seconds: float) -> Run:
    """Sends the case's frames as fast as the node takes them. Raises EdgeosError when they were not dealt with."""
    turn = case.traffic(clients)
    source = _native.MemoryPort("lan", lossless=True, loop=[(frame, 0) for frame in turn], sink=True)
    ports = [source] if case.one_armed else [source, _native.MemoryPort("wan", sink=True)]
    links = ("lan -> case",) if case.one_armed else ("lan -> case", "case -> wan")
    fwps = clients if isolate == "client" else 1
    with Node() as node:
        for port in ports:
            node.add_port(port)
        node.add_template(template_of(case))
        chain = ChainSettings(
            name="edge",
            links=tuple(link.replace("case", case.name) for link in links),
            isolate=isolate,
            max_fwps=fwps,
            idle_timeout_ns=IDLE_TIMEOUT_NS,
        )
        node.add_chain(chain)
        node.add_rule("any", chain="edge")
        node.wait(0)
        before_clients = resident("self").rss
        node.start()
        _wait_for(node, fwps)
        for handler, value in case.neighbours:
            node.write_handler("edge", case.name, None, handler, value)
        node.wait(WARM_UP_SECONDS)
        grown = resident("self").rss - before_clients
        before = node.statistics(guest_counters=False)
        node.wait(seconds)
        after = node.statistics(guest_counters=False)
    handled = after.received - before.received
    left = after.sent - before.sent
    lost = {reason: n for reason, n in after.chain("edge").dropped.items() if n and reason != "verdict"}
    if handled < len(turn) or abs(left / handled - case.passed) > TOLERANCE or lost or after.balance:
        raise EdgeosError(
            f"{case.name}, {isolate}, {clients} clients: of {handled} frames {left} left, {case.passed:.1%} must; "
            f"dropped {lost}"
        )
    return Run(
        isolate=isolate,
        clients=clients,
        ns_per_packet=(after.elapsed_ns - before.elapsed_ns) / handled,
        grown_bytes=grown,
    )


def _wait_for(node: Node, fwps: int) -> None:
    """Until every client has its FWP."""
    end = time.monotonic() + SETTLE_SECONDS
    while node.statistics(guest_counters=False).chain("edge").live < fwps:
        if time.monotonic() > end:
            raise EdgeosError(f"not all of {fwps} FWPs were made within {SETTLE_SECONDS:g} s")
        node.wait(0.005)


def _main(name: str, seconds: float, clients: Sequence[int]) -> None:
    case = next(case for case in CASES if case.name == name)
    # The most clients come first, while the process has grown little; memory given back may be used again.
    most_first = sorted(clients, reverse=True)
    runs = [measure(case, "shared", 1, seconds), *(measure(case, "client", n, seconds) for n in most_first)]
    print(json.dumps([asdict(run) for run in runs]))


if __name__ == "__main__":
    try:
        _main(sys.argv[1], float(sys.argv[2]), [int(n) for n in sys.argv[3:]])
    except EdgeosError as error:
        sys.exit(str(error))
