"""Where one of many words may begin, as four rows of sixteen bytes for guest/include/click/prefilter.h.

Words are put in eight groups by their first two bytes, each group a bit. The rows say for the lower and the higher half
of a word's first byte, then of its second one, which groups have such a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

GROUPS: Final = 8

Prefilter = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def prefilter(words: Sequence[bytes], fold: bool = False) -> Prefilter:
    """The rows of words that are not empty; with `fold`, letters of ASCII match in either case."""
    first_low, first_high, second_low, second_high = ([0] * 16 for _ in range(4))
    starts = sorted({word[:2].lower() if fold else word[:2] for word in words})
    for place, start in enumerate(starts):
        bit = 1 << place * GROUPS // len(starts)
        for byte in _cases(start[0], fold):
            first_low[byte & 15] |= bit
            first_high[byte >> 4] |= bit
        for byte in _cases(start[1], fold) if len(start) > 1 else range(256):
            second_low[byte & 15] |= bit
            second_high[byte >> 4] |= bit
    return tuple(first_low), tuple(first_high), tuple(second_low), tuple(second_high)


def may_begin(rows: Prefilter, first: int, second: int) -> bool:
    """Whether a word may begin with these two bytes."""
    first_low, first_high, second_low, second_high = rows
    return bool(first_low[first & 15] & first_high[first >> 4] & second_low[second & 15] & second_high[second >> 4])


def _cases(byte: int, fold: bool) -> tuple[int, ...]:
    return (byte, byte - 32) if fold and 97 <= byte <= 122 else (byte,)
