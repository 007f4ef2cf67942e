"""Connections that guests open to upstreams: reached, refused, slow, closed from each side, and bounded."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from stream_harness import GUESTS, TIMEOUT, Service, exchange, read_all, read_exactly, serving

from edgeos import (
    ChainSettings,
    Grants,
    Node,
    NodeStatistics,
    TemplateSettings,
    TenantSettings,
    UpstreamSettings,
    _native,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
MUCH = 4 << 20
SECOND_NS = 1_000_000_000


def echo(s: socket.socket) -> None:
    """Sends back what comes until the other end's sending ends."""
    while part := s.recv(65536):
        s.sendall(part)


class Upstream:
    """A server that gives each connection to `serve` on a thread of its own, then closes it."""

    def __init__(self, listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        self.listening = listening
        self.serve = serve
        self.accepted: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def address(self) -> str:
        name = self.listening.getsockname()
        return name if isinstance(name, str) else f"{name[0]}:{name[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                s, _ = self.listening.accept()
                s.settimeout(TIMEOUT)
                self.accepted.append(s)
                thread = threading.Thread(target=self._serve_one, args=(s,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve_one(self, s: socket.socket) -> None:
        with closing(s), suppress(OSError):
            self.serve(s)

    def close(self) -> None:
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self._acceptor.join(TIMEOUT)
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in (self._acceptor, *self._threads))


@contextmanager
def upstream(serve: Callable[[socket.socket], None] = echo, path: Path | None = None) -> Iterator[Upstream]:
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as s:
        s.bind(str(path) if path else ("127.0.0.1", 0))
        s.listen(1024)
        server = Upstream(s, serve)
        try:
            yield server
        finally:
            server.close()


def unused_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


@contextmanager
def relay(*addresses: str, guest: Path | str = EXAMPLES / "relay.c", **settings: Any) -> Iterator[Service]:
    names = [f"up{number}" for number in range(len(addresses))]
    upstreams = [UpstreamSettings(name=name, address=to) for name, to in zip(names, addresses, strict=True)]
    grant = {"grant": Grants(connect=tuple(names))}
    settings = {"isolate": "connection", "max_connections": 500, "config": b"%d" % len(addresses), **settings}
    with serving(guest, upstreams=upstreams, template=grant, **settings) as service:
        yield service


def pattern(count: int) -> bytes:
    return (bytes(range(256)) * (count // 256 + 1))[:count]


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_megabytes_pass_both_ways(mover: str, kind: str, tmp_path: Path) -> None:
    data = pattern(MUCH)
    path = tmp_path / "db.sock" if kind == "unix" else None
    with upstream(path=path) as up, relay(up.address, mover=mover) as service:
        for _ in range(2):
            with service.connect() as s:
                assert exchange(s, data) == data
        service.wait_closed()
        assert service.counter("relayed_bytes") == 4 * MUCH
        statistics = service.stop()
    # A guest that closes while its last bytes wait to be written has ended the connection, else both sides have.
    assert set(statistics.port("web").ended) <= {"done", "guest"}
    assert statistics.chain("service").dropped == {}


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_who_reads_slowly_on_either_side_loses_nothing(mover: str) -> None:
    data = pattern(MUCH)
    may_read = threading.Event()
    heard: list[bytes] = []

    def reads_late(s: socket.socket) -> None:
        may_read.wait(TIMEOUT)
        heard.append(read_all(s))
        s.sendall(data)

    with upstream(reads_late) as up, relay(up.address, mover=mover) as service, service.connect("", 4096) as s:
        sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
        sender.start()
        service.wait_until(lambda s: s.port("web").received_bytes > 1 << 16)
        may_read.set()
        sender.join(TIMEOUT)
        service.wait_until(lambda s: s.port("web").sent_bytes > 1 << 16)
        assert read_all(s) == data
        assert heard == [data]
        service.wait_closed()
        service.stop()


def test_an_upstream_that_closes_ends_its_client() -> None:
    with upstream(lambda s: s.sendall(b"one answer")) as up, relay(up.address) as service:
        with service.connect() as s:
            assert read_all(s) == b"one answer"
        service.wait_closed()
        service.stop()


def test_a_client_that_closes_ends_its_upstream() -> None:
    ended = threading.Event()

    def waits(s: socket.socket) -> None:
        echo(s)
        ended.set()

    with upstream(waits) as up, relay(up.address) as service:
        with service.connect() as s:
            s.sendall(b"hello")
            assert s.recv(100) == b"hello"
        assert ended.wait(TIMEOUT)
        service.wait_closed()
        service.stop()


def test_a_client_that_sends_no_more_is_answered() -> None:
    def answers_at_the_end(s: socket.socket) -> None:
        s.sendall(b"you said %d bytes" % len(read_all(s)))

    with upstream(answers_at_the_end) as up, relay(up.address) as service:
        with service.connect() as s:
            s.sendall(b"0123456789")
            s.shutdown(socket.SHUT_WR)
            assert read_all(s) == b"you said 10 bytes"
        service.wait_closed()
        service.stop()


def test_an_upstream_that_resets_ends_its_client() -> None:
    def resets(s: socket.socket) -> None:
        s.recv(100)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with upstream(resets) as up, relay(up.address) as service:
        with service.connect() as s:
            s.sendall(b"hello")
            assert read_all(s) == b""
        service.wait_closed()
        service.stop()


def test_one_that_refuses_is_passed_over() -> None:
    with upstream() as up, relay(unused_address(), up.address) as service:
        for _ in range(8):  # from different ports, so that both are chosen first at times
            with service.connect() as s:
                assert exchange(s, b"hello") == b"hello"
        service.wait_closed()
        assert service.counter("given_up") == 0
        service.stop()


@pytest.mark.parametrize("address", ["refuses", "255.255.255.255:9", "/nowhere/db.sock"])
def test_where_none_can_be_reached_the_client_is_sent_away(address: str) -> None:
    where = unused_address() if address == "refuses" else address
    with relay(where, where) as service:
        with service.connect() as s:
            assert read_all(s) == b""
        service.wait_closed()
        assert (service.counter("next_tried"), service.counter("given_up")) == (1, 1)
        service.stop()


def test_one_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # fill the backlog, so that the next connection is not even begun
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with relay(address) as service:
            service.node.set_fake_time(1_000_000_000_000)
            with service.connect() as s:
                s.sendall(b"nobody hears this")
                service.wait_until(lambda s: s.chain("service").stages[0].handled > 0)
                service.node.set_fake_time(1_009_000_000_000)
                assert service.counter("given_up") == 0
                service.node.set_fake_time(1_020_000_000_000)
                assert read_all(s) == b""
            service.wait_until(lambda s: s.chain("service").stages[0].counters["given_up"] == 1)
            service.node.set_fake_time(0)
            service.stop()


def ask_for(s: socket.socket, count: int, more: bytes = b"") -> None:
    s.sendall(count.to_bytes(2, "little") + more)


def test_an_fwp_has_so_many_upstream_connections_at_most() -> None:
    with upstream() as up, relay(up.address, guest="opener.c") as service, service.connect() as s:
        ask_for(s, 300)
        service.wait_until(lambda s: s.chain("service").stages[0].counters["opened"] == 256)
        service.wait_until(lambda _: len(up.accepted) == 256)
        assert (service.counter("asked"), service.counter("refused")) == (256, 44)
        s.close()
        service.wait_closed()
        service.wait_until(lambda _: all(t.fileno() < 0 for t in up.accepted))
        service.stop()


def test_the_upstreams_of_a_killed_fwp_are_closed() -> None:
    ended = threading.Event()

    def waits(s: socket.socket) -> None:
        with suppress(OSError):
            read_exactly(s, 1 << 20)
        ended.set()

    with upstream(waits) as up, relay(up.address, guest="opener.c") as service, service.connect() as s:
        ask_for(s, 1)
        service.wait_until(lambda s: s.chain("service").stages[0].counters["opened"] == 1)
        ask_for(s, 0, b"!")  # it traps
        assert ended.wait(TIMEOUT)
        with suppress(ConnectionResetError):
            assert s.recv(100) == b""
        service.wait_closed()
        assert service.stop().chain("service").kills == {"trap": 1}


# ---- Storms ----


@contextmanager
def silent_listener() -> Iterator[str]:
    """The system accepts for it, as many as fit its queue, and nobody closes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(4096)
        yield f"127.0.0.1:{s.getsockname()[1]}"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def counters(statistics: NodeStatistics) -> Mapping[str, int]:
    return statistics.chain("service").stages[0].counters


def test_upstream_connections_that_a_guest_has_closed_count_until_they_are_gone() -> None:
    with silent_listener() as address, relay(address, guest="storm.c") as service, service.connect() as s:
        before = open_files()
        for turn in range(1, 7):
            s.sendall(bytes([200]))
            statistics = service.wait_until(lambda s, n=200 * turn: counters(s)["asked"] + counters(s)["refused"] == n)
            service.wait_until(lambda s: counters(s)["opened"] == counters(s)["asked"])
            assert open_files() <= before + 256 + 8
        assert counters(statistics)["asked"] == 256
        service.node.set_fake_time(time.monotonic_ns() + 60 * SECOND_NS)  # they had time to be closed by the other end
        service.wait_until(lambda _: open_files() <= before + 8)
        s.sendall(bytes([200]))
        service.wait_until(lambda s: counters(s)["asked"] == 256 + 200)
        service.node.set_fake_time(0)


def test_guests_leave_files_for_the_clients_that_listeners_let_in() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = open_files() + 700
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with (
            silent_listener() as address,
            relay(address, guest="storm.c", max_connections=40) as service,
            ExitStack() as stack,
        ):
            greedy = [stack.enter_context(service.connect()) for _ in range(5)]
            for s in greedy:
                s.sendall(bytes([250]))
            service.wait_until(lambda s: counters(s)["asked"] == 5 * 250)
            for _ in range(35):
                stack.enter_context(service.connect()).sendall(bytes(1))
            statistics = service.wait_until(lambda s: s.port("web").accepted == 40)
            assert statistics.port("web").refused == {}
            service.wait_until(lambda s: counters(s)["closed"] > 0)  # those that could not be had
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def paying(guest: str, address: str) -> Iterator[Service]:
    """A guest behind a listener whose clients are of the tenant acme."""
    listener = _native.open_listener("web", "tcp", "127.0.0.1", 0, max_connections=100)
    with Node() as node:
        node.add_port(listener)
        node.add_upstream(UpstreamSettings(name="up", address=address))
        grant = Grants(connect=("up",))
        node.add_template(TemplateSettings(name="app", source=GUESTS / guest, grant=grant))
        node.add_tenant(TenantSettings(name="acme"))
        node.add_chain(ChainSettings(name="service", path=("web", "app"), max_fwps=4))
        node.add_rule("any", chain="service", tenant="acme")
        node.start()
        yield Service(node, listener)


def test_opening_connections_costs_the_clients_tenant_cpu_time() -> None:
    with paying("storm.c", unused_address()) as service, service.connect() as s:
        for turn in range(1, 11):
            s.sendall(bytes([250]))
            service.wait_until(lambda s, n=250 * turn: counters(s)["closed"] == n)
        used = service.node.statistics().tenant("acme").cpu_ns
    assert used > 2500 * 2_000, "at least what the calls of the system take"


def test_sending_more_often_than_messages_come_costs_the_clients_tenant_cpu_time() -> None:
    with paying("chatter.c", unused_address()) as service, service.connect() as one, service.connect() as other:
        service.wait_until(lambda s: s.port("web").accepted == 2 and s.in_flight == 0)
        for turn in range(1, 11):
            one.sendall(bytes([50]))
            assert len(read_exactly(one, 250)) == len(read_exactly(other, 250)) == 250
            service.wait_until(lambda s, n=500 * turn: counters(s)["said"] == n)
        used = service.node.statistics().tenant("acme").cpu_ns
    assert used > 5000 * 1_000, "at least what the calls of the system take"
