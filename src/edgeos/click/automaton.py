"""Many words sought at once: an automaton after Aho and Corasick (CACM 18(6), 1975), made complete, as tables for C.

Bytes that no word tells apart share a class, so a row has as many entries as there are classes. States in which a word
ends have the highest numbers, so that one comparison tells them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

STATES_MAX = 60_000


@dataclass(frozen=True)
class Automaton:
    """`classes` by byte; `table[state * class_count + class]` is the next state; the start is state 0.

    From `first_final` on, words end in a state: `finals[state - first_final]` has their places.
    """

    classes: tuple[int, ...]
    class_count: int
    table: tuple[int, ...]
    first_final: int
    finals: tuple[tuple[int, ...], ...]

    def find(self, data: bytes) -> set[int]:
        """The places of the words that occur."""
        state, found = 0, set()
        for byte in data:
            state = self.table[state * self.class_count + self.classes[byte]]
            if state >= self.first_final:
                found |= set(self.finals[state - self.first_final])
        return found


class TooManyStatesError(Exception):
    """The words are too many or too long."""


def build(words: Sequence[bytes], fold: bool = False) -> Automaton:
    """The automaton of words that are not empty; with `fold`, letters of ASCII match in either case."""
    if fold:
        words = [word.lower() for word in words]
    classes, class_count = _classes(words, fold)
    tries: list[dict[int, int]] = [{}]
    ends: list[list[int]] = [[]]
    for place, word in enumerate(words):
        state = 0
        for byte in word:
            following = tries[state].get(classes[byte])
            if following is None:
                following = len(tries)
                if following == STATES_MAX:
                    raise TooManyStatesError
                tries[state][classes[byte]] = following
                tries.append({})
                ends.append([])
            state = following
        ends[state].append(place)
    rows = _complete(tries, ends, class_count)
    return _numbered(rows, ends, classes, class_count)


def _classes(words: Sequence[bytes], fold: bool) -> tuple[list[int], int]:
    used = sorted({byte for word in words for byte in word})
    classes = [0] * 256
    for number, byte in enumerate(used, 1):
        classes[byte] = number
        if fold and 97 <= byte <= 122:
            classes[byte - 32] = number
    return classes, len(used) + 1


def _complete(tries: Sequence[dict[int, int]], ends: list[list[int]], class_count: int) -> list[list[int]]:
    """The rows of all states, level by level; a state also ends the words that its longest suffix ends."""
    rows: list[list[int]] = [[] for _ in tries]
    suffix = [0] * len(tries)
    rows[0] = [tries[0].get(c, 0) for c in range(class_count)]
    waiting = deque(tries[0].values())
    while waiting:
        state = waiting.popleft()
        ends[state] += ends[suffix[state]]
        rows[state] = list(rows[suffix[state]])
        for c, following in tries[state].items():
            suffix[following] = rows[suffix[state]][c]
            rows[state][c] = following
            waiting.append(following)
    return rows


def _numbered(
    rows: Sequence[Sequence[int]], ends: Sequence[Sequence[int]], classes: Sequence[int], class_count: int
) -> Automaton:
    order = sorted(range(len(rows)), key=lambda state: (bool(ends[state]), state))
    number = {state: index for index, state in enumerate(order)}
    table = tuple(number[following] for state in order for following in rows[state])
    finals = tuple(tuple(sorted(set(ends[state]))) for state in order if ends[state])
    return Automaton(tuple(classes), class_count, table, len(order) - len(finals), finals)
