"""The elements in edgeos/click/elements/ip.py, compared with what scapy makes of the packets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click_harness import Click, errors, fuzz, start
from click_packets import CLIENT, SERVER, ether, icmp, ip, is_sound, tcp, udp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_RR

CONFIG = """
FromDevice(out) -> Discard; FromDevice(err) -> Discard;
out :: ToDevice(out); err :: ToDevice(err);
FromDevice(check) -> c :: CheckIPHeader(INTERFACES 10.0.0.1/24 192.0.2.1/24, DETAILS true) -> out; c[1] -> err;
FromDevice(old) -> CheckIPHeader(10.0.0.2 10.0.0.3) -> out;
FromDevice(nosum) -> CheckIPHeader2(14, BADSRC 10.0.0.9, GOODDST 192.0.2.9) -> Strip(14) -> out;
FromDevice(ttl) -> MarkIPHeader -> d :: DecIPTTL -> out; d[1] -> err;
FromDevice(groups) -> MarkIPHeader -> DecIPTTL(MULTICAST false) -> out;
FromDevice(dscp) -> SetIPDSCP(46) -> out;
FromDevice(mirror) -> MarkIPHeader -> IPMirror -> out;
FromDevice(sum) -> SetIPChecksum -> out;
FromDevice(encap) -> i :: IPEncap(ipip, 10.9.9.1, 10.9.9.2, TTL 9, DSCP 10, DF true) -> out;
FromDevice(udp) -> u :: UDPIPEncap(10.9.9.1, 1234, 10.9.9.2, 5678) -> out;
FromDevice(anno) -> GetIPAddress(16) -> UDPIPEncap(10.9.9.1, 1234, DST_ANNO, 5678, false) -> out;
FromDevice(src) -> MarkIPHeader -> GetIPAddress(IP src) -> IPEncap(4, 10.9.9.1, DST_ANNO) -> out;
FromDevice(addr) -> a :: SetIPAddress(10.8.8.8) -> IPEncap(4, 10.9.9.1, DST_ANNO) -> out;
FromDevice(long) -> l :: CheckLength(100) -> out; l[1] -> err;
"""


@pytest.fixture(scope="module")
def click() -> Iterator[Click]:
    with start(CONFIG) as running:
        yield running


def one(click: Click, device: str, datagram: bytes) -> bytes:
    ((to, data),) = click.push(device, datagram)
    assert to == "out"
    return data


def test_check_ip_header_passes_good_packets_and_cuts_padding(click: Click) -> None:
    for good in (udp(), tcp(), icmp(), ip(), udp(options=IPOption_RR(routers=["1.2.3.4"]))):
        assert click.push("check", good + bytes(9)) == [("out", good)]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (udp()[:19], "tiny packet"),
        (b"", "tiny packet"),
        (b"\x65" + udp()[1:], "bad IP version"),
        (b"\x44" + udp()[1:], "bad IP header length"),
        (udp(len=19), "bad IP length"),
        (udp(len=200), "bad IP length"),
        (b"\x4f" + udp(data=b"")[1:], "bad IP length"),
        (udp(chksum=1), "bad IP checksum"),
        (udp(src="10.0.0.255"), "bad source address"),
        (udp(src="0.0.0.0"), "bad source address"),
        (udp(src="255.255.255.255"), "bad source address"),
    ],
)
def test_check_ip_header_says_what_is_wrong(click: Click, packet: bytes, reason: str) -> None:
    click.write("c.reset_counts")
    assert click.push("check", packet) == [("err", packet)]
    assert click.read("c.drops") == "1"
    assert f"1\t{reason}\n" in click.read("c.drop_details")


def test_check_ip_header_takes_any_source_for_its_own_addresses(click: Click) -> None:
    packet = udp(src="10.0.0.255", dst="10.0.0.1")
    assert click.push("check", packet) == [("out", packet)]


def test_check_ip_header_of_old(click: Click) -> None:
    assert click.push("old", udp(src="10.0.0.2"), udp(src="0.0.0.0"), udp(src="10.0.0.4")) == [
        ("out", udp(src="10.0.0.4"))
    ]


def test_check_ip_header_2_does_not_look_at_the_checksum(click: Click) -> None:
    bad = udp(chksum=1)
    assert click.push("nosum", ether(bad)) == [("out", bad)]
    assert click.push("nosum", ether(udp(src="10.0.0.9", dst="10.0.0.1"))) == []
    assert click.push("nosum", ether(udp(src="10.0.0.9"))) == [("out", udp(src="10.0.0.9"))]


def test_dec_ip_ttl(click: Click) -> None:
    assert one(click, "ttl", udp(ttl=64)) == udp(ttl=63)
    assert one(click, "ttl", udp(ttl=2, dst="224.0.0.1")) == udp(ttl=1, dst="224.0.0.1")
    assert click.push("ttl", udp(ttl=1), udp(ttl=0)) == [("err", udp(ttl=1)), ("err", udp(ttl=0))]
    assert click.read("d.drops") == "2"
    assert one(click, "groups", udp(ttl=1, dst="224.0.0.1")) == udp(ttl=1, dst="224.0.0.1")


@pytest.mark.parametrize("device", ["ttl", "dscp", "mirror", "sum"])
def test_what_changes_headers_drops_what_has_none(click: Click, device: str) -> None:
    assert click.push(device, b"", bytes(40), b"\x4f" + udp(data=b"")[1:], udp()[:19]) == []


def test_set_ip_dscp(click: Click) -> None:
    assert one(click, "dscp", udp(tos=3)) == udp(tos=46 << 2 | 3)


def test_set_ip_checksum(click: Click) -> None:
    assert one(click, "sum", udp(chksum=0x1234)) == udp()
    options = udp(options=IPOption_RR(routers=["1.2.3.4"]))
    assert one(click, "sum", options[:10] + b"xx" + options[12:]) == options


def test_ip_mirror(click: Click) -> None:
    assert one(click, "mirror", udp(5000, 53)) == udp(53, 5000, src=SERVER, dst=CLIENT)
    mirrored = IP(one(click, "mirror", tcp(5000, 80)))
    assert (mirrored[TCP].sport, mirrored[TCP].dport, mirrored[TCP].seq, mirrored[TCP].ack) == (80, 5000, 2000, 1000)
    assert is_sound(bytes(mirrored))
    later = udp(frag=3)
    assert one(click, "mirror", later)[20:] == later[20:]


def test_ip_encap(click: Click) -> None:
    data = one(click, "encap", udp())
    outer = IP(data)
    assert (outer.proto, outer.src, outer.dst, outer.ttl, outer.tos, outer.flags) == (
        4,
        "10.9.9.1",
        "10.9.9.2",
        9,
        40,
        "DF",
    )
    assert is_sound(data)
    assert data[20:] == udp()
    assert (click.read("i.src"), click.read("i.dst")) == ("10.9.9.1", "10.9.9.2")


def test_udp_ip_encap(click: Click) -> None:
    for payload in (b"", b"odd", b"even", bytes(range(256))):
        data = one(click, "udp", payload)
        assert is_sound(data)
        packet = IP(data)
        assert (packet[UDP].sport, packet[UDP].dport, packet[UDP].len) == (1234, 5678, 8 + len(payload))
        assert packet[UDP].chksum
        assert data[28:] == payload
    assert click.push("udp", bytes(2040)) == []  # no room for headers
    assert (click.read("u.sport"), click.read("u.dport"), click.read("u.dst")) == ("1234", "5678", "10.9.9.2")


def test_destination_annotations(click: Click) -> None:
    packet = IP(one(click, "anno", udp()))
    assert (packet.dst, packet[UDP].chksum) == (SERVER, 0)
    assert IP(one(click, "src", udp())).dst == CLIENT
    assert IP(one(click, "addr", udp())).dst == "10.8.8.8"
    assert click.read("a.addr") == "10.8.8.8"


def test_check_length(click: Click) -> None:
    assert click.push("long", bytes(100), bytes(101)) == [("out", bytes(100)), ("err", bytes(101))]


@given(st.integers(0, 255), st.integers(2, 255), st.integers(0, 65535), st.binary(max_size=40))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_changed_checksums_are_those_of_the_whole(click: Click, tos: int, ttl: int, id_: int, data: bytes) -> None:
    packet = udp(tos=tos, ttl=ttl, id=id_, data=data)
    for device in ("ttl", "dscp", "mirror"):
        assert is_sound(one(click, device, packet))


ROUTER = """
FromDevice(out) -> Discard; FromDevice(err) -> Discard;
out :: ToDevice(out); err :: ToDevice(err);
FromDevice(options) -> Strip(14) -> MarkIPHeader -> g :: IPGWOptions(10.0.0.1, 10.0.1.1 10.0.2.1) -> out;
g[1] -> ICMPError(10.0.0.1, parameterproblem) -> err;
FromDevice(cut) -> MarkIPHeader -> f :: IPFragmenter(500) -> out; f[1] -> err;
FromDevice(force) -> MarkIPHeader -> IPFragmenter(500, HONOR_DF false) -> out;
FromDevice(wire) -> IPInputCombo(2, INTERFACES 10.0.0.1/24) -> IPEncap(4, 1.1.1.1, DST_ANNO) -> out;
FromDevice(combo) -> IPInputCombo(2) -> o :: IPOutputCombo(3, 10.0.0.1, 600) -> out;
o[1] -> Discard; o[2] -> err; o[3] -> err; o[4] -> err;
FromDevice(same) -> IPInputCombo(3) -> p :: IPOutputCombo(3, 10.0.0.1, 600) -> out;
p[1] -> err; p[2] -> Discard; p[3] -> Discard; p[4] -> Discard;
FromDevice(fix) -> Strip(14) -> MarkIPHeader -> ICMPError(10.0.0.9, unreachable, host) -> FixIPSrc(10.7.7.7) -> out;
FromDevice(tee) -> Paint(2) -> t :: PaintTee(2) -> out; t[1] -> err;
"""


@pytest.fixture(scope="module")
def router() -> Iterator[Click]:
    with start(ROUTER) as running:
        yield running


def test_record_route(router: Click) -> None:
    before = udp(options=IPOption_RR(length=11, pointer=4, routers=["0.0.0.0", "0.0.0.0"]))
    after = one(router, "options", ether(before))
    option = IP(after).options[0]
    assert (option.pointer, option.routers) == (8, ["10.0.0.1", "0.0.0.0"])
    assert is_sound(after)
    full = one(router, "options", ether(one(router, "options", ether(after))))
    assert IP(full).options[0].routers == ["10.0.0.1", "10.0.0.1"]


def test_timestamps(router: Click) -> None:
    def stamped(flags: int, data: bytes, pointer: int = 5, overflow: int = 0) -> bytes:
        return bytes([68, 4 + len(data), pointer, overflow << 4 | flags]) + data

    def options(raw: bytes) -> bytes:
        datagram = bytes([0x40 | (20 + len(raw)) // 4]) + udp(len=20 + len(raw) + 16)[1:20] + raw + udp()[20:]
        return ether(datagram)

    milliseconds = (router.now // 1_000_000 % 86_400_000).to_bytes(4, "big")
    data = one(router, "options", options(stamped(0, bytes(8))))
    assert data[20:32] == stamped(0, milliseconds + bytes(4), 9)
    data = one(router, "options", options(stamped(1, bytes(8))))
    assert data[20:32] == stamped(1, bytes([10, 0, 0, 1]) + milliseconds, 13)
    asked = bytes([10, 0, 2, 1]) + bytes(4)
    assert one(router, "options", options(stamped(3, asked)))[20:32] == stamped(3, asked[:4] + milliseconds, 13)
    other = bytes([10, 0, 3, 1]) + bytes(4)
    assert one(router, "options", options(stamped(3, other)))[20:32] == stamped(3, other)
    assert one(router, "options", options(stamped(0, b"full", 9, 2)))[20:28] == stamped(0, b"full", 9, 3)
    for bad, place in ((stamped(0, b"full", 9, 15), 23), (stamped(0, b"full", 3), 22), (stamped(2, b"full"), 23)):
        ((to, error),) = router.push("options", options(bad))
        assert (to, error[20], error[24]) == ("err", 12, place)


@pytest.mark.parametrize(
    ("option", "place"),
    [
        (b"\x07\x03\x01\x00", 22),
        (b"\x07\x07\x05\x00\x00\x00\x00\x00", 22),
        (b"\x07\x29\x04\x00", 21),
        (b"\x01\x01\x01\x07", 24),
    ],
)
def test_bad_options_become_a_parameter_problem(router: Click, option: bytes, place: int) -> None:
    packet = bytes([0x40 | (20 + len(option)) // 4]) + udp(len=20 + len(option) + 16)[1:20] + option + udp()[20:]
    ((to, error),) = router.push("options", ether(packet))
    assert (to, error[20], error[21], error[24]) == ("err", 12, 0, place)
    assert is_sound(error)


def fragments_of(router: Click, device: str, packet: bytes) -> list[IP]:
    sent = router.push(device, packet)
    assert all(to == "out" for to, _ in sent)
    for _, data in sent:
        assert is_sound(data) or IP(data).frag or IP(data).flags.MF
        assert len(data) <= 500
    return [IP(data) for _, data in sent]


def joined(fragments: list[IP]) -> bytes:
    data = bytearray()
    for index, fragment in enumerate(fragments):
        assert fragment.frag * 8 == len(data)
        assert bool(fragment.flags.MF) == (index + 1 < len(fragments))
        data += bytes(fragment)[fragment.ihl * 4 :]
    return bytes(data)


@pytest.mark.parametrize("size", [473, 1000, 1472, 1900])
def test_fragments_join_to_what_was_cut(router: Click, size: int) -> None:
    packet = udp(data=bytes(n % 251 for n in range(size)), id=77, ttl=9)
    parts = fragments_of(router, "cut", packet)
    assert len(parts) == -(-(size + 8) // 480)
    assert joined(parts) == packet[20:]
    assert {(part.id, part.ttl, part.src, part.dst) for part in parts} == {(77, 9, CLIENT, SERVER)}


def test_small_packets_are_not_cut_and_df_is_honoured(router: Click) -> None:
    assert one(router, "cut", udp(data=bytes(472))) == udp(data=bytes(472))
    assert router.push("cut", udp(data=bytes(473), flags="DF")) == [("err", udp(data=bytes(473), flags="DF"))]
    assert len(fragments_of(router, "force", udp(data=bytes(473), flags="DF"))) == 2


def test_fragments_of_a_fragment_keep_their_place(router: Click) -> None:
    packet = udp(data=bytes(900), frag=10, flags="MF")
    parts = fragments_of(router, "cut", packet)
    assert [part.frag for part in parts] == [10, 70]
    assert all(part.flags.MF for part in parts)


def test_later_fragments_have_only_options_that_are_copied(router: Click) -> None:
    copied, other = bytes([0x88, 4, 0, 9]), bytes([7, 7, 4, 0, 0, 0, 0, 1])
    raw = other + copied
    packet = (
        bytes([0x40 | (20 + len(raw)) // 4])
        + udp(len=20 + len(raw) + 908, data=bytes(900))[1:20]
        + raw
        + udp(data=bytes(900))[20:]
    )
    sent = [data for _, data in router.push("cut", packet)]
    assert sent[0][20:32] == raw
    assert sent[1][20:24] == copied
    assert sent[1][0] == 0x46


def test_ip_input_combo(router: Click) -> None:
    assert IP(one(router, "wire", ether(udp()) + bytes(10)))[IP].dst == SERVER
    for bad in (b"short", ether(udp(chksum=1)), ether(udp(src="10.0.0.255"))):
        assert router.push("wire", bad) == []


def test_ip_output_combo(router: Click) -> None:
    assert one(router, "combo", ether(udp(ttl=9))) == udp(ttl=8)
    for bad in (udp(ttl=1), udp(data=bytes(600)), udp(options=[IPOption_RR(pointer=1, routers=["1.1.1.1"])])):
        ((to, data),) = router.push("combo", ether(bad))
        assert to == "err"
        assert data[20:] == bad[20:]
    assert router.push("combo", ether(udp(), dst="ff:ff:ff:ff:ff:ff")) == []
    assert sorted(to for to, _ in router.push("same", ether(udp()))) == ["err", "out"]


def test_fix_ip_src_changes_what_asks_for_it(router: Click) -> None:
    error = one(router, "fix", ether(udp()))
    assert IP(error).src == "10.7.7.7"
    assert is_sound(error)


def test_paint_tee_copies(router: Click) -> None:
    assert sorted(router.push("tee", b"x")) == [("err", b"x"), ("out", b"x")]


def test_bad_arguments() -> None:
    def one_error(element: str) -> str:
        return errors(f"FromDevice(a) -> {element} -> Discard;")[0]

    assert "0 to 4096" in one_error("CheckIPHeader(-1)")
    assert "an IPv4 prefix" in one_error("CheckIPHeader(INTERFACES 10.0.0.0/33)")
    assert "allowed: one of them" in one_error("GetIPAddress")
    assert "0 to 63" in one_error("SetIPDSCP(64)")
    assert "68 to 65535" in one_error("IPFragmenter(67)")
    assert "parts of it" in one_error("IPEncap(4, 1.1.1.1, 2.2.2.2, TOS 1, DSCP 2)")
    assert "whole number" in one_error("IPEncap(nonsense, 1.1.1.1, 2.2.2.2)")
    assert "a port" in one_error("UDPIPEncap(1.1.1.1, 70000, 2.2.2.2, 1)")


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> Strip(14) -> MarkIPHeader -> g :: IPGWOptions(10.0.0.1) -> DecIPTTL -> SetIPDSCP(5)
            -> IPMirror -> f :: IPFragmenter(68) -> GetIPAddress(IP dst) -> UDPIPEncap(1.1.1.1, 1, DST_ANNO, 2)
            -> IPEncap(4, 1.1.1.1, DST_ANNO) -> Unstrip(14) -> ToDevice(wan);
        g[1] -> SetIPChecksum -> FixIPSrc(1.1.1.1) -> ToDevice(wan); f[1] -> Discard;
        FromDevice(wan) -> IPInputCombo(3) -> o :: IPOutputCombo(3, 10.0.0.1, 90) -> ToDevice(lan);
        o[1] -> Discard; o[2] -> ToDevice(lan); o[3] -> ToDevice(lan); o[4] -> IPFragmenter(90, HONOR_DF no)
            -> ToDevice(lan);
    """
    options = ether(udp(options=IPOption_RR(length=11, pointer=4, routers=["0.0.0.0", "0.0.0.0"])))
    stamps = bytearray(options)
    stamps[34] = 68
    seeds = [ether(udp(data=bytes(300))), ether(tcp(flags="A")), options, bytes(stamps), ether(udp(frag=5))]
    fuzz(config, ["lan", "wan"], seeds, 6000)
