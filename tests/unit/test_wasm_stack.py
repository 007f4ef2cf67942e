"""How much C stack a guest needs, read off its code."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeos import wasm
from edgeos.code_cache import CodeCache
from edgeos.errors import GuestError
from edgeos.guest_build import build
from edgeos.guest_compiler import STACK_RECURSIVE
from edgeos.node import Node
from edgeos.settings import STACK_MIN, ChainSettings, TemplateSettings
from edgeos.testing import memory_port, udp_packet
from edgeos.wasm_growth import may_grow
from edgeos.wasm_stack import StackNeed, call_graph, stack_need

FRAME = "(global.set 0 (i32.sub (global.get 0) (i32.const {})))"


def need_of(body: str) -> StackNeed:
    text = f"(module (memory 1) (global (mut i32) (i32.const 65536)) {body})"
    return stack_need(wasm.parse(bytes(wasmtime.wat2wasm(text))))


def function(name: str, frame: int, calls: str = "") -> str:
    return f"(func ${name} {FRAME.format(frame) if frame else ''} {calls})"


def test_a_module_without_code_needs_none() -> None:
    assert need_of("") == StackNeed(0, False)


def test_frames_add_up_along_the_deepest_chain() -> None:
    body = (
        function("leaf", 32)
        + function("deep", 4096, "(call $leaf)")
        + function("broad", 64, "(call $leaf) (call $leaf)")
        + '(func (export "a") (call $broad))'
        + function("b", 16, "(call $broad) (call $deep)")
        + '(export "b" (func $b))'
        + function("never", 50_000)
    )
    assert need_of(body) == StackNeed(16 + 4096 + 32, False)


def test_indirect_calls_reach_what_a_table_names_and_their_type_fits() -> None:
    body = (
        "(type $plain (func)) (table 3 funcref) (elem (i32.const 0) $small $large $other)"
        + function("small", 16)
        + function("large", 800)
        + function("absent", 9000)
        + f"(func $other (param i32) {FRAME.format(7000)})"
        + '(func (export "a") (call_indirect (type $plain) (i32.const 0)))'
    )
    assert need_of(body) == StackNeed(800, False)


def test_functions_that_call_each_other_are_told_of_where_they_have_frames() -> None:
    assert need_of('(func $f (export "a") (call $f))') == StackNeed(0, False)
    assert need_of(f'(func $f (export "a") {FRAME.format(48)} (call $f))') == StackNeed(48, True)
    ring = function("b", 100, "(call $c)") + function("c", 200, "(call $b) (call $leaf)") + function("leaf", 5)
    assert need_of(ring + '(func (export "a") (call $b))') == StackNeed(305, True)


def test_every_kind_of_instruction_is_passed_over() -> None:
    body = f"""
    (data $d "x") (elem $e func $f) (table $t 2 funcref)
    (func $f (param i32) (result i32) (local v128 f64)
      (block $x (result i32)
        (br_table $x $x (i32.const 1) (local.get 0)))
      (drop) (drop (f32.const 1)) (drop (f64.const 2)) (drop (i64.const -9000000000))
      (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0)) (data.drop $d)
      (memory.copy (i32.const 0) (i32.const 0) (i32.const 0)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))
      (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 0)) (elem.drop $e)
      (drop (table.grow $t (ref.null func) (i32.const 0))) (drop (table.size $t))
      (table.set $t (i32.const 0) (ref.func $f)) (drop (ref.is_null (table.get $t (i32.const 0))))
      (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 0)))
      (local.set 1 (v128.const i32x4 1 2 3 4))
      (local.set 1 (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get 1) (local.get 1)))
      (local.set 1 (v128.load8_lane offset=70000 3 (i32.const 0) (local.get 1)))
      (v128.store64_lane 1 (i32.const 0) (local.get 1))
      (drop (i8x16.extract_lane_s 15 (local.get 1))) (drop (v128.load32_zero (i32.const 0)))
      (i64.store offset=8 (i32.const 0) (i64.const 1)) (drop (memory.grow (i32.const 0)))
      (drop (i32.trunc_sat_f64_s (local.get 2)))
      {FRAME.format(1 << 20)})
    (export "a" (func $f))"""
    assert need_of(body) == StackNeed(1 << 20, False)


def test_long_chains_of_calls() -> None:
    many = 20_000
    chain = "".join(function(f"f{i}", 16, f"(call $f{i + 1})") for i in range(many)) + function(f"f{many}", 16)
    assert need_of(chain + '(export "a" (func $f0))') == StackNeed(16 * (many + 1), False)


@pytest.mark.parametrize("last", ["(drop (memory.grow (i32.const 1)))", ""])
def test_calls_through_a_table_take_no_more_room_than_the_module(last: str) -> None:
    many = 2000
    calling = "".join(f"(func $f{i} (call_indirect (type $plain) (i32.const 0)))" for i in range(many))
    named = " ".join(f"$f{i}" for i in range(many))
    text = f"""(module (memory 1) (global (mut i32) (i32.const 65536)) (type $plain (func)) (type $same (func))
    (table {many + 1} funcref) (elem (i32.const 0) {named} $last)
    {calling} (func $last (type $same) {FRAME.format(32)} {last}) (export "a" (func $f0)))"""
    module = wasm.parse(bytes(wasmtime.wat2wasm(text)))
    assert sum(len(callees) for callees in call_graph(module).values()) == 2 * many + 1
    assert may_grow(module, [0]) == (last != "")
    assert stack_need(module) == StackNeed(32, False)


@pytest.fixture(scope="module")
def code() -> bytes:
    return bytes(
        wasmtime.wat2wasm(
            f'(module (memory 1) (global (mut i32) (i32.const 9)) (func $f (export "a") (param i64) {FRAME.format(300)}'
            "(drop (i64.add (local.get 0) (i64.const 77))) (block (br 0)) (call $f (i64.const 2))))"
        )
    )


@given(st.data())
@settings(max_examples=300)
def test_spoiled_code_raises_nothing_else(code: bytes, data: st.DataObject) -> None:
    spoiled = bytearray(code)
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(8, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(GuestError):
        assert stack_need(wasm.parse(bytes(spoiled))).bytes >= 0


FORMATTING = """
#include <edgeos.h>
#include <stdio.h>
#include <stdlib.h>
int edgeos_handle(edgeos_message *m) {
    char text[64];
    const int len = snprintf(text, sizeof text, "%u %.3f", m->len, strtod("3.25", NULL));
    return len > 7 && text[len - 1] == '0' ? 0 : EDGEOS_DROP;
}
"""


def test_a_guest_gets_as_much_stack_as_its_code_and_library_need(tmp_path: Path) -> None:
    source = tmp_path / "formatting.c"
    source.write_text(FORMATTING)
    with memory_port("lan") as lan, memory_port("wan") as wan, Node() as node:
        node.add_port(lan)
        node.add_port(wan)
        node.add_template(TemplateSettings(name="format", source=source))
        chain = node.add_chain(ChainSettings(name="edge", path=("lan", "format", "wan")))
        node.add_rule("any", chain="edge")
        lan.inject(udp_packet("10.0.0.1", "192.0.2.1", b"a question"))
        while node.run_once():
            pass
        assert len(wan.take()) == 1, node.statistics().chain(chain.name).kills


def built(tmp_path: Path, code: str, stack: int | None = None) -> tuple[int, list[str]]:
    """The stack pointer of a guest, and what was said while it was built."""
    source = tmp_path / "guest.c"
    source.write_text("#include <edgeos.h>\n" + code)
    lines: list[str] = []
    module = wasm.parse(build(source, stack=stack, cache=CodeCache(tmp_path / "cache"), progress=lines.append))
    pointer = module.globals[0].init
    return wasm.Reader(pointer, 1, len(pointer)).signed(32), lines


LARGE = """
int edgeos_handle(edgeos_message *m) {
    volatile char most[5000];
    for (unsigned i = 0; i < sizeof most; i++) most[i] = (char)m->len;
    return most[m->len % sizeof most] == 0 ? EDGEOS_DROP : 0;
}
"""
RECURSIVE = """
static unsigned depth(volatile unsigned *over) {
    volatile unsigned here = *over - 1;
    return here == 0 ? 1 : depth(&here) + here;
}
int edgeos_handle(edgeos_message *m) { volatile unsigned n = m->len; return depth(&n) == 0 ? EDGEOS_DROP : 0; }
"""


def test_small_guests_have_a_small_stack_and_large_ones_a_larger(tmp_path: Path) -> None:
    assert built(tmp_path, "int edgeos_handle(edgeos_message *m) { return m->len < 14; }")[0] == STACK_MIN
    assert 5000 <= built(tmp_path, LARGE)[0] <= 5200
    assert STACK_RECURSIVE <= built(tmp_path, RECURSIVE)[0] <= STACK_RECURSIVE + 200


def test_a_stack_that_is_too_small_is_said(tmp_path: Path) -> None:
    pointer, lines = built(tmp_path, LARGE, stack=4096)
    assert pointer == 4096
    assert len(lines) == 2
    assert "may use 50" in lines[1]
    assert "has 4096" in lines[1]
    assert len(built(tmp_path, LARGE, stack=8192)[1]) == 1
