"""The monitor appliance: everything passes, and its counters agree with what scapy sees."""

from __future__ import annotations

import pytest
from guest_harness import FORWARD, REVERSE, Message, Result, start_appliance
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

PROTOCOLS = ("tcp", "udp", "icmp", "other", "malformed")
FIRST_FRAGMENT = Ether() / IP(flags="MF") / UDP(len=3008) / Raw(bytes(1472))
LATER_FRAGMENT = Ether() / IP(frag=185, proto=17) / Raw(bytes(1480))
LATER_FRAGMENT6 = Ether() / IPv6() / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(b"x")

CASES: list[tuple[str, Packet, dict[str, int]]] = [
    ("syn", Ether() / IP() / TCP(flags="S"), {"tcp": 1, "tcp_syn": 1}),
    ("syn-ack", Ether() / IP() / TCP(flags="SA"), {"tcp": 1, "tcp_syn": 1}),
    ("rst", Ether() / IPv6() / TCP(flags="R"), {"tcp": 1, "tcp_rst": 1}),
    ("udp in two tags", Ether(type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP() / UDP(), {"udp": 1}),
    ("udp behind hop-by-hop", Ether() / IPv6() / IPv6ExtHdrHopByHop() / UDP(), {"udp": 1}),
    ("ping", Ether() / IP() / ICMP(), {"icmp": 1}),
    ("ping6", Ether() / IPv6() / ICMPv6EchoRequest(), {"icmp": 1}),
    ("icmp number in ipv6", Ether() / IPv6(nh=1) / Raw(b"x"), {"other": 1}),
    ("arp", Ether() / ARP(), {"other": 1}),
    ("gre", Ether() / IP(proto=47) / Raw(b"x"), {"other": 1}),
    ("first fragment", FIRST_FRAGMENT, {"udp": 1, "fragments": 1}),
    ("later fragment", LATER_FRAGMENT, {"udp": 1, "fragments": 1}),
    ("later fragment v6", LATER_FRAGMENT6, {"tcp": 1, "fragments": 1}),
    ("bad header length", Ether() / IP(ihl=4) / UDP(), {"malformed": 1}),
    ("cut short", Ether() / IP(len=2000) / UDP(), {"malformed": 1}),
    ("wrong version", Ether(type=0x86DD) / IP() / UDP(), {"malformed": 1}),
]


@pytest.mark.parametrize(("packet", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("direction", [FORWARD, REVERSE])
def test_counts_by_direction_and_protocol(packet: Packet, expected: dict[str, int], direction: int) -> None:
    monitor = start_appliance("monitor")
    data = bytes(packet)
    assert monitor.handle([Message(data, direction)]) == [Result(0, data)]
    side = "forward" if direction == FORWARD else "reverse"
    found = {name: value for name, value in monitor.counters().items() if value}
    assert found == {f"packets_{side}": 1, f"bytes_{side}": len(data), **expected}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(Message, st.binary(max_size=200), st.sampled_from([FORWARD, REVERSE])), max_size=64))
def test_every_message_counts_once_by_protocol(messages: list[Message]) -> None:
    monitor = start_appliance("monitor")
    assert monitor.handle(messages) == [Result(0, message.data) for message in messages]
    counters = monitor.counters()
    assert sum(counters[name] for name in PROTOCOLS) == len(messages)
    assert counters["packets_forward"] + counters["packets_reverse"] == len(messages)
    assert counters["bytes_forward"] == sum(len(m.data) for m in messages if m.direction == FORWARD)
