"""A guest that speaks TCP itself behind an AF_XDP port, and Linux as its client, in two network namespaces.

Between them is a veth pair, or (`relayed`) a relay that loses, doubles, delays, reorders and spoils frames: kernels
often come without netem, and a relay can also lose the one frame that a test is about.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from privileges import MAY_OPEN_TAP, needs_tap, needs_xdp

import edgeos
from edgeos.guest_build import build
from edgeos.match import parse_match
from edgeos.port import open_native_port
from edgeos.settings import Grants, PortSettings
from edgeos.testing import internet_checksum

netns = pytest.importorskip("edgeos.netns", reason="needs pyroute2")

PORT = 7777
SERVER = {socket.AF_INET: "10.79.0.1", socket.AF_INET6: "fd00:79::1"}
CLIENTS = {socket.AF_INET: "10.79.0.{}", socket.AF_INET6: "fd00:79::{}"}
CLIENT_NUMBERS = range(2, 12)
LIMIT_SECONDS = 30.0

GUESTS = Path(__file__).resolve().parent / "guests"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME_MAX = 2048

needs_afxdp = [pytest.mark.privileged, needs_xdp]


class Relay:
    """Carries frames between the client's TAP device and the node's link, with the troubles that it is told to make.

    `lost`, `doubled`, `late` and `spoiled` are parts of 1, `delay` seconds in each direction. `loses` is asked about
    each frame, with True for those to the node, and loses it by True.
    """

    def __init__(self, tap: int, link: socket.socket, seed: int = 1) -> None:
        self.lost = self.doubled = self.late = self.spoiled = self.delay = 0.0
        self.loses: Callable[[bool, bytes], bool] = lambda _to_node, _frame: False
        self._tap, self._link = tap, link
        self._random = random.Random(seed)
        self._flying: list[tuple[float, int, bool, bytes]] = []
        self._number = 0
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def lose_one(self, to_node: bool, which: Callable[[bytes], bool]) -> list[bytes]:
        """Loses the next frame in a direction that is wanted; it will be in the list."""
        lost: list[bytes] = []

        def loses(direction: bool, frame: bytes) -> bool:
            if lost or direction != to_node or not which(frame):
                return False
            lost.append(frame)
            return True

        self.loses = loses
        return lost

    def close(self) -> None:
        self._ends = True
        self._thread.join()
        os.close(self._tap)
        self._link.close()

    def _run(self) -> None:
        ready = select.poll()
        ready.register(self._tap, select.POLLIN)
        ready.register(self._link, select.POLLIN)
        while not self._ends:
            wait = self._flying[0][0] - time.monotonic() if self._flying else 0.05
            for fd, _ in ready.poll(max(0.0, min(wait, 0.05)) * 1000):
                to_node = fd == self._tap
                self._take(to_node, os.read(fd, _FRAME_MAX) if to_node else self._link.recv(_FRAME_MAX))
            while self._flying and self._flying[0][0] <= time.monotonic():
                _, _, to_node, frame = heapq.heappop(self._flying)
                self._put(to_node, frame)

    def _take(self, to_node: bool, frame: bytes) -> None:
        chance = self._random.random
        if self.loses(to_node, frame) or chance() < self.lost:
            return
        if chance() < self.spoiled:
            frame = self._spoil(frame)
        for _ in range(2 if chance() < self.doubled else 1):
            late = self._random.uniform(0.001, 0.01) if chance() < self.late else 0.0
            if self.delay + late == 0:
                self._put(to_node, frame)
            else:
                self._number += 1
                heapq.heappush(self._flying, (time.monotonic() + self.delay + late, self._number, to_node, frame))

    def _spoil(self, frame: bytes) -> bytes:
        """Changes a bit, but never so that the checksum looks unfinished, which an AF_XDP port would then finish."""
        place = self._random.randrange(34, len(frame))
        spoiled = frame[:place] + bytes([frame[place] ^ 1 << self._random.randrange(8)]) + frame[place + 1 :]
        return self._spoil(frame) if looks_unfinished(spoiled) else spoiled

    def _put(self, to_node: bool, frame: bytes) -> None:
        try:
            if to_node:
                self._link.send(frame)
            else:
                os.write(self._tap, frame)
        except OSError:
            pass  # as a wire that is not there


def looks_unfinished(frame: bytes) -> bool:
    """True if the checksum of a frame with TCP is the sum of its pseudo header."""
    addresses, tcp = (frame[26:34], 34) if frame[12:14] == b"\x08\x00" else (frame[22:54], 54)
    pseudo = addresses + struct.pack("!HH", 6, len(frame) - tcp)
    return frame[tcp + 16 : tcp + 18] == (0xFFFF ^ internet_checksum(pseudo)).to_bytes(2, "big")


class Lab:
    """The two namespaces; `wire` is where frames of the test's own go in and out."""

    def __init__(self, stack: ExitStack, relayed: bool) -> None:
        self.client, self.node = (stack.enter_context(netns.Namespace()) for _ in range(2))
        self.far = "wire" if relayed else "eth0"
        netns.join(self.client, self.far, self.node, "dut")
        self.node.set_up("dut", [f"{address}/{_prefix(family)}" for family, address in SERVER.items()])
        tap = self._open_tap() if relayed else -1
        if relayed:
            with self.client.entered():
                Path("/proc/sys/net/ipv6/conf/wire/disable_ipv6").write_text("1")
            self.client.set_up("wire")
        addresses = [f"{client(n, family)}/{_prefix(family)}" for family in SERVER for n in CLIENT_NUMBERS]
        self.client.set_up("eth0", addresses)
        self.relay = stack.enter_context(_closing(Relay(tap, self.raw()))) if relayed else None

    def _open_tap(self) -> int:
        if not MAY_OPEN_TAP:
            pytest.skip(needs_tap.kwargs["reason"])
        with self.client.entered():
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TAP | _IFF_NO_PI))
        return tap

    def raw(self) -> socket.socket:
        """A packet socket on the client's end of the link."""
        with self.client.entered():
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.bind((self.far, 0))
        end.settimeout(LIMIT_SECONDS)
        return end

    def connect(
        self, family: socket.AddressFamily = socket.AF_INET, number: int = 2, *, port: int = 0, receive_buffer: int = 0
    ) -> socket.socket:
        """A connection from one of the client's addresses."""
        with self.client.entered():
            s = socket.socket(family, socket.SOCK_STREAM)
        try:
            s.settimeout(LIMIT_SECONDS)
            if receive_buffer:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((client(number, family), port))
            s.connect((SERVER[family], PORT))
        except OSError:
            s.close()
            raise
        return s


class Serving:
    """A lab with its running node."""

    def __init__(self, lab: Lab, node: edgeos.Node) -> None:
        self.lab, self.node = lab, node
        self.connect = lab.connect

    @property
    def relay(self) -> Relay:
        assert self.lab.relay
        return self.lab.relay

    def counter(self, name: str) -> int:
        """A counter of the guest, summed over its FWPs, those that are gone too."""
        return self.node.statistics().chain("service").stages[0].counters[name]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not holds():
            assert time.monotonic() < end, self.node.statistics()
            time.sleep(0.005)


def client(number: int, family: int = socket.AF_INET) -> str:
    return CLIENTS[socket.AddressFamily(family)].format(number)


@contextmanager
def serving(
    guest: str | Path,
    folder: Path,
    *,
    relayed: bool = False,
    defines: dict[str, str | int] | None = None,
    template: dict[str, Any] | None = None,
    **chain: Any,
) -> Iterator[Serving]:
    """Runs a guest of tests/guests, or another source; every message must be accounted for at the end, none killed."""
    module = folder / "guest.wasm"
    build(GUESTS / guest, module, defines={"EDGEOS_TCP": 1, **(defines or {})})
    values: dict[str, Any] = {"ready_low": 1, "ready_high": 4, **(template or {})}
    with ExitStack() as stack:
        lab = Lab(stack, relayed)
        node = stack.enter_context(edgeos.Node())
        node.add_template(
            edgeos.TemplateSettings(name="app", module=module, grant=Grants(timer=True, random=True), **values)
        )
        settings = {"max_fwps": 64, **chain}
        node.add_chain(edgeos.ChainSettings(name="service", path=("wan", "app"), **settings))
        node.add_rule("any", chain="service")
        with lab.node.entered():
            take = (parse_match(f"tcp dst port {PORT}"),)
            node.add_port(open_native_port(PortSettings(name="wan", kind="afxdp", device="dut", take=take)))
            node.start()
        yield Serving(lab, node)
        statistics = node.stop()
        assert statistics.balance == 0, statistics
        assert statistics.chain("service").balance == 0, statistics
        assert statistics.in_flight == 0, statistics
        assert not any(statistics.chain("service").kills.values()), statistics


def _prefix(family: int) -> int:
    return 24 if family == socket.AF_INET else 64


@contextmanager
def _closing(relay: Relay) -> Iterator[Relay]:
    try:
        yield relay
    finally:
        relay.close()
