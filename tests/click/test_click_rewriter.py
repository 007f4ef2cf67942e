"""The elements in edgeos/click/elements/rewriter.py, with a model that knows what a translator must keep to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from click_harness import Click, errors, fuzz, start
from click_packets import CLIENT, SERVER, ether, icmp, ip, is_sound, tcp, udp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scapy.layers.inet import ICMP, IP, TCP, UDP

PUBLIC = "203.0.113.1"
GATEWAY = """
FromDevice(lan) -> CheckIPHeader -> c :: IPClassifier(icmp type echo or icmp type echo-reply, icmp, -);
FromDevice(wan) -> CheckIPHeader -> d :: IPClassifier(icmp type echo or icmp type echo-reply, icmp, -);
c[2] -> nat :: IPRewriter(pattern 203.0.113.1 {ports} - - 0 1, drop{more}) -> wan :: ToDevice(wan);
d[2] -> [1]nat; nat[1] -> lan :: ToDevice(lan);
c[0] -> ping :: ICMPPingRewriter(pattern 203.0.113.1 {ports} - - 0 1, drop) -> wan; d[0] -> [1]ping; ping[1] -> lan;
c[1] -> ICMPRewriter(nat ping) -> wan; d[1] -> ICMPRewriter(nat ping) -> lan;
"""


def gateway(ports: str = "1024-65535", more: str = "") -> str:
    return GATEWAY.format(ports=ports, more=more)


def out(click: Click, packet: bytes, device: str = "lan") -> IP:
    """The one packet that leaves, whose checksums are right."""
    ((_, data),) = click.push(device, packet)
    assert is_sound(data)
    return IP(data)


def answer(packet: IP) -> bytes:
    """What the other end sends back."""
    reply = packet.copy()
    reply.src, reply.dst = packet.dst, packet.src
    for layer in (TCP, UDP):
        if layer in reply:
            reply[layer].sport, reply[layer].dport = packet[layer].dport, packet[layer].sport
            del reply[layer].chksum
    if ICMP in reply:
        reply[ICMP].type = 0
        del reply[ICMP].chksum
    del reply.chksum
    return bytes(reply)


@pytest.mark.parametrize("make", [udp, tcp])
def test_a_connection_goes_out_and_back(make: Any) -> None:
    with start(gateway()) as click:
        sent = out(click, make(5000, 53))
        assert (sent.src, sent.sport, sent.dst, sent.dport) == (PUBLIC, 5000, SERVER, 53)
        back = out(click, answer(sent), "wan")
        assert (back.src, back.sport, back.dst, back.dport) == (SERVER, 53, CLIENT, 5000)
        assert (click.read("nat.table_size"), click.read("nat.mapping_failures")) == ("1", "0")
        table = click.read("nat.udp_table") + click.read("nat.tcp_table")
        assert table == f"({CLIENT}, 5000, {SERVER}, 53) => ({PUBLIC}, 5000, {SERVER}, 53) [0 1]\n"


def test_nobody_comes_in_without_a_mapping() -> None:
    with start(gateway()) as click:
        out(click, udp(5000, 53))
        for stranger in (
            udp(53, 5000, src="8.8.8.8", dst=PUBLIC),
            udp(54, 5000, src=SERVER, dst=PUBLIC),
            tcp(53, 5000, src=SERVER, dst=PUBLIC),
        ):
            assert click.push("wan", stranger) == []


def test_two_clients_with_the_same_port_get_two() -> None:
    with start(gateway()) as click:
        first = out(click, udp(5000, 53))
        second = out(click, udp(5000, 53, src="10.0.0.3"))
        assert first.sport == 5000
        assert second.sport != 5000
        assert out(click, answer(second), "wan").dst == "10.0.0.3"
        assert out(click, udp(5000, 53, src="10.0.0.3")).sport == second.sport


def test_fragments_other_protocols_and_short_packets_are_dropped() -> None:
    with start(gateway()) as click:
        for packet in (udp(frag=1), ip(proto=47), ip(b"1234", proto=17), ip(b"1234", proto=6), b"", bytes(20)):
            assert click.push("lan", packet) == []
        assert out(click, udp(flags="MF")).src == PUBLIC


def test_a_udp_packet_without_checksum_gets_none() -> None:
    with start(gateway()) as click:
        assert out(click, ip(UDP(sport=1, dport=2, chksum=0)))[UDP].chksum == 0


def test_ports_in_turn_and_when_there_are_none_left() -> None:
    with start(gateway("2000-2003#")) as click:
        ports = [out(click, udp(5000 + n, 53)).sport for n in range(4)]
        assert ports == [2000, 2001, 2002, 2003]
        assert click.push("lan", udp(6000, 53)) == []
        assert click.read("nat.mapping_failures") == "1"
        assert out(click, udp(6000, 54)).sport in range(2000, 2004)  # another end: ports may be used again


def test_ports_by_chance() -> None:
    with start(gateway("1024-65535?")) as click:
        ports = {out(click, udp(5000, 53, src=f"10.0.0.{n}")).sport for n in range(2, 32)}
        assert len(ports) == 30


def test_mappings_end_after_their_time() -> None:
    with start(gateway("2000-2000", ", UDP_TIMEOUT 10, UDP_STREAMING_TIMEOUT 100, TCP_NODATA_TIMEOUT 20")) as click:
        sent = out(click, udp())
        click.advance(9)
        assert len(click.push("wan", answer(sent))) == 1
        click.advance(11)
        assert click.push("wan", answer(sent)) == []
        assert click.read("nat.size") == "0"
        sent = out(click, udp())
        out(click, answer(sent), "wan")
        out(click, udp())  # three packets, both ways: it streams
        click.advance(99)
        assert len(click.push("wan", answer(sent))) == 1
        click.advance(101)
        assert out(click, udp(src="10.0.0.3")).src == PUBLIC  # the only port is free again


def test_a_closed_connection_ends_soon_and_may_begin_anew() -> None:
    times = ", TCP_TIMEOUT 1000, TCP_DONE_TIMEOUT 5, TCP_NODATA_TIMEOUT 50"
    with start(gateway(more=times)) as click:
        sent = out(click, tcp(flags="S"))
        click.advance(40)
        out(click, answer(sent), "wan")
        out(click, tcp(flags="PA", data=b"request"))
        out(click, answer(out(click, tcp(flags="PA", data=b"more"))), "wan")
        click.advance(900)
        last = out(click, tcp(flags="FA"))
        click.advance(6)
        out(click, answer(last), "wan")  # closed from both sides now
        click.advance(6)
        assert click.push("wan", answer(last)) == []
        out(click, tcp(flags="S"))
        out(click, tcp(flags="RA"))
        out(click, tcp(flags="S"))
        click.advance(40)
        assert click.read("nat.size") == "1"


def test_a_full_table_gives_up_the_oldest_but_none_that_is_guaranteed() -> None:
    with start(gateway(more=", MAPPING_CAPACITY 3, UDP_GUARANTEE 5")) as click:
        sent = [out(click, udp(5000 + n, 53)) for n in range(3)]
        assert click.push("lan", udp(6000, 53)) == []
        click.advance(3)
        out(click, answer(sent[0]), "wan")
        click.advance(3)
        assert out(click, udp(6000, 53)).sport == 6000
        assert len(click.push("wan", answer(sent[0]))) == 1  # used after the others
        assert sum(len(click.push("wan", answer(packet))) for packet in sent) == 2
        assert click.read("nat.capacity") == "3"


SPECS = """
FromDevice(a) -> MarkIPHeader -> [0]r :: {of}(pass 1, keep 0 1, pattern - - 192.0.2.77 8080 0 1, drop, lb{more});
FromDevice(b) -> MarkIPHeader -> [1]r; FromDevice(c) -> MarkIPHeader -> [2]r; FromDevice(d) -> MarkIPHeader -> [3]r;
FromDevice(e) -> MarkIPHeader -> [4]r; r[0] -> ToDevice(a); r[1] -> IPEncap(4, 1.1.1.1, 2.2.2.2) -> ToDevice(a);
lb :: RoundRobinIPMapper(- - 192.0.2.1 - 0 1, - - 192.0.2.2 - 0 1, - - 192.0.2.3 - 0 1);
"""


@pytest.mark.parametrize(("of", "make"), [("IPRewriter", udp), ("UDPRewriter", udp), ("TCPRewriter", tcp)])
def test_inputspecs(of: str, make: Any) -> None:
    with start(SPECS.format(of=of, more="")) as click:
        ((_, passed),) = click.push("a", make())
        assert passed[20:] == make()
        assert click.read("r.size") == "0"
        assert click.push("b", make()) == [("a", make())]
        ((_, reply),) = click.push("d", answer(IP(make())))
        assert reply[20:] == answer(IP(make()))
        rewritten = IP(click.push("c", make(1, 2))[0][1])
        assert (rewritten.dst, rewritten.dport, rewritten.src, rewritten.sport) == ("192.0.2.77", 8080, CLIENT, 1)
        ((_, reply),) = click.push("d", answer(rewritten))
        assert (IP(reply[20:]).src, IP(reply[20:]).sport) == (SERVER, 2)
        assert click.push("d", make(7, 8)) == []
        targets = [IP(click.push("e", make(9000 + n, 80))[0][1]).dst for n in range(6)]
        assert Counter(targets) == {"192.0.2.1": 2, "192.0.2.2": 2, "192.0.2.3": 2}
        assert click.push("e", tcp(frag=1), icmp()) == []
        assert len(click.push("a", tcp(frag=1), icmp())) == 2


def test_the_destination_annotation_follows_unless_told_not_to() -> None:
    for more, expected in (("", "10.0.0.9"), (", DST_ANNO false", "0.0.0.0")):
        config = f"FromDevice(a) -> MarkIPHeader -> IPRewriter(pattern - - 10.0.0.9 - 0 0{more})"
        with start(config + " -> IPEncap(4, 1.1.1.1, DST_ANNO) -> ToDevice(b);") as click:
            assert IP(click.push("a", udp())[0][1]).dst == expected


def test_a_source_keeps_its_server_when_others_come_and_go() -> None:
    def servers(numbers: list[int]) -> dict[str, str]:
        patterns = ", ".join(f"- - 192.0.2.{n} - 0 0 {n}" for n in numbers)
        config = f"""m :: SourceIPHashMapper(50 7, {patterns});
            FromDevice(a) -> MarkIPHeader -> IPRewriter(m) -> ToDevice(b);"""
        with start(config) as click:
            sources = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(300)]
            return {source: IP(click.push("a", udp(src=source))[0][1]).dst for source in sources}

    three, two = servers([1, 2, 3]), servers([1, 3])
    assert min(Counter(three.values()).values()) > 50
    assert all(two[source] == server for source, server in three.items() if server != "192.0.2.2")


def test_echoes_are_translated_by_identifier() -> None:
    with start(gateway("2000-2001#")) as click:
        first, second = (out(click, icmp(id=7, src=src)) for src in (CLIENT, "10.0.0.3"))
        assert (first.src, first[ICMP].id, second[ICMP].id) == (PUBLIC, 2000, 2001)
        back = out(click, answer(second), "wan")
        assert (back.dst, back[ICMP].id, back[ICMP].type) == ("10.0.0.3", 7, 0)
        assert click.push("wan", icmp(0, id=9, src=SERVER, dst=PUBLIC)) == []
        assert click.push("wan", icmp(8, id=2000, src=SERVER, dst=PUBLIC)) == []
        assert click.push("lan", icmp(0, id=9)) == []
        assert click.read("ping.size") == "2"


@pytest.mark.parametrize("sent", [udp(data=b"d" * 60), tcp(data=b"d" * 60), icmp(data=b"d" * 60), udp(data=b"")])
def test_errors_about_translated_packets_come_back_as_about_their_own(sent: bytes) -> None:
    with start(gateway("2000-2000")) as click:
        public = out(click, sent)
        for size in (28, len(sent)):
            error = ip(ICMP(type=3, code=1) / bytes(public)[:size], src="198.51.100.7", dst=PUBLIC)
            back = out(click, error, "wan")
            assert (back.src, back.dst, back[ICMP].type) == ("198.51.100.7", CLIENT, 3)
            quoted = bytes(back[ICMP])[8:]
            assert quoted == sent[:size]
        other = ip(ICMP(type=3, code=1) / udp(1, 2), dst=PUBLIC)
        assert click.push("wan", other) == []
        assert click.push("wan", ip(ICMP(type=3) / bytes(public)[:23], dst=PUBLIC)) == []


def test_errors_from_inside_do_not_tell_addresses_of_the_inside() -> None:
    with start(gateway()) as click:
        public = out(click, udp(5000, 53))
        delivered = out(click, answer(public), "wan")
        error = out(click, ip(ICMP(type=3, code=3) / bytes(delivered), src=CLIENT, dst=SERVER))
        assert (error.src, error.dst) == (PUBLIC, SERVER)
        assert bytes(error[ICMP])[8:] == answer(public)


ADDRESSES = """
FromDevice(lan) -> MarkIPHeader -> [0]r :: IPAddrRewriter(pattern {range} - 0 1, drop) -> ToDevice(wan);
FromDevice(wan) -> MarkIPHeader -> e :: ICMPRewriter(r) -> l :: ToDevice(lan); e[1] -> [1]r; r[1] -> l;
"""


def test_hosts_get_addresses_of_their_own() -> None:
    with start(ADDRESSES.format(range="203.0.113.1-203.0.113.2#")) as click:
        first, second = out(click, udp()), out(click, tcp(src="10.0.0.3", data=b"x"))
        assert (first.src, second.src) == ("203.0.113.1", "203.0.113.2")
        assert click.push("lan", udp(src="10.0.0.4")) == []
        assert out(click, icmp(src="10.0.0.3")).src == "203.0.113.2"
        back = out(click, udp(1, 2, src="8.8.8.8", dst="203.0.113.2"), "wan")  # from anybody
        assert back.dst == "10.0.0.3"
        assert click.push("wan", udp(src=SERVER, dst="203.0.113.9")) == []
        error = ip(ICMP(type=11) / bytes(first), src="198.51.100.7", dst="203.0.113.1")
        assert bytes(out(click, error, "wan")[ICMP])[8:] == udp()
        later = out(click, udp(frag=4))
        assert later.src == "203.0.113.1"
        assert bytes(later)[20:] == udp(frag=4)[20:]


@pytest.mark.parametrize(("given", "count"), [("203.0.113.0/30", 2), ("203.0.113.8/31", 2), ("203.0.113.9", 1)])
def test_prefixes_of_addresses(given: str, count: int) -> None:
    with start(ADDRESSES.format(range=given)) as click:
        sent = [data for n in range(6) for _, data in click.push("lan", udp(src=f"10.0.0.{n + 2}"))]
        assert len({IP(data).src for data in sent}) == len(sent) == count


def test_bad_arguments() -> None:
    def one_error(specs: str, of: str = "IPRewriter") -> str:
        return errors(f"FromDevice(a) -> {of}({specs}) -> Discard; Idle -> m :: Counter -> Discard;")[0]

    assert "0 inputspecs for 1" in one_error("")
    assert "SADDR SPORT" in one_error("pattern")
    assert "SADDR SPORT DADDR DPORT" in one_error("pattern 1.1.1.1 - - - 0")
    assert "a range whose first" in one_error("pattern 1.1.1.1 9-8 - - 0 0")
    assert "a port from 0 to 65535" in one_error("pattern 1.1.1.1 9-70000 - - 0 0")
    assert "found output 1; connected: 1" in one_error("keep 0 1")
    assert "there is no element 'lb'" in one_error("lb")
    assert "'m' is a Counter; allowed: a Mapper" in one_error("m")
    assert "SADDR[-SADDR2] - FOUTPUT" in one_error("pattern 1.1.1.1 9 - - 0 0", "IPAddrRewriter")
    assert "1 to 65536" in one_error("drop, MAPPING_CAPACITY 0")
    assert "a time" in one_error("drop, UDP_TIMEOUT soon")
    assert "ICMPRewriter" in errors("FromDevice(a) -> ICMPRewriter(nat) -> Discard;")[0]


class Translator(RuleBasedStateMachine):
    """Clients and servers at random: what leaves is one to one with what came, and answers find their way back."""

    def __init__(self) -> None:
        super().__init__()
        self.session = start(gateway("3000-3007", ", MAPPING_CAPACITY 64, UDP_TIMEOUT 60, TCP_NODATA_TIMEOUT 60"))
        self.click = self.session.__enter__()
        self.inside: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.last_used: dict[tuple[Any, ...], int] = {}

    def teardown(self) -> None:
        self.session.__exit__(None, None, None)

    def forget_old(self) -> None:
        for key in [key for key, used in self.last_used.items() if self.click.now - used > 60 * 10**9]:
            del self.last_used[key]
            del self.inside[key]

    @rule(
        host=st.integers(2, 5),
        sport=st.integers(3000, 3010),
        dport=st.integers(53, 54),
        make=st.sampled_from([udp, tcp]),
    )
    def goes_out(self, host: int, sport: int, dport: int, make: Any) -> None:
        self.forget_old()
        packet = IP(make(sport, dport, src=f"10.0.0.{host}"))
        key = (packet.proto, packet.src, packet.sport, packet.dport)
        sent = self.click.push("lan", bytes(packet))
        if not sent:
            used = {value for known, value in self.inside.items() if known[0] == packet.proto and known[3] == dport}
            assert key not in self.inside
            assert len(used) == 8, "a free port was not given"
            return
        assert is_sound(sent[0][1])
        result = IP(sent[0][1])
        value = (result.src, result.sport)
        assert self.inside.setdefault(key, value) == value, "a mapping changed while it lived"
        assert value == (PUBLIC, result.sport)
        assert 3000 <= result.sport <= 3007
        self.last_used[key] = self.click.now

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def is_answered(self, data: Any) -> None:
        self.forget_old()
        if not self.inside:
            return
        key = data.draw(st.sampled_from(sorted(self.inside)))
        proto, host, sport, dport = key
        make = udp if proto == 17 else tcp
        public, port = self.inside[key]
        ((_, back),) = self.click.push("wan", make(dport, port, src=SERVER, dst=public))
        assert (IP(back).dst, IP(back).dport) == (host, sport)
        self.last_used[key] = self.click.now

    @rule(port=st.integers(2998, 3009), dport=st.integers(52, 55))
    def a_stranger_knocks(self, port: int, dport: int) -> None:
        self.forget_old()
        known = any(key[0] == 17 and key[3] == dport and value[1] == port for key, value in self.inside.items())
        sent = self.click.push("wan", udp(dport, port, src="198.51.100.99", dst=PUBLIC))
        assert sent == []
        if not known:
            assert self.click.push("wan", udp(dport, port, src=SERVER, dst=PUBLIC)) == []

    @rule(seconds=st.sampled_from([1, 20, 59, 61]))
    def time_passes(self, seconds: int) -> None:
        self.click.advance(seconds)

    @invariant()
    def mappings_are_one_to_one(self) -> None:
        self.forget_old()
        flows = [(key[0], key[3], value) for key, value in self.inside.items()]
        assert len(set(flows)) == len(flows)
        assert self.click.push("wan", b"") == []  # packets tell the time
        assert int(self.click.read("nat.size")) == len(self.inside)


Translator.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTranslator = Translator.TestCase


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> MarkIPHeader(14) -> p :: ICMPPingRewriter(pattern 203.0.113.1 1-9 - - 0 1, pass 1);
        FromDevice(wan) -> MarkIPHeader(14) -> [1]p;
        p[0] -> n :: IPRewriter(pattern 203.0.113.1 1-9 - - 0 1, keep 0 1, MAPPING_CAPACITY 5, UDP_TIMEOUT 1);
        p[1] -> e :: ICMPRewriter(n p a); e[0] -> [1]n; e[1] -> [1]n;
        n[0] -> a :: IPAddrRewriter(pattern 203.0.113.0/29 - 0 1, keep 0 1, MAPPING_CAPACITY 3) -> ToDevice(wan);
        n[1] -> [1]a; a[1] -> ToDevice(lan);
    """
    public = udp(src="203.0.113.1")
    seeds = [
        udp(),
        tcp(),
        icmp(),
        icmp(0),
        ip(ICMP(type=3) / udp()),
        ip(ICMP(type=3) / icmp()),
        ip(ICMP(type=11) / public),
    ]
    fuzz(config, ["lan", "wan"], [ether(seed) for seed in seeds], 8000)
