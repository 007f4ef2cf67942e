"""Clients that no rule matches: what a callback answers, fails to answer, and answers too late."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from node_harness import Rig, client_packet, guest, rig

from edgeos import (
    Answer,
    ChainSettings,
    EdgeosError,
    Node,
    NodeStatistics,
    TenantSettings,
    UnmatchedClient,
    _native,
    testing,
)

Callback = Callable[[UnmatchedClient], Answer | str | None]
TIMEOUT_S = 30.0
NEVER_S = 3600.0
IDLE_S = 200.0  # longer than chains keep their clients


@contextmanager
def asking(callback: Callback, *, deadline: float = NEVER_S, **more: object) -> Iterator[Rig]:
    """A node with the chains edge and other, where 10.0.0.1 alone has a rule."""
    chains = [ChainSettings(name=name, path=("lan", "tally", "wan"), max_fwps=64) for name in ("edge", "other")]
    with rig([guest("tally")], chains, [("src 10.0.0.1", "edge")]) as node:
        node.node.add_tenant(TenantSettings(name="acme"))
        node.node.on_unmatched(callback, deadline=deadline, **more)  # type: ignore[arg-type]
        yield node


def run_until(node: Rig, holds: Callable[[NodeStatistics], bool]) -> NodeStatistics:
    """Steps the node until the statistics are as wanted; everything is accounted for all along."""
    end = time.monotonic() + TIMEOUT_S
    while not holds(statistics := node.check()):
        assert time.monotonic() < end, statistics
        if not node.node.run_once():
            time.sleep(0.001)
    return node.settle()


def sent(count: int) -> Callable[[NodeStatistics], bool]:
    return lambda statistics: statistics.sent == count


def test_a_client_is_asked_about_once_and_its_first_messages_wait() -> None:
    asked = []

    def answer(client: UnmatchedClient) -> str:
        asked.append(client)
        return "other"

    with asking(answer) as node:
        packets = [client_packet(2, bytes([number] * 20), sport=7, dport=53) for number in range(3)]
        node.inject("lan", *packets, client_packet(1, bytes(20)))
        statistics = run_until(node, sent(4))
        assert statistics.chain("other").received == 3
        assert [data[42] for data in node.take("wan") if data[29] == 2] == [0, 1, 2], "in their order"
        assert len(node.pass_through("lan", client_packet(2, bytes(20), sport=8), out="wan")) == 1
        (client,) = asked
        assert (client.address, client.client_port, client.peer, client.peer_port) == ("10.0.0.2", 7, "192.0.2.1", 53)
        assert (client.protocol, client.port, client.vlan) == (17, "lan", None)
        unmatched = node.check().unmatched
        assert (unmatched.asked, unmatched.answered, unmatched.waiting, unmatched.kept) == (1, 1, 0, 1)


def test_answers_may_drop_pass_isolate_and_name_a_tenant() -> None:
    answers = {
        "10.0.0.2": Answer(),
        "10.0.0.3": Answer(pass_ports=("lan", "wan")),
        "10.0.0.4": Answer(chain="edge", isolate="flow", tenant="acme"),
        "10.0.0.5": None,
    }
    with asking(lambda client: answers[client.address]) as node:
        for client in range(2, 6):
            node.inject("lan", client_packet(client, bytes(20), sport=1), client_packet(client, bytes(20), sport=2))
        statistics = run_until(node, lambda s: s.unmatched.answered == 4 and s.in_flight == 0)
        assert statistics.dropped == {"unmatched": 4}
        assert statistics.chain("pass lan wan").sent == 2
        assert statistics.chain("edge").activations == 2, "an FWP for each flow"
        assert statistics.tenant("acme").received == 2


def test_more_of_a_clients_messages_than_wait_are_dropped_by_reason() -> None:
    free = threading.Event()
    with asking(lambda _: free.wait(TIMEOUT_S) and "edge") as node:
        node.inject("lan", *[client_packet(2, bytes(20))] * 10)
        assert node.settle().dropped == {"undecided": 6}
        assert node.check().in_flight == 4
        free.set()
        assert run_until(node, sent(4)).dropped == {"undecided": 6}


def test_without_an_answer_in_time_the_default_holds_and_late_ones_are_counted() -> None:
    free = threading.Event()
    with asking(lambda _: free.wait(TIMEOUT_S) and "other", default=Answer(chain="edge")) as node:
        node.settle()
        clock = testing.FakeClock(node.node)
        node.inject("lan", client_packet(2, bytes(20)))
        node.settle()
        clock.advance(NEVER_S + 1)
        statistics = run_until(node, sent(1))
        assert statistics.chain("edge").received == 1
        free.set()
        statistics = run_until(node, lambda s: s.unmatched.late == 1)
        assert (statistics.unmatched.defaulted, statistics.unmatched.answered) == (1, 0)
        node.pass_through("lan", client_packet(2, bytes(20)))
        assert node.check().chain("edge").received == 2, "what was decided stays"


@pytest.mark.parametrize("bad", ["raises", "exits", "no such chain", "no such tenant", "nonsense"])
def test_a_callback_that_fails_is_counted_and_the_node_goes_on(bad: str) -> None:
    def answer(client: UnmatchedClient) -> object:
        if client.address != "10.0.0.2":
            return "other"
        if bad == "raises":
            raise ZeroDivisionError("on purpose")
        if bad == "exits":
            sys.exit("on purpose")
        return {"no such chain": "nowhere", "no such tenant": Answer(chain="edge", tenant="x"), "nonsense": 7}[bad]

    with asking(answer) as node:  # type: ignore[arg-type]
        node.inject("lan", client_packet(2, bytes(20)), client_packet(3, bytes(20)))
        statistics = run_until(node, lambda s: s.sent == 1 and s.unmatched.failed == 1)
        assert statistics.dropped == {"unmatched": 1}
        assert statistics.unmatched.defaulted == 1
        assert statistics.unmatched.problem


def test_a_flood_of_unknown_clients_is_bounded() -> None:
    free = threading.Event()
    with asking(lambda _: free.wait(TIMEOUT_S) and None, max_clients=50, max_waiting=20) as node:
        for client in range(2, 500):
            node.inject("lan", client_packet(client, bytes(20)))
            node.settle()
        unmatched = node.check().unmatched
        assert (unmatched.asked, unmatched.waiting) == (20, 20)
        assert unmatched.turned_away == 478
        assert node.check().dropped == {"unasked": 478}
        assert len(node.pass_through("lan", client_packet(1, bytes(20)))) == 1, "clients with a rule do not notice"
        free.set()
        run_until(node, lambda s: s.unmatched.waiting == 0)
        for client in range(2, 300):
            node.inject("lan", client_packet(client, bytes(20)))
            node.settle()
        assert node.check().unmatched.kept <= 50


def test_a_decision_ends_when_its_client_is_idle_and_when_rules_change() -> None:
    asked = []
    with asking(lambda client: asked.append(client.address)) as node:  # None: the default, a drop
        node.settle()
        clock = testing.FakeClock(node.node)

        def meet(times: int) -> None:
            node.inject("lan", client_packet(2, bytes(20)))
            run_until(node, lambda s: s.unmatched.answered == times and s.in_flight == 0)
            assert len(asked) == times

        meet(1)
        clock.advance(59)
        meet(1)
        clock.advance(59)
        meet(1)
        clock.advance(61)
        node.settle()
        assert node.check().unmatched.kept == 0
        meet(2)
        node.node.add_rule("src 10.9.9.9", drop=True)
        meet(3)


def test_an_answer_about_a_chain_that_went_is_a_failure() -> None:
    free, asked = threading.Event(), threading.Event()

    def answer(_: UnmatchedClient) -> str:
        asked.set()
        free.wait(TIMEOUT_S)
        return "other"

    with asking(answer) as node:
        node.inject("lan", client_packet(2, bytes(20)))
        node.settle()
        assert asked.wait(TIMEOUT_S)
        node.node.remove_chain("other")
        free.set()
        assert run_until(node, lambda s: s.unmatched.failed == 1).dropped == {"unmatched": 1}


def test_a_default_that_names_what_went_is_to_drop() -> None:
    with asking(lambda _: None, default=Answer(chain="other", tenant="acme")) as node:
        node.settle()
        clock = testing.FakeClock(node.node)
        node.inject("lan", client_packet(2, bytes(20)))
        assert run_until(node, sent(1)).tenant("acme").received == 1
        clock.advance(IDLE_S)  # its client leaves, and is forgotten
        node.settle()
        node.node.remove_tenant("acme")
        for number in range(3):  # whatever is not used any more goes, and its place is taken
            node.node.add_tenant(TenantSettings(name=f"tenant-{number}"))
            node.inject("lan", client_packet(3 + number, bytes(20)))
            run_until(node, lambda s, failed=1 + number: s.unmatched.failed == failed and s.in_flight == 0)
        assert node.check().dropped == {"unmatched": 3}
        assert "acme" in node.check().unmatched.problem


def test_a_default_never_leads_to_a_chain_that_took_the_place_of_its_own() -> None:
    with asking(lambda _: None, default=Answer(chain="other")) as node:
        node.settle()
        node.node.remove_chain("other")
        for name in ("third", "fourth"):
            node.node.add_chain(ChainSettings(name=name, path=("lan", "tally", "wan"), max_fwps=16))
        node.inject("lan", client_packet(2, bytes(20)))
        assert run_until(node, lambda s: s.unmatched.failed == 1).dropped == {"unmatched": 1}
        node.node.add_chain(ChainSettings(name="other", path=("lan", "tally", "wan"), max_fwps=16))
        node.inject("lan", client_packet(3, bytes(20)))
        assert run_until(node, sent(1)).chain("other").received == 1, "it is there again"


def test_one_client_cannot_take_all_places_while_it_is_asked_about() -> None:
    free = threading.Event()
    listener = _native.open_listener("web", "tcp", "127.0.0.1", 0, max_connections=4, max_per_client=2)
    with Node() as node, ExitStack() as connections:
        node.add_port(listener)
        node.add_template(guest("echo"))
        node.add_chain(ChainSettings(name="service", path=("web", "echo"), max_fwps=16))
        node.add_rule("src 127.0.0.3", chain="service")
        node.on_unmatched(lambda _: free.wait(TIMEOUT_S) and "service", deadline=NEVER_S)
        node.start()
        address = ("127.0.0.1", listener.port_number)
        for _ in range(6):
            with suppress(ConnectionError):  # it may be sent away as soon as it is made
                connections.enter_context(socket.create_connection(address, TIMEOUT_S, ("127.0.0.2", 0)))
        with socket.create_connection(address, TIMEOUT_S, ("127.0.0.3", 0)) as s:
            s.sendall(b"hello")
            assert s.recv(16) == b"hello"
        assert node.statistics().port("web").refused == {"max_per_client": 4}
        free.set()
        end = time.monotonic() + TIMEOUT_S
        while node.statistics().port("web").accepted < 3:
            assert time.monotonic() < end
            time.sleep(0.005)
        assert node.stop().balance == 0


def test_connections_wait_for_the_answer() -> None:
    listener = _native.open_listener("web", "tcp", "127.0.0.1", 0)
    with Node() as node:
        node.add_port(listener)
        node.add_template(guest("echo"))
        node.add_chain(ChainSettings(name="service", path=("web", "echo"), max_fwps=16))
        node.add_rule("src 192.0.2.1", chain="service")
        node.on_unmatched(lambda client: "service" if client.address == "127.0.0.2" else None, deadline=TIMEOUT_S)
        node.start()
        address = ("127.0.0.1", listener.port_number)
        with socket.create_connection(address, TIMEOUT_S, ("127.0.0.2", 0)) as s:
            s.sendall(b"hello")
            assert s.recv(16) == b"hello"
        # It may be turned away before connecting has come to its end.
        with pytest.raises(ConnectionError), socket.create_connection(address, TIMEOUT_S) as s:
            s.recv(16)
        statistics = node.stop()
        assert statistics.balance == 0
        assert statistics.port("web").refused == {"unmatched": 1}


def test_settings_that_cannot_be_are_refused() -> None:
    with Node() as node:
        for wrong in ({"deadline": 0.0}, {"keep": -1.0}, {"max_waiting": 0}):
            with pytest.raises(EdgeosError, match="allowed"):
                node.on_unmatched(lambda _: None, **wrong)  # type: ignore[arg-type]
