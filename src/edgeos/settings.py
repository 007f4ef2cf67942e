"""Settings of a node, its ports, templates, chains and rules: plain records, made by a manifest or by the Python API.

The records hold values and their defaults; `edgeos.manifest.check_settings` says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeos.match import Match

KIB = 1024
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
SLOTS_DEFAULT, SLOT_SIZE_DEFAULT = 64, 2048  # as in edgeos.h
STACK_MIN = 2944  # bytes of C stack, see edgeos.guest_build
SLOT_GAP = 64  # bytes between slots, see EDGEOS_SLOT_STRIDE in edgeos.h
LISTENER_KINDS = ("tcp", "udp", "unix")


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """How a node runs. `max_flows` bounds the flow table of a worker.

    `workers` is how many processes with a data plane each `edgeos up` starts, 0 as many as fit the ports and the cores.
    `drain_timeout_ns` is how long clients that are there may stay after SIGTERM, `orphan_timeout_ns` how long worker
    processes go on without their supervisor; 0 is not at all.

    `spare_fwps` and `spare_memory` (bytes) make room for templates and chains that are added while the node runs: FWPs
    beyond those that its chains and pools may have at the start, and the largest memory of any template.
    """

    workers: int = 1
    drain_timeout_ns: int = 5 * SECOND_NS
    orphan_timeout_ns: int = 30 * SECOND_NS
    mover: Literal["inline", "dedicated"] = "inline"
    wait: Literal["adaptive", "spin", "block"] = "adaptive"
    memory: Literal["auto", "guard", "compact"] = "auto"
    max_flows: int = 65536
    spare_fwps: int = 0
    spare_memory: int = 0


@dataclass(frozen=True, kw_only=True)
class PortSettings:
    """Where messages enter and leave: capture files (`read`, `write`), a network `device`, or memory (no manifest).

    Listeners (tcp, udp, unix) have `listen`, an address such as "0.0.0.0:80" or a path, and the keys below it.
    `accept_rate` is connections a second; timeouts are nanoseconds; 0 of either means none. `mode` are a Unix socket's
    permissions, `output_limit` the bytes that wait for a slow reader before its FWP waits too. `fd` is the
    descriptor of a socket, queue or bundle that is made already and stays its maker's; not in manifests.

    AF_XDP ports take the packets of one of the device's `queues`, or of all (None), that meet any match of `take`, or
    all without; others go to the kernel's stack. `fallback` says what is opened where AF_XDP cannot be.
    """

    name: str
    kind: Literal["pcap", "tap", "afpacket", "afxdp", "tcp", "udp", "unix", "memory"]
    read: Path | None = None
    write: Path | None = None
    device: str | None = None
    queues: int | None = None
    take: tuple[Match, ...] = ()
    fallback: Literal["none", "afpacket"] = "none"
    listen: str | None = None
    mode: int = 0o660
    max_connections: int = 10_000
    max_per_client: int = 1000
    client_prefix_v6: int = 64
    accept_rate: int = 0
    open_timeout_ns: int = 30 * SECOND_NS
    idle_timeout_ns: int = 600 * SECOND_NS
    backlog: int = 1024
    proxy_protocol: bool = False
    output_limit: int = 256 * KIB
    fd: int | None = None

    @property
    def is_listener(self) -> bool:
        """True for ports that carry connections and datagrams, False for those that carry packets."""
        return self.kind in LISTENER_KINDS


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings:
    """A service that guests may open connections to, where `Grants.connect` names it: "127.0.0.1:5432", or a path."""

    name: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Grants:
    """What the guests of a template may do beyond their messages: connect to upstreams, set timers, and so on."""

    connect: tuple[str, ...] = ()
    timer: bool = False
    clock: bool = False
    random: bool = False

    @property
    def calls(self) -> tuple[str, ...]:
        """The names of the granted calls."""
        return tuple(name for name in ("connect", "timer", "clock", "random") if getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class TemplateSettings:
    """What FWPs are made from: exactly one of an appliance's name, C source, a compiled module, a Click configuration.

    `click` is the file of a configuration, `define` gives values to its `$variables`, and `devices` names its devices
    in the order of their numbers: what stands in front of the stage, then what its out ports lead to. With `tcp` an
    appliance or C source that serves connections speaks TCP by itself, behind ports for packets. `memory`,
    `stack` and `slot_size` are bytes. Without `stack` it is as large as the code needs; `slots` and `slot_size` are the
    source's own unless given, 64 and 2048 where it has none. `budget_ns` bounds one call into the guest. The pool keeps
    between `ready_low` and `ready_high` FWPs ready, and up to `ready_max` while many clients come.
    """

    name: str
    appliance: str | None = None
    source: Path | None = None
    module: Path | None = None
    click: Path | None = None
    define: Mapping[str, str] = field(default_factory=dict, hash=False)
    devices: tuple[str, ...] = ()
    config: bytes = b""
    tcp: bool = False
    memory: int = 1024 * KIB
    budget_ns: int = 10 * MILLISECOND_NS
    stack: int | None = None
    slots: int | None = None
    slot_size: int | None = None
    ready_low: int = 8
    ready_high: int = 64
    ready_max: int = 1024
    grant: Grants = field(default_factory=Grants)


@dataclass(frozen=True, kw_only=True)
class ChainSettings:
    """FWPs linked in order: a line (`path`) or a graph (`links`), see `edgeos.graph`.

    `max_fwps` counts FWPs, so a chain of three stages with 300 lets 100 clients in at once. `new_clients` is how many
    may come in a second, 0 any number.

    With `keep` the FWPs of a client that was idle for `idle_timeout_ns` are parked, and resumed when it comes back:
    its guests find their data. All parked clients take at most `keep_memory` bytes in each worker, those parked longest
    give way; after `keep_timeout_ns` (0: never) a parked client ends.
    """

    name: str
    path: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    isolate: Literal["shared", "client", "connection", "flow"] = "client"
    idle_timeout_ns: int = 60 * SECOND_NS
    keep: bool = False
    keep_memory: int = 64 * 1024 * KIB
    keep_timeout_ns: int = 24 * 3600 * SECOND_NS
    max_fwps: int = 1000
    when_full: Literal["refuse", "evict"] = "refuse"
    on_kill: Literal["restart", "block"] = "restart"
    new_clients: int = 0


@dataclass(frozen=True, kw_only=True)
class TenantSettings:
    """Who pays: quotas on what all clients together use whose rules name the tenant. 0 is no limit.

    `cpu` is CPU time of guests, nanoseconds in a second; `memory` bytes of its FWPs' memories; `copy_rate` bytes that
    the mover copies, `message_rate` messages from ports, `new_clients` clients that come, each in a second.
    """

    name: str
    cpu: int = 0
    memory: int = 0
    max_fwps: int = 0
    max_clients: int = 0
    copy_rate: int = 0
    message_rate: int = 0
    new_clients: int = 0


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """Which flows go through which chain, are dropped, or are passed on unchanged between two ports.

    The first rule that matches a flow decides: the higher priority is asked first, then the order of writing.
    `pass_ports` are two ports, the clients' side first. `isolate` overrides the chain's; `max_clients` is how many the
    rule lets in at once, `new_clients` how many in a second, 0 any number. `tenant` pays for the rule's clients.
    """

    match: Match
    chain: str | None = None
    drop: bool = False
    pass_ports: tuple[str, ...] = ()
    priority: int = 0
    isolate: Literal["shared", "client", "connection", "flow"] | None = None
    max_clients: int = 0
    new_clients: int = 0
    tenant: str | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyFunction:
    """A function of a Python file, with the text that was read: it is run, whatever the file holds by then."""

    path: Path
    source: str
    function: str


@dataclass(frozen=True, kw_only=True)
class UnmatchedSettings:
    """Who decides about clients that no rule matches, and within what bounds; see `Node.on_unmatched`.

    Without an answer within `deadline_ns` they go through the chain `default`, or are dropped if that is None.
    """

    callback: PolicyFunction
    deadline_ns: int = 100 * MILLISECOND_NS
    default: str | None = None
    keep_ns: int = 60 * SECOND_NS
    max_clients: int = 65536
    max_waiting: int = 1024


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a node runs. `path` is the file it came from, None for settings made by a program."""

    path: Path | None = None
    node: NodeSettings = field(default_factory=NodeSettings)
    ports: tuple[PortSettings, ...] = ()
    upstreams: tuple[UpstreamSettings, ...] = ()
    templates: tuple[TemplateSettings, ...] = ()
    chains: tuple[ChainSettings, ...] = ()
    tenants: tuple[TenantSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    unmatched: UnmatchedSettings | None = None
