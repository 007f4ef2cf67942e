"""Connections to the memcached appliance without a kernel, and to a memcached program, with one interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from guest_harness import Guest, Message, compile_appliance

OPEN, DATA, HALF_CLOSED, CLOSED, DATAGRAM, ROOM = range(1, 7)
BACK, DONE = -2, -3
PROGRAM = shutil.which("memcached")
PIECE = 4096


class Cache(Protocol):
    """Something that speaks memcached over several connections."""

    def ask(self, connection: int, data: bytes) -> bytes:
        """Sends bytes on a connection, which is opened when it is new; what comes back until it is quiet."""


class GuestCache:
    """The appliance with a host that takes `room` bytes of each connection before it needs to be drained."""

    def __init__(self, config: str = "", room: int | None = None) -> None:
        self.sent: dict[int, bytearray] = {}
        self.datagrams: list[bytes] = []
        self.closed: set[int] = set()
        self.room = room
        self._free: dict[int, int] = {}
        self._open: set[int] = set()
        self._datagram_flows: set[int] = set()
        self.time_ns = time.time_ns()
        self.guest = Guest(compile_appliance("memcached"), config.encode(), self._stream)

    def _stream(self, _message: int, flow: int, to: int, kind: int, address: int, length: int) -> int:
        assert to == BACK
        if kind == CLOSED:
            self.closed.add(flow)
            return 0
        assert kind == DATA
        data = self.guest.read(address, length)
        if flow in self._datagram_flows:
            self.datagrams.append(data)
            return length
        if flow in self.closed:
            return -1
        taken = length if self.room is None else min(length, max(0, self._free.setdefault(flow, self.room)))
        if self.room is not None:
            self._free[flow] -= taken
        self.sent.setdefault(flow, bytearray()).extend(data[:taken])
        return taken

    def message(self, kind: int, flow: int, data: bytes = b"") -> None:
        """One message to the guest."""
        (result,) = self.guest.handle([Message(data, time_ns=self.time_ns, kind=kind, flow=flow)])
        assert result.verdict in (DONE, BACK)
        if result.verdict == BACK:  # the kernel takes all of it, whatever the room
            assert kind == DATA
            assert flow not in self.closed
            self._free[flow] = self._free.get(flow, self.room or 0) - len(result.data)
            self.sent.setdefault(flow, bytearray()).extend(result.data)

    def send(self, connection: int, data: bytes, piece: int = PIECE) -> None:
        """Bytes of a connection, in messages of at most `piece`."""
        if connection not in self._open:
            self._open.add(connection)
            self.message(OPEN, connection, bytes([4, 6, 1, 0, 2, 0, 0, 0]) + bytes(32))
        for first in range(0, len(data), piece):
            if connection in self.closed:
                return
            self.message(DATA, connection, data[first : first + piece])

    def take(self, connection: int) -> bytes:
        """What was sent on a connection since the last time."""
        return bytes(self.sent.pop(connection, bytearray()))

    def drain(self, connection: int) -> bytes:
        """What a slow reader gets in the end, `room` bytes after `room` bytes."""
        got = self.take(connection)
        while connection not in self.closed:
            self._free[connection] = self.room or 0
            self.message(ROOM, connection)
            more = self.take(connection)
            if not more:
                break
            got += more
        return got

    def ask(self, connection: int, data: bytes) -> bytes:
        self.send(connection, data)
        return self.take(connection)

    def ask_datagram(self, data: bytes) -> list[bytes]:
        """Answers to one datagram."""
        flow = 1000 + len(self._datagram_flows)
        self._datagram_flows.add(flow)
        self.datagrams = []
        self.message(DATAGRAM, flow, data)
        return self.datagrams

    def touched(self) -> int:
        """Bytes of the pages of the guest's memory that hold anything but zeros."""
        memory = self.guest.read(0, self.guest.memory_size())
        return 4096 * sum(any(memory[at : at + 4096]) for at in range(0, len(memory), 4096))


class ProgramCache:
    """A memcached program on a Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sockets: dict[int, socket.socket] = {}
        self.closed: set[int] = set()

    def ask(self, connection: int, data: bytes, least: int = 0, closes: bool = False) -> bytes:
        """As Cache.ask; waits for `least` bytes, or for the end when it `closes`, and then until it is quiet."""
        if connection in self.closed:
            return b""
        if connection not in self._sockets:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.connect(self._path)
            self._sockets[connection] = opened
        used = self._sockets[connection]
        used.settimeout(2)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            used.sendall(data)
        got = bytearray()
        while True:
            used.settimeout(2 if closes or len(got) < least else 0.004)
            try:
                part = used.recv(1 << 20)
            except TimeoutError:
                return bytes(got)
            except ConnectionResetError:
                part = b""
            if not part:
                self.closed.add(connection)
                return bytes(got)
            got += part

    def close(self) -> None:
        """Closes all connections."""
        for used in self._sockets.values():
            used.close()


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[str]:
    """A memcached program; yields the path of its socket."""
    assert PROGRAM
    with tempfile.TemporaryDirectory(prefix="edgeos-mc-") as folder:
        path = os.path.join(folder, "s")
        options = ["-s", path, "-a", "0777", "-t", "1", *arguments]
        user = ["-u", "root"] if os.geteuid() == 0 else []
        with subprocess.Popen([PROGRAM, *user, *options], stderr=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + 5
                while not Path(path).exists():
                    assert time.monotonic() < deadline, "memcached did not start"
                    time.sleep(0.01)
                time.sleep(0.05)
                yield path
            finally:
                process.kill()  # it would take a second to end by itself
