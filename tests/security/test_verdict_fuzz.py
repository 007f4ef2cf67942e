"""Fuzzing of the path on which the kernel reads what guests wrote: descriptors, verdicts, emits, their own memory.

Guests write random bytes over everything that the kernel reads back. Whatever they do, the node goes on, every message
is accounted for, and what comes out of other clients' FWPs is what went in.
"""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_harness import MILLISECOND_NS, Rig, client_packet, line

from edgeos import NodeSettings, TemplateSettings

SLOTS, SLOT_SIZE = 8, 256
LAYOUT_AT, MESSAGES, VERDICTS, DATA, GARBAGE = 64, 1024, 2048, 4096, 16384
LAYOUT = struct.pack("<11I", 1, SLOTS, SLOT_SIZE, SLOT_SIZE, MESSAGES, VERDICTS, DATA, 0, 0, 0, 0)
INNOCENT = 200
FUZZ_SECONDS = 4.0

# What a hostile guest would choose, beside plain random words.
EDGES = [0, 1, 2, 3, 63, 64, 255, 256, 257, 2**16 - 1, 2**16, 2**18 - 1, 2**18, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
EDGES += [MESSAGES, VERDICTS, DATA, DATA + SLOTS * SLOT_SIZE, 4 * 65536 - 1, 4 * 65536 - 60, 2**32 - 60]


def text(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:02x}" for byte in data) + '"'


def module(burst: str, fields: str = "") -> bytes:
    """A guest in the text format, with the body of its burst."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(module
            (import "edgeos" "emit" (func $emit (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 4) (data (i32.const {LAYOUT_AT}) {text(LAYOUT)}) {fields}
            (func (export "edgeos_layout_v1") (result i32) (i32.const {LAYOUT_AT}))
            (func (export "edgeos_config") (param i32) (result i32) (i32.const 131072))
            (func (export "edgeos_start") (param i32 i32))
            (func (export "edgeos_burst") (param $first i32) (param $count i32)
              (local $at i32) (local $end i32) {burst}))"""
        )
    )


def template(folder: Path, wasm: bytes, name: str = "fuzz") -> TemplateSettings:
    path = folder / f"{name}.wasm"
    path.write_bytes(wasm)
    return TemplateSettings(name=name, module=path, ready_low=1, ready_high=2, budget_ns=2 * MILLISECOND_NS)


def words(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(EDGES) | st.integers(0, 2**32 - 1), min_size=count, max_size=count)


@st.composite
def guests(draw: st.DrawFn) -> bytes:
    """A guest that copies random words over the descriptors, the verdicts or both, and emits with random arguments."""
    garbage = b"".join(struct.pack("<I", word) for word in draw(words(SLOTS * 8)))
    verdicts = b"".join(
        struct.pack("<I", word)
        for word in draw(st.lists(st.sampled_from([0, 0, 0, 2**32 - 1, 2**32 - 2, 1, 5]), min_size=8, max_size=8))
    )
    places = draw(st.lists(st.integers(0, SLOTS * 32 - 4), max_size=4))
    burst = "".join(
        f"(memory.copy (i32.const {MESSAGES + at}) (i32.const {GARBAGE + at}) (i32.const {size}))"
        for at, size in zip(places, draw(st.lists(st.integers(1, 64), min_size=4, max_size=4)), strict=False)
    )
    for emit in draw(st.lists(words(4), max_size=4)):
        burst += "(drop (call $emit " + "".join(f"(i32.const {word})" for word in emit) + "))"
    burst += f"(memory.copy (i32.const {VERDICTS}) (i32.const {GARBAGE + 1024}) (i32.const {SLOTS * 4}))"
    burst += draw(st.sampled_from(["", "", "(drop (memory.grow (i32.const 1)))", "unreachable"]))
    fields = f"(data (i32.const {GARBAGE}) {text(garbage)}) (data (i32.const {GARBAGE + 1024}) {text(verdicts)})"
    return module(burst, fields)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(guests(), st.sampled_from(["inline", "dedicated"]), st.sampled_from(["guard", "compact"]))
def test_no_guest_that_spoils_its_answers_breaks_the_node(
    tmp_path_factory: pytest.TempPathFactory, wasm: bytes, mover: str, memory: str
) -> None:
    hostile = template(tmp_path_factory.mktemp("guest"), wasm)
    with line(hostile, settings=NodeSettings(mover=mover, memory=memory)) as rig:  # type: ignore[arg-type]
        for round_ in range(4):
            rig.inject("lan", *(client_packet(n % 3, bytes([n] * 40)) for n in range(round_ * 6)))
            rig.inject("wan", *(client_packet(n % 3, bytes([n] * 40)) for n in range(round_)))
            rig.settle()
        assert rig.node.stop().balance == 0


# ---- One guest that writes what its messages say, so that thousands of scripts a second run ----

# A message's payload is a script: pairs of an address (u32) and a value (u32), which the guest stores, up to an address
# of 0. Where the address is odd, four words are the arguments of an emit, the first of them shifted by one.
SCRIPTED = module(
    f"""
    (memory.fill (i32.const {VERDICTS}) (i32.const 0) (i32.const {SLOTS * 4}))
    (local.set $at (i32.mul (local.get $first) (i32.const {SLOT_SIZE})))
    (local.set $at (i32.add (local.get $at) (i32.const {DATA + 42})))
    (local.set $end (i32.add (local.get $at) (i32.const 192)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (br_if $done (i32.eqz (i32.load (local.get $at))))
      (if (i32.and (i32.load (local.get $at)) (i32.const 1))
        (then (drop (call $emit (i32.shr_u (i32.load (local.get $at)) (i32.const 1)) (i32.load offset=4 (local.get $at))
                (i32.load offset=8 (local.get $at)) (i32.load offset=12 (local.get $at))))
              (local.set $at (i32.add (local.get $at) (i32.const 16))))
        (else (i32.store (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
              (local.set $at (i32.add (local.get $at) (i32.const 8)))))
      (br $next)))
    """
)


def script(chance: random.Random) -> bytes:
    """A random script; mostly over descriptors and verdicts, sometimes anywhere."""
    out = b""
    for _ in range(chance.randrange(1, 9)):
        value = chance.choice(EDGES) if chance.random() < 0.7 else chance.getrandbits(32)
        kind = chance.random()
        if kind < 0.45:
            out += struct.pack("<II", MESSAGES + 32 * chance.randrange(SLOTS) + 4 * chance.randrange(8), value)
        elif kind < 0.75:
            verdict = chance.choice([0, -1, -2, 1, 15, 16, -3, 2**31 - 1, -(2**31)])
            out += struct.pack("<Ii", VERDICTS + 4 * chance.randrange(SLOTS), verdict)
        elif kind < 0.9:
            arguments = (chance.choice([0, -2, -1, 1, 9]), DATA + chance.randrange(2048), chance.choice(EDGES[:9]))
            out += struct.pack("<IiII", chance.randrange(16) << 1 | 1, *arguments)
        else:
            out += struct.pack("<II", chance.choice(EDGES) & ~1 or 4, value)
    return out[:192].ljust(192, b"\0")


def serve_the_innocent(rig: Rig, number: int) -> None:
    """Another client's messages pass unchanged. Its payload is the empty script."""
    frames = [client_packet(INNOCENT, bytes(4) + struct.pack("<I", number + n) + bytes(184)) for n in range(3)]
    rig.inject("lan", *frames)
    rig.settle()
    mine = [frame for frame in rig.take("wan") if frame[26:30] == frames[0][26:30]]
    assert mine == frames


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_a_few_seconds_of_random_scripts(tmp_path: Path, mover: str) -> None:
    chance = random.Random(20)
    first, second = template(tmp_path, SCRIPTED, "first"), template(tmp_path, SCRIPTED, "second")
    with line(first, second, max_fwps=64, settings=NodeSettings(mover=mover)) as rig:  # type: ignore[arg-type]
        until = time.monotonic() + FUZZ_SECONDS / 2
        number = 0
        while time.monotonic() < until:
            for _ in range(40):
                port = chance.choice(["lan", "wan"])
                rig.inject(port, client_packet(chance.randrange(4), script(chance), sport=chance.randrange(5)))
            if number % 8 == 0:
                rig.settle()
                rig.take("wan"), rig.take("lan")
                serve_the_innocent(rig, number)
            number += 1
        chain = rig.settle().chain("edge")
        # The run must have been hostile in each of these ways, or it shows nothing.
        assert {"bad_length", "bad_pointer", "bad_port", "memory"} <= set(chain.kills)
        assert chain.emitted > 0
        assert chain.emit_refused > 0
        assert chain.sent > 0
        assert rig.node.stop().balance == 0
