"""Rules, chains and templates that come and go while a node runs, and what becomes of the clients that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_harness import Rig, client_packet, guest, line, rig

from edgeos import (
    ChainSettings,
    EdgeosError,
    LimitError,
    ManifestError,
    NodeSettings,
    RuleSettings,
    UpstreamSettings,
    _native,
    testing,
)
from edgeos.match import parse_match

SPARE = NodeSettings(spare_fwps=64)


def chain(name: str = "edge", template: str = "tally", **more: object) -> ChainSettings:
    return ChainSettings(name=name, path=("lan", template, "wan"), **{"max_fwps": 8, **more})  # type: ignore[arg-type]


@contextmanager
def running(*rules: tuple[str, str], settings: NodeSettings = SPARE, **more: object) -> Iterator[Rig]:
    """A node with the chain edge that has come to rest once, so that it runs."""
    with rig([guest("tally")], [chain(**more)], rules or None, settings=settings) as made:
        made.settle()
        yield made


def through(node: Rig, client: int, **more: int) -> str:
    """The chain that a message of the client went through, by the counters; "" when through none."""
    before = {c.name + "!" * c.retired: c.received for c in node.check().chains}
    node.pass_through("lan", client_packet(client, bytes(16), **more))
    after = {c.name + "!" * c.retired: c.received for c in node.check().chains}
    return next((name for name, count in after.items() if count > before.get(name, 0)), "")


# ---- Order ----


def native_rule(number: int, priority: int, order: int) -> _native.Rule:
    return _native.Rule(id=number, priority=priority, order=order, action=-1, isolation=0, max_clients=0)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=40))
def test_rules_are_ordered_by_priority_and_then_by_writing(rules: list[tuple[int, bool]]) -> None:
    table = _native.RuleTable()
    for number, (priority, _) in enumerate(rules):
        table.add(native_rule(number, priority, number))
    for number, (_, stays) in enumerate(rules):
        if not stays:
            table.remove(number)
    kept = [(number, priority) for number, (priority, stays) in enumerate(rules) if stays]
    assert table.ids == [number for number, _ in sorted(kept, key=lambda rule: -rule[1])]


_MATCHES = ("any", "ip4", "udp", "src 10.0.0.0/30", "src 10.0.0.4/30", "dst port 1-60", "dst port 53", "tcp")


def _meets(match: str, client: int, port: int) -> bool:
    """A reference for these matches, written apart from the matcher."""
    return {
        "any": True,
        "ip4": True,
        "udp": True,
        "src 10.0.0.0/30": client < 4,
        "src 10.0.0.4/30": 4 <= client < 8,
        "dst port 1-60": 1 <= port <= 60,
        "dst port 53": port == 53,
        "tcp": False,
    }[match]


_RULE = st.tuples(st.sampled_from(_MATCHES), st.sampled_from(["a", "b", "drop"]), st.integers(-1, 1))


@given(st.lists(_RULE, min_size=1, max_size=6), st.lists(st.tuples(st.integers(1, 9), st.sampled_from([53, 80]))))
def test_the_first_rule_by_priority_decides(rules: list[tuple[str, str, int]], sent: list[tuple[int, int]]) -> None:
    chains = [chain("a", max_fwps=16), chain("b", max_fwps=16)]
    with rig([guest("tally")], chains, [("tcp", "a")]) as node:
        for match, action, priority in rules:
            name = None if action == "drop" else action
            node.node.add_rule(match, chain=name, drop=action == "drop", priority=priority)
        expected = {"a": 0, "b": 0, "drop": 0, "no_rule": 0}
        for client, port in sent:
            node.inject("lan", client_packet(client, bytes(16), dport=port))
            asked = sorted(rules, key=lambda rule: -rule[2])
            expected[next((act for match, act, _ in asked if _meets(match, client, port)), "no_rule")] += 1
        statistics = node.settle()
        found = {name: statistics.chain(name).received for name in "ab"}
        drops = {"drop": statistics.dropped.get("rule", 0), "no_rule": statistics.dropped.get("no_rule", 0)}
        assert found | drops == expected


# ---- Rules at run time ----


def test_rules_come_and_go_while_a_node_runs() -> None:
    with running(("src 10.0.0.1", "edge")) as node:
        assert (through(node, 1), through(node, 2)) == ("edge", "")
        rule = node.node.add_rule("src 10.0.0.2", chain="edge")
        assert through(node, 2) == "edge"
        node.node.remove_rule(rule)
        assert through(node, 2, sport=2) == "edge", "a live client stays, with new flows too"
        assert through(node, 3) == ""
        with pytest.raises(KeyError):
            node.node.remove_rule(rule)


def test_a_removed_rule_ends_with_its_last_client() -> None:
    with running(("src 10.0.0.1", "edge"), idle_timeout_ns=10**9) as node:
        clock = testing.FakeClock(node.node)
        assert through(node, 1) == "edge"
        node.node.remove_rule(node.node.rules[0])
        assert through(node, 1, sport=2) == "edge"
        clock.advance(2)
        node.settle()
        assert through(node, 1, sport=2) == ""


def test_a_rule_of_higher_priority_meets_new_flows_only() -> None:
    with running() as node:
        assert through(node, 1) == "edge"
        node.node.add_rule("any", drop=True, priority=1)
        assert (through(node, 1), through(node, 1, sport=2), through(node, 2)) == ("edge", "", "")
        assert [rule.settings.priority for rule in node.node.rules] == [1, 0]


def test_a_rule_lets_in_so_many_clients() -> None:
    with rig([guest("tally")], [chain()], [("tcp", "edge")]) as node:
        node.node.add_rule("any", chain="edge", max_clients=2)
        assert [through(node, n) for n in (1, 2, 3, 1, 2)] == ["edge", "edge", "", "edge", "edge"]
        assert node.check().dropped == {"max_clients": 1}


def test_a_rule_has_an_isolation_of_its_own() -> None:
    with rig([guest("tally")], [chain()], [("tcp", "edge")]) as node:
        node.node.add_rule("udp dst port 80", chain="edge", isolate="shared")
        node.node.add_rule("udp dst port 53", chain="edge", isolate="flow")
        for client in (1, 2):
            for sport in (1, 2):
                through(node, client, dport=80, sport=sport)
        assert node.check().chain("edge").live == 1
        for client in (1, 2):
            for sport in (1, 2):
                through(node, client, dport=53, sport=sport)
        assert node.check().chain("edge").live == 5


def test_messages_are_passed_on_unchanged_both_ways() -> None:
    with running(("src 10.0.0.1", "edge")) as node:
        passing = node.node.add_rule("src 10.0.0.2", pass_ports=("lan", "wan"))
        frame = client_packet(2, b"as it is")
        assert node.pass_through("lan", frame) == [frame]
        assert node.pass_through("wan", testing.reply_to(frame)) == [testing.reply_to(frame)]
        assert through(node, 2) == "pass lan wan"
        statistics = node.check()
        assert (statistics.chain("pass lan wan").live, statistics.sent) == (0, 3)
        node.node.remove_rule(passing)
        assert through(node, 2) == "", "what was passed on has no client who could stay"


# ---- Chains and templates at run time ----


def test_a_chain_is_added_and_removed_while_its_clients_stay() -> None:
    with running() as node:
        clock = testing.FakeClock(node.node)
        assert through(node, 1) == "edge"
        node.node.add_template(guest("other", "tally"))
        other = node.node.add_chain(chain("other", "other"))
        old = node.node.rules[0]
        node.node.add_rule("any", chain="other")
        with pytest.raises(ManifestError, match="edge"):
            node.node.remove_chain("edge")
        node.node.remove_rule(old)
        node.node.remove_chain("edge")
        assert (through(node, 1), through(node, 1, sport=2), through(node, 2)) == ("edge!", "edge!", "other")
        assert [client.address for client in other.clients()] == ["10.0.0.2"]
        with pytest.raises(KeyError):
            node.node.clients("edge")
        node.node.remove_template("tally")
        clock.advance(61)
        node.settle()
        assert through(node, 1) == "other"
        node.node.add_rule("tcp", drop=True)
        gone = node.check().chain("(gone)")
        assert (gone.received, gone.activations, gone.live) == (3, 1, 0)


def test_a_chain_with_other_settings_takes_the_place_of_one() -> None:
    with running() as node:
        assert through(node, 1) == "edge"
        manifest = node.node.manifest
        node.node.reconfigure(replace(manifest, chains=(chain(isolate="flow"),)))
        assert (through(node, 1), through(node, 2)) == ("edge!", "edge")
        node.node.reconfigure(node.node.manifest)
        assert (through(node, 1), through(node, 2)) == ("edge!", "edge"), "what is the same keeps running"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ports": ()}, "port.lan, which is gone and port.wan, which is gone"),
        ({"upstreams": (UpstreamSettings(name="db", address="127.0.0.1:1"),)}, "upstream.db, which is new"),
        ({"node": NodeSettings(spare_fwps=9, max_flows=1024)}, "node.max_flows and node.spare_fwps"),
    ],
)
def test_what_a_running_node_cannot_change_is_named(change: dict[str, Any], named: str) -> None:
    with running() as node:
        with pytest.raises(EdgeosError, match=f"^{re.escape(named)} cannot change while the node runs: restart it$"):
            node.node.reconfigure(replace(node.node.manifest, **change))
        node.check()


def test_a_change_that_does_not_fit_changes_nothing() -> None:
    with running(settings=NodeSettings(spare_fwps=8)) as node:
        assert through(node, 1) == "edge"
        before = node.node.manifest
        with pytest.raises(LimitError, match=r"spare_fwps"):
            node.node.add_chain(chain("large", max_fwps=9))
        with pytest.raises(LimitError, match=r"spare_memory"):
            node.node.add_template(guest("huge", "keeper", memory=4 * 2**20))
        with pytest.raises(ManifestError, match="nowhere"):
            node.node.add_rule("any", chain="nowhere")
        with pytest.raises(ManifestError, match="tally"):
            node.node.remove_template("tally")
        bad = replace(before, rules=(RuleSettings(match=parse_match("any"), chain="edge", drop=True),))
        with pytest.raises(ManifestError, match="chain and drop"):
            node.node.reconfigure(bad)
        with pytest.raises(EdgeosError, match="node"):
            node.node.reconfigure(replace(before, node=NodeSettings(spare_fwps=9)))
        assert node.node.manifest == before
        assert (through(node, 1), through(node, 2)) == ("edge", "edge")
        node.node.add_chain(chain("small", max_fwps=8))


def test_places_are_given_again_when_clients_have_left() -> None:
    with running(settings=NodeSettings(spare_fwps=8), idle_timeout_ns=10**9) as node:
        clock = testing.FakeClock(node.node)
        for turn in range(300):  # more than there are numbers of chains
            node.node.reconfigure(replace(node.node.manifest, chains=(chain(idle_timeout_ns=10**9 + turn),)))
            assert through(node, 1) == "edge"
            clock.advance(2)
            node.settle()
        statistics = node.check()
        assert (statistics.received, statistics.balance) == (300, 0)
        assert len(statistics.chains) <= 3


def test_ports_that_were_apart_are_not_joined_while_a_node_runs() -> None:
    chains = [chain(), ChainSettings(name="b", path=("dmz", "tally", "srv"), max_fwps=8)]
    rules = [("from lan", "edge"), ("from dmz", "b")]
    ports = ("lan", "wan", "dmz", "srv")
    with rig([guest("tally")], chains, rules, ports=ports, settings=SPARE) as node:
        node.settle()
        with pytest.raises(EdgeosError, match="flows of their own"):
            node.node.add_chain(ChainSettings(name="c", path=("lan", "tally", "dmz"), max_fwps=8))
        assert through(node, 1) == "edge"


def test_changes_of_a_node_that_runs_on_its_own_thread() -> None:
    with running() as node:
        pass
    with line(guest("tally"), settings=SPARE) as node:
        node.node.start()
        for turn in range(20):
            rule = node.node.add_rule(f"src 10.9.0.{turn}", drop=True, priority=turn)
            node.inject("lan", client_packet(turn, bytes(16)))
            node.node.remove_rule(rule)
        while node.node.statistics(guest_counters=False).sent < 20:
            node.node.wait(0.01)
        assert node.node.stop().balance == 0


# ---- Eviction ----


def test_a_blocked_client_is_not_evicted() -> None:
    hostile = guest("actor0", "actor", config=b"0")
    settings = ChainSettings(name="edge", path=("lan", "actor0", "wan"), max_fwps=2, when_full="evict", on_kill="block")
    with rig([hostile], [settings]) as node:
        trap = client_packet(1, bytes([5, 0]).ljust(20, b"\0"))
        fine = bytes(20)
        node.pass_through("lan", trap)
        assert node.check().chain("edge").kills == {"trap": 1}
        for client in (2, 3, 4):
            assert len(node.pass_through("lan", client_packet(client, fine))) == 1
        assert node.pass_through("lan", client_packet(1, fine)) == []
        statistics = node.check().chain("edge")
        assert (statistics.evicted, statistics.dropped) == (2, {"killed": 1, "blocked": 1})
