"""Durations and sizes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeos.findings import BadValueError
from edgeos.units import approximate_duration, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("30s", 30_000_000_000),
        ("10ms", 10_000_000),
        ("1.5 ms", 1_500_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("7ns", 7),
        ("2min", 120_000_000_000),
        ("2h", 7_200_000_000_000),
        ("1d", 86_400_000_000_000),
        (" 0s ", 0),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("value", "size"),
    [(65536, 65536), ("65536", 65536), ("64KiB", 65536), ("1.5 MiB", 1_572_864), ("1GB", 10**9), ("64kB", 64_000)],
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["30", 30, 1.5, True, None, "", "s", "-3s", "1e3s", "0.5ns", "3 s s", "٣s", "9" * 99])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(BadValueError, match="allowed: "):
        parse_duration(value)


@pytest.mark.parametrize("value", [-1, True, None, "64X", "0.5B", "KiB", "1 2", []])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(BadValueError, match="allowed: "):
        parse_size(value)


def test_unit_advice() -> None:
    with pytest.raises(BadValueError, match='did you mean "ms"'):
        parse_duration("10msec")
    with pytest.raises(BadValueError, match="add a unit"):
        parse_duration("10")
    with pytest.raises(BadValueError, match='did you mean "MiB"'):
        parse_size("1mib")


@given(st.integers(0, 10**19))
def test_exact_formats_are_read_back(number: int) -> None:
    assert parse_duration(format_duration(number)) == number
    assert parse_size(format_size(number)) == number


@given(st.text())
def test_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(BadValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(0, "0ns"), (6.23, "6.23ns"), (812.4, "812ns"), (6200, "6.2us"), (90e9, "90s")]
)
def test_measured_durations(nanoseconds: float, text: str) -> None:
    assert approximate_duration(nanoseconds) == text
