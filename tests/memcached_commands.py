"""Memcached commands for hypothesis, right and wrong ones, and answers without what differs from run to run."""

from __future__ import annotations

import re
import struct

from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "k" * 250, "k" * 251, "n"])
NUMBERS = st.sampled_from(
    ["0", "1", "5", "-1", "18446744073709551615", "18446744073709551616", "x", "4294967296", "+2"]
)
EXPIRY = st.sampled_from(["0", "0", "0", "1000", "-1", "x", "2592001"])
VALUES = st.sampled_from(["", "x", "10", "99", "hello world", "-5", " 7", "v" * 100, "w" * 3000])
NOREPLY = st.sampled_from(["", "", "", " noreply"])
FLAGS = st.lists(
    st.sampled_from(
        ["v", "c", "f", "s", "t", "k", "h", "u", "q", "b", "I", "O1", "O" + "x" * 40, "N0", "N30", "T0", "T60", "R45",
         "F5", "C1", "C2", "MS", "ME", "MA", "MP", "MR", "MI", "MD", "M+", "MX", "J7", "D3", "Dx", "z"]
    ),
    max_size=4,
).map(lambda flags: "".join(f" {flag}" for flag in flags))  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One text command, whole or wrong, with its value where it has one."""
    key, value, noreply = draw(KEYS), draw(VALUES), draw(NOREPLY)
    what = draw(
        st.sampled_from(
            ["set", "set", "add", "replace", "append", "prepend", "cas", "get", "gets", "gat", "incr", "decr", "touch",
             "delete", "flush_all", "ms", "ms", "mg", "mg", "md", "ma", "mn", "version", "junk", "lie"]
        )
    )  # fmt: skip
    expiry = draw(EXPIRY)
    if what in ("set", "add", "replace", "append", "prepend", "cas"):
        cas = f" {draw(st.sampled_from(['1', '2', '3', 'x']))}" if what == "cas" else ""
        flags = draw(st.sampled_from(["0", "7", "4294967295", "-1"]))
        return f"{what} {key} {flags} {expiry} {len(value)}{cas}{noreply}\r\n{value}\r\n".encode()
    if what in ("get", "gets"):
        return f"{what} {key} {draw(KEYS)}\r\n".encode()
    if what == "gat":
        return f"gat {expiry} {key}\r\n".encode()
    if what in ("incr", "decr"):
        return f"{what} {key} {draw(NUMBERS)}{noreply}\r\n".encode()
    if what == "touch":
        return f"touch {key} {expiry}{noreply}\r\n".encode()
    if what == "delete":
        return f"delete {key}{draw(st.sampled_from(['', ' 0', ' 1']))}{noreply}\r\n".encode()
    if what == "flush_all":
        return f"flush_all{draw(st.sampled_from(['', ' 0', ' x', ' -1']))}{noreply}\r\n".encode()
    if what == "ms":
        return f"ms {key} {len(value)}{draw(FLAGS)}\r\n{value}\r\n".encode()
    if what in ("mg", "md", "ma"):
        return f"{what} {key}{draw(FLAGS)}\r\n".encode()
    if what == "lie":
        return f"set {key} 0 0 {max(0, len(value) - 1)}\r\n{value}\r\n".encode()
    if what == "junk":
        return draw(
            st.sampled_from([b"\r\n", b"GET a\r\n", b"get\r\n", b"set a\r\n", b"mx a\r\n", b"shutdown\r\n", b"x\n"])
        )
    return f"{what}\r\n".encode()


TIMES = re.compile(rb"(?<= t)\d+|(?<=la=)\d+|(?<=exp=-)\d\d+|cls=\d+")


def settled(data: bytes) -> bytes:
    """Without what depends on the second in which it was asked."""
    return TIMES.sub(b"N", data)


_CAS_SENT = re.compile(rb"(^cas \S+ \S+ \S+ \d+ )(\d+)(?=[ \r])|(?<= C)(\d+)(?=[ \r])")
_CAS_GOT = re.compile(rb"(?<= c)(\d+)(?=[ \r])|(?<=\d )(\d+)(?=\r\n)")


def shift(command: bytes, offset: int) -> bytes:
    def add(match: re.Match[bytes]) -> bytes:
        return (match[1] or b"") + str(int(match[2] or match[3]) + offset).encode()

    line, end, rest = command.partition(b"\r\n")
    return _CAS_SENT.sub(add, line + b"\r")[:-1] + end + rest


def shift_back(answer: bytes, offset: int) -> bytes:
    def subtract(match: re.Match[bytes]) -> bytes:
        value = int(match[1] or match[2])
        return str(value - offset if value > offset else value).encode()

    return b"\n".join(
        _CAS_GOT.sub(subtract, line + b"\n")[:-1] if line.startswith((b"VALUE", b"HD", b"VA")) else line
        for line in answer.split(b"\n")
    )


OPCODES = st.sampled_from([*range(0x1B), 0x1C, 0x1D, 0x1E, 0x20, 0x21, 0x23, 0x24, 0x50])


@st.composite
def binary_commands(draw: st.DrawFn) -> bytes:
    """One binary command; most with the extras and the value that they need."""
    opcode = draw(OPCODES.filter(lambda op: op != 0x10))  # stat speaks of the process
    key = draw(st.sampled_from([b"a", b"b", b"n", b"k" * 250, b"k" * 251, b""]))
    value, extras = b"", b""
    if opcode in (1, 2, 3, 0x11, 0x12, 0x13):
        extras, value = struct.pack(">II", draw(st.sampled_from([0, 9])), 0), draw(VALUES).encode()
    elif opcode in (0x0E, 0x0F, 0x19, 0x1A):
        value = draw(VALUES).encode()
    elif opcode in (5, 6, 0x15, 0x16):
        expiry = draw(st.sampled_from([0, 0xFFFFFFFF]))
        extras = struct.pack(">QQI", draw(st.sampled_from([0, 1, 2**64 - 1])), draw(st.integers(0, 99)), expiry)
    elif opcode in (0x1C, 0x1D, 0x1E, 0x23, 0x24):
        extras = struct.pack(">I", draw(st.sampled_from([0, 1000])))
    if opcode == 0x50 or (opcode in (7, 8, 0x0A, 0x0B, 0x17, 0x18, 0x20) and draw(st.integers(0, 9))):
        key = b""  # an unknown command with a body is answered at once here, there when more has come
    if opcode != 0x50 and not draw(st.sampled_from([*[1] * 12, 0])):
        extras = extras[:-1] or b"e"
    body = len(extras) + len(key) + len(value)
    return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, body, 77, 0) + extras + key + value


def without_cas(data: bytes) -> bytes:
    out = b""
    while len(data) >= 24:
        (body,) = struct.unpack_from(">I", data, 8)
        cas = data[16:24]
        out += data[:16] + (b"........" if cas != bytes(8) else cas) + data[24 : 24 + body]
        data = data[24 + body :]
    return out + data
