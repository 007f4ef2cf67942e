"""Listening sockets that several workers share: which worker a client comes to, and what a worker leaves behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from edgeos import ChainSettings, Node, PortSettings, TemplateSettings
from edgeos.errors import PortError
from edgeos.listening import make_listening_sockets
from edgeos.port import open_native_port
from edgeos.service.sockets import WorkerSockets
from edgeos.settings import Manifest

GUESTS = Path(__file__).parent.parent / "guests"
WORKERS = 4
TIMEOUT = 30.0
CLIENTS = [f"127.0.{high}.{low}" for high in range(2, 6) for low in range(1, 9)]
"""Addresses of loopback, which all belong to this machine."""


def free_port(kind: str, address: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
        s.bind((address, 0))
        return int(s.getsockname()[1])


@contextmanager
def group(kind: str, address: str = "127.0.0.1", **settings: object) -> Iterator[tuple[WorkerSockets, int]]:
    """Sockets for all workers at a free port; another program may take it first, so several are tried."""
    for attempt in range(10):
        number = free_port(kind, address)
        listen = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
        port = PortSettings(name="web", kind=kind, listen=listen, **settings)  # type: ignore[arg-type]
        try:
            sockets = WorkerSockets.open(Manifest(ports=(port,)), WORKERS)
        except PortError:
            if attempt == 9:
                raise
            continue
        with closing(sockets):
            yield sockets, number
        return


def listening(sockets: WorkerSockets, stack: ExitStack) -> list[socket.socket]:
    """The sockets themselves, as each worker has them."""
    all_of_them = []
    for worker in range(WORKERS):
        s = stack.enter_context(socket.socket(fileno=os.dup(sockets.of_worker(worker)["web"])))
        s.setblocking(False)
        all_of_them.append(s)
    return all_of_them


def accepted_by(workers: list[socket.socket]) -> int:
    """The worker that has somebody waiting; it lets him in."""
    found = []
    for number, s in enumerate(workers):
        try:
            connection, _ = s.accept()
        except BlockingIOError:
            continue
        connection.close()
        found.append(number)
    assert len(found) == 1
    return found[0]


def test_a_client_always_comes_to_the_same_worker_and_clients_are_shared_out() -> None:
    with group("tcp") as (sockets, port), ExitStack() as stack:
        workers = listening(sockets, stack)
        worker_of = {}
        for _ in range(3):
            for client in CLIENTS:
                with socket.create_connection(("127.0.0.1", port), TIMEOUT, (client, 0)):
                    worker = accepted_by(workers)
                assert worker_of.setdefault(client, worker) == worker
        assert set(worker_of.values()) == set(range(WORKERS))


def test_datagrams_of_a_client_always_come_to_the_same_worker() -> None:
    with group("udp") as (sockets, port), ExitStack() as stack:
        workers = listening(sockets, stack)
        used = set()
        for client in CLIENTS:
            for _ in range(3):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.bind((client, 0))
                    s.sendto(client.encode(), ("127.0.0.1", port))
            counts = [len(_datagrams(s)) for s in workers]
            assert sorted(counts) == [0] * (WORKERS - 1) + [3]
            used.add(counts.index(3))
        assert used == set(range(WORKERS))


def test_an_ipv6_client_always_comes_to_the_same_worker() -> None:
    try:
        free_port("tcp", "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with group("tcp", "::1") as (sockets, port), ExitStack() as stack:
        workers = listening(sockets, stack)
        found = set()
        for _ in range(8):
            with socket.create_connection(("::1", port), TIMEOUT):
                found.add(accepted_by(workers))
        assert len(found) == 1


def test_connections_are_shared_out_where_a_header_names_the_client() -> None:
    with group("tcp", proxy_protocol=True) as (sockets, port), ExitStack() as stack:
        workers = listening(sockets, stack)
        found = set()
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", port), TIMEOUT):
                found.add(accepted_by(workers))
            if len(found) == WORKERS:
                break
        assert len(found) == WORKERS


def _datagrams(s: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(s.recv(100))
        except BlockingIOError:
            return found


@contextmanager
def worker(sockets: WorkerSockets, number: int, kind: str = "tcp", listen: str = "127.0.0.1:1") -> Iterator[Node]:
    port = PortSettings(name="web", kind=kind, listen=listen, fd=sockets.of_worker(number)["web"])  # type: ignore[arg-type]
    with Node() as node:
        node.add_port(open_native_port(port))
        node.add_template(TemplateSettings(name="app", source=GUESTS / "echo.c"))
        node.add_chain(ChainSettings(name="service", path=("web", "app"), isolate="client", max_fwps=64))
        node.add_rule("any", chain="service")
        node.start()
        yield node


def connect_all(kind: str, port: int, path: str) -> list[socket.socket]:
    if kind == "tcp":
        return [socket.create_connection(("127.0.0.1", port), TIMEOUT, (client, 0)) for client in CLIENTS]
    made = [socket.socket(socket.AF_UNIX) for _ in CLIENTS]
    for s in made:
        s.settimeout(TIMEOUT)
        s.connect(path)
    return made


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_waits_while_a_worker_is_away_is_served_by_the_next(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with ExitStack() as stack:
        port = 0
        if kind == "tcp":
            sockets, port = stack.enter_context(group("tcp"))
        else:
            settings = PortSettings(name="web", kind="unix", listen=str(path))
            sockets = stack.enter_context(closing(WorkerSockets.open(Manifest(ports=(settings,)), WORKERS)))
        for round_number in range(2):
            clients = connect_all(kind, port, str(path))  # nobody is there yet
            for s in clients:
                s.sendall(b"hello")
            with ExitStack() as workers:
                listen = str(path) if kind == "unix" else f"127.0.0.1:{port}"
                nodes = [workers.enter_context(worker(sockets, number, kind, listen)) for number in range(WORKERS)]
                for s in clients:
                    with closing(s):
                        assert s.recv(100) == b"hello"
                accepted = [node.stop().port("web").accepted for node in nodes]
            assert sum(accepted) == len(CLIENTS), round_number
            if kind == "tcp":
                assert all(accepted)
    assert not path.exists()


def test_after_stop_nobody_is_let_in() -> None:
    with group("tcp") as (sockets, port), worker(sockets, 0):
        sockets.refuse()
        for client in CLIENTS:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), TIMEOUT, (client, 0))


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_node_stops_listening_and_serves_who_is_in(kind: str) -> None:
    with group(kind) as (sockets, port), ExitStack() as stack:
        node, *_ = [stack.enter_context(worker(sockets, number, kind)) for number in range(WORKERS)]

        def client(address: str) -> socket.socket:
            s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
            s.settimeout(TIMEOUT)
            s.bind((address, 0))
            s.connect(("127.0.0.1", port))
            s.sendall(b"first")
            return stack.enter_context(closing(s))

        clients = [client(address) for address in CLIENTS]
        assert all(s.recv(100) == b"first" for s in clients)
        mine = node.statistics().port("web").accepted
        assert mine > 0
        node.stop_listening()
        for s in clients:
            s.sendall(b"second")
            assert s.recv(100) == b"second"
        late = [client(address) for address in CLIENTS]
        served = 0
        for s in late:
            s.settimeout(0.1)
            try:
                served += s.recv(100) == b"first"
            except TimeoutError:
                continue
        assert served <= len(CLIENTS) - mine
        assert node.statistics().port("web").accepted == mine


def test_an_address_in_use_is_said_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = PortSettings(name="web", kind="tcp", listen=f"127.0.0.1:{s.getsockname()[1]}")
        with pytest.raises(PortError, match=r"port\.web: .*cannot listen \(another program listens there"):
            make_listening_sockets(port, WORKERS)
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_groups_do_not_share_an_address() -> None:
    with group("tcp") as (_, number):
        port = PortSettings(name="web", kind="tcp", listen=f"127.0.0.1:{number}")
        with pytest.raises(PortError, match="another program listens there"):
            make_listening_sockets(port, WORKERS)


def test_a_descriptor_of_another_kind_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        port = PortSettings(name="web", kind="tcp", listen="127.0.0.1:1", fd=s.fileno())
        with pytest.raises(PortError, match="is no listening socket of this kind"):
            open_native_port(port)
