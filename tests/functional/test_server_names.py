"""Rules over the server's name of TLS: hellos of Python's ssl, in one piece and in many, and clients without any."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import guest

from edgeos import (
    ChainSettings,
    Manifest,
    ManifestError,
    Node,
    PortSettings,
    RuleSettings,
    _native,
    check_settings,
    load_manifest,
)
from edgeos.findings import BadValueError
from edgeos.match import parse_match

TIMEOUT = 30.0


def hello(name: str | None) -> bytes:
    """The first bytes that a client of TLS sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


RULES = (("sni a.example.com", "a"), ("sni *.example.com", "b"), ("tcp", "c"))


@contextmanager
def serving(rules: tuple[tuple[str, str], ...] = RULES, **listener: int) -> Iterator[tuple[Node, int]]:
    """A listener with an echo for each of the chains a, b and c."""
    port = _native.open_listener("web", "tcp", "127.0.0.1", 0, **listener)
    with Node() as node:
        node.add_port(port)
        node.add_template(guest("echo"))
        for name in "abc":
            node.add_chain(ChainSettings(name=name, path=("web", "echo"), isolate="connection", max_fwps=64))
        for match, chain in rules:
            node.add_rule(match, chain=None if chain == "drop" else chain, drop=chain == "drop")
        node.start()
        yield node, port.port_number
        statistics = node.stop()
        assert statistics.balance == 0
        assert all(chain.balance == 0 for chain in statistics.chains)


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def echoed(port: int, *pieces: bytes) -> bytes:
    """What comes back of bytes that are sent in pieces, each as a packet of its own as far as that can be had."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            s.sendall(piece)
        s.shutdown(socket.SHUT_WR)
        received = bytearray()
        while part := s.recv(65536):
            received += part
        return bytes(received)


def activations(node: Node) -> dict[str, int]:
    return {chain.name: chain.activations for chain in node.statistics().chains if chain.activations}


@pytest.mark.parametrize(
    ("name", "chain"),
    [("a.example.com", "a"), ("A.Example.COM", "a"), ("b.example.com", "b"), ("example.com", "c"), (None, "c")],
)
def test_a_connection_goes_where_its_name_says_and_loses_nothing(name: str | None, chain: str) -> None:
    sent = hello(name)
    with serving() as (node, port):
        assert echoed(port, sent, b"and more") == sent + b"and more"
        assert activations(node) == {chain: 1}


def test_a_hello_may_come_byte_by_byte() -> None:
    sent = hello("b.example.com")
    with serving() as (node, port):
        assert echoed(port, *(sent[i : i + 1] for i in range(len(sent)))) == sent
        assert activations(node) == {"b": 1}


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00", b"\x16\x03\x01\x00\x05\x01", b""])
def test_what_is_no_hello_meets_the_other_rules(sent: bytes) -> None:
    with serving() as (node, port):
        assert echoed(port, sent) == sent
        assert activations(node) == {"c": 1}


def test_a_name_may_be_dropped() -> None:
    with serving((("sni bad.example", "drop"), ("any", "a"))) as (node, port):
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as s:
            s.sendall(hello("bad.example"))
            with pytest.raises(ConnectionError):
                s.recv(1)
        assert node.statistics().port("web").refused == {"rule": 1}
        assert echoed(port, good := hello("good.example")) == good
        assert activations(node) == {"a": 1}


def test_whoever_says_nothing_is_turned_away_in_time() -> None:
    with serving(open_timeout_ns=500_000_000) as (node, port), ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT)) for _ in range(3)]
        with suppress(ConnectionError):  # on a slow machine its time may be over already
            silent[0].sendall(hello("a.example.com")[:50])
        wait_for(lambda: node.statistics().port("web").refused == {"no_hello": 3})
        assert node.statistics().port("web").accepted == 0


def test_rules_that_ask_for_names_come_and_go_while_a_node_runs() -> None:
    with serving((("tcp", "c"),)) as (node, port):
        assert echoed(port, hello("a.example.com"))
        rule = node.add_rule("sni a.example.com", chain="a", priority=1)
        assert echoed(port, hello("a.example.com"))
        node.remove_rule(rule)
        assert echoed(port, hello("a.example.com"))
        assert activations(node) == {"a": 1, "c": 2}


# ---- The term ----


@pytest.mark.parametrize(
    "text", ["sni", "sni a..b", "sni *", "sni a.*.b", "sni " + "a" * 64, "udp sni a.example", "sni -é"]
)
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(BadValueError):
        parse_match(text)


_LABEL = st.text("abcxyz09-_", min_size=1, max_size=8)
_NAME = st.builds(
    lambda star, labels: star + ".".join(labels), st.sampled_from(["", "*."]), st.lists(_LABEL, min_size=1, max_size=8)
)


@settings(deadline=None)
@given(_NAME)
def test_a_match_reads_back_what_it_writes(name: str) -> None:
    match = parse_match(f"sni {name.upper()}")
    assert match.server_name == name
    assert parse_match(str(match)) == match


@settings(deadline=None)
@given(_NAME, _NAME)
def test_covering_agrees_with_names(outer: str, inner: str) -> None:
    """`*.x` covers what ends in `.x`, itself included, and nothing else."""
    expected = outer == inner or (outer.startswith("*.") and inner.lstrip("*").endswith(outer[1:]))
    assert parse_match(f"sni {outer}").covers(parse_match(f"sni {inner}")) == expected


def test_a_chain_without_a_tcp_listener_has_no_names(tmp_path: Path) -> None:
    ports = (PortSettings(name="lan", kind="memory"), PortSettings(name="wan", kind="memory"))
    chain = ChainSettings(name="edge", path=("lan", "echo", "wan"))
    rule = RuleSettings(match=parse_match("sni a.example"), chain="edge")
    with pytest.raises(ManifestError, match="sni for connections of TCP listeners"):
        check_settings(Manifest(ports=ports, templates=(guest("echo"),), chains=(chain,), rules=(rule,)))


def test_the_example_runs_as_it_is_but_for_its_port() -> None:
    manifest = load_manifest(Path(__file__).parents[2] / "examples" / "sni.toml")
    listener = _native.open_listener("web", "tcp", "127.0.0.1", 0)
    with Node.from_manifest(replace(manifest, ports=())) as node:
        node.add_port(listener)
        node.start()
        for name in ("shop.example.com", "blog.example.com"):
            assert echoed(listener.port_number, sent := hello(name)) == sent
        for name in ("internal.example.com", "example.org"):
            with socket.create_connection(("127.0.0.1", listener.port_number), TIMEOUT) as s:
                s.sendall(hello(name))
                with pytest.raises(ConnectionError):
                    s.recv(1)
        assert activations(node) == {"shop": 1, "sites": 1}
        assert node.stop().port("web").refused == {"rule": 1, "no_rule": 1}


def test_one_client_cannot_take_all_places_while_its_hellos_are_awaited() -> None:
    with serving(max_connections=4, max_per_client=2) as (node, port), ExitStack() as connections:
        for _ in range(6):
            with suppress(ConnectionError):  # it may be sent away as soon as it is made
                connections.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT, ("127.0.0.2", 0)))
        wait_for(lambda: node.statistics().port("web").refused == {"max_per_client": 4})
        assert echoed(port, b"not TLS") == b"not TLS"
        connections.close()
        wait_for(lambda: node.statistics().port("web").connections == 0)
        assert node.statistics().port("web").accepted == 3
        assert echoed(port, b"again") == b"again", "their places are free again"
