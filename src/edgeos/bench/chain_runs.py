"""Chains of FWPs that rewrite the Ethernet header, run by a real node between two ports in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeos import _native
from edgeos.bench.programs import SOURCES
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError
from edgeos.guest_build import build
from edgeos.node import Node
from edgeos.settings import ChainSettings, NodeSettings, TemplateSettings
from edgeos.testing import udp_packet

FLOWS = 64
"""Flows of the one client, so that the flow table is asked for more than one entry in a burst."""

HEADERS = 42
"""Bytes of Ethernet, IPv4 and UDP headers."""

WARM_UP_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What runs: `length` FWPs in a line, each of which rewrites the header `rewrites` times; `mode` of the mover."""

    length: int
    rewrites: int
    size: int
    mode: Literal["inline", "dedicated"]


def build_rewriter(folder: Path, rewrites: int) -> Path:
    """The guest with that many rewrites a message, as a module in `folder`."""
    module = folder / f"rewrite{rewrites}.wasm"
    if not module.exists():
        build(SOURCES / "rewrite.c", module, defines={"REWRITES": rewrites}, cache=CodeCache())
    return module


def time_chain(chain: Chain, module: Path, seconds: float) -> float:
    """Nanoseconds a message, over `seconds` of a running node, by the node's own clock. Raises EdgeosError.

    The port delivers as fast as the node takes, and waits when the chain is full, so that nothing is dropped.
    """
    source = _native.MemoryPort("in", lossless=True, loop=_packets(chain.size))
    sink = _native.MemoryPort("out", sink=True)
    with Node(NodeSettings(mover=chain.mode)) as node:
        node.add_port(source)
        node.add_port(sink)
        node.add_template(TemplateSettings(name="rewrite", module=module))
        # One client, so the node is told of no more FWPs than it needs, and chooses its memory accordingly.
        path = ("in", *["rewrite"] * chain.length, "out")
        node.add_chain(ChainSettings(name="line", path=path, max_fwps=chain.length))
        node.add_rule("ip", chain="line")
        node.start()
        node.wait(WARM_UP_SECONDS)
        before = node.statistics(guest_counters=False)
        node.wait(seconds)
        after = node.statistics(guest_counters=False)
    sent = after.sent - before.sent
    if sent == 0 or after.balance != 0 or any(after.chain("line").dropped.values()):
        raise EdgeosError(f"{chain}: {sent} messages sent, balance {after.balance}, {after.chain('line').dropped}")
    return (after.elapsed_ns - before.elapsed_ns) / sent


def _packets(size: int) -> list[tuple[bytes, int]]:
    payload = bytes(size - HEADERS)
    return [(udp_packet("10.0.0.1", "192.0.2.1", payload, sport=1024 + flow), 0) for flow in range(FLOWS)]
