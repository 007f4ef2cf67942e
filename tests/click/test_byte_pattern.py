"""Patterns of Classifier against a comparison byte by byte."""

from __future__ import annotations

import random
import re

import pytest

from edgeos.click import decision
from edgeos.click.byte_pattern import BytePatternError, parse_byte_pattern

ARP_REQUEST = bytes(12) + b"\x08\x06" + bytes(6) + b"\x00\x01" + bytes(20)
ARP_REPLY = bytes(12) + b"\x08\x06" + bytes(6) + b"\x00\x02" + bytes(20)
IP = bytes(12) + b"\x08\x00" + bytes(30)


def compiled(patterns: list[str]) -> decision.Graph:
    return decision.build([(parse_byte_pattern(text), index) for index, text in enumerate(patterns)])


def decide(graph: decision.Graph, packet: bytes) -> int:
    def holds(test: decision.Test) -> bool:
        if isinstance(test, decision.Has):
            return len(packet) >= test.length
        assert isinstance(test, decision.Equal)
        piece = packet[test.field.offset : test.field.offset + test.field.size]
        assert len(piece) == test.field.size, "a field is read without asking whether it is there"
        return int.from_bytes(piece, "big") & test.mask == test.value

    return graph.decide(holds)


def classify(patterns: list[str], packet: bytes) -> int:
    return decide(compiled(patterns), packet)


@pytest.mark.parametrize(
    ("packet", "output"),
    [(ARP_REQUEST, 0), (ARP_REPLY, 1), (IP, 2), (b"", 3), (ARP_REQUEST[:21], 3), (bytes(60), 3)],
)
def test_ethernet_types(packet: bytes, output: int) -> None:
    assert classify(["12/0806 20/0001", "12/0806 20/0002", "12/0800", "-"], packet) == output


def test_what_no_pattern_matches_is_dropped() -> None:
    assert classify(["12/0806"], IP) == decision.DROP


def test_a_negated_clause_holds_for_a_packet_that_is_too_short() -> None:
    assert classify(["!12/0806"], b"") == 0
    assert classify(["! 12/0806"], ARP_REPLY) == decision.DROP
    assert classify(["12/0800 !0/ff"], IP) == 0


def random_clause(r: random.Random) -> tuple[str, int, bytes, bytes]:
    offset, length = r.randrange(12), r.randint(1, 9)
    digits = "".join(r.choice("00001?") for _ in range(2 * length))
    mask_digits = "".join(r.choice("ff0?1") for _ in range(2 * length)) if r.random() < 0.5 else ""
    nibbles = [(0 if d == "?" else int(d, 16), 0 if d == "?" else 15) for d in digits]
    if mask_digits:
        nibbles = [(v, m & (0 if d == "?" else int(d, 16))) for (v, m), d in zip(nibbles, mask_digits, strict=True)]
    value, mask = (bytes(a[i] << 4 | b[i] for a, b in zip(nibbles[::2], nibbles[1::2], strict=True)) for i in (0, 1))
    return f"{offset}/{digits}" + (f"%{mask_digits}" if mask_digits else ""), offset, value, mask


@pytest.mark.parametrize("seed", range(20))
def test_random_patterns_decide_as_the_bytes_do(seed: int) -> None:
    r = random.Random(seed)
    patterns, rows = [], []
    for _ in range(r.randint(1, 6)):
        clauses = [(r.random() < 0.3, random_clause(r)) for _ in range(r.randint(1, 3))]
        patterns.append(" ".join("!" * negated + clause[0] for negated, clause in clauses))
        rows.append([(negated, *clause[1:]) for negated, clause in clauses])

    def holds(packet: bytes, offset: int, value: bytes, mask: bytes) -> bool:
        if len(packet) < offset + len(value):
            return False
        return all((packet[offset + i] ^ v) & m == 0 for i, (v, m) in enumerate(zip(value, mask, strict=True)))

    graph = compiled(patterns)
    for _ in range(200):
        packet = bytes(r.choice([0, 0, 0, 0, 1, 16, 17]) for _ in range(r.randrange(24)))
        matching = (
            index
            for index, row in enumerate(rows)
            if all(holds(packet, offset, value, mask) != negated for negated, offset, value, mask in row)
        )
        assert decide(graph, packet) == next(matching, decision.DROP), (patterns, packet.hex())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the pattern is empty"),
        ("12", "“12” is no clause"),
        ("12/080", "has 3 hex digits"),
        ("12/0806%ff", "the mask of “12/0806%ff” has 2 hex digits; its value has 4"),
        ("12/08xx", "is no clause"),
        ("99999/00", "beyond byte 65535"),
        ("0/" + "00" * 129, "has 258 hex digits"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(BytePatternError, match=re.escape(error)):
        parse_byte_pattern(text)
