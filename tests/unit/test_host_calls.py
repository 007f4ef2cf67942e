"""Which calls a guest may import, and what init gets from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import wasmtime

from edgeos.checkpoint import make_checkpoint
from edgeos.code_cache import CodeCache
from edgeos.errors import GuestError
from edgeos.guest import load_guest
from edgeos.host_calls import CALLS
from edgeos.settings import Grants, TemplateSettings

HEADER = (Path(__file__).parents[2] / "guest" / "include" / "edgeos.h").read_text()
GRANTED = [name for name, call in CALLS.items() if call.grant]

TYPES = {
    "emit": "(param i32 i32 i32 i32) (result i32)",
    "stream": "(param i32 i64 i32 i32 i32 i32) (result i32)",
    "connect": "(param i32) (result i64)",
    "timer": "(param i64 i64) (result i32)",
    "clock": "(result i64)",
    "random": "(param i32 i32) (result i32)",
}
LAYOUT = b"".join(n.to_bytes(4, "little") for n in (1, 8, 64, 128, 1024, 2048, 4096, 0, 0, 0, 0))


def guest(name: str, init: str = "") -> bytes:
    """A guest that imports one call as $call and runs `init`."""
    layout = "".join(f"\\{byte:02x}" for byte in LAYOUT)
    return bytes(
        wasmtime.wat2wasm(
            f"""(module (import "edgeos" "{name}" (func $call {TYPES[name]}))
            (memory (export "memory") 1) (data (i32.const 64) "{layout}")
            (func (export "edgeos_layout_v1") (result i32) (i32.const 64))
            (func (export "edgeos_config") (param i32) (result i32) (i32.const 9000))
            (func (export "edgeos_start") (param i32 i32) {init})
            (func (export "edgeos_burst") (param i32 i32)))"""
        )
    )


@pytest.mark.parametrize("name", CALLS)
def test_the_types_are_those_of_the_header(name: str) -> None:
    declared = re.search(rf'import_name\("{name}"\)\)\) (\w+) edgeos_import_{name}\(([^)]*)\)', HEADER)
    assert declared is not None
    wide = {"uint64_t": "i64", "int64_t": "i64"}
    parameters = [wide.get(word.split()[0], "i32") for word in declared[2].split(",") if word != "void"]
    result = wide.get(declared[1], "i32")
    assert str(CALLS[name].type) == f"({', '.join(parameters)}) -> ({result})"


@pytest.mark.parametrize("name", ["emit", "stream"])
def test_calls_that_need_no_grant(name: str) -> None:
    assert make_checkpoint(guest(name), b"")


@pytest.mark.parametrize("name", GRANTED)
def test_calls_that_need_a_grant(name: str) -> None:
    for granted in ((), set(GRANTED) - {name}):
        with pytest.raises(GuestError, match=rf"import edgeos\.{name} needs grant\.{name}: add grant = {{ {name} = "):
            make_checkpoint(guest(name), b"", granted=granted)
    assert make_checkpoint(guest(name), b"", granted=[name])


def test_the_error_names_the_template_and_what_was_granted_does_not_linger(tmp_path: Path) -> None:
    module = tmp_path / "guest.wasm"
    module.write_bytes(guest("timer"))
    cache = CodeCache(tmp_path / "cache")
    assert load_guest(TemplateSettings(name="app", module=module, grant=Grants(timer=True)), cache)
    with pytest.raises(GuestError, match=r"template\.app: .*\n  import edgeos\.timer needs grant\.timer"):
        load_guest(TemplateSettings(name="app", module=module), cache)


def test_an_unknown_call_gets_the_nearest_name() -> None:
    misspelt = guest("timer").replace(b"timer", b"tiner")
    with pytest.raises(GuestError, match=r'import edgeos\.tiner: .*did you mean "edgeos\.timer"\?'):
        make_checkpoint(misspelt, b"", granted=GRANTED)


@pytest.mark.parametrize("name", ["emit", "stream", "connect", "timer"])
def test_init_has_no_client_so_these_answer_minus_one(name: str) -> None:
    wide = CALLS[name].type.results == b"\x7e"
    zeros = " ".join("(i64.const 0)" if value == 0x7E else "(i32.const 0)" for value in CALLS[name].type.params)
    kind = "i64" if wide else "i32"
    trap_unless = f"(if ({kind}.ne (call $call {zeros}) ({kind}.const -1)) (then unreachable))"
    assert make_checkpoint(guest(name, trap_unless), b"", granted=GRANTED)


@pytest.mark.parametrize(
    ("name", "init", "held"),
    [
        ("clock", "(drop (call $call))", "the time when it was made"),
        ("random", "(drop (call $call (i32.const 9000) (i32.const 8)))", "the same randomness for every client"),
    ],
)
def test_a_checkpoint_holds_neither_time_nor_randomness(name: str, init: str, held: str) -> None:
    with pytest.raises(GuestError, match=rf"init called edgeos\.{name}: the checkpoint would give every client {held}"):
        make_checkpoint(guest(name, init), b"", granted=[name])
