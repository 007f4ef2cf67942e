"""The clients behind a TAP device of `edgeos bench listen` against services that do right, and that do not."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from privileges import IS_ROOT, needs_tap, needs_xdp

from edgeos.bench import listen
from edgeos.bench.listen_links import TapLink, tap_link
from edgeos.bench.listen_subjects import BARE, LISTENER, PROCESSES, TCP_FWPS, Services
from edgeos.bench.programs import Programs
from edgeos.errors import EdgeosError

pytest.importorskip("edgeos.netns", reason="needs pyroute2")
pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(not IS_ROOT, reason="needs root, for network namespaces"),
    needs_tap,
]

SHORT = listen.Plan(connections=(), repetitions=1, warm_up_ms=20, milliseconds=200)
ANSWER_MAX = 1 << 16

Answer = Callable[[socket.socket, bytes, int], None]
"""Answers what came on a connection; the number counts what has come in all."""


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs() as found:
        yield found


@pytest.fixture(scope="module")
def link(programs: Programs) -> Iterator[TapLink]:
    with tap_link(programs) as found:
        yield found


@contextmanager
def service(link: TapLink, answer: Answer) -> Iterator[int]:
    """A service in a thread, which answers as it is told; its port."""
    with link.entered():
        listener = socket.create_server((link.address, 0), backlog=256)
    ends, other = socket.socketpair()

    def serve() -> None:
        connections: list[socket.socket] = []
        number = 0
        with listener:
            while True:
                ready, _, _ = select.select([listener, ends, *connections], [], [])
                if ends in ready:
                    break
                if listener in ready:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connections.append(connection)
                for connection in set(ready) & set(connections):
                    try:
                        data = connection.recv(ANSWER_MAX)
                        number += 1
                        if data:
                            answer(connection, data, number)
                    except OSError:
                        data = b""
                    if not data:
                        connection.close()
                        connections.remove(connection)
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        other.close()
        thread.join()
        ends.close()


def right(connection: socket.socket, data: bytes, number: int) -> None:
    connection.sendall(data)


def in_parts(connection: socket.socket, data: bytes, number: int) -> None:
    connection.sendall(data[:10])
    connection.sendall(data[10:])


def spoilt(connection: socket.socket, data: bytes, number: int) -> None:
    connection.sendall(data if number % 50 else data[:-1] + bytes([data[-1] ^ 1]))


def spoilt_in_its_second_part(connection: socket.socket, data: bytes, number: int) -> None:
    in_parts(connection, data if number % 50 else data[:40] + b"\0" + data[41:], number)


def too_long(connection: socket.socket, data: bytes, number: int) -> None:
    connection.sendall(data + b"x" if number == 50 else data)


def ended(connection: socket.socket, data: bytes, number: int) -> None:
    if number < 50:
        connection.sendall(data)
    else:
        connection.shutdown(socket.SHUT_WR)


def silent(connection: socket.socket, data: bytes, number: int) -> None:
    if number != 50:
        connection.sendall(data)


@pytest.mark.parametrize("answer", [right, in_parts])
@pytest.mark.parametrize("connections", [1, 40])
def test_a_right_service_is_measured(link: TapLink, answer: Answer, connections: int):
    with service(link, answer) as port:
        load = listen.measure(link, port, connections, SHORT)
    assert load.rate > 0
    assert 0 < load.p50_ns <= load.p99_ns
    assert 0 <= load.generator_busy <= 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (spoilt, "spoilt a message"),
        (spoilt_in_its_second_part, "spoilt a message"),
        (too_long, "more than it was sent"),
        (ended, "ended a connection"),
        (silent, "nothing has come"),
    ],
)
def test_a_wrong_answer_is_an_error_that_says_so(link: TapLink, answer: Answer, said: str):
    with service(link, answer) as port, pytest.raises(EdgeosError, match=said):
        listen.measure(link, port, 5, SHORT)


def test_a_port_without_a_service_refuses(link: TapLink):
    with link.entered(), socket.create_server((link.address, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EdgeosError, match="refuses a connection"):
        listen.measure(link, port, 5, SHORT)


def test_the_services_of_the_benchmark_answer_clients_elsewhere(link: TapLink, programs: Programs):
    services = Services(programs)
    for subject in (LISTENER, PROCESSES, BARE):
        with services.started(subject, link, 100) as port:
            assert listen.measure(link, port, 100, SHORT).rate > 0


@needs_xdp
def test_fwps_that_speak_tcp_answer_clients_elsewhere_time_after_time(link: TapLink, programs: Programs):
    """Each time the device's queue has to be free again at once; that each connection had an FWP is checked within."""
    services = Services(programs)
    for _ in range(3):
        with services.started(TCP_FWPS, link, 100) as port:
            assert listen.measure(link, port, 100, SHORT).rate > 0
