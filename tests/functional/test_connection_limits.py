"""Who is let in, who is sent away and when: limits, rates and timeouts of listeners, each with its counter."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import asdict
from io import StringIO

import pytest
from rich.console import Console
from stream_harness import Service, exchange, is_cut_off, is_sent_away, read_all, serving

from edgeos import NodeStatistics
from edgeos.report import summary

SECOND_NS = 1_000_000_000


def is_served(s: socket.socket) -> bool:
    s.sendall(b"hello")
    return s.recv(100) == b"hello"


def refused(service: Service, **reasons: int) -> NodeStatistics:
    return service.wait_until(lambda s: s.port("web").refused == reasons)


def test_connections_in_all_and_room_again_after_one_has_left() -> None:
    with serving(max_connections=4) as service, ExitStack() as stack:
        inside = [stack.enter_context(service.connect()) for _ in range(4)]
        assert all(is_served(s) for s in inside)
        assert is_sent_away(service)
        refused(service, max_connections=1)
        assert exchange(inside[0], b"bye") == b"bye"
        service.wait_until(lambda s: s.port("web").connections == 3)
        assert is_served(stack.enter_context(service.connect()))
        service.stop()


def test_connections_of_one_client_do_not_take_anothers_place() -> None:
    with serving(max_per_client=2) as service, ExitStack() as stack:
        for client in ("127.0.0.1", "127.0.0.2"):
            assert all(is_served(stack.enter_context(service.connect(client))) for _ in range(2))
            assert is_sent_away(service, client)
        refused(service, max_per_client=2)
        service.stop()


def test_new_connections_come_at_the_rate_that_is_allowed() -> None:
    with serving(accept_rate=3) as service, ExitStack() as stack:
        service.node.set_fake_time(1000 * SECOND_NS)
        assert all(is_served(stack.enter_context(service.connect())) for _ in range(3))
        assert is_sent_away(service)
        refused(service, accept_rate=1)
        service.node.set_fake_time(1001 * SECOND_NS)
        assert all(is_served(stack.enter_context(service.connect())) for _ in range(3))
        service.node.set_fake_time(0)
        service.stop()


def test_rules_and_full_chains_turn_clients_away() -> None:
    rules = [{"match": "tcp src 127.0.0.66", "drop": True}]
    with serving(rules=rules, chain={"max_fwps": 2}) as service, ExitStack() as stack:
        assert is_sent_away(service, "127.0.0.66")
        assert is_served(stack.enter_context(service.connect("127.0.0.2")))
        assert is_served(stack.enter_context(service.connect("127.0.0.3")))
        assert is_sent_away(service, "127.0.0.4")
        refused(service, rule=1, max_fwps=1)
        service.stop()


def test_who_says_nothing_is_sent_away_and_who_did_may_be_silent_longer() -> None:
    with serving(open_timeout_ns=10 * SECOND_NS, idle_timeout_ns=100 * SECOND_NS) as service, ExitStack() as stack:
        service.node.set_fake_time(1000 * SECOND_NS)
        silent = stack.enter_context(service.connect())
        spoke = stack.enter_context(service.connect())
        assert is_served(spoke)
        service.wait_until(lambda s: s.port("web").accepted == 2)
        service.node.set_fake_time(1009 * SECOND_NS)
        assert service.node.statistics().port("web").connections == 2
        service.node.set_fake_time(1011 * SECOND_NS)
        assert is_cut_off(silent)
        assert service.wait_until(lambda s: s.port("web").connections == 1).port("web").ended == {"open_timeout": 1}
        service.node.set_fake_time(1090 * SECOND_NS)
        assert is_served(spoke)
        service.node.set_fake_time(1180 * SECOND_NS)
        assert service.node.statistics().port("web").connections == 1
        service.node.set_fake_time(1300 * SECOND_NS)
        assert is_cut_off(spoke)
        ended = service.wait_until(lambda s: s.port("web").connections == 0).port("web").ended
        assert ended == {"open_timeout": 1, "idle_timeout": 1}
        service.node.set_fake_time(0)
        service.stop()


def test_datagrams_of_too_many_ports_take_the_place_of_the_longest_silent() -> None:
    with serving(kind="udp", max_per_client=2, max_connections=3) as service, ExitStack() as stack:
        for _ in range(4):
            assert is_served(stack.enter_context(service.connect("127.0.0.1")))
        assert is_served(stack.enter_context(service.connect("127.0.0.2")))
        assert is_served(stack.enter_context(service.connect("127.0.0.3")))
        port = service.node.statistics().port("web")
        assert (port.connections, port.accepted, port.ended) == (3, 6, {"displaced": 3})
        service.stop()


@pytest.mark.parametrize("on_kill", ["restart", "block"])
def test_connections_of_a_killed_fwp_end_and_the_client_starts_over_or_is_blocked(on_kill: str) -> None:
    with serving("trap.c", chain={"on_kill": on_kill}) as service, ExitStack() as stack:
        first, second = (stack.enter_context(service.connect("127.0.0.5")) for _ in range(2))
        assert is_served(first)
        assert is_served(second)
        first.sendall(b"!")
        assert is_cut_off(first)
        assert is_cut_off(second)
        if on_kill == "block":
            assert is_sent_away(service, "127.0.0.5")
            refused(service, blocked=1)
        else:
            assert is_served(stack.enter_context(service.connect("127.0.0.5")))
        assert is_served(stack.enter_context(service.connect("127.0.0.6")))
        assert service.node.statistics().port("web").ended == {"killed": 2}
        service.stop()


def test_what_a_guest_closes_is_written_first() -> None:
    with serving("greet_and_close.c") as service:
        with service.connect() as s:
            assert read_all(s) == b"x" * 100_000
        service.wait_closed()
        assert service.stop().port("web").ended == {"guest": 1}


def test_the_report_tells_who_was_refused_and_why() -> None:
    with serving(max_connections=1) as service, ExitStack() as stack:
        assert is_served(stack.enter_context(service.connect()))
        assert is_sent_away(service)
        statistics = refused(service, max_connections=1)
    console = Console(width=200, file=StringIO())
    console.print(summary(statistics))
    (line,) = [line for line in console.file.getvalue().splitlines() if "max_connections" in line]  # type: ignore[attr-defined]
    assert line.split() == ["web", "1", "1", "5", "5", "max_connections", "1", "-"]
    assert json.loads(json.dumps(asdict(statistics)))["ports"][0]["refused"] == {"max_connections": 1}


def test_no_flow_gives_way_to_a_datagram_that_is_turned_away() -> None:
    rules = [{"match": "src 127.0.0.9", "drop": True}]
    with serving(kind="udp", rules=rules, max_connections=2) as service, ExitStack() as stack:
        first, second, stranger = (
            stack.enter_context(service.connect(source)) for source in ("127.0.0.1", "127.0.0.2", "127.0.0.9")
        )
        for s in (first, second):
            s.send(b"question")
            assert s.recv(100) == b"question"
        for _ in range(5):
            stranger.send(b"question")
        service.wait_until(lambda s: s.port("web").refused == {"rule": 5})
        assert service.stop().port("web").ended == {"evicted": 2}
