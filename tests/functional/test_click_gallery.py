"""The Click gallery between memory ports: each manifest's own template, chain and rules; packets in, packets out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from node_harness import Rig

from edgeos import Node, testing
from edgeos.handlers import total
from edgeos.manifest import find_warnings, load_manifest
from edgeos.share import share
from edgeos.testing import ethernet_frame, internet_checksum, reply_to, tcp_packet, udp_packet

MAC = bytes.fromhex("020000000101")
FAR_MAC = bytes.fromhex("020000000201")
SYN, ACK = 0x02, 0x10
NAMES = sorted(path.stem for path in share("appliances", "click").glob("*/*.toml"))


@contextmanager
def gallery(name: str) -> Iterator[Rig]:
    """The manifest of a configuration with memory ports in the place of its devices."""
    manifest = load_manifest(share("appliances", "click", name, f"{name}.toml"))
    with ExitStack() as stack:
        ports = {port.name: stack.enter_context(testing.memory_port(port.name)) for port in manifest.ports}
        node = stack.enter_context(Node(manifest.node))
        for port in ports.values():
            node.add_port(port)
        for template in manifest.templates:
            node.add_template(replace(template, ready_low=1, ready_high=4))
        for chain in manifest.chains:
            node.add_chain(replace(chain, max_fwps=32))
        for rule in manifest.rules:
            pair = (rule.pass_ports[0], rule.pass_ports[1]) if rule.pass_ports else None
            node.add_rule(rule.match, chain=rule.chain, drop=rule.drop, pass_ports=pair)
        yield Rig(node, ports)


def value(rig: Rig, stage: str, name: str) -> int:
    """A handler of all clients together."""
    found = total(rig.node.read_handler("edge", stage, None, name))
    assert found is not None
    return found


def ping(source: str, target: str, size: int = 56) -> bytes:
    body = bytes([8, 0, 0, 0, 0, 1, 0, 1]) + bytes(size)
    body = body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]
    header = bytes([0x45, 0]) + (20 + len(body)).to_bytes(2, "big") + bytes([0, 0, 0, 0, 64, 1, 0, 0])
    header += bytes(map(int, f"{source}.{target}".split(".")))
    header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    return ethernet_frame(header + body, 0x0800, dst=MAC)


def arp_request(source: str, target: str) -> bytes:
    addresses = [bytes(map(int, address.split("."))) for address in (source, target)]
    body = bytes.fromhex("0001080006040001") + testing.CLIENT_MAC + addresses[0] + bytes(6) + addresses[1]
    return ethernet_frame(body, 0x0806, dst=b"\xff" * 6)


def to(mac: bytes, frame: bytes) -> bytes:
    return mac + frame[6:]


@pytest.mark.parametrize("name", NAMES)
def test_each_manifest_is_right_as_it_is(name: str) -> None:
    folder = share("appliances", "click", name)
    assert find_warnings(load_manifest(folder / f"{name}.toml")) == []
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"# {name}\n")
    assert all(f"\n## {title}" in readme for title in ("Configuration", "Dropped"))
    assert f"({name}.svg)" in readme
    assert (folder / f"{name}.svg").read_text().startswith("<svg")


def test_bridge() -> None:
    with gallery("bridge") as rig:
        packets = [udp_packet(f"10.0.0.{n}", "192.0.2.1", bytes([n])) for n in range(1, 5)]
        assert rig.pass_through("lan", *packets) == packets
        assert rig.pass_through("wan", *map(reply_to, packets)) == [reply_to(packet) for packet in packets]
        assert (value(rig, "bridge", "forth.count"), value(rig, "bridge", "back.count")) == (4, 4)
        assert value(rig, "bridge", "forth.byte_count") == sum(map(len, packets))


def test_ping() -> None:
    with gallery("ping") as rig:
        request = ping("10.0.0.2", "10.0.0.1", 100)
        (reply,) = rig.pass_through("lan", request, out="lan")
        assert (reply[:6], reply[6:12]) == (request[6:12], MAC)
        assert (reply[26:30], reply[30:34], reply[34]) == (request[30:34], request[26:30], 0)
        assert internet_checksum(reply[34:]) == 0
        assert reply[38:] == request[38:]
        (answer,) = rig.pass_through("lan", arp_request("10.0.0.2", "10.0.0.1"), out="lan")
        assert (answer[20:22], answer[22:28]) == (b"\0\x02", MAC)
        others = [
            ping("10.0.0.2", "10.0.0.9"),
            to(MAC, udp_packet("10.0.0.2", "10.0.0.1")),
            ping("10.0.0.2", "10.0.0.1")[:40],
        ]
        assert rig.pass_through("lan", *others, arp_request("10.0.0.2", "10.0.0.9"), out="lan") == []
        assert value(rig, "ping", "answered.count") == 1


OUTWARD = [
    (True, udp_packet("10.0.0.2", "192.0.2.1", dport=53)),
    (True, udp_packet("10.0.0.2", "192.0.2.1", dport=123)),
    (False, udp_packet("10.0.0.2", "192.0.2.1", dport=54)),
    (True, tcp_packet("10.0.0.2", "192.0.2.1", dport=443, flags=SYN)),
    (False, tcp_packet("10.0.0.2", "192.0.2.1", dport=25, flags=SYN)),
    (True, tcp_packet("10.0.0.2", "192.0.2.1", sport=80, dport=40000, flags=SYN | ACK)),
    (False, tcp_packet("10.0.0.2", "192.0.2.1", sport=80, dport=40000, flags=SYN)),
    (False, udp_packet("172.16.0.2", "192.0.2.1", dport=53)),
    (False, udp_packet("10.0.0.2", "127.0.0.1", dport=53)),
    (True, ping("10.0.0.2", "192.0.2.1")),
]
INWARD = [
    (True, udp_packet("192.0.2.1", "10.0.0.2", sport=53, dport=40000)),
    (False, udp_packet("192.0.2.1", "10.0.0.2", sport=54, dport=40000)),
    (True, tcp_packet("192.0.2.1", "10.0.0.2", sport=443, dport=40000, flags=ACK)),
    (False, tcp_packet("192.0.2.1", "10.0.0.2", sport=443, dport=40000, flags=SYN)),
    (True, tcp_packet("192.0.2.1", "10.0.0.2", sport=40000, dport=80, flags=SYN)),
    (False, udp_packet("10.0.0.9", "10.0.0.2", sport=53, dport=40000)),
    (False, ping("192.0.2.1", "10.0.0.2")),
]


@pytest.mark.parametrize(("port", "cases"), [("lan", OUTWARD), ("wan", INWARD)])
def test_firewall(port: str, cases: list[tuple[bool, bytes]]) -> None:
    with gallery("firewall") as rig:
        for passes, packet in cases:
            assert rig.pass_through(port, packet) == ([packet] if passes else []), packet.hex()
        assert value(rig, "fw", "denied.count") == sum(not passes for passes, _ in cases)
        spoiled = cases[0][1][:24] + b"\0\0" + cases[0][1][26:]  # its header's checksum
        assert rig.pass_through(port, spoiled) == []
        request = arp_request("10.0.0.2", "10.0.0.1")
        assert rig.pass_through(port, request) == [request]


def test_router() -> None:
    with gallery("router") as rig:
        (answer,) = rig.pass_through("lan", arp_request("10.1.0.2", "10.1.0.1"), out="lan")
        assert answer[22:28] == MAC
        rig.node.write_handler("edge", "router", None, "wan/arp.insert", "10.2.0.2 02:00:00:00:00:22")
        packet = to(MAC, udp_packet("10.1.0.2", "10.3.0.9", b"by the gateway"))
        (sent,) = rig.pass_through("lan", packet)
        assert (sent[:6].hex(), sent[6:12], sent[22], sent[34:]) == ("020000000022", FAR_MAC, 63, packet[34:])
        rig.node.write_handler("edge", "router", None, "lan/arp.insert", f"10.1.0.2 {testing.CLIENT_MAC.hex(':')}")
        (error,) = rig.pass_through("lan", to(MAC, udp_packet("10.1.0.2", "10.9.0.9")), out="lan")
        assert (error[:6], error[34:36]) == (testing.CLIENT_MAC, b"\x03\x00"), "no route: net unreachable"


def know(rig: Rig, stage: str, *entries: tuple[str, str]) -> None:
    """Puts neighbours into ARP tables, by an element and an address; its last byte ends the Ethernet address."""
    for element, address in entries:
        mac = f"02:00:00:00:00:{int(address.rpartition('.')[2]):02x}"
        rig.node.write_handler("edge", stage, None, f"{element}.insert", f"{address} {mac}")


def ends(frame: bytes) -> tuple[str, int, str, int]:
    """Source and target of a TCP or UDP packet."""
    source, target = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
    return source, int.from_bytes(frame[34:36], "big"), target, int.from_bytes(frame[36:38], "big")


def test_nat() -> None:
    with gallery("nat") as rig:
        rig.pass_through("lan", arp_request("192.168.1.10", "192.168.1.1"), out="lan")
        know(rig, "nat", ("wan_arp", "203.0.113.1"), ("lan_arp", "192.168.1.10"), ("lan_arp", "192.168.1.11"))
        packets = [udp_packet(f"192.168.1.{n}", "198.51.100.7", b"?", sport=5000) for n in (10, 11)]
        sent = rig.pass_through("lan", *(to(MAC, packet) for packet in packets))
        assert [ends(frame)[0] for frame in sent] == ["203.0.113.2"] * 2
        ports = [ends(frame)[1] for frame in sent]
        assert ports[0] == 5000, "a port that is free stays"
        assert ports[1] != 5000, "one that is taken does not"
        back = rig.pass_through("wan", *(to(FAR_MAC, reply_to(frame)) for frame in sent))
        assert [ends(frame) for frame in back] == [("198.51.100.7", 53, f"192.168.1.{n}", 5000) for n in (10, 11)]
        assert [frame[5] for frame in back] == [10, 11], "each to its own neighbour"
        stranger = udp_packet("198.51.100.8", "203.0.113.2", sport=53, dport=5000)
        assert rig.pass_through("wan", to(FAR_MAC, stranger)) == []
        assert rig.pass_through("lan", to(MAC, udp_packet("10.0.0.1", "198.51.100.7"))) == [], "no address of ours"
        assert (value(rig, "nat", "flows.size"), value(rig, "nat", "refused.count")) == (2, 1)


def test_balancer() -> None:
    with gallery("balancer") as rig:
        rig.pass_through("lan", arp_request("10.1.0.2", "10.1.0.100"), out="lan")
        know(rig, "balancer", *(("wan_arp", f"10.2.0.{n}") for n in (11, 12, 13)), ("lan_arp", "10.1.0.2"))
        packets = [tcp_packet(f"10.1.0.{n}", "10.1.0.100", sport=n, flags=SYN) for n in range(2, 60)]
        chosen = [ends(frame)[2] for frame in rig.pass_through("lan", *(to(MAC, packet) for packet in packets))]
        assert set(chosen) == {"10.2.0.11", "10.2.0.12", "10.2.0.13"}
        again = [tcp_packet(f"10.1.0.{n}", "10.1.0.100", sport=n + 1000, flags=SYN) for n in range(2, 60)]
        assert [ends(f)[2] for f in rig.pass_through("lan", *(to(MAC, packet) for packet in again))] == chosen
        answer = tcp_packet(chosen[0], "10.1.0.2", sport=80, dport=2, flags=SYN | ACK)
        (back,) = rig.pass_through("wan", to(FAR_MAC, answer))
        assert ends(back) == ("10.1.0.100", 80, "10.1.0.2", 2)
        assert rig.pass_through("lan", to(MAC, tcp_packet("10.1.0.2", "10.1.0.101"))) == []


def test_limiter() -> None:
    with gallery("limiter") as rig:
        clock = testing.FakeClock(rig.node)
        size = 1250
        packets = [udp_packet("10.0.0.2", "192.0.2.1", bytes([n]) + bytes(size - 43), sport=n) for n in range(1, 201)]
        start_ns = 1_700_000_000_000_000_000
        for number, packet in enumerate(packets, 1):
            rig.ports["lan"].inject(packet, start_ns)
            if number % 20 == 0:
                rig.settle()
        first = rig.take("wan")
        assert 0 < len(first) <= 4, "the bucket holds 20 ms of 125,000 bytes a second"
        drops = value(rig, "limiter", "up_queue.drops")
        assert drops > 0
        assert value(rig, "limiter", "up_queue.length") == len(packets) - len(first) - drops == 100
        later = udp_packet("10.0.0.2", "192.0.2.1")
        rig.ports["lan"].inject(later, start_ns + 500_000_000)  # half a second later there is room for 50 more
        clock.advance(0.5)
        rig.settle()
        sent = rig.take("wan")
        assert 1 <= len(sent) <= 54
        assert sent == packets[len(first) : len(first) + len(sent)], "in their order"
        other = udp_packet("10.0.0.3", "192.0.2.1")
        assert other in rig.pass_through("lan", other), "another client's bucket is full"


def test_ids() -> None:
    with gallery("ids") as rig:
        good = tcp_packet("10.0.0.2", "192.0.2.1", b"GET / HTTP/1.1\r\n\r\n")
        alerted = tcp_packet("10.0.0.2", "192.0.2.1", b"GET /../../ETC/passwd HTTP/1.1\r\n\r\n")
        stopped = udp_packet("10.0.0.2", "192.0.2.1", b"x" + b"\x90" * 10)
        assert rig.pass_through("lan", good, alerted, stopped) == [good, alerted]
        assert rig.pass_through("wan", reply_to(stopped)) == []
        (answer,) = rig.node.read_handler("edge", "ids", "10.0.0.2", "out.matches")
        assert set(answer.text.splitlines()) == {"1\tpath traversal", "1\tpassword file", "1\tno-operation sled"}
        assert (value(rig, "ids", "stopped.count"), value(rig, "ids", "in.drops")) == (2, 1)
