"""Guests that attack the kernel while they run: only the attacker's FWP dies, all others are served byte for byte."""

from __future__ import annotations

import struct
import time
from enum import IntEnum
from pathlib import Path

import pytest
import wasmtime
from node_harness import MILLISECOND_NS, Rig, client_packet, guest, line

from edgeos import NodeSettings, TemplateSettings, testing

SLOT_SIZE = 2048
MEMORY = 1024 * 1024
ATTACKER, OTHERS = 1, (2, 3, 4)


class Act(IntEnum):
    """What tests/guests/hostile.c does, in its order."""

    NONE = 0
    LENGTH_OVER = 1
    LENGTH_HUGE = 2
    POINTER_END = 3
    POINTER_WRAP = 4
    POINTER_TOP = 5
    VERDICT_MAX = 6
    VERDICT_MIN = 7
    VERDICT_BELOW = 8
    VERDICT_UNLINKED = 9
    VERDICT_OVER = 10
    LOOP = 11
    RECURSE = 12
    GROW_LEGAL = 13
    GROW_BEYOND = 14
    UNREACHABLE = 15
    DIVIDE = 16
    READ_OUTSIDE = 17
    BAD_CALL = 18
    SPOIL_NEXT = 19
    SPOIL_EARLIER = 20
    SPOIL_SLOTS = 21
    EMIT_HOSTILE = 22
    LIE_ABOUT_ROOM = 23
    SPOIL_ALL = 24
    STACK_C = 25
    EMIT_THEN_TRAP = 26
    LENGTH_ZERO = 27


KILLED_FOR = {
    Act.LENGTH_OVER: {"bad_length"},
    Act.LENGTH_HUGE: {"bad_length"},
    Act.POINTER_END: {"bad_pointer"},
    Act.POINTER_WRAP: {"bad_pointer"},
    Act.POINTER_TOP: {"bad_pointer"},
    Act.VERDICT_MAX: {"bad_port"},
    Act.VERDICT_MIN: {"bad_port"},
    Act.VERDICT_BELOW: {"bad_port"},
    Act.VERDICT_UNLINKED: {"bad_port"},
    Act.VERDICT_OVER: {"bad_port"},
    Act.LOOP: {"budget"},
    Act.RECURSE: {"stack"},
    Act.GROW_BEYOND: {"bad_pointer"},
    Act.UNREACHABLE: {"trap"},
    Act.DIVIDE: {"trap"},
    Act.READ_OUTSIDE: {"memory"},
    Act.BAD_CALL: {"trap"},
    # The C stack lies at the start of the memory, so its overflow leaves the memory.
    Act.STACK_C: {"memory"},
    Act.EMIT_THEN_TRAP: {"trap"},
    # What a guest writes over itself may kill it in several ways.
    Act.SPOIL_ALL: {"bad_length", "bad_pointer", "bad_port", "trap", "memory", "stack", "budget"},
}
HARMLESS = (Act.NONE, Act.GROW_LEGAL, Act.SPOIL_SLOTS, Act.EMIT_HOSTILE, Act.LIE_ABOUT_ROOM)

NODES = [
    NodeSettings(mover=mover, memory=memory)  # type: ignore[arg-type]
    for mover in ("inline", "dedicated")
    for memory in ("guard", "compact")
]


def packet(client: int, act: Act = Act.NONE, text: bytes = b"") -> bytes:
    return client_packet(client, bytes([act]) + text.ljust(60, b"."))


def hostile(**settings: object) -> TemplateSettings:
    return guest("hostile", budget_ns=2 * MILLISECOND_NS, memory=MEMORY, **settings)


def node_name(settings: NodeSettings) -> str:
    return f"{settings.mover}-{settings.memory}"


def serve_others(rig: Rig, round_: int) -> None:
    """Each of the others gets its packet back byte for byte."""
    frames = [packet(client, text=b"round %d of client %d" % (round_, client)) for client in OTHERS]
    assert rig.pass_through("lan", *frames) == frames


@pytest.mark.parametrize("settings", NODES, ids=node_name)
@pytest.mark.parametrize("act", KILLED_FOR, ids=lambda act: act.name)
def test_only_the_attackers_fwp_dies_and_its_cause_is_counted(act: Act, settings: NodeSettings) -> None:
    with line(hostile(), settings=settings) as rig:
        serve_others(rig, 0)
        rig.inject("lan", packet(ATTACKER, act), *(packet(client, text=b"beside") for client in OTHERS))
        chain = rig.settle().chain("edge")
        assert rig.take("wan") == [packet(client, text=b"beside") for client in OTHERS]
        assert sum(chain.kills.values()) == 1
        assert set(chain.kills) <= KILLED_FOR[act]
        assert chain.dropped == {"killed": 1}
        serve_others(rig, 1)
        assert rig.pass_through("lan", packet(ATTACKER)) == [packet(ATTACKER)], "its next message gets a fresh FWP"
        assert {c.address for c in rig.node.clients("edge")} == {f"10.0.0.{n}" for n in (ATTACKER, *OTHERS)}


@pytest.mark.parametrize("settings", NODES, ids=node_name)
@pytest.mark.parametrize("act", HARMLESS, ids=lambda act: act.name)
def test_what_stays_inside_the_guests_own_memory_is_legal(act: Act, settings: NodeSettings) -> None:
    with line(hostile(), settings=settings) as rig:
        frames = [packet(ATTACKER, act), *(packet(client) for client in OTHERS)]
        assert rig.pass_through("lan", *frames) == frames
        assert rig.check().chain("edge").kills == {}


def test_no_emit_with_hostile_arguments_is_accepted() -> None:
    with line(hostile()) as rig:
        frame = packet(ATTACKER, Act.EMIT_HOSTILE)
        assert rig.pass_through("lan", frame) == [frame]
        chain = rig.node.statistics().chain("edge")
        assert chain.stages[0].counters == {"accepted": 0}
        assert (chain.emitted, chain.emit_refused) == (0, 12)


def test_what_was_emitted_before_a_trap_is_not_sent() -> None:
    with line(hostile()) as rig:
        assert rig.pass_through("lan", packet(ATTACKER, Act.EMIT_THEN_TRAP)) == []
        assert rig.check().chain("edge").emitted == 0


def test_a_message_may_shrink_to_nothing() -> None:
    with line(hostile()) as rig:
        assert rig.pass_through("lan", packet(ATTACKER, Act.LENGTH_ZERO)) == [b""]


def test_descriptors_of_the_messages_behind_are_checked_too() -> None:
    with line(hostile()) as rig:
        others = [packet(client) for client in OTHERS]
        out = rig.pass_through("lan", packet(ATTACKER, Act.SPOIL_NEXT), *[packet(ATTACKER)] * 3, *others)
        assert out[-3:] == others
        chain = rig.check().chain("edge")
        assert chain.dropped["killed"] >= 3
        assert sum(chain.kills.values()) == 1


def test_verdicts_on_the_messages_before_are_checked_too() -> None:
    with line(hostile()) as rig:
        others = [packet(client) for client in OTHERS]
        out = rig.pass_through("lan", *[packet(ATTACKER)] * 3, packet(ATTACKER, Act.SPOIL_EARLIER), *others)
        assert out == others
        chain = rig.check().chain("edge")
        assert chain.kills == {"bad_port": 1}
        assert chain.dropped == {"killed": 4}


@pytest.mark.alone
@pytest.mark.parametrize("settings", NODES, ids=node_name)
def test_an_endless_loop_costs_its_budget_and_not_more(settings: NodeSettings) -> None:
    budget_ns = 10 * MILLISECOND_NS
    with line(guest("hostile", budget_ns=budget_ns), settings=settings) as rig:
        serve_others(rig, 0)
        start = time.process_time()
        rig.pass_through("lan", packet(ATTACKER, Act.LOOP), *(packet(client) for client in OTHERS))
        used = time.process_time() - start
        assert rig.check().chain("edge").kills == {"budget": 1}
        # On a dedicated core the mover polls beside the loop, so the process uses twice the time.
        assert 0.005 < used < (0.05 if settings.mover == "inline" else 0.1)


def test_many_killed_clients_leave_the_node_as_it_was() -> None:
    """A place in a chain stays its client's until that is idle; none is lost and none is taken twice."""
    with line(hostile(), max_fwps=16, settings=NodeSettings(max_flows=16), idle_timeout_ns=10**9) as rig:
        clock = testing.FakeClock(rig.node)
        for start in range(0, 1500, 50):
            rig.inject("lan", *(packet(client, Act.UNREACHABLE) for client in range(start, start + 50)))
            assert rig.settle().chain("edge").live <= 16
            clock.advance(2)
            statistics = rig.settle()
            assert statistics.flows == 0
            assert statistics.chain("edge").live == 0
        serve_others(rig, 0)


def test_a_killed_clients_place_is_not_given_away() -> None:
    with line(hostile(), max_fwps=1) as rig:
        rig.pass_through("lan", packet(1, Act.UNREACHABLE))
        rig.pass_through("lan", packet(2))
        rig.pass_through("lan", packet(1))
        chain = rig.check().chain("edge")
        assert chain.live == 1
        assert chain.peak == 1


# ---- Seeing what belongs to others ----


def dump_memory(rig: Rig, client: int, size: int) -> bytes:
    """All of the memory of a client's FWP, as its guest itself can read it."""
    memory = b""
    while len(memory) < size:
        request = client_packet(client, b"PEEK" + struct.pack("<I", len(memory)) + bytes(8))
        parts = rig.pass_through("lan", request, out="lan")
        assert parts
        memory += b"".join(parts)
    return memory


@pytest.mark.parametrize("settings", NODES, ids=node_name)
def test_no_byte_of_another_client_is_in_a_guests_memory(settings: NodeSettings) -> None:
    """Long messages of one client before short ones of another, beside it and in its recycled FWP."""
    size = 3 * 65536
    with line(guest("peek", ready_high=1), max_fwps=2, idle_timeout_ns=10**9, settings=settings) as rig:
        clock = testing.FakeClock(rig.node)
        for round_ in range(3):
            secret = [client_packet(7, b"SECRET" * 300, sport=1000 + i) for i in range(64)]
            assert rig.pass_through("lan", *secret[:32]) == secret[:32]
            rig.pass_through("lan", client_packet(8, b"short"))
            dump = dump_memory(rig, 8, size)
            assert b"PEEK" in dump, "the guest sees its own messages"
            assert b"SECRET" not in dump, f"beside it, round {round_}"
            clock.advance(2)
            assert rig.settle().chain("edge").live == 0
            dump = dump_memory(rig, 9, size)
            assert b"SECRET" not in dump, f"in a recycled FWP, round {round_}"
            assert b"\x0a\x00\x00\x07" not in dump, "nor the other's address"
            clock.advance(2)
            rig.settle()


@pytest.mark.parametrize("settings", NODES, ids=node_name)
def test_recycled_memory_is_clean_wherever_the_last_client_wrote(settings: NodeSettings) -> None:
    with line(guest("keeper", ready_high=2), max_fwps=2, idle_timeout_ns=10**9, settings=settings) as rig:
        clock = testing.FakeClock(rig.node)
        for client in range(40):
            first, second = (client_packet(client, b"SECRET%02d" % client + bytes(40), sport=p) for p in (1, 2))
            (seen,) = rig.pass_through("lan", first)
            assert seen[-1] == 0, f"client {client} finds what another left"
            (seen,) = rig.pass_through("lan", second)
            assert seen[-1] > 0, "the guest does keep what its own client sent"
            clock.advance(2)
            assert rig.settle().chain("edge").live == 0
        assert rig.check().chain("edge").stages[0].recycled > 10


def test_killed_fwps_leave_nothing_behind() -> None:
    with line(guest("keeper", ready_high=1, slot_size=64), max_fwps=1) as rig:
        assert rig.pass_through("lan", client_packet(1, b"SECRET" + bytes(10)))[0][-1] == 0
        assert rig.check().chain("edge").live == 1
    with line(hostile(ready_high=1), max_fwps=1) as rig:
        for act in (Act.SPOIL_ALL, Act.UNREACHABLE) * 5:
            rig.pass_through("lan", packet(ATTACKER, act))
            assert rig.pass_through("lan", packet(ATTACKER)) == [packet(ATTACKER)]


def test_a_message_grown_to_its_capacity_shows_only_the_own_clients_bytes() -> None:
    """What lies behind a short message in its slot is the same client's longer one before, or nothing."""
    with line(guest("actor", config=b"0"), idle_timeout_ns=10**9, max_fwps=1) as rig:
        clock = testing.FakeClock(rig.node)
        rig.pass_through("lan", client_packet(1, bytes(2) + b"SECRET" * 300))
        clock.advance(2)
        rig.settle()
        lengthen = client_packet(2, bytes([11, 0]))
        assert rig.pass_through("lan", lengthen) == [lengthen.ljust(SLOT_SIZE, b"\0")]


# ---- Modules that no C compiler makes ----

SLOTS = 8
LAYOUT = struct.pack("<11I", 1, SLOTS, 64, 128, 1024, 2048, 4096, 8192, 0, 0, 0)


def wat_guest(folder: Path, burst: str, fields: str = "") -> TemplateSettings:
    """A guest in the text format with the body of its burst; parameters are $first and $count."""
    data = "".join(f"\\{byte:02x}" for byte in LAYOUT)
    module = wasmtime.wat2wasm(
        f"""(module
        (import "edgeos" "emit" (func $emit (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4) (data (i32.const 64) "{data}") {fields}
        (func (export "edgeos_layout_v1") (result i32) (i32.const 64))
        (func (export "edgeos_config") (param i32) (result i32) (i32.const 131072))
        (func (export "edgeos_start") (param i32 i32))
        (func (export "edgeos_burst") (param $first i32) (param $count i32) {burst}))"""
    )
    path = folder / "guest.wasm"
    path.write_bytes(bytes(module))
    return TemplateSettings(name="wat", module=path, ready_low=1, ready_high=2, budget_ns=2 * MILLISECOND_NS)


def small_packet(client: int) -> bytes:
    return client_packet(client, bytes([client] * 8))


def test_a_burst_that_ignores_its_messages_forwards_them_unchanged(tmp_path: Path) -> None:
    """Verdicts start as zeros, and the kernel's own descriptors stand."""
    with line(wat_guest(tmp_path, "")) as rig:
        frames = [small_packet(client) for client in range(20)]
        assert rig.pass_through("lan", *frames) == frames


def test_stale_verdicts_count_for_the_slots_they_lie_in(tmp_path: Path) -> None:
    """A verdict that was written once stays; it is read for each message of its slot, and for no other."""
    with line(wat_guest(tmp_path, "(i32.store (i32.const 2048) (i32.const -1))")) as rig:
        frames = [small_packet(1) for _ in range(4)]
        assert rig.pass_through("lan", *frames) == frames[1:]


EMIT_INDEX = "(drop (call $emit (i32.const {index}) (i32.const 0) (i32.const 4096) (i32.const 60)))"


@pytest.mark.parametrize("index", [0, 3, 7, 8, 255, 2**31, 2**32 - 1])
def test_an_emit_for_a_message_outside_the_burst_is_ordered_among_the_burst(tmp_path: Path, index: int) -> None:
    with line(wat_guest(tmp_path, EMIT_INDEX.format(index=index))) as rig:
        frames = [client_packet(1, bytes([n] * 8)) for n in range(4)]
        out = rig.pass_through("lan", *frames)
        assert len(out) == 5
        assert [frame for frame in out if len(frame) != 60] == frames
        assert rig.check().chain("edge").kills == {}


def test_emits_go_back_in_order_even_if_their_indices_do_not(tmp_path: Path) -> None:
    burst = "".join(EMIT_INDEX.format(index=index) for index in (3, 0, 2))
    with line(wat_guest(tmp_path, burst)) as rig:
        out = rig.pass_through("lan", *(client_packet(1, bytes([n] * 8)) for n in range(4)))
        assert [len(frame) for frame in out] == [50, 50, 50, 60, 60, 60, 50]


def test_an_endless_series_of_emits_is_bounded_by_room(tmp_path: Path) -> None:
    burst = "(loop $more " + EMIT_INDEX.format(index=0) + "(br $more))"
    with line(wat_guest(tmp_path, burst)) as rig:
        assert rig.pass_through("lan", small_packet(1)) == []
        chain = rig.check().chain("edge")
        assert chain.kills == {"budget": 1}
        assert chain.emitted == 0


def test_recursion_without_variables_ends_on_the_native_stack(tmp_path: Path) -> None:
    fields = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))"
    with line(wat_guest(tmp_path, "(drop (call $down (i32.const 0)))", fields)) as rig:
        rig.pass_through("lan", small_packet(1))
        assert rig.check().chain("edge").kills == {"stack": 1}


def test_flow_numbers_do_not_tell_of_other_clients() -> None:
    with line(guest("tally")) as rig:
        out = rig.pass_through("lan", *(client_packet(n % 4, bytes(20), sport=n // 4) for n in range(16)))
        numbers: dict[bytes, list[int]] = {}
        for frame in out:
            numbers.setdefault(frame[26:30], []).append(struct.unpack("<I", frame[-8:-4])[0])
        assert list(numbers.values()) == [[1, 2, 3, 4]] * 4
