"""The program that chooses packets for an AF_XDP port, run by the kernel on crafted packets, beside a reference."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privileges import needs_xdp

from edgeos import _native
from edgeos.match import Match, parse_match
from edgeos.native_rule import native_rule

PASS, REDIRECT = 2, 4
PROG_LOAD, PROG_TEST_RUN, TYPE_XDP = 5, 10, 6
SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), -1)
INSTRUCTIONS_MAX = 2048  # of the largest program; the kernel allows 4,096 without privileges

libc = ctypes.CDLL(None, use_errno=True)

pytestmark = [pytest.mark.privileged, needs_xdp]


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, 144)
    result = libc.syscall(SYS_BPF, command, buffer, 144)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result, buffer.raw


def rules_of(texts: list[str]) -> list[_native.Rule]:
    return [native_rule(parse_match(text)) for text in texts]


@contextmanager
def loaded(texts: list[str], code: bytes | None = None) -> Iterator[int]:
    program = ctypes.create_string_buffer(code or _native.xdp_program(rules_of(texts)))
    words = (len(program) - 1) // 8
    assert words <= INSTRUCTIONS_MAX
    license_ = ctypes.create_string_buffer(b"unspecified")
    attributes = struct.pack("=IIQQ", TYPE_XDP, words, ctypes.addressof(program), ctypes.addressof(license_))
    fd, _ = bpf(PROG_LOAD, attributes)
    try:
        yield fd
    finally:
        os.close(fd)


def verdict(fd: int, packet: bytes) -> int:
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = struct.pack("=IIIIQQII", fd, 0, len(packet), 0, ctypes.addressof(data), 0, 1, 0)
    _, answer = bpf(PROG_TEST_RUN, attributes)
    return int(struct.unpack_from("=I", answer, 4)[0])


@dataclass(frozen=True)
class Seen:
    """What a packet says, read in another way than the program does."""

    vlan: int | None
    ethertype: int
    version: int = 0
    protocol: int = 0
    src: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    dst: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    ports: tuple[int, int] | None = None


def read(packet: bytes) -> Seen | None:
    if len(packet) < 14:
        return None
    (ethertype,), rest, vlan = struct.unpack(">H", packet[12:14]), packet[14:], None
    for _ in range(2):
        if ethertype not in (0x8100, 0x88A8) or len(rest) < 4:
            break
        tag, ethertype = struct.unpack(">HH", rest[:4])
        vlan, rest = tag & 0xFFF if vlan is None else vlan, rest[4:]
    seen = Seen(vlan, ethertype)
    if ethertype == 0x0800:
        return read_ipv4(rest, seen)
    return read_ipv6(rest, seen) if ethertype == 0x86DD else seen


def read_ipv4(data: bytes, seen: Seen) -> Seen:
    if len(data) < 20 or data[0] >> 4 != 4 or (data[0] & 15) < 5 or len(data) < (data[0] & 15) * 4:
        return seen
    src, dst = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    later = struct.unpack(">H", data[6:8])[0] & 0x1FFF
    ports = None if later else read_ports(data[9], data[(data[0] & 15) * 4 :])
    return Seen(seen.vlan, seen.ethertype, 4, data[9], src, dst, ports)


def read_ipv6(data: bytes, seen: Seen) -> Seen:
    if len(data) < 40 or data[0] >> 4 != 6:
        return seen
    src, dst = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    protocol, data, later = data[6], data[40:], False
    for _ in range(4):
        if protocol not in (0, 43, 44, 51, 60) or len(data) < 8:
            break
        size = 8 if protocol == 44 else (data[1] + 2) * 4 if protocol == 51 else (data[1] + 1) * 8
        if len(data) < size:
            break
        later = protocol == 44 and struct.unpack(">H", data[2:4])[0] & 0xFFF8 != 0
        protocol, data = data[0], data[size:]
        if later:
            break
    return Seen(seen.vlan, seen.ethertype, 6, protocol, src, dst, None if later else read_ports(protocol, data))


def read_ports(protocol: int, data: bytes) -> tuple[int, int] | None:
    return struct.unpack(">HH", data[:4]) if protocol in (6, 17, 132, 136) and len(data) >= 4 else None


def holds(match: Match, seen: Seen | None) -> bool:
    if seen is None:
        return False
    ranges = (match.src_ports, match.dst_ports, match.any_port)
    if any(ranges) and seen.ports is None:
        return False
    within = [lambda port, r=r: r is None or r[0] <= port <= r[1] for r in ranges]
    ports = seen.ports or (0, 0)
    return (
        match.ip in (None, seen.version != 0)
        and match.ip_version in (0, seen.version)
        and match.ethertype in (None, seen.ethertype)
        and (match.protocol is None or (seen.version != 0 and match.protocol == seen.protocol))
        and match.vlan in (None, seen.vlan)
        and (match.src is None or (seen.src is not None and seen.src in match.src))
        and (match.dst is None or (seen.dst is not None and seen.dst in match.dst))
        and within[0](ports[0])
        and within[1](ports[1])
        and (within[2](ports[0]) or within[2](ports[1]))
    )


TERMS = [
    "any", "ip", "ip4", "ip6", "non-ip", "arp", "ethertype 0x88cc", "tcp", "udp", "sctp", "icmp", "icmp6", "proto 47",
    "src 10.0.0.0/8", "dst 10.1.2.3", "dst 10.1.2.0/25", "src 2001:db8::/32", "dst 2001:db8::1", "dst 2001:db8::/35",
    "dst 2001:c00::/22", "udp dst port 53", "tcp src port 80-90", "port 53", "src 10.0.0.0/8 port 53", "port 0-1023",
    "vlan 7", "vlan 7 udp port 53", "dst ::/0", "src 0.0.0.0/0",
]  # fmt: skip

PORTS = st.sampled_from([0, 52, 53, 54, 79, 80, 85, 90, 91, 1023, 1024, 65535])
PROTOCOLS = st.sampled_from([0, 1, 6, 17, 47, 58, 132, 136, 255])
ADDRESSES4 = st.sampled_from(["10.1.2.3", "10.1.2.127", "10.1.2.128", "11.0.0.1", "0.0.0.0", "255.255.255.255"])
ADDRESSES6 = st.sampled_from(
    ["2001:db8::1", "2001:db8:1fff::1", "2001:db8:2000::1", "2001:db9::1", "2001:3ff::", "::", "::ffff:10.1.2.3"]
)
TAGS = st.lists(st.sampled_from([b"\x81\x00\x00\x07", b"\x88\xa8\x60\x07", b"\x81\x00\x00\x08"]), max_size=3)


@st.composite
def transports(draw: st.DrawFn) -> bytes:
    return struct.pack(">HH", draw(PORTS), draw(PORTS)) + bytes(draw(st.sampled_from([0, 4, 16])))


@st.composite
def ipv4(draw: st.DrawFn) -> bytes:
    words = draw(st.sampled_from([5, 5, 5, 6, 15, 4, 0]))
    fragment = draw(st.sampled_from([0, 0, 0, 0x2000, 0x2001, 1, 0x4000]))
    header = struct.pack(">BBHHHBBH", 0x40 | words, 0, 40, 1, fragment, 64, draw(PROTOCOLS), 0)
    addresses = b"".join(ipaddress.IPv4Address(draw(ADDRESSES4)).packed for _ in range(2))
    return header + addresses + bytes(max(0, words - 5) * 4) + draw(transports())


@st.composite
def ipv6(draw: st.DrawFn) -> bytes:
    headers = draw(st.lists(st.sampled_from([0, 43, 44, 51, 60]), max_size=5))
    types = [*headers, draw(PROTOCOLS)]
    body = b""
    for kind, following in zip(headers, types[1:], strict=True):
        units = draw(st.sampled_from([0, 1, 2, 200])) if kind != 44 else 0
        size = 8 if kind == 44 else (units + 2) * 4 if kind == 51 else (units + 1) * 8
        offset = draw(st.sampled_from([0, 1, 8, 0xFFF8])) if kind == 44 else 0
        present = size if draw(st.booleans()) else min(size, 64)
        body += (struct.pack(">BBH", following, units, offset) + bytes(max(4, size)))[:present]
    addresses = b"".join(ipaddress.IPv6Address(draw(ADDRESSES6)).packed for _ in range(2))
    return struct.pack(">IHBB", 0x60000000, len(body), types[0], 64) + addresses + body + draw(transports())


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["ip4", "ip4", "ip6", "ip6", "other"]))
    if kind == "other":
        ethertype = draw(st.sampled_from([0x0806, 0x88CC, 0x0800, 0x86DD, 0x8100]))
        payload = draw(st.binary(max_size=64))
    else:
        ethertype, payload = (0x0800, draw(ipv4())) if kind == "ip4" else (0x86DD, draw(ipv6()))
    frame = bytes(12) + b"".join(draw(TAGS)) + struct.pack(">H", ethertype) + payload
    return frame[: draw(st.integers(14, len(frame)))] if draw(st.booleans()) else frame


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, int]]:
    managers = {text: loaded([text]) for text in TERMS}
    opened = {text: manager.__enter__() for text, manager in managers.items()}
    yield opened
    for manager in managers.values():
        manager.__exit__(None, None, None)


@settings(max_examples=400, deadline=None)
@given(frames())
def test_each_term_takes_what_the_reference_takes(programs: dict[str, int], packet: bytes):
    seen = read(packet)
    for text, fd in programs.items():
        expected = REDIRECT if holds(parse_match(text), seen) else PASS
        assert verdict(fd, packet) == expected, (text, packet.hex(), seen)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(TERMS[1:]), min_size=2, max_size=32), st.lists(frames(), min_size=20, max_size=20))
def test_any_of_several_terms_is_enough(texts: list[str], packets: list[bytes]):
    matches = [parse_match(text) for text in texts]
    with loaded(texts) as fd:
        for packet in packets:
            seen = read(packet)
            assert verdict(fd, packet) == (REDIRECT if any(holds(match, seen) for match in matches) else PASS)


def test_without_terms_everything_is_taken():
    with loaded([]) as fd:
        assert verdict(fd, bytes(60)) == REDIRECT


def test_too_many_terms_are_refused():
    with pytest.raises(RuntimeError, match="at most 32"):
        _native.xdp_program([native_rule(parse_match("ip"))] * 33)


def worker_of(packet: bytes, workers: int, *, by_destination: bool) -> int:
    """The rule in plain words: the client's address folded to 32 bits, times the golden ratio, the upper half."""
    (ethertype,), at = struct.unpack(">H", packet[12:14]), 14
    for _ in range(2):
        if ethertype not in (0x8100, 0x88A8):
            break
        if len(packet) < at + 4:
            return 0
        (ethertype,), at = struct.unpack(">H", packet[at + 2 : at + 4]), at + 4
    if ethertype == 0x0800:
        begin, size = at + (16 if by_destination else 12), 4
    elif ethertype == 0x86DD:
        begin, size = at + (24 if by_destination else 8), 16
    else:
        begin, size = 2 if by_destination else 8, 4
    address = packet[begin : begin + size]
    if len(address) < size:
        return 0
    folded = 0
    for word in struct.unpack(f">{size // 4}I", address):
        folded ^= word
    return ((folded * 0x9E3779B1 & 0xFFFFFFFF) >> 16) % workers


@contextmanager
def spreading(texts: list[str], workers: int, **options: bool | int) -> Iterator[int]:
    code = _native.xdp_spreading_program(rules_of(texts), workers=workers, **options)
    with loaded([], code) as fd:
        yield fd


@settings(max_examples=400, deadline=None)
@given(
    frames(),
    st.binary(min_size=12, max_size=12),
    st.sampled_from([2, 3, 7, 64]),
    st.booleans(),
    st.sampled_from([[], ["any"], ["udp dst port 53", "ip6"], ["arp"]]),
)
def test_the_client_chooses_the_worker_of_what_is_taken(
    packet: bytes, addresses: bytes, workers: int, by_destination: bool, texts: list[str]
):
    packet = addresses + packet[12:]
    taken = not texts or any(holds(parse_match(text), read(packet)) for text in texts)
    expected = REDIRECT + worker_of(packet, workers, by_destination=by_destination) if taken else PASS
    with spreading(texts, workers, by_destination=by_destination) as fd:
        assert verdict(fd, packet) == expected


@pytest.mark.parametrize("texts", [[], ["ip"]])
def test_one_queue_alone_is_taken(texts: list[str]):
    packet = bytes(12) + b"\x08\x00\x45" + bytes(60)
    with spreading(texts, 2, by_destination=False, queue=0) as fd:
        assert verdict(fd, packet) == REDIRECT + worker_of(packet, 2, by_destination=False)
    with spreading(texts, 2, by_destination=False, queue=1) as fd:
        assert verdict(fd, packet) == PASS  # it came in at queue 0
