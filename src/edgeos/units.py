"""Durations ("30s") and sizes ("64KiB"), from text to whole nanoseconds and bytes and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from edgeos.findings import BadValueError, nearest, shown

NANOSECONDS: Mapping[str, int] = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
PERCENT_NS = 10_000_000
"""Nanoseconds of CPU time in a second that are a hundredth of one core."""

BYTES: Mapping[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

# The digits are bounded so that no text can cost much arithmetic.
_QUANTITY = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-zµμ%]{0,16})\s*", re.ASCII)
_DURATION_HINT = 'a number and a unit of ns, us, ms, s, min, h, d, such as "30s"'
_RATE_HINT = 'a number for each second, such as "1000/s"'
_BYTE_RATE_HINT = 'bytes for each second with a unit of B, kB, MB, GB, KiB, MiB, GiB, such as "100MB/s"'
_CPU_HINT = 'a share of one core, such as "25%"'
_SIZE_HINT = 'bytes, or a number and a unit of B, KiB, MiB, GiB, kB, MB, GB, such as "64KiB"'


def parse_duration(text: object) -> int:
    """Nanoseconds of a duration such as "30s", "1.5 ms" or "2h". Raises BadValueError, also if the unit is missing."""
    return _parse(text, NANOSECONDS, _DURATION_HINT)


def parse_size(value: object) -> int:
    """Bytes of a size such as 65536, "65536", "64KiB" or "1.5 MiB". Raises BadValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise BadValueError(shown(value), _SIZE_HINT)
        return value
    return _parse(value, {**BYTES, "": 1}, _SIZE_HINT)


def parse_rate(value: object) -> int:
    """Units a second of a rate such as 1000 or "1000/s". Raises BadValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return _parse_per_second(value, {"": 1}, _RATE_HINT)


def parse_byte_rate(value: object) -> int:
    """Bytes a second of a rate such as "100MB/s". Raises BadValueError."""
    return _parse_per_second(value, BYTES, _BYTE_RATE_HINT)


def parse_cpu(value: object) -> int:
    """CPU time in a second, nanoseconds, of a share of one core such as "25%". Raises BadValueError."""
    return _parse(value, {"%": PERCENT_NS}, _CPU_HINT)


def format_rate(rate: int) -> str:
    """A rate as `parse_rate` reads it back."""
    return f"{rate}/s"


def format_byte_rate(rate: int) -> str:
    """The exact rate in the largest unit that divides it, such as "100MB/s"; `parse_byte_rate` reads it back."""
    return f"{_exact(rate, BYTES)}/s"


def format_cpu(nanoseconds: int) -> str:
    """CPU time in a second as a share of one core, such as "25%"; `parse_cpu` reads it back."""
    return f"{nanoseconds / PERCENT_NS:.15g}%"


def _parse_per_second(value: object, units: Mapping[str, int], hint: str) -> int:
    if not isinstance(value, str) or not value.strip().endswith("/s"):
        raise BadValueError(shown(value), hint)
    try:
        return _parse(value.strip().removesuffix("/s"), units, hint)
    except BadValueError:
        raise BadValueError(shown(value), hint) from None


def format_duration(nanoseconds: int) -> str:
    """The exact duration in the largest unit that divides it, such as "90s"; `parse_duration` reads it back."""
    return _exact(nanoseconds, NANOSECONDS)


def format_size(size: int) -> str:
    """The exact size in the largest binary unit that divides it, such as "64KiB"; `parse_size` reads it back."""
    return _exact(size, {name: unit for name, unit in BYTES.items() if unit % 10 or unit == 1})


def approximate_duration(nanoseconds: float) -> str:
    """A measured duration for people: three digits and a fitting unit, such as "6.2us"; seconds at most."""
    name = next((name for name in ("s", "ms", "us") if NANOSECONDS[name] <= nanoseconds), "ns")
    number = nanoseconds / NANOSECONDS[name]
    return f"{number:.0f}{name}" if number >= 100 else f"{number:.3g}{name}"


def _parse(text: object, units: Mapping[str, int], hint: str) -> int:
    parts = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        raise BadValueError(shown(text), hint)
    number, unit = parts.group(1), parts.group(2).replace("µ", "u").replace("μ", "u")
    if unit not in units:
        raise BadValueError(shown(text), hint, nearest(unit, units) if unit else "add a unit")
    quantity = Fraction(number) * units[unit]
    if quantity.denominator != 1:
        raise BadValueError(shown(text), f"a whole number of {next(iter(units))}")
    return int(quantity)


def _exact(quantity: int, units: Mapping[str, int]) -> str:
    name, unit = max((pair for pair in units.items() if quantity % pair[1] == 0), key=lambda pair: pair[1])
    return f"{quantity // unit}{name}" if quantity else f"0{next(iter(units))}"
