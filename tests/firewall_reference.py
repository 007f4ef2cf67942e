"""The firewall's rules, flows and fragments once more, slowly: what appliances/firewall must answer.

Works on descriptions of packets, never on their bytes, so that it shares no parsing with the guest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from guest_harness import FORWARD, SECOND_NS
from scapy.layers.inet import IP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Ports = tuple[int, int]
Key = tuple[object, ...]

ICMP, TCP, UDP, GRE, ICMP6, SCTP = 1, 6, 17, 47, 58, 132
WITH_PORTS = (TCP, UDP, SCTP)
FIN, SYN, RST, ACK = 1, 2, 4, 16
LATER_OFFSET = 1480


@dataclass(frozen=True)
class Description:
    """A packet in words. `a` and `b` are its ports, or its ICMP type (a) and identifier (b)."""

    src: Address
    dst: Address
    proto: int
    a: int = 0
    b: int = 0
    flags: int = ACK
    fragment: str = ""  # "first" or "later"
    fragment_id: int = 1
    vlans: tuple[int, ...] = ()
    extras: bool = False  # IPv4 options, IPv6 extension headers in front
    hidden: bool = False  # IPv6: extension headers behind the fragment header
    hop_limit: int = 64
    quoted: Description | None = None  # of ICMP errors
    link: str = ""  # "arp" or "other" instead of IP

    @property
    def version(self) -> int:
        return self.src.version

    @property
    def is_icmp(self) -> bool:
        return self.fragment != "later" and self.proto == {4: ICMP, 6: ICMP6}[self.version]

    @property
    def is_icmp_error(self) -> bool:
        return self.is_icmp and self.a in ((3, 11, 12) if self.version == 4 else (1, 2, 3, 4))

    @property
    def packet_class(self) -> str:
        if self.link:
            return self.link
        neighbour = self.version == 6 and self.is_icmp and 133 <= self.a <= 137
        if neighbour and self.hop_limit == 255 and not self.fragment:
            return "neighbour"
        return f"ip{self.version}"


def _transport(d: Description) -> bytes:
    if d.fragment == "later":
        return bytes(24)
    if d.proto == TCP:
        return struct.pack(">HHIIBBHHH4x", d.a, d.b, 0, 0, 5 << 4, d.flags, 0, 0, 0)
    if d.proto == UDP:
        return struct.pack(">HHHH16x", d.a, d.b, 24, 0)
    if d.proto == SCTP:
        return struct.pack(">HHII12x", d.a, d.b, 0, 0)
    if d.is_icmp:
        quoted = b"" if d.quoted is None else bytes(_network(d.quoted))
        body = struct.pack(">BBHHH", d.a, 0, 0, d.b, 0) + quoted
        return body + bytes(-len(body) % 8)
    return bytes(24)


def _network(d: Description) -> Packet:
    offset = LATER_OFFSET // 8 if d.fragment == "later" else 0
    if d.version == 4:
        options = [IPOption_NOP()] * 4 if d.extras else []
        header = IP(src=str(d.src), dst=str(d.dst), proto=d.proto, ttl=d.hop_limit, options=options, id=d.fragment_id)
        header.flags = "MF" if d.fragment == "first" else ""
        header.frag = offset
        return header / Raw(_transport(d))
    layers: list[Packet] = [IPv6(src=str(d.src), dst=str(d.dst), hlim=d.hop_limit)]
    layers += [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()] if d.extras else []
    if d.fragment:
        layers += [IPv6ExtHdrFragment(offset=offset, m=int(d.fragment == "first"), id=d.fragment_id)]
    if d.fragment and d.hidden:
        layers += [IPv6ExtHdrDestOpt()] if d.fragment == "first" else []
    packet = layers[0]
    packet.nh = d.proto
    for layer in layers[1:]:
        last = packet.lastlayer()
        layer.nh = d.proto
        last.nh = {"IPv6ExtHdrHopByHop": 0, "IPv6ExtHdrDestOpt": 60, "IPv6ExtHdrFragment": 44}[type(layer).__name__]
        packet = packet / layer
    if d.hidden and d.fragment == "later":
        packet.lastlayer().nh = 60
    return packet / Raw(_transport(d))


def frame(d: Description) -> bytes:
    """The Ethernet frame that a description speaks of."""
    packet: Packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for vlan in d.vlans:
        packet = packet / Dot1Q(vlan=vlan)
    if d.link == "arp":
        return bytes(packet / ARP())
    if d.link == "other":
        packet.lastlayer().type = 0x88CC
        return bytes(packet / Raw(bytes(30)))
    return bytes(packet / _network(d))


@dataclass(frozen=True)
class Rule:
    """A rule and its text; None and "" match everything."""

    allow: bool
    text: str
    family: str = ""  # any, ip, ip4, ip6, arp, non-ip
    proto: int | None = None
    icmp_word: bool = False  # `icmp` and `icmp6`, which name an IP version too
    src: Network | None = None
    dst: Network | None = None
    src_ports: Ports | None = None
    dst_ports: Ports | None = None
    ports: Ports | None = None

    def _classes(self) -> set[str]:
        networks = [network for network in (self.src, self.dst) if network is not None]
        ranges = (self.src_ports, self.dst_ports, self.ports)
        if self.family in ("arp", "non-ip"):
            return {"arp"} if self.family == "arp" else {"arp", "other"}
        classes = {"ip4", "ip6", "other"}
        if self.family.startswith("ip") or self.proto is not None or networks or any(ranges):
            classes -= {"other"}
        versions: set[int] = {network.version for network in networks}
        if self.family in ("ip4", "ip6"):
            versions.add(int(self.family[2]))
        if self.icmp_word:
            versions.add(4 if self.proto == ICMP else 6)
        for version in versions:
            classes -= {"ip4", "ip6"} - {f"ip{version}"}
        return classes | ({"neighbour"} if self.proto == ICMP6 and "ip6" in classes else set())

    def matches(self, d: Description) -> bool | None:
        """Whether the rule matches; None when a later fragment does not show it."""
        if d.packet_class not in self._classes():
            return False
        if (self.src is not None and d.src not in self.src) or (self.dst is not None and d.dst not in self.dst):
            return False
        hidden = d.fragment == "later" and d.version == 6 and d.hidden
        if self.proto is not None and self.proto != d.proto and not hidden:
            return False
        asked = [limits for limits in (self.src_ports, self.dst_ports, self.ports) if limits is not None]
        if d.fragment == "later" and (hidden or d.proto in WITH_PORTS) and asked:
            return None
        if hidden and self.proto is not None:
            return None
        return self._ports_match(d) if asked else True

    def _ports_match(self, d: Description) -> bool:
        def inside(limits: Ports | None, *ports: int) -> bool:
            return limits is None or any(limits[0] <= port <= limits[1] for port in ports)

        if d.proto not in WITH_PORTS:
            return False
        return inside(self.src_ports, d.a) and inside(self.dst_ports, d.b) and inside(self.ports, d.a, d.b)


@dataclass
class Flow:
    """What is remembered of an open flow; `fins` holds the directions that ended."""

    seen_ns: int = 0
    closed: bool = False
    fins: set[int] = field(default_factory=set)


class Reference:
    """The firewall in slow motion, with tables that never fill."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        self._flows: dict[Key, Flow] = {}
        self._firsts: dict[Key, tuple[int, str]] = {}

    def judge(self, d: Description, direction: int, now_ns: int) -> str:
        """The counter that the packet adds to."""
        if d.packet_class not in ("ip4", "ip6"):
            return self._by_rules(d)
        key: Key = (d.src, d.dst, direction, d.fragment_id, d.vlans, d.proto if d.version == 4 else 0)
        if d.fragment == "later":
            seen_ns, outcome = self._firsts.get(key, (-(10**12), ""))
            return outcome if now_ns - seen_ns <= 30 * SECOND_NS else self._by_rules(d)
        outcome = self._by_flow(d, direction, now_ns)
        if d.fragment == "first":
            self._firsts[key] = (now_ns, outcome)
        return outcome

    def _by_rules(self, d: Description) -> str:
        for rule in self._rules:
            matches = rule.matches(d)
            if matches is not False:
                return "allowed" if matches and rule.allow else "denied"
        return "allowed" if d.packet_class in ("arp", "neighbour") else "denied"

    @staticmethod
    def _key(d: Description, direction: int, vlans: tuple[int, ...]) -> Key | None:
        near, far, near_port, far_port = d.src, d.dst, d.a, d.b
        if direction != FORWARD:
            near, far, near_port, far_port = far, near, far_port, near_port
        if d.is_icmp:
            questions = {8: 0, 13: 14} if d.version == 4 else {128: 129}
            pairs = questions if direction == FORWARD else {answer: question for question, answer in questions.items()}
            if d.a not in pairs:
                return None
            near_port, far_port = d.b, (d.a if direction == FORWARD else pairs[d.a])
        elif d.proto not in WITH_PORTS:
            near_port = far_port = 0
        numbers = tuple(vlan for vlan in vlans if vlan)
        return (near, far, d.proto, near_port, far_port, numbers)

    def _alive(self, key: Key | None, proto: int, now_ns: int) -> Flow | None:
        flow = self._flows.get(key) if key is not None else None
        if flow is None:
            return None
        idle_seconds = 300
        if proto in (TCP, SCTP):
            idle_seconds = 10 if flow.closed else 7440
        return flow if now_ns - flow.seen_ns <= idle_seconds * SECOND_NS else None

    def _error_belongs(self, d: Description, direction: int, now_ns: int) -> bool:
        quoted = d.quoted
        if quoted is None or quoted.fragment == "later" or quoted.src != d.dst:
            return False
        return self._alive(self._key(quoted, 1 - direction, d.vlans), quoted.proto, now_ns) is not None

    def _by_flow(self, d: Description, direction: int, now_ns: int) -> str:
        if d.is_icmp_error and self._error_belongs(d, direction, now_ns):
            return "established"
        key = self._key(d, direction, d.vlans)
        if key is None:
            return self._by_rules(d)
        flow = self._alive(key, d.proto, now_ns)
        if flow is not None:
            self._note(flow, d, direction, now_ns)
            return "established"
        if self._by_rules(d) == "denied":
            return "denied"
        if direction == FORWARD and not (d.proto == TCP and d.flags & RST):
            self._flows[key] = flow = Flow()
            self._note(flow, d, direction, now_ns)
        return "allowed"

    @staticmethod
    def _note(flow: Flow, d: Description, direction: int, now_ns: int) -> None:
        flags = d.flags if d.proto == TCP else 0
        if flags & SYN and not flags & ACK and direction == FORWARD:
            flow.closed, flow.fins = False, set()
        if flow.closed:
            return
        flow.seen_ns = now_ns
        if flags & FIN:
            flow.fins.add(direction)
        flow.closed = bool(flags & RST) or len(flow.fins) == 2
