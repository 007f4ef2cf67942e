"""Which FWP a packet reaches.

The guest stamps each packet with the count of messages that its FWP has seen, its number of the flow, the in port and
the direction, so that the packet itself shows who handled it.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import Rig, client_packet, guest, line, rig
from scapy.layers.inet import ICMP, IP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from edgeos import ChainSettings, testing

FILL = bytes(24)
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


@dataclass(frozen=True)
class Stamp:
    """What tests/guests/tally.c wrote."""

    count: int
    flow: int
    port: int
    direction: int


def stamp(frame: bytes) -> Stamp:
    count, flow, port, direction = struct.unpack("<IIBB", frame[-12:-2])
    return Stamp(count, flow, port, direction)


def raw(*layers: Packet) -> bytes:
    """A frame of these layers over Ethernet, addressed explicitly so that nothing is looked up."""
    frame = Ether(**MACS)
    for layer in layers:
        frame /= layer
    return bytes(frame)


def forth(rig: Rig, *frames: bytes) -> list[Stamp]:
    return [stamp(frame) for frame in rig.pass_through("lan", *frames)]


def back(rig: Rig, *frames: bytes) -> list[Stamp]:
    return [stamp(frame) for frame in rig.pass_through("wan", *frames, out="lan")]


def udp(client: int, sport: int = 1000, vlan: int | None = None) -> bytes:
    return testing.udp_packet(f"10.0.0.{client}", "192.0.2.1", FILL, sport=sport, vlan=vlan)


# ---- Isolation ----


def test_shared_isolation_has_one_fwp_for_all() -> None:
    with line(guest("tally"), isolate="shared") as rig:
        frames = [udp(client, sport) for client in (1, 2) for sport in (1, 2)]
        assert [s.count for s in forth(rig, *frames)] == [1, 2, 3, 4]
        assert rig.check().chain("edge").live == 1


def test_client_isolation_has_one_fwp_for_each_source_address() -> None:
    with line(guest("tally"), isolate="client") as rig:
        frames = [udp(client, sport) for sport in (1, 2, 3) for client in (1, 2)]
        out = rig.pass_through("lan", *frames)
        counts = {client: [stamp(f).count for f in out if f[29] == client] for client in (1, 2)}
        assert counts == {1: [1, 2, 3], 2: [1, 2, 3]}
        assert rig.check().chain("edge").live == 2


def test_flow_isolation_has_one_fwp_for_each_flow() -> None:
    with line(guest("tally"), isolate="flow") as rig:
        frames = [udp(client, sport) for _ in range(2) for sport in (1, 2, 3) for client in (1, 2)]
        assert sorted(s.count for s in forth(rig, *frames)) == [1] * 6 + [2] * 6
        assert rig.check().chain("edge").live == 6


@pytest.mark.parametrize("isolate", ["shared", "client", "flow"])
def test_replies_reach_the_fwp_of_their_flow(isolate: str) -> None:
    with line(guest("tally"), isolate=isolate) as rig:
        for sport in (1, 2):
            frame = udp(1, sport)
            (there,) = forth(rig, frame)
            (again,) = back(rig, testing.reply_to(frame))
            assert again == Stamp(there.count + 1, there.flow, 1, 1)
            assert (there.port, there.direction) == (0, 0)


def test_a_client_is_known_by_its_address_whoever_spoke_first() -> None:
    with line(guest("tally"), isolate="client") as rig:
        frame = udp(5)
        assert back(rig, testing.reply_to(frame))[0].count == 1
        assert forth(rig, frame)[0].count == 2
        assert [client.address for client in rig.node.clients("edge")] == ["10.0.0.5"]


def test_flows_are_numbered_within_the_fwp_both_directions_alike() -> None:
    with line(guest("tally")) as rig:
        frames = [udp(1, sport) for sport in (7, 8, 9)]
        assert [s.flow for s in forth(rig, *frames)] == [1, 2, 3]
        assert [s.flow for s in back(rig, *(testing.reply_to(f) for f in reversed(frames)))] == [3, 2, 1]


def test_vlan_tags_separate_clients_and_flows() -> None:
    with line(guest("tally")) as rig:
        frames = [udp(1, vlan=vlan) for vlan in (None, 10, 20)]
        frames.append(raw(Dot1AD(vlan=10), Dot1Q(vlan=20), Ether(udp(1)).payload))
        for frame in frames:
            assert forth(rig, frame)[0].count == 1
        for frame in frames[:3]:
            assert back(rig, testing.reply_to(frame))[0].count == 2
        assert sorted(c.vlan or 0 for c in rig.node.clients("edge")) == [0, 10, 10, 20]


# ---- Fragments ----


def fragments(identity: int = 7, client: str = "10.0.0.1", sport: int = 1000) -> list[bytes]:
    whole = bytes(UDP(sport=sport, dport=53, len=8 + 120, chksum=0) / Raw(bytes(120)))
    ip = {"src": client, "dst": "192.0.2.1", "id": identity, "proto": 17}
    pieces = [(0, 1, whole[:64]), (8, 1, whole[64:96]), (12, 0, whole[96:])]
    return [raw(IP(**ip, frag=at, flags=more), Raw(data)) for at, more, data in pieces]


def fragments6(extension: bool, identity: int = 9, client: str = "fd00::1") -> list[bytes]:
    whole = bytes(UDP(sport=1000, dport=53, len=8 + 120, chksum=1) / Raw(bytes(120)))
    kind = 17
    if extension:  # in the part that is cut: the next header of later fragments is then not the protocol
        whole, kind = bytes([17, 0, 1, 4, 0, 0, 0, 0]) + whole, 60
    pieces = [(0, 1, whole[:64]), (8, 1, whole[64:96]), (12, 0, whole[96:])]
    return [
        raw(
            IPv6(src=client, dst="fd00::2"),
            IPv6ExtHdrFragment(nh=kind, offset=at, m=more, id=identity),
            Raw(data),
        )
        for at, more, data in pieces
    ]


@pytest.mark.parametrize("pieces", [fragments(), fragments6(False), fragments6(True)], ids=["v4", "v6", "v6-extension"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("isolate", ["client", "flow"])
def test_fragments_follow_their_first_one_also_when_they_overtake_it(
    pieces: list[bytes], order: tuple[int, ...], isolate: str
) -> None:
    with line(guest("tally"), isolate=isolate) as rig:
        stamps = []
        for number in order:
            stamps += forth(rig, pieces[number])
        assert [s.count for s in stamps] == [1, 2, 3]
        assert len({s.flow for s in stamps}) == 1
        statistics = rig.check()
        assert statistics.chain("edge").live == 1
        assert statistics.in_flight == 0


def test_fragments_reach_the_fwp_that_already_has_the_flow() -> None:
    with line(guest("tally"), isolate="flow") as rig:
        assert forth(rig, udp(1, sport=1000))[0].count == 1
        assert [s.count for s in forth(rig, *fragments())] == [2, 3, 4]


def test_fragments_of_different_datagrams_and_clients_are_kept_apart() -> None:
    with line(guest("tally")) as rig:
        one, other = fragments(7, "10.0.0.1"), fragments(7, "10.0.0.2")
        rig.pass_through("lan", one[1], other[1])
        assert [s.count for s in forth(rig, one[0])] == [1, 2]
        assert rig.check().in_flight == 1
        assert [s.count for s in forth(rig, other[0])] == [1, 2]


def test_an_identification_that_is_used_again_belongs_to_the_newer_datagram() -> None:
    with line(guest("tally"), isolate="flow") as rig:
        assert [s.count for s in forth(rig, *fragments(7, sport=1000))] == [1, 2, 3]
        assert [s.count for s in forth(rig, *fragments(7, sport=2000))] == [1, 2, 3]
        assert rig.check().chain("edge").live == 2


def test_a_fragmented_icmp_error_leaves_nothing_with_the_client_that_it_quotes() -> None:
    with line(guest("tally")) as rig:
        flow = udp(1)
        assert forth(rig, flow)[0].count == 1
        error = IP(src="10.0.0.9", dst="192.0.2.1", id=5, flags="MF") / ICMP(type=3, code=1) / Raw(flow[14 : 14 + 28])
        rig.pass_through("lan", raw(error / Raw(bytes(4))))
        assert {c.address: c.flows for c in rig.node.clients("edge")}["10.0.0.1"] == 1


def test_a_fragment_without_its_first_one_is_held_for_a_second_and_then_dropped() -> None:
    with line(guest("tally")) as rig:
        clock = testing.FakeClock(rig.node)
        assert rig.pass_through("lan", fragments()[1]) == []
        clock.advance(0.9)
        assert rig.settle().in_flight == 1
        assert rig.check().dropped == {}
        clock.advance(0.2)
        statistics = rig.settle()
        assert statistics.in_flight == 0
        assert statistics.dropped == {"fragment_orphan": 1}
        assert [s.count for s in forth(rig, fragments()[0])] == [1]


HELD = 256  # fragments that wait, of all senders


def test_only_so_many_fragments_are_held() -> None:
    with line(guest("tally")) as rig:
        rig.pass_through("lan", *(fragments(identity)[1] for identity in range(HELD + 36)))
        statistics = rig.check()
        assert statistics.in_flight == HELD
        assert statistics.dropped == {"fragments_full": 36}
        assert forth(rig, fragments(0)[0])[0].count == 1, "the oldest gave way"
        assert [s.count for s in forth(rig, fragments(HELD + 35)[0])] == [2, 3]
        assert rig.node.stop().dropped == {"fragments_full": 36, "evicted": HELD - 1}


@pytest.mark.parametrize(
    "flood",
    [
        [fragments(identity, "10.0.0.9")[1] for identity in range(2 * HELD)],
        [fragments6(False, identity, f"fd00:9::{identity:x}")[1] for identity in range(2 * HELD)],
    ],
    ids=["one-address", "one-v6-network"],
)
def test_who_sends_fragments_without_end_displaces_its_own(flood: list[bytes]) -> None:
    with line(guest("tally")) as rig:
        others = [fragments(client, f"10.0.0.{client}") for client in range(1, 5)]
        rig.pass_through("lan", *flood, *(pieces[2] for pieces in others), *flood, *(pieces[1] for pieces in others))
        rig.pass_through("lan", *flood)
        assert rig.check().dropped["fragments_full"] == 5 * HELD + 8
        for pieces in others:
            assert [s.count for s in forth(rig, pieces[0])] == [1, 2, 3]


# ---- ICMP ----


def quoting(packet: bytes, *, source: str, target: str) -> bytes:
    return raw(IP(src=source, dst=target), ICMP(type=3, code=1), Raw(packet[14 : 14 + 28]), Raw(FILL))


@pytest.mark.parametrize("isolate", ["client", "flow"])
def test_icmp_errors_go_to_the_flow_that_they_quote(isolate: str) -> None:
    with line(guest("tally"), isolate=isolate) as rig:
        frame = udp(1)
        (sent,) = forth(rig, frame)
        (error,) = back(rig, quoting(frame, source="198.51.100.7", target="10.0.0.1"))
        assert error == Stamp(2, sent.flow, 1, 1)
        assert rig.check().chain("edge").live == 1


def test_icmp6_errors_go_to_the_flow_that_they_quote() -> None:
    with line(guest("tally"), isolate="flow") as rig:
        frame = testing.udp_packet("fd00::1", "fd00::2", FILL)
        forth(rig, frame)
        error = raw(IPv6(src="fd00::99", dst="fd00::1"), ICMPv6PacketTooBig(), Raw(frame[14:]))
        assert back(rig, error)[0].count == 2


def test_an_icmp_error_about_an_unknown_flow_does_not_take_another_clients_flow() -> None:
    """Client 1 speaks of a flow of client 2 before it exists; client 2's packets still reach an FWP of its own."""
    with line(guest("tally"), isolate="client") as rig:
        frame = udp(2)
        rig.pass_through("lan", quoting(frame, source="10.0.0.1", target="192.0.2.1"))
        assert forth(rig, frame)[0].count == 1
        counters = {c.address: c.counters["tally"]["seen"] for c in rig.node.clients("edge")}
        assert counters["10.0.0.2"] == 1


def test_an_echo_and_its_reply_reach_the_same_fwp() -> None:
    with line(guest("tally"), isolate="flow") as rig:
        for ip, request, reply in (
            (IP, ICMP(type=8, id=77), ICMP(type=0, id=77)),
            (IPv6, ICMPv6EchoRequest(id=77), ICMPv6EchoReply(id=77)),
        ):
            a, b = ("10.0.0.1", "192.0.2.1") if ip is IP else ("fd00::1", "fd00::2")
            assert forth(rig, raw(ip(src=a, dst=b), request, Raw(FILL)))[0].count == 1
            assert back(rig, raw(ip(src=b, dst=a), reply, Raw(FILL)))[0].count == 2


# ---- Headers on the way to the ports ----


def test_options_and_extension_headers_do_not_hide_the_flow() -> None:
    with line(guest("tally"), isolate="flow") as rig:
        datagram = UDP(sport=1000, dport=53) / Raw(FILL)
        plain = raw(IP(src="10.0.0.1", dst="192.0.2.1"), datagram)
        options = raw(IP(src="10.0.0.1", dst="192.0.2.1", options=[IPOption(b"\x94\x04\0\0")]), datagram)
        assert [s.count for s in forth(rig, plain, options)] == [1, 2]
        address = IPv6(src="fd00::1", dst="fd00::2")
        headers = [
            IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]),
            IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]),
        ]
        plain = raw(address, datagram)
        extended = raw(address, *headers, datagram)
        assert [s.count for s in forth(rig, plain, extended)] == [1, 2]


def test_non_ip_clients_are_ethernet_addresses() -> None:
    chains = [
        ChainSettings(name="others", path=("lan", "tally", "wan"), max_fwps=16),
        ChainSettings(name="edge", path=("lan", "ip", "wan"), max_fwps=16),
    ]
    templates = [guest("tally"), guest("ip", "tally")]
    with rig(templates, chains, [("ip", "edge"), ("non-ip", "others")]) as node:
        frames = [
            bytes(Ether(src=f"02:00:00:00:00:{n:02x}", dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1", pdst="10.0.0.2"))
            for n in (1, 2)
        ]
        assert [s.count for s in forth(node, *frames, udp(1))] == [1, 1, 1]
        assert {c.address for c in node.node.clients("others")} == {"02:00:00:00:00:01", "02:00:00:00:00:02"}
        assert [c.address for c in node.node.clients("edge")] == ["10.0.0.1"]


# ---- Symmetry, over whatever packets there are ----


def addresses(version: int) -> st.SearchStrategy[str]:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return st.integers(0, 2 ** (32 if version == 4 else 128) - 1).map(lambda number: str(kind(number)))


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A packet and its reply."""
    version = draw(st.sampled_from([4, 6]))
    source, target = draw(addresses(version)), draw(addresses(version))
    sport, dport = draw(st.integers(0, 65535)), draw(st.integers(0, 65535))
    vlan = draw(st.none() | st.integers(0, 4095))
    make = draw(st.sampled_from([testing.udp_packet, testing.tcp_packet]))
    frame = make(source, target, FILL, sport=sport, dport=dport, vlan=vlan)
    return frame, testing.reply_to(frame)


@settings(max_examples=80, deadline=None)
@given(st.lists(exchanges(), min_size=1, max_size=12), st.sampled_from(["client", "flow"]))
def test_a_packet_and_its_reply_reach_the_same_fwp(pairs: list[tuple[bytes, bytes]], isolate: str) -> None:
    with line(guest("tally"), isolate=isolate) as rig:
        for frame, reply in pairs:
            (there,), (again,) = forth(rig, frame), back(rig, reply)
            assert again.count == there.count + 1
            assert again.flow == there.flow


def test_clients_are_counted_one_by_one_and_in_sum() -> None:
    with line(guest("tally"), idle_timeout_ns=10**9) as rig:
        clock = testing.FakeClock(rig.node)
        rig.pass_through("lan", *(client_packet(n, FILL) for n in (1, 2, 2, 3, 3, 3)))
        each = {c.address: c.counters["tally"]["seen"] for c in rig.node.clients("edge")}
        assert each == {"10.0.0.1": 1, "10.0.0.2": 2, "10.0.0.3": 3}
        assert rig.node.statistics().chain("edge").stages[0].counters == {"seen": 6}
        clock.advance(2)
        assert rig.settle().chain("edge").live == 0
        assert rig.node.clients("edge") == ()
        rig.pass_through("lan", client_packet(1, FILL))
        assert rig.node.statistics().chain("edge").stages[0].counters == {"seen": 7}, "those who left still count"
        assert rig.node.stop().chain("edge").stages[0].counters == {"seen": 7}
