"""Listeners with real sockets on loopback: connections and datagrams through guests, and their limits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeos import ChainSettings, Node, NodeSettings, NodeStatistics, TemplateSettings, _native

GUESTS = Path(__file__).parent.parent / "guests"
TIMEOUT = 5.0


class Service:
    """A node that serves one guest behind one listener, and sockets that speak to it."""

    def __init__(self, node: Node, listener: _native.Listener) -> None:
        self.node = node
        self.listener = listener

    def connect(self, source: str = "") -> socket.socket:
        if self.listener.kind == "unix":
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(TIMEOUT)
            s.connect(self.listener.listen)
            return s
        if self.listener.kind == "udp":
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind((source, 0))
            s.settimeout(TIMEOUT)
            s.connect(("127.0.0.1", self.listener.port_number))
            return s
        source_address = (source, 0) if source else None
        return socket.create_connection(("127.0.0.1", self.listener.port_number), TIMEOUT, source_address)

    def wait_until(self, holds: Callable[[NodeStatistics], bool]) -> NodeStatistics:
        """Waits until the statistics are as wanted, and returns them."""
        end = time.monotonic() + TIMEOUT
        while not holds(statistics := self.node.statistics()):
            assert time.monotonic() < end, statistics
            time.sleep(0.005)
        return statistics

    def wait_closed(self, connections: int = 0) -> NodeStatistics:
        """Waits until so many connections are left, and the guests have heard of the others' ends."""
        self.wait_until(lambda s: s.port("web").connections == connections)
        time.sleep(0.02)
        return self.wait_until(lambda s: s.in_flight == 0)

    def stop(self) -> NodeStatistics:
        """Stops the node; no message may be unaccounted for."""
        statistics = self.node.stop()
        assert statistics.balance == 0
        assert statistics.chain("service").balance == 0
        assert statistics.in_flight == 0
        port = statistics.port("web")
        assert port.accepted == port.connections + sum(port.ended.values())
        return statistics


@contextmanager
def serving(
    guest: str = "echo.c",
    *,
    kind: str = "tcp",
    address: str = "127.0.0.1",
    config: bytes = b"",
    isolate: Any = "client",
    mover: Any = "inline",
    template: dict[str, Any] | None = None,
    chain: dict[str, Any] | None = None,
    **listener: Any,
) -> Iterator[Service]:
    port = _native.open_listener("web", kind, address, 0, **listener)
    with Node(NodeSettings(mover=mover)) as node:
        node.add_port(port)
        node.add_template(TemplateSettings(name="app", source=GUESTS / guest, config=config, **(template or {})))
        settings: dict[str, Any] = {"max_fwps": 64, **(chain or {})}
        node.add_chain(ChainSettings(name="service", path=("web", "app"), isolate=isolate, **settings))
        node.add_rule("any", chain="service")
        node.start()
        yield Service(node, port)


def read_all(s: socket.socket) -> bytes:
    parts = []
    while part := s.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exchange(s: socket.socket, data: bytes) -> bytes:
    """Sends everything, ends the sending and reads to the end, both at once."""
    sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    sender.start()
    try:
        return read_all(s)
    finally:
        sender.join()


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("isolate", ["shared", "client", "connection"])
@pytest.mark.parametrize("config", [b"", b"send"])
def test_a_megabyte_comes_back_and_both_ends_close(mover: str, isolate: str, config: bytes) -> None:
    data = bytes(range(256)) * 4096
    with serving(config=config, isolate=isolate, mover=mover) as service:
        with service.connect() as s:
            assert exchange(s, data) == data
        service.wait_closed()
        statistics = service.stop()
    port = statistics.port("web")
    assert port.ended == {"done": 1}
    assert port.received_bytes == port.sent_bytes == len(data)
    counters = statistics.chain("service").stages[0].counters
    assert (counters["opened"], counters["closed"], counters["cut_short"]) == (1, 1, 0)


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("config", [b"", b"send"])
def test_datagrams_come_back_to_who_sent_them(mover: str, config: bytes) -> None:
    with serving(kind="udp", config=config, mover=mover) as service:
        sockets = [service.connect(f"127.0.0.{n}") for n in (1, 1, 2)]
        for round_number in range(3):
            for number, s in enumerate(sockets):
                s.send(b"%d %d" % (number, round_number))
            for number, s in enumerate(sockets):
                assert s.recv(100) == b"%d %d" % (number, round_number)
        for s in sockets:
            s.close()
        statistics = service.stop()
    assert statistics.port("web").accepted == 3
    assert statistics.chain("service").activations == 2


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with serving(kind="unix", address=str(path), mode=0o600) as service:
        assert path.stat().st_mode & 0o777 == 0o600
        with service.connect() as s:
            assert exchange(s, b"over a path") == b"over a path"
        service.stop()
    assert not path.exists()
