"""Programs and libraries that know memcached, against the appliance behind a running node."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from libmemcached import check_capable, memccapable, needs_memccapable
from memcached_node import APPLIANCE, TIMEOUT, CacheNode, serving
from pymemcache import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError, MemcacheUnknownCommandError

from edgeos import ChainSettings, Node, TemplateSettings, _native

KINDS = ["tcp", "unix"]


@contextmanager
def client_of(node: CacheNode, **settings: Any) -> Iterator[Client]:
    """A pymemcache client of the node's listener."""
    server = node.listener.listen if node.listener.kind == "unix" else ("127.0.0.1", node.port)
    with closing(Client(server, timeout=TIMEOUT, connect_timeout=TIMEOUT, default_noreply=False, **settings)) as client:
        yield client


def address_of(kind: str, folder: Path) -> str:
    return str(folder / "cache.sock") if kind == "unix" else "127.0.0.1"


@pytest.mark.parametrize("kind", KINDS)
def test_pymemcache_does_not_notice(kind: str, tmp_path: Path) -> None:
    with serving(kind, address_of(kind, tmp_path), isolate="shared") as node, client_of(node) as client:
        assert client.set("a", b"1")
        assert client.get("a") == b"1"
        assert client.get("nothing", default=b"-") == b"-"
        value, cas = client.gets("a")
        assert value == b"1"
        assert client.cas("a", b"2", cas) is True
        assert client.cas("a", b"3", cas) is False
        assert client.cas("nothing", b"3", cas) is None
        assert not client.add("a", b"x")
        assert client.add("b", b"b")
        assert client.replace("b", b"B")
        assert not client.replace("nothing", b"x")
        assert client.append("b", b">")
        assert client.prepend("b", b"<")
        assert client.get("b") == b"<B>"
        assert client.incr("a", 40) == 42
        assert client.decr("a", 100) == 0
        assert client.incr("nothing", 1) is None
        assert client.touch("a", 1000)
        assert not client.touch("nothing")
        assert client.set_many({"m1": b"1", "m2": b"2"}) == []
        assert client.get_many(["m1", "m2", "nothing"]) == {"m1": b"1", "m2": b"2"}
        assert set(client.gets_many(["m1", "m2"])) == {"m1", "m2"}
        assert client.delete_many(["m1", "m2"])
        assert client.get_many(["m1", "m2"]) == {}
        assert client.delete("a")
        assert not client.delete("a")
        assert client.version() == b"1.6.18"
        assert client.stats()[b"curr_items"] == 1
        assert client.flush_all()
        assert client.get("b") is None
        client.set("quiet", b"1", noreply=True)
        client.delete("quiet", noreply=True)
        client.flush_all(delay=0, noreply=True)
        assert client.get("quiet") is None


def test_pymemcache_stores_what_it_serialises() -> None:
    def serialise(_key: str, value: Any) -> tuple[bytes, int]:
        return (value, 0) if isinstance(value, bytes) else (str(value).encode(), 1)

    def restore(_key: str, value: bytes, flags: int) -> Any:
        return int(value) if flags == 1 else value

    four = {"memory": 4 << 20}
    with serving(template=four) as node, client_of(node, serializer=serialise, deserializer=restore) as client:
        client.set("number", 42)
        client.set("bytes", bytes(range(256)) * 4000)
        assert client.get("number") == 42
        assert client.get("bytes") == bytes(range(256)) * 4000
        with pytest.raises((MemcacheClientError, MemcacheServerError)):
            client.set("large", b"x" * 2_000_000)
        with pytest.raises(MemcacheUnknownCommandError):
            client.raw_command("nonsense")
        assert client.get("number") == 42


def test_pymemcache_over_many_threads() -> None:
    with serving(chain={"max_fwps": 8}) as node:

        def work(number: int) -> None:
            with client_of(node) as client:
                for i in range(200):
                    client.set(f"k{number}-{i}", b"%d" % i)
                    client.incr("together", 1)
                assert [client.get(f"k{number}-{i}") for i in range(200)] == [b"%d" % i for i in range(200)]

        with client_of(node) as client:
            client.set("together", b"0")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with client_of(node) as client:
            assert client.get("together") == b"1600"
        assert node.node.statistics().chain("caches").activations == 1


@needs_memccapable
@pytest.mark.parametrize("isolate", ["client", "shared"])
def test_libmemcached_finds_it_capable(isolate: str) -> None:
    """Text and binary, quiet commands too. It sets and looks up over two connections, so not by connection."""
    with serving(isolate=isolate) as node:
        command = memccapable("127.0.0.1", node.port)
        check_capable(subprocess.run(command, capture_output=True, text=True, timeout=120, check=False))


@pytest.mark.skipif(
    shutil.which("memcslap") is None,
    reason="libmemcached's memcslap is not installed (apt-get install libmemcached-tools)",
)
@pytest.mark.parametrize("extra", [[], ["--binary"]])
def test_libmemcached_loads_it(extra: list[str]) -> None:
    with serving(template={"memory": 8 << 20}) as node:
        command = ["memcslap", f"--servers=127.0.0.1:{node.port}", "--execute-number=300", "--concurrency=4", *extra]
        for test in ("set", "get"):
            found = subprocess.run(
                [*command, f"--test={test}"], capture_output=True, text=True, timeout=120, check=False
            )
            assert found.returncode == 0, found.stdout + found.stderr
        counters = node.node.statistics().chain("caches").stages[0].counters
    assert counters["stored"] >= 1200
    assert counters["hits"] >= 1200


def datagram(request: int, text: bytes, *, place: int = 0, count: int = 1) -> bytes:
    return b"".join(n.to_bytes(2, "big") for n in (request, place, count, 0)) + text


def test_udp_requests_and_their_frames() -> None:
    with serving("udp") as node, node.connect() as s:
        s.send(datagram(7, b"set a 5 0 3\r\nabc\r\n"))
        assert s.recv(2000) == datagram(7, b"STORED\r\n")
        s.send(datagram(65535, b"get a\r\n"))
        assert s.recv(2000) == datagram(65535, b"VALUE a 5 3\r\nabc\r\nEND\r\n")
        s.send(datagram(1, b"set big 0 0 3000\r\n" + b"v" * 3000 + b"\r\n"))
        assert s.recv(2000) == datagram(1, b"STORED\r\n")
        s.send(datagram(2, b"get big\r\n"))
        parts = sorted(s.recv(2000) for _ in range(3))
        assert [part[:8] for part in parts] == [datagram(2, b"", place=i, count=3) for i in range(3)]
        assert b"".join(part[8:] for part in parts) == b"VALUE big 0 3000\r\n" + b"v" * 3000 + b"\r\nEND\r\n"
        s.send(datagram(3, b"set quiet 0 0 1 noreply\r\nx\r\n"))
        s.send(datagram(4, b"version\r\n", count=2))  # requests of several datagrams are not answered
        s.send(b"short")
        s.send(datagram(5, b"\x80\x0b" + bytes(22)))  # a binary request
        assert s.recv(2000)[:8] == datagram(5, b"")
        s.send(datagram(6, b"get quiet\r\n"))
        assert s.recv(2000) == datagram(6, b"VALUE quiet 0 1\r\nx\r\nEND\r\n")
        with node.connect("127.0.0.2") as other:
            other.send(datagram(1, b"get a\r\n"))
            assert other.recv(2000) == datagram(1, b"END\r\n")


def test_two_listeners_are_one_cache_for_a_client() -> None:
    """TCP and UDP on one port of the same chain, as memcached has them."""
    tcp = _native.open_listener("tcp", "tcp", "127.0.0.1", 0)
    udp = _native.open_listener("udp", "udp", "127.0.0.1", tcp.port_number)
    with Node() as node:
        node.add_port(tcp)
        node.add_port(udp)
        node.add_template(TemplateSettings(name="cache", **APPLIANCE))  # type: ignore[arg-type]
        node.add_chain(ChainSettings(name="caches", links=("tcp -> cache", "udp -> cache")))
        node.add_rule("any", chain="caches")
        node.start()
        with socket.create_connection(("127.0.0.1", tcp.port_number), TIMEOUT) as s:
            s.sendall(b"set a 0 0 1\r\nx\r\n")
            assert s.recv(100) == b"STORED\r\n"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
                u.settimeout(TIMEOUT)
                u.connect(("127.0.0.1", udp.port_number))
                u.send(datagram(1, b"get a\r\n"))
                assert u.recv(2000) == datagram(1, b"VALUE a 0 1\r\nx\r\nEND\r\n")
        assert node.stop().balance == 0
