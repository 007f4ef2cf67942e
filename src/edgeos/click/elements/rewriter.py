"""Translation of addresses and ports: rewriters with tables of mappings, and mappers that choose among patterns."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from edgeos.click.arguments import Parameter, keyword, required, rest
from edgeos.click.element import Element, Read
from edgeos.click.kinds import (
    ArgumentError,
    Boolean,
    ElementName,
    IPAddress,
    IPPrefix,
    Kind,
    Port,
    Seconds,
    Unsigned,
    Words,
    bad,
    raw16,
    raw32,
)

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
OUTPUT = Unsigned(255)
CAPACITY = Unsigned(65536, 1)
CAPACITY_DEFAULT = 4096
CHOICES = {"": 0, "#": 1, "?": 2}


@dataclass(frozen=True)
class Pattern:
    """What a new flow becomes; None: as it is. `choice` says how a port, or an address, is taken from its range."""

    source: tuple[int, int] | None
    source_port: tuple[int, int] | None
    target: int | None
    target_port: int | None
    choice: str
    outputs: tuple[int, int]

    def to_c(self) -> str:
        """A click_pattern."""
        fields: dict[str, object] = {
            "choice": CHOICES[self.choice],
            "output": self.outputs[0],
            "reply_output": self.outputs[1],
        }
        if self.source is not None:
            fields |= {"has_saddr": 1, "saddr": f"{self.source[0]}u", "saddr_last": f"{self.source[1]}u"}
        if self.source_port is not None:
            fields |= {"has_sport": 1, "sport": self.source_port[0], "sport_last": self.source_port[1]}
        if self.target is not None:
            fields |= {"has_daddr": 1, "daddr": f"0x{raw32(self.target):08x}u"}
        if self.target_port is not None:
            fields |= {"has_dport": 1, "dport": raw16(self.target_port)}
        return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"


@dataclass(frozen=True)
class Spec:
    """What an input does with a packet of no mapping: "drop", "pass", "keep", "pattern" or "map", by a mapper."""

    does: str
    outputs: tuple[int, ...] = ()
    pattern: Pattern | None = None
    mapper: str = ""


def _address(word: str) -> int | None:
    return None if word == "-" else int(IPAddress().parse(word))


def _source_port(word: str) -> tuple[tuple[int, int] | None, str]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?([#?]?)", word, re.ASCII)
    if match is None:
        raise bad(word, "a port, a range such as 1024-65535 (# behind it: in turn, ?: by chance), or -")
    low, high = Port().parse(match[1]), Port().parse(match[2] or match[1])
    if low > high:
        raise bad(word, "a range whose first port is not above its last")
    return (low, high), match[3]


def _outputs(words: Sequence[str]) -> tuple[int, int]:
    return OUTPUT.parse(words[0]), OUTPUT.parse(words[1])


def flow_pattern(words: Sequence[str]) -> Pattern:
    """`SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT`."""
    if len(words) != 6:
        raise bad(" ".join(words), "a pattern: SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT, with - for what stays")
    source = _address(words[0])
    ports, choice = (None, "") if words[1] == "-" else _source_port(words[1])
    target_port = None if words[3] == "-" else Port().parse(words[3])
    both = None if source is None else (source, source)
    return Pattern(both, ports, _address(words[2]), target_port, choice, _outputs(words[4:]))


def address_pattern(words: Sequence[str]) -> Pattern:
    """`SADDR[-SADDR2] - FOUTPUT ROUTPUT`."""
    if len(words) != 4 or words[1] != "-":
        raise bad(" ".join(words), "a pattern: SADDR[-SADDR2] - FOUTPUT ROUTPUT")
    word = words[0].rstrip("#?")
    choice = words[0][len(word) :] or "?"
    if choice not in CHOICES:
        raise bad(words[0], "an address, a range or a prefix, with # behind it where they are taken in turn")
    if word == "-":
        return Pattern(None, None, None, None, "", _outputs(words[2:]))
    if "/" in word:
        prefix = IPPrefix().parse(word)
        first = prefix.address & prefix.mask
        last = first | ~prefix.mask & 0xFFFFFFFF
        if prefix.length < 31:  # neither the network nor all its hosts
            first, last = first + 1, last - 1
    else:
        low, _, high = word.partition("-")
        first, last = int(IPAddress().parse(low)), int(IPAddress().parse(high or low))
    if first > last:
        raise bad(words[0], "a range whose first address is not above its last")
    return Pattern((first, last), None, None, None, choice, _outputs(words[2:]))


class SpecKind(Kind):
    """An input's specification."""

    def __init__(self, addresses: bool = False) -> None:
        object.__setattr__(self, "_addresses", addresses)

    _addresses: bool

    @property
    def allowed(self) -> str:
        return "drop, pass OUTPUT, keep FOUTPUT ROUTPUT, pattern …, or the name of a mapper"

    @property
    def usage(self) -> str:
        return "inputspec"

    def parse(self, text: str) -> Spec:
        words = text.split()
        match words:
            case ["drop"] | ["discard"]:
                return Spec("drop")
            case ["pass"]:
                return Spec("pass", (0,))
            case ["pass", output]:
                return Spec("pass", (OUTPUT.parse(output),))
            case ["keep", forward, reply]:
                return Spec("keep", _outputs((forward, reply)))
            case ["pattern", *fields]:
                pattern = address_pattern(fields) if self._addresses else flow_pattern(fields)
                return Spec("pattern", pattern.outputs, pattern)
            case [name] if name not in ("keep", "pattern"):
                try:
                    return Spec("map", mapper=ElementName().parse(name))
                except ArgumentError:
                    raise bad(text, self.allowed) from None
            case _:
                raise bad(text, self.allowed)


class PatternKind(Kind):
    """A mapper's pattern, with a number behind it where the mapper wants one."""

    def __init__(self, numbered: bool) -> None:
        object.__setattr__(self, "_numbered", numbered)

    _numbered: bool

    @property
    def allowed(self) -> str:
        return "SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT" + (" ID" if self._numbered else "")

    @property
    def usage(self) -> str:
        return "pattern"

    def parse(self, text: str) -> tuple[Pattern, int]:
        words = text.split()
        if self._numbered:
            if len(words) != 7:
                raise bad(text, self.allowed)
            return flow_pattern(words[:-1]), Unsigned().parse(words[-1])
        return flow_pattern(words), 0


class Mapper(Element):
    """Chooses among patterns for a rewriter: `ME(choose)(saddr, attempt)` is the place of one."""

    ports = ""

    def patterns(self) -> list[Pattern]:
        """The patterns in their order."""
        return [pattern for pattern, _ in self["PATTERN"]]

    def check(self) -> None:
        if not self["PATTERN"]:
            raise self.error("found no pattern; allowed: one or more")

    def defines(self) -> dict[str, str | int]:
        return {"PATTERNS": len(self["PATTERN"])}


class RoundRobinIPMapper(Mapper):
    """Gives a rewriter its PATTERNs in turn; one by which no mapping can be made is passed over."""

    ports = "0/0"
    parameters = (rest("PATTERN", PatternKind(numbered=False)),)


class SourceIPHashMapper(Mapper):
    """Gives a rewriter one of its PATTERNs, by the packet's source address and consistent hashing.

    The first argument is two numbers: points on the circle for each pattern, and a seed. The number behind each pattern
    stands for its server: an address keeps its server, whatever others come or go.
    """

    ports = "0/0"
    parameters = (required("NNODES_SEED", Words(Unsigned())), rest("PATTERN", PatternKind(numbered=True)))

    def check(self) -> None:
        super().check()
        numbers = self["NNODES_SEED"]
        if len(numbers) != 2 or not 1 <= numbers[0] <= 1000:
            raise self.error("found other than two numbers; allowed: 1 to 1000 points, and a seed", "NNODES_SEED")
        if len(self["PATTERN"]) * numbers[0] > 20_000:
            raise self.error("found more than 20000 points in all; allowed: fewer points for each", "NNODES_SEED")

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"POINTS": len(self["PATTERN"]) * self["NNODES_SEED"][0]}

    def code(self) -> str:
        nodes, seed = self["NNODES_SEED"]
        points = sorted(
            (int.from_bytes(hashlib.sha256(f"{seed} {server} {node}".encode()).digest()[:4], "big"), index)
            for index, (_, server) in enumerate(self["PATTERN"])
            for node in range(nodes)
        )
        places = ", ".join(f"{place}u" for place, _ in points)
        owners = ", ".join(str(index) for _, index in points)
        return f"static const uint32_t ME(places)[] = {{{places}}};\nstatic const uint16_t ME(owners)[] = {{{owners}}};"


def _time(name: str, default_ns: int) -> Parameter:
    return keyword(name, Seconds(max=10**9 * SECOND_NS), default_ns)


class Rewriter(Element):
    """An element with a table of mappings; `times` gives the constants of click_nat_times in their order."""

    ports = ""
    processing = "h/h"
    headers = ("nat.h",)

    def specs(self) -> Sequence[Spec]:
        """One for each input."""
        specs: Sequence[Spec] = self["INPUTSPEC"]
        return specs

    def mapper(self, index: int) -> Mapper:
        """The mapper that an input names."""
        return self.find(self.specs()[index].mapper, Mapper, ("INPUTSPEC", index))

    def check(self) -> None:
        specs = self.specs()
        if len(specs) != self.n_inputs:
            raise self.error(f"found {len(specs)} inputspecs for {self.n_inputs} connected inputs")
        for index, spec in enumerate(specs):
            outputs = set(spec.outputs)
            if spec.does == "map":
                for pattern in self.mapper(index).patterns():
                    outputs |= set(pattern.outputs)
            if outputs and max(outputs) >= self.n_outputs:
                raise self.error(f"found output {max(outputs)}; connected: {self.n_outputs}", ("INPUTSPEC", index))

    def times(self) -> list[int]:
        """Timeouts and guarantees of TCP and UDP in nanoseconds."""
        udp = self["UDP_TIMEOUT"]
        streaming = self["UDP_STREAMING_TIMEOUT"]
        return [
            self["TCP_TIMEOUT"],
            self["TCP_DONE_TIMEOUT"],
            self["TCP_NODATA_TIMEOUT"],
            self["TCP_GUARANTEE"],
            udp,
            udp if streaming is None else streaming,
            self["UDP_GUARANTEE"],
        ]

    def defines(self) -> dict[str, str | int]:
        capacity = self["MAPPING_CAPACITY"]
        annotate = self["DST_ANNO"] if any(p.name == "DST_ANNO" for p in self.parameters) else True
        return {"CAPACITY": f"{capacity}u", "BUCKETS": f"{1 << capacity.bit_length()}u", "ANNOTATE": int(annotate)}

    def row(self, pattern: Pattern) -> Pattern:
        """A pattern as it counts here."""
        return pattern

    def code(self) -> str:
        """Patterns with their state, and ME(create): the mapping that an input makes, or what it does instead."""
        patterns: list[Pattern] = []
        cases: list[str] = []
        for index, spec in enumerate(self.specs()):
            cases.append(f"    case {index}:")
            if spec.does == "keep":
                cases.append(f"        return ME(keep)(flow, protocol, {spec.outputs[0]}, {spec.outputs[1]});")
            elif spec.pattern is not None:
                cases.append(f"        return ME(by_pattern)({len(patterns)}, flow, protocol);")
                patterns.append(spec.pattern)
            elif spec.does == "map":
                mapper = self.mapper(index)
                count = len(mapper.patterns())
                cases.append(f"        for (uint32_t attempt = 0; attempt < {count}; attempt++) {{")
                cases.append(f"            const uint32_t place = {mapper.symbol}_choose(flow->saddr, attempt);")
                cases.append(
                    f"            const uint32_t key = ME(by_pattern)({len(patterns)} + place, flow, protocol);"
                )
                cases.append("            if (key) return key;")
                cases.append("        }")
                cases.append("        return 0;")
                patterns += mapper.patterns()
            else:
                cases.append("        return 0;")
        passes = [
            f"    if (input == {i}) return {s.outputs[0]};" for i, s in enumerate(self.specs()) if s.does == "pass"
        ]
        times = ", ".join(f"{value}ull" for value in self.times())
        lines = [
            f"static const click_nat_times ME(times) = {{{times}}};",
            "static click_mapping ME(mappings)[CAPACITY];",
            "static uint32_t ME(buckets)[BUCKETS];",
            "static click_nat ME(nat) = {.mappings = ME(mappings), .buckets = ME(buckets), .capacity = CAPACITY,",
            "                            .bucket_mask = BUCKETS - 1, .times = &ME(times)};",
        ]
        if patterns:
            rows = ", ".join(self.row(pattern).to_c() for pattern in patterns)
            lines.append(f"static const click_pattern ME(patterns)[] = {{{rows}}};")
            lines.append(f"static uint32_t ME(cursors)[{len(patterns)}];")
            lines.append("static uint32_t ME(by_pattern)(uint32_t index, const click_flow *flow, uint8_t protocol) {")
            lines.append(
                f"    return {self.adder}(&ME(nat), &ME(patterns)[index], &ME(cursors)[index], flow, protocol);"
            )
            lines.append("}")
        lines += [
            "static uint32_t ME(keep)(const click_flow *flow, uint8_t protocol, uint8_t output, uint8_t reply) {",
            f"    const click_flow to = {self.kept};",
            "    return click_nat_add(&ME(nat), flow, &to, protocol, output, reply);",
            "}",
            "static uint32_t ME(create)(uint32_t input, const click_flow *flow, uint8_t protocol) {",
            "    (void)flow, (void)protocol, (void)ME(keep);",
            "    switch (input) {",
            *cases,
            "    }",
            "    return 0;",
            "}",
            "static inline int32_t ME(pass)(uint32_t input) {",
            "    (void)input;",
            *passes,
            "    return -1;",
            "}",
        ]
        return "\n".join(lines)

    adder: ClassVar[str] = "click_nat_add_pattern"
    kept: ClassVar[str] = "*flow"


SPECS = rest("INPUTSPEC", SpecKind())
COMMON = (
    keyword("REAP_INTERVAL", Seconds(max=10**9 * SECOND_NS), 900 * SECOND_NS),
    keyword("MAPPING_CAPACITY", CAPACITY, CAPACITY_DEFAULT),
)
DST_ANNO = keyword("DST_ANNO", Boolean(), True)
TCP_TIMES = (
    _time("TCP_TIMEOUT", DAY_NS),
    _time("TCP_DONE_TIMEOUT", 4 * MINUTE_NS),
    _time("TCP_NODATA_TIMEOUT", 5 * MINUTE_NS),
    _time("TCP_GUARANTEE", 5 * SECOND_NS),
)
UDP_TIMES = (
    _time("UDP_TIMEOUT", 5 * MINUTE_NS),
    keyword("UDP_STREAMING_TIMEOUT", Seconds(max=10**9 * SECOND_NS)),
    _time("UDP_GUARANTEE", 5 * SECOND_NS),
)
SIMPLE_TIMES = (_time("TIMEOUT", 5 * MINUTE_NS), _time("GUARANTEE", 5 * SECOND_NS))
SIZES = (Read("table_size"), Read("size"), Read("capacity"), Read("mapping_failures"))


class IPRewriter(Rewriter):
    """Translates addresses and ports of TCP and UDP, with a mapping for each connection.

    A packet that has a mapping is rewritten by it. Else the INPUTSPEC of its input says what happens: `drop`; `pass
    OUTPUT`; `keep FOUTPUT ROUTPUT`, a mapping that changes nothing; `pattern SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT`,
    a mapping by which packets leave by FOUTPUT with these values (- for those that stay) and answers, as they should
    look, by ROUTPUT; or the name of a mapper. SPORT may be a range, 1024-65535, of which the packet's own port is
    taken where it is free; with # behind it, ports in turn; with ?, by chance. Other packets, and fragments but the
    first, are dropped, unless their input passes. MAPPING_CAPACITY (4096, at most 65536): in a full table the mapping
    used longest ago gives way, once its guarantee is over.
    """

    ports = "1-/1-"
    parameters = (SPECS, *TCP_TIMES, *UDP_TIMES, *COMMON, DST_ANNO)
    handlers = (*SIZES, Read("tcp_table"), Read("udp_table"))

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"TAKES(protocol)": "true"}


class TCPRewriter(Rewriter):
    """IPRewriter for TCP alone."""

    ports = "1-/1-"
    parameters = (SPECS, *TCP_TIMES, *COMMON, DST_ANNO)
    handlers = (*SIZES, Read("table"))
    template = "ip_rewriter.h"

    def times(self) -> list[int]:
        return [*(self[parameter.name] for parameter in TCP_TIMES), 0, 0, 0]

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"TAKES(protocol)": "((protocol) == IP_TCP)"}


class UDPRewriter(Rewriter):
    """IPRewriter for UDP alone, with TIMEOUT, STREAMING_TIMEOUT and GUARANTEE."""

    ports = "1-/1-"
    parameters = (SPECS, *SIMPLE_TIMES, keyword("STREAMING_TIMEOUT", Seconds()), *COMMON, DST_ANNO)
    handlers = (*SIZES, Read("table"))
    template = "ip_rewriter.h"

    def times(self) -> list[int]:
        streaming = self["STREAMING_TIMEOUT"]
        timeout = self["TIMEOUT"]
        return [0, 0, 0, 0, timeout, timeout if streaming is None else streaming, self["GUARANTEE"]]

    def defines(self) -> dict[str, str | int]:
        return super().defines() | {"TAKES(protocol)": "((protocol) == IP_UDP)"}


class ICMPPingRewriter(Rewriter):
    """Translates addresses and identifiers of echo requests and their answers; patterns are those of IPRewriter.

    SPORT is the range of identifiers; DPORT says nothing. Answers that nobody asked for are dropped, unless their input
    passes.
    """

    ports = "1-/1-"
    parameters = (SPECS, *SIMPLE_TIMES, *COMMON, DST_ANNO)
    handlers = (*SIZES, Read("table"))

    def row(self, pattern: Pattern) -> Pattern:
        return replace(pattern, target_port=None)

    def times(self) -> list[int]:
        return [0, 0, 0, 0, self["TIMEOUT"], self["TIMEOUT"], self["GUARANTEE"]]


class IPAddrRewriter(Rewriter):
    """Translates addresses of hosts, whatever they send, each to an address of its own.

    INPUTSPECs are those of IPRewriter, but for `pattern SADDR[-SADDR2] - FOUTPUT ROUTPUT`, whose first part may also be
    a prefix; addresses are taken by chance, with # behind it in turn.
    """

    ports = "1-/1-"
    parameters = (rest("INPUTSPEC", SpecKind(addresses=True)), *SIMPLE_TIMES, *COMMON)
    handlers = (*SIZES, Read("table"))
    adder = "click_nat_add_address"
    kept = "{flow->saddr, 0, 0, 0}"

    def times(self) -> list[int]:
        return [0, 0, 0, 0, self["TIMEOUT"], self["TIMEOUT"], self["GUARANTEE"]]

    def check(self) -> None:
        for index, spec in enumerate(self.specs()):
            if spec.does == "map":
                raise self.error("found a mapper, whose patterns have ports; allowed: a pattern", ("INPUTSPEC", index))
        super().check()


class ICMPRewriter(Element):
    """Rewrites ICMP errors about packets that one of MAPS, rewriters, has translated, as if about the packets before.

    Errors about others and other packets leave by output 1, or are dropped.
    """

    ports = "1/1-2"
    processing = "a/ah"
    parameters = (required("MAPS", Words(ElementName())), DST_ANNO)
    action = True
    handlers = (Read("count"),)
    headers = ("nat.h",)

    def maps(self) -> list[Rewriter]:
        """The rewriters that are asked."""
        return [self.find(name, Rewriter, "MAPS") for name in self["MAPS"]]

    def check(self) -> None:
        self.maps()

    def code(self) -> str:
        lines = ["static uint32_t ME(find)(const click_quoted *quoted, click_nat **nat) {", "    uint32_t key;"]
        for rewriter in self.maps():
            asks = (
                "address"
                if isinstance(rewriter, IPAddrRewriter)
                else "ping"
                if isinstance(rewriter, ICMPPingRewriter)
                else "flow"
            )
            lines.append(f"    key = click_quoted_{asks}(quoted, &{rewriter.symbol}_nat);")
            lines.append("    if (key) {")
            lines.append(f"        *nat = &{rewriter.symbol}_nat;")
            lines.append("        return key;")
            lines.append("    }")
        return "\n".join([*lines, "    return 0;", "}"])
