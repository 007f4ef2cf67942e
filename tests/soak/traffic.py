"""What goes on all the time: clients that come and go over both lines, and connections that are echoed."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeos.netns import Namespace
from edgeos.testing import udp_packet
from soak.network import CLIENT_ADDRESSES, LINES, SERVICE_ADDRESS, Network, packet_socket

CLIENTS = 4000
RATE = 2000
"""Packets a second on each line. A client comes again after two seconds, when it has long been forgotten."""

BURST_SECONDS = 0.005
SILENCE_SECONDS = 0.5
EXCHANGE_BYTES_MAX = 20_000
EXCHANGE_SECONDS = 10.0
PAUSE_SECONDS = 0.02
_PAYLOAD = struct.Struct("!BxHI8s")  # first byte 0: the guest `hostile` forwards it; client, run, mark
_MARK = b"edgesoak"
_PAYLOAD_AT = 42


@dataclass
class Tally:
    """What one stretch of traffic came to. Exchanges are by the service's port, failures by their reason."""

    sent: int = 0
    arrived: int = 0
    exchanges: dict[int, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def flawless(self) -> bool:
        """Whether everything arrived and every exchange was right, and there was some of both."""
        return 0 < self.sent == self.arrived and all(self.exchanges.values()) and not self.failures

    def fail(self, reason: str) -> None:
        with self.lock:
            self.failures[reason] = self.failures.get(reason, 0) + 1


class Traffic:
    """Starts with the context and has ended, and been counted, when it is left."""

    def __init__(self, network: Network, ports: Sequence[int], run: int) -> None:
        self.tally = Tally(exchanges=dict.fromkeys(ports, 0))
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._line, args=(network, end, run), daemon=True) for end, _, _ in LINES
        ]
        self._threads += [
            threading.Thread(target=self._talk, args=(network.public, ports[number % len(ports)], source), daemon=True)
            for number, source in enumerate(CLIENT_ADDRESSES)
        ]

    def __enter__(self) -> Tally:
        for thread in self._threads:
            thread.start()
        return self.tally

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(3 * EXCHANGE_SECONDS)
        if any(thread.is_alive() for thread in self._threads):
            self.tally.fail("traffic did not end")

    def _line(self, network: Network, end: str, run: int) -> None:
        frames = [
            udp_packet(f"10.0.{client >> 8}.{client & 255}", "192.0.2.1", _PAYLOAD.pack(0, client, run, _MARK))
            for client in range(CLIENTS)
        ]
        with (
            packet_socket(network.receiver, end, receive=True) as inward,
            packet_socket(network.sender, end) as outward,
        ):
            receiver = threading.Thread(target=self._receive, args=(inward, run), daemon=True)
            receiver.start()
            begin, sent = time.monotonic(), 0
            while not self._stopping.is_set():
                due = int((time.monotonic() - begin) * RATE)
                for number in range(sent, due):
                    self._send(outward, frames[number % CLIENTS])
                sent = due
                time.sleep(BURST_SECONDS)
            receiver.join(EXCHANGE_SECONDS)

    def _send(self, outward: socket.socket, frame: bytes) -> None:
        try:
            outward.send(frame)
        except OSError:  # the device is down or its queue is full: nothing was sent
            return
        with self.tally.lock:
            self.tally.sent += 1

    def _receive(self, inward: socket.socket, run: int) -> None:
        last = time.monotonic()
        while not self._stopping.is_set() or time.monotonic() - last < SILENCE_SECONDS:
            try:
                frame = inward.recv(2048)
            except OSError:  # nothing for a while, or the device is down
                continue
            if len(frame) < _PAYLOAD_AT + _PAYLOAD.size:
                continue
            _, _, of_run, mark = _PAYLOAD.unpack_from(frame, _PAYLOAD_AT)
            if mark == _MARK and of_run == run:
                last = time.monotonic()
                with self.tally.lock:
                    self.tally.arrived += 1

    def _talk(self, public: Namespace, port: int, source: str) -> None:
        while not self._stopping.is_set():
            data = random.randbytes(random.randint(1, EXCHANGE_BYTES_MAX))
            try:
                answer = exchange(public, source, port, data)
            except OSError as error:
                self.tally.fail(type(error).__name__)
            else:
                if answer != data:
                    self.tally.fail("wrong bytes")
                with self.tally.lock:
                    self.tally.exchanges[port] += 1
            time.sleep(PAUSE_SECONDS)


def connect(public: Namespace, source: str, port: int) -> socket.socket:
    """A connection to the service from one of the clients' addresses. Raises OSError."""
    with public.entered():
        made = socket.socket()
    try:
        made.settimeout(EXCHANGE_SECONDS)
        made.bind((source, 0))
        made.connect((SERVICE_ADDRESS, port))
    except OSError:
        made.close()
        raise
    return made


def exchange(public: Namespace, source: str, port: int, data: bytes) -> bytes:
    """Sends, says that this was all, and reads to the end. Raises OSError."""
    with connect(public, source, port) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)
