"""What a node has counted: immutable records, taken between two iterations of the data plane, so that sums agree.

The law that they keep, for every chain and for the node: received + emitted = sent + consumed + dropped + in flight,
and + lost in sums over worker processes of which one has died.
"""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar


@dataclass(frozen=True, kw_only=True)
class StageStatistics:
    """One stage of a chain. `counters` are the guest's own, summed over all clients, those that left included.

    `ready_wanted` is how many FWPs the pool wants ready now, by the clients that came of late.
    """

    name: str
    handled: int
    bursts: int
    ready: int
    ready_wanted: int
    created: int
    recycled: int
    made_on_path: int
    exhausted: int
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ParkingStatistics:
    """Clients of a chain with `keep` that were idle: parked = resumed + dropped + clients (those parked now).

    `bytes` is what those take, records included. `dropped` tells why others never came back to their data;
    `refused` counts clients that left and were not parked: `too_large`, or `connected` when they had to give way.
    Times are of one client, nanoseconds: of parking it, and of laying its data over fresh FWPs when it is back.
    """

    parked: int = 0
    resumed: int = 0
    clients: int = 0
    bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    park_p50_ns: float = 0
    park_p99_ns: float = 0
    resume_p50_ns: float = 0
    resume_p99_ns: float = 0


@dataclass(frozen=True, kw_only=True)
class ChainStatistics:
    """One chain. `live` and `peak` count FWPs bound to clients; activations are new clients (or flows).

    A retired chain was removed or replaced and has live clients, or had some; "(gone)" sums up those that have left.
    An activation lasts from the first message's look-up in the flow table to its handler's call, nanoseconds.
    """

    name: str
    received: int
    emitted: int
    emit_refused: int
    sent: int
    consumed: int
    in_flight: int
    dropped: dict[str, int]
    kills: dict[str, int]
    activations: int
    activation_p50_ns: float
    activation_p99_ns: float
    activation_max_ns: float
    live: int
    peak: int
    evicted: int
    expired: int
    stages: tuple[StageStatistics, ...]
    parking: ParkingStatistics = ParkingStatistics()
    retired: bool = False
    lost: int = 0

    @property
    def balance(self) -> int:
        """Messages that cannot be accounted for; anything but 0 is a defect."""
        left = self.sent + self.consumed + sum(self.dropped.values()) + self.in_flight + self.lost
        return self.received + self.emitted - left


@dataclass(frozen=True, kw_only=True)
class PortStatistics:
    """One port. `queued` packets were accepted for sending and are not sent yet.

    `mode` and `problem` are for the user: how the device is used, if there are several ways, and what went wrong.

    Of a listener: connections now, all that were accepted, and how many were refused or ended, by reason. A flow of
    datagrams counts as a connection. A retired one was removed or replaced.
    """

    name: str
    kind: str
    received: int
    received_bytes: int
    sent: int
    sent_bytes: int
    send_dropped: int
    receive_overrun: int
    queued: int
    mode: str
    problem: str
    connections: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    retired: bool = False


@dataclass(frozen=True, kw_only=True)
class TenantStatistics:
    """One tenant: what its clients have used, and what its quotas turned away.

    `memory`, `fwps` and `clients` are those there now; clients that are away have `parked` bytes of the memory.
    `refused` are messages (or connections of listeners) by the reason under which they are dropped too; `killed` are
    FWPs that grew beyond the quota of memory.
    """

    name: str
    received: int
    received_bytes: int
    copied_bytes: int
    cpu_ns: int
    memory: int
    fwps: int
    clients: int
    admitted: int
    refused: dict[str, int]
    killed: int
    parked: int = 0


@dataclass(frozen=True, kw_only=True)
class UnmatchedStatistics:
    """Clients that no rule matched, see `Node.on_unmatched`: how many were asked about, and what became of that.

    `failed` counts callbacks that raised or gave an answer that cannot be, `defaulted` clients that got the default for
    that or for want of an answer in time, `late` answers that came after it, `turned_away` messages and connections of
    clients beyond the bounds. `waiting` and `kept` are clients now: without and with a decision. `problem` is what the
    callback raised last.
    """

    asked: int = 0
    answered: int = 0
    failed: int = 0
    defaulted: int = 0
    late: int = 0
    turned_away: int = 0
    waiting: int = 0
    kept: int = 0
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeStatistics:
    """The whole node. `dropped` are messages for which no chain was found; chains count their own.

    `lost` were on their way in a worker process that died; of a port, were accepted and not sent.
    """

    elapsed_ns: int
    iterations: int
    received: int
    in_flight: int
    flows: int
    dropped: dict[str, int]
    chains: tuple[ChainStatistics, ...]
    ports: tuple[PortStatistics, ...]
    tenants: tuple[TenantStatistics, ...] = ()
    unmatched: UnmatchedStatistics = UnmatchedStatistics()
    lost: int = 0

    @property
    def sent(self) -> int:
        return sum(chain.sent for chain in self.chains)

    @property
    def consumed(self) -> int:
        """Messages that guests dealt with: EDGEOS_DONE."""
        return sum(chain.consumed for chain in self.chains)

    @property
    def balance(self) -> int:
        """Messages that cannot be accounted for; anything but 0 is a defect."""
        emitted = sum(chain.emitted for chain in self.chains)
        dropped = sum(self.dropped.values()) + sum(sum(chain.dropped.values()) for chain in self.chains)
        return self.received + emitted - self.sent - self.consumed - dropped - self.in_flight - self.lost

    def chain(self, name: str) -> ChainStatistics:
        """The statistics of one chain; KeyError when there is none of that name."""
        return _named(self.chains, name)

    def port(self, name: str) -> PortStatistics:
        """The statistics of one port; KeyError when there is none of that name."""
        return _named(self.ports, name)

    def tenant(self, name: str) -> TenantStatistics:
        """The statistics of one tenant; KeyError when there is none of that name."""
        return _named(self.tenants, name)

    def as_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {**asdict(self), "sent": self.sent, "consumed": self.consumed, "balance": self.balance}


@dataclass(frozen=True, kw_only=True)
class ClientStatistics:
    """One client of a chain. `address` is its IP address, or its Ethernet address for traffic that is not IP.

    `counters[stage]` are the guest's own counters in this client's FWP; empty where the stage has none now.
    """

    address: str
    vlan: int | None
    idle_ns: int
    in_flight: int
    flows: int
    blocked: bool
    counters: dict[str, dict[str, int]]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Record = TypeVar("_Record", bound=_Named)


def _named(records: tuple[_Record, ...], name: str) -> _Record:
    for record in records:
        if record.name == name:
            return record
    raise KeyError(name)


def node_statistics(snapshot: dict[str, Any], kinds: dict[str, str]) -> NodeStatistics:
    """Records from the kernel's snapshot; `kinds` are the ports' kinds by name."""
    chains = (
        ChainStatistics(
            **{
                **chain,
                "stages": tuple(StageStatistics(**stage) for stage in chain["stages"]),
                "parking": ParkingStatistics(**chain["parking"]),
            }
        )
        for chain in sorted(snapshot["chains"], key=lambda chain: bool(chain["retired"]))
    )
    ports = (
        PortStatistics(kind=kinds[port["name"]], **port)
        for port in sorted(snapshot["ports"], key=lambda port: bool(port["retired"]))
    )
    tenants = (TenantStatistics(**tenant) for tenant in snapshot["tenants"])
    unmatched = UnmatchedStatistics(**snapshot["unmatched"])
    records = {"chains": tuple(chains), "ports": tuple(ports), "tenants": tuple(tenants), "unmatched": unmatched}
    return NodeStatistics(**{**snapshot, **records})


def client_statistics(raw: dict[str, Any], stages: list[tuple[str, list[str]]]) -> ClientStatistics:
    """A record from the kernel's snapshot of a client; `stages` are names and the names of their guests' counters."""
    counters = {
        name: dict(zip(names, values, strict=False))
        for (name, names), values in zip(stages, raw["counters"], strict=True)
    }
    return ClientStatistics(
        address=client_address(raw["address"], raw["is_ip"]),
        vlan=(raw["vlan"] & 0xFFFF) - 1 if raw["vlan"] else None,
        idle_ns=raw["idle_ns"],
        in_flight=raw["in_flight"],
        flows=raw["flows"],
        blocked=raw["blocked"],
        counters=counters,
    )


def client_address(raw: bytes, is_ip: bool) -> str:
    """An owner's address as text; "*" when all clients are one."""
    if not any(raw):
        return "*"
    if not is_ip:
        return raw[:6].hex(":")
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)
