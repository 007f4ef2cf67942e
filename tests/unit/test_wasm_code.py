"""Whether code changes its table: each instruction is passed over by its length, and what writes to it is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from edgeos import wasm
from edgeos.guest import appliance_source
from edgeos.guest_build import build
from edgeos.kinds import Appliance
from edgeos.wasm_code import changes_table

# One of each form of instruction; bytes of immediates that look like table.set (0x26) among them.
ALL = """
  (local $v v128) (local $f f64) (local $r funcref)
  (block $out (loop $in (if (i32.const 38) (then nop) (else (br $out)))
    (br_if $in (i32.const 0)) (br_table $in $out $out (i32.const 2))))
  (block (result i32) (i32.const 1)) (drop)
  (drop (select (i32.const 1) (i32.const 2) (i32.const 0)))
  (drop (select (result funcref) (ref.null func) (ref.null func) (i32.const 0)))
  (drop (i64.const -0x2626262626)) (drop (i32.const -2147483648))
  (drop (f32.const 2.5e-16)) (local.set $f (f64.const 2.6e26))
  (call $callee (i32.const 38))
  (call_indirect (param i32) (i32.const 0) (i32.const 0))
  (drop (ref.is_null (ref.func $callee))) (drop (table.get (i32.const 0))) (drop (table.size))
  (i64.store32 offset=38 (i32.const 0) (i64.load8_s offset=0x262626 (i32.const 0)))
  (drop (memory.grow (memory.size))) (memory.fill (i32.const 0) (i32.const 0) (i32.const 1))
  (memory.copy (i32.const 0) (i32.const 0) (i32.const 1)) (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0))
  (data.drop 0) (elem.drop 0)
  (drop (i32.trunc_sat_f64_u (local.get $f))) (drop (i32.extend8_s (i32.const 38)))
  (local.set $v (v128.const i8x16 38 38 38 38 38 38 38 38 38 38 38 38 38 38 38 38))
  (local.set $v (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get $v) (local.get $v)))
  (v128.store offset=38 (i32.const 0) (v128.load32_zero offset=38 (i32.const 0)))
  (v128.store8_lane offset=38 1 (i32.const 0) (local.get $v))
  (drop (i8x16.extract_lane_u 3 (local.get $v))) (drop (f64x2.mul (local.get $v) (local.get $v)))
  (drop (i32x4.trunc_sat_f64x2_u_zero (local.get $v)))
  (global.set $g (global.get $g)) (local.set $f (local.tee $f (f64.sqrt (local.get $f))))
"""

WRITES = {
    "table.set": "(table.set (i32.const 0) (ref.null func))",
    "table.grow": "(drop (table.grow (ref.null func) (i32.const 1)))",
    "table.fill": "(table.fill (i32.const 0) (ref.null func) (i32.const 1))",
    "table.copy": "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))",
    "table.init": "(table.init 0 (i32.const 0) (i32.const 0) (i32.const 0))",
}


def code(body: str, *, behind: str = "") -> bytes:
    text = f"""(module (memory 1) (table 2 funcref) (global $g (mut i32) (i32.const 38))
      (elem func $callee) (data "x")
      (func $callee (param i32)) (func $work {body}) (func {behind}))"""
    return wasm.parse(bytes(wasmtime.wat2wasm(text))).code


def test_all_other_instructions_are_passed_over() -> None:
    assert not changes_table(code(ALL))
    assert not changes_table(code(ALL, behind=ALL))


@pytest.mark.parametrize("name", WRITES)
def test_what_writes_to_the_table_is_found(name: str) -> None:
    assert changes_table(code(WRITES[name]))
    assert changes_table(code("", behind=ALL + WRITES[name]))


@pytest.mark.parametrize("name", Appliance.names())
def test_appliances_do_not_change_their_tables(name: str) -> None:
    source: Path = appliance_source(name)
    assert not changes_table(wasm.parse(build(source)).code)
