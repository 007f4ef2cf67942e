"""Clients that mean no good: noise, resets, churn, connections that trickle, more than there are descriptors for."""

from __future__ import annotations

import itertools
import os
import random
import resource
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from stream_harness import GUESTS, TIMEOUT, Service, exchange, is_sent_away, read_exactly, serving

from edgeos import ChainSettings, Node, TemplateSettings, _native

RESET = struct.pack("ii", 1, 0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def limit_for(more: int) -> int:
    """The limit of open files that allows so many more."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, more - 1, None)) + 1


def is_well(service: Service, source: str = "127.0.0.200") -> None:
    """An honest client is served."""
    with service.connect(source) as s:
        assert exchange(s, b"an honest question") == b"an honest question"


def misbehave(service: Service, choice: random.Random) -> None:
    with suppress(OSError), service.connect(f"127.0.1.{choice.randrange(1, 30)}") as s:
        act = choice.randrange(5)
        if act > 0:
            s.sendall(choice.randbytes(choice.choice((1, 64, 5000))))
        if act == 1:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif act == 2:
            s.shutdown(socket.SHUT_WR)
        elif act == 3:
            s.shutdown(socket.SHUT_RD)
        elif act == 4:
            s.recv(1)


@pytest.mark.parametrize("isolate", ["shared", "client", "connection"])
@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_thousands_come_and_go_in_every_way_and_nothing_is_left(isolate: str, mover: str) -> None:
    choice = random.Random(1)
    with serving(isolate=isolate, mover=mover, backlog=4096) as service:
        is_well(service)
        service.wait_closed()
        before = descriptors()
        for _ in range(1500):
            misbehave(service, choice)
        is_well(service)
        service.wait_closed()
        assert descriptors() == before
        statistics = service.stop()
    assert statistics.port("web").accepted == 1502


@pytest.mark.parametrize("proxy_protocol", [False, True])
def test_noise_is_not_taken_for_anything_else(proxy_protocol: bool) -> None:
    choice = random.Random(2)
    with serving(proxy_protocol=proxy_protocol) as service:
        misbehave(service, choice)
        service.wait_until(lambda s: s.port("web").accepted + sum(s.port("web").refused.values()) == 1)
        service.wait_closed()
        before = descriptors()
        for _ in range(299):
            misbehave(service, choice)
        service.wait_until(lambda s: s.port("web").connections == 0)
        service.wait_until(lambda s: s.port("web").accepted + sum(s.port("web").refused.values()) == 300)
        service.wait_until(lambda _: descriptors() == before)
        statistics = service.stop()
    if proxy_protocol:
        assert statistics.port("web").refused == {"bad_header": 300}


def test_datagrams_of_noise() -> None:
    choice = random.Random(3)
    with serving(kind="udp", max_connections=50, chain={"when_full": "evict"}) as service:
        for number in range(2000):
            with service.connect(f"127.0.2.{number % 200 + 1}") as s:
                s.send(choice.randbytes(choice.choice((0, 1, 1400, 3000))))
        with service.connect("127.0.0.200") as s:
            s.settimeout(1)
            for _ in range(int(TIMEOUT)):
                s.send(b"an honest question")
                with suppress(TimeoutError):
                    assert s.recv(100) == b"an honest question"
                    break
            else:
                pytest.fail("nobody answers")
        port = service.stop().port("web")
        assert port.connections <= 50


def test_who_trickles_holds_his_own_places_only() -> None:
    with serving(max_per_client=20, isolate="connection") as service, ExitStack() as stack:
        slow = [stack.enter_context(service.connect("127.0.0.9")) for _ in range(20)]
        for byte in range(20):
            for s in slow:
                s.sendall(bytes([byte]))
            assert is_sent_away(service, "127.0.0.9")
            is_well(service)
        for s in slow:
            assert read_exactly(s, 20) == bytes(range(20))
        service.stop()


def test_without_descriptors_clients_are_sent_away_and_served_again_later() -> None:
    with serving() as service, ExitStack() as stack:
        is_well(service)
        clients = [stack.enter_context(socket.socket()) for _ in range(40)]
        for s in clients:
            s.settimeout(TIMEOUT)
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_for(5), usual[1]))
        try:
            for s in clients:
                with suppress(ConnectionError):
                    s.connect(("127.0.0.1", service.listener.port_number))
            statistics = service.wait_until(
                lambda s: s.port("web").accepted + sum(s.port("web").refused.values()) >= len(clients)
            )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        port = statistics.port("web")
        assert port.refused["no_descriptors"] > 0
        assert "ulimit -n" in port.problem
        for s in clients:
            s.close()
        service.wait_until(lambda s: s.port("web").connections == 0)
        is_well(service)
        service.stop()


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_a_guest_that_leaves_its_slow_reader_and_is_killed_at_once_harms_nobody(mover: str, tmp_path: Path) -> None:
    """Its output is over the limit when it closes, so that its FWP could run again, and it does not live on."""
    address = str(tmp_path / "socket")
    with serving("quitter.c", kind="unix", address=address, mover=mover, output_limit=4096) as service:
        for kills in (1, 2, 3):
            with service.connect() as s:
                s.sendall(b"!")
                service.wait_until(lambda s, kills=kills: s.chain("service").kills.get("bad_port", 0) == kills)
            with service.connect() as s:
                assert exchange(s, b"an honest question") == b"an honest question"
        service.wait_closed()
        statistics = service.stop()
    assert statistics.port("web").send_dropped > 0, "nothing waited for the slow reader"


def test_flows_that_take_each_others_place_are_not_remembered_without_end() -> None:
    kept, rounds, burst = 4, 60, 32
    port = _native.open_listener("web", "udp", "127.0.0.1", 0, max_per_client=kept)
    with Node() as node:
        node.add_port(port)
        node.add_template(TemplateSettings(name="app", source=GUESTS / "echo.c"))
        node.add_chain(ChainSettings(name="service", path=("web", "app"), isolate="client", max_fwps=4))
        node.add_rule("any", chain="service")
        node.run_once()
        for _ in range(rounds):
            for _ in range(burst):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.sendto(b"?", ("127.0.0.1", port.port_number))
            node.run_once()
        counters = node.statistics().chain("service").stages[0].counters
        assert counters["opened"] > 0
        assert counters["opened"] - counters["closed"] <= 2 * burst, "that the guest has not been told of yet"
        statistics = node.stop()
        assert statistics.balance == 0
        assert statistics.port("web").accepted > rounds * burst // 2
