"""The memcached appliance with a TCP of its own: a library and a program that know memcached do not notice."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from libmemcached import check_capable, memccapable, needs_memccapable
from memcached_node import ask
from memcached_node import serving as listening
from pymemcache import Client
from tcp_lab import PORT, SERVER, Serving, needs_afxdp, serving

from edgeos.share import share

MEMCACHED = share("appliances", "memcached", "memcached.c")
ROOM = {"memory": 8 << 20}

pytestmark = needs_afxdp


@contextmanager
def client_of(service: Serving, family: socket.AddressFamily = socket.AF_INET) -> Iterator[Client]:
    """A pymemcache client, whose connection is made in the client's namespace."""
    server = (SERVER[family], PORT)
    with closing(Client(server, timeout=30, connect_timeout=30, default_noreply=False)) as client:
        with service.lab.client.entered():
            client.version()
        yield client


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_pymemcache_stores_a_thousand_keys_and_a_large_value(tmp_path: Path, family: socket.AddressFamily) -> None:
    large = random.Random(1).randbytes(500_000)
    with serving(MEMCACHED, tmp_path, template=ROOM) as service, client_of(service, family) as client:
        for number in range(1000):
            assert client.set(f"key-{number}", b"value %d" % number)
        assert client.set("large", large)
        for number in range(1000):
            assert client.get(f"key-{number}") == b"value %d" % number
        assert client.get_many([f"key-{number}" for number in range(1000)]) == {
            f"key-{number}": b"value %d" % number for number in range(1000)
        }
        assert client.get("large") == large
        assert client.incr("nothing", 1) is None
        assert client.delete("large")


COMMANDS = [
    (b"set a 5 0 3\r\nabc\r\n", b"STORED\r\n"),
    (b"get a nothing\r\n", b"END\r\n"),
    (b"gets a\r\n", b"END\r\n"),
    (b"set n 0 0 2\r\n41\r\nincr n 1\r\n", b"42\r\n"),
    (b"mg a v f t\r\nmn\r\n", b"MN\r\n"),
    (b"nonsense\r\n", b"ERROR\r\n"),
    (b"set big 0 0 300000\r\n" + bytes(range(256)) * 1171 + bytes(224) + b"\r\n", b"STORED\r\n"),
    (b"get big\r\n", b"END\r\n"),
    (b"".join(b"set p%d 0 0 4\r\nwell\r\nget p%d\r\n" % (n, n) for n in range(2000)) + b"mn\r\n", b"MN\r\n"),
]


def test_its_answers_are_those_over_a_listener(tmp_path: Path) -> None:
    with (
        serving(MEMCACHED, tmp_path, template=ROOM) as service,
        listening(template=ROOM) as listener,
        service.connect() as ours,
        listener.connect() as theirs,
    ):
        for command, end in COMMANDS:
            assert ask(ours, command, end) == ask(theirs, command, end)


def test_a_client_that_comes_back_finds_its_data(tmp_path: Path) -> None:
    """It is parked as soon as its last connection has ended, and what its TCP knows of time with it."""
    with serving(MEMCACHED, tmp_path, relayed=True, template=ROOM, keep=True) as service:
        for number in range(5):
            with service.connect() as s:
                assert ask(s, b"set k%d 0 0 1\r\n%d\r\n" % (number, number), b"STORED\r\n")
                lost = service.relay.lose_one(False, lambda frame: b"END\r\n" in frame)
                found = ask(s, b"get " + b" ".join(b"k%d" % n for n in range(number + 1)) + b"\r\n", b"END\r\n")
                assert found.count(b"VALUE") == number + 1
                assert len(lost) == 1
            service.wait_until(lambda: service.node.statistics().chain("service").live == 0)
        parking = service.node.statistics().chain("service").parking
        assert (parking.parked, parking.resumed) == (5, 4)


@needs_memccapable
def test_libmemcached_finds_it_capable(tmp_path: Path) -> None:
    """Text and binary, quiet commands too, over two connections of one client."""
    with serving(MEMCACHED, tmp_path, template=ROOM) as service:
        check_capable(service.lab.client.run(memccapable(SERVER[socket.AF_INET], PORT), timeout=60))
