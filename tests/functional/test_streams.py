"""Listeners with real sockets on loopback: connections and datagrams through guests, lossless, with slow readers."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from stream_harness import TIMEOUT, Service, exchange, read_all, read_exactly, serving

from edgeos import TemplateSettings


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


# ---- Slow readers, and much to send ----

MUCH = 8 << 20
SLOW_BUFFER = 4096


def pattern(count: int) -> bytes:
    """What tests/guests/source.c sends."""
    return bytes((i * 31 + i // 256) & 0xFF for i in range(min(count, 1 << 16))) * -(-count // (1 << 16))


def ask(s: socket.socket, count: int) -> None:
    s.sendall(struct.pack("<I", count))


def received_pattern(s: socket.socket, count: int) -> bool:
    return read_all(s) == pattern(count)[:count]


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("isolate", ["shared", "client", "connection"])
def test_much_is_sent_to_slow_readers_and_all_arrives(mover: str, isolate: str) -> None:
    with serving("source.c", isolate=isolate, mover=mover) as service:
        sockets = [service.connect(receive_buffer=SLOW_BUFFER) for _ in range(3)]
        for s in sockets:
            ask(s, MUCH)
        service.wait_until(lambda s: s.chain("service").stages[0].counters["cut_short"] >= len(sockets))
        # Of one client's connections all must be read: who does not read stops his own FWP.
        with ThreadPoolExecutor(len(sockets)) as readers:
            assert all(readers.map(lambda s: received_pattern(s, MUCH), sockets))
        for s in sockets:
            s.close()
        service.wait_closed()
        assert service.counter("rooms") > 0
        statistics = service.stop()
    assert statistics.port("web").sent_bytes == 3 * MUCH


@pytest.mark.parametrize("config", [b"", b"send"])
@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_many_megabytes_are_echoed_without_loss(mover: str, config: bytes) -> None:
    data = pattern(MUCH)
    with serving(config=config, mover=mover, isolate="connection") as service:
        with service.connect() as s:
            assert exchange(s, data) == data
        service.wait_closed()
        statistics = service.stop()
    assert statistics.port("web").received_bytes == statistics.port("web").sent_bytes == MUCH
    assert statistics.chain("service").dropped == {}


def fill(service: Service, s: socket.socket) -> int:
    """Sends to an echo service and reads nothing, until it takes no more; returns how many bytes it took."""
    s.settimeout(0.5)
    piece, sent = pattern(1 << 16), 0
    while True:
        before = sent
        try:
            while True:
                sent += s.send(piece)
        except TimeoutError:
            if sent == before:
                s.settimeout(TIMEOUT)
                return sent


@pytest.mark.parametrize("isolate", ["shared", "client", "connection"])
def test_a_slow_reader_stops_nobody_else(isolate: str) -> None:
    with serving(isolate=isolate) as service, service.connect("127.0.0.1", SLOW_BUFFER) as slow:
        stuck = fill(service, slow)
        with service.connect("127.0.0.2") as other:
            assert exchange(other, pattern(1 << 20)) == pattern(1 << 20)
        assert read_exactly(slow, stuck) == (pattern(1 << 16) * (stuck // (1 << 16) + 1))[:stuck]
        slow.close()
        service.wait_closed()
        service.stop()


def test_many_slow_readers_of_a_shared_fwp_do_not_starve_another() -> None:
    with serving(isolate="shared") as service:
        slow = [service.connect("127.0.0.1", SLOW_BUFFER) for _ in range(48)]
        piece = pattern(1 << 16)
        for s in slow:
            s.setblocking(False)
        for _ in range(200):
            for s in slow:
                with suppress(BlockingIOError):
                    s.send(piece)
        with service.connect("127.0.0.2") as other:
            assert exchange(other, pattern(1 << 20)) == pattern(1 << 20)
        for s in slow:
            s.close()
        service.wait_closed()
        service.stop()


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_many_connections_that_are_all_cut_short_in_one_burst_hear_of_room(mover: str) -> None:
    """More of them than one burst has operations for."""
    with serving("source.c", isolate="shared", mover=mover) as service:
        sockets = [service.connect() for _ in range(200)]
        for s in sockets:
            ask(s, 1 << 18)
        for s in sockets:
            assert received_pattern(s, 1 << 18)
            s.close()
        service.wait_closed()
        service.stop()


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("isolate", ["shared", "connection"])
def test_what_is_forwarded_to_a_next_stage_is_lossless_too(mover: str, isolate: str) -> None:
    stages = [TemplateSettings(name="echo", source=Path(__file__).parent.parent / "guests" / "echo.c")]
    data = pattern(1 << 20)
    with serving("forward.c", isolate=isolate, mover=mover, stages=stages) as service:
        sockets = [service.connect() for _ in range(4)]
        for s in sockets:
            assert exchange(s, data) == data
            s.close()
        service.wait_closed()
        statistics = service.stop()
    assert statistics.chain("service").dropped == {}
