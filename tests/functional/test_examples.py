"""The examples with listeners run as they are, but for their ports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from edgeos import Manifest, Node, load_manifest

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 10.0


def free_port() -> int:
    """A port that TCP and UDP have free now."""
    with closing(socket.socket()) as tcp, closing(socket.socket(type=socket.SOCK_DGRAM)) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return int(tcp.getsockname()[1])


@contextmanager
def running(manifest: Manifest) -> Iterator[tuple[Node, int]]:
    """A node of the manifest that listens elsewhere; every message is accounted for at its end."""
    number = free_port()
    ports = tuple(replace(port, listen=f"127.0.0.1:{number}") for port in manifest.ports)
    with Node.from_manifest(replace(manifest, ports=ports)) as node:
        node.start()
        yield node, number
        assert node.stop().balance == 0


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def read_all(s: socket.socket) -> bytes:
    parts = []
    while part := s.recv(4096):
        parts.append(part)
    return b"".join(parts)


def test_echo() -> None:
    with running(load_manifest(EXAMPLES / "echo.toml")) as (node, port):
        with connect(port) as s:
            s.sendall(b"hello")
            s.shutdown(socket.SHUT_WR)
            assert read_all(s) == b"hello"
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as u:
            u.settimeout(TIMEOUT)
            u.sendto(b"hello", ("127.0.0.1", port))
            assert u.recv(100) == b"hello"
        assert node.statistics().chain("echo").activations == 2


def test_relay_spreads_connections_and_passes_over_who_is_away() -> None:
    def serve(listening: socket.socket, name: bytes) -> None:
        with suppress(OSError):
            while True:
                s, _ = listening.accept()
                with closing(s):
                    s.sendall(name + b": " + read_all(s))

    with closing(socket.socket()) as first, closing(socket.socket()) as second:
        threads = []
        for listening, name in ((first, b"first"), (second, b"second")):
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            threads.append(threading.Thread(target=serve, args=(listening, name)))
            threads[-1].start()
        manifest = load_manifest(EXAMPLES / "relay.toml")
        upstreams = tuple(
            replace(upstream, address=f"127.0.0.1:{listening.getsockname()[1]}")
            for upstream, listening in zip(manifest.upstreams, (first, second), strict=True)
        )

        def ask(port: int) -> bytes:
            with connect(port) as s:
                s.sendall(b"hello")
                s.shutdown(socket.SHUT_WR)
                return read_all(s)

        try:
            with running(replace(manifest, upstreams=upstreams)) as (_, port):
                assert {ask(port) for _ in range(40)} == {b"first: hello", b"second: hello"}
                first.shutdown(socket.SHUT_RDWR)
                first.close()
                assert {ask(port) for _ in range(10)} == {b"second: hello"}
        finally:
            for listening in (first, second):
                with suppress(OSError):
                    listening.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(TIMEOUT)


def test_greeting_remembers_its_client_and_closes() -> None:
    with running(load_manifest(EXAMPLES / "greeting.toml")) as (node, port):
        for visit in (1, 2, 3):
            with connect(port) as s:
                s.sendall(b"Ada\x1b\r\n")
                assert read_all(s) == (
                    b"Welcome. This is your visit number %d. What is your name?\r\nHello, Ada.\r\n" % visit
                )
        with connect(port) as s:
            s.shutdown(socket.SHUT_WR)
            assert read_all(s).endswith(b"?\r\nGood bye.\r\n")
        statistics = node.statistics()
    assert statistics.chain("guests").activations == 1
    assert statistics.chain("guests").stages[0].counters == {"visits": 4, "sent_away": 0}


def test_greeting_sends_the_silent_away() -> None:
    manifest = load_manifest(EXAMPLES / "greeting.toml")
    impatient = replace(manifest, templates=(replace(manifest.templates[0], config=b"1"),))
    with running(impatient) as (node, port):
        with connect(port) as s:
            assert read_all(s).endswith(b"?\r\nGood bye, then.\r\n")
        assert node.statistics().chain("guests").stages[0].counters["sent_away"] == 1
