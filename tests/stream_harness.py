"""A node behind one listener of loopback, and sockets that speak to it: for tests of connections and datagrams."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeos import ChainSettings, Node, NodeSettings, NodeStatistics, TemplateSettings, UpstreamSettings, _native

GUESTS = Path(__file__).parent / "guests"
TIMEOUT = 30.0


class Service:
    """A node that serves one guest behind one listener, and sockets that speak to it."""

    def __init__(self, node: Node, listener: _native.Listener) -> None:
        self.node = node
        self.listener = listener

    def connect(self, source: str = "", receive_buffer: int = 0) -> socket.socket:
        """A connected socket; a small receive buffer makes a slow reader's peer notice soon."""
        is_unix = self.listener.kind == "unix"
        kind = socket.SOCK_DGRAM if self.listener.kind == "udp" else socket.SOCK_STREAM
        s = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET, kind)
        try:
            s.settimeout(TIMEOUT)
            if receive_buffer:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if source:
                s.bind((source, 0))
            s.connect(self.listener.listen if is_unix else ("127.0.0.1", self.listener.port_number))
        except OSError:
            s.close()
            raise
        return s

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

    def counter(self, name: str) -> int:
        """A counter of the guest, summed over its FWPs, those that are gone too."""
        return self.node.statistics().chain("service").stages[0].counters[name]

    def stop(self) -> NodeStatistics:
        """Stops the node; no message and no connection may be unaccounted for."""
        statistics = self.node.stop()
        assert statistics.balance == 0
        assert statistics.chain("service").balance == 0
        assert statistics.in_flight == 0
        port = statistics.port("web")
        assert port.accepted == port.connections + sum(port.ended.values())
        return statistics


@contextmanager
def serving(
    guest: str | Path = "echo.c",
    *,
    kind: str = "tcp",
    address: str = "127.0.0.1",
    config: bytes = b"",
    isolate: Any = "client",
    mover: Any = "inline",
    template: dict[str, Any] | None = None,
    chain: dict[str, Any] | None = None,
    upstreams: Sequence[UpstreamSettings] = (),
    stages: Sequence[TemplateSettings] = (),
    rules: Sequence[dict[str, Any]] = (),
    **listener: Any,
) -> Iterator[Service]:
    """Runs the node; `stages` stand behind the guest in its chain, `rules` before the one that lets in all."""
    port = _native.open_listener("web", kind, address, 0, **listener)
    with Node(NodeSettings(mover=mover)) as node:
        node.add_port(port)
        for upstream in upstreams:
            node.add_upstream(upstream)
        node.add_template(TemplateSettings(name="app", source=GUESTS / guest, config=config, **(template or {})))
        for stage in stages:
            node.add_template(stage)
        path = ("web", "app", *(stage.name for stage in stages))
        settings: dict[str, Any] = {"max_fwps": 64, **(chain or {})}
        node.add_chain(ChainSettings(name="service", path=path, isolate=isolate, **settings))
        for rule in rules:
            node.add_rule(**rule)
        node.add_rule("any", chain="service")
        node.start()
        yield Service(node, port)


def read_all(s: socket.socket) -> bytes:
    """Everything until the other end's sending ends."""
    parts = []
    while part := s.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_exactly(s: socket.socket, count: int) -> bytes:
    """So many bytes; fewer only where the other end's sending ends."""
    parts = []
    while count > 0 and (part := s.recv(min(count, 65536))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def exchange(s: socket.socket, data: bytes) -> bytes:
    """Sends everything, ends the sending and reads to the end, both at once."""
    sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    sender.start()
    try:
        return read_all(s)
    finally:
        sender.join()


def is_cut_off(s: socket.socket) -> bool:
    """True if the other end closes without a word."""
    try:
        return s.recv(100) == b""
    except ConnectionResetError:
        return True


def is_sent_away(service: Service, source: str = "") -> bool:
    """True if a new connection is cut off, maybe as soon as it is made."""
    try:
        with service.connect(source) as s:
            return is_cut_off(s)
    except ConnectionResetError:
        return True
