"""Settings of a node, its ports, templates, chains and rules: plain records, made by a manifest or by the Python API.

The records hold values and their defaults; `edgeos.manifest.check_settings` says what is wrong with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeos.match import Match

KIB = 1024
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """How a node runs. `max_flows` bounds the flow table."""

    workers: int = 1
    mover: Literal["inline", "dedicated"] = "inline"
    wait: Literal["adaptive", "spin", "block"] = "adaptive"
    memory: Literal["auto", "guard", "compact"] = "auto"
    max_flows: int = 65536


@dataclass(frozen=True, kw_only=True)
class PortSettings:
    """Where messages enter and leave: capture files (`read`, `write`), a network `device`, or memory (no manifest)."""

    name: str
    kind: Literal["pcap", "tap", "afpacket", "memory"]
    read: Path | None = None
    write: Path | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class TemplateSettings:
    """What FWPs are made from: exactly one of an appliance's name, C source or a compiled module.

    `memory`, `stack` and `slot_size` are bytes. `budget_ns` bounds one call into the guest. The pool keeps between
    `ready_low` and `ready_high` FWPs ready.
    """

    name: str
    appliance: str | None = None
    source: Path | None = None
    module: Path | None = None
    config: bytes = b""
    memory: int = 1024 * KIB
    budget_ns: int = 10 * MILLISECOND_NS
    stack: int = 8 * KIB
    slots: int = 64
    slot_size: int = 2048
    ready_low: int = 8
    ready_high: int = 64


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """FWPs linked in order: a line (`path`) or a graph (`links`), see `edgeos.graph`.

    `max_fwps` counts FWPs, so a chain of three stages with 300 lets 100 clients in at once.
    """

    name: str
    path: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    isolate: Literal["shared", "client", "flow"] = "client"
    idle_timeout_ns: int = 60 * SECOND_NS
    max_fwps: int = 1000
    when_full: Literal["refuse", "evict"] = "refuse"
    on_kill: Literal["restart", "block"] = "restart"


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """Which flows go through which chain, or are dropped. The first rule that matches a flow decides."""

    match: Match
    chain: str | None = None
    drop: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a node runs. `path` is the file it came from, None for settings made by a program."""

    path: Path | None = None
    node: NodeSettings = field(default_factory=NodeSettings)
    ports: tuple[PortSettings, ...] = ()
    templates: tuple[TemplateSettings, ...] = ()
    chains: tuple[ChainSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
