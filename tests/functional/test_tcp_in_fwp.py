"""TCP within the FWP: a guest with a TCP of its own behind an AF_XDP port, and Linux's TCP as its client."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stream_harness import exchange, is_cut_off, read_all, read_exactly
from tcp_lab import PORT, Serving, needs_afxdp, serving

from edgeos.testing import internet_checksum

pytestmark = needs_afxdp

V4, V6 = socket.AF_INET, socket.AF_INET6
MEGABYTE = 1 << 20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def bytes_of(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def source_bytes(count: int) -> bytes:
    """What the guest `source` sends."""
    period = bytes((i * 31 + i // 256) & 255 for i in range(65536))
    return (period * (count // 65536 + 1))[:count]


def echo_all(sockets: Sequence[socket.socket], count: int) -> None:
    """Each sends bytes of its own and ends, all at once; each gets back what it sent."""
    sent = [bytes_of(number, count) for number in range(len(sockets))]
    with ThreadPoolExecutor(len(sockets)) as pool:
        for number, got in enumerate(pool.map(exchange, sockets, sent)):
            assert len(got) == count, number
            assert got == sent[number], (number, next(i for i, byte in enumerate(got) if byte != sent[number][i]))
    for s in sockets:
        s.close()


@pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("relayed", [False, True], ids=["veth", "relay"])
def test_an_echo(tmp_path: Path, family: socket.AddressFamily, relayed: bool) -> None:
    with serving("echo.c", tmp_path, relayed=relayed) as service, service.connect(family) as s:
        for length in (1, 1000, 5000):
            s.sendall(bytes(length))
            assert read_exactly(s, length) == bytes(length)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b""
        service.wait_until(lambda: service.counter("closed") == 1)
        assert service.counter("tcp_malformed") == 0


@pytest.mark.parametrize("config", [b"", b"send"], ids=["verdict", "send"])
@pytest.mark.parametrize("isolate", ["client", "flow"])
def test_megabytes_come_back_over_several_connections(tmp_path: Path, isolate: str, config: bytes) -> None:
    count = 10_000 if config else 2 * MEGABYTE  # by edgeos_send it drops what there is no room for
    with serving("echo.c", tmp_path, isolate=isolate, template={"config": config}) as service:
        echo_all([service.connect(family) for family in (V4, V6, V4, V4)], count)
        assert service.counter("cut_short") == 0


def test_much_comes_back_over_one_connection(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path) as service:
        echo_all([service.connect()], 8 * MEGABYTE)


@pytest.mark.parametrize(("isolate", "fwps"), [("client", 3), ("flow", 4)])
def test_who_shares_an_fwp(tmp_path: Path, isolate: str, fwps: int) -> None:
    with serving("echo.c", tmp_path, isolate=isolate) as service:
        sockets = [service.connect(V4, 2), service.connect(V4, 2), service.connect(V4, 3), service.connect(V6, 2)]
        service.wait_until(lambda: service.counter("opened") == 4)
        assert service.node.statistics().chain("service").live == fwps
        echo_all(sockets, 10_000)


def test_the_service_ends_first_and_still_hears(tmp_path: Path) -> None:
    with serving("source.c", tmp_path) as service, service.connect() as s:
        s.sendall((5000).to_bytes(4, "little"))
        assert read_all(s) == source_bytes(5000)
        s.sendall(bytes(100_000))
        service.wait_until(lambda: service.counter("heard") == 100_000)


def test_who_comes_back_from_the_same_port_is_served_again(tmp_path: Path) -> None:
    """The service closes first, so the guest's end waits for late segments when the same port opens again."""
    with serving("greet_and_close.c", tmp_path) as service:
        with service.connect() as s:
            port = s.getsockname()[1]
            assert read_all(s)
        for _ in range(2):
            time.sleep(0.1)  # for the last acknowledgement
            with service.connect(port=port) as s:
                got = read_all(s)
                assert got == b"x" * len(got)
                assert len(got) > 50_000  # as much as the service could send at once
        assert service.counter("tcp_opened") == 3


def test_a_client_that_resets(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path) as service, service.connect() as stays, service.connect() as s:
        s.sendall(b"x")
        assert s.recv(10) == b"x"
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        s.close()
        service.wait_until(lambda: service.counter("closed") == 1)
        echo_all([stays], 100_000)


def test_a_service_that_closes_in_open(tmp_path: Path) -> None:
    with serving("turn_away.c", tmp_path) as service:
        for _ in range(3):
            with service.connect() as s:
                assert is_cut_off(s)
        assert service.counter("turned_away") == 3


def test_a_slow_reader_keeps_no_other_connection_waiting(tmp_path: Path) -> None:
    count = 2 * MEGABYTE
    with serving("source.c", tmp_path) as service:
        with service.connect(receive_buffer=4096) as slow, service.connect() as quick:
            slow.sendall(count.to_bytes(4, "little"))
            service.wait_until(lambda: service.counter("cut_short") > 0)
            quick.sendall((300_000).to_bytes(4, "little"))
            assert read_all(quick) == source_bytes(300_000)
            assert read_exactly(slow, count) == source_bytes(count)
            assert read_all(slow) == b""
        assert service.counter("rooms") > 0


def test_a_client_that_does_not_read_stops_its_own_sending(tmp_path: Path) -> None:
    """Both windows close, are asked about, and open again."""
    sent = bytes_of(1, 2 * MEGABYTE)
    with serving("echo.c", tmp_path) as service, service.connect(receive_buffer=4096) as s, service.connect() as other:
        sender = threading.Thread(target=lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR)))
        sender.start()
        time.sleep(1.2)
        assert sender.is_alive()
        echo_all([other], 200_000)
        assert read_all(s) == sent
        sender.join()


TROUBLES = {
    "1 % lost": {"lost": 0.01},
    "5 % lost": {"lost": 0.05},
    "reordered": {"late": 0.1},
    "doubled": {"doubled": 0.1},
    "spoiled": {"spoiled": 0.03},
    "delayed": {"delay": 0.01},
    "all": {"lost": 0.01, "late": 0.05, "doubled": 0.03, "spoiled": 0.01, "delay": 0.002},
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_megabyte_both_ways_over_a_bad_link(tmp_path: Path, name: str) -> None:
    with serving("echo.c", tmp_path, relayed=True) as service:
        sockets = [service.connect(V4), service.connect(V6)]
        vars(service.relay).update(TROUBLES[name])
        echo_all(sockets, MEGABYTE // 8 if "5 %" in name else MEGABYTE // 2)  # much loss takes many timeouts
        service.wait_until(lambda: service.counter("closed") == 2)
        assert (service.counter("tcp_malformed") > 0) == ("spoiled" in TROUBLES[name])


FIN, SYN, RST, ACK = 1, 2, 4, 16


def flags_of(frame: bytes) -> int:
    """Those of a TCP segment over IPv4, else 0."""
    return frame[47] if frame[12:14] == b"\x08\x00" and frame[23] == 6 else 0


@pytest.mark.parametrize(
    ("to_node", "mask", "flags"),
    [
        pytest.param(True, SYN, SYN, id="SYN"),
        pytest.param(False, SYN, SYN, id="SYN-ACK"),
        pytest.param(True, SYN | ACK, ACK, id="the handshake's last"),
        pytest.param(True, FIN, FIN, id="the client's FIN"),
        pytest.param(False, FIN, FIN, id="the service's FIN"),
    ],
)
def test_a_lost_segment_of_begin_or_end(tmp_path: Path, to_node: bool, mask: int, flags: int) -> None:
    with serving("echo.c", tmp_path, relayed=True) as service:
        lost = service.relay.lose_one(to_node, lambda frame: flags_of(frame) & mask == flags)
        with service.connect() as s:
            assert exchange(s, b"all the same") == b"all the same"
        service.wait_until(lambda: service.counter("closed") == 1)
        assert len(lost) == 1
        assert service.counter("tcp_opened") == 1


class Watched:
    """A connection whose last segments are known, so that others of it can be forged."""

    def __init__(self, service: Serving) -> None:
        self.last: dict[bool, bytes] = {}
        service.relay.loses = self._see
        self.raw = service.lab.raw()
        self.socket = service.connect()
        assert self.echo(b"seen") == b"seen"
        time.sleep(0.1)  # for the acknowledgement

    def _see(self, to_node: bool, frame: bytes) -> bool:
        if flags_of(frame):
            self.last[to_node] = frame
        return False

    def echo(self, data: bytes) -> bytes:
        self.socket.sendall(data)
        return read_exactly(self.socket, len(data))

    def forge(self, flags: int, *, ahead: int = 0, ack_ahead: int = 0, data: bytes = b"", port: int = 0) -> None:
        """A segment as from the client, so many bytes ahead of what it would send."""
        frame = self.last[True]
        sport = port or int.from_bytes(frame[34:36], "big")
        seq, ack = (int.from_bytes(frame[at : at + 4], "big") for at in (38, 42))
        words = (sport, PORT, (seq + ahead) & 0xFFFFFFFF, (ack + ack_ahead) & 0xFFFFFFFF, 0x5000 | flags, 1000, 0, 0)
        segment = struct.pack("!HHIIHHHH", *words) + data
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 6, 0, frame[26:30], frame[30:34])
        pseudo = frame[26:34] + struct.pack("!HH", 6, len(segment))
        segment = segment[:16] + checksum(pseudo + segment) + segment[18:]
        self.raw.send(frame[:14] + header[:10] + checksum(header) + header[12:] + segment)

    def answer_to(self, port: int) -> bytes:
        """The next segment of the guest to this port of the client."""
        while True:
            frame = self.raw.recv(2048)
            if flags_of(frame) and frame[34:38] == struct.pack("!HH", PORT, port):
                return frame


def checksum(data: bytes) -> bytes:
    return internet_checksum(data).to_bytes(2, "big")


def test_forged_segments_do_no_harm(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path, relayed=True) as service:
        watched = Watched(service)
        for flags, ahead, ack_ahead in [
            (RST, 1, 0),  # within the window, not where the next byte is: a challenge
            (RST, 5000, 0),
            (RST, 1_000_000_000, 0),
            (SYN, 0, 0),
            (SYN, 77, 0),
            (ACK, 0, 1_000_000),  # acknowledges what was never sent
            (ACK, 0, -2_000_000_000),
        ]:
            watched.forge(flags, ahead=ahead, ack_ahead=ack_ahead, data=b"forged" if flags == ACK else b"")
            assert watched.echo(b"well") == b"well"
            time.sleep(0.02)
        watched.raw.close()
        with watched.socket as s:
            assert exchange(s, bytes_of(7, 100_000)) == bytes_of(7, 100_000)
        service.wait_until(lambda: service.counter("closed") == 1)
        assert service.counter("tcp_opened") == 1


@pytest.mark.parametrize(
    ("flags", "answer"), [(ACK, RST), (FIN | ACK, RST), (SYN | ACK, RST), (0, RST | ACK), (RST, 0)]
)
def test_a_segment_of_no_connection_is_answered_by_a_reset(tmp_path: Path, flags: int, answer: int) -> None:
    with serving("echo.c", tmp_path, relayed=True) as service:
        watched = Watched(service)
        with watched.raw, watched.socket:
            watched.forge(flags, port=9)
            if answer:
                assert flags_of(watched.answer_to(9)) == answer
            assert watched.echo(b"on") == b"on"


def test_a_flood_of_openings_leaves_those_that_are_there(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path, relayed=True, max_fwps=8) as service:
        watched = Watched(service)
        with watched.raw, watched.socket:
            mine = watched.last[True]
            for number in range(2000):
                watched.last[True] = mine[:26] + bytes([10, 80, number >> 8, number & 255]) + mine[30:]
                watched.forge(SYN)
                if number % 100 == 0:
                    watched.last[True] = mine
                    assert watched.echo(b"still") == b"still"
        statistics = service.node.statistics()
        assert statistics.chain("service").live <= 8
        assert statistics.dropped["max_fwps"] > 0, statistics


def test_fwps_are_free_again_when_their_connections_have_ended(tmp_path: Path) -> None:
    """Also those whose service closes first, once late segments need not be feared any more."""
    with serving("echo.c", tmp_path, isolate="flow", max_fwps=4) as service:
        for number in range(100):
            with service.connect(V6 if number % 2 else V4) as s:
                assert exchange(s, b"a connection, an FWP") == b"a connection, an FWP"
            service.wait_until(lambda: service.node.statistics().chain("service").live <= 3)
        service.wait_until(lambda: service.node.statistics().chain("service").live == 0)
        assert service.node.statistics().chain("service").activations == 100


def test_an_fwp_waits_for_late_segments_when_the_service_has_closed_first(tmp_path: Path) -> None:
    with serving("turn_away.c", tmp_path) as service:
        with service.connect() as s:
            assert is_cut_off(s)
        time.sleep(0.5)
        assert service.node.statistics().chain("service").live == 1
        time.sleep(2)
        assert service.node.statistics().chain("service").live == 0


def test_a_client_keeps_its_fwp_while_any_connection_is_there(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path) as service:
        with service.connect() as stays:
            echo_all([service.connect() for _ in range(5)], 1000)
            service.wait_until(lambda: service.counter("closed") == 5)
            assert service.node.statistics().chain("service").live == 1
            echo_all([stays], 1000)
        service.wait_until(lambda: service.node.statistics().chain("service").live == 0)


def test_one_connection_too_many_is_refused(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path, defines={"EDGEOS_TCP_CONNECTIONS": 4}) as service:
        sockets = [service.connect() for _ in range(4)]
        with pytest.raises(ConnectionRefusedError):
            service.connect()
        assert service.counter("tcp_refused") == 1
        echo_all([service.connect(V4, 3)], 1000)  # another client's FWP
        echo_all(sockets, 10_000)
        service.wait_until(lambda: service.counter("closed") == 5)
        echo_all([service.connect()], 1000)


def test_idle_connections_use_no_cpu(tmp_path: Path) -> None:
    with serving("echo.c", tmp_path) as service:
        sockets = [service.connect(V4, number) for number in (2, 3, 4) for _ in range(10)]
        for s in sockets:
            s.sendall(b"x")
            assert s.recv(10) == b"x"
        time.sleep(0.5)
        before, start = os.times(), time.monotonic()
        time.sleep(1.5)
        used = sum(os.times()[:2]) - sum(before[:2])
        assert used < 0.05 * (time.monotonic() - start)
        for s in sockets:
            s.close()
