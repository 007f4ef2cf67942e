"""Listeners behind a load balancer: the PROXY header names the client that rules, limits and isolation see."""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from stream_harness import Service, exchange, is_cut_off, is_sent_away, read_all, read_exactly, serving

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ENDPOINTS = struct.Struct("<BBHHH16s16s")  # edgeos_endpoints


class Ends(NamedTuple):
    """What a guest is told of a connection."""

    family: int
    transport: int
    peer: str
    peer_port: int
    local: str
    local_port: int


def version_1(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()


def version_2(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    ends += struct.pack("!HH", source_port, destination_port) + b"\x04\0\x01x"  # a TLV that means nothing to us
    family = 0x21 if ":" in source else 0x11
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(ends)) + ends


def told(s: socket.socket) -> Ends:
    family, transport, peer_port, local_port, _, peer, local = ENDPOINTS.unpack(read_exactly(s, ENDPOINTS.size))

    def text(address: bytes) -> str:
        found = ipaddress.IPv6Address(address)
        return str(found.ipv4_mapped or found) if family == 4 else str(found)

    return Ends(family, transport, text(peer), peer_port, text(local), local_port)


def refused(service: Service, reason: str, count: int) -> None:
    statistics = service.wait_until(lambda s: sum(s.port("web").refused.values()) == count)
    assert statistics.port("web").refused == {reason: count}
    assert statistics.port("web").accepted == 0


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("header", [version_1, version_2])
@pytest.mark.parametrize(("source", "to"), [("192.0.2.7", "198.51.100.1"), ("2001:db8::7", "2001:db8::1")])
def test_the_header_names_the_client(kind: str, header: object, source: str, to: str, tmp_path: object) -> None:
    address = f"{tmp_path}/web.sock" if kind == "unix" else "127.0.0.1"
    with serving("whoami.c", kind=kind, address=address, proxy_protocol=True) as service, service.connect() as s:
        s.sendall(header(source, to, 4321, 80) + b"and what follows")  # type: ignore[operator]
        assert told(s) == Ends(6 if ":" in source else 4, 6, source, 4321, to, 80)
        assert s.recv(100) == b"and what follows"
        s.close()
        service.wait_closed()
        port = service.stop().port("web")
    assert (port.accepted, port.refused, port.received_bytes) == (1, {}, len(b"and what follows"))


@pytest.mark.parametrize("header", [version_1, version_2])
def test_a_header_in_pieces(header: object) -> None:
    with serving("whoami.c", proxy_protocol=True) as service, service.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header("192.0.2.7", "198.51.100.1", 4321, 80) + b"x":  # type: ignore[operator]
            s.sendall(bytes([byte]))
        assert told(s).peer == "192.0.2.7"
        assert s.recv(100) == b"x"
        assert service.node.statistics().port("web").received_bytes == 1


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\0\0\0"])
def test_a_health_check_keeps_its_own_address(header: bytes) -> None:
    with serving("whoami.c", proxy_protocol=True) as service, service.connect("127.0.0.9") as s:
        s.sendall(header)
        ends = told(s)
        assert (ends.peer, ends.peer_port) == s.getsockname()
        assert (ends.local, ends.local_port) == s.getpeername()


def test_a_connection_that_ends_right_behind_its_header() -> None:
    with serving("whoami.c", proxy_protocol=True) as service, service.connect() as s:
        s.sendall(version_1("192.0.2.7", "198.51.100.1", 4321, 80) + b"last words")
        s.shutdown(socket.SHUT_WR)
        told(s)
        assert read_all(s) == b"last words"
        service.wait_closed()
        assert service.stop().port("web").ended == {"done": 1}


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        SIGNATURE + b"\x31\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(600),
    ],
)
def test_what_is_no_header_is_turned_away(garbage: bytes) -> None:
    with serving("whoami.c", proxy_protocol=True) as service:
        with service.connect() as s:
            s.sendall(garbage)
            assert is_cut_off(s)
        refused(service, "bad_header", 1)
        with service.connect() as s:
            s.sendall(b"PROXY TC")
            s.shutdown(socket.SHUT_WR)
            assert is_cut_off(s)
        refused(service, "bad_header", 2)
        assert service.stop().chain("service").activations == 0


def test_who_sends_no_header_in_time_is_turned_away() -> None:
    with serving("whoami.c", proxy_protocol=True, open_timeout_ns=100_000_000) as service, ExitStack() as stack:
        sockets = [stack.enter_context(service.connect()) for _ in range(20)]
        for s in sockets[:10]:
            s.sendall(b"PROXY TCP4 192.0.2.7 ")
        assert all(is_cut_off(s) for s in sockets)
        refused(service, "header_timeout", 20)


def test_who_has_not_sent_a_header_counts_among_the_connections() -> None:
    with serving("whoami.c", proxy_protocol=True, max_connections=3) as service, ExitStack() as stack:
        sockets = [stack.enter_context(service.connect()) for _ in range(3)]
        assert is_sent_away(service)
        for number, s in enumerate(sockets):
            s.sendall(version_1(f"192.0.2.{number}", "198.51.100.1", 4321, 80))
            told(s)
        assert service.node.statistics().port("web").connections == 3


def test_isolation_rules_and_limits_go_by_the_named_client() -> None:
    rules = [{"match": "tcp src 203.0.113.0/24", "drop": True}]
    with (
        serving("whoami.c", proxy_protocol=True, max_per_client=2, rules=rules) as service,
        ExitStack() as stack,
    ):

        def come_as(client: str) -> socket.socket:
            s = stack.enter_context(service.connect())
            s.sendall(version_2(client, "198.51.100.1", 4321, 80))
            return s

        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            told(come_as(client))
        assert service.node.statistics().chain("service").activations == 2
        assert is_cut_off(come_as("192.0.2.1"))
        assert is_cut_off(come_as("203.0.113.5"))
        assert service.node.statistics().port("web").refused == {"max_per_client": 1, "rule": 1}
        service.stop()


@pytest.mark.parametrize("prefix", [64, 56, 128])
def test_limits_for_each_client_go_by_the_networks_of_ipv6_and_isolation_by_addresses(prefix: int) -> None:
    second = {64: ["2001:db8:0:1::9"], 56: ["2001:db8:0:100::9"], 128: ["2001:db8::3", "2001:db8:0:1::9"]}[prefix]
    others = [*second, "2001:db9::1", "192.0.2.1", "192.0.2.2"]
    limits = {"max_per_client": 2, "client_prefix_v6": prefix}
    with serving("whoami.c", proxy_protocol=True, **limits) as service, ExitStack() as stack:

        def come_as(client: str) -> socket.socket:
            s = stack.enter_context(service.connect())
            local = "2001:db8::80" if ":" in client else "198.51.100.1"
            s.sendall(version_2(client, local, 4321, 80))
            return s

        first = "2001:db8::1"
        for client in (first, first if prefix == 128 else "2001:db8::2", *others):
            told(come_as(client))
        assert is_cut_off(come_as(first))
        assert is_cut_off(come_as("2001:db8::1" if prefix == 128 else "2001:db8::ffff:3"))
        assert {c.address for c in service.node.clients("service")} >= {first, *others}
        assert service.node.statistics().port("web").refused == {"max_per_client": 2}
        service.stop()


def test_without_the_setting_a_header_is_data_like_any_other() -> None:
    header = version_1("192.0.2.7", "198.51.100.1", 4321, 80)
    with serving() as service, service.connect() as s:
        assert exchange(s, header) == header
        assert {c.address for c in service.node.clients("service")} <= {"127.0.0.1"}


def test_those_who_wait_when_the_node_stops_are_counted() -> None:
    with serving("whoami.c", proxy_protocol=True) as service, service.connect() as s:
        s.sendall(b"PROXY")
        statistics = service.node.stop()
        assert sum(statistics.port("web").refused.values()) <= 1
        assert statistics.port("web").accepted == 0
        assert is_cut_off(s)
