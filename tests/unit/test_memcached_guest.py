"""The memcached appliance alone: each protocol, limits, hostile input, slow readers, memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from guest_harness import GuestRefusedError
from memcached_harness import CLOSED, HALF_CLOSED, ROOM, GuestCache

from edgeos import GuestError, TemplateSettings
from edgeos.code_cache import CodeCache
from edgeos.guest import load_guest
from edgeos.settings import Grants

SECOND_NS = 1_000_000_000


def ask(cache: GuestCache, text: str, connection: int = 1) -> str:
    return cache.ask(connection, text.replace("\n", "\r\n").encode()).decode().replace("\r\n", "\n")


def binary(
    opcode: int, key: bytes = b"", value: bytes = b"", extras: bytes = b"", cas: int = 0, opaque: int = 7
) -> bytes:
    body = len(key) + len(value) + len(extras)
    return (
        struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, body, opaque, cas) + extras + key + value
    )


def answers(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Opcode, status, CAS and body of each answer."""
    found = []
    while data:
        magic, opcode, _, _, _, status, body, opaque, cas = struct.unpack_from(">BBHBBHIIQ", data)
        assert (magic, opaque) == (0x81, 7)
        found.append((opcode, status, cas, data[24 : 24 + body]))
        data = data[24 + body :]
    return found


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("set a 5 0 3\nabc\nget a\n", "STORED\nVALUE a 5 3\nabc\nEND\n"),
        ("get a b c\n", "END\n"),
        ("add a 0 0 1\nx\nadd a 0 0 1\ny\nget a\n", "STORED\nNOT_STORED\nVALUE a 0 1\nx\nEND\n"),
        ("replace a 0 0 1\nx\nappend a 0 0 1\nx\nprepend a 0 0 1\nx\n", "NOT_STORED\n" * 3),
        (
            "set a 1 0 1\nb\nappend a 9 0 1\nc\nprepend a 9 0 1\na\ngets a\n",
            "STORED\n" * 3 + "VALUE a 1 3 3\nabc\nEND\n",
        ),
        ("set a 0 0 1\nx\ncas a 0 0 1 1\ny\ncas a 0 0 1 1\nz\ncas b 0 0 1 1\nz\n",
         "STORED\nSTORED\nEXISTS\nNOT_FOUND\n"),
        ("set a 0 0 2\n10\ndecr a 1\nget a\nincr a 18446744073709551615\n", "STORED\n9\nVALUE a 0 2\n9 \nEND\n8\n"),
        ("set a 0 0 1\nx\nincr a 1\n", "STORED\nCLIENT_ERROR cannot increment or decrement non-numeric value\n"),
        ("incr a x\n", "CLIENT_ERROR invalid numeric delta argument\n"),
        ("set a 0 0 1 noreply\nx\nget a\n", "VALUE a 0 1\nx\nEND\n"),
        ("set a 0 -1 1\nx\nget a\n", "STORED\nEND\n"),
        ("set a 0 0 3\nabcd\n", "CLIENT_ERROR bad data chunk\nERROR\n"),
        ("set a 0 0 -1\n", "CLIENT_ERROR bad command line format\n"),
        ("delete a\nset a 0 0 1\nx\ndelete a 0\ndelete a 5\n",
         "NOT_FOUND\nSTORED\nDELETED\nCLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\n"),
        ("set a 0 0 1\nx\nflush_all\nget a\n", "STORED\nOK\nEND\n"),
        ("set a 0 0 1\nx\ntouch a 9\ntouch b 9\ngat 0 a\n", "STORED\nTOUCHED\nNOT_FOUND\nVALUE a 0 1\nx\nEND\n"),
        ("version\nverbosity 1\nshutdown\nfoo\n\n", "VERSION 1.6.18\nOK\nERROR: shutdown not enabled\nERROR\nERROR\n"),
        (f"get {'k' * 251}\n", "CLIENT_ERROR bad command line format\n"),
        (f"set {'k' * 250} 0 0 1\nx\n", "STORED\n"),
        ("set a 0 0 2000000\n" + "x" * 2_000_000 + "\nget a\n", "SERVER_ERROR object too large for cache\nEND\n"),
        ("ms a 2 F3 c O1 k\nhi\nmg a v f s k O2\nmg b\nmn\n", "HD c1 O1 ka\nVA 2 f3 s2 ka O2\nhi\nEN\nMN\n"),
        ("ms YWI= 1 b k\nx\nmg YWI= b k v\nget ab\n", "HD kYWI= b\nVA 1 kYWI= b\nx\nVALUE ab 0 1\nx\nEND\n"),
        ("mg a N30 v\nmg a N30 v\n", "VA 0 W\n\nVA 0 Z\n\n"),
        ("ma n\nma n N0 J13 v\nma n D2 v\nma n MD D20 v\n", "NF\nVA 2\n13\nVA 2\n15\nVA 1\n0\n"),
        ("set a 0 0 1\nx\nmd a I T30\nmg a v t\nmd a q\nmd a q\n", "STORED\nHD\nVA 1 t30 X W\nx\nNF\n"),
        ("mg a v v\nmd a Z\n", "CLIENT_ERROR duplicate flag\nCLIENT_ERROR invalid or duplicate flag\n"),
    ],
)  # fmt: skip
def test_text(asked: str, answered: str) -> None:
    whole, byte_by_byte = GuestCache(), GuestCache()
    assert ask(whole, asked) == answered
    if len(asked) < 1000:
        byte_by_byte.send(1, asked.replace("\n", "\r\n").encode(), piece=1)
        assert byte_by_byte.take(1).decode().replace("\r\n", "\n") == answered


def test_expiry_follows_the_time_of_messages() -> None:
    cache = GuestCache()
    assert ask(cache, "set a 0 10 1\nx\n") == "STORED\n"
    absolute = cache.time_ns // SECOND_NS + 20
    assert ask(cache, f"set b 0 {absolute} 1\nx\nflush_all 30\nset c 0 0 1\nx\n") == "STORED\nOK\nSTORED\n"
    for seconds, alive in ((9, "abc"), (11, "bc"), (21, "c"), (31, "")):
        start = cache.time_ns
        cache.time_ns += seconds * SECOND_NS
        found = "".join(f"VALUE {key} 0 1\nx\n" for key in alive)
        assert ask(cache, "get a b c\n") == found + "END\n"
        cache.time_ns = start  # a clock that goes back does not bring anything back
    assert ask(cache, "get a b c\n") == "END\n"


def test_binary() -> None:
    cache = GuestCache()
    sent = b"".join(
        [
            binary(1, b"k", b"v", struct.pack(">II", 5, 0)),  # set
            binary(0, b"k"),
            binary(0x0D, b"miss"),  # getkq: silent
            binary(0x0C, b"k"),  # getk
            binary(2, b"k", b"w", bytes(8)),  # add
            binary(0x11, b"q", b"1", bytes(8)),  # setq: silent
            binary(5, b"q", extras=struct.pack(">QQI", 4, 0, 0)),
            binary(5, b"new", extras=struct.pack(">QQI", 4, 9, 0)),
            binary(4, b"q", cas=99),
            binary(4, b"q"),
            binary(4, b"q"),
            binary(0x20),  # SASL
            binary(0x0A),
            binary(0x0B),
            binary(0x77),
        ]
    )
    assert answers(cache.ask(1, sent)) == [
        (1, 0, 1, b""),
        (0, 0, 1, b"\0\0\0\5v"),
        (0x0C, 0, 1, b"\0\0\0\5kv"),
        (2, 2, 0, b"Data exists for key."),
        (5, 0, 3, struct.pack(">Q", 5)),
        (5, 0, 4, struct.pack(">Q", 9)),
        (4, 2, 0, b"Data exists for key."),
        (4, 0, 0, b""),
        (4, 1, 0, b"Not found"),
        (0x20, 0x81, 0, b"Unknown command"),
        (0x0A, 0, 0, b""),
        (0x0B, 0, 0, b"1.6.18"),
        (0x77, 0x81, 0, b"Unknown command"),
    ]
    assert answers(cache.ask(1, binary(0x07))) == [(7, 0, 0, b"")]
    assert cache.closed == {1}


def test_datagrams_carry_the_number_of_their_request() -> None:
    cache = GuestCache()
    value = "v" * 3000
    ask(cache, f"set a 0 0 3000\n{value}\n")
    got = cache.ask_datagram(b"\x12\x34\0\0\0\1\0\0get a\r\n")
    assert [part[:8] for part in got] == [bytes([0x12, 0x34, 0, i, 0, 3, 0, 0]) for i in range(3)]
    assert b"".join(part[8:] for part in got) == f"VALUE a 0 3000\r\n{value}\r\nEND\r\n".encode()
    assert all(len(part) <= 1400 for part in got)
    assert cache.ask_datagram(b"\0\1\0\0\0\2\0\0version\r\n") == []
    assert cache.ask_datagram(b"\0\1\0\0") == []


def test_slow_readers_get_everything_in_order() -> None:
    cache = GuestCache("memory 4m", room=700)
    values = {f"k{i}": bytes([65 + i]) * (i * 997) for i in range(20)}
    for key, value in values.items():
        cache.send(2, f"set {key} 0 0 {len(value)}\r\n".encode() + value + b"\r\n")
        cache.drain(2)
    cache.send(1, b"get " + " ".join(values).encode() + b"\r\nversion\r\n" + b"get k3\r\n" * 50)
    cache.send(2, b"delete k19\r\n" + b"".join(b"set k%d 0 0 1\r\nx\r\n" % i for i in range(20)))
    blocks = [f"VALUE {key} 0 {len(value)}\r\n".encode() + value + b"\r\n" for key, value in values.items()]
    expected = b"".join(blocks) + b"END\r\nVERSION 1.6.18\r\n"
    got = cache.drain(1)
    assert got[: len(expected)] == expected  # as they were when they were asked for
    assert got[len(expected) :] == b"VALUE k3 0 1\r\nx\r\nEND\r\n" * 50  # read only when the first had left


def test_a_client_that_has_finished_gets_its_answers() -> None:
    cache = GuestCache(room=3)
    cache.send(1, b"version\r\nversion\r\n")
    cache.message(HALF_CLOSED, 1)
    assert cache.drain(1) == b"VERSION 1.6.18\r\n" * 2
    assert cache.closed == {1}


def test_ten_thousand_pipelined_commands() -> None:
    cache = GuestCache("memory 4m")
    cache.send(1, b"".join(b"set k%d 0 0 4\r\n%04d\r\n" % (i, i) for i in range(10_000)))
    assert cache.take(1) == b"STORED\r\n" * 10_000
    cache.send(1, b"".join(b"get k%d\r\n" % i for i in range(10_000)))
    assert cache.take(1) == b"".join(b"VALUE k%d 0 4\r\n%04d\r\nEND\r\n" % (i, i) for i in range(10_000))


@pytest.mark.parametrize("data", [b"x" * 1_000_000, b"\x80" + bytes(range(256)) * 50, b"\x80\xff" * 20_000])
def test_noise_closes_the_connection_and_nothing_else(data: bytes) -> None:
    cache = GuestCache("memory 256k")
    cache.send(1, data)
    assert 1 in cache.closed
    assert ask(cache, "set a 0 0 1\nx\nget a\n", connection=2) == "STORED\nVALUE a 0 1\nx\nEND\n"
    cache.message(CLOSED, 2)


def test_half_a_command_and_silence_holds_little() -> None:
    cache = GuestCache("memory 256k")
    for flow in range(1, 200):
        cache.send(flow, b"set k 0 0 100\r\nabc")
    assert ask(cache, "get k\n", connection=999) == "END\n"
    for flow in range(1, 200):
        cache.message(CLOSED, flow)
    assert "STAT curr_connections 1\n" in ask(cache, "stats\n", connection=999)


def test_what_was_not_used_longest_is_evicted_and_counted() -> None:
    cache = GuestCache("memory 128k")
    for i in range(400):
        assert ask(cache, f"set k{i} 0 0 1000\n{'x' * 1000}\nget k0\n").startswith("STORED\nVALUE k0 ")
    stats = dict(line.split()[1:3] for line in ask(cache, "stats\n").splitlines() if line.startswith("STAT"))
    assert int(stats["evictions"]) + int(stats["curr_items"]) == 400
    assert ask(cache, "get k1\n") == "END\n"
    assert ask(cache, "get k399\n").startswith("VALUE")
    assert cache.guest.counters()["evicted"] == int(stats["evictions"])
    assert ask(cache, f"set big 0 0 900000\n{'x' * 900_000}\n") == "SERVER_ERROR out of memory storing object\n"


def test_evictions_can_be_switched_off() -> None:
    cache = GuestCache("memory 64k\nevictions off")
    results = [ask(cache, f"set k{i} 0 0 1000\n{'x' * 1000}\n") for i in range(100)]
    full = results.index("SERVER_ERROR out of memory storing object\n")
    assert full > 10
    assert ask(cache, "get k0\n").startswith("VALUE")


def test_a_large_value_comes_back_whole() -> None:
    cache = GuestCache("memory 4m")
    value = bytes(range(256)) * 4000
    cache.send(1, b"set big 0 0 %d\r\n" % len(value) + value + b"\r\nget big\r\n")
    assert cache.take(1) == b"STORED\r\nVALUE big 0 %d\r\n" % len(value) + value + b"\r\nEND\r\n"


def test_memory_is_given_back_and_used_again() -> None:
    cache = GuestCache("memory 512k")
    for round_number in range(30):
        size = 500 + 397 * round_number
        for i in range(60):
            assert ask(cache, f"set k{i} 0 0 {size}\n{'v' * size}\n") == "STORED\n"
        for i in range(60):
            ask(cache, f"delete k{i}\n")
    stats = ask(cache, "stats slabs\n")
    assert "STAT active_slabs 0" in stats
    assert int(stats.split("total_malloced ")[1].split()[0]) <= 512 * 1024


def test_an_idle_client_with_ten_small_items_fits_in_16_kib() -> None:
    cache = GuestCache()
    for i in range(10):
        assert ask(cache, f"set key{i} 0 0 20\n{'x' * 20}\n") == "STORED\n"
    assert cache.touched() <= 16 * 1024


def test_each_cache_draws_a_key_for_its_hash_when_its_first_message_comes() -> None:
    caches = [GuestCache(), GuestCache()]
    assert [cache.guest.drawn for cache in caches] == [[], []]
    for cache in caches * 2:
        assert ask(cache, "set a 0 0 1\nx\n") == "STORED\n"
    assert [len(cache.guest.drawn) for cache in caches] == [1, 1]
    one, other = (cache.guest.drawn[0] for cache in caches)
    assert len(one) == len(other) == 16
    assert one != other


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes in another way")
@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 100, 250])
def test_keys_are_hashed_by_siphash(length: int) -> None:
    key = "".join(chr(97 + i % 26) for i in range(length))
    code = f"print(hash({key!r}.encode()) & (1 << 64) - 1)"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # under a key of zeros
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    expected = int(found.stdout)
    cache = GuestCache()
    cache.guest.draw = bytes
    assert ask(cache, f"set {key} 0 0 9\n<a value>\n") == "STORED\n"
    memory = cache.guest.read(0, cache.guest.memory_size())
    at = memory.rindex(f"{key}<a value>".encode())
    assert memory[at - 8 : at - 4] == ((expected ^ expected >> 32) & 0xFFFFFFFF).to_bytes(4, "little")


def test_memory_grows_with_the_data_only() -> None:
    cache = GuestCache()
    held = 0
    for i in range(200):
        size = 37 * (i % 60) + 1
        assert ask(cache, f"set key{i} 0 0 {size}\n{'x' * size}\n") == "STORED\n"
        held += size + 72  # key, CR LF, header of the item and of its block
        if i % 20 == 0:
            ask(cache, "get " + " ".join(f"key{j}" for j in range(i)) + "\n")
            assert cache.touched() <= 24 * 1024 + held
    assert cache.touched() > held // 2


def test_statistics_have_the_usual_sections() -> None:
    cache = GuestCache()
    written = len(ask(cache, "set a 0 0 1\nx\nget a\nget b\n").replace("\n", "\r\n"))
    general = ask(cache, "stats\n")
    assert f"STAT bytes_written {written}\n" in general
    for line in ("STAT cmd_get 2", "STAT get_hits 1", "STAT get_misses 1", "STAT curr_items 1", "STAT bytes 61"):
        assert f"{line}\n" in general
    assert general.endswith("END\n")
    assert "STAT item_size_max 1048576\n" in ask(cache, "stats settings\n")
    assert "STAT items:1:number 1\n" in ask(cache, "stats items\n")
    assert "STAT 1:cmd_set 1\n" in ask(cache, "stats slabs\n")
    assert ask(cache, "stats sizes\n") == "STAT sizes_status disabled\nEND\n"
    assert ask(cache, "stats sizes_enable\nset b 0 0 1\nx\nstats sizes\n").endswith("STORED\nSTAT 64 1\nEND\n")
    assert ":state conn_parse_cmd\n" in ask(cache, "stats conns\n")
    assert ask(cache, "stats nonsense\n") == "ERROR\n"
    assert ask(cache, "stats reset\n") == "RESET\n"
    assert "STAT get_hits 0\n" in ask(cache, "stats\n")
    assert ask(cache, "stats cachedump 1 0\n") == "ITEM b [1 b; 0 s]\nITEM a [1 b; 0 s]\nEND\n"


def test_room_without_anything_to_send_is_harmless() -> None:
    cache = GuestCache()
    cache.send(1, b"version\r\n")
    cache.message(ROOM, 1)
    assert cache.take(1) == b"VERSION 1.6.18\r\n"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("memory", "line 1: write one setting and its value"),
        ("# sizes\nmemory 5", "line 2: memory must be a size of 16k or more, as 512k or 8m"),
        ("item_size 1g", "line 1: item_size must be a size from 1k to 128m"),
        ("evictions maybe", "line 1: evictions must be on or off"),
        ("colour red", "line 1: unknown setting; allowed here: memory, item_size, evictions"),
    ],
)
def test_configuration_mistakes_are_named(config: str, reason: str) -> None:
    with pytest.raises(GuestRefusedError, match=reason):
        GuestCache(config)


def test_its_own_slots_are_used_without_a_warning(tmp_path: Path) -> None:
    lines: list[str] = []
    template = TemplateSettings(name="cache", appliance="memcached", grant=Grants(random=True))
    layout = load_guest(template, CodeCache(tmp_path), lines.append).layout
    assert (layout.slots, layout.slot_size) == (8, 4096)
    assert [line for line in lines if "warning" in line] == []
    asked = load_guest(replace(template, slots=16, slot_size=2048), CodeCache(tmp_path), lines.append).layout
    assert (asked.slots, asked.slot_size) == (16, 2048)
    assert [line for line in lines if "warning" in line] == []


def test_without_its_grant_it_is_refused() -> None:
    with pytest.raises(GuestError, match=r"grant = \{ random = true \}"):
        load_guest(TemplateSettings(name="cache", appliance="memcached"), CodeCache())
