"""The router of the gallery beside a plain one in Python: corner cases of RFC 1812, compared frame by frame."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterator

import pytest
import router_reference as reference
from click_harness import START_NS, Click, Packet, start
from router_reference import Address, Error, Interface, Outcome, Router, checksum, with_checksum

from edgeos.share import share

MTU = 600
INTERFACES = {
    "lan": Interface("lan", ipaddress.IPv4Interface("10.1.0.1/24"), bytes.fromhex("020000000101"), 1500),
    "wan": Interface("wan", ipaddress.IPv4Interface("10.2.0.1/24"), bytes.fromhex("020000000201"), MTU),
}
GATEWAY = Address("10.2.0.2")
ROUTES = {
    ipaddress.IPv4Network("10.1.0.0/24"): ("lan", None),
    ipaddress.IPv4Network("10.2.0.0/24"): ("wan", None),
    ipaddress.IPv4Network("10.3.0.0/16"): ("wan", GATEWAY),
}
HOSTS = {"lan": [f"10.1.0.{n}" for n in (2, 3, 77)], "wan": [f"10.2.0.{n}" for n in (2, 9)]}
EVERYONE = b"\xff" * 6
MILLISECONDS = START_NS // 1_000_000 % 86_400_000


def mac_of(address: Address) -> bytes:
    return b"\x02\x00" + address.packed


@pytest.fixture(scope="module")
def click() -> Iterator[Click]:
    text = share("appliances", "click", "router", "router.click").read_text()
    with start(text, {"WAN_MTU": str(MTU)}) as running:
        running.push("lan", bytes(60))  # from its first packet on it knows the time
        for device, addresses in HOSTS.items():
            for address in addresses:
                running.write(f"{device}/arp.insert", f"{address} {mac_of(Address(address)).hex(':')}")
        yield running


ROUTER = Router(INTERFACES, ROUTES, MILLISECONDS)


# ---- Frames ----


def datagram(
    source: str,
    target: str,
    payload: bytes = b"",
    *,
    protocol: int = 17,
    ttl: int = 64,
    options: bytes = b"",
    fragment: int = 0,
    identification: int = 7,
) -> bytes:
    padded = options + bytes(-len(options) % 4)
    header = struct.pack("!BBHHHBBH", 0x40 | (5 + len(padded) // 4), 0, 20 + len(padded) + len(payload),
                         identification, fragment, ttl, protocol, 0)  # fmt: skip
    return with_checksum(header + Address(source).packed + Address(target).packed + padded) + payload


def to_router(device: str, data: bytes, mac: bytes | None = None) -> bytes:
    return (mac or INTERFACES[device].mac) + b"\x02\x00\x00\x00\x00\x99" + b"\x08\x00" + data


def echo(size: int = 56, kind: int = reference.ECHO) -> bytes:
    body = struct.pack("!BBHHH", kind, 0, 0, 1, 2) + bytes(range(256))[:size]
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def random_options(source: random.Random) -> bytes:
    """Good and bad ones: none, padding, record route, timestamps, source routes, unknown ones, noise."""
    kind = source.randrange(9)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes(source.choice((0, 1)) for _ in range(source.randrange(1, 9)))
    if kind in (2, 3):
        size = source.choice((7, 11, 39, 8, 3, 2))
        pointer = source.choice((4, 4, 4, 8, size + 1, 0, 3, 5, 200))
        return (bytes([7, size, pointer]) + bytes(36))[:size]
    if kind in (4, 5):
        size = source.choice((8, 12, 20, 36, 4, 3))
        flag = source.choice((0, 0, 1, 1, 3, 2, 0xF0, 0xE1, 0x13))
        pointer = source.choice((5, 5, 5, 9, 13, size + 1, 4, 0, 250))
        entries = (source.choice((b"\x0a\x01\0\x01", b"\x0a\x02\0\x01", b"\x0a\x09\0\x01")) + bytes(4)) * 5
        return (bytes([68, size, pointer, flag]) + entries)[:size]
    if kind == 6:
        return bytes([source.choice((131, 137)), 7, source.choice((4, 8)), 10, 2, 0, 9])
    if kind == 7:
        return bytes([source.choice((2, 130, 148, 30, 200)), 4, 0, 0])
    return source.randbytes(source.randrange(1, 40))


def random_frame(source: random.Random, device: str) -> bytes:
    """A datagram with some of the corner cases at once."""
    senders = [*HOSTS[device] * 4, "10.3.7.7", "10.9.9.9", "10.1.0.255", "127.0.0.1", "0.0.0.0", "224.0.0.1",
               "255.255.255.255", "10.1.0.1", "10.2.0.255"]  # fmt: skip
    targets = [*HOSTS["lan"], *HOSTS["wan"] * 2, "10.3.1.1", "10.3.255.255", "10.9.9.9", "192.0.2.1", "10.1.0.1",
               "10.2.0.1", "10.1.0.255", "10.2.0.255", "255.255.255.255", "224.0.0.5", "127.0.0.1", "0.0.0.0",
               "240.0.0.1"]  # fmt: skip
    protocol = source.choice((1, 1, 17, 17, 6, 99))
    size = source.choice((0, 1, 7, 8, 30, 30, 571, 580, 581, 600, 1200, 1400))
    payload = bytes(source.randrange(256) for _ in range(size))
    if protocol == 1:
        kind = source.choice((8, 8, 0, 3, 4, 5, 11, 12, 13))
        payload = echo(min(size, 256), kind) if source.random() < 0.9 else payload[:7]
    fragment = source.choice((0, 0, 0, 0x4000, 0x4000, 0x2000, 0x2003, 0x0005, 0x6000, 0x8000))
    data = datagram(
        source.choice(senders),
        source.choice(targets),
        payload,
        protocol=protocol,
        ttl=source.choice((64, 64, 64, 2, 1, 0, 255)),
        options=random_options(source) if source.random() < 0.5 else b"",
        fragment=fragment,
        identification=source.randrange(65536),
    )
    if source.random() < 0.15:
        data = spoiled(source, data)
    mac = source.choice((None,) * 12 + (EVERYONE, b"\x01\x00\x5e\x00\x00\x05", b"\x02\x00\x00\x00\x77\x77"))
    return to_router(device, data, mac)


def spoiled(source: random.Random, data: bytes) -> bytes:
    """A header that contradicts itself or the frame; its checksum is right but for one kind."""
    kind = source.randrange(7)
    header = (data[0] & 15) * 4
    if kind == 0:
        return data[:10] + bytes([data[10] ^ 1]) + data[11:]
    if kind == 1:
        return with_checksum(bytes([0x60 | data[0] & 15]) + data[1:header]) + data[header:]
    if kind == 2:
        return with_checksum(bytes([0x44]) + data[1:header]) + data[header:]
    if kind == 3:
        return with_checksum(data[:2] + struct.pack("!H", len(data) + 1) + data[4:header]) + data[header:]
    if kind == 4:
        return with_checksum(data[:2] + struct.pack("!H", header - 1) + data[4:header]) + data[header:]
    if kind == 5:
        return data + bytes(source.randrange(1, 20))  # padding of the link: to be cut off
    return data[: source.randrange(len(data))]


# ---- What leaves, held against what must ----


def check(click: Click, device: str, frame: bytes) -> list[Outcome]:
    wanted = ROUTER.handle(device, frame)
    left = click.push(device, frame)
    rest = list(left)
    for outcome in wanted:
        rest = took(outcome, rest, frame)
    assert rest == [], f"nothing but {wanted} must leave for {device} {frame.hex()}"
    return wanted


def took(outcome: Outcome, left: list[Packet], frame: bytes) -> list[Packet]:
    """What is left over when the outcome's frames have been found and checked."""
    interface = INTERFACES[outcome.device]
    ends = mac_of(outcome.next_hop) + interface.mac + b"\x08\x00"
    mine = [data[14:] for device, data in left if device == outcome.device and data[:14] == ends]
    about = f"for {outcome} of {frame.hex()} from {left}"
    if isinstance(outcome, Error):
        found = next((data for data in mine if is_error(outcome, data)), None)
        assert found is not None, about
        check_error(outcome, found)
        used = [found]
    elif len(outcome.datagram) <= interface.mtu:
        assert outcome.datagram in mine, about
        used = [outcome.datagram]
    else:
        used = [data for data in mine if data[4:6] == outcome.datagram[4:6] and data[12:20] == outcome.datagram[12:20]]
        check_fragments(outcome.datagram, used, interface.mtu)
    for data in used:
        left = list(left)
        left.remove((outcome.device, ends + data))
    return left


def is_error(outcome: Error, data: bytes) -> bool:
    header = (data[0] & 15) * 4
    return data[9] == 1 and data[header : header + 2] == bytes([outcome.type, outcome.code])


def check_error(outcome: Error, data: bytes) -> None:
    """RFC 792 and RFC 1812, 4.3.2."""
    header = (data[0] & 15) * 4
    assert checksum(data[:header]) == checksum(data[header:]) == 0
    assert int.from_bytes(data[2:4], "big") == len(data) <= 576
    assert (Address(data[12:16]), Address(data[16:20])) == (outcome.source, outcome.to)
    assert data[8] > 32
    quoted = data[header + 8 :]
    least = (outcome.quoted[0] & 15) * 4 + 8
    assert len(quoted) >= min(least, len(outcome.quoted))
    assert len(data) == 576 or len(quoted) == len(outcome.quoted), "as much of it as fits"
    fixed = [at for at in range(len(quoted)) if at not in (8, 10, 11) and not 20 <= at < least - 8]
    assert [quoted[at] for at in fixed] == [outcome.quoted[at] for at in fixed]
    rest = data[header + 4 : header + 8]
    if outcome.type == reference.PARAMETER:
        assert rest[0] in outcome.pointer
    elif outcome.type == reference.REDIRECT:
        assert Address(rest) == outcome.gateway
    elif outcome.code == reference.NEED_FRAGMENTS and outcome.type == reference.UNREACHABLE:
        assert int.from_bytes(rest[2:], "big") == outcome.mtu
    else:
        assert rest == bytes(4)


def check_fragments(whole: bytes, pieces: list[bytes], mtu: int) -> None:
    """RFC 791, 3.2: the pieces are small enough and together the datagram."""
    header = (whole[0] & 15) * 4
    field = int.from_bytes(whole[6:8], "big")
    at = field & 0x1FFF
    body = b""
    assert pieces
    for number, piece in enumerate(pieces):
        size = (piece[0] & 15) * 4
        assert len(piece) <= mtu
        assert checksum(piece[:size]) == 0
        assert int.from_bytes(piece[2:4], "big") == len(piece)
        flags = int.from_bytes(piece[6:8], "big")
        assert flags & 0x1FFF == at + len(body) // 8
        last = number == len(pieces) - 1
        assert bool(flags & 0x2000) == (not last or bool(field & 0x2000))
        assert piece[8] == whole[8]
        if number == 0:
            assert piece[20:size] == whole[20:header]
        body += piece[size:]
    assert body == whole[header:]


# ---- Single cases, then generated ones ----


def outcomes(click: Click, device: str, data: bytes) -> list[tuple[str, object]]:
    """What left, shortly: devices with "sent", or the type and code of an error."""
    return [
        (outcome.device, (outcome.type, outcome.code) if isinstance(outcome, Error) else "sent")
        for outcome in check(click, device, to_router(device, data))
    ]


@pytest.mark.parametrize(
    ("device", "data", "expected"),
    [
        ("lan", datagram("10.1.0.2", "10.2.0.9", bytes(40)), [("wan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.3.0.9", bytes(40), ttl=2), [("wan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", bytes(40), ttl=1), [("lan", (11, 0))]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", bytes(40), ttl=0), [("lan", (11, 0))]),
        ("lan", datagram("10.1.0.2", "10.9.0.9", bytes(40)), [("lan", (3, 0))]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", bytes(1000)), [("wan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", bytes(1000), fragment=0x4000), [("lan", (3, 4))]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", bytes(1000), fragment=0x2001), [("wan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", options=bytes([7, 7, 4, 0, 0, 0, 0])), [("wan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.2.0.9", options=bytes([7, 7, 6, 0, 0, 0, 0])), [("lan", (12, 0))]),
        ("lan", datagram("10.1.0.2", "10.1.0.3", bytes(40)), [("lan", (5, 1)), ("lan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.1.0.1", echo(), protocol=1), [("lan", "sent")]),
        ("wan", datagram("10.2.0.9", "10.1.0.1", echo(), protocol=1), [("wan", "sent")]),
        ("lan", datagram("10.1.0.2", "10.2.0.1", bytes(40)), [("lan", (3, 3))]),
        ("lan", datagram("10.1.0.2", "10.2.0.1", bytes(40), protocol=99), [("lan", (3, 2))]),
        ("lan", datagram("10.1.0.2", "10.9.0.9", echo(kind=3), protocol=1), []),
        ("lan", datagram("10.1.0.2", "10.9.0.9", bytes(40), fragment=5), []),
        ("lan", datagram("127.0.0.1", "10.2.0.9"), []),
        ("lan", datagram("10.1.0.2", "10.2.0.255"), []),
        ("lan", datagram("10.1.0.2", "224.0.0.5"), []),
    ],
)
def test_a_datagram_meets_what_the_rfc_asks(
    click: Click, device: str, data: bytes, expected: list[tuple[str, object]]
) -> None:
    assert outcomes(click, device, data) == expected


@pytest.mark.parametrize("seed", range(5))
def test_generated_corner_cases_are_answered_as_the_reference_does(click: Click, seed: int) -> None:
    source = random.Random(seed)
    met: set[object] = set()
    for _ in range(1500):
        device = source.choice(("lan", "wan"))
        for outcome in check(click, device, random_frame(source, device)):
            met.add((outcome.type, outcome.code) if isinstance(outcome, Error) else len(outcome.datagram) > MTU)
    assert met >= {True, False, (3, 0), (3, 2), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0)}, "all cases were there"


def test_neighbours_are_asked_for_and_answered() -> None:
    text = share("appliances", "click", "router", "router.click").read_text()
    with start(text) as fresh:
        data = datagram("10.1.0.2", "10.2.0.9", bytes(40))
        ((device, question),) = fresh.push("lan", to_router("lan", data))
        assert (device, question[:6], question[12:14]) == ("wan", EVERYONE, b"\x08\x06")
        assert question[20:22] == b"\0\x01"
        assert (question[28:32], question[38:42]) == (Address("10.2.0.1").packed, Address("10.2.0.9").packed)
        mac = mac_of(Address("10.2.0.9"))
        answer = INTERFACES["wan"].mac + mac + bytes.fromhex("08060001080006040002") + mac
        answer += Address("10.2.0.9").packed + INTERFACES["wan"].mac + Address("10.2.0.1").packed
        ((device, sent),) = fresh.push("wan", answer)
        assert (device, sent[:6]) == ("wan", mac), "what waited for the answer"
        query = EVERYONE + mac + bytes.fromhex("08060001080006040001") + mac + Address("10.2.0.9").packed + bytes(6)
        ((device, reply),) = fresh.push("wan", query + Address("10.2.0.1").packed)
        assert (device, reply[:6], reply[22:28]) == ("wan", mac, INTERFACES["wan"].mac)
        assert fresh.push("wan", query + Address("10.2.0.77").packed) == []
