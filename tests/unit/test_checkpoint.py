"""Checkpoints of guests in C and of one that has every kind of state that a checkpoint holds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from edgeos import wasm
from edgeos.checkpoint import Checkpoint, make_checkpoint
from edgeos.errors import GuestError
from edgeos.guest_build import build
from edgeos.settings import STACK_MIN

FIREWALL_LIKE = r"""
#include <edgeos.h>
#include <stdlib.h>

EDGEOS_COUNTER(handled);
EDGEOS_COUNTER(rules);

static uint16_t *ports; /* a heap block: the allowed ports, as parsed from the configuration */
static int (*check)(uint16_t port);

static int allowed(uint16_t port) {
    for (uint64_t i = 0; i < rules.value; i++)
        if (ports[i] == port) return 1;
    return 0;
}

void edgeos_init(const uint8_t *config, uint32_t len) {
    ports = malloc(len * sizeof *ports);
    if (!ports) edgeos_fail("no memory for the rules");
    uint16_t port = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (config[i] >= '0' && config[i] <= '9') {
            port = (uint16_t)(port * 10 + config[i] - '0');
        } else if (config[i] == ' ') {
            ports[rules.value++] = port;
            port = 0;
        } else {
            edgeos_fail("only digits and spaces");
        }
    }
    check = allowed;
}

int edgeos_handle(edgeos_message *m) {
    handled.value++;
    return m->len == 2 && check(*(uint16_t *)m->data) ? 0 : EDGEOS_DROP;
}
"""


def instance(checkpoint: Checkpoint) -> tuple[wasmtime.Store, Any]:
    """A fresh instance of a checkpoint, as the kernel makes one per FWP."""
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, checkpoint.wasm)
    i32 = wasmtime.ValType.i32()
    emit = wasmtime.Func(store, wasmtime.FuncType([i32] * 4, [i32]), lambda *_: -1)
    return store, wasmtime.Instance(store, module, [emit] * len(module.imports)).exports(store)


def handle(checkpoint: Checkpoint, store: wasmtime.Store, exports: Any, messages: list[bytes]) -> list[int]:
    """Verdicts on a burst of messages that are put into the slots as the kernel does."""
    layout, memory = checkpoint.layout, exports["memory"]
    for slot, data in enumerate(messages):
        address = layout.data + slot * layout.slot_stride
        record = struct.pack("<IIIBBBBQQ", address, len(data), layout.slot_size, 0, 0, 0, 0, 1, 0)
        memory.write(store, data, address)
        memory.write(store, record, layout.messages + 32 * slot)
    exports["edgeos_burst"](store, 0, len(messages))
    verdicts = memory.read(store, layout.verdicts, layout.verdicts + 4 * len(messages))
    return list(struct.unpack(f"<{len(messages)}i", verdicts))


def counter(checkpoint: Checkpoint, store: wasmtime.Store, exports: Any, name: str) -> int:
    address = next(entry.address for entry in checkpoint.layout.counters if entry.name == name)
    return int.from_bytes(exports["memory"].read(store, address, address + 8), "little")


@pytest.fixture(scope="module")
def firewall_like(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    source = tmp_path_factory.mktemp("guest") / "ports.c"
    source.write_text(FIREWALL_LIKE)
    return build(source)


def port(number: int) -> bytes:
    return struct.pack("<H", number)


def test_a_table_built_in_init_is_there_in_every_instance(firewall_like: bytes) -> None:
    checkpoint = make_checkpoint(firewall_like, b"53 443 ")
    for _ in range(2):
        store, exports = instance(checkpoint)
        assert counter(checkpoint, store, exports, "rules") == 2
        assert handle(checkpoint, store, exports, [port(53), port(80), port(443), b""]) == [0, -1, 0, -1]
        assert counter(checkpoint, store, exports, "handled") == 4


def test_templates_of_one_module_differ_by_their_configuration(firewall_like: bytes) -> None:
    for config, verdicts in ((b"", [-1]), (b"80 ", [0])):
        checkpoint = make_checkpoint(firewall_like, config)
        store, exports = instance(checkpoint)
        assert handle(checkpoint, store, exports, [port(80)]) == verdicts


def test_the_guests_reason_reaches_the_user(firewall_like: bytes) -> None:
    with pytest.raises(GuestError, match="init failed: only digits and spaces"):
        make_checkpoint(firewall_like, b"eighty")


def test_a_memory_limit_that_is_too_small_is_named(firewall_like: bytes) -> None:
    with pytest.raises(GuestError, match="raise the template's memory limit"):
        make_checkpoint(firewall_like, b"80 ", memory_limit=3 * 65536)
    with pytest.raises(GuestError, match="starts with 65536 bytes of memory, the limit is 1000"):
        make_checkpoint(firewall_like, b"80 ", memory_limit=1000)


def test_the_layout_is_the_sdks(firewall_like: bytes) -> None:
    layout = make_checkpoint(firewall_like, b"").layout
    assert (layout.slots, layout.slot_size, layout.slot_stride) == (64, 2048, 2112)
    assert [entry.name for entry in layout.counters] == ["handled", "rules"]
    assert layout.stack_pointer == STACK_MIN


def test_only_what_the_kernel_needs_is_exported(firewall_like: bytes) -> None:
    module = wasm.parse(make_checkpoint(firewall_like, b"").wasm)
    assert [entry.name for entry in module.exports] == ["memory", "edgeos_burst", "edgeos_access", "global 0"]
    assert module.start is None
    assert module.memories[0].maximum == module.memories[0].minimum


def test_an_fwp_cannot_grow_past_the_limit(tmp_path: Path) -> None:
    source = tmp_path / "grows.c"
    source.write_text(
        "#include <edgeos.h>\n"
        "int edgeos_handle(edgeos_message *m) { return __builtin_wasm_memory_grow(0, m->len) ? 0 : EDGEOS_DROP; }\n"
    )
    checkpoint = make_checkpoint(build(source), b"", memory_limit=8 * 65536)
    store, exports = instance(checkpoint)
    room = 8 - checkpoint.initial_memory // 65536
    exports["memory"].grow(store, room)
    with pytest.raises(wasmtime.WasmtimeError):
        exports["memory"].grow(store, 1)


STATEFUL = r"""
(module
  (import "edgeos" "emit" (func $emit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (table 2 funcref)
  (global $i32 (mut i32) (i32.const 1))
  (global $i64 (mut i64) (i64.const 2))
  (global $f32 (mut f32) (f32.const 3))
  (global $f64 (mut f64) (f64.const 4))
  (global $v128 (mut v128) (v128.const i64x2 5 6))
  (global $fixed i32 (i32.const 7))
  (elem (i32.const 0) $emit $begin)
  (data (i32.const 64) "\01\00\00\00\08\00\00\00\40\00\00\00\40\00\00\00\00\04\00\00\00\08\00\00\00\10\00\00")
  (data (i32.const 200) "overwritten")
  (data (i32.const 300) "kept")
  (func $begin (i32.store (i32.const 400) (i32.add (i32.const 1) (i32.load (i32.const 400)))))
  (start $begin)
  (func (export "edgeos_layout_v1") (result i32) (i32.const 64))
  (func (export "edgeos_config") (param i32) (result i32)
    (i32.mul (memory.grow (i32.const 2)) (i32.const 65536)))
  (func (export "edgeos_start") (param i32 i32)
    (global.set $i32 (i32.const -2147483648))
    (global.set $i64 (i64.const -9223372036854775808))
    (global.set $f32 (f32.reinterpret_i32 (i32.const 0x7fa00001)))
    (global.set $f64 (f64.reinterpret_i64 (i64.const 0xfff4000000000001)))
    (global.set $v128 (v128.const i64x2 -2 0x123456789abcdef0))
    (i64.store (i32.const 200) (i64.const 0)) (i32.store (i32.const 208) (i32.const 0))
    (memory.fill (i32.const 0x400) (i32.const 255) (i32.const 256))
    (memory.fill (i32.const 0x1000) (i32.const 255) (i32.const 512))
    (i32.store8 (i32.const 196607) (i32.const 9))
    (data.drop 1))
  (func (export "edgeos_burst") (param i32 i32)
    (drop (ref.func $written))
    (i32.store (i32.const 0) (global.get $i32))
    (i64.store (i32.const 8) (global.get $i64))
    (i32.store (i32.const 16) (i32.reinterpret_f32 (global.get $f32)))
    (i64.store (i32.const 24) (i64.reinterpret_f64 (global.get $f64)))
    (v128.store (i32.const 32) (global.get $v128))
    (i32.store (i32.const 48) (global.get $fixed)))
  (func $written (export "dropped"))
)
"""


def test_every_kind_of_state_is_captured_bit_for_bit() -> None:
    checkpoint = make_checkpoint(bytes(wasmtime.wat2wasm(STATEFUL)), b"config")
    assert checkpoint.initial_memory == 3 * 65536
    assert checkpoint.layout.stack_pointer == 0x80000000
    store, exports = instance(checkpoint)
    memory = exports["memory"].read(store, 0, checkpoint.initial_memory)
    assert memory[200:211] == bytes(8 + 3), "what init overwrote does not come back"
    assert memory[300:304] == b"kept"
    assert memory[400] == 1, "the start function ran once, and not again in the instance"
    assert memory[65536:65542] == b"config"
    assert memory[0x400:0x500] == bytes(256), "messages hold nothing"
    assert memory[0x1000:0x1200] == bytes(512), "slots hold nothing"
    assert memory[196607] == 9
    exports["edgeos_burst"](store, 0, 0)
    written = bytes(exports["memory"].read(store, 0, 52))
    assert written[0:4] == bytes.fromhex("00000080")
    assert written[8:16] == bytes.fromhex("0000000000000080")
    assert written[16:20] == bytes.fromhex("0100a07f"), "a signalling NaN keeps its payload"
    assert written[24:32] == bytes.fromhex("010000000000f4ff")
    assert written[32:48] == struct.pack("<qQ", -2, 0x123456789ABCDEF0)
    assert written[48:52] == bytes.fromhex("07000000")


def test_scattered_memory_takes_a_bounded_number_of_segments() -> None:
    """A byte in every 17 would take a segment each; the number of segments has to stay below what engines accept."""
    scatter = """
      (local $at i32)
      (local.set $at (i32.mul (memory.grow (i32.const 60)) (i32.const 65536)))
      (loop $next
        (i32.store8 (local.get $at) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 17)))
        (br_if $next (i32.lt_u (local.get $at) (i32.const 4128768))))"""
    source = STATEFUL.replace('"edgeos_start") (param i32 i32)', '"edgeos_start") (param i32 i32)' + scatter)
    checkpoint = make_checkpoint(bytes(wasmtime.wat2wasm(source)), b"", memory_limit=64 * 65536)
    assert len(wasm.parse(checkpoint.wasm).data) < wasm.DATA_SEGMENTS_MAX
    store, exports = instance(checkpoint)
    memory = exports["memory"].read(store, 3 * 65536, 4128768)
    assert memory == bytes(int(i % 17 == 0) for i in range(len(memory)))


def test_the_same_guest_and_configuration_give_the_same_checkpoint(firewall_like: bytes) -> None:
    assert make_checkpoint(firewall_like, b"1 2 3 ") == make_checkpoint(firewall_like, b"1 2 3 ")


def test_a_minimal_guest_works(tmp_path: Path) -> None:
    source = tmp_path / "mine.c"
    source.write_text("""
#include <edgeos.h>

static uint64_t seen;

void edgeos_init(const uint8_t *config, uint32_t len) { (void)config; (void)len; }

int edgeos_handle(edgeos_message *m)      /* the SDK loops over the burst */
{
    seen++;
    if (m->len < 14) return EDGEOS_DROP;
    return 0;                             /* forward on out port 0; k forwards on out port k */
}
""")
    checkpoint = make_checkpoint(build(source), b"")
    store, exports = instance(checkpoint)
    assert handle(checkpoint, store, exports, [bytes(13), bytes(14), b"", bytes(2048)]) == [-1, 0, -1, 0]


PLAIN = "#include <edgeos.h>\nint edgeos_handle(edgeos_message *m) { return m->len < 14 ? -1 : 0; }\n"
THROUGH_A_POINTER = """
#include <edgeos.h>
static int drop(void) { return EDGEOS_DROP; }
static int (*volatile verdict)(void) = drop;
int edgeos_handle(edgeos_message *m) { (void)m; return verdict(); }
"""


@pytest.mark.parametrize(("source", "kept"), [(PLAIN, 0), (THROUGH_A_POINTER, 1)])
def test_a_table_is_left_out_when_the_code_does_without_it(source: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "guest.c"
    path.write_text(source)
    module = build(path)
    assert wasm.parse(module).tables, "the compiler writes a table in any case"
    checkpoint = make_checkpoint(module, b"")
    assert len(wasm.parse(checkpoint.wasm).tables) == kept
    assert handle(checkpoint, *instance(checkpoint), [bytes(1)]) == [-1]
