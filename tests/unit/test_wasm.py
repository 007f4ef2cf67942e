"""The reader and rewriter of WebAssembly modules."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeos import wasm
from edgeos.errors import GuestError

RICH = """
(module
  (type $binary (func (param i32 i64 f32 f64 v128 funcref externref) (result i32)))
  (import "edgeos" "emit" (func $emit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2 9)
  (table (export "table") 4 funcref)
  (global $constant i64 (i64.const -1234567890123))
  (global $counter (export "counter") (mut i32) (i32.add (i32.const 40) (i32.const 2)))
  (global (mut f32) (f32.const 1.5))
  (global (mut f64) (f64.const -2.5))
  (global (mut v128) (v128.const i64x2 1 -1))
  (global funcref (ref.func $one))
  (func $one (export "one") (result i32) (i32.const 1))
  (func $two (export "two") (param i64) (result i64 i64) (local.get 0) (local.get 0))
  (func $begin (i32.store (i32.const 8) (i32.const 7)))
  (start $begin)
  (elem (i32.const 1) func $one $emit)
  (elem declare func $one)
  (elem (table 0) (i32.const 0) funcref (ref.null func) (ref.func $one))
  (elem func $two)
  (data (i32.const 16) "hello")
  (data "passive")
  (func (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 7)))
)
"""
HEADER = b"\0asm\x01\0\0\0"


@functools.cache
def rich() -> bytes:
    return bytes(wasmtime.wat2wasm(RICH))


def instance(code: bytes) -> tuple[wasmtime.Store, Any]:
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, code)
    i32 = wasmtime.ValType.i32()
    emit = wasmtime.Func(store, wasmtime.FuncType([i32] * 4, [i32]), lambda *_: 0)
    return store, wasmtime.Instance(store, module, [emit] * len(module.imports)).exports(store)


def section(number: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([number, len(body)]) + body


def test_reads_what_a_module_holds() -> None:
    module = wasm.parse(rich())
    assert module.imports == (wasm.Import("edgeos", "emit", wasm.FUNCTION, module.function_type(0)),)
    assert str(module.function_type(0)) == "(i32, i32, i32, i32) -> (i32)"
    assert module.memories == (wasm.Limits(2, 9),)
    assert module.tables == (wasm.Table(wasm.FUNCREF, wasm.Limits(4, None)),)
    assert [(g.value, g.mutable) for g in module.globals] == [
        (wasm.I64, False),
        (wasm.I32, True),
        (wasm.F32, True),
        (wasm.F64, True),
        (wasm.V128, True),
        (wasm.FUNCREF, False),
    ]
    assert [(e.name, e.kind, e.index) for e in module.exports] == [
        ("memory", wasm.MEMORY, 0),
        ("table", wasm.TABLE, 0),
        ("counter", wasm.GLOBAL, 1),
        ("one", wasm.FUNCTION, 1),
        ("two", wasm.FUNCTION, 2),
    ]
    assert str(module.function_type(2)) == "(i64) -> (i64, i64)"
    assert module.start == 3
    assert module.elements == (wasm.ACTIVE, wasm.DECLARATIVE, wasm.ACTIVE, wasm.PASSIVE)
    assert module.data == (wasm.ACTIVE, wasm.PASSIVE)
    assert module.data_count == 2
    assert module.imported(wasm.FUNCTION) == 1


def test_a_rewritten_module_has_the_state_it_was_given() -> None:
    module = wasm.parse(rich())
    nan = bytes.fromhex("010080ff")  # a signalling NaN with a payload, which a Python float does not keep
    values = [
        module.globals[0],
        wasm.Global(wasm.I32, True, wasm.constant(wasm.I32, (-(2**31)).to_bytes(4, "little", signed=True))),
        wasm.Global(wasm.F32, True, wasm.constant(wasm.F32, nan)),
        wasm.Global(wasm.F64, True, wasm.constant(wasm.F64, b"\xff" * 8)),
        wasm.Global(wasm.V128, True, wasm.constant(wasm.V128, bytes(range(16)))),
        module.globals[5],
    ]
    counter = next(entry for entry in module.exports if entry.name == "counter")
    memory = next(entry for entry in module.exports if entry.name == "memory")
    result = wasm.rewrite(
        module,
        exports=[counter, memory],
        memory=wasm.Limits(3, 5),
        globals=values,
        data=[(70000, b"far"), (3, b"near")],
    )
    again = wasm.parse(result)
    assert again.start is None
    assert [g.init for g in again.globals[1:5]] == [g.init for g in values[1:5]]
    assert again.globals[2].init[1:5] == nan
    store, exports = instance(result)
    assert exports["counter"].value(store) == -(2**31)
    assert exports["memory"].size(store) == 3
    contents = exports["memory"].read(store, 0, 3 * wasm.PAGE_SIZE)
    assert contents[3:7] == b"near"
    assert contents[70000:70003] == b"far"
    assert contents.count(0) == len(contents) - 7
    assert exports["memory"].grow(store, 2) == 3
    with pytest.raises(wasmtime.WasmtimeError):
        exports["memory"].grow(store, 1)


def test_code_may_still_name_old_segments_and_dropped_exports() -> None:
    source = """(module (memory (export "memory") 1) (table 1 funcref)
      (func $f (export "f")) (func (export "run") (result i32)
        (data.drop 2) (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 0)) (ref.is_null (ref.func $f)))
      (data (i32.const 0) "a") (data (i32.const 1) "b") (data (i32.const 2) "c"))"""
    module = wasm.parse(bytes(wasmtime.wat2wasm(source)))
    run = next(entry for entry in module.exports if entry.name == "run")
    result = wasm.rewrite(module, exports=[run], memory=wasm.Limits(1, 1), data=[(0, b"abc")])
    store, exports = instance(result)
    assert exports["run"](store) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x7fELF", "does not begin"),
        (b"\0as", "does not begin"),
        (b"\0asm", "byte 4: version"),
        (b"\0asm\x02\0\0\0", "byte 4: version"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (HEADER + b"\x0d\x01\0", "byte 8: section 0x0d"),
        (HEADER + b"\x01\x05\0", "byte 10: 5 bytes are announced, 1 are left"),
        (HEADER + section(1, b"\0\0"), "longer than its contents"),
        (HEADER + section(1, b"\x01\x5f\0\0"), "byte 11: type 0x5f is not a function type"),
        (HEADER + section(1, b"\x01\x60\x01\x63\0"), "byte 13: value type 0x63"),
        (HEADER + section(1, b"\x7f"), "127 entries are announced, 0 bytes are left"),
        (HEADER + section(1, b"\x80\x80\x80\x80\x80\0"), "longer than 32 bits"),
        (HEADER + section(1, b"\xff\xff\xff\xff\x7f"), "larger than 32 bits"),
        (HEADER + section(3, b"\0") + section(1, b"\0"), "type section is repeated or out of order"),
        (HEADER + section(1, b"\0") + section(1, b"\0"), "repeated"),
        (HEADER + section(3, b"\x01\0"), "type 0 does not exist"),
        (HEADER + section(2, b"\x01\x01\xff\x01a\x00\0"), "not UTF-8"),
        (HEADER + section(5, b"\x01\x08\x01"), "limits 0x08"),
        (HEADER + section(5, b"\x01\x01\x02\x01"), "maximum 1 is smaller than minimum 2"),
        (HEADER + section(6, b"\x01\x7f\x00\x10\x00\x0b"), "instruction 0x10 is not allowed"),
        (HEADER + section(6, b"\x01\x7f\x02\x41\x00\x0b"), "mutability 0x02"),
        (HEADER + section(7, b"\x01\x01a\x00\x00"), "function 0 does not exist"),
        (HEADER + section(5, b"\x01\0\0") + section(7, b"\x02\x01a\x02\x00\x01a\x02\x00"), "same name"),
        (HEADER + section(8, b"\0"), "function 0 does not exist"),
        (HEADER + section(9, b"\x01\x08"), "kind of element segment 0x08"),
        (HEADER + section(10, b"\x01\x02\0\x0b"), "0 functions are declared, 1 have bodies"),
        (HEADER + section(11, b"\x01\x03\0"), "kind of data segment 0x03"),
        (HEADER + section(12, b"\x02"), "2 data segments are announced, there are 0"),
    ],
)
def test_says_what_is_malformed_and_where(data: bytes, words: str) -> None:
    with pytest.raises(GuestError) as caught:
        wasm.parse(data)
    assert words in str(caught.value)


def test_every_truncation_is_refused() -> None:
    whole = rich()
    boundaries = 0
    for end in range(len(whole)):
        try:
            wasm.parse(whole[:end])
        except GuestError:
            continue
        boundaries += 1  # cut between sections, before any that another one promises
    assert boundaries <= 8


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    for prefix in (b"", HEADER):
        with contextlib.suppress(GuestError):
            wasm.parse(prefix + data)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), st.data())
def test_mutated_modules_raise_nothing_else(changes: list[tuple[int, int]], data: st.DataObject) -> None:
    mutated = bytearray(rich())
    for position, value in changes:
        mutated[8 + position % (len(mutated) - 8)] = value
    cut = data.draw(st.integers(0, 20))
    with contextlib.suppress(GuestError):
        wasm.parse(bytes(mutated[: len(mutated) - cut]))


@functools.cache
def one_global(value_type: int) -> wasm.Module:
    name = wasm.VALUE_NAMES[value_type]
    return wasm.parse(bytes(wasmtime.wat2wasm(f"(module (memory 1) (global (mut {name}) ({name}.const 0)))")))


@settings(max_examples=50)
@given(st.sampled_from([(wasm.I32, 4), (wasm.I64, 8)]), st.data())
def test_constants_keep_their_value(kind: tuple[int, int], data: st.DataObject) -> None:
    value_type, size = kind
    bound = 1 << (8 * size - 1)
    value = data.draw(st.integers(-bound, bound - 1))
    result = wasm.rewrite(
        one_global(value_type),
        exports=[wasm.Export("g", wasm.GLOBAL, 0)],
        memory=wasm.Limits(1, 1),
        globals=[wasm.Global(value_type, True, wasm.constant(value_type, value.to_bytes(size, "little", signed=True)))],
    )
    store, exports = instance(result)
    assert exports["g"].value(store) == value
