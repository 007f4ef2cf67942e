"""The elements in edgeos/click/elements/classification.py. Patterns themselves have tests of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click_harness import Click, errors, fuzz, start
from click_packets import arp, ether, icmp, tcp, udp

CONFIG = """
FromDevice(out) -> Discard; FromDevice(err) -> Discard;
out :: ToDevice(out); err :: ToDevice(err);
FromDevice(bytes) -> c :: Classifier(12/0806 20/0001, 12/0800); c[0] -> err; c[1] -> out;
FromDevice(ip) -> CheckIPHeader(14) -> i :: IPClassifier(icmp type echo, tcp dst port 80, -); i[0] -> err; i[1] -> out;
i[2] -> Discard;
FromDevice(filter) -> CheckIPHeader(14) -> f :: IPFilter(allow src 10.0.0.2 and udp, 1 tcp syn, drop all);
f[0] -> out; f[1] -> err;
FromDevice(eth) -> MarkIPHeader(14) -> IPFilter(allow ether src host 02:00:00:00:00:01) -> out;
FromDevice(unmarked) -> IPFilter(allow ip vers 4) -> out;
FromDevice(hash) -> h :: HashSwitch(0, 4); h[0] -> out; h[1] -> err;
FromDevice(turns) -> r :: RoundRobinSwitch; r[0] -> out; r[1] -> err; r[2] -> Discard;
FromDevice(chance) -> x :: RandomSwitch; x[0] -> out; x[1] -> err;
"""


@pytest.fixture(scope="module")
def click() -> Iterator[Click]:
    with start(CONFIG) as running:
        yield running


def went(click: Click, device: str, *frames: bytes) -> list[str]:
    return [to for to, _ in click.push(device, *frames)]


def test_classifier_chooses_by_bytes(click: Click) -> None:
    assert went(click, "bytes", arp(1, "10.0.0.1"), ether(udp()), arp(2, "10.0.0.1"), b"") == ["err", "out"]


def test_ip_classifier_chooses_by_headers(click: Click) -> None:
    assert went(click, "ip", ether(icmp()), ether(tcp()), ether(udp()), b"no IP") == ["err", "out"]


def test_ip_filter_does_what_the_first_rule_says(click: Click) -> None:
    frames = [ether(udp()), ether(udp(src="10.0.0.3")), ether(tcp()), ether(tcp(flags="A"))]
    assert went(click, "filter", *frames) == ["out", "err"]


def test_ip_filter_sees_the_ethernet_header_in_front(click: Click) -> None:
    assert went(click, "eth", ether(udp()), ether(udp(), src="02:00:00:00:00:09")) == ["out"]


def test_ip_patterns_do_not_match_without_a_header(click: Click) -> None:
    assert went(click, "unmarked", ether(udp())) == []


def test_hash_switch_is_constant_and_spreads(click: Click) -> None:
    frames = [bytes([n, n * 7 % 256, 3, 4, 5]) for n in range(64)]
    first = [went(click, "hash", frame) for frame in frames]
    assert first == [went(click, "hash", frame + b"more") for frame in frames]
    assert 16 < sum(to == ["out"] for to in first) < 48
    assert went(click, "hash", b"abc") == ["out"]


def test_round_robin_switch(click: Click) -> None:
    assert went(click, "turns", *[b"x"] * 7) == ["out", "err", "out", "err", "out"]


def test_random_switch(click: Click) -> None:
    ways = went(click, "chance", *[b"x"] * 200)
    assert len(ways) == 200
    assert 50 < ways.count("out") < 150


def test_a_large_filter_drops_and_passes_as_its_rules_say() -> None:
    rules = ", ".join(f"{'allow' if n % 2 else 'deny'} udp dst port {1000 + n}" for n in range(300))
    with start(f"FromDevice(a) -> CheckIPHeader -> IPFilter({rules}) -> ToDevice(b);") as click:
        frames = [udp(dport=1000 + n) for n in range(-2, 302, 3)]
        assert [data for _, data in click.push("a", *frames)] == [
            udp(dport=1000 + n) for n in range(-2, 302, 3) if n % 2 and 0 <= n < 300
        ]


def test_bad_arguments() -> None:
    assert "found 2 patterns for 1 connected" in errors("FromDevice(a) -> Classifier(-, 0/00) -> Discard;")[0]
    assert "found no pattern" in errors("FromDevice(a) -> Classifier();")[0]
    assert "found no rule" in errors("FromDevice(a) -> IPFilter() -> Discard;")[0]
    assert "has 5 hex digits" in errors("FromDevice(a) -> Classifier(12/08060) -> Discard;")[0]
    assert "allowed: allow, deny" in errors("FromDevice(a) -> IPFilter(pass all) -> Discard;")[0]
    assert "found output 1; connected: 1" in errors("FromDevice(a) -> IPFilter(1 all) -> Discard;")[0]
    where = errors("FromDevice(a)\n  -> IPFilter(allow tcp,\n     deny src port banana) -> Discard;")[0]
    assert where.startswith("test.click:3:6:")
    assert "output 0 of" in errors("FromDevice(a) -> HashSwitch(0, 4);")[0]
    assert "LENGTH" in errors("FromDevice(a) -> HashSwitch(0) -> Discard;")[0]


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> MarkIPHeader(14)
            -> f :: IPFilter(allow tcp opt syn and ether src host 2:0:0:0:0:1, 1 icmp type echo
            or ip[30:2] = 7, 1 src port 1-9 or dst net 10/8, 0 tcp win > 9, 1 all);
        f[0] -> h :: HashSwitch(3, 40); h[0] -> ToDevice(wan); h[1] -> Discard;
        f[1] -> c :: Classifier(0/0000 33/0102030405, 12/0800 !34/ff, -) -> ToDevice(wan); c[1]
            -> ToDevice(lan); c[2] -> Discard;
    """
    fuzz(config, ["lan"], [ether(tcp()), ether(udp()), ether(icmp()), ether(tcp(options=[]))])
