"""The elements in edgeos/click/elements/ethernet.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click_harness import Click, errors, fuzz, start
from click_packets import CLIENT, LAN, WAN, arp, ether, udp
from scapy.layers.l2 import ARP, Dot1Q, Ether

EVERYONE = "ff:ff:ff:ff:ff:ff"
ROUTER = "00:11:22:33:44:55"
DATA = b"0123456789"

CONFIG = """
FromDevice(out) -> Discard; FromDevice(err) -> Discard;
out :: ToDevice(out); err :: ToDevice(err);
FromDevice(encap) -> e :: EtherEncap(0x0800, 1:2:3:4:5:6, 02-00-00-00-00-02) -> out;
FromDevice(mirror) -> EtherMirror -> out;
FromDevice(vlan) -> v :: EtherVLANEncap(0x0800, 1:2:3:4:5:6, 2:2:2:2:2:2, 0x2005) -> out;
FromDevice(id) -> EtherVLANEncap(0x86dd, 1:2:3:4:5:6, 2:2:2:2:2:2, VLAN_ID 7, VLAN_PCP 3) -> out;
FromDevice(native) -> EtherVLANEncap(0x0800, 1:2:3:4:5:6, 2:2:2:2:2:2, 5, NATIVE_VLAN 5) -> out;
FromDevice(retag) -> VLANDecap -> Strip(14) -> EtherVLANEncap(0x0800, 1:2:3:4:5:6, 2:2:2:2:2:2, ANNO) -> out;
FromDevice(untag) -> VLANDecap -> out;
FromDevice(qinq) -> VLANDecap(ETHERTYPE 0x88a8) -> out;
FromDevice(host) -> h :: HostEtherFilter(00:11:22:33:44:55, DROP_OWN true) -> out; h[1] -> err;
FromDevice(all) -> HostEtherFilter(00:11:22:33:44:55, DROP_OTHER false) -> d :: DropBroadcasts -> out;
FromDevice(arp) -> r :: ARPResponder(10.0.0.1 10.1.0.0/255.255.0.0 00:11:22:33:44:55, 10.1.2.0/24 2:2:2:2:2:2) -> out;
r[1] -> err;
FromDevice(tonet) -> MarkIPHeader(14) -> StripToNetworkHeader -> out;
FromDevice(back) -> MarkIPHeader(4) -> Strip(14) -> StripToNetworkHeader -> out;
"""


@pytest.fixture(scope="module")
def click() -> Iterator[Click]:
    with start(CONFIG) as running:
        yield running


def test_ether_encap(click: Click) -> None:
    ((_, data),) = click.push("encap", DATA)
    assert data == bytes.fromhex("020000000002010203040506 0800") + DATA
    assert (click.read("e.src"), click.read("e.dst")) == ("01:02:03:04:05:06", WAN)
    assert click.read("e.ethertype") == "2048"


def test_ether_mirror(click: Click) -> None:
    assert click.push("mirror", ether(DATA)) == [("out", ether(DATA, WAN, LAN))]
    assert click.push("mirror", bytes(13)) == []


def test_vlan_encap_with_a_whole_tag_its_parts_or_none(click: Click) -> None:
    ((_, data),) = click.push("vlan", DATA)
    tag = Ether(data)[Dot1Q]
    assert (tag.vlan, tag.prio, tag.type, bytes(tag.payload)) == (5, 1, 0x800, DATA)
    ((_, data),) = click.push("id", DATA)
    assert (Ether(data)[Dot1Q].vlan, Ether(data)[Dot1Q].prio, Ether(data)[Dot1Q].type) == (7, 3, 0x86DD)
    ((_, data),) = click.push("native", DATA)
    assert data == bytes.fromhex("020202020202 010203040506 0800") + DATA


def test_vlan_decap_keeps_the_tag_as_annotation(click: Click) -> None:
    tagged = bytes(Ether(src=LAN, dst=WAN) / Dot1Q(vlan=9, prio=2, type=0x800)) + DATA
    assert click.push("untag", tagged) == [("out", ether(DATA))]
    assert click.push("untag", ether(DATA)) == [("out", ether(DATA))]
    assert click.push("qinq", tagged) == [("out", tagged)]
    ((_, data),) = click.push("retag", tagged)
    assert (Ether(data)[Dot1Q].vlan, Ether(data)[Dot1Q].prio) == (9, 2)


def test_host_ether_filter(click: Click) -> None:
    mine, all_, own = ether(DATA, dst=ROUTER), ether(DATA, dst=EVERYONE), ether(DATA, src=ROUTER)
    assert click.push("host", mine, all_, ether(DATA), own, b"short") == [
        ("out", mine),
        ("out", all_),
        ("err", ether(DATA)),
        ("err", own),
        ("err", b"short"),
    ]


def test_drop_broadcasts_goes_by_the_packet_type(click: Click) -> None:
    group = ether(DATA, dst="01:00:5e:00:00:01")
    assert click.push("all", ether(DATA), group, ether(DATA, dst=EVERYONE)) == [("out", ether(DATA))]
    assert click.read("d.drops") == "2"
    click.write("d.reset_counts")
    assert click.read("d.drops") == "0"


@pytest.mark.parametrize(
    ("target", "answer"),
    [("10.0.0.1", ROUTER), ("10.1.7.7", ROUTER), ("10.1.2.3", "02:02:02:02:02:02"), ("10.0.0.3", None)],
)
def test_arp_responder(click: Click, target: str, answer: str | None) -> None:
    request = arp(1, target)
    ((device, data),) = click.push("arp", request)
    if answer is None:
        assert (device, data) == ("err", request)
    else:
        assert device == "out"
        assert data == arp(2, CLIENT, target, answer, LAN)[:32] + request[22:32]
        assert Ether(data)[ARP].hwdst == LAN


def test_arp_responder_answers_only_requests(click: Click) -> None:
    for other in (arp(2, "10.0.0.1"), arp(1, "10.0.0.1")[:41], ether(DATA), b""):
        assert click.push("arp", other) == [("err", other)]
    assert "10.1.0.0/16 00:11:22:33:44:55\n" in click.read("r.table")


def test_strip_to_network_header_goes_both_ways(click: Click) -> None:
    assert click.push("tonet", ether(udp())) == [("out", udp())]
    assert click.push("tonet", b"short") == []
    assert click.push("back", ether(udp())) == [("out", ether(udp())[4:])]


QUERIER = """
FromDevice(lan) -> Strip(14) -> CheckIPHeader -> [0]q :: ARPQuerier(10.0.0.1/24, 00:11:22:33:44:55,
    CAPACITY 3, ENTRY_PACKET_CAPACITY 2);
FromDevice(wan) -> [1]q;
q[0] -> ToDevice(wan); q[1] -> ToDevice(lan);
"""


def to(dst: str, data: bytes = b"x") -> bytes:
    return ether(udp(data=data, dst=dst))


def test_arp_querier_asks_keeps_packets_and_sends_them() -> None:
    with start(QUERIER) as click:
        ((device, query),) = click.push("lan", to("10.0.0.9", b"1"), to("10.0.0.9", b"2"))
        asked = Ether(query)[ARP]
        assert (device, Ether(query).dst, asked.op, asked.pdst, asked.psrc) == (
            "lan",
            EVERYONE,
            1,
            "10.0.0.9",
            "10.0.0.1",
        )
        assert click.push("lan", to("10.0.0.9", b"3")) == []  # the third that waits for this address; asked just now
        assert (click.read("q.length"), click.read("q.drops"), click.read("q.queries")) == ("2", "1", "1")
        answer = arp(2, "10.0.0.1", "10.0.0.9", WAN, ROUTER)
        frames = [data for _, data in click.push("wan", answer)]
        assert frames == [ether(udp(data=d, dst="10.0.0.9"), ROUTER, WAN) for d in (b"1", b"2")]
        assert click.push("lan", to("10.0.0.9", b"4")) == [("wan", ether(udp(data=b"4", dst="10.0.0.9"), ROUTER, WAN))]
        assert click.read("q.table") == f"10.0.0.9 true {WAN}\n"
        assert click.read("q.responses") == "1"


def test_arp_querier_asks_again_and_forgets() -> None:
    with start(QUERIER) as click:
        click.push("lan", to("10.0.0.9"))
        click.advance(0.2)
        assert len(click.push("lan", to("10.0.0.9"))) == 1  # a second query
        click.write("q.insert", f"10.0.0.9 {WAN}")
        click.advance(61)
        sent = click.push("lan", to("10.0.0.9"))
        assert [device for device, _ in sent] == ["lan", "wan"]  # polls its owner, and still sends
        assert Ether(sent[0][1]).dst == WAN
        click.advance(301)
        assert [Ether(data).dst for _, data in click.push("lan", to("10.0.0.9"))] == [EVERYONE]
        click.write("q.delete", "10.0.0.9")
        assert (click.read("q.count"), click.read("q.length")) == ("0", "0")
        for bad in ("10.0.0.9", "", "10.0.0.256 1:2:3:4:5:6", "10.0.0.9 1:2:3:4:5", "10.0.0.9 1:2:3:4:5:6 7"):
            with pytest.raises(ValueError, match="value"):
                click.write("q.insert", bad)


def test_arp_querier_believes_only_what_it_asked_for() -> None:
    with start(QUERIER) as click:
        assert click.push("wan", arp(2, "10.0.0.1", "10.0.0.9", WAN, ROUTER)) == []
        assert click.read("q.count") == "0"
        click.push("lan", to("10.0.0.9"))
        assert click.push("wan", arp(2, "10.0.0.1", "10.0.0.9", "01:00:5e:00:00:01", ROUTER)) == []
        assert click.read("q.responses") == "0"


def test_arp_querier_knows_groups_and_everyone() -> None:
    with start(QUERIER) as click:
        sent = click.push("lan", to("224.129.2.3"), to("10.0.0.255"), to("255.255.255.255"), to("0.0.0.0"))
        assert [Ether(data).dst for _, data in sent] == ["01:00:5e:01:02:03", EVERYONE, EVERYONE]


def test_arp_querier_survives_more_addresses_than_it_remembers() -> None:
    with start(QUERIER.replace("CAPACITY 3", "CAPACITY 3, ENTRY_CAPACITY 8")) as click:
        for n in range(1, 250):
            click.push("lan", to(f"10.0.0.{n}"))
        assert int(click.read("q.count")) <= 8
        assert int(click.read("q.length")) <= 3
        click.write("q.clear")
        assert (click.read("q.count"), click.read("q.length")) == ("0", "0")


def test_bad_arguments() -> None:
    assert "an Ethernet address" in errors("FromDevice(a) -> EtherEncap(0x0800, 1:2:3, 1:2:3:4:5:6) -> Discard;")[0]
    assert "is missing" in errors("FromDevice(a) -> HostEtherFilter -> Discard;")[0]
    assert "no entry" in errors("FromDevice(a) -> ARPResponder() -> Discard;")[0]
    assert "an entry is" in errors("FromDevice(a) -> ARPResponder(10.0.0.1 1.2.3.4) -> Discard;")[0]
    encap = "FromDevice(a) -> EtherVLANEncap(1, 1:2:3:4:5:6, 1:2:3:4:5:6{}) -> Discard;"
    assert "allowed: one of them" in errors(encap.format(""))[0]
    assert "0 to 65535" in errors(encap.format(", 65536"))[0]


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = (
        QUERIER
        + """
        FromDevice(dmz) -> HostEtherFilter(00:11:22:33:44:55, OFFSET 3) -> VLANDecap -> EtherMirror
            -> r :: ARPResponder(0.0.0.0/0 1:2:3:4:5:6) -> EtherVLANEncap(1, 1:1:1:1:1:1, 2:2:2:2:2:2, ANNO)
                -> ToDevice(lan);
    """
    )
    fuzz(
        config, ["lan", "wan", "dmz"], [to("10.0.0.9"), arp(2, "10.0.0.1", "10.0.0.9", WAN, ROUTER), arp(1, "10.0.0.9")]
    )
