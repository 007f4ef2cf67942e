"""The firewall appliance against a slow reference, its faults, its tables and hostile bytes."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from firewall_reference import (
    ACK,
    FIN,
    GRE,
    ICMP,
    ICMP6,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    WITH_PORTS,
    Address,
    Description,
    Network,
    Ports,
    Reference,
    Rule,
    frame,
)
from guest_harness import DROP, FORWARD, REVERSE, SECOND_NS, Guest, GuestRefusedError, Message, Result, start_appliance
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers import inet
from scapy.layers.inet import IP, IPOption_LSRR
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

CLIENT, SERVER, ROUTER = (IPv4Address(text) for text in ("10.0.0.5", "192.0.2.7", "198.51.100.1"))
CLIENT6, SERVER6 = IPv6Address("2001:db8::5"), IPv6Address("2001:db8:ffff::7")
ADDRESSES: tuple[tuple[Address, ...], ...] = ((CLIENT, SERVER, ROUTER), (CLIENT6, SERVER6))
PORTS = (22, 53, 80)
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp6", SCTP: "sctp"}
OUTCOMES = ("allowed", "established", "denied", "malformed")


def outcome(guest: Guest, d: Description, direction: int = FORWARD, seconds: float = 0) -> str:
    """Sends one packet and names the counter that it added to; checks the verdict and that nothing was changed."""
    before, data = guest.counters(), frame(d)
    result = guest.handle([Message(data, direction, SECOND_NS + int(seconds * SECOND_NS))])
    after = guest.counters()
    (name,) = [name for name in OUTCOMES if after[name] != before[name]]
    assert after[name] == before[name] + 1
    assert result == [Result(0 if name in ("allowed", "established") else DROP, data)]
    return name


def reply(d: Description) -> Description:
    return replace(d, src=d.dst, dst=d.src, a=d.b, b=d.a)


def answer(d: Description) -> Description:
    """The reply; of a ping its answer, and of an answer the ping."""
    return reply(d) if not d.is_icmp else replace(reply(d), a=d.a ^ (8 if d.version == 4 else 1), b=d.b)


# ---- Rules and packets at random, against the reference ----


def spell(draw: st.DrawFn, address: Address) -> str:
    """Any of the texts that RFC 4291 allows for an address."""
    if address.version == 4:
        return str(address)
    groups = [int(group, 16) for group in address.exploded.split(":")]
    embedded = f"{IPv4Address(int(address) & 0xFFFFFFFF)}"
    short = ":".join(f"{group:x}" for group in groups)
    mixed = ":".join(f"{group:04X}" for group in groups[:6]) + f":{embedded}"
    return draw(st.sampled_from([str(address), address.exploded, str(address).upper(), short, mixed]))


@st.composite
def networks(draw: st.DrawFn, versions: tuple[int, ...]) -> tuple[Network, str]:
    address = draw(st.sampled_from([a for pool in ADDRESSES for a in pool if a.version in versions]))
    width = address.max_prefixlen
    length = draw(st.one_of(st.just(width), st.integers(0, width)))
    text = spell(draw, address) + (f"/{length}" if length < width or draw(st.booleans()) else "")
    return ip_network(f"{address}/{length}", strict=False), text


@st.composite
def port_ranges(draw: st.DrawFn) -> tuple[Ports, str]:
    first, last = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
    return (first, last), f" port {first}" + (f"-{last}" if first != last else "")


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    allow = draw(st.booleans())
    action = "allow" if allow else "deny"
    family = draw(st.sampled_from(["", "any", "all", "ip", "ip4", "ip6", "arp", "non-ip"]))
    if family in ("arp", "non-ip"):
        return Rule(allow, f"{action} {family}", family)
    versions = {"ip4": (4,), "ip6": (6,)}.get(family, (4, 6))
    words = family
    protocols: list[int | None] = [None, TCP, UDP, SCTP, GRE]
    protocols += [proto for version, proto in ((4, ICMP), (6, ICMP6)) if version in versions]
    proto = draw(st.sampled_from(protocols))
    icmp_word = False
    if proto is not None:
        by_number = proto not in NAMES or draw(st.booleans())
        words += f" proto {proto}" if by_number else f" {NAMES[proto]}"
        icmp_word = not by_number and proto in (ICMP, ICMP6)
        if icmp_word:
            versions = (4,) if proto == ICMP else (6,)
    either = draw(st.none() | port_ranges()) if proto is None or proto in WITH_PORTS else None
    words += either[1] if either else ""
    sides: list[tuple[Network | None, Ports | None]] = []
    for side in ("src", "dst"):
        network = draw(st.none() | networks(versions))
        ports = draw(st.none() | port_ranges()) if proto is None or proto in WITH_PORTS else None
        if network:
            versions = (network[0].version,)
        if network or ports:
            words += f" {side} " + (network[1] if network else "any") + (ports[1] if ports else "")
        sides.append((network[0] if network else None, ports[0] if ports else None))
    text = f"{action} {words}" if words.strip() else f"{action} all"
    (src, src_ports), (dst, dst_ports) = sides
    limits = either[0] if either else None
    return Rule(allow, text, family, proto, icmp_word, src, dst, src_ports, dst_ports, limits)


@st.composite
def descriptions(draw: st.DrawFn, may_quote: bool = True, version: int | None = None) -> Description:
    pool = draw(st.sampled_from(ADDRESSES)) if version is None else ADDRESSES[0 if version == 4 else 1]
    src, dst = draw(st.permutations(pool))[:2]
    icmp = ICMP if src.version == 4 else ICMP6
    proto = draw(st.sampled_from([TCP, UDP, SCTP, GRE, icmp]))
    a, b, hop_limit, quoted = draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS)), 64, None
    fragment = draw(st.sampled_from(["", "", "", "first", "later"]))
    if proto == icmp:
        questions = [0, 8, 13, 14, 5, 3, 11] if icmp == ICMP else [128, 129, 1, 2, 130, 133, 135, 136]
        a, hop_limit = draw(st.sampled_from(questions)), draw(st.sampled_from([64, 255]))
        errors = (3, 11) if icmp == ICMP else (1, 2)
        quoted = draw(descriptions(False, src.version)) if may_quote and a in errors and not fragment else None
    return Description(
        src,
        dst,
        proto,
        a,
        b,
        flags=draw(st.sampled_from([SYN, SYN | ACK, ACK, FIN | ACK, RST])),
        fragment=fragment,
        fragment_id=draw(st.integers(1, 2)),
        vlans=() if not may_quote else draw(st.sampled_from([(), (), (), (5,), (5, 6), (0,)])),
        extras=draw(st.booleans()),
        hidden=src.version == 6 and draw(st.booleans()),
        hop_limit=hop_limit,
        quoted=quoted,
        link=draw(st.sampled_from([""] * 10 + ["arp", "other"])) if may_quote else "",
    )


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[Description, int, int]]:
    """Packets with direction and time: new ones, repeated ones, replies to earlier ones and errors about them."""
    packets: list[tuple[Description, int, int]] = []
    now = SECOND_NS
    firsts = 0
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0, 1, 9, 40, 400, 8000])) * SECOND_NS
        how = draw(st.sampled_from(["new", "again", "reply", "error"])) if packets else "new"
        d, direction = draw(descriptions()), draw(st.sampled_from([FORWARD, FORWARD, REVERSE]))
        if how != "new":
            earlier, direction, _ = draw(st.sampled_from(packets))
            d = replace(earlier, flags=d.flags, fragment=d.fragment) if not earlier.quoted else earlier
        if how == "reply" and not d.quoted:
            d, direction = answer(d), 1 - direction
        if how == "error" and not d.quoted and not d.link:
            proto, kind = (ICMP, 3) if d.version == 4 else (ICMP6, 1)
            src = draw(st.sampled_from(ADDRESSES[0 if d.version == 4 else 1]))
            d = Description(src, d.src, proto, kind, vlans=d.vlans, quoted=replace(d, vlans=(), fragment=""))
            direction = 1 - direction
        firsts += d.fragment == "first"
        if d.fragment == "first" and firsts > 4:  # more could share a set of the guest's small fragment table
            continue
        packets.append((d, direction, now))
    return packets


@settings(max_examples=250, deadline=None)
@given(st.lists(rules(), max_size=8), conversations())
def test_agrees_with_the_reference(rule_list: list[Rule], packets: list[tuple[Description, int, int]]) -> None:
    firewall = start_appliance("firewall", "\n".join(rule.text for rule in rule_list))
    reference = Reference(rule_list)
    for d, direction, now_ns in packets:
        assert outcome(firewall, d, direction, now_ns / SECOND_NS - 1) == reference.judge(d, direction, now_ns), d


# ---- Single behaviours ----

QUERY = Description(CLIENT, SERVER, UDP, 4000, 53)
HELLO = Description(CLIENT, SERVER, TCP, 4000, 80, SYN)


def test_replies_come_back_and_nothing_else() -> None:
    firewall = start_appliance("firewall", "allow udp dst 192.0.2.0/24 port 53\ndeny all\n")
    assert outcome(firewall, reply(QUERY), REVERSE) == "denied"
    assert outcome(firewall, QUERY) == "allowed"
    assert outcome(firewall, reply(QUERY), REVERSE) == "established"
    assert outcome(firewall, QUERY) == "established"
    assert outcome(firewall, replace(reply(QUERY), a=54), REVERSE) == "denied"
    assert outcome(firewall, replace(reply(QUERY), vlans=(9,)), REVERSE) == "denied"
    assert outcome(firewall, replace(QUERY, dst=ROUTER)) == "denied"


def test_no_rules_deny_everything_but_what_links_need() -> None:
    firewall = start_appliance("firewall", "")
    solicit = Description(CLIENT6, SERVER6, ICMP6, 135, hop_limit=255)
    assert outcome(firewall, QUERY) == "denied"
    assert outcome(firewall, replace(QUERY, link="arp"), REVERSE) == "allowed"
    assert outcome(firewall, replace(QUERY, link="other")) == "denied"
    assert outcome(firewall, solicit, REVERSE) == "allowed"
    assert outcome(firewall, replace(solicit, hop_limit=254)) == "denied"


@pytest.mark.parametrize("rule", ["deny arp", "deny non-ip", "deny icmp6", "deny proto 58"])
def test_rules_that_name_link_traffic_decide_on_it(rule: str) -> None:
    firewall = start_appliance("firewall", f"{rule}\nallow all")
    solicit = Description(CLIENT6, SERVER6, ICMP6, 135, hop_limit=255)
    names_arp = "arp" in rule or "non-ip" in rule
    assert outcome(firewall, replace(QUERY, link="arp")) == ("denied" if names_arp else "allowed")
    assert outcome(firewall, solicit) == ("allowed" if names_arp else "denied")


def test_closed_connections_are_forgotten_after_ten_seconds() -> None:
    firewall = start_appliance("firewall", "allow tcp dst any port 80")
    assert outcome(firewall, HELLO) == "allowed"
    assert outcome(firewall, replace(reply(HELLO), flags=SYN | ACK), REVERSE, 7000) == "established"
    assert outcome(firewall, replace(HELLO, flags=FIN | ACK), FORWARD, 7001) == "established"
    assert outcome(firewall, replace(reply(HELLO), flags=FIN | ACK), REVERSE, 7100) == "established"
    assert outcome(firewall, replace(reply(HELLO), flags=ACK), REVERSE, 7109) == "established"
    assert outcome(firewall, replace(reply(HELLO), flags=ACK), REVERSE, 7111) == "denied"


def test_reset_closes_and_a_new_hello_opens_again() -> None:
    firewall = start_appliance("firewall", "allow tcp dst any port 80")
    outcome(firewall, HELLO)
    assert outcome(firewall, replace(reply(HELLO), flags=RST), REVERSE, 1) == "established"
    assert outcome(firewall, HELLO, FORWARD, 2) == "established"
    assert outcome(firewall, replace(reply(HELLO), flags=ACK), REVERSE, 100) == "established"


def test_idle_flows_expire_by_message_time() -> None:
    firewall = start_appliance("firewall", "allow udp")
    outcome(firewall, QUERY)
    firewall_denies = start_appliance("firewall", "allow udp dst any port 53")
    outcome(firewall_denies, QUERY)
    assert outcome(firewall_denies, reply(QUERY), REVERSE, 300) == "established"
    assert outcome(firewall_denies, reply(QUERY), REVERSE, 601) == "denied"
    assert outcome(firewall, reply(QUERY), REVERSE, 601) == "allowed"


def test_errors_about_a_flow_come_back_from_any_router() -> None:
    firewall = start_appliance("firewall", "allow udp dst any port 53")
    error = Description(ROUTER, CLIENT, ICMP, 11, quoted=QUERY)
    assert outcome(firewall, error, REVERSE) == "denied"
    outcome(firewall, QUERY)
    assert outcome(firewall, error, REVERSE) == "established"
    assert outcome(firewall, replace(error, dst=ROUTER), REVERSE) == "denied"
    assert outcome(firewall, replace(error, a=5), REVERSE) == "denied"
    assert outcome(firewall, replace(error, quoted=reply(QUERY)), REVERSE) == "denied"


def test_pings_are_answered_but_not_returned() -> None:
    firewall = start_appliance("firewall", "allow icmp src 10.0.0.0/8")
    ping = Description(CLIENT, SERVER, ICMP, 8, 77)
    assert outcome(firewall, ping) == "allowed"
    assert outcome(firewall, replace(ping, src=SERVER, dst=CLIENT, a=0), REVERSE) == "established"
    assert outcome(firewall, replace(ping, src=SERVER, dst=CLIENT, a=8), REVERSE) == "denied"
    assert outcome(firewall, replace(ping, src=SERVER, dst=CLIENT, a=0, b=78), REVERSE) == "denied"


def test_later_fragments_fare_as_their_first() -> None:
    firewall = start_appliance("firewall", "deny tcp port 22\nallow tcp")
    good, bad = (Description(CLIENT, SERVER, TCP, 4000, port, fragment="first", fragment_id=port) for port in (80, 22))
    for first, expected in ((good, "allowed"), (bad, "denied")):
        assert outcome(firewall, replace(first, fragment="later")) == "denied"
        assert outcome(firewall, first) == expected
        assert outcome(firewall, replace(first, fragment="later")) == expected
        assert outcome(firewall, replace(first, fragment="later"), FORWARD, 31) == "denied"


def test_fragment_over_the_judged_header_is_refused() -> None:
    firewall = start_appliance("firewall", "allow tcp port 80")
    first = Ether() / IP(id=5, flags="MF") / inet.TCP(dport=80) / Raw(bytes(4))
    over = Ether() / IP(id=5, frag=1, proto=6) / Raw(bytes(8))
    behind = Ether() / IP(id=5, frag=3, proto=6) / Raw(bytes(8))
    results = firewall.handle([Message(bytes(packet)) for packet in (first, over, behind)])
    assert [result.verdict for result in results] == [0, DROP, 0]
    assert firewall.counters()["malformed"] == 1


def test_a_full_table_keeps_the_newest_flows() -> None:
    firewall = start_appliance("firewall", "allow udp dst any port 53")
    query, response = frame(QUERY), frame(reply(QUERY))
    source, destination = slice(34, 36), slice(36, 38)  # the UDP ports behind 14 bytes of Ethernet and 20 of IPv4

    def with_port(data: bytes, place: slice, port: int) -> bytes:
        return data[: place.start] + port.to_bytes(2, "big") + data[place.stop :]

    ports = range(1024, 4024)
    firewall.handle([Message(with_port(query, source, port), FORWARD, SECOND_NS + port) for port in ports])
    replies = [Message(with_port(response, destination, port), REVERSE, 2 * SECOND_NS) for port in ports]
    back = [result.verdict == 0 for result in firewall.handle(replies)]
    assert 1000 <= sum(back) <= 1024
    assert all(back[-100:])
    assert sum(back[:500]) < 25  # of the oldest, only what lies in sets that few others hit


# ---- Contradictory packets ----

HOSTILE: list[tuple[str, Packet]] = [
    ("cut in the Ethernet header", Raw(bytes(13))),
    ("cut in the VLAN tag", Raw(bytes(12) + b"\x81\x00\x00")),
    ("header of 16 bytes", Ether() / IP(ihl=4) / inet.UDP()),
    ("header beyond the packet", Ether() / IP(ihl=15, len=28) / inet.UDP()),
    ("total length beyond the frame", Ether() / IP(len=29) / inet.UDP()),
    ("total length below the header", Ether() / IP(len=19) / inet.UDP()),
    ("version 6 in 4", Ether() / IP(version=6) / inet.UDP()),
    ("version 4 in 6", Ether() / IPv6(version=4) / inet.UDP()),
    ("payload beyond the frame", Ether() / IPv6(plen=100) / inet.UDP()),
    ("tcp of 12 bytes", Ether() / IP(proto=6) / Raw(bytes(12))),
    ("tcp header of 16 bytes", Ether() / IP() / inet.TCP(dataofs=4)),
    ("tcp header beyond the packet", Ether() / IP() / inet.TCP(dataofs=15)),
    ("udp length 7", Ether() / IP() / inet.UDP(len=7)),
    ("udp length beyond the packet", Ether() / IP() / inet.UDP(len=9)),
    ("source route", Ether() / IP(options=[IPOption_LSRR(routers=["10.9.9.9"])]) / inet.UDP()),
    ("option of length 1", Ether() / IP(options=b"\x07\x01\x00\x00") / inet.UDP()),
    ("option beyond the header", Ether() / IP(options=b"\x07\x08\x00\x00") / inet.UDP()),
    ("routing header", Ether() / IPv6() / IPv6ExtHdrRouting(addresses=["::1"]) / inet.UDP()),
    ("hop-by-hop in second place", Ether() / IPv6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / inet.UDP()),
    ("nine extension headers", Ether() / IPv6(nh=60) / Raw((b"\x3c" + bytes(7)) * 9)),
    ("extension beyond the packet", Ether() / IPv6(nh=60) / Raw(b"\x11\x09" + bytes(6))),
    ("two fragment headers", Ether() / IPv6() / IPv6ExtHdrFragment() / IPv6ExtHdrFragment() / inet.UDP()),
    ("tiny first fragment", Ether() / IP(flags="MF", proto=6) / Raw(bytes(16))),
    ("first fragment of 9 bytes", Ether() / IP(flags="MF", proto=47) / Raw(bytes(9))),
    ("empty later fragment", Ether() / IP(frag=1, proto=17)),
    ("fragment beyond 65535", Ether() / IP(frag=8190, proto=17) / Raw(bytes(100))),
]


@pytest.mark.parametrize("packet", [case[1] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_contradictory_packets_are_dropped_and_counted(packet: Packet) -> None:
    firewall = start_appliance("firewall", "allow all\nallow non-ip")
    assert firewall.handle([Message(bytes(packet))])[0].verdict == DROP
    assert firewall.counters() == {"allowed": 0, "established": 0, "denied": 0, "malformed": 1}


VALID: list[tuple[str, Packet]] = [
    ("eight extension headers", Ether() / IPv6(nh=60) / Raw((b"\x3c" + bytes(7)) * 7 + b"\x3b" + bytes(7))),
    ("padding behind the packet", Ether() / IP() / inet.UDP() / Raw(b"") / Raw(bytes(18))),
    ("atomic fragment", Ether() / IPv6() / IPv6ExtHdrFragment() / inet.UDP()),
    ("three VLAN tags", Ether() / Dot1Q() / Dot1Q() / Dot1Q() / IP() / inet.UDP()),
]


@pytest.mark.parametrize("packet", [case[1] for case in VALID], ids=[case[0] for case in VALID])
def test_unusual_packets_pass(packet: Packet) -> None:
    firewall = start_appliance("firewall", "allow all")
    assert firewall.handle([Message(bytes(packet))])[0].verdict == 0


# ---- Configuration ----

FAULTS = [
    ("alow tcp", "line 1: unknown word 'alow'; did you mean 'allow'? Allowed here: allow, deny"),
    ("\n# x\nallow tpc", "line 3: unknown word 'tpc'; did you mean 'tcp'? Allowed here: any, all, ip, ip4, ip6,"),
    ("Allow all", "line 1: unknown word 'Allow'; did you mean 'allow'?"),
    ("allow spaceship", "line 1: unknown word 'spaceship'; allowed here: any, all, ip,"),
    ("allow", "line 1: 'allow' says nothing to match"),
    ("allow src", "line 1: address '' is neither"),
    ("allow src 1.2.3", "line 1: address '1.2.3' is neither"),
    ("allow src 1.2.3.4/33", "line 1: address '1.2.3.4/33' is neither"),
    ("allow tcp port 70000", "line 1: port '70000' is not N or N-M"),
    ("allow tcp port 80-22", "line 1: port '80-22' runs backwards"),
    ("allow tcp port", "line 1: port '' is not N or N-M"),
    ("allow icmp port 5", "line 1: 'allow' with a port needs tcp, udp or sctp"),
    ("allow proto 256", "line 1: proto '256' is not a number from 0 to 255"),
    ("allow tcp udp", "line 1: 'udp' names a second protocol"),
    ("allow src 1.2.3.4 src 1.2.3.5", "line 1: 'src' is there twice"),
    ("allow src any src 1.2.3.5", "line 1: 'src' is there twice"),
    ("allow src 1.2.3.4 dst ::1", "line 1: '::1' contradicts the words before it"),
    ("allow arp port 5", "line 1: 'port' contradicts the words before it"),
    ("allow ip6 icmp", "line 1: 'icmp' contradicts the words before it"),
    ("allow \x01\xff", "line 1: unknown word '???'"),
    ("allow all\n" * 4097, "line 4097: rule 'allow' is one too many: at most 4096 are allowed"),
    ("deny all #" + "x" * 510, "line 1: the line that begins with 'deny all #xxxxxx' is longer than 512 bytes"),
]


@pytest.mark.parametrize(("config", "reason"), FAULTS, ids=[str(number) for number in range(len(FAULTS))])
def test_faults_name_line_word_and_what_is_allowed(config: str, reason: str) -> None:
    with pytest.raises(GuestRefusedError) as refused:
        start_appliance("firewall", config)
    assert str(refused.value).startswith(reason)


ACCEPTED = ["allow all\n" * 4096, "deny all #" + "x" * 502]
ACCEPTED += ["\tallow\ttcp  port 0-65535 # web\r\n\r\n#\n", "deny src port 5"]


@pytest.mark.parametrize("config", ACCEPTED, ids=["4096 rules", "512 bytes", "blanks", "port of a side"])
def test_limits_comments_and_blanks_are_accepted(config: str) -> None:
    start_appliance("firewall", config)


@st.composite
def address_texts(draw: st.DrawFn) -> str:
    """Good addresses and prefixes in many forms, and what looks like them."""
    if draw(st.booleans()):
        return draw(st.text(alphabet="0123456789abcdefF.:/", min_size=1, max_size=24))
    address = draw(st.ip_addresses())
    zeros = draw(st.sampled_from([address.max_prefixlen, 112, 64, 48, 0]))
    if address.version == 6:
        address = IPv6Address(int(address) >> zeros << draw(st.sampled_from([0, 16, zeros])) & (1 << 128) - 1)
    return spell(draw, address) + draw(st.sampled_from(["", "", "/0", "/7", "/32", "/33", "/128", "/129", ":", "::"]))


def network_of(text: str) -> Network:
    """What the ipaddress module makes of it; ValueError when nothing."""
    address, slash, length = text.partition("/")
    if slash and not 1 <= len(length) <= 3:
        raise ValueError(length)
    return ip_network(f"{ip_address(address)}/{int(length)}" if slash else address, strict=False)


@settings(max_examples=400, deadline=None)
@given(address_texts())
def test_addresses_are_those_of_the_ipaddress_module(text: str) -> None:
    config = f"allow src {text} dst any"
    try:
        network = network_of(text)
    except ValueError:
        with pytest.raises(GuestRefusedError, match="line 1: "):
            start_appliance("firewall", config)
        return
    firewall = start_appliance("firewall", config)
    first, last = int(network.network_address), int(network.broadcast_address)
    kind, end = type(network.network_address), 2**network.max_prefixlen
    far = kind(0xC0000207)
    cases = ((first, "allowed"), (last, "allowed"), (first - 1, "denied"), (last + 1, "denied"))
    for port, (number, expected) in enumerate(cases):  # a port of its own makes each a new flow
        if 0 <= number < end:
            assert outcome(firewall, Description(kind(number), far, UDP, a=port)) == expected


WORDS = ["allow", "deny", "any", "tcp", "icmp6", "proto", "6", "src", "dst", "port", "80-90", "::/0", "10.0.0.0/8"]
WORDS += ["arp", "#", "x", "\n"]


def refusal(config: str) -> str:
    """Why the configuration is refused; empty when it is not."""
    try:
        start_appliance("firewall", config)
    except GuestRefusedError as refused:
        return str(refused)
    return ""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join) | st.text(max_size=60))
def test_any_text_starts_or_is_refused_with_a_reason(config: str) -> None:
    assert re.fullmatch(r"(line \d+: .{10,})?", refusal(config))


# ---- Hostile bytes ----

CONFIG = "allow tcp port 80\ndeny udp dst 10.0.0.0/8\nallow ip6 src 2001:db8::/32\nallow icmp\nallow udp"
DIRECTIONS = st.sampled_from([FORWARD, REVERSE])
FRAMES = st.one_of(descriptions().map(frame), st.sampled_from([bytes(packet) for _, packet in HOSTILE]))


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(FRAMES))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(mangled() | st.binary(max_size=120), DIRECTIONS), max_size=64), st.integers())
def test_no_bytes_trap_and_none_behind_the_message_matter(frames: list[tuple[bytes, int]], seed: int) -> None:
    messages = [Message(data, direction, SECOND_NS + index) for index, (data, direction) in enumerate(frames)]
    verdicts = []
    for noise in (bytes(2048), random.Random(seed).randbytes(2048)):
        firewall = start_appliance("firewall", CONFIG)
        firewall.place([Message(noise)] * firewall.slots)
        results = firewall.handle(messages)
        assert [result.data for result in results] == [message.data for message in messages]
        assert sum(firewall.counters().values()) == len(messages)
        verdicts.append([result.verdict for result in results])
    assert verdicts[0] == verdicts[1]
    assert set(verdicts[0]) <= {0, DROP}
