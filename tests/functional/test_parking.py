"""`keep = true`: a client that was idle finds its data again, nobody else does, and what that takes is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from node_harness import Rig, client_packet, guest, line, rig

from edgeos import ChainSettings, GuestError, NodeSettings, TemplateSettings, TenantSettings, testing
from edgeos.settings import Grants
from edgeos.statistics import ParkingStatistics, TenantStatistics

SECOND_NS = 10**9
PAGE = 65536
IDLE = 10.0
IDLE_NS = 10 * SECOND_NS
KEEP = {"keep": True, "idle_timeout_ns": IDLE_NS}


@contextmanager
def keeping(
    name: str = "memory", template: dict[str, object] | None = None, **chain: object
) -> Iterator[tuple[Rig, testing.FakeClock]]:
    """A node whose one chain keeps its clients."""
    made = guest(name, **{"memory": 32 * PAGE, **(template or {})})
    with line(made, **{**KEEP, **chain}) as node:
        yield node, testing.FakeClock(node.node, 1000 * SECOND_NS)


def parking(node: Rig) -> ParkingStatistics:
    """What the chain counted, after its law has been checked."""
    counted = node.check().chain("edge").parking
    assert counted.parked == counted.resumed + counted.clients + sum(counted.dropped.values())
    return counted


def ask(node: Rig, client: int, what: bytes, amount: int = 0, byte: int = 0, *, out: str = "wan") -> bytes:
    """The payload of the client's packet behind the guest."""
    payload = what + amount.to_bytes(2, "little") + bytes([byte]) + bytes(4)
    (frame,) = node.pass_through("lan", client_packet(client, payload), out=out)
    return frame[42:]


def read(node: Rig, client: int) -> dict[str, int]:
    payload = ask(node, client, b"r")
    return dict(zip(("kept", "pages", "grown", "seen"), payload[1:5], strict=True))


def go_idle(node: Rig, clock: testing.FakeClock) -> ParkingStatistics:
    clock.advance(IDLE + 0.001)
    node.settle()
    assert node.check().chain("edge").live == 0
    return parking(node)


# ---- Data that survives ----


def test_a_client_finds_its_data_and_others_do_not() -> None:
    """One FWP for all: each time the memory was somebody else's before."""
    with keeping(max_fwps=1) as (node, clock):
        for client in (1, 2, 3):
            ask(node, client, b"w", byte=100 + client)
            go_idle(node, clock)
        for client in (3, 1, 4, 2):
            found = read(node, client)
            assert found["kept"] == (100 + client if client < 4 else 0)
            assert found["seen"] == (2 if client < 4 else 1)
            go_idle(node, clock)
        counted = parking(node)
        assert (counted.parked, counted.resumed, counted.clients) == (7, 3, 4)
        assert counted.park_p50_ns > 0
        assert counted.resume_p50_ns > 0
        assert node.node.statistics().chain("edge").stages[0].counters["seen"] == 7


def test_without_keep_the_data_is_gone() -> None:
    with keeping(keep=False) as (node, clock):
        ask(node, 1, b"w", byte=7)
        assert go_idle(node, clock) == ParkingStatistics()
        assert read(node, 1)["kept"] == 0


def test_no_byte_of_a_parked_client_is_in_the_memory_that_it_left() -> None:
    """keeper writes secrets all over, grows, and counts those that it finds at its first message."""
    secret = client_packet(1, b"SECRET" * 40)
    with keeping("keeper", max_fwps=1) as (node, clock):
        assert [frame[-1] for frame in node.pass_through("lan", secret)] == [0]
        assert go_idle(node, clock).clients == 1
        assert [frame[-1] for frame in node.pass_through("lan", client_packet(2, bytes(240)))] == [0]
        go_idle(node, clock)
        assert [frame[-1] for frame in node.pass_through("lan", secret)] == [255]  # its own


def test_memory_that_has_grown_comes_back() -> None:
    with keeping() as (node, clock):
        small = read(node, 1)["pages"]
        ask(node, 1, b"g", 5)
        assert read(node, 1) == {"kept": 0, "pages": small + 5, "grown": 5, "seen": 3}
        assert go_idle(node, clock).bytes < 1000  # five pages of zeroes, and a byte in each
        assert read(node, 2)["pages"] == small
        assert read(node, 1) == {"kept": 0, "pages": small + 5, "grown": 5, "seen": 4}


def test_flow_numbers_go_on() -> None:
    """tally writes the number of the flow behind its count of messages."""
    with keeping("tally") as (node, clock):
        stamps = []
        for _ in range(3):
            (frame,) = node.pass_through("lan", client_packet(1, bytes(40)))
            stamps.append((int.from_bytes(frame[-12:-8], "little"), int.from_bytes(frame[-8:-4], "little")))
            go_idle(node, clock)
        assert stamps == [(1, 1), (2, 2), (3, 3)]


def test_timers_are_parked_too() -> None:
    """One that has run out meanwhile is told when the client is back, one that has not when its time comes."""
    settings: dict[str, object] = {"grant": Grants(timer=True, clock=True, random=True)}
    with keeping("granted", settings, idle_timeout_ns=50_000_000) as (node, clock):
        node.pass_through("lan", client_packet(1, b"t\xc8\x07" + bytes(40)))  # 200 ms
        node.pass_through("lan", client_packet(1, b"t\xff\x09" + bytes(40)))  # 255 ms
        clock.advance(0.06)
        node.settle()
        assert parking(node).clients == 1
        clock.advance(0.16)
        node.settle()
        assert parking(node).clients == 1
        tokens = node.pass_through("lan", client_packet(1, b"." + bytes(40)))
        assert sorted(frame[0] for frame in tokens if len(frame) == 64) == [7]
        clock.advance(0.04)
        node.settle()
        assert [frame[0] for frame in node.take("wan")] == [9]


def test_each_stage_of_a_chain_is_parked() -> None:
    templates = (guest("memory", memory=32 * PAGE), guest("tally"))
    with line(*templates, **KEEP) as node:
        clock = testing.FakeClock(node.node, 1000 * SECOND_NS)
        for count in range(1, 4):
            (frame,) = node.pass_through("lan", client_packet(1, b"r" + bytes(40)))
            assert frame[46] == count
            assert int.from_bytes(frame[-12:-8], "little") == count
            assert go_idle(node, clock).clients == 1


def test_flows_are_parked_by_themselves() -> None:
    with keeping(isolate="flow") as (node, clock):
        for sport in (1, 2):
            node.inject("lan", client_packet(1, b"w\0\0" + bytes([sport]) + bytes(8), sport=sport))
        node.settle()
        assert go_idle(node, clock).clients == 2
        node.take("wan")
        (frame,) = node.pass_through("lan", client_packet(1, b"r" + bytes(8), sport=2))
        assert frame[43] == 2


def test_with_a_core_for_the_mover() -> None:
    made = guest("memory", memory=32 * PAGE)
    with line(made, settings=NodeSettings(mover="dedicated"), **KEEP) as node:
        clock = testing.FakeClock(node.node, 1000 * SECOND_NS)
        ask(node, 1, b"w", byte=9)
        go_idle(node, clock)
        assert read(node, 1)["kept"] == 9


# ---- Who gives way ----


def test_one_that_gives_way_to_another_client_is_parked() -> None:
    with keeping(max_fwps=1, when_full="evict") as (node, _):
        ask(node, 1, b"w", byte=1)
        ask(node, 2, b"w", byte=2)
        assert read(node, 1)["kept"] == 1
        assert read(node, 2)["kept"] == 2
        chain = node.check().chain("edge")
        assert (chain.evicted, chain.parking.parked, chain.parking.resumed) == (3, 3, 2)


def test_beyond_keep_memory_the_longest_parked_go() -> None:
    """A client that fills its memory is charged for it; one that alone is too large is not parked at all."""
    with keeping(keep_memory=256 * 1024) as (node, clock):
        for client in range(6):
            ask(node, client, b"s", 60)
            go_idle(node, clock)
        counted = parking(node)
        assert counted.clients == 4
        assert counted.dropped == {"keep_memory": 2}
        assert 4 * 60 * 1024 < counted.bytes <= 256 * 1024
        ask(node, 9, b"s", 300)
        counted = go_idle(node, clock)
        assert counted.refused == {"too_large": 1}
        assert counted.clients == 4
        assert read(node, 5)["seen"] == 2
        assert read(node, 0)["seen"] == 1


def test_a_parked_client_ends_after_its_time() -> None:
    with keeping(keep_timeout_ns=100 * SECOND_NS) as (node, clock):
        ask(node, 1, b"w", byte=5)
        go_idle(node, clock)
        clock.advance(99)
        node.settle()
        assert read(node, 1)["kept"] == 5
        go_idle(node, clock)
        clock.advance(101)
        node.settle()
        assert parking(node).dropped == {"keep_timeout": 1}
        assert read(node, 1)["kept"] == 0


def test_a_killed_fwp_is_not_parked() -> None:
    with keeping() as (node, clock):
        ask(node, 1, b"w", byte=5)
        node.pass_through("lan", client_packet(1, b"t" + bytes(8)))
        assert sum(node.check().chain("edge").kills.values()) == 1
        counted = go_idle(node, clock)
        assert (counted.parked, counted.refused) == (0, {})
        assert read(node, 1)["kept"] == 0


def test_a_blocked_client_is_not_parked() -> None:
    with keeping(on_kill="block") as (node, clock):
        ask(node, 1, b"w", byte=5)
        node.pass_through("lan", client_packet(1, b"t" + bytes(8)))
        assert go_idle(node, clock).parked == 0
        assert read(node, 1)["kept"] == 0


def test_an_attacker_who_fills_every_memory_takes_no_more_than_it_may() -> None:
    with keeping(keep_memory=1024 * 1024, max_fwps=4, when_full="evict") as (node, _):
        for client in range(40):
            ask(node, client, b"s", 500)
            counted = parking(node)
            assert counted.bytes <= 1024 * 1024
        assert counted.clients == 2


def test_who_is_refused_stays_parked() -> None:
    with keeping(max_fwps=1) as (node, clock):
        ask(node, 1, b"w", byte=1)
        go_idle(node, clock)
        ask(node, 2, b"w", byte=2)
        node.inject("lan", client_packet(1, b"r" + bytes(8)))
        node.settle()
        assert node.take("wan") == []
        assert node.check().dropped == {"max_fwps": 1}
        go_idle(node, clock)
        assert read(node, 1)["kept"] == 1


# ---- Tenants ----


@contextmanager
def tenants(settings: dict[str, Any] | None = None, **quotas: int) -> Iterator[tuple[Rig, testing.FakeClock]]:
    """Clients 10.0.0.0/28 are acme's, 10.0.0.16/28 globex's."""
    chain: dict[str, Any] = {"max_fwps": 64, **KEEP, **(settings or {})}
    edge = ChainSettings(name="edge", path=("lan", "memory", "wan"), **chain)
    made = guest("memory", memory=32 * PAGE)
    with rig([made], [edge], [("src 192.0.2.1", "drop")]) as node:
        node.node.add_tenant(TenantSettings(name="acme", **quotas))
        node.node.add_tenant(TenantSettings(name="globex"))
        node.node.add_rule("src 10.0.0.0/28", chain="edge", tenant="acme")
        node.node.add_rule("src 10.0.0.16/28", chain="edge", tenant="globex")
        node.settle()
        yield node, testing.FakeClock(node.node, 1000 * SECOND_NS)


def acme(node: Rig) -> TenantStatistics:
    return node.check().tenant("acme")


def test_what_is_parked_counts_for_the_tenant_and_gives_way_to_its_living() -> None:
    with tenants() as (node, _):
        read(node, 1)
        memory = acme(node).memory
    with tenants(memory=2 * memory) as (node, clock):
        for client in range(8):
            ask(node, client, b"s", 200)
            go_idle(node, clock)
        assert acme(node).clients == 0
        assert acme(node).memory == acme(node).parked == parking(node).bytes > 200 * 1024
        assert 0 < parking(node).dropped["tenant_memory"] < 8
        read(node, 20)  # globex has no quota
        read(node, 9)
        read(node, 10)
        assert acme(node).clients == 2
        assert acme(node).memory <= 2 * memory
        assert acme(node).parked == 0
        assert parking(node).dropped["tenant_memory"] == 8
        assert acme(node).refused == {}


def test_memory_that_grows_displaces_parked_clients_and_kills_nobody() -> None:
    with tenants() as (node, _):
        read(node, 1)
        memory = acme(node).memory
    with tenants(memory=memory + 2 * PAGE) as (node, clock):
        ask(node, 1, b"s", 100)
        go_idle(node, clock)
        read(node, 2)
        assert parking(node).clients == 1
        ask(node, 2, b"g", 2)
        assert parking(node).dropped == {"tenant_memory": 1}
        assert acme(node).killed == 0
        assert read(node, 2)["grown"] == 2


def test_grown_memory_is_charged_when_it_comes_back() -> None:
    with tenants() as (node, clock):
        ask(node, 1, b"g", 3)
        memory = acme(node).memory
        go_idle(node, clock)
        assert acme(node).memory < PAGE
        read(node, 1)
        assert acme(node).memory == memory


def test_a_client_that_comes_back_needs_no_more_than_it_had() -> None:
    """The quota is one FWP's memory: what is parked must not stand in its own client's way."""
    with tenants() as (node, _):
        read(node, 1)
        memory = acme(node).memory
    with tenants(memory=memory) as (node, clock):
        ask(node, 1, b"w", byte=8)
        go_idle(node, clock)
        assert read(node, 1)["kept"] == 8


def test_another_tenant_does_not_get_what_is_parked() -> None:
    with tenants() as (node, clock):
        ask(node, 1, b"w", byte=8)
        go_idle(node, clock)
        rule = next(rule for rule in node.node.rules if rule.settings.tenant == "acme")
        node.node.remove_rule(rule)
        node.node.add_rule("src 10.0.0.0/28", chain="edge", tenant="globex")
        assert read(node, 1)["kept"] == 0
        assert parking(node).dropped == {"changed": 1}


def test_a_tenant_that_is_removed_takes_its_parked_along() -> None:
    with tenants() as (node, clock):
        ask(node, 1, b"w", byte=8)
        go_idle(node, clock)
        for rule in [rule for rule in node.node.rules if rule.settings.tenant == "acme"]:
            node.node.remove_rule(rule)
        node.node.remove_tenant("acme")
        assert parking(node).dropped == {"removed": 1}


def test_nobody_is_dropped_for_a_client_that_is_turned_away() -> None:
    """The tenant's memory would do only without the parked client, but the chain is full."""
    with tenants() as (node, _):
        read(node, 1)
        memory = acme(node).memory
    with tenants({"max_fwps": 1}, memory=2 * memory) as (node, clock):
        ask(node, 1, b"w", byte=8)
        go_idle(node, clock)
        read(node, 2)
        node.inject("lan", client_packet(3, b"r" + bytes(8)))
        node.settle()
        assert node.take("wan") == []
        assert acme(node).refused == {"max_fwps": 1}
        assert parking(node).clients == 1
        go_idle(node, clock)
        assert read(node, 1)["kept"] == 8


def test_who_comes_pays_for_parking_the_one_that_gives_way() -> None:
    with tenants({"max_fwps": 1, "when_full": "evict"}) as (node, _):
        ask(node, 1, b"s", 400)
        before = acme(node).cpu_ns
        read(node, 20)  # globex's
        assert parking(node).clients == 1
        assert acme(node).cpu_ns == before


def test_a_client_whose_tenant_was_removed_meanwhile_is_not_parked() -> None:
    """The tenant is swept away by the next change, and another one may have its place in memory."""
    with tenants() as (node, clock):
        ask(node, 1, b"w", byte=8)
        for rule in [rule for rule in node.node.rules if rule.settings.tenant == "acme"]:
            node.node.remove_rule(rule)
        node.node.remove_tenant("acme")
        assert read(node, 1)["kept"] == 8  # it stays until it is idle
        assert go_idle(node, clock) == ParkingStatistics()
        node.node.add_tenant(TenantSettings(name="initech"))
        node.node.add_rule("src 10.0.0.0/28", chain="edge", tenant="initech")
        assert read(node, 1)["kept"] == 0


# ---- Changes, and the end ----


def test_a_chain_that_changes_drops_its_parked_and_one_that_does_not_keeps_them() -> None:
    with keeping() as (node, clock):
        ask(node, 1, b"w", byte=8)
        go_idle(node, clock)
        node.node.add_tenant(TenantSettings(name="acme"))  # another part
        assert read(node, 1)["kept"] == 8
        go_idle(node, clock)
        manifest = node.node.manifest
        chain = replace(manifest.chains[0], max_fwps=7)
        node.node.reconfigure(replace(manifest, chains=(chain,)))
        node.settle()
        old = next(c for c in node.check().chains if c.retired)
        assert old.parking.dropped == {"removed": 1}
        assert read(node, 1)["kept"] == 0


def test_a_node_that_drains_or_stops_drops_them() -> None:
    for end in ("drain", "close_chain", "stop"):
        with keeping() as (node, clock):
            ask(node, 1, b"w", byte=8)
            go_idle(node, clock)
            if end == "stop":
                counted = node.node.stop().chain("edge").parking
            else:
                node.node.drain() if end == "drain" else node.node.close_chain("edge")
                node.settle()
                counted = parking(node)
            assert counted.dropped == {"removed": 1}
            assert (counted.clients, counted.bytes) == (0, 0)


# ---- Guests whose state cannot be copied ----

CHANGING = r"""
(module
  (memory (export "memory") 2)
  (table 2 funcref)
  (elem (i32.const 0) $start $start)
  (data (i32.const 64) "\01\00\00\00\08\00\00\00\40\00\00\00\40\00\00\00\00\04\00\00\00\08\00\00\00\10\00\00")
  (func $start (export "edgeos_start") (param i32 i32))
  (func (export "edgeos_layout_v1") (result i32) (i32.const 64))
  (func (export "edgeos_config") (param i32) (result i32) (i32.const 0))
  (func (export "edgeos_burst") (param i32 i32) (table.set (i32.const 0) (table.get (i32.const 1)))))
"""


def test_a_guest_that_changes_its_table_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "changing.wasm"
    module.write_bytes(wasmtime.wat2wasm(CHANGING))
    for keep in (False, True):
        made = TemplateSettings(name="changing", module=module, ready_low=1, ready_high=1)
        with line(made, keep=keep) as node:
            if not keep:
                node.settle()
                continue
            with pytest.raises(GuestError, match=r"chain\.edge: keep is true, and the code of template\.changing may"):
                node.settle()
