"""What Search passes over: never a place where a word begins, in Python, on the host and with the guest's vectors."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from click_harness import start
from hypothesis import given
from hypothesis import strategies as st
from node_harness import line

from edgeos import TemplateSettings
from edgeos.click.prefilter import may_begin, prefilter
from edgeos.testing import udp_packet

WORDS = [
    b"select",
    b"SELF",
    b"x",
    b"\x90\x90\x90\x90",
    b"end of words",
    b"\xff\x00",
    b"../",
    b"..\\",
    b"jndi:",
    b"un ion",
]


@given(
    st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=40),
    st.integers(0, 39),
    st.binary(max_size=30),
    st.booleans(),
)
def test_no_word_is_passed_over(words: list[bytes], chosen: int, around: bytes, fold: bool) -> None:
    rows = prefilter(words, fold)
    word = words[chosen % len(words)]
    for text in (
        {word + around + b"\0", word.upper() + b"\0", word.lower() + b"\0"} if fold else {word + around + b"\0"}
    ):
        assert may_begin(rows, text[0], text[1])


def test_most_places_of_other_text_are_passed_over() -> None:
    rows = prefilter([b"union select", b"/etc/passwd", b"${jndi:", b"<script"])
    text = Path(__file__).read_bytes()
    places = sum(may_begin(rows, first, second) for first, second in pairwise(text))
    assert places < len(text) / 50


def texts(count: int) -> list[bytes]:
    """Payloads of every length around the vectors', full of words, halves of words, and bytes that look like them."""
    source = random.Random(5)
    made = []
    for _ in range(count):
        pieces = []
        for _ in range(source.randrange(12)):
            word = source.choice(WORDS)
            pieces.append(source.choice((word[:-1], word[1:], word[:1] * 3, source.randbytes(9), b"s" * 20, b" ")))
        if source.random() < 0.4:
            pieces.insert(source.randrange(len(pieces) + 1), source.choice(WORDS))
        made.append(b"".join(pieces)[: source.choice((600, 16, 17, 18, 33, 1))])
    return made


def configuration() -> str:
    words = ", ".join(f"\\<{word.hex()}>" for word in WORDS)
    return f"FromDevice(a) -> MarkIPHeader(14) -> Search({words}) -> ToDevice(b);"


@pytest.mark.parametrize("where", ["host", "guest"])
def test_what_is_found_is_what_a_plain_search_finds(where: str, tmp_path: Path) -> None:
    payloads = texts(600)
    packets = [udp_packet("10.0.0.1", "192.0.2.1", payload) for payload in payloads]
    clean = [packet for packet, data in zip(packets, payloads, strict=True) if not any(word in data for word in WORDS)]
    assert 100 < len(clean) < 500
    if where == "host":
        with start(configuration()) as click:
            assert [data for _, data in click.push("a", *packets)] == clean
        return
    (tmp_path / "s.click").write_text(configuration())
    with line(TemplateSettings(name="s", click=tmp_path / "s.click", ready_low=1, ready_high=1)) as rig:
        passed = [frame for packet in packets for frame in rig.pass_through("lan", packet)]
        assert passed == clean
