"""The pattern language of IPClassifier and IPFilter, read into tests on a packet's bytes.

    expr   = or-expr [ "?" expr ":" expr ]
    or     = and { ("or" | "||") and }
    and    = factor { [ "and" | "&&" ] factor }
    factor = ("not" | "!") factor | "(" expr ")" | primitive
    primitive = { qualifier } [ "[" pos ":" len "]" ] [ "&" mask ] [ "==" | "!=" | "<" | ">" | "<=" | ">=" ] value

A value without qualifiers takes those of the primitive before it: `src port 80 or 81`. A primitive that asks for bytes
which the packet does not have does not hold, whatever its operator; `not` before it then does. A port may also be a
range, `port 1024-2047`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from edgeos.click.decision import Above, Equal, Expression, Field, Has, all_of, any_of, choose, negate
from edgeos.click.ip_names import ICMP, ICMP_TYPES, PORTS, PROTOCOLS, TCP, TCP_OPTIONS, UDP

DEPTH_MAX = 64
WORDS_MAX = 4096

_WORD = re.compile(r"&&|\|\||[<>!=]=|[\w\-./@:]+|\S")
_ETHER = re.compile(r"[0-9a-fA-F]{1,2}(?:([:-])[0-9a-fA-F]{1,2})(?:\1[0-9a-fA-F]{1,2}){4}")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_RANGE = re.compile(r"(\d+)-(\d+)")
_ENDS = {")", "or", "||", "?", ":", "and", "&&", None}
_OPERATORS = {"=", "==", "!=", "<", ">", "<=", ">="}
_TCP_OR_UDP, _TRANSPORT = 256, 257
_TYPES = {"host", "net", "port", "proto", "opt", "frag", "unfrag", "ect", "ce"}


@dataclass(frozen=True)
class _Number:
    """A header field: bits of a Field, and the transport protocol that has it (0 = it belongs to IP)."""

    field: Field
    shift: int
    bits: int
    proto: int = 0


_FIELDS = {
    "vers": _Number(Field("network", 0, 1), 4, 4),
    "hl": _Number(Field("network", 0, 1), 0, 4),
    "tos": _Number(Field("network", 1, 1), 0, 8),
    "dscp": _Number(Field("network", 1, 1), 2, 6),
    "len": _Number(Field("network", 2, 2), 0, 16),
    "id": _Number(Field("network", 4, 2), 0, 16),
    "ttl": _Number(Field("network", 8, 1), 0, 8),
    "win": _Number(Field("transport", 14, 2), 0, 16, TCP),
    "type": _Number(Field("transport", 0, 1), 0, 8, ICMP),
}
_ECN = _Number(Field("network", 1, 1), 0, 2)
_PROTO = _Number(Field("network", 9, 1), 0, 8)
_SIDES = {
    "host": {"src": Field("network", 12, 4), "dst": Field("network", 16, 4)},
    "port": {"src": Field("transport", 0, 2), "dst": Field("transport", 2, 2)},
}


class ExpressionError(Exception):
    """What is wrong with a pattern, for its author."""


@dataclass
class _Primitive:
    """What has been read of one primitive; `kind` is a word of _TYPES or "field", `value` what it is compared with."""

    kind: str = ""
    side: str = ""
    proto: int | None = None
    number: _Number | None = None
    header: str = ""
    mask: tuple[str, int] | None = None
    operator: str = "=="
    data: str = ""
    value: int = 0
    prefix: int = 0xFFFFFFFF
    names: list[str] = field(default_factory=list)

    def name(self) -> str:
        return " ".join(self.names) or "value"

    def set_kind(self, kind: str, number: _Number | None = None) -> None:
        if self.kind:
            raise ExpressionError(f"“{self.name()}” says twice what to compare; keep one")
        self.kind, self.number = kind, number

    def set_proto(self, proto: int) -> None:
        if self.proto is not None and self.proto != proto:
            raise ExpressionError(f"“{self.name()}” names two protocols; keep one")
        self.proto = proto


def _number(word: str) -> int | None:
    if not _NUMBER.fullmatch(word) or len(word) > 12:
        return None
    try:
        return int(word, 8 if len(word) > 1 and word.isdigit() and word[0] == "0" else 0)
    except ValueError:
        return None


def _address(word: str) -> int | None:
    try:
        return int(ipaddress.IPv4Address(word))
    except ValueError:
        return None


def _prefix(word: str) -> tuple[int, int] | None:
    """Address and mask of `18.26.4.0/24`, `18.26/16` or `18.26.4.0/255.255.255.0`."""
    text, slash, bits = word.partition("/")
    parts = text.split(".")
    address = _address(".".join([*parts, *["0"] * (4 - len(parts))]))
    if not slash or address is None:
        return None
    if bits.isdigit() and len(bits) <= 2 and int(bits) <= 32:
        return address, 0xFFFFFFFF << (32 - int(bits)) & 0xFFFFFFFF
    mask = _address(bits)
    return None if mask is None else (address, mask)


def _ether(word: str) -> int | None:
    if not _ETHER.fullmatch(word):
        return None
    return int.from_bytes(bytes(int(part, 16) for part in re.split("[:-]", word)), "big")


def _proto_number(word: str) -> int | None:
    return {"tcpudp": _TCP_OR_UDP, "transp": _TRANSPORT}.get(word, PROTOCOLS.get(word))


def _need(field_: Field) -> Has:
    """The bytes that a field asks for. Without its first 20 bytes there is no IP header at all."""
    end = field_.offset + field_.size
    return Has(field_.base, 20 if field_.base == "network" and end < 20 else end)


def _is_proto(proto: int) -> Expression:
    if proto == _TRANSPORT:
        return True
    if proto == _TCP_OR_UDP:
        return any_of(_is_proto(TCP), _is_proto(UDP))
    return all_of(_need(_PROTO.field), Equal(_PROTO.field, 0xFF, proto))


def _first_fragment() -> Expression:
    return all_of(Has("network", 20), Equal(Field("network", 6, 2), 0x1FFF, 0))


def _fragment() -> Expression:
    return all_of(Has("network", 20), negate(Equal(Field("network", 6, 2), 0x3FFF, 0)))


class _Parser:
    def __init__(self, text: str) -> None:
        self.words = _WORD.findall(text)
        if len(self.words) > WORDS_MAX:
            raise ExpressionError(f"the pattern has {len(self.words)} words; allowed are {WORDS_MAX}")
        self.at = 0
        self.depth = 0
        self.previous = _Primitive()

    def peek(self, ahead: int = 0) -> str | None:
        at = self.at + ahead
        return self.words[at] if at < len(self.words) else None

    def take(self, *words: str) -> bool:
        if self.peek() not in words:
            return False
        self.at += 1
        return True

    def whole(self) -> Expression:
        found = self.choice()
        if self.peek() is not None:
            raise ExpressionError(f"“{self.peek()}” cannot follow a whole expression")
        return found

    def choice(self) -> Expression:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ExpressionError(f"parentheses and “?” nest deeper than {DEPTH_MAX}")
        found = self.alternatives()
        if self.take("?"):
            then = self.choice()
            if not self.take(":"):
                raise ExpressionError("“:” is missing behind “?”; put spaces around it")
            found = choose(found, then, self.choice())
        self.depth -= 1
        return found

    def alternatives(self) -> Expression:
        parts = [self.row()]
        while self.take("or", "||"):
            parts.append(self.row())
        return any_of(*parts)

    def row(self) -> Expression:
        parts = [self.factor()]
        while self.take("and", "&&") or self.peek() not in _ENDS:
            parts.append(self.factor())
        return all_of(*parts)

    def factor(self) -> Expression:
        negated = False
        while self.take("not", "!"):
            negated = not negated
        if self.take("("):
            found = self.choice()
            if not self.take(")"):
                raise ExpressionError("“)” is missing")
        elif self.peek() in _ENDS:
            raise ExpressionError(
                f"an expression is missing {f'before “{self.peek()}”' if self.peek() else 'at the end'}"
            )
        else:
            found = self.primitive()
        return negate(found) if negated else found

    def primitive(self) -> Expression:
        if self.take("true"):
            return True
        if self.take("false"):
            return False
        p = _Primitive()
        start = self.at
        negated = self.qualifiers(p)
        if self.at != start:
            self.previous = _Primitive()
        elif self.previous.data == "ether":
            p.header = "ether"
        if self.at != start and not p.kind and self.take("["):
            p.set_kind("field", self.brackets(p))
        self.mask(p)
        operator = self.peek()
        if operator in _OPERATORS:
            self.at += 1
            p.operator = "==" if operator == "=" else str(operator)
        self.value(p, operator in _OPERATORS)
        if self.at == start:
            raise ExpressionError(f"“{self.peek()}” is no pattern: neither a name, nor a number, nor an address")
        found = self.finish(p)
        self.previous = p
        return negate(found) if negated else found

    def qualifiers(self, p: _Primitive) -> bool:
        negated = False
        while (word := self.peek()) is not None:
            proto = _proto_number(word)
            if word in _FIELDS:
                p.set_kind("field", _FIELDS[word])
                if _FIELDS[word].proto:
                    p.set_proto(_FIELDS[word].proto)
            elif word in _TYPES:
                p.set_kind(word)
            elif proto is not None and p.kind != "proto":
                p.set_proto(proto)
            elif word in ("src", "dst", "dest"):
                self.side(p)
            elif word in ("ip", "ether") and not p.header:
                p.header = word
            elif word in ("not", "!") and p.names:
                negated = not negated
            else:
                break
            p.names.append(word)
            self.at += 1
        return negated

    def side(self, p: _Primitive) -> None:
        if p.side:
            raise ExpressionError(f"“{p.name()} {self.peek()}” names a side twice")
        p.side = "src" if self.peek() == "src" else "dst"
        joined = self.peek(1)
        if p.side == "src" and self.peek(2) in ("dst", "dest") and joined in ("and", "&&", "or", "||"):
            p.side = "both" if joined in ("and", "&&") else "either"
            self.at += 2

    def brackets(self, p: _Primitive) -> _Number:
        inside = ""
        while not self.take("]"):
            if self.peek() is None:
                raise ExpressionError("“]” is missing")
            inside += str(self.peek())
            self.at += 1
        match = re.fullmatch(r"(\d{1,5})(?:([:,])(\d{1,5}))?", inside)
        if not match:
            raise ExpressionError(f"“[{inside}]” is neither [POS] nor [POS:LEN]")
        at, size = int(match[1]), int(match[3] or 1) if match[2] != "," else int(match[3]) - int(match[1]) + 1
        if not 1 <= size <= 4 or at // 4 != (at + size - 1) // 4 or at > 65531:
            raise ExpressionError(f"“[{inside}]” is not 1 to 4 bytes within one aligned word of four")
        return _Number(Field("transport" if p.proto else "network", at, size), 0, 8 * size, p.proto or 0)

    def mask(self, p: _Primitive) -> None:
        if self.peek() != "&" or self.peek(1) is None:
            return
        word = str(self.peek(1))
        for data, read in (("int", _number), ("host", _address), ("ether", _ether)):
            found = read(word)
            if found is not None:
                p.mask = (data, found)
                break
        else:
            raise ExpressionError(f"“{word}” behind & is no mask: a number or an address")
        if found == 0:
            raise ExpressionError("a mask of zero compares nothing")
        self.at += 2

    def value(self, p: _Primitive, demanded: bool) -> None:
        word = self.peek()
        if word is not None and word not in _ENDS and self.read_value(p, word):
            self.at += 1
            if p.data == "host" and self.peek() == "mask":
                mask = _address(str(self.peek(1)))
                if mask is None:
                    raise ExpressionError("an address is missing behind “mask”")
                p.data, p.prefix = "net", mask
                self.at += 2
        elif demanded:
            raise ExpressionError(f"a value is missing behind “{p.operator}”")

    def read_value(self, p: _Primitive, word: str) -> bool:
        meanings = self.meanings(p, word)
        if len(meanings) > 1:
            known = " or ".join(f"“{kind} {word}”" for kind in meanings)
            raise ExpressionError(f"“{word}” is ambiguous; write {known}")
        for kind, value in meanings.items():
            p.data, p.value = kind, value
            return True
        for data, read in (("int", _number), ("host", _address)):
            found = read(word)
            if found is not None:
                p.data, p.value = data, found
                return True
        prefix = _prefix(word)
        if prefix is not None and p.header != "ether":
            p.data, (p.value, p.prefix) = "net", prefix
            return True
        if p.kind == "port" and (match := _RANGE.fullmatch(word)):
            p.data, p.value, p.prefix = "range", int(match[1]), int(match[2])
            return True
        address = _ether(word)
        if address is not None and p.header != "ip":
            p.data, p.value = "ether", address
            return True
        return False

    def meanings(self, p: _Primitive, word: str) -> dict[str, int]:
        """What a name may stand for here."""
        is_tcp, is_udp = (p.proto in (None, proto, _TCP_OR_UDP) for proto in (TCP, UDP))
        is_type = p.kind == "field" and p.number is _FIELDS["type"]
        found: dict[str, int] = {}
        if word in PROTOCOLS and p.kind == "proto":
            found["proto"] = PROTOCOLS[word]
        if word in PORTS and p.kind in ("", "port") and (is_tcp or is_udp):
            found["port"] = PORTS[word]
        if word in TCP_OPTIONS and p.kind in ("", "opt") and is_tcp:
            found["opt"] = TCP_OPTIONS[word]
        if word in ICMP_TYPES and (is_type or not p.kind) and p.proto in (None, ICMP):
            found["icmp type"] = ICMP_TYPES[word]
        return found

    def finish(self, p: _Primitive) -> Expression:
        if not p.kind:
            self.inherit(p)
        if p.header == "ether" and p.kind == "host":
            p.kind = "ether"
        if (p.header == "ether") != (p.kind == "ether") and not (p.kind == "ether" and not p.header):
            raise ExpressionError(f"“ether” cannot stand before “{p.kind}”; it has “host”")
        match p.kind:
            case "host" | "net":
                return self.host(p)
            case "ether":
                return self.ether(p)
            case "port":
                return self.port(p)
            case "proto":
                return self.proto(p)
            case "opt":
                return self.option(p)
            case _:
                return self.other(p)

    def inherit(self, p: _Primitive) -> None:
        before = self.previous
        if p.data == "int" and before.kind in ("field", "proto", "port"):
            p.kind, p.number = before.kind, before.number
        elif p.data == "int":
            raise ExpressionError(f"“{p.value}” alone says nothing: name a header field or “port” before it")
        elif p.data == "icmp type":
            p.kind, p.number = "field", _FIELDS["type"]
        elif p.data:
            p.kind = p.data
        elif p.proto is not None:
            p.kind = "proto"
        else:
            raise ExpressionError(f"“{p.name()}” lacks a value")
        if p.kind in ("host", "net", "ether", "port"):
            p.side = p.side or before.side
        if p.kind == "port" and p.proto is None:
            p.proto = before.proto
        if p.kind == "field" and p.number is not None and p.number.proto and p.proto is None:
            p.proto = p.number.proto

    def both_sides(self, p: _Primitive, tests: dict[str, Expression]) -> Expression:
        match p.side:
            case "src" | "dst":
                return tests[p.side]
            case "both":
                return all_of(*tests.values())
            case _:
                return any_of(*tests.values())

    def equal_only(self, p: _Primitive) -> None:
        if p.operator not in ("==", "!="):
            raise ExpressionError(f"“{p.name()}” cannot be compared with “{p.operator}”; allowed: ==, !=")

    def host(self, p: _Primitive) -> Expression:
        if p.data != p.kind:
            example = "an address such as 10.0.0.1" if p.kind == "host" else "a network such as 10.0.0.0/24"
            raise ExpressionError(f"“{p.kind}” needs {example}")
        self.equal_only(p)
        mask = p.prefix
        if p.mask is not None:
            if p.mask[0] == "ether":
                raise ExpressionError("an Ethernet address is no mask of an IP address")
            mask = p.mask[1]
        if mask > 0xFFFFFFFF:
            raise ExpressionError(f"the mask of “{p.kind}” is out of range; allowed: 1 to 0xffffffff")
        tests: dict[str, Expression] = {
            side: Equal(f, mask, p.value & mask) if mask else True for side, f in _SIDES["host"].items()
        }
        found = self.both_sides(p, tests)
        return all_of(Has("network", 20), negate(found) if p.operator == "!=" else found)

    def ether(self, p: _Primitive) -> Expression:
        if p.data != "ether":
            raise ExpressionError("“ether host” needs an Ethernet address such as 0:1:2:3:4:5")
        self.equal_only(p)
        mask = (1 << 48) - 1
        if p.mask is not None:
            if p.mask[0] != "ether":
                raise ExpressionError("the mask of an Ethernet address is an Ethernet address")
            mask = p.mask[1]
        tests: dict[str, Expression] = {}
        for side, offset in (("src", 6), ("dst", 0)):
            parts = []
            for at, size in ((0, 4), (4, 2)):
                shift = 8 * (6 - at - size)
                part_mask, part = (n >> shift & ((1 << 8 * size) - 1) for n in (mask, p.value))
                if part_mask:
                    parts.append(Equal(Field("ether", offset + at, size), part_mask, part & part_mask))
            tests[side] = all_of(*parts)
        found = self.both_sides(p, tests)
        return all_of(Has("ether", 14), negate(found) if p.operator == "!=" else found)

    def port(self, p: _Primitive) -> Expression:
        if p.data not in ("int", "port", "range"):
            raise ExpressionError("“port” needs a number, a range such as 1000-2000, or a name")
        p.proto = _TCP_OR_UDP if p.proto is None else p.proto
        if p.proto not in (TCP, UDP, _TCP_OR_UDP):
            raise ExpressionError("“port” is of tcp or udp; other protocols have none here")
        number = [_Number(f, 0, 16) for f in _SIDES["port"].values()]
        if p.data == "range":
            found = self.port_range(p)
        else:
            tests = [self.compare(p, n) for n in number]
            found = self.both_sides(p, dict(zip(("src", "dst"), tests, strict=True)))
            if p.operator in ("!=", "<", "<="):
                found = negate(found)
        return all_of(_is_proto(p.proto), _first_fragment(), Has("transport", 4), found)

    def port_range(self, p: _Primitive) -> Expression:
        low, high = p.value, p.prefix
        self.equal_only(p)
        if low > high or high > 65535 or p.mask:
            raise ExpressionError(f"“{low}-{high}” is no range of ports within 0-65535 (nor has it a mask)")
        tests: dict[str, Expression] = {}
        for side, f in _SIDES["port"].items():
            above = True if low == 0 else Above(f, 0xFFFF, low - 1)
            tests[side] = all_of(above, negate(Above(f, 0xFFFF, high)) if high < 65535 else True)
        found = self.both_sides(p, tests)
        return negate(found) if p.operator == "!=" else found

    def proto(self, p: _Primitive) -> Expression:
        if p.data in ("int", "proto"):
            if p.proto is not None and p.proto != p.value:
                raise ExpressionError(f"“{p.name()}” names two protocols; keep one")
            return self.field(p, _PROTO)
        if p.data or p.proto is None or p.mask or p.operator != "==":
            raise ExpressionError("“proto” needs a protocol: a number or a name")
        return _is_proto(p.proto)

    def option(self, p: _Primitive) -> Expression:
        if p.data == "int" and p.value > 255:
            raise ExpressionError(f"“tcp opt {p.value}” is out of range; allowed: 0-255")
        if p.data not in ("int", "opt"):
            raise ExpressionError(f"“tcp opt” needs one of {', '.join(TCP_OPTIONS)}")
        if p.proto not in (None, TCP):
            raise ExpressionError("“opt” is of tcp")
        if p.operator != "==" or p.mask:
            raise ExpressionError("“tcp opt” takes no operator and no mask")
        flags = Field("transport", 13, 1)
        return all_of(_is_proto(TCP), _first_fragment(), _need(flags), Equal(flags, p.value, p.value))

    def other(self, p: _Primitive) -> Expression:
        if p.kind in ("frag", "unfrag", "ce") and (p.data or p.mask):
            raise ExpressionError(f"“{p.kind}” takes no value")
        match p.kind:
            case "frag":
                return _fragment()
            case "unfrag":
                return all_of(Has("network", 20), Equal(Field("network", 6, 2), 0x3FFF, 0))
            case "ce":
                return all_of(Has("network", 20), Equal(_ECN.field, 3, 3))
            case "ect" if not p.data:
                return all_of(Has("network", 20), negate(Equal(_ECN.field, 3, 0)))
            case "ect":
                return self.field(p, _ECN)
        assert p.number is not None
        return self.field(p, p.number)

    def field(self, p: _Primitive, number: _Number) -> Expression:
        if p.data not in ("int", "icmp type", "proto"):
            raise ExpressionError(f"“{p.name()}” needs a number from 0 to {(1 << number.bits) - 1}")
        found = self.compare(p, number)
        if p.operator in ("!=", "<", "<="):
            found = negate(found)
        whose = all_of(_is_proto(number.proto), _first_fragment()) if number.proto else True
        return all_of(whose, _need(number.field), found)

    def compare(self, p: _Primitive, number: _Number) -> Expression:
        """Whether the field is `==` or `>`, of which `!=`, `<` and `<=` are the negations."""
        full = (1 << number.bits) - 1
        if p.mask is not None and (p.mask[0] == "ether" or p.mask[1] > full):
            raise ExpressionError(f"the mask of “{p.name()}” is out of range; allowed: 1 to {full:#x}")
        mask = p.mask[1] if p.mask else full
        if p.operator in ("==", "!="):
            if p.value > full:
                raise ExpressionError(f"“{p.name()} {p.value}” is out of range; allowed: 0 to {full}")
            return Equal(number.field, mask << number.shift, (p.value & mask) << number.shift)
        limit = p.value - 1 if p.operator in ("<", ">=") else p.value
        if limit < 0 or limit >= mask:
            return limit < 0
        return Above(number.field, mask << number.shift, limit << number.shift)


def parse_expression(text: str) -> Expression:
    """The expression that a pattern means. Raises ExpressionError."""
    if text.strip() in ("-", "any", "all"):
        return True
    return _Parser(text).whole()
