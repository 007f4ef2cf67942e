"""The kernel's declarations of Wasmtime's C library against the wheel's, and its message record against edgeos.h."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from wasmtime import _bindings, _ffi

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "native" / "kernel" / "wasmtime.hpp"
INTEGERS = {
    "bool": ctypes.c_bool,
    "uint8_t": ctypes.c_uint8,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
}
# The kernel's names of the fields, in the order of the wheel's, which calls private ones `__private` and the like.
STRUCTS = {
    "wasm_byte_vec_t": ("size", "data"),
    "wasm_valtype_vec_t": ("size", "data"),
    "wasm_importtype_vec_t": ("size", "data"),
    "wasmtime_func_t": ("store_id", "opaque"),
    "wasmtime_instance_t": ("store_id", "opaque"),
    "wasmtime_memory_t": ("head", "opaque2"),
    "wasmtime_global_t": ("store_id", "opaque1", "opaque2", "opaque3"),
    "wasmtime_val_t": ("kind", "of"),
    "wasmtime_extern_t": ("kind", "of"),
    "wasmtime_val_raw_t": ("i32", "i64", None, None, "v128"),  # floating point numbers the kernel does not use
}


def functions() -> dict[str, tuple[str, list[str]]]:
    """Return type and parameters of each function in the header's list, as written there."""
    text = HEADER.read_text()
    start = text.index("#define EDGEOS_WASMTIME_FUNCTIONS")
    body = re.sub(r"\\\n", " ", text[start : text.index("struct WasmtimeLibrary")])
    found = {}
    for match in re.finditer(r"X\(([\w ]+\**)\s*,\s*(\w+)\s*,\s*", body):
        parameters, depth = "", 0
        for character in body[match.end() :]:
            depth += {"(": 1, ")": -1}.get(character, 0)
            parameters += character
            if depth == 0:
                break
        found[match[2]] = (match[1], split(parameters[1:-1]))
    return found


def split(parameters: str) -> list[str]:
    """Parameters at the commas outside parentheses."""
    parts, depth = [""], 0
    for character in parameters:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def is_pointer(ctype: object) -> bool:
    kinds = (ctypes._Pointer, ctypes._CFuncPtr, ctypes.c_void_p, ctypes.c_char_p)  # type: ignore[attr-defined]
    return isinstance(ctype, type) and issubclass(ctype, kinds)


def pointee(ctype: object) -> str | None:
    target = getattr(ctype, "_type_", None)
    return target.__name__ if isinstance(target, type) else None


def agrees(declared: str, ctype: object) -> bool:
    """Whether a type as the header writes it is the wheel's."""
    plain = declared.replace("const", "").replace(" ", "")
    if plain == "void":
        return ctype is None
    if plain in INTEGERS:
        wanted = INTEGERS[plain]
        same_size = ctypes.sizeof(wanted) == ctypes.sizeof(ctype)  # type: ignore[arg-type]
        return same_size and (wanted is ctypes.c_bool) == (ctype is ctypes.c_bool) and not is_pointer(ctype)
    if not is_pointer(ctype):
        return False
    name = plain.rstrip("*")
    target = pointee(ctype)
    if plain.count("*") == 1 and target is not None and isinstance(getattr(ctype, "_type_"), type):  # noqa: B009
        struct = ctype._type_  # type: ignore[attr-defined]
        if issubclass(struct, ctypes.Structure):
            known = getattr(_bindings, name, None)
            return known is None or known is struct or ctypes.sizeof(known) == ctypes.sizeof(struct) == 0
    return True


FUNCTIONS = functions()


def test_the_list_was_read_whole() -> None:
    text = HEADER.read_text()
    written = re.findall(r"^\s*X\(", text[text.index("#define EDGEOS_WASMTIME_FUNCTIONS") :], re.MULTILINE)
    assert len(FUNCTIONS) == len(written) > 40


@pytest.mark.parametrize("name", FUNCTIONS)
def test_prototype(name: str) -> None:
    result, parameters = FUNCTIONS[name]
    function = getattr(_bindings.dll, name)
    binding = getattr(_bindings, f"_{name}", function)
    assert binding.argtypes is not None, "the wheel declares it"
    assert len(parameters) == len(binding.argtypes), (parameters, binding.argtypes)
    assert agrees(result, binding.restype), (result, binding.restype)
    for declared, ctype in zip(parameters, binding.argtypes, strict=True):
        assert agrees(declared, ctype), (name, declared, ctype)


def test_a_wrong_prototype_would_be_noticed() -> None:
    """The comparison itself: each of these differs from the wheel in one thing."""
    assert not agrees("uint32_t", ctypes.c_uint64)
    assert not agrees("size_t", ctypes.c_uint32)
    assert not agrees("bool", ctypes.c_uint8)
    assert not agrees("void", ctypes.c_bool)
    assert not agrees("wasm_trap_t*", ctypes.c_size_t)
    assert not agrees("uint64_t", ctypes.c_void_p)
    assert agrees("wasm_trap_t**", ctypes.POINTER(ctypes.POINTER(_bindings.wasm_trap_t)))


def compiler() -> str:
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    assert found is not None, "a C++ compiler is needed: the kernel itself is built with it"
    return found


def run_program(folder: Path, text: str) -> list[list[int]]:
    """Compiles and runs a C++ program; the integers that it prints, line by line."""
    source, program = folder / "program.cpp", folder / "program"
    source.write_text(text)
    include = [f"-I{ROOT / 'native' / 'kernel'}", f"-I{ROOT / 'guest' / 'include'}"]
    subprocess.run([compiler(), "-std=c++20", *include, str(source), "-o", str(program)], check=True, timeout=120)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=20).stdout
    return [[int(word) for word in line.split()] for line in output.splitlines()]


def printing(*expressions: str) -> str:
    """A C++ statement that prints numbers on one line."""
    return "std::cout << " + " << ' ' << ".join(f"uint64_t({e})" for e in expressions) + " << std::endl;"


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_has_the_wheels_size_and_offsets(name: str, tmp_path: Path) -> None:
    ctype = getattr(_bindings, name)
    theirs = [field for field, *_ in ctype._fields_]
    pairs = [(mine, field) for mine, field in zip(STRUCTS[name], theirs, strict=False) if mine is not None]
    assert len(pairs) >= 2
    offsets = [f"offsetof({name}, {mine})" for mine, _ in pairs]
    body = printing(f"sizeof({name})", f"alignof({name})", *offsets)
    expected = [ctypes.sizeof(ctype), ctypes.alignment(ctype), *(getattr(ctype, field).offset for _, field in pairs)]
    assert run_program(tmp_path, f'#include <iostream>\n#include "wasmtime.hpp"\nint main() {{ {body} }}\n') == [
        expected
    ]


def test_constants_are_the_wheels(tmp_path: Path) -> None:
    ours = ("ExternFunc", "ExternGlobal", "ExternMemory", "ValI32", "ValI64", "I64", "F64", "V128")
    body = printing(*(f"edgeos::k{name}" for name in ours))
    theirs = ("EXTERN_FUNC", "EXTERN_GLOBAL", "EXTERN_MEMORY")
    expected = [getattr(_ffi, f"WASMTIME_{name}").value for name in theirs]
    expected += [_ffi.WASM_I32.value, _ffi.WASM_I64.value]
    expected += [getattr(_ffi, f"WASMTIME_{name}").value for name in ("I64", "F64", "V128")]
    assert run_program(tmp_path, f'#include <iostream>\n#include "wasmtime.hpp"\nint main() {{ {body} }}\n') == [
        expected
    ]


GUEST_FIELDS = ("data", "len", "capacity", "kind", "port", "direction", "reserved", "flow", "time_ns")


def test_the_kernels_message_is_the_guests(tmp_path: Path) -> None:
    """The guests' compiler checks the kernel's offsets, since a pointer has 4 bytes there."""
    program = '#include <iostream>\n#include "message.hpp"\nint main() { std::cout << sizeof(edgeos::GuestMessage)'
    program += "".join(f" << ' ' << offsetof(edgeos::GuestMessage, {field})" for field in GUEST_FIELDS)
    ((size, *offsets),) = run_program(tmp_path, program + "; }\n")
    from edgeos.guest_build import build  # noqa: PLC0415  (only this test needs the guests' compiler)

    source = tmp_path / "guest.c"
    checks = [f'_Static_assert(sizeof(edgeos_message) == {size}, "size");']
    checks += [
        f'_Static_assert(offsetof(edgeos_message, {field}) == {offset}, "{field}");'
        for field, offset in zip(GUEST_FIELDS, offsets, strict=True)
    ]
    handler = "int edgeos_handle(edgeos_message *m) { (void)m; return 0; }"
    source.write_text("\n".join(["#include <edgeos.h>", *checks, handler, ""]))
    assert build(source).startswith(b"\0asm")
    source.write_text(source.read_text().replace(f"== {size},", f"== {size + 8},"))
    with pytest.raises(Exception, match="size"):
        build(source)


def test_verdicts_and_directions_are_the_guests(tmp_path: Path) -> None:
    names = ("EDGEOS_DROP", "EDGEOS_BACK", "EDGEOS_FORWARD", "EDGEOS_REVERSE", "EDGEOS_PACKET")
    header = (ROOT / "guest" / "include" / "edgeos.h").read_text()
    guests = [int(re.search(rf"#define {name} \(?(-?\d+)", header)[1]) for name in names]  # type: ignore[index]
    program = """#include <iostream>
    #include "message.hpp"
    int main() { using namespace edgeos;
    std::cout << kVerdictDrop << ' ' << kVerdictBack << ' ' << int(kForward) << ' ' << int(kReverse) << " 0"; }"""
    assert run_program(tmp_path, program) == [guests]
