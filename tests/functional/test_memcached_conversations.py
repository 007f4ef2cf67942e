"""The protocol's commands one by one: the bytes that a memcached program answers, and those of a node."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from memcached_harness import PROGRAM, program
from memcached_node import TIMEOUT, CacheNode, ask, serving

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no memcached program is installed")

Connect = Callable[[], socket.socket]
K250, K251 = b"k" * 250, b"k" * 251
MARK = b"set mark 0 0 6\r\nmarked\r\nget mark\r\n"
MARKED = b"VALUE mark 0 6\r\nmarked\r\nEND\r\n"
PAST, FAR = 1_000_000_000, 4_000_000_000

# Line ends are CR LF on the wire. No number is read and then made shorter: the program pads it or not, by whether it
# has sent the earlier answer.
_TEXT = {
    "get": b"get a\nset a 5 0 3\nabc\nget a\nget a b a\nget\nget  a  a \n",
    "get of many keys": b"set a 0 0 1\nx\nget " + b"a " * 100 + b"\n",
    "gets": b"set a 0 0 1\nx\ngets a b\ngets\nset a 0 0 1\ny\ngets a\n",
    "gat": b"set a 1 0 1\nx\ngat 0 a\ngat 100 a b\ngat -1 a\nget a\ngat x a\ngat 1\n",
    "gats": b"set a 1 0 1\nx\ngats 0 a\ngats x\ngats 0\n",
    "set": b"set a 0 0 0\n\nget a\nset a 0 0 1 junk\nx\nget a\nset\nset a\nset a 0 0\n",
    "add": b"add a 0 0 1\nx\nadd a 0 0 1\ny\nget a\nadd b 0 -1 1\nx\nadd b 0 0 1\ny\nget b\n",
    "replace": b"replace a 0 0 1\nx\nset a 0 0 1\nx\nreplace a 9 0 2\nyy\nget a\n",
    "append": b"append a 0 0 1\nx\nset a 7 0 1\nx\nappend a 9 0 2\nyy\nget a\n",
    "prepend": b"prepend a 0 0 1\nx\nset a 7 0 1\nx\nprepend a 9 0 2\nyy\nget a\n",
    "cas": b"cas a 0 0 1 1\nx\nset a 0 0 1\nx\ncas a 0 0 1 1\ny\ncas a 0 0 1 1\nz\nget a\n"
    b"cas a 0 0 1\ncas a 0 0 1 x\ncas a 0 0 1 -1\nz\ncas a 0 0 1 2 noreply\nq\nget a\n",
    "incr": b"incr a 1\nset a 0 0 2\n99\nincr a 1\nincr a 18446744073709551615\nget a\nincr a -1\n"
    b"incr a x\nincr a\nset b 0 0 1\nx\nincr b 1\nset a 0 0 20\n18446744073709551615\nincr a 1\n",
    "decr": b"decr a 1\nset a 0 0 2\n10\ndecr a 1\ndecr a 100\nget a\ndecr a x\n",
    "touch": b"touch a 1\nset a 0 0 1\nx\ntouch a 0\ntouch a 100\ntouch a x\ntouch a\ntouch a -1\nget a\n",
    "delete": b"delete a\nset a 0 0 1\nx\ndelete a 0\nget a\ndelete a 1\ndelete\ndelete a 0 noreply\n",
    "flush_all": b"set a 0 0 1\nx\nflush_all\nget a\nset a 0 0 1\nx\nflush_all 0\nget a\nflush_all x\n"
    b"set a 0 0 1\nx\nflush_all -5\nget a\nflush_all noreply\nflush_all 1000\nset a 0 0 1\nx\nget a\n",
    "verbosity": b"verbosity 1\nverbosity 9\nverbosity\nverbosity x\nverbosity 0 noreply\n",
    "version": b"version\nversion junk\n",
    "quit": b"set a 0 0 1\nx\nquit\nget a\n",
    "noreply": b"set a 0 0 1 noreply\nx\nadd a 0 0 1 noreply\nx\nreplace a 0 0 1 noreply\n5\n"
    b"append a 0 0 1 noreply\n0\nprepend a 0 0 1 noreply\n1\nincr a 1 noreply\ndecr a 2 noreply\n"
    b"touch a 0 noreply\nget a\ndelete a noreply\nget a\n",
    "flags": b"set a 4294967295 0 1\nx\nget a\nset a 4294967296 0 1\nset a -1 0 1\nset a 1x 0 1\n",
    "expiry": b"set a 0 %d 1\nx\nget a\nset b 0 %d 1\nx\nget b\nset c 0 -1 1\nx\nget c\n"
    b"set d 0 2592000 1\nx\nget d\nset e 0 2592001 1\nx\nget e\nset f 0 99999999999 1\nx\n" % (PAST, FAR // 2),
    # After a `get` or `gat` of such a key, the program forgets what it has answered in the same batch.
    "keys": b"get %s\nset %s 0 0 1\nx\nget %s\ndelete %s\nincr %s 1\ntouch %s 1\n"
    % (K251, K250, K250, K251, K251, K251),
    "gat of a key of 251": b"gat 1 %s\nversion\n" % K251,
    "a key of 251": b"set %s 0 0 1\nx\n" % K251,
    "a value too large": b"set a 0 0 1\nx\nset a 0 0 1048577\n" + b"x" * 1048577 + b"\nget a\n",
    "a value without end": b"set a 0 0 3\nabcd\nget a\n",
    "a length that lies": b"set a 0 0 100\nabc\nget a\n" + b"x" * 90 + b"\nget a\n",
    "a length below 0": b"set a 0 0 -1\nget a\n",
    "a length beyond 31 bits": b"set a 0 0 2147483647\n",
    "what is no command": b"foo\nGET a\n\n  \nshutdown\nslabs\nx y z\n",
    "mn": b"mn\nmn junk\n",
    "mg": b"mg a\nmg a v\nset a 7 0 3\nabc\nmg a\nmg a v\nmg a v c f k s t h l O77\nmg a s v h l\n"
    b"mg a k O1 q v\nmg nothing q\nmg nothing k O1\nmg a T50 t v\nmg a u\nmg a E\nmg\nmg a v v\n",
    "mg that recaches": b"mg a N30 v\nmg a N30 v t\nms a 1 T100\nx\nmg a R200 v\nmg a R200 v\nmg a R10 v\n",
    "ms": b"ms a 2\nhi\nms a 2 c F5 T0 O3 k\nhi\nmg a v f\nms a 2 q\nhi\nms a 2 ME\nhi\nms a 1 MA\n!\n"
    b"ms a 1 MP\n>\nms a 3 MR\nnew\nms n 1 MR\nx\nms a 1 MX\nx\nms a 2 C999\nhi\nms a\nms a x\n",
    "ms with an invalid CAS": b"ms a 1 c\nx\nms a 1 C1 c\ny\nms a 1 C1\nz\nmg a v\nms a 1 I C1\nw\nmg a v c\n",
    "md": b"md a\nset a 0 0 1\nx\nmd a k O1\nmd a q\nset a 0 0 1\nx\nmd a C999\nmd a I T30\nmg a v t\n"
    b"mg a v\nmd a q\nget a\n",
    "ma": b"ma n\nma n N0 J13 v\nma n v\nma n D10 v t c O1 k\nma n MD D5 v\nma n M- v\nma n MI\nma n MX\n"
    b"ma n D99999 MD v\nset s 0 0 1\nx\nma s\nma n q\nma n C999 v\nma n Dx\n",
    "me": b"me nothing\nme\nset a 3 0 5\nhello\nme a\nmg a\nme a\n",
    "keys in base64": b"ms YWI= 1 b k\nx\nmg YWI= b k v\nget ab\nmg !!! b\nmd YWI= b\nma YWI= b N0 J1 v k\n",
    "meta flags that are wrong": b"mg a Z\nms a 1 Tx\ny\nmd a Tx\nmg " + K251 + b" v\nms " + K251 + b" 1\nx\n",
}
TEXT = {name: data.replace(b"\n", b"\r\n") for name, data in _TEXT.items()}
TEXT["bare line ends"] = b"set a 0 0 1\nx\r\nget a\nversion\n"


def request(opcode: int, key: bytes = b"", value: bytes = b"", extras: bytes = b"", cas: int = 0) -> bytes:
    body = len(key) + len(value) + len(extras)
    header = struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, body, 0x11223344, cas)
    return header + extras + key + value


NOTHING, END = struct.pack(">II", 0, 0), request(0x0A)
NUMBER = struct.pack(">QQI", 3, 10, 0)
BINARY = {
    "get": [request(0, b"a"), request(1, b"a", b"v", struct.pack(">II", 9, 0)), request(0, b"a"), request(0)],
    "getq getk getkq": [
        request(9, b"a"),
        request(0x0C, b"a"),
        request(0x0D, b"a"),
        request(1, b"a", b"v", NOTHING),
        request(9, b"a"),
        request(0x0C, b"a"),
        request(0x0D, b"a"),
    ],
    "set": [
        request(1, b"a", b"", NOTHING),
        request(1, b"a", b"w", NOTHING, 1),
        request(1, b"a", b"w", NOTHING, 99),
        request(0x11, b"a", b"x", NOTHING),
        request(0, b"a"),
        request(1, b"", b"x", NOTHING),
    ],
    "add replace": [
        request(3, b"a", b"x", NOTHING),
        request(2, b"a", b"x", NOTHING),
        request(2, b"a", b"y", NOTHING),
        request(0x12, b"a", b"y", NOTHING),
        request(0x13, b"a", b"z", NOTHING),
        request(0x13, b"b", b"z", NOTHING),
    ],
    "delete": [
        request(4, b"a"),
        request(0x14, b"a"),
        request(1, b"a", b"x", NOTHING),
        request(4, b"a", cas=9),
        request(0x14, b"a"),
        request(0, b"a"),
    ],
    "increment decrement": [
        request(5, b"n", extras=struct.pack(">QQI", 3, 10, 0xFFFFFFFF)),
        request(5, b"n", extras=NUMBER),
        request(5, b"n", extras=NUMBER),
        request(6, b"n", extras=NUMBER),
        request(0x15, b"n", extras=NUMBER),
        request(0x16, b"n", extras=NUMBER),
        request(0, b"n"),
        request(1, b"s", b"x", NOTHING),
        request(5, b"s", extras=NUMBER),
    ],
    "append prepend": [
        request(0x0E, b"a", b"x"),
        request(1, b"a", b"m", NOTHING),
        request(0x0E, b"a", b">"),
        request(0x0F, b"a", b"<"),
        request(0x19, b"a", b">"),
        request(0x1A, b"a", b"<"),
        request(0, b"a"),
    ],
    "touch gat": [
        request(0x1C, b"a", extras=bytes(4)),
        request(1, b"a", b"v", NOTHING),
        request(0x1C, b"a", extras=bytes(4)),
        request(0x1D, b"a", extras=bytes(4)),
        request(0x1E, b"b", extras=bytes(4)),
        request(0x23, b"a", extras=bytes(4)),
        request(0x24, b"b", extras=bytes(4)),
    ],
    "flush": [
        request(1, b"a", b"v", NOTHING),
        request(8),
        request(0, b"a"),
        request(0x18),
        request(8, extras=bytes(4)),
    ],
    "noop version": [request(0x0A), request(0x0B)],
    "quit": [request(7), request(0x0A)],
    "quitq": [request(0x17), request(0x0A)],
    "stat that is not there": [request(0x10, b"nonsense")],
    "stat sizes": [request(0x10, b"sizes")],
    "sasl": [request(0x20), request(0x21, b"PLAIN", b"\0me\0secret"), request(0x22, b"PLAIN", b"x")],
    "unknown": [request(0x50), request(0x77)],
    "a key of 251": [request(0, K251), request(0x0A)],
    "a value too large": [request(1, b"a", b"x" * (1 << 20), NOTHING), request(0x0A)],
    "a body shorter than its key": [struct.pack(">BBHBBHIIQ", 0x80, 0, 10, 0, 0, 0, 5, 0, 0) + b"x" * 10],
    "extras that lack": [request(1, b"a", b"v"), request(0x0A)],
    "another magic": [request(0x0A), b"\x81" + request(0x0A)[1:]],
}


def converse(connect: Connect, data: bytes, mark: bytes, marked: bytes) -> bytes:
    """Sends all and then `mark`; what comes back until it is answered or the connection ends."""
    got = b""
    with closing(connect()) as s, contextlib.suppress(ConnectionResetError):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(data + mark)
        while not got.endswith(marked):
            part = s.recv(1 << 16)
            if not part:
                return got + b"<closed>"
            got += part
        return got
    return got + b"<closed>"


@pytest.fixture(scope="module")
def node() -> Iterator[CacheNode]:
    """A cache for each connection, so that each conversation starts with an empty one."""
    with serving(isolate="connection", template={"memory": 4 << 20}) as made:
        yield made


def of_program(path: str) -> Connect:
    def connect() -> socket.socket:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(TIMEOUT)
        s.connect(path)
        return s

    return connect


TIMES = re.compile(rb"(?<= t)\d\d+|(?<=la=)\d+|(?<=exp=-)\d\d+|(?<=cls=)\d+")


@pytest.mark.parametrize("name", TEXT)
def test_text(node: CacheNode, name: str) -> None:
    with program("-m", "64") as path:
        expected = converse(of_program(path), TEXT[name], MARK, MARKED)
    got = converse(node.connect, TEXT[name], MARK, MARKED)
    assert TIMES.sub(b"N", got) == TIMES.sub(b"N", expected)


@pytest.mark.parametrize("name", BINARY)
def test_binary(node: CacheNode, name: str) -> None:
    data, marked = b"".join(BINARY[name]), struct.pack(">BBHBBHIIQ", 0x81, 0x0A, 0, 0, 0, 0, 0, 0x55555555, 0)
    mark = request(0x0A)[:12] + b"UUUU" + bytes(8)
    with program("-m", "64") as path:
        expected = converse(of_program(path), data, mark, marked)
    assert converse(node.connect, data, mark, marked) == expected


def names(answer: bytes) -> list[bytes]:
    """The names in lines of statistics, without the numbers of classes and connections; other lines whole."""
    lines = [line for line in answer.split(b"\r\n") if not (line.startswith(b"STAT") and MACHINERY.search(line))]
    return [re.sub(rb"\d+", b"N", line.split()[1] if line.startswith(b"STAT") else line) for line in lines]


# Background threads, slab classes, segments of the LRU, external storage, TLS and other things of a process.
MACHINERY = re.compile(
    rb"slab_reassign|slabs_moved|slab_chunk|slab_automove_|lru_|_lru|moves_|direct_reclaims|hits_to_|number_(hot|warm|cold|temp)"
    rb"|age_(hot|warm)|(hot|warm)_|temporary_ttl|ext_|ssl_|hash_|log_|memory_file|tail_repair|worker_logbuf|watcher_logbuf|read_buf_mem"
    rb"|num_napi|client_flags_size|read_obj_mem|resp_obj_mem"
)


@pytest.mark.parametrize("section", ["", " settings", " items", " slabs", " sizes", " reset", " nonsense"])
def test_statistics_have_the_same_lines(node: CacheNode, section: str) -> None:
    data = b"set a 0 0 1\r\nx\r\nget a\r\nstats%s\r\n" % section.encode()
    with program("-m", "64") as path:
        expected = names(converse(of_program(path), data, MARK, MARKED))
    got = names(converse(node.connect, data, MARK, MARKED))
    assert got == expected


def test_statistics_of_connections() -> None:
    def lines(connect: Connect) -> dict[bytes, bytes]:
        answer = converse(connect, b"stats conns\r\n", MARK, MARKED).partition(b"END\r\n")[0]
        return {name: value for _, name, value in (line.split(b" ", 2) for line in answer.split(b"\r\n") if line)}

    with program_on_ports() as port, serving() as node, node.connect() as other:
        theirs = lines(lambda: socket.create_connection(("127.0.0.1", port), TIMEOUT))
        other.sendall(b"version\r\n")
        other.recv(100)
        ours = lines(node.connect)
        peer = b"tcp:127.0.0.1:%d" % other.getsockname()[1]
    kinds = {name.partition(b":")[2] for name in ours}
    assert kinds == {b"addr", b"listen_addr", b"state", b"secs_since_last_cmd"}
    assert kinds <= {name.partition(b":")[2] for name in theirs}
    assert peer in ours.values()
    assert len(ours) == 8
    assert {value for value in theirs.values() if value.startswith(b"conn_parse")} == {b"conn_parse_cmd"}
    assert b"conn_parse_cmd" in ours.values()


def test_statistics_count_alike(node: CacheNode) -> None:
    data = b"".join(
        [
            b"set a 0 0 2\r\n10\r\n",
            b"get a b\r\n",
            b"incr a 1\r\n",
            b"decr b 1\r\n",
            b"touch a 0\r\n",
            b"gat 0 b\r\n",
            b"delete a\r\n",
            b"delete a\r\n",
            b"cas a 0 0 1 1\r\nx\r\n",
            b"set a 0 0 1\r\nx\r\n",
            b"cas a 0 0 1 9999\r\nx\r\n",
            b"flush_all\r\n",
            b"get a\r\n",
        ]
    )

    def counts(connect: Connect) -> dict[bytes, bytes]:
        answer = converse(connect, data + b"stats\r\n", MARK, MARKED)
        lines = dict(line.split()[1:3] for line in answer.split(b"\r\n") if line.startswith(b"STAT"))
        prefixes = (b"cmd_", b"get_", b"incr_", b"decr_", b"delete_", b"cas_", b"touch_", b"curr_items", b"total_items")
        return {name: value for name, value in lines.items() if name.startswith(prefixes)}

    with program("-m", "64") as path:
        expected = counts(of_program(path))
    assert counts(node.connect) == expected


@pytest.mark.parametrize("command", [b"get a n", b"gets n a a", b"gat 1000 n a", b"get" + 30 * b" n" + b" a"])
def test_keys_before_one_that_is_too_long_are_read(node: CacheNode, command: bytes) -> None:
    """Nobody is told, but they count, and `mg` shows that the item was read, and how long it lives."""
    ends = (b"STORED\r\n", b"format\r\n", b"\r\n", b"END\r\n")
    asked = (b"set a 0 0 1\r\nx\r\n", command + b" " + K251 + b" a\r\n", b"mg a h t\r\n", b"stats\r\n")

    def answers(s: socket.socket) -> list[bytes]:
        *before, statistics = [ask(s, data, end) for data, end in zip(asked, ends, strict=True)]
        lines = [line for line in statistics.split(b"\r\n") if b" get_" in line or b"touch" in line or b" cmd_" in line]
        return [*(TIMES.sub(b"N", answer) for answer in before), *lines]

    with program("-m", "64") as path, closing(of_program(path)()) as theirs, closing(node.connect()) as ours:
        assert answers(ours) == answers(theirs)


@pytest.mark.parametrize(
    "command", [b"set a 0 2 1\r\nx\r\n", b"set a 0 0 1\r\nx\r\nflush_all 2\r\n", b"ms a 1 T2\r\nx\r\n"]
)
def test_time_passes_alike(node: CacheNode, command: bytes) -> None:
    """Present at once, and gone in the end, in both."""
    with program("-m", "64") as path, closing(of_program(path)()) as theirs, closing(node.connect()) as ours:
        gone: dict[socket.socket, float] = {}
        for s in (theirs, ours):
            assert b"VALUE a 0 1\r\nx\r\n" in ask(s, command + b"get a\r\n", b"END\r\n")
        end = time.monotonic() + TIMEOUT
        while len(gone) < 2:
            assert time.monotonic() < end
            for s in (theirs, ours):
                if ask(s, b"get a\r\n", b"END\r\n") == b"END\r\n":
                    gone.setdefault(s, time.monotonic())
            time.sleep(0.05)


def test_udp_is_answered_alike() -> None:
    requests = [
        (b"\0\1\0\0\0\1\0\0set a 0 0 3000\r\n" + b"v" * 3000 + b"\r\n", 1),
        (b"\0\2\0\0\0\1\0\0get a\r\n", 3),
        (b"\0\3\0\0\0\1\0\0get a a b\r\n", 5),
        (b"\0\4\0\0\0\1\0\0delete a\r\nget a\r\n", 2),
        (b"\0\5\0\0\0\1\0\0nonsense\r\n", 1),
        (b"\xff\xff\0\0\0\1\0\0version\r\n", 1),
        (b"\0\6\0\0\0\1\0\0set a 0 0 1 noreply\r\nx\r\nget a\r\n", 1),
    ]

    def answers(port: int) -> list[list[bytes]]:
        got = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(TIMEOUT)
            s.connect(("127.0.0.1", port))
            for data, count in requests:
                s.send(data)
                got.append(sorted(s.recv(2000) for _ in range(count)))
        return got

    with program_on_ports() as port, serving("udp", template={"memory": 4 << 20}) as node:
        assert answers(node.port) == answers(port)


@contextlib.contextmanager
def program_on_ports() -> Iterator[int]:
    """A memcached program on a TCP and UDP port of loopback."""
    with closing(socket.socket()) as tcp, closing(socket.socket(type=socket.SOCK_DGRAM)) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        port = int(tcp.getsockname()[1])
    user = ["-u", "root"] if os.geteuid() == 0 else []
    command = [str(PROGRAM), *user, "-l", "127.0.0.1", "-p", str(port), "-U", str(port), "-t", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + TIMEOUT
            while True:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < end, "memcached did not start"
                time.sleep(0.02)
            yield port
        finally:
            process.kill()
