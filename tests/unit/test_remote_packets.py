"""The clients of `edgeos bench listen` that speak TCP by themselves, against a service made of packets."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeos.bench.listen import Load, load_of
from edgeos.bench.programs import Programs
from edgeos.testing import tcp_packet

SERVICE, PORT, CLIENT = "10.201.0.1", 7777, "10.202.1.1"
SERVICE_MAC, ROUTER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
OFFLOAD_BYTES, IP_AT, TCP_AT = 10, 14, 34
VERIFIED = bytes([2, *bytes(9)])
SYN, RST, ACK = 0x02, 0x04, 0x10
FIRST = 1_000_000
SECONDS = 30

Spoil = Callable[[bytearray], object]


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    with Programs() as programs:
        yield programs.make("remote_load")


@dataclass
class Service:
    """Echoes to one client without options; ignores the segments, and spoils the answers, whose numbers are given."""

    ignored: tuple[int, ...] = ()
    spoilt: int = -1
    spoil: Spoil = bytes
    header_bytes: set[int] = field(default_factory=set)  # of what came after the SYN
    flags: list[int] = field(default_factory=list)
    _seen: int = 0
    _answers: int = 0

    def answer(self, frame: bytes) -> bytes | None:
        """What comes back for a frame of the client, both with the device's header."""
        assert frame[:OFFLOAD_BYTES] == VERIFIED
        ethernet = frame[OFFLOAD_BYTES:]
        assert ethernet[:14] == SERVICE_MAC + ROUTER_MAC + b"\x08\x00"
        tcp = ethernet[TCP_AT:]
        sequence, header, flags = int.from_bytes(tcp[4:8], "big"), tcp[12] >> 4 << 2, tcp[13]
        self._check(ethernet)
        self.flags.append(flags)
        self._seen += 1
        if self._seen - 1 in self.ignored or flags & RST:
            return None
        payload = tcp[header:]
        if not flags & SYN:
            self.header_bytes.add(header)
        port = int.from_bytes(tcp[:2], "big")
        back = bytearray(
            tcp_packet(
                SERVICE,
                CLIENT,
                b"" if flags & SYN else payload,
                sport=PORT,
                dport=port,
                flags=SYN | ACK if flags & SYN else ACK,
                seq=FIRST if flags & SYN else int.from_bytes(tcp[8:12], "big"),
                ack=(sequence + (1 if flags & SYN else len(payload))) % 2**32,
            )
        )
        back[:12] = ROUTER_MAC + SERVICE_MAC
        if self._answers == self.spoilt:
            self.spoil(back)
        self._answers += 1
        return bytes(OFFLOAD_BYTES) + bytes(back)

    @staticmethod
    def _check(ethernet: bytes) -> None:
        """By making the same packet anew, but for its options, so those without only."""
        tcp = ethernet[TCP_AT:]
        if tcp[12] >> 4 != 5:
            return
        again = tcp_packet(
            CLIENT,
            SERVICE,
            tcp[20:],
            sport=int.from_bytes(tcp[:2], "big"),
            dport=PORT,
            flags=tcp[13],
            seq=int.from_bytes(tcp[4:8], "big"),
            ack=int.from_bytes(tcp[8:12], "big"),
        )
        assert ethernet[IP_AT:] == again[IP_AT:]


def run(program: Path, service: Service) -> tuple[Load | None, str]:
    """One client for a moment; what it has measured, or its complaint."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    wrong: list[BaseException] = []

    def serve() -> None:
        try:
            while frame := ours.recv(2048):
                if (back := service.answer(frame)) is not None:
                    ours.send(back)
        except ConnectionError:
            pass
        except AssertionError as error:
            wrong.append(error)
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    words = [program, theirs.fileno(), SERVICE, PORT, 1, 64, 5, 20]
    found = subprocess.run(
        [str(word) for word in words],
        pass_fds=[theirs.fileno()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    theirs.close()
    thread.join()
    ours.close()
    assert not wrong, wrong
    return (load_of(found.stdout), "") if found.returncode == 0 else (None, found.stderr)


def test_clients_offer_timestamps_and_send_none_where_the_service_has_none(program: Path):
    service = Service()
    load, why = run(program, service)
    assert load is not None, why
    assert load.rate > 0
    assert load.repeated == 0
    assert service.flags[0] == SYN
    assert service.flags[-1] == RST | ACK
    assert service.header_bytes == {20}


def test_what_the_service_has_not_acknowledged_within_a_second_is_sent_again(program: Path):
    service = Service(ignored=(0, 2))
    load, why = run(program, service)
    assert load is not None, why
    assert load.repeated == 2
    assert service.flags[:2] == [SYN, SYN]


def flip(at: int) -> Spoil:
    def spoil(frame: bytearray) -> None:
        frame[at] ^= 0x10

    return spoil


@pytest.mark.parametrize("answer", [0, 1, 5])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip(IP_AT + 8), "wrong checksum of IP"),
        (flip(TCP_AT + 15), "wrong checksum of TCP"),
        (flip(IP_AT + 7), "fragments"),
        (flip(TCP_AT + 12), "lengths are wrong"),
        (flip(IP_AT + 2), "lengths are wrong"),
    ],
)
def test_a_packet_that_a_client_would_not_take_is_an_error(program: Path, answer: int, spoil: Spoil, said: str):
    load, why = run(program, Service(spoilt=answer, spoil=spoil))
    assert load is None
    assert said in why
