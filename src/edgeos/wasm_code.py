"""Whether a module's code can change its function table.

Code is read instruction by instruction, which needs the length of each. The module is one that the engine has
validated, so nothing here is malformed. An instruction that this reader does not know counts as one that changes the
table. Source: https://webassembly.github.io/spec/core/binary/instructions.html
"""

from __future__ import annotations

from typing import Final

_LEB_1: Final = 1  # so many LEB128 numbers follow
_LEB_2: Final = 2
_NOTHING: Final = 0
_BLOCK: Final = _LEB_1  # a block type is one signed LEB128 number, or one byte of its form

# table.set, 0x26, is not here, nor are the calls that engines of edgeos do not take.
_NUMBERS: Final = {
    **dict.fromkeys((0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, 0xD1), _NOTHING),
    **dict.fromkeys((0x02, 0x03, 0x04), _BLOCK),
    **dict.fromkeys((0x0C, 0x0D, 0x10), _LEB_1),  # br, br_if, call
    0x11: _LEB_2,  # call_indirect
    **dict.fromkeys(range(0x20, 0x26), _LEB_1),  # of locals and globals, table.get
    **dict.fromkeys(range(0x28, 0x3F), _LEB_2),  # loads and stores: alignment, offset
    **dict.fromkeys((0x3F, 0x40, 0x41, 0x42, 0xD0, 0xD2), _LEB_1),  # memory.size and .grow, constants, references
    **dict.fromkeys(range(0x45, 0xC5), _NOTHING),  # arithmetic
}
_BR_TABLE: Final = 0x0E
_SELECT_TYPED: Final = 0x1C
_FIXED: Final = {0x43: 4, 0x44: 8}  # bytes of f32.const and f64.const

_BULK: Final = 0xFC
# Conversions, then those of memory; table.size. Those that change a table are not here: init, copy, grow, fill.
_BULK_NUMBERS: Final = {**dict.fromkeys(range(8), 0), 8: 2, 9: 1, 10: 2, 11: 1, 13: 1, 16: 1}

_VECTOR: Final = 0xFD
_VECTOR_LAST: Final = 0xFF  # relaxed operations, which are beyond, engines of edgeos do not take


def changes_table(code: bytes) -> bool:
    """True when the contents of a code section may write to a table."""
    return _Code(code).changes_table()


class _Code:
    """A cursor over a code section."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        self._at = 0

    def changes_table(self) -> bool:
        for _ in range(self._number()):
            end = self._number() + self._at
            for _ in range(self._number()):  # locals: a count and a type
                self._skip(1)
                self._at += 1
            while self._at < end:
                if not self._pass_instruction():
                    return True
        return False

    def _pass_instruction(self) -> bool:
        """Passes one over; False when it changes a table, or is not known."""
        opcode = self._byte()
        if opcode in _NUMBERS:
            self._skip(_NUMBERS[opcode])
        elif opcode in _FIXED:
            self._at += _FIXED[opcode]
        elif opcode == _BR_TABLE:
            self._skip(self._number() + 1)
        elif opcode == _SELECT_TYPED:
            self._at += self._number()
        elif opcode == _BULK:
            numbers = _BULK_NUMBERS.get(self._number())
            if numbers is None:
                return False
            self._skip(numbers)
        elif opcode == _VECTOR:
            return self._pass_vector()
        else:
            return False
        return True

    def _pass_vector(self) -> bool:
        opcode = self._number()
        if opcode <= 11 or opcode in (92, 93):  # loads and stores
            self._skip(2)
        elif opcode in (12, 13):  # v128.const, i8x16.shuffle
            self._at += 16
        elif 21 <= opcode <= 34:  # lanes
            self._at += 1
        elif 84 <= opcode <= 91:  # loads and stores of lanes
            self._skip(2)
            self._at += 1
        return opcode <= _VECTOR_LAST

    def _byte(self) -> int:
        self._at += 1
        return self._code[self._at - 1]

    def _skip(self, numbers: int) -> None:
        """Passes over LEB128 numbers, signed or not."""
        for _ in range(numbers):
            while self._byte() >= 0x80:
                pass

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
