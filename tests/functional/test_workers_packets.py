"""Two workers over packet sockets and over a TAP device's queues: all packets of a client come to one of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from service_harness import Service, eventually, service
from worker_lab import CLIENTS, NETWORKS, NODE, PORT, WAIT_SECONDS, Lab, netns

pytestmark = pytest.mark.privileged

IS_ROOT = os.geteuid() == 0


@pytest.fixture(params=["afpacket", "tap", "afxdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    if not IS_ROOT:
        pytest.skip("needs root")
    if request.param == "tap" and not may_steer_queues():
        pytest.skip("steering a TAP device's queues asks for BPF, which is not allowed here")
    with ExitStack() as stack:
        yield Lab(stack, request.param)


def may_steer_queues() -> bool:
    from edgeos import _native  # noqa: PLC0415

    with netns.Namespace() as space, space.entered():
        try:
            for fd in _native.open_tap_queues("probe", queues=2, by_destination=False):
                os.close(fd)
        except (OSError, RuntimeError):
            return False
    return True


def seen_by(node: Service) -> list[tuple[int, int]]:
    """What each worker has received at lan and at wan."""
    ports = [worker["statistics"]["ports"] for worker in node.ask("statistics")["workers"]]
    return [(lan["received"], wan["received"]) for lan, wan in ports]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_both_directions_of_a_client_come_to_one_worker(lab: Lab, family: int, tmp_path: Path) -> None:
    with lab.running(tmp_path) as node, closing(lab.echo(family)) as server:
        workers = set()
        for number in CLIENTS:
            with lab.client_socket(family, number) as client:
                assert lab.asks(server, client, b"resolve")
                before = seen_by(node)
                for _ in range(20):
                    assert lab.asks(server, client, b"a question")
                after = seen_by(node)
            grown = [(a[0] - b[0], a[1] - b[1]) for b, a in zip(before, after, strict=True)]
            (own,) = [index for index, (lan, wan) in enumerate(grown) if lan >= 20]
            assert grown[own][1] >= 20, f"answers for client {number} went elsewhere: {grown}"
            workers.add(own)
        assert workers == {0, 1}
        statistics = node.end()
    assert statistics["balance"] == 0
    assert all(worker["statistics"]["balance"] == 0 for worker in statistics["workers"])


def test_a_killed_worker_is_replaced_and_the_clients_of_the_other_lose_nothing(lab: Lab, tmp_path: Path) -> None:
    family = socket.AF_INET
    with lab.running(tmp_path) as node, closing(lab.echo(family)) as server, ExitStack() as stack:
        clients = [stack.enter_context(lab.client_socket(family, number)) for number in CLIENTS]
        groups: list[list[socket.socket]] = [[], []]
        for client in clients:
            assert lab.asks(server, client, b"resolve")
            before = seen_by(node)
            for _ in range(20):
                assert lab.asks(server, client, b"whose")
            after = seen_by(node)
            groups[max((0, 1), key=lambda index: after[index][0] - before[index][0])].append(client)
        assert all(groups)
        os.kill(node.process_of(0), signal.SIGKILL)
        for client in groups[1]:  # at once, while the other place is empty: no question is asked twice
            client.settimeout(WAIT_SECONDS)
            client.sendto(b"once", (NETWORKS[family][1], PORT))
            asked, sender = server.recvfrom(100)
            server.sendto(asked, sender)
            assert client.recv(100) == b"once"
        server.settimeout(0.5)  # an AF_XDP socket dies with its worker: a question may be lost, and is asked again
        for client in groups[0]:
            client.settimeout(0.5)
            assert lab.asks(server, client, b"again")
        assert eventually(lambda: [worker["restarts"] for worker in node.workers()] == [1, 0])
        statistics = node.end()
    assert statistics["balance"] == 0
    assert statistics["workers"][0]["restarts"] == 1


def test_without_the_privilege_a_tap_device_of_several_queues_says_what_is_missing(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no user have a network namespace")
    with service(tmp_path, NODE.format(kind="tap"), ["unshare", "-Urn"]) as node:
        assert node.start().process.wait(60) == 1
        assert "cannot load the program that steers packets to workers (needs CAP_BPF" in node.log
        assert not node.processes()
