"""The elements in edgeos/click/elements/transport.py and icmp.py, compared with what scapy makes of the packets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click_harness import Click, errors, fuzz, start
from click_packets import CLIENT, SERVER, ether, icmp, ip, is_sound, tcp, udp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR

CONFIG = """
FromDevice(out) -> Discard; FromDevice(err) -> Discard;
out :: ToDevice(out); err :: ToDevice(err);
FromDevice(udp) -> MarkIPHeader -> u :: CheckUDPHeader(DETAILS true) -> out; u[1] -> err;
FromDevice(tcp) -> MarkIPHeader -> t :: CheckTCPHeader -> out; t[1] -> err;
FromDevice(icmp) -> MarkIPHeader -> i :: CheckICMPHeader -> out; i[1] -> err;
FromDevice(setudp) -> MarkIPHeader -> s :: SetUDPChecksum -> out; s[1] -> err;
FromDevice(settcp) -> MarkIPHeader -> SetTCPChecksum -> out;
FromDevice(fixtcp) -> MarkIPHeader -> SetTCPChecksum(FIXOFF true) -> out;
FromDevice(ping) -> Strip(14) -> CheckIPHeader -> p :: ICMPPingResponder -> out; p[1] -> err;
FromDevice(expired) -> Strip(14) -> CheckIPHeader -> e :: ICMPError(10.0.0.1, timeexceeded, transit,
    BADADDRS 10.0.0.66 10.0.0.77) -> out;
FromDevice(redirect) -> Strip(14) -> CheckIPHeader -> SetIPAddress(10.0.0.254)
    -> ICMPError(10.0.0.1, redirect, host) -> out;
FromDevice(toobig) -> Strip(14) -> CheckIPHeader
    -> ICMPError(10.0.0.1, unreachable, needfrag, PMTU 1280, MTU 200) -> out;
FromDevice(raw) -> Strip(14) -> MarkIPHeader -> ICMPError(10.0.0.1, 3, 1) -> out;
"""


@pytest.fixture(scope="module")
def click() -> Iterator[Click]:
    with start(CONFIG) as running:
        yield running


def one(click: Click, device: str, packet: bytes) -> bytes:
    ((to, data),) = click.push(device, packet)
    assert to == "out"
    return data


@pytest.mark.parametrize(
    ("device", "good"),
    [
        ("udp", udp()),
        ("udp", udp(data=b"")),
        ("tcp", tcp()),
        ("tcp", tcp(data=b"odd")),
        ("icmp", icmp()),
        ("icmp", icmp(3, 1)),
    ],
)
def test_good_packets_pass_and_any_changed_bit_is_noticed(click: Click, device: str, good: bytes) -> None:
    assert click.push(device, good) == [("out", good)]
    for at in range(20, len(good)):
        bad = good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]
        assert click.push(device, bad) == [("err", bad)], at
    assert click.push(device, good[:-1] if device != "udp" else good[:27]) == [
        ("err", good[:-1] if device != "udp" else good[:27])
    ]


def test_a_udp_packet_without_checksum_passes(click: Click) -> None:
    packet = ip(UDP(sport=1, dport=2, chksum=0) / b"data")
    assert click.push("udp", packet) == [("out", packet)]


def test_details_are_counted(click: Click) -> None:
    click.write("u.reset_counts")
    click.push("udp", tcp(), udp(data=b"xx")[:-1], ip(UDP(chksum=3)))
    assert click.read("u.drop_details") == "1\tdifferent protocol\n1\tbad packet length\n1\tbad checksum\n"
    assert click.read("u.drops") == "3"
    assert click.read("t.drop_details") == ""


@given(st.binary(max_size=60), st.integers(0, 65535), st.integers(0, 65535))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_set_checksums_are_those_of_scapy(click: Click, data: bytes, sport: int, dport: int) -> None:
    good = udp(sport, dport, data)
    assert one(click, "setudp", good[:26] + b"\x12\x34" + good[28:]) == good
    segment = tcp(sport, dport, data=data)
    assert one(click, "settcp", segment[:36] + b"\x12\x34" + segment[38:]) == segment


def test_a_udp_checksum_of_zero_is_sent_as_ones(click: Click) -> None:
    packet = udp(1, 2, udp(1, 2, bytes(2))[26:28])  # data that make up for all the rest
    assert packet[26:28] == b"\xff\xff"
    assert one(click, "setudp", packet) == packet


def test_what_has_no_whole_header_gets_no_checksum(click: Click) -> None:
    for bad in (udp(flags="MF"), udp(frag=2), udp()[:24], ip(UDP(len=7)), ip(UDP(len=100))):
        assert click.push("setudp", bad) == [("err", bad)]
    assert click.push("settcp", tcp()[:36], ip(TCP(dataofs=4)), ip(TCP(dataofs=7)), tcp(frag=1)) == []
    assert IP(one(click, "fixtcp", ip(TCP(dataofs=7))))[TCP].dataofs == 5
    assert IP(one(click, "fixtcp", ip(TCP(dataofs=2))))[TCP].dataofs == 5


def test_an_echo_is_answered(click: Click) -> None:
    for data in (b"", b"x", bytes(range(200))):
        answer = one(click, "ping", ether(icmp(data=data, ttl=3)))
        assert answer == icmp(0, data=data, src=SERVER, dst=CLIENT, ttl=255)
    for other in (icmp(0), icmp(8, frag=1), udp(), icmp()[:27]):
        sent = click.push("ping", ether(other))
        assert sent == [("err", other)] or (sent == [] and other == icmp()[:27])
    assert click.read("p.count") == "3"


def test_an_error_quotes_the_packet_that_it_is_about(click: Click) -> None:
    for about in (udp(), tcp(), icmp(8), udp(data=bytes(700)), udp(flags="MF")):
        data = one(click, "expired", ether(about))
        error = IP(data)
        assert (error.src, error.dst, error[ICMP].type, error[ICMP].code) == ("10.0.0.1", CLIENT, 11, 0)
        assert is_sound(data)
        assert data[28:] == about[: 576 - 28]


@pytest.mark.parametrize(
    "packet",
    [
        *(ether(icmp(error)) for error in (3, 4, 5, 11, 12)),
        ether(udp(frag=1)),
        ether(udp(), dst="ff:ff:ff:ff:ff:ff"),
        ether(udp(), dst="01:00:5e:00:00:01"),
        ether(udp(dst="224.0.0.1")),
        ether(udp(dst="255.255.255.255")),
        *(ether(udp(src=source)) for source in ("0.0.0.1", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")),
        ether(udp(src="10.0.0.66")),
        ether(udp(dst="10.0.0.77")),
        ether(ip(proto=1)),
    ],
)
def test_nothing_comes_of_packets_that_errors_must_not_be_about(click: Click, packet: bytes) -> None:
    before = click.read("e.count")
    assert click.push("expired", packet) == []
    assert click.read("e.count") == before


def test_particulars_of_errors(click: Click) -> None:
    assert IP(one(click, "redirect", ether(udp())))[ICMP].gw == "10.0.0.254"
    error = one(click, "toobig", ether(udp(data=bytes(1400))))
    assert (IP(error)[ICMP].nexthopmtu, len(error)) == (1280, 200)
    assert is_sound(error)


def test_an_error_goes_back_by_the_source_route(click: Click) -> None:
    about = udp(options=IPOption_LSRR(routers=["1.1.1.1", "2.2.2.2", "3.3.3.3"], pointer=12))
    data = one(click, "expired", ether(about))
    error = IP(data)
    assert (error.options[0].routers, error.options[0].pointer) == (["2.2.2.2", "1.1.1.1"], 4)
    assert bytes(error[ICMP].payload) == about
    assert click.push("redirect", ether(about)) == []


def test_an_error_about_no_ip_packet_is_none(click: Click) -> None:
    assert click.push("raw", ether(b""), ether(bytes(40)), ether(b"\x4f" + udp()[1:30])) == []


def test_bad_arguments() -> None:
    def one_error(element: str) -> str:
        return errors(f"FromDevice(a) -> {element} -> Discard;")[0]

    assert "unreachable (3)" in one_error("ICMPError(10.0.0.1, 8)")
    assert "codes that this type has: transit, reassembly" in one_error("ICMPError(10.0.0.1, timeexceeded, port)")
    assert "0 to 255" in one_error("ICMPError(10.0.0.1, 3, 256)")
    assert "an argument too many" in one_error("CheckUDPHeader(1)")


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> Strip(14) -> MarkIPHeader -> u :: CheckUDPHeader -> SetUDPChecksum
            -> e :: ICMPError(1.1.1.1, 3, 4)
            -> i :: CheckICMPHeader -> ToDevice(wan);
        u[1] -> t :: CheckTCPHeader -> SetTCPChecksum(true) -> ICMPError(1.1.1.1, parameterproblem) -> ToDevice(wan);
        t[1] -> p :: ICMPPingResponder -> ToDevice(lan); i[1] -> ToDevice(lan); p[1] -> ToDevice(lan);
        FromDevice(wan) -> MarkIPHeader(14) -> SetTCPChecksum -> ICMPError(1.1.1.1, 5, 1, MTU 68) -> ToDevice(lan);
    """
    routed = ether(udp(options=IPOption_LSRR(routers=["1.1.1.1", "2.2.2.2"], pointer=12)))
    fuzz(config, ["lan", "wan"], [ether(udp()), ether(tcp()), ether(icmp()), ether(icmp(13)), routed], 6000)
