"""The examples of guests that speak TCP by themselves run as they are, on the pair of devices that they ask for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from privileges import needs_xdp

from edgeos import Node, load_manifest

netns = pytest.importorskip("edgeos.netns", reason="needs pyroute2")

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE, CLIENT = "10.77.0.1", "10.77.0.2"
TIMEOUT = 10.0

pytestmark = [pytest.mark.privileged, needs_xdp]


class Client:
    """The far end of the pair, whose system's TCP is the client."""

    def __init__(self, far: netns.Namespace) -> None:
        self.far = far

    def connect(self, port: int, source: str = CLIENT) -> socket.socket:
        with self.far.entered():
            return socket.create_connection((HERE, port), TIMEOUT, (source, 0))

    def ask(self, port: int, request: bytes, source: str = CLIENT) -> bytes:
        with self.connect(port, source) as s:
            s.sendall(request)
            s.shutdown(socket.SHUT_WR)
            return read_all(s)


def read_all(s: socket.socket) -> bytes:
    parts = []
    while part := s.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def running(example: str, **chain: Any) -> Iterator[tuple[Node, Client]]:
    """A node of the example, on the devices that its head tells how to make, its chain changed as `chain` says.

    Every message is accounted for at its end.
    """
    with ExitStack() as stack:
        near, far = (stack.enter_context(netns.Namespace()) for _ in range(2))
        netns.join(near, "veth0", far, "far0")
        near.set_up("veth0", [f"{HERE}/24"])
        far.set_up("far0", [f"{CLIENT}/24", "10.77.0.3/24"])
        with near.entered():
            manifest = load_manifest(EXAMPLES / example)
            chains = tuple(replace(settings, **chain) for settings in manifest.chains)
            node = stack.enter_context(Node.from_manifest(replace(manifest, chains=chains)))
            node.start()
        yield node, Client(far)
        assert node.stop().balance == 0


@pytest.fixture
def echo() -> Iterator[tuple[Node, Client]]:
    with running("echo-xdp.toml") as both:
        yield both


def test_echo(echo: tuple[Node, Client]) -> None:
    node, client = echo
    assert client.ask(7777, b"hello") == b"hello"
    with client.connect(7777) as first, client.connect(7777) as second:
        first.sendall(b"one")
        second.sendall(b"two")
        assert (first.recv(100), second.recv(100)) == (b"one", b"two")
    assert client.ask(7777, b"hello", "10.77.0.3") == b"hello"
    statistics = node.statistics().chain("echo").stages[0].counters
    assert (statistics["tcp_opened"], statistics["tcp_malformed"]) == (4, 0)


def test_an_fwp_for_each_connection() -> None:
    with running("echo-xdp.toml", isolate="flow") as (node, client):
        assert [client.ask(7777, word) for word in (b"one", b"two")] == [b"one", b"two"]
        assert node.statistics().chain("echo").activations == 2


def test_much_at_once_comes_back_whole(echo: tuple[Node, Client]) -> None:
    _, client = echo
    sent = os.urandom(1 << 20)
    with client.connect(7777) as s:
        received = bytearray()
        for start in range(0, len(sent), 1 << 15):
            s.sendall(sent[start : start + (1 << 15)])
            while len(received) < start + (1 << 15):
                received += s.recv(1 << 16)
        s.shutdown(socket.SHUT_WR)
        assert bytes(received) + read_all(s) == sent


def test_the_host_keeps_its_address_and_everything_else(echo: tuple[Node, Client]) -> None:
    _, client = echo
    assert client.ask(7777, b"x") == b"x"
    with pytest.raises(ConnectionRefusedError):
        client.connect(7778)


def test_memcached_keeps_clients_apart() -> None:
    with running("memcached-xdp.toml") as (node, client):
        assert client.ask(11211, b"set a 0 0 1\r\nx\r\nget a\r\nquit\r\n") == b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
        assert client.ask(11211, b"get a\r\nquit\r\n", "10.77.0.3") == b"END\r\n"
        assert node.statistics().chain("caches").activations == 2
        assert client.ask(11211, b"get a\r\nquit\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n", "a later connection"


def wait_until_nobody_is_there(node: Node, chain: str) -> None:
    end = time.monotonic() + TIMEOUT
    while node.statistics().chain(chain).live:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_silent_client_loses_its_connections() -> None:
    with running("echo-xdp.toml", idle_timeout_ns=200_000_000) as (node, client), client.connect(7777) as s:
        s.sendall(b"a")
        assert s.recv(100) == b"a"
        wait_until_nobody_is_there(node, "echo")
        s.sendall(b"b")
        with pytest.raises(ConnectionResetError):
            s.recv(100)


def test_a_connection_is_parked_with_its_client_and_goes_on() -> None:
    with running("memcached-xdp.toml", idle_timeout_ns=200_000_000) as (node, client), client.connect(11211) as s:
        s.sendall(b"set a 0 0 1\r\nx\r\n")
        assert s.recv(100) == b"STORED\r\n"
        wait_until_nobody_is_there(node, "caches")
        parking = node.statistics().chain("caches").parking
        assert (parking.clients, parking.parked) == (1, 1)
        assert 0 < parking.bytes < 4096
        s.sendall(b"get a\r\n")
        assert s.recv(100) == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        assert node.statistics().chain("caches").parking.resumed == 1
