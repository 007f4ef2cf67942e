"""The match grammar: what it reads, what it refuses, and that its text says what it asks for."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeos.findings import BadValueError
from edgeos.match import Match, Network, parse_match


def network(text: str) -> Network:
    return ipaddress.ip_network(text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("any", {}),
        ("ip", {"ip": True}),
        ("ip4", {"ip": True, "ip_version": 4}),
        ("ipv6", {"ip": True, "ip_version": 6}),
        ("non-ip", {"ip": False}),
        ("not ip", {"ip": False}),
        ("arp", {"ip": False, "ethertype": 0x0806}),
        ("ethertype 0x88cc", {"ip": False, "ethertype": 0x88CC}),
        ("ethertype 0x86DD", {"ip": True, "ip_version": 6}),
        ("tcp", {"ip": True, "protocol": 6}),
        ("ip and udp", {"ip": True, "protocol": 17}),
        ("sctp", {"ip": True, "protocol": 132}),
        ("icmp", {"ip": True, "ip_version": 4, "protocol": 1}),
        ("icmp6", {"ip": True, "ip_version": 6, "protocol": 58}),
        ("proto 47", {"ip": True, "protocol": 47}),
        ("src 10.0.0.0/8", {"ip": True, "ip_version": 4, "src": network("10.0.0.0/8")}),
        ("dst 2001:db8::1", {"ip": True, "ip_version": 6, "dst": network("2001:db8::1/128")}),
        ("src port 53", {"ip": True, "src_ports": (53, 53)}),
        ("tcp dst port 8000-8099", {"ip": True, "protocol": 6, "dst_ports": (8000, 8099)}),
        ("port 53", {"ip": True, "any_port": (53, 53)}),
        ("vlan 7 from lan", {"vlan": 7, "port": "lan"}),
        (
            "src 10.0.0.0/8 port 53",
            {"ip": True, "ip_version": 4, "src": network("10.0.0.0/8"), "src_ports": (53, 53)},
        ),
        (
            "src 10.0.0.0/8 and port 53",
            {"ip": True, "ip_version": 4, "src": network("10.0.0.0/8"), "any_port": (53, 53)},
        ),
        (
            "udp dst 192.168.1.0/24 port 53",
            {"ip": True, "ip_version": 4, "protocol": 17, "dst": network("192.168.1.0/24"), "dst_ports": (53, 53)},
        ),
    ],
)
def test_terms(text: str, fields: dict[str, Any]) -> None:
    assert parse_match(text) == Match(text=text, **fields)


@pytest.mark.parametrize(
    ("text", "column", "advice"),
    [
        ("tpc", 1, 'did you mean "tcp"?'),
        ("ip udpp", 4, 'did you mean "udp"?'),
        ("TCP", 1, 'did you mean "tcp"?'),
        ("tcp arp", 5, ""),
        ("tcp and udp", 9, ""),
        ("ip4 src 2001:db8::/32", 5, ""),
        ("icmp port 53", 6, ""),
        ("non-ip tcp", 8, ""),
        ("src 10.0.0.1/8", 5, 'did you mean "10.0.0.0/8"?'),
        ("src 10.0.0.0/33", 5, ""),
        ("src 10.0.0.0/255.0.0.0", 5, ""),
        ("src fe80::1%eth0", 5, ""),
        ("src", 4, ""),
        ("port 65536", 6, ""),
        ("port 90-80", 6, 'did you mean "80-90"?'),
        ("port 80 - 90", 9, ""),
        ("vlan 4095", 6, ""),
        ("vlan 7 vlan 8", 8, ""),
        ("proto 256", 7, ""),
        ("ethertype 0x0100", 11, ""),
        ("ethertype 0x8100", 11, 'write "vlan N"'),
        ("not tcp", 5, ""),
        ("from l@n", 6, ""),
        ("tcp and", 8, ""),
        ("and tcp", 1, ""),
    ],
)
def test_refusals_name_column_and_nearest(text: str, column: int, advice: str) -> None:
    with pytest.raises(BadValueError) as caught:
        parse_match(text)
    message = str(caught.value)
    assert f"column {column}" in message
    assert "allowed: " in message
    assert advice in message


def test_a_contradiction_names_both_words() -> None:
    with pytest.raises(BadValueError, match='"arp" at column 5 after "tcp" at column 1'):
        parse_match("tcp arp")


@pytest.mark.parametrize("text", ["", "  ", "any " * 300])
def test_empty_and_huge(text: str) -> None:
    with pytest.raises(BadValueError):
        parse_match(text)


@st.composite
def matches(draw: st.DrawFn) -> str:
    """Texts of matches without contradictions, terms in any order."""
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from(["", "tcp", "udp", "sctp", "proto 6"]))
    prefix = st.integers(0, 2 ** (32 if version == 4 else 128) - 1).flatmap(
        lambda bits: st.integers(0, 32 if version == 4 else 128).map(
            lambda length: str(
                (ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network)((bits, length), strict=False)
            )
        )
    )
    ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda p: f"port {min(p)}-{max(p)}")
    terms = [
        draw(st.sampled_from(["any", "ip", f"ip{version}", f"ipv{version}"])),
        protocol,
        *(f"{side} {draw(prefix)} {draw(st.one_of(st.just(''), ports))}" for side in draw(st.sets(SIDES))),
        draw(st.one_of(st.just(""), ports.map(lambda text: f"and {text}"))),
        draw(st.one_of(st.just(""), st.integers(1, 4094).map(lambda n: f"vlan {n}"))),
        draw(st.one_of(st.just(""), st.sampled_from(["from lan", "from and", "from 0-1_x"]))),
    ]
    text = " ".join(draw(st.permutations([term for term in terms if term])))
    return text.removeprefix("and ").replace("and and", "and")


SIDES = st.sampled_from(["src", "dst"])
SMALL = st.sampled_from(
    [
        *("any", "ip", "ip4", "ip6", "non-ip", "arp", "icmp", "icmp6", "proto 1", "ip6 proto 1", "ip4 proto 58"),
        *("ethertype 0x0800", "ethertype 0x88cc vlan 3", "src port 9", "port 5 src 10.0.0.0/8", "from from"),
    ]
)


@given(st.one_of(matches(), SMALL))
def test_text_is_read_back(text: str) -> None:
    match = parse_match(text)
    assert parse_match(str(match)) == match
    assert str(parse_match(str(match))) == str(match)


WORDS = st.sampled_from(
    [
        *("any", "ip", "ip4", "ip6", "not", "non-ip", "arp", "tcp", "udp", "icmp", "icmp6", "src", "dst", "port"),
        *("vlan", "from", "and", "proto", "ethertype", "53", "10.0.0.0/8", "::/0", "0x88cc", "1-2", "lan"),
        *("é", "\x1b[0m", "\ud800"),
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    refusal = ""
    try:
        match = parse_match(text)
    except BadValueError as problem:
        refusal = str(problem)
    else:
        assert parse_match(str(match)) == match
    assert refusal.isprintable()


@pytest.mark.parametrize(
    ("outer", "inner", "covered"),
    [
        ("any", "tcp port 53", True),
        ("ip", "tcp", True),
        ("tcp", "ip", False),
        ("ip", "non-ip", False),
        ("ip4", "src 10.0.0.0/8", True),
        ("src 10.0.0.0/8", "src 10.1.0.0/16", True),
        ("src 10.1.0.0/16", "src 10.0.0.0/8", False),
        ("src ::/0", "src 10.0.0.0/8", False),
        ("port 50-60", "udp dst port 53", True),
        ("dst port 53", "port 53", False),
        ("from lan", "tcp from lan", True),
        ("from lan", "tcp", False),
        ("vlan 3", "vlan 4", False),
    ],
)
def test_covers(outer: str, inner: str, covered: bool) -> None:
    assert parse_match(outer).covers(parse_match(inner)) is covered
