"""Reads the instructions of a module's functions, and whether they can change its function table.

Source: https://webassembly.github.io/spec/core/binary/instructions.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from edgeos.errors import GuestError
from edgeos.wasm import Reader

CALL: Final = 0x10
CALL_INDIRECT: Final = 0x11
RETURN_CALL: Final = 0x12
RETURN_CALL_INDIRECT: Final = 0x13
GLOBAL_GET: Final = 0x23
MEMORY_GROW: Final = 0x40
I32_CONST: Final = 0x41
I32_SUB: Final = 0x6B

Instruction = tuple[int, int]
"""Its code, and the first number that follows it, or 0. To a code behind 0xFC or 0xFD, 0xFC00 or 0xFD00 is added."""

_TABLE_SET: Final = 0x26
_TABLE_INIT, _TABLE_COPY, _TABLE_GROW, _TABLE_FILL = 0xFC0C, 0xFC0E, 0xFC0F, 0xFC11
_CHANGE_TABLE: Final = frozenset((_TABLE_SET, _TABLE_INIT, _TABLE_COPY, _TABLE_GROW, _TABLE_FILL))

_PREFIXES: Final = (0xFC, 0xFD)
_SIMD_LAST: Final = 0xFDFF  # relaxed operations, which are beyond, engines of edgeos do not take


def bodies(code: bytes) -> Iterator[list[Instruction]]:
    """Each function's instructions, of the contents of a code section. Raises GuestError for what it does not know."""
    reader = Reader(code, 0, len(code))
    for _ in range(reader.count()):
        size = reader.unsigned()
        end = reader.position + size
        for _ in range(reader.count()):  # locals: how many, and their type
            reader.unsigned()
            reader.value_type()
        body = []
        while reader.position < end:
            body.append(_instruction(reader))
        yield body


def changes_table(code: bytes) -> bool:
    """True when the contents of a code section may write to a table; code that is not known counts as such."""
    try:
        return any(instruction in _CHANGE_TABLE for body in bodies(code) for instruction, _ in body)
    except GuestError:
        return True


def _instruction(reader: Reader) -> Instruction:
    start = reader.position
    code = reader.byte()
    if code in _PREFIXES:
        code = code << 8 | reader.below(256, "instruction")
    operand = _OPERANDS.get(code)
    if operand is None:
        reader.fail(f"instruction 0x{code:02x} is unknown", start)
    return code, operand(reader)


# ---- What follows each instruction ----


def _nothing(_: Reader) -> int:
    return 0


def _index(reader: Reader) -> int:
    return reader.unsigned()


def _two_indices(reader: Reader) -> int:
    first = reader.unsigned()
    reader.unsigned()
    return first


def _memory(reader: Reader) -> int:
    reader.unsigned()  # alignment
    return reader.unsigned(64)  # offset


def _memory_lane(reader: Reader) -> int:
    offset = _memory(reader)
    reader.skip(1)
    return offset


def _labels(reader: Reader) -> int:
    for _ in range(reader.count() + 1):
        reader.unsigned()
    return 0


def _types(reader: Reader) -> int:
    reader.vector(reader.value_type)
    return 0


def _signed(bits: int) -> Callable[[Reader], int]:
    return lambda reader: reader.signed(bits)


def _bytes(count: int) -> Callable[[Reader], int]:
    def skip(reader: Reader) -> int:
        reader.skip(count)
        return 0

    return skip


_OPERANDS: Final[dict[int, Callable[[Reader], int]]] = {
    **dict.fromkeys((0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, 0xD1, *range(0x45, 0xC5)), _nothing),
    **dict.fromkeys((0x02, 0x03, 0x04), _signed(33)),  # block, loop, if: a block type
    **dict.fromkeys((0x0C, 0x0D, CALL, RETURN_CALL, *range(0x20, 0x27), 0x3F, 0x40, 0xD2), _index),
    **dict.fromkeys((CALL_INDIRECT, RETURN_CALL_INDIRECT), _two_indices),
    **dict.fromkeys(range(0x28, 0x3F), _memory),
    0x0E: _labels,
    0x1C: _types,
    I32_CONST: _signed(32),
    0x42: _signed(64),
    0x43: _bytes(4),
    0x44: _bytes(8),
    0xD0: _bytes(1),
    # Conversions, then the bulk operations of memories, data, tables and elements.
    **dict.fromkeys(range(0xFC00, 0xFC08), _nothing),
    **dict.fromkeys((0xFC08, 0xFC0A, _TABLE_INIT, _TABLE_COPY), _two_indices),
    **dict.fromkeys((0xFC09, 0xFC0B, 0xFC0D, _TABLE_GROW, 0xFC10, _TABLE_FILL), _index),
    # Vectors.
    **dict.fromkeys(range(0xFD0E, _SIMD_LAST + 1), _nothing),
    **dict.fromkeys((*range(0xFD00, 0xFD0C), 0xFD5C, 0xFD5D), _memory),
    **dict.fromkeys((0xFD0C, 0xFD0D), _bytes(16)),
    **dict.fromkeys(range(0xFD15, 0xFD23), _bytes(1)),
    **dict.fromkeys(range(0xFD54, 0xFD5C), _memory_lane),
}
