"""Caches kept apart, bad input through real sockets beside a client that must not notice, memory handed over clean."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from memcached_harness import PROGRAM, program
from memcached_node import APPLIANCE, CacheNode, ask, read_to_end, serving
from test_memcached_conversations import of_program

from edgeos import ChainSettings, Node, NodeSettings, TemplateSettings, TenantSettings, _native

SECOND_NS = 10**9
GET = b"get a\r\n"
FOUND, MISSING = b"VALUE a 0 1\r\nx\r\nEND\r\n", b"END\r\n"


def store(node: CacheNode, client: str = "127.0.0.1", value: bytes = b"x") -> None:
    with node.connect(client) as s:
        assert ask(s, b"set a 0 0 1\r\n" + value + b"\r\n", b"\r\n") == b"STORED\r\n"


def look(node: CacheNode, client: str = "127.0.0.1") -> bytes:
    with node.connect(client) as s:
        return ask(s, GET, b"END\r\n")


# ---- Who shares a cache ----


def test_clients_have_caches_of_their_own() -> None:
    with serving(isolate="client") as node:
        for number, value in enumerate((b"x", b"y", b"z"), start=1):
            store(node, f"127.0.0.{number}", value)
        assert [look(node, f"127.0.0.{n}")[13:14] for n in (1, 2, 3)] == [b"x", b"y", b"z"]
        with node.connect("127.0.0.1") as one, node.connect("127.0.0.2") as two:
            assert ask(one, b"flush_all\r\n", b"\r\n") == b"OK\r\n"
            assert ask(one, GET, b"END\r\n") == MISSING
            assert ask(two, GET, b"END\r\n")[13:14] == b"y"
            assert b"STAT curr_items 1\r\n" in ask(two, b"stats\r\n", b"END\r\n")
        assert [c.counters["cache"]["items"] for c in node.node.clients("caches")].count(1) == 2
        assert node.node.statistics().chain("caches").activations == 3


def test_connections_have_caches_of_their_own() -> None:
    with serving(isolate="connection") as node, node.connect() as one, node.connect() as two:
        assert ask(one, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
        assert ask(two, GET, b"END\r\n") == MISSING
        assert ask(one, GET, b"END\r\n") == FOUND


def test_all_share_one_cache_when_told_to() -> None:
    with serving(isolate="shared") as node:
        store(node, "127.0.0.1")
        assert look(node, "127.0.0.2") == FOUND


def test_clients_of_a_unix_socket_are_told_apart_by_connection(tmp_path: Path) -> None:
    with serving("unix", str(tmp_path / "cache.sock"), isolate="connection") as node:
        store(node)
        assert look(node) == MISSING


# ---- Coming back, and handing over ----


def test_a_client_that_comes_back_in_time_finds_its_data() -> None:
    with serving() as node:
        for _ in range(3):
            store(node)
            node.wait_until(lambda s: s.port("clients").connections == 0 and s.in_flight == 0)
            assert look(node) == FOUND
        assert node.node.statistics().chain("caches").activations == 1


def test_after_its_idle_timeout_the_memory_is_handed_over_clean() -> None:
    """One FWP for all: whoever comes next gets the memory of the one before."""
    secret = b"S3cr3t" * 50
    with serving(chain={"max_fwps": 1, "idle_timeout_ns": SECOND_NS}, template={"ready_high": 1}) as node:
        for number in range(1, 4):
            with node.connect(f"127.0.0.{number}") as s:
                keys = b" ".join(b"k%d" % i for i in range(20))
                assert ask(s, b"get " + keys + b"\r\n", b"END\r\n") == MISSING
                stats = ask(s, b"stats\r\n", b"END\r\n")
                assert b"STAT total_items 0\r\n" in stats
                assert b"STAT curr_connections 1\r\n" in stats
                assert ask(s, b"stats cachedump 1 0\r\n", b"END\r\n") == MISSING
                s.sendall(b"".join(b"set k%d 0 0 300 noreply\r\n" % i + secret + b"\r\n" for i in range(20)))
                assert ask(s, b"get k0\r\n", b"END\r\n").endswith(secret + b"\r\nEND\r\n")
            node.wait_until(lambda s, gone=number: s.chain("caches").expired == gone)  # type: ignore[misc]
            node.wait_until(lambda s: s.chain("caches").live == 0 and s.chain("caches").stages[0].ready > 0)


def test_a_client_stays_within_its_memory() -> None:
    with serving(template={"memory": 256 * 1024}) as node, node.connect() as s, node.connect("127.0.0.2") as other:
        assert ask(other, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
        for i in range(2000):
            assert ask(s, b"set k%d 0 0 1000\r\n" % i + b"v" * 1000 + b"\r\n", b"\r\n") == b"STORED\r\n"
        stats = dict(
            line.split()[1:3] for line in ask(s, b"stats\r\n", b"END\r\n").split(b"\r\n") if line.startswith(b"STAT")
        )
        assert int(stats[b"evictions"]) + int(stats[b"curr_items"]) == 2000
        assert 100 * 1024 < int(stats[b"bytes"]) < 256 * 1024
        assert ask(s, b"get k1999\r\n", b"END\r\n").startswith(b"VALUE k1999")
        assert ask(s, b"get k0\r\n", b"END\r\n") == MISSING
        assert ask(other, GET, b"END\r\n") == FOUND
        counters = node.node.statistics().chain("caches").stages[0].counters
        assert counters["evicted"] == int(stats[b"evictions"])


# ---- Bad input ----


@contextmanager
def witness(node: CacheNode) -> Iterator[None]:
    """A client that goes on storing and reading all the while, and must get every answer."""
    stop, rounds, faults = threading.Event(), [0], []

    def work() -> None:
        try:
            with node.connect("127.0.0.99") as s:
                while not stop.is_set() or rounds[0] == 0:
                    value = b"%06d" % rounds[0]
                    got = ask(s, b"set w 0 0 6\r\n" + value + b"\r\nget w\r\n", b"END\r\n")
                    assert got == b"STORED\r\nVALUE w 0 6\r\n" + value + b"\r\nEND\r\n"
                    rounds[0] += 1
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert faults == []
    assert rounds[0] > 0


def hostile(seed: int) -> bytes:
    """Noise, in lines so that it is read as commands."""
    source = random.Random(seed)
    return b"".join(source.randbytes(source.randrange(1, 200)) + b"\r\n" for _ in range(50))


CLOSING = {
    "a megabyte without a line end": b"x" * 1_000_000,
    "binary noise": b"\x80" + random.Random(1).randbytes(100_000),
    "a binary body that lies": b"\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x02" + bytes(12) + b"k" * 100,
    "another magic behind a binary request": b"\x80\x0a" + bytes(22) + b"get a\r\n" + b"z" * 30,
    "a request over HTTP": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", CLOSING)
def test_what_closes_the_connection(name: str) -> None:
    """Closed here, as the program does; the cache and everyone else stay."""
    with serving() as node:
        store(node)
        with witness(node), node.connect() as s:
            send_all(s, CLOSING[name])
            read_to_end(s)
        assert look(node) == FOUND
        assert node.node.statistics().chain("caches").activations == 2
    if PROGRAM is not None and "noise" not in name:
        with program() as path, of_program(path)() as s:
            send_all(s, CLOSING[name])
            read_to_end(s)


def send_all(s: Any, data: bytes) -> None:
    """Sends what is taken: the other end may close in the middle."""
    with suppress(OSError):
        s.sendall(data)


@pytest.mark.parametrize("seed", range(6))
def test_noise_in_lines(seed: int) -> None:
    with serving() as node:
        store(node)
        with witness(node), node.connect() as s:
            send_all(s, hostile(seed) + b"quit\r\n")
            s.shutdown(1)
            read_to_end(s)
        assert look(node) in (FOUND, MISSING)
        assert node.node.statistics().chain("caches").activations == 2


def pipeline(connect: Callable[[], Any]) -> bytes:
    """Answers to ten thousand commands that are sent without waiting for one."""
    commands = b"".join(b"set k%d 0 0 4\r\n%04d\r\n" % (i % 50, i % 10_000) for i in range(5000))
    commands += b"".join(b"get k%d\r\n" % (i % 60) for i in range(4999)) + b"quit\r\n"
    with connect() as s:
        sender = threading.Thread(target=s.sendall, args=(commands,))
        sender.start()
        got = read_to_end(s)
        sender.join()
    return got


def test_ten_thousand_pipelined_commands() -> None:
    with serving() as node:
        store(node)
        with witness(node):
            got = pipeline(node.connect)
        assert got.count(b"STORED\r\n") == 5000
        assert got.count(b"END\r\n") == 4999
        assert look(node) == FOUND
    if PROGRAM is not None:
        with program("-m", "64") as path:
            assert got == pipeline(of_program(path))


@pytest.mark.parametrize("half", [b"", b"set a 0 0 100\r\nabc", b"get ", b"\x80\x01\x00\x01", b"mg a v"])
def test_half_a_command_and_silence(half: bytes) -> None:
    """The listener's timeouts end it; the cache stays for the client's next connection."""
    timeouts = {"open_timeout_ns": SECOND_NS, "idle_timeout_ns": 2 * SECOND_NS}
    with serving(**timeouts) as node:
        store(node)
        with witness(node), node.connect() as s:
            send_all(s, half)
            begin = time.monotonic()
            assert read_to_end(s) == b""
            assert time.monotonic() - begin > 0.5
        assert look(node) == FOUND
        ended = node.wait_until(lambda s: s.port("clients").connections == 0).port("clients").ended
        assert ended.get("open_timeout" if half == b"" else "idle_timeout", 0) == 1


def test_a_slow_reader_gets_everything_and_holds_up_nobody_else() -> None:
    """A client that asks for far more than it reads: its own cache waits, its values come whole in the end."""
    value = b"v" * 100_000
    asked = 60
    with serving(template={"memory": 2 << 20}) as node, node.connect() as s:
        assert ask(s, b"set big 0 0 100000\r\n" + value + b"\r\n", b"\r\n") == b"STORED\r\n"
        with witness(node):
            sender = threading.Thread(target=s.sendall, args=(b"get big\r\n" * asked + b"quit\r\n",))
            sender.start()
            time.sleep(0.2)
            got = read_to_end(s)
            sender.join()
        assert got == (b"VALUE big 0 100000\r\n" + value + b"\r\nEND\r\n") * asked


def test_it_takes_what_a_client_may_send_in_tiny_pieces() -> None:
    data = b"set a 0 0 1\r\nx\r\nget a\r\nmg a v\r\n"
    with serving() as node, node.connect() as s:
        for byte in data:
            s.sendall(bytes([byte]))
        got = b""
        while not got.endswith(b"VA 1\r\nx\r\n"):
            got += s.recv(1 << 16)
        assert got == b"STORED\r\n" + FOUND + b"VA 1\r\nx\r\n"


def test_a_tenants_caches_stay_within_its_memory() -> None:
    """Four caches that are full, of a tenant that may have as much; a fifth client finds no room, others go on."""
    each, quota = 256 * 1024, 4 * 256 * 1024
    port = _native.open_listener("clients", "tcp", "127.0.0.1", 0)
    with Node(NodeSettings()) as node:
        node.add_port(port)
        node.add_template(TemplateSettings(name="cache", memory=each, **APPLIANCE))  # type: ignore[arg-type]
        node.add_chain(ChainSettings(name="caches", path=("clients", "cache"), idle_timeout_ns=600 * SECOND_NS))
        node.add_tenant(TenantSettings(name="acme", memory=quota))
        node.add_rule("src 127.0.1.0/24", chain="caches", tenant="acme")
        node.add_rule("any", chain="caches")
        node.start()
        caches = CacheNode(node, port)
        for number in range(1, 5):
            with caches.connect(f"127.0.1.{number}") as s:
                for i in range(600):
                    assert ask(s, b"set k%d 0 0 1000\r\n" % i + b"v" * 1000 + b"\r\n", b"\r\n") == b"STORED\r\n"
            assert node.statistics().tenant("acme").memory <= quota
        assert node.statistics().tenant("acme").memory == quota
        with suppress(ConnectionResetError), caches.connect("127.0.1.5") as refused:
            send_all(refused, GET)
            assert read_to_end(refused) == b""
        caches.wait_until(lambda s: s.tenant("acme").refused == {"tenant_memory": 1})
        store(caches, "127.0.2.1")
        assert look(caches, "127.0.2.1") == FOUND
        for number in range(1, 5):
            with caches.connect(f"127.0.1.{number}") as s:
                assert ask(s, b"get k599\r\n", b"END\r\n").startswith(b"VALUE k599 ")
        statistics = node.stop()
    assert statistics.balance == 0
    assert sum(statistics.chain("caches").kills.values()) == 0
