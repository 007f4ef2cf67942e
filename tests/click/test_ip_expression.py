"""Patterns of IPFilter against a slow evaluator that is made together with each random pattern."""

from __future__ import annotations

import ctypes
import ipaddress
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeos.click import decision
from edgeos.click.ip_expression import ExpressionError, parse_expression

Packet = bytes  # from its IP header on, behind 14 bytes of Ethernet header
Holds = Callable[[Packet], bool]
Pattern = tuple[str, Holds]

ADDRESSES = ["10.0.0.1", "10.0.1.9", "10.1.0.1", "192.168.7.7"]
NETWORKS = ["10.0.0.0/24", "10.0.0.0/255.255.0.0", "10/8", "0.0.0.0/0", "192.168.7.7/32"]
PORTS = {"80": 80, "www": 80, "ssh": 22, "0x35": 53, "1024": 1024, "010": 8, "65535": 65535, "0": 0}
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
FIELDS: dict[str, tuple[int, Callable[[Packet], int]]] = {
    "ip vers": (15, lambda p: p[14] >> 4),
    "ip hl": (15, lambda p: p[14] & 15),
    "ip tos": (255, lambda p: p[15]),
    "dscp": (63, lambda p: p[15] >> 2),
    "ip len": (65535, lambda p: int.from_bytes(p[16:18], "big")),
    "ip id": (65535, lambda p: int.from_bytes(p[18:20], "big")),
    "ip ttl": (255, lambda p: p[22]),
    "ip proto": (255, lambda p: p[23]),
    "ip[6:2]": (65535, lambda p: int.from_bytes(p[20:22], "big")),
    "ip[13:3]": (0xFFFFFF, lambda p: int.from_bytes(p[27:30], "big")),
    "ip[12:4]": (0xFFFFFFFF, lambda p: int.from_bytes(p[26:30], "big")),
}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}


def has_ip(p: Packet) -> bool:
    return len(p) >= 34


def transport(p: Packet) -> bytes:
    return p[14 + (p[14] & 15) * 4 :]


def first(p: Packet, *protocols: int) -> bool:
    return has_ip(p) and (not protocols or p[23] in protocols) and int.from_bytes(p[20:22], "big") & 0x1FFF == 0


def random_host(r: random.Random) -> Pattern:
    side, both = r.choice([("src", any), ("dst", any), ("src or dst", any), ("src and dst", all), ("", any)])
    word, network = "host", r.choice(ADDRESSES)
    if r.random() < 0.5:
        word, network = r.choice(["net", ""]), r.choice(NETWORKS)
    address, _, mask = network.partition("/")
    address += ".0.0.0" if address == "10" else ""
    net = ipaddress.ip_network(f"{address}/{mask or 32}", strict=False)
    operator = r.choice(["", "==", "!="]) if side or word else ""
    offsets = [26] * ("dst" not in side or "src" in side) + [30] * ("src" not in side or "dst" in side)

    def holds(p: Packet) -> bool:
        found = has_ip(p) and both(ipaddress.ip_address(p[at : at + 4]) in net for at in offsets)
        return has_ip(p) and found != (operator == "!=")

    return " ".join(filter(None, [side, word, operator, network])), holds


def random_port(r: random.Random) -> Pattern:
    side = r.choice(["src", "dst", "", "src or dst", "src and dst"])
    name, protocols = r.choice([("tcp", (6,)), ("udp", (17,)), ("", (6, 17))])
    operator = r.choice(list(COMPARISONS))
    text, value = r.choice(list(PORTS.items()))
    joined = all if side == "src and dst" else any
    at = [0] * ("dst" not in side or "src" in side) + [2] * ("src" not in side or "dst" in side)
    plain = {"<": ">=", "<=": ">", "!=": "=="}.get(operator, operator)

    def holds(p: Packet) -> bool:
        if not first(p, *protocols) or len(transport(p)) < 4:
            return False
        ports = [int.from_bytes(transport(p)[o : o + 2], "big") for o in at]
        return joined(COMPARISONS[plain](port, value) for port in ports) != (plain != operator)

    return " ".join(filter(None, [side, name, "port", operator, text])), holds


def random_field(r: random.Random) -> Pattern:
    name, (largest, read) = r.choice(list(FIELDS.items()))
    mask = r.randint(1, largest) if r.random() < 0.4 else largest
    operator = r.choice(list(COMPARISONS))
    value = r.choice([0, 1, largest, largest // 2, r.randint(0, largest), 4, 5, 6, 64])
    if value > largest:
        value = largest
    same = operator in ("", "=", "==", "!=")
    text = f"{name} {f'& {mask:#x}' if mask != largest else ''} {operator} {value}"
    return text, lambda p: has_ip(p) and COMPARISONS[operator](read(p) & mask, value & mask if same else value)


def random_other(r: random.Random) -> Pattern:
    flag = r.choice(list(FLAGS))

    def tcp_flag(p: Packet) -> bool:
        return first(p, 6) and len(transport(p)) >= 14 and bool(transport(p)[13] & FLAGS[flag])

    return r.choice(
        [
            ("tcp", lambda p: has_ip(p) and p[23] == 6),
            ("ip proto udp", lambda p: has_ip(p) and p[23] == 17),
            ("icmp", lambda p: has_ip(p) and p[23] == 1),
            ("ip frag", lambda p: has_ip(p) and bool(int.from_bytes(p[20:22], "big") & 0x3FFF)),
            ("unfrag", lambda p: has_ip(p) and not int.from_bytes(p[20:22], "big") & 0x3FFF),
            ("ip ect", lambda p: has_ip(p) and bool(p[15] & 3)),
            ("ip ce", lambda p: has_ip(p) and p[15] & 3 == 3),
            ("icmp type echo", lambda p: first(p, 1) and len(transport(p)) >= 1 and transport(p)[0] == 8),
            ("icmp type != 8", lambda p: first(p, 1) and len(transport(p)) >= 1 and transport(p)[0] != 8),
            (f"tcp opt {flag}", tcp_flag),
            (flag, tcp_flag),
            (
                "tcp win > 100",
                lambda p: first(p, 6) and len(transport(p)) >= 16 and transport(p)[14:16] > b"\0\x64",
            ),
            ("transp[1] & 128 != 0", lambda p: first(p) and len(transport(p)) >= 2 and transport(p)[1] >= 128),
            ("src port 20-90", lambda p: first(p, 6, 17) and len(transport(p)) >= 4 and in_range(transport(p))),
            ("true", lambda p: True),
            ("false", lambda p: False),
        ]
    )


def in_range(header: bytes) -> bool:
    return 20 <= int.from_bytes(header[:2], "big") <= 90


def random_pattern(r: random.Random, depth: int) -> Pattern:
    kind = r.random()
    if depth == 0 or kind < 0.25:
        return r.choice([random_host, random_port, random_field, random_other])(r)
    (a, a_holds), (b, b_holds), (c, c_holds) = (random_pattern(r, depth - 1) for _ in range(3))
    if kind < 0.5:
        joined = r.choice(["and", "&&", ""])
        return f"({a}) {joined} ({b})", lambda p: a_holds(p) and b_holds(p)
    if kind < 0.75:
        return f"({a}) {r.choice(['or', '||'])} ({b})", lambda p: a_holds(p) or b_holds(p)
    if kind < 0.9:
        return f"{r.choice(['not', '!', '! ! not'])} ({a})", lambda p: not a_holds(p)
    return f"({a} ? {b} : {c})", lambda p: b_holds(p) if a_holds(p) else c_holds(p)


def random_packet(r: random.Random) -> Packet:
    protocol = r.choice([1, 6, 17, 47])
    options = r.choice([0, 0, 4, 40])
    ports = [r.choice(list(PORTS.values())) for _ in range(2)]
    header = struct.pack(
        ">BBHHHBBH4s4s",
        r.choice([4, 4, 4, 6]) << 4 | (20 + options) // 4,
        r.choice([0, 1, 3, 0x28, r.randrange(256)]),
        r.choice([40, r.randrange(65536)]),
        r.randrange(65536),
        r.choice([0, 0, 0, 0x4000, 0x2000, 0x2004, 4]),
        r.choice([1, 64, 255]),
        protocol,
        0,
        *(ipaddress.ip_address(r.choice(ADDRESSES)).packed for _ in range(2)),
    )
    body = struct.pack(">HHIIBBH", *ports, 0, 0, 0x50, r.randrange(256), r.randrange(65536))
    if protocol == 1:
        body = bytes([r.choice([0, 8, 3])]) + body[1:]
    packet = r.randbytes(14) + header + r.randbytes(options) + body
    return packet if r.random() < 0.7 else packet[: r.randrange(14, len(packet) + 1)]


def holds_for(packet: Packet) -> Callable[[decision.Test], bool]:
    start = 14 + (packet[14] & 15) * 4 if len(packet) > 14 else len(packet)
    bases = {"network": packet[14:], "transport": packet[start:], "ether": packet}

    def holds(test: decision.Test) -> bool:
        if isinstance(test, decision.Has):
            return len(bases[test.base]) >= test.length
        field = test.field
        data = bases[field.base][field.offset : field.offset + field.size]
        assert len(data) == field.size, "a field is read without asking whether it is there"
        value = int.from_bytes(data, "big") & test.mask
        return value == test.value if isinstance(test, decision.Equal) else value > test.value

    return holds


def outcome(patterns: list[Pattern], packet: Packet) -> int:
    return next((i for i, (_, holds) in enumerate(patterns) if holds(packet)), decision.DROP)


def compiled(patterns: list[Pattern]) -> decision.Graph:
    return decision.build([(parse_expression(text), index) for index, (text, _) in enumerate(patterns)])


@pytest.mark.parametrize("seed", range(60))
def test_random_patterns_decide_as_the_reference(seed: int) -> None:
    r = random.Random(seed)
    patterns = [random_pattern(r, 3) for _ in range(r.randint(1, 6))]
    graph = compiled(patterns)
    for _ in range(200):
        packet = random_packet(r)
        assert graph.decide(holds_for(packet)) == outcome(patterns, packet), ([t for t, _ in patterns], packet.hex())


PRELUDE = """
#include <stdint.h>
#include <string.h>
typedef struct { const uint8_t *network, *transport, *ether, *end; } click_packet;
static uint32_t click_after(const click_packet *p, const uint8_t *at) { return (uint32_t)(p->end - at); }
static uint32_t click_get16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t click_get32(const uint8_t *p) { return click_get16(p) << 16 | click_get16(p + 2); }
static uint32_t click_raw16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static uint32_t click_raw32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
"""
BASES = {base: f"p->{base}" for base in ("network", "transport", "ether")}


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler named cc")
def test_the_c_code_decides_as_the_reference(tmp_path: Path) -> None:
    r = random.Random(5)
    programs = [[random_pattern(r, 3) for _ in range(4)] for _ in range(30)]
    code = [decision.to_c(compiled(patterns), f"program{i}", BASES) for i, patterns in enumerate(programs)]
    entries = "".join(
        f"int entry{i}(const uint8_t *d, uint32_t n, uint32_t t) {{\n"
        f"  click_packet p = {{d + 14, d + t, d, d + n}}; return (int)program{i}(&p); }}\n"
        for i in range(len(programs))
    )
    source = tmp_path / "programs.c"
    source.write_text(PRELUDE + "".join(code) + entries)
    library = tmp_path / "programs.so"
    flags = ["-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    subprocess.run(["cc", *flags, "-o", library, source], check=True, timeout=60)
    loaded = ctypes.CDLL(str(library))
    for i, patterns in enumerate(programs):
        for _ in range(100):
            packet = random_packet(r)
            start = min(14 + (packet[14] & 15) * 4, len(packet)) if len(packet) > 14 else len(packet)
            found = getattr(loaded, f"entry{i}")(packet, len(packet), start)
            assert found == outcome(patterns, packet), ([t for t, _ in patterns], packet.hex())


def test_no_test_is_asked_twice_in_a_group() -> None:
    graph = decision.build([(parse_expression(f"tcp dst port {n}"), n) for n in range(20)])
    assert sum(1 for node in graph.nodes if node.test == decision.Has("network", 20)) == 1
    assert len(graph.nodes) == 4 + 20


def test_many_rules_make_a_graph_that_grows_with_them() -> None:
    rules = [f"src 10.{n}.0.0/16 and dst port {n % 7}" for n in range(256)]
    graph = decision.build([(parse_expression(rule), 0) for rule in rules])
    assert len(graph.nodes) < 40 * len(rules)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("src port 80 or 81", "src port 80 or src port 81"),
        ("10.0.0.0/24 and fin ack", "(src or dst net 10.0.0.0/24) and tcp opt fin and tcp opt ack"),
        ("dst tcp port 8000 or 8080", "tcp dst port == 8000 || tcp dst port == 8080"),
        ("www", "src or dst port 80"),
        ("net 10.0.0.0 mask 255.255.255.0", "10.0.0.0/24"),
        ("icmp type echo or timeexceeded", "icmp type 8 or icmp type 11"),
        ("tcpudp port >= 1024", "port > 1023"),
        ("ip[9] = 6", "tcp"),
        ("ip[4,5] 7", "ip id 7"),
        ("-", "true"),
        ("src 10.0.0.1 or 10.0.0.2", "src host 10.0.0.1 or src host 10.0.0.2"),
    ],
)
def test_short_forms(text: str, same: str) -> None:
    assert parse_expression(text) == parse_expression(same)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "an expression is missing at the end"),
        ("tcp and", "an expression is missing"),
        ("or tcp", "missing before “or”"),
        ("(tcp", "“)” is missing"),
        ("tcp)", "“)” cannot follow"),
        ("tcp ? udp", "“:” is missing"),
        ("blue", "“blue” is no pattern"),
        ("80", "name a header field"),
        ("echo", "ambiguous; write “port echo” or “icmp type echo”"),
        ("src dst port 5", "names a side twice"),
        ("tcp udp port 5", "two protocols"),
        ("icmp port 5", "of tcp or udp"),
        ("port 65536", "out of range; allowed: 0 to 65535"),
        ("port 9-5", "no range of ports"),
        ("ip ttl 256", "out of range"),
        ("ip ttl & 0x100 1", "mask of “ip ttl” is out of range"),
        ("ip ttl & 0 1", "mask of zero"),
        ("ip ttl <", "a value is missing behind “<”"),
        ("host 10.0.0.0/24", "“host” needs an address"),
        ("net 10.0.0.1", "“net” needs a network"),
        ("src host < 10.0.0.1", "allowed: ==, !="),
        ("ip[3:2", "“]” is missing"),
        ("ip[3:2] 5", "aligned word"),
        ("ip[x] 5", "neither"),
        ("tcp opt != syn", "no operator"),
        ("ip frag 5", "takes no value"),
        ("(" * 10000 + "tcp" + ")" * 10000, "words"),
        ("(" * 1000 + "tcp" + ")" * 1000, "nest deeper"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(error)):
        parse_expression(text)


def test_noise_is_an_error_or_a_pattern() -> None:
    r = random.Random(9)
    words = ["src", "dst", "port", "tcp", "ip", "ether", "type", "echo", "frag", "10.0.0.1", "10/8", "5", "0x6"]
    words += ["[", "]", "(", ")", "?", ":", "&", "|", "&&", "||", "<", ">=", "!=", "not", "and", "or"]
    for _ in range(3000):
        text = " ".join(r.choice(words) for _ in range(r.randint(1, 10)))
        try:
            expression = parse_expression(text)
        except ExpressionError:
            continue
        decision.build([(expression, 0)]).decide(holds_for(random_packet(r)))
