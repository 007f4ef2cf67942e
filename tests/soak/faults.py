"""What is done to the node, each for some seconds while the usual traffic goes on."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from edgeos.testing import tcp_packet, udp_packet
from soak.network import CLIENT_ADDRESSES, LINES, SERVICE_ADDRESS, Network, packet_socket
from soak.traffic import connect

CROWD = 2500
"""Clients that come at once on each line: more than there is room for."""

CROWD_CONNECTIONS = 400
TRAPS = (1, 4, 6, 11, 12, 15, 16, 17, 25, 26)
"""Bytes that make the guest `hostile` return bad lengths, pointers and ports, loop, recurse and trap."""

TRAP_CLIENTS = 50
SLOW_READERS = 24
SLOW_BYTES = 400_000
DOWN_SECONDS = 0.7
FLOOD_BURST = 200
FLOOD_PAUSE_SECONDS = 0.01
_SYN = 0x02


def calm(network: Network, port: int, seconds: float) -> None:
    """Nothing but the usual traffic."""
    time.sleep(seconds)


def everybody_at_once(network: Network, port: int, seconds: float) -> None:
    """For half the time more clients than there is room for, as connections and on every line: all FWPs are in use."""
    with ExitStack() as stack:
        for number in range(CROWD_CONNECTIONS):
            with suppress(OSError):
                source = CLIENT_ADDRESSES[number % len(CLIENT_ADDRESSES)]
                stack.enter_context(connect(network.public, source, port)).send(b"here")
        lines = [stack.enter_context(packet_socket(network.sender, end)) for end, _, _ in LINES]
        frames = [udp_packet(f"10.3.{client >> 8}.{client & 255}", "192.0.2.1", bytes(22)) for client in range(CROWD)]
        for _ in _for(seconds / 2, 0.5):
            for frame in frames:
                for line in lines:
                    _send(line, frame)
    time.sleep(seconds / 2)


def trapping_guests(network: Network, port: int, seconds: float) -> None:
    """Clients whose packets make their guest misbehave in every way that ends it."""
    with packet_socket(network.sender, LINES[0][0]) as line:
        for _ in _for(seconds, 0.02):
            client = f"10.1.0.{random.randrange(TRAP_CLIENTS)}"
            _send(line, udp_packet(client, "192.0.2.1", bytes([random.choice(TRAPS)]) + bytes(21)))


def links_down_and_up(network: Network, port: int, seconds: float) -> None:
    """The devices behind the node go down and come back, one after the other."""
    for number, _ in enumerate(_for(seconds, DOWN_SECONDS)):
        _, _, wan = LINES[number % len(LINES)]
        network.middle.set_down(wan)
        try:
            time.sleep(DOWN_SECONDS)
        finally:
            network.middle.set_up(wan)


def slow_readers(network: Network, port: int, seconds: float) -> None:
    """Connections that send much and read nothing, and are cut off in the end."""
    with ExitStack() as stack:
        connections = []
        for number in range(SLOW_READERS):
            with suppress(OSError):
                source = CLIENT_ADDRESSES[number % len(CLIENT_ADDRESSES)]
                connections.append(stack.enter_context(connect(network.public, source, port)))
        left = [SLOW_BYTES] * len(connections)
        for _ in _for(seconds, 0.05):
            for number, connection in enumerate(connections):
                connection.setblocking(False)
                with suppress(OSError):
                    left[number] -= connection.send(bytes(min(8192, max(0, left[number]))))
        for connection in connections:
            _reset(connection)


def syn_flood(network: Network, port: int, seconds: float) -> None:
    """Connections that are begun from addresses that nobody has, and never finished."""
    mac = network.service_mac()
    frames = [
        tcp_packet(
            f"10.201.0.{random.randrange(20, 250)}", SERVICE_ADDRESS, b"", sport=random.randrange(1024, 65536),
            dport=port, flags=_SYN,
        )
        for _ in range(2000)
    ]  # fmt: skip
    with packet_socket(network.public, "eth0") as line:
        for _ in _for(seconds, FLOOD_PAUSE_SECONDS):
            for frame in random.sample(frames, FLOOD_BURST // 4):
                _send(line, mac + frame[6:])


def garbage_flood(network: Network, port: int, seconds: float) -> None:
    """Random bytes as frames on both lines, and over connections that are then reset."""
    with ExitStack() as stack:
        lines = [stack.enter_context(packet_socket(network.sender, end)) for end, _, _ in LINES]
        for _ in _for(seconds, FLOOD_PAUSE_SECONDS):
            for line in lines:
                for frame in _garbage(FLOOD_BURST // 10):
                    _send(line, frame)
            with suppress(OSError), connect(network.public, random.choice(CLIENT_ADDRESSES), port) as connection:
                connection.send(random.randbytes(random.randrange(1, 5000)))
                _reset(connection)


FAULTS: tuple[Callable[[Network, int, float], None], ...] = (
    everybody_at_once,
    trapping_guests,
    links_down_and_up,
    slow_readers,
    syn_flood,
    garbage_flood,
)


def _for(seconds: float, pause: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(pause)


def _garbage(count: int) -> Iterator[bytes]:
    """Noise, and real packets with a few bytes spoiled, which get further."""
    for _ in range(count):
        if random.random() < 0.5:
            yield random.randbytes(random.randrange(14, 1515))
        else:
            client = f"10.2.{random.randrange(4)}.{random.randrange(256)}"
            frame = bytearray(udp_packet(client, "192.0.2.1", bytes(random.randrange(1, 200))))
            for _ in range(random.randrange(1, 6)):
                frame[random.randrange(12, len(frame))] = random.randrange(256)
            frame[42] = 0  # no trap: those are another fault
            yield bytes(frame)


def _send(line: socket.socket, frame: bytes) -> None:
    with suppress(OSError):
        line.send(frame)


def _reset(connection: socket.socket) -> None:
    """Closes without a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
