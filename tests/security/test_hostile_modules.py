"""Guests that are broken or hostile before their first message: each is refused with the reason, and nothing breaks."""

from __future__ import annotations

import struct
import time
from dataclasses import asdict, dataclass

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeos.checkpoint import Checkpoint, make_checkpoint
from edgeos.errors import GuestError

LAYOUT_AT = 64
MEMORY = 4 * 65536


@dataclass(frozen=True)
class Layout:
    """The guest's layout, field by field as in edgeos.h; the defaults are good."""

    version: int = 1
    slots: int = 8
    slot_size: int = 64
    slot_stride: int = 128
    messages: int = 1024
    verdicts: int = 2048
    data: int = 4096
    counters: int = 8192
    counter_count: int = 0
    error: int = 0
    error_len: int = 0

    def pack(self) -> bytes:
        return struct.pack("<11I", *asdict(self).values())


def text(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:02x}" for byte in data) + '"'


def guest(
    *,
    layout: Layout | None = None,
    fields: str = "",
    memory: str = '(memory (export "memory") 4)',
    layout_body: str = f"(i32.const {LAYOUT_AT})",
    config_body: str = "(i32.const 200000)",
    init_body: str = "",
) -> bytes:
    """A guest in the text format; `fields` come first, as imports must."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(module {fields} {memory}
            (data (i32.const {LAYOUT_AT}) {text((layout or Layout()).pack())})
            (func (export "edgeos_layout_v1") (result i32) {layout_body})
            (func (export "edgeos_config") (param $len i32) (result i32) {config_body})
            (func (export "edgeos_start") (param $config i32) (param $len i32) {init_body})
            (func (export "edgeos_burst") (param i32 i32)))"""
        )
    )


def refusal(module: bytes, config: bytes = b"x", **limits: float) -> str:
    with pytest.raises(GuestError) as caught:
        make_checkpoint(module, config, **limits)  # type: ignore[arg-type]
    return str(caught.value)


def counters(*names: bytes) -> str:
    records = b"".join(name.ljust(24, b"\0") + bytes(8) for name in names)
    return f"(data (i32.const 8192) {text(records)})"


def test_the_guest_that_the_others_are_made_from_is_good() -> None:
    checkpoint = make_checkpoint(guest(), b"x")
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.initial_memory == MEMORY
    assert checkpoint.layout.counters == ()


# ---- Not a module, or not a guest ----


def test_no_bytes() -> None:
    assert "0 bytes" in refusal(b"")


def test_not_webassembly() -> None:
    assert "edgeos build" in refusal(b"#!/bin/sh\n")


def test_every_truncated_module_is_refused() -> None:
    whole = guest()
    names = whole.index(b"\x04name") - 2  # the names of its variables come last, and are not needed
    make_checkpoint(whole[:names], b"")
    for end in [*range(names), *range(names + 1, len(whole))]:
        refusal(whole[:end])


def test_a_component() -> None:
    assert "component" in refusal(bytes(wasmtime.wat2wasm("(component)")))


def test_code_that_does_not_validate() -> None:
    whole = guest(init_body="(drop (i32.const 77))")
    assert "not valid" in refusal(whole.replace(b"\x41\xcd\x00\x1a", b"\x1a\x1a\x1a\x1a"))


@pytest.mark.parametrize("name", ["memory", "edgeos_layout_v1", "edgeos_config", "edgeos_start", "edgeos_burst"])
def test_a_missing_export(name: str) -> None:
    renamed = guest().replace(name.encode(), b"X" * len(name))
    assert f"export '{name}'" in refusal(renamed)
    assert "compile with `edgeos build`" in refusal(renamed)


def test_all_missing_exports_are_named_at_once() -> None:
    words = refusal(bytes(wasmtime.wat2wasm("(module)")))
    assert all(
        name in words for name in ("memory", "edgeos_layout_v1", "edgeos_config", "edgeos_start", "edgeos_burst")
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('(func (export "_initialize") (param i32))', "'_initialize' has type (i32) -> ()"),
        ('(global (export "_initialize") i32 (i32.const 0))', "'_initialize' is a global"),
    ],
)
def test_an_export_of_another_type(fields: str, words: str) -> None:
    assert words in refusal(guest(fields=fields))


def test_an_export_of_another_signature() -> None:
    source = (
        '(module (memory (export "memory") 1) (func (export "edgeos_burst") (param i64) (result f32) (f32.const 0)))'
    )
    assert "'edgeos_burst' has type (i64) -> (f32), it must be (i32, i32) -> ()" in refusal(
        bytes(wasmtime.wat2wasm(source))
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))',
            "1.fd_write: guests",
        ),
        ('(import "env" "system" (func (param i32)))', "env.system: there is only edgeos.emit, edgeos.stream"),
        ('(import "edgeos" "emit" (func (param i32)))', "edgeos.emit must be a function of type (i32, i32, i32, i32)"),
        ('(import "edgeos" "emit" (global i32))', "edgeos.emit must be a function"),
        ('(import "edgeos" "shutdown" (func))', "edgeos.shutdown"),
        ('(import "env" "t" (table 1 funcref))', "env.t: memory, tables and globals must be the guest's own"),
        ('(import "env" "g" (global (mut i32)))', "env.g: memory, tables"),
        ('(import "\\1b[2J" "x" (func))', "\\x1b[2J.x"),
    ],
)
def test_an_import_that_is_not_granted(fields: str, words: str) -> None:
    found = refusal(guest(fields=fields))
    assert words in found
    assert "\x1b" not in found


def test_an_imported_memory() -> None:
    assert "env.memory" in refusal(guest(memory='(import "env" "memory" (memory 4)) (export "memory" (memory 0))'))


# ---- State that a checkpoint cannot hold ----


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ('(memory (export "memory") 4) (memory 1)', "2 memories"),
        ('(memory (export "memory") 4 4 shared)', "shared"),
        ('(memory (export "memory") i64 4)', "64-bit"),
        ('(memory (export "memory") 17)', "starts with 1114112 bytes of memory, the limit is 1048576"),
        ('(memory (export "memory") 65536)', "starts with 4294967296 bytes"),
    ],
)
def test_a_memory_that_an_fwp_does_not_get(memory: str, words: str) -> None:
    # The data segment and the functions of the template guest do not matter: the memory is looked at first.
    assert words in refusal(guest(memory=memory) if "i64" not in memory else wide_memory())


def wide_memory() -> bytes:
    """The template guest with the flag for 64-bit addresses set in its memory section."""
    whole = guest()
    assert whole.count(b"\x05\x03\x01\x00\x04") == 1
    return whole.replace(b"\x05\x03\x01\x00\x04", b"\x05\x03\x01\x04\x04")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("(global (mut funcref) (ref.null func))", "global 0 is a mutable funcref"),
        ("(global i32 (i32.const 1)) (global (mut externref) (ref.null extern))", "global 1 is a mutable externref"),
        ('(data "passive")', "passive segments"),
        ("(elem func $f) (func $f)", "passive segments"),
        ("(table 1 externref)", "the table holds externref"),
        ("(table 1 funcref) (table 1 funcref)", "2 tables"),
        ("(table 20001 funcref)", "20001 elements"),
        ("(global i32 (i32.const 1))" * 1025, "1025 globals"),
    ],
)
def test_state_that_cannot_be_captured(fields: str, words: str) -> None:
    assert words in refusal(guest(fields=fields))


TABLE = "(table 4 20 funcref) (elem (i32.const 0) $a $b) (func $a) (func $b (drop (i32.const 1)))"


@pytest.mark.parametrize(
    "change",
    [
        "(table.set (i32.const 0) (ref.func $b))",
        "(table.set (i32.const 3) (ref.func $a))",
        "(table.set (i32.const 1) (ref.null func))",
        "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))",
        "(table.fill (i32.const 2) (ref.func $a) (i32.const 2))",
        "(drop (table.grow (ref.null func) (i32.const 1)))",
    ],
)
def test_a_table_that_init_changes(change: str) -> None:
    assert "changed the function table" in refusal(guest(fields=TABLE, init_body=change))


def test_a_table_that_the_start_function_changes() -> None:
    fields = TABLE + "(func $s (table.set (i32.const 0) (ref.func $b))) (start $s)"
    assert "changed the function table" in refusal(guest(fields=fields))


@pytest.mark.parametrize(
    "same", ["(table.set (i32.const 0) (ref.func $a))", "(table.copy (i32.const 0) (i32.const 0) (i32.const 4))"]
)
def test_a_table_that_init_leaves_as_it_was_is_captured(same: str) -> None:
    assert make_checkpoint(guest(fields=TABLE, init_body=same), b"").layout.slots == 8


# ---- Init that does not end well ----


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("unreachable", "edgeos_start: it trapped"),
        ("(i32.store (i32.const 0x7fffffff) (i32.const 1))", "outside its memory"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divided by zero"),
        ("(call $f)", "stack; does it recurse"),
        ("(call_indirect (i32.const 0))", "null function pointer"),
    ],
)
def test_a_trap_in_init(body: str, words: str) -> None:
    fields = "(table 1 funcref) (func $f (call $f) (call $f))"
    assert words in refusal(guest(fields=fields, init_body=body))


@pytest.mark.parametrize(
    ("kwargs", "where"),
    [
        ({"fields": "(func $s unreachable) (start $s)"}, "start"),
        ({"fields": '(func (export "_initialize") unreachable)'}, "_initialize"),
        ({"layout_body": "unreachable"}, "edgeos_layout_v1"),
        ({"config_body": "unreachable"}, "edgeos_config"),
        ({"init_body": "unreachable"}, "edgeos_start"),
    ],
)
def test_the_function_that_trapped_is_named(kwargs: dict[str, str], where: str) -> None:
    assert f"init failed in {where}:" in refusal(guest(**kwargs))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["layout_body", "config_body", "init_body"])
def test_an_endless_init_runs_out_of_fuel(where: str) -> None:
    started = time.monotonic()
    assert "loop for ever" in refusal(guest(**{where: "(loop $l (br $l)) unreachable"}), fuel=1_000_000)  # type: ignore[arg-type]
    assert time.monotonic() - started < 20


def test_an_init_of_few_but_slow_instructions_runs_out_of_time() -> None:
    fill = "(loop $l (memory.fill (i32.const 65536) (i32.const 0) (i32.const 131072)) (br $l))"
    started = time.monotonic()
    assert "longer than the limit" in refusal(guest(init_body=fill), fuel=1 << 62, time_limit=0.3)
    assert time.monotonic() - started < 20


def test_an_endless_emitter_is_turned_down_each_time_and_runs_out() -> None:
    emit = '(import "edgeos" "emit" (func $emit (param i32 i32 i32 i32) (result i32)))'
    call = "(call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"
    loop = f"(loop $l (br_if $l (i32.eq {call} (i32.const -1))))"
    assert "loop for ever" in refusal(guest(fields=emit, init_body=loop), fuel=100_000)


def test_growth_past_the_limit_fails_inside_the_guest() -> None:
    grow = "(if (i32.ne (memory.grow (i32.const 13)) (i32.const -1)) (then unreachable))"
    assert make_checkpoint(guest(init_body=grow), b"").initial_memory == MEMORY
    assert "it trapped" in refusal(guest(init_body=grow.replace("13", "12")))
    assert make_checkpoint(guest(init_body=grow.replace("13", "12").replace("ne", "eq")), b"").initial_memory == 1 << 20


def test_growth_past_the_modules_own_maximum_fails_inside_the_guest() -> None:
    grow = "(if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))"
    own = '(memory (export "memory") 4 5)'
    assert make_checkpoint(guest(memory=own, init_body=grow), b"").initial_memory == MEMORY


def test_a_guest_without_room_for_its_configuration() -> None:
    assert "no room for 3 bytes of configuration" in refusal(guest(config_body="(i32.const 0)"), b"abc")


@pytest.mark.parametrize("address", [MEMORY - 2, MEMORY, -1, -(2**31)])
def test_a_configuration_outside_the_memory(address: int) -> None:
    assert "3 bytes do not fit" in refusal(guest(config_body=f"(i32.const {address})"), b"abc")


# ---- The guest's own reason ----


def failing(error: int, length: int, reason: bytes) -> bytes:
    return guest(
        layout=Layout(error=error, error_len=length),
        fields=f"(data (i32.const 9000) {text(reason)})" if reason else "",
        init_body="unreachable",
    )


def test_the_guests_own_reason_is_shown() -> None:
    reason = b"line 3: unknown word 'alow'"
    assert refusal(failing(9000, len(reason), reason)) == "init failed: line 3: unknown word 'alow'"


def test_the_guests_own_reason_cannot_upset_a_terminal() -> None:
    reason = b"\x1b[2Jgone\r\n\x07\xff\xe2\x80\xae\x00end"
    shown = refusal(failing(9000, len(reason), reason))
    assert shown.isprintable()
    assert "\\x1b[2Jgone\\r\\n\\x07" in shown


def test_the_guests_own_reason_is_cut() -> None:
    shown = refusal(failing(9000, 0xFFFFFFFF, b"a" * 3000))
    assert shown == "init failed: " + "a" * 1024


@pytest.mark.parametrize(("error", "length"), [(MEMORY - 3, 4), (0xFFFFFFFF, 1), (0xFFFFFFFF, 0xFFFFFFFF), (0, 10)])
def test_a_reason_outside_the_memory_is_left_out(error: int, length: int) -> None:
    assert refusal(failing(error, length, b"")).startswith("init failed in edgeos_start: it trapped")


# ---- The layout ----


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(version=0), "version 0"),
        (Layout(version=2), "version 2"),
        (Layout(slots=0), "slots is 0"),
        (Layout(slots=4), "slots is 4"),
        (Layout(slots=12), "slots is 12"),
        (Layout(slots=512), "slots is 512"),
        (Layout(slots=0x80000000), "slots is 2147483648"),
        (Layout(slot_size=0), "slot_size is 0"),
        (Layout(slot_size=100), "slot_size is 100"),
        (Layout(slot_size=65600), "slot_size is 65600"),
        (Layout(slot_stride=48), "slot_stride is 48"),
        (Layout(slot_stride=72), "slot_stride is 72"),
        (Layout(slot_stride=0xFFFFFFF0), "data at 4096"),
        (Layout(messages=1028), "messages at 1028 is not aligned to 8"),
        (Layout(verdicts=2050), "verdicts at 2050 is not aligned to 4"),
        (Layout(data=4104), "data at 4104 is not aligned to 16"),
        (Layout(data=0), "no room for 8 slots of 128 bytes"),
        (Layout(messages=MEMORY - 248), "messages at 261896 with 256 bytes ends outside the memory"),
        (Layout(messages=0xFFFFFFF8), "outside the memory"),
        (Layout(verdicts=0xFFFFFFFC), "outside the memory"),
        (Layout(data=0xFFFFFFF0), "outside the memory"),
        (Layout(verdicts=1024), "messages and verdicts overlap at 1024"),
        (Layout(verdicts=1276), "messages and verdicts overlap at 1276"),
        (Layout(data=2064), "verdicts and data overlap at 2064"),
        (Layout(counter_count=1, counters=4096 + 8 * 128 - 32), "data and counters overlap"),
        (Layout(counter_count=257), "counter_count is 257"),
        (Layout(counter_count=0xFFFFFFFF), "counter_count is 4294967295"),
        (Layout(counter_count=1, counters=8196), "counters at 8196 is not aligned"),
        (Layout(counter_count=256, counters=MEMORY - 256), "counters at 261888 with 8192 bytes ends outside"),
        (Layout(counter_count=1, counters=8192), "name of counter 0 is ''"),
    ],
)
def test_a_layout_that_is_wrong(layout: Layout, words: str) -> None:
    assert words in refusal(guest(layout=layout))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([b"seen", b"seen"], "two counters have the name 'seen'"),
        ([b"with space"], "'with space'"),
        ([b"\x1b[2J"], "'\\x1b[2J'"),
        ([b"\xff\xfe"], "printable ASCII"),
        ([b"good", b""], "counter 1 is ''"),
    ],
)
def test_counter_names_that_are_wrong(names: list[bytes], words: str) -> None:
    assert words in refusal(guest(layout=Layout(counter_count=len(names)), fields=counters(*names)))


def test_counter_names_may_fill_their_field() -> None:
    module = guest(layout=Layout(counter_count=2), fields=counters(b"a" * 24, b"b\0junk\xff"))
    found = make_checkpoint(module, b"").layout.counters
    assert [(counter.name, counter.address) for counter in found] == [("a" * 24, 8216), ("b", 8248)]


@pytest.mark.parametrize("address", [MEMORY - 43, MEMORY, -1])
def test_a_layout_outside_the_memory(address: int) -> None:
    assert "edgeos_layout_v1 returned" in refusal(guest(layout_body=f"(i32.const {address})"))


def test_the_layout_is_read_once() -> None:
    """A guest that changes its layout after it gave it changes nothing."""
    module = guest(init_body=f"(i32.store (i32.const {LAYOUT_AT + 4}) (i32.const 65536))")
    assert make_checkpoint(module, b"").layout.slots == 8


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.integers(0, 2**32 - 1) | st.integers(0, 300) | st.sampled_from([64, 1024, 4096]), min_size=9, max_size=9
    )
)
def test_no_layout_does_anything_but_pass_or_be_refused(words: list[int]) -> None:
    module = guest().replace(Layout().pack(), struct.pack("<9I", *words) + bytes(8))
    try:
        layout = make_checkpoint(module, b"").layout
    except GuestError:
        return
    assert layout.data + layout.slots * layout.slot_stride <= MEMORY


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_mutated_guest_raises_anything_else(changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(guest(fields=TABLE, init_body="(i32.store (i32.const 8) (i32.const 1))"))
    for position, value in changes:
        mutated[8 + position % (len(mutated) - 8)] = value
    try:
        checkpoint = make_checkpoint(bytes(mutated), b"config", fuel=100_000, time_limit=5)
    except GuestError:
        return
    assert checkpoint.initial_memory <= 1 << 20
