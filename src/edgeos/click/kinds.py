"""Kinds of argument: the words that a configuration may hold for each, and the constants that they become in C."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from edgeos.findings import nearest, shown

SECOND_NS: Final = 1_000_000_000

_ESCAPES: Final = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_TEXT_PART: Final = re.compile(
    r"""\\<(?P<hex>[^>]*)>|\\x(?P<byte>[0-9A-Fa-f]+)|\\(?P<octal>[0-7]{1,3})|\\(?P<join>\r?\n|\r)|\\(?P<escape>.)"""
    r"""|(?P<quote>["'])|(?P<plain>.)""",
    re.DOTALL,
)
_TIME_UNITS: Final = {
    "ns": 1, "us": 1_000, "ms": 1_000_000, "s": SECOND_NS, "sec": SECOND_NS, "": SECOND_NS, "m": 60 * SECOND_NS,
    "min": 60 * SECOND_NS, "h": 3600 * SECOND_NS, "hr": 3600 * SECOND_NS, "d": 86_400 * SECOND_NS,
}  # fmt: skip
_BIT: Final = Fraction(1, 8)
_RATE_UNITS: Final[Mapping[str, Fraction]] = {
    "": Fraction(1),
    "Bps": Fraction(1),
    "B/s": Fraction(1),
    "bps": _BIT,
    "bit/s": _BIT,
    "b/s": _BIT,
}
_RATE_PREFIXES: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


class ArgumentError(Exception):
    """An argument is not of its kind; the text says what was found and what is allowed."""


def bad(found: str, allowed: str) -> ArgumentError:
    """The error for a word: what it was and what is allowed."""
    return ArgumentError(f"found {shown(found) if found else 'nothing'}; allowed: {allowed}")


def unquote(text: str) -> bytes:
    """The bytes that a text with quotes and backslashes stands for. Raises ArgumentError."""
    result = bytearray()
    quote = ""
    for part in _TEXT_PART.finditer(text):
        kind, value = part.lastgroup, part.group()
        if quote == "'" and value != "'":
            result += value.encode()
        elif kind == "hex":
            digits = "".join(part["hex"].split())
            if len(digits) % 2 or not re.fullmatch(r"[0-9A-Fa-f]*", digits):
                raise bad(value, r"pairs of hexadecimal digits in \<…>")
            result += bytes.fromhex(digits)
        elif kind == "byte":
            result.append(int(part["byte"][-2:], 16))
        elif kind == "octal":
            result.append(int(part["octal"], 8) & 255)
        elif kind == "escape":
            result += bytes([_ESCAPES[part["escape"]]]) if part["escape"] in _ESCAPES else part["escape"].encode()
        elif kind == "quote":
            if quote in ("", value):
                quote = "" if quote else value
            else:
                result += value.encode()
        elif kind == "plain":
            result += value.encode()
    if quote:
        raise bad(text, f"a closing {quote}")
    return bytes(result)


def literal(data: bytes) -> str:
    """A C string literal of these bytes."""
    safe = {
        ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:;/+*=<>()[]{}!#$%&@~^|'"
    }
    return '"' + "".join(chr(byte) if byte in safe else f"\\{byte:03o}" for byte in data) + '"'


def raw16(value: int) -> int:
    """A 16-bit number as a little-endian machine reads it from a packet."""
    return int.from_bytes(value.to_bytes(2, "big"), "little")


def raw32(value: int) -> int:
    """A 32-bit number, or an IPv4 address, as a little-endian machine reads it from a packet."""
    return int.from_bytes(value.to_bytes(4, "big"), "little")


def number(value: int) -> str:
    """A C integer constant."""
    if value < 0:
        return f"({value}ll)" if value < -(2**31) else f"({value})"
    return f"{value}u" if value < 2**32 else f"{value}ull"


@dataclass(frozen=True)
class Kind:
    """What an argument may be. `allowed` says it in words; `usage` is how the reference shows a value."""

    @property
    def allowed(self) -> str:
        return "text"

    @property
    def usage(self) -> str:
        """A value as the reference writes it."""
        return self.allowed

    def parse(self, text: str) -> Any:
        """The value of an argument's text. Raises ArgumentError."""
        raise NotImplementedError

    def constants(self, name: str, value: Any) -> Mapping[str, str]:
        """C constants for a value, by their names; `name` begins with ARG_."""
        return {}


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number: decimal, 0x…, or octal with a leading 0."""

    min: int = -(2**31)
    max: int = 2**31 - 1

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.min} to {self.max}"

    def parse(self, text: str) -> int:
        digits = text.removeprefix("-").removeprefix("+")
        base = 16 if digits[:2] in ("0x", "0X") else 8 if len(digits) > 1 and digits[0] == "0" else 10
        pattern = {16: r"0[xX][0-9A-Fa-f]{1,16}", 8: r"0[0-7]{1,22}", 10: r"[0-9]{1,20}"}[base]
        if not re.fullmatch(rf"[+-]?{pattern}", text, re.ASCII) or not self.min <= int(text, base) <= self.max:
            raise bad(text, self.allowed)
        return int(text, base)

    def constants(self, name: str, value: int) -> Mapping[str, str]:
        if self.min < 0:
            return {name: f"({value}{'' if -(2**31) <= value < 2**31 else 'll'})"}
        return {name: number(value)}


def Unsigned(max: int = 2**32 - 1, min: int = 0) -> Integer:  # noqa: N802  (reads as the kinds that are classes)
    """A whole number from `min` (0) to `max`."""
    return Integer(min, max)


@dataclass(frozen=True)
class Boolean(Kind):
    """true or false, yes or no, 1 or 0."""

    @property
    def allowed(self) -> str:
        return "true or false"

    def parse(self, text: str) -> bool:
        if text.lower() in ("true", "yes", "1", "on", "t", "y"):
            return True
        if text.lower() in ("false", "no", "0", "off", "f", "n"):
            return False
        raise bad(text, self.allowed)

    def constants(self, name: str, value: bool) -> Mapping[str, str]:
        return {name: str(int(value))}


@dataclass(frozen=True)
class Real(Kind):
    """A number with a fraction; becomes no constant, because guests reckon in whole numbers."""

    min: float = 0.0
    max: float = 1e18

    @property
    def allowed(self) -> str:
        return f"a number from {self.min:g} to {self.max:g}"

    def parse(self, text: str) -> float:
        if not re.fullmatch(r"[+-]?([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?", text, re.ASCII):
            raise bad(text, self.allowed)
        value = float(text)
        if not math.isfinite(value) or not self.min <= value <= self.max:
            raise bad(text, self.allowed)
        return value


@dataclass(frozen=True)
class Raw(Kind):
    """The text as it was written."""

    @property
    def usage(self) -> str:
        return "…"

    def parse(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Text(Kind):
    r"""Text, quoted where it holds spaces or commas; \n, \x41 and \<41 42> stand for bytes. The value is bytes."""

    max: int = 65536

    @property
    def allowed(self) -> str:
        return f"text of at most {self.max} bytes"

    @property
    def usage(self) -> str:
        return "text"

    def parse(self, text: str) -> bytes:
        value = unquote(text)
        if len(value) > self.max:
            raise ArgumentError(f"found {len(value)} bytes; allowed: {self.allowed}")
        return value

    def constants(self, name: str, value: bytes) -> Mapping[str, str]:
        return {name: literal(value), f"{name}_LEN": number(len(value))}


@dataclass(frozen=True)
class Word(Kind):
    """One word of letters, digits and the like."""

    @property
    def allowed(self) -> str:
        return "a word"

    def parse(self, text: str) -> str:
        word = unquote(text).decode("utf-8", "replace")
        if not re.fullmatch(r"[\w./:@-]{1,256}", word, re.ASCII):
            raise bad(text, self.allowed)
        return word


class Choice(Kind):
    """One of some words."""

    def __init__(self, *choices: str) -> None:
        object.__setattr__(self, "choices", choices)

    choices: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return ", ".join(self.choices)

    @property
    def usage(self) -> str:
        return " or ".join(self.choices)

    def parse(self, text: str) -> str:
        by_lower = {choice.lower(): choice for choice in self.choices}
        if text.lower() not in by_lower:
            hint = nearest(text, self.choices)
            raise ArgumentError(f"found {shown(text)}; allowed: {self.allowed}" + (f"; {hint}" if hint else ""))
        return by_lower[text.lower()]


@dataclass(frozen=True)
class IPAddress(Kind):
    """An IPv4 address."""

    @property
    def allowed(self) -> str:
        return "an IPv4 address such as 10.0.0.1"

    @property
    def usage(self) -> str:
        return "address"

    def parse(self, text: str) -> ipaddress.IPv4Address:
        try:
            return ipaddress.IPv4Address(text)
        except ValueError:
            raise bad(text, self.allowed) from None

    def constants(self, name: str, value: ipaddress.IPv4Address) -> Mapping[str, str]:
        return {name: f"0x{raw32(int(value)):08x}u"}

    @staticmethod
    def text(value: int) -> str:
        """An address as it is written."""
        return str(ipaddress.IPv4Address(value))


@dataclass(frozen=True)
class Prefix:
    """An IPv4 address and a mask, both as numbers; of the address the bits beyond the mask are kept."""

    address: int
    mask: int

    @property
    def length(self) -> int:
        """Bits of the mask."""
        return self.mask.bit_count()


@dataclass(frozen=True)
class IPPrefix(Kind):
    """An IPv4 prefix: `10.0.0.0/8` or `10.0.0.0/255.0.0.0`; a bare address is one of 32 bits where `host` allows it."""

    host: bool = False

    @property
    def allowed(self) -> str:
        return "an IPv4 prefix such as 10.0.0.0/8" + (", or an address" if self.host else "")

    @property
    def usage(self) -> str:
        return "prefix"

    def parse(self, text: str) -> Prefix:
        address, slash, mask = text.partition("/")
        try:
            if not slash and not self.host:
                raise ValueError
            bits = mask if slash else "32"
            if bits.isascii() and bits.isdigit():
                length = int(bits[:4])
                if length > 32:
                    raise ValueError
                value = (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
            else:
                value = int(ipaddress.IPv4Address(bits))
                if (~value & 0xFFFFFFFF) & ((~value & 0xFFFFFFFF) + 1):
                    raise ValueError
            return Prefix(int(ipaddress.IPv4Address(address)), value)
        except ValueError:
            raise bad(text, self.allowed) from None

    def constants(self, name: str, value: Prefix) -> Mapping[str, str]:
        return {name: f"0x{raw32(value.address):08x}u", f"{name}_MASK": f"0x{raw32(value.mask):08x}u"}


@dataclass(frozen=True)
class EtherAddress(Kind):
    """An Ethernet address; the value is its 6 bytes."""

    @property
    def allowed(self) -> str:
        return "an Ethernet address such as 00:11:22:33:44:55"

    @property
    def usage(self) -> str:
        return "Ethernet address"

    def parse(self, text: str) -> bytes:
        groups = re.split("[:-]", text)
        if len(groups) != 6 or not all(re.fullmatch("[0-9A-Fa-f]{1,2}", group) for group in groups):
            raise bad(text, self.allowed)
        return bytes(int(group, 16) for group in groups)

    def constants(self, name: str, value: bytes) -> Mapping[str, str]:
        return {name: literal(value)}


@dataclass(frozen=True)
class Seconds(Kind):
    """A time: seconds, or with a unit (ns, us, ms, s, min, h, d). The value is in nanoseconds."""

    min: int = 0
    max: int = 10**6 * SECOND_NS

    @property
    def allowed(self) -> str:
        return f'a time from {self.min / SECOND_NS:g} to {self.max / SECOND_NS:g} seconds, such as 1.5, "20ms" or 1min'

    @property
    def usage(self) -> str:
        return "time"

    def parse(self, text: str) -> int:
        match = re.fullmatch(r"([0-9]{0,15}(?:\.[0-9]{0,15})?)\s*([a-z]*)", text, re.ASCII)
        if match is None or not any(c.isdigit() for c in match[1]) or match[2] not in _TIME_UNITS:
            raise bad(text, self.allowed)
        value = int(Fraction(match[1] if match[1][-1] != "." else match[1][:-1]) * _TIME_UNITS[match[2]])
        if not self.min <= value <= self.max:
            raise bad(text, self.allowed)
        return value

    def constants(self, name: str, value: int) -> Mapping[str, str]:
        return {name: number(value)}


@dataclass(frozen=True)
class Bandwidth(Kind):
    """Bytes a second: a number, or bits or bytes with a unit (`384 kbps`, `1MB/s`). The value is in bytes a second."""

    min: int = 0
    max: int = 2**40

    @property
    def allowed(self) -> str:
        return f'a rate up to {self.max} bytes a second, such as 50000, "384 kbps", "1MB/s"'

    @property
    def usage(self) -> str:
        return "rate"

    def parse(self, text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{0,9})?)\s*([kKMG])?(bps|Bps|bit/s|b/s|B/s)?", text, re.ASCII)
        if match is None:
            raise bad(text, self.allowed)
        value = int(Fraction(match[1].rstrip(".")) * _RATE_PREFIXES[match[2] or ""] * _RATE_UNITS[match[3] or ""])
        if not self.min <= value <= self.max:
            raise bad(text, self.allowed)
        return value

    def constants(self, name: str, value: int) -> Mapping[str, str]:
        return {name: number(value)}


@dataclass(frozen=True)
class Port(Kind):
    """A TCP or UDP port."""

    min: int = 0

    @property
    def allowed(self) -> str:
        return f"a port from {self.min} to 65535"

    @property
    def usage(self) -> str:
        return "port"

    def parse(self, text: str) -> int:
        if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not self.min <= int(text) <= 65535:
            raise bad(text, self.allowed)
        return int(text)

    def constants(self, name: str, value: int) -> Mapping[str, str]:
        return {name: number(value)}


@dataclass(frozen=True)
class Words(Kind):
    """Values of one kind with spaces between them; the value is a tuple."""

    of: Kind

    @property
    def allowed(self) -> str:
        return f"one or more, with spaces between them, of: {self.of.allowed}"

    @property
    def usage(self) -> str:
        return f"{self.of.usage} …"

    def parse(self, text: str) -> tuple[Any, ...]:
        words = text.split()
        if not words:
            raise bad(text, self.allowed)
        return tuple(self.of.parse(word) for word in words)


@dataclass(frozen=True)
class Special(Kind):
    """A value of another kind, or a word that stands for something else; the value of the word is None."""

    word: str
    of: Kind

    @property
    def allowed(self) -> str:
        return f"{self.of.allowed}, or {self.word}"

    @property
    def usage(self) -> str:
        return f"{self.of.usage} or {self.word}"

    def parse(self, text: str) -> Any:
        return None if text == self.word else self.of.parse(text)

    def constants(self, name: str, value: Any) -> Mapping[str, str]:
        return self.of.constants(name, value)


@dataclass(frozen=True)
class ElementName(Kind):
    """The name of another element; `Element.find` gives the element."""

    @property
    def allowed(self) -> str:
        return "the name of an element"

    @property
    def usage(self) -> str:
        return "element"

    def parse(self, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z_@][\w@/]{0,255}", text, re.ASCII):
            raise bad(text, self.allowed)
        return text


class DeviceName(Word):
    """The name or the number of a device, see `edgeos.click.devices`."""

    @property
    def allowed(self) -> str:
        return "the name or number of a device"

    @property
    def usage(self) -> str:
        return "device"
