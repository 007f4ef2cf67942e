"""The pattern language of Classifier: clauses `offset/value[%mask]` in hex, which must all hold.

`12/0806 20/0001` is an ARP request in an Ethernet frame; `?` stands for any hex digit, `!` before a clause negates it,
and `-` is every packet. A clause about bytes that the packet does not have does not hold; `!` before it then does.
"""

from __future__ import annotations

import re

from edgeos.click.decision import Equal, Expression, Field, Has, all_of, negate

OFFSET_MAX = 65535
VALUE_MAX = 128

_CLAUSE = re.compile(r"(\d{1,5})/([0-9a-fA-F?]+)(?:%([0-9a-fA-F?]+))?")


class BytePatternError(Exception):
    """What is wrong with a pattern, for its author."""


def _value_and_mask(digits: str) -> tuple[int, int]:
    return int(digits.replace("?", "0"), 16), int("".join("0" if d == "?" else "f" for d in digits), 16)


def _clause(text: str) -> Expression:
    match = _CLAUSE.fullmatch(text)
    if not match:
        raise BytePatternError(f"“{text}” is no clause; one is offset/value or offset/value%mask, such as 12/0806")
    offset, digits, mask_digits = int(match[1]), match[2], match[3]
    if len(digits) % 2 or len(digits) > 2 * VALUE_MAX:
        raise BytePatternError(f"the value of “{text}” has {len(digits)} hex digits; allowed: 2 to 256, an even number")
    if mask_digits and len(mask_digits) != len(digits):
        raise BytePatternError(f"the mask of “{text}” has {len(mask_digits)} hex digits; its value has {len(digits)}")
    length = len(digits) // 2
    if offset + length > OFFSET_MAX:
        raise BytePatternError(f"“{text}” reaches beyond byte {OFFSET_MAX}")
    value, mask = _value_and_mask(digits)
    if mask_digits:
        chosen, cared = _value_and_mask(mask_digits)
        mask &= chosen & cared
    return all_of(Has("data", offset + length), *_tests(offset, value & mask, mask, length))


def _tests(offset: int, value: int, mask: int, length: int) -> list[Expression]:
    """Tests of the bytes that the mask asks for, in pieces of four, two and one."""
    tests: list[Expression] = []
    at = 0
    while at < length:
        size = next(size for size in (4, 2, 1) if size <= length - at)
        shift, all_bits = 8 * (length - at - size), (1 << 8 * size) - 1
        piece_mask = mask >> shift & all_bits
        if piece_mask:
            tests.append(Equal(Field("data", offset + at, size), piece_mask, value >> shift & all_bits))
        at += size
    return tests


def parse_byte_pattern(text: str) -> Expression:
    """The expression that a pattern means. Raises BytePatternError."""
    if text.strip() == "-":
        return True
    words = re.sub(r"!\s+", "!", text).split()
    if not words:
        raise BytePatternError("the pattern is empty; “-” is every packet")
    parts = []
    for word in words:
        clause = _clause(word.removeprefix("!"))
        parts.append(negate(clause) if word.startswith("!") else clause)
    return all_of(*parts)
