"""A node that serves the memcached appliance behind a listener, and sockets that speak to it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeos import ChainSettings, Node, NodeSettings, NodeStatistics, TemplateSettings, _native
from edgeos.settings import Grants

TIMEOUT = 30.0
APPLIANCE = {"appliance": "memcached", "grant": Grants(random=True), "ready_low": 1, "ready_high": 4}


@dataclass
class CacheNode:
    """A running node and its one listener."""

    node: Node
    listener: _native.Listener

    @property
    def port(self) -> int:
        return int(self.listener.port_number)

    def connect(self, client: str = "127.0.0.1") -> socket.socket:
        """A connection from an address of loopback."""
        if self.listener.kind == "unix":
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(TIMEOUT)
            s.connect(self.listener.listen)
            return s
        if self.listener.kind == "udp":
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind((client, 0))
            s.settimeout(TIMEOUT)
            s.connect(("127.0.0.1", self.port))
            return s
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT, (client, 0))

    def wait_until(self, holds: Callable[[NodeStatistics], bool]) -> NodeStatistics:
        """Waits until the statistics are as wanted, and returns them."""
        end = time.monotonic() + TIMEOUT
        while not holds(statistics := self.node.statistics()):
            assert time.monotonic() < end, statistics
            time.sleep(0.01)
        return statistics


@contextmanager
def serving(
    kind: str = "tcp",
    address: str = "127.0.0.1",
    *,
    isolate: Any = "client",
    template: dict[str, Any] | None = None,
    chain: dict[str, Any] | None = None,
    mover: Any = "inline",
    **listener: Any,
) -> Iterator[CacheNode]:
    """A node until the block ends; no FWP may be killed in it, and every message is accounted for."""
    port = _native.open_listener("clients", kind, address, 0, **listener)
    with Node(NodeSettings(mover=mover)) as node:
        node.add_port(port)
        node.add_template(TemplateSettings(name="cache", **{**APPLIANCE, **(template or {})}))
        settings = {"max_fwps": 64, "idle_timeout_ns": 600 * 10**9, **(chain or {})}
        node.add_chain(ChainSettings(name="caches", path=("clients", "cache"), isolate=isolate, **settings))
        node.add_rule("any", chain="caches")
        node.start()
        yield CacheNode(node, port)
        statistics = node.stop()
    assert statistics.balance == 0, statistics
    assert statistics.chain("caches").balance == 0, statistics
    assert sum(statistics.chain("caches").kills.values()) == 0, statistics


def ask(s: socket.socket, data: bytes, until: bytes) -> bytes:
    """Sends bytes, and reads until the answer ends with `until`."""
    s.sendall(data)
    got = b""
    while not got.endswith(until):
        part = s.recv(1 << 16)
        assert part, got
        got += part
    return got


def read_to_end(s: socket.socket) -> bytes:
    """Everything until the other end closes, in whatever way."""
    got = b""
    try:
        while part := s.recv(1 << 16):
            got += part
    except ConnectionResetError:
        pass
    return got
