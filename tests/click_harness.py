"""Runs a Click configuration, compiled for this machine under sanitizers: packets in, packets out.

    with start("FromDevice(lan) -> c :: Counter -> ToDevice(wan);") as click:
        assert click.push("lan", packet) == [("wan", packet)]
        assert click.read("c.count") == "1"

Each byte of a buffer that is not part of its packet is out of bounds, so a read beyond a packet fails the test.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgeos.click.emit import emit
from edgeos.click.router import Router, load
from edgeos.click.source import ClickError, Source
from edgeos.code_cache import CodeCache
from edgeos.share import share
from edgeos.testing import udp_packet as udp

__all__ = ["Click", "errors", "fuzz", "start", "udp"]

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
NEVER = 2**64 - 1
PACKET, TIMER = 0, 7
DROP, BACK, DONE = -1, -2, -3
FORWARD, REVERSE = 0, 1
COMPILE_SECONDS_MAX = 120
BURST_MAX = 32

_DRIVER = Path(__file__).resolve().parent / "click_driver.c"
_FLAGS = (
    "-std=gnu2x", "-O0", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-type-limits", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all", "-DEDGEOS_HOST_TEST",
)  # fmt: skip

Packet = tuple[str, bytes]


class Click:
    """A running configuration. `dropped` counts packets that were dropped, those that elements lost inside left out."""

    def __init__(self, router: Router, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self.router = router
        self.now = START_NS
        self.alarm = NEVER
        self.dropped = 0
        self.consumed = 0
        self._process = process
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout

    def push(self, device: str, *frames: bytes, flow: int = 1) -> list[Packet]:
        """Brings frames in at a device, up to 32 in a burst; returns what left, as (device, bytes), in order."""
        number = self._number(device)
        direction = FORWARD if number == 0 else REVERSE
        sent: list[Packet] = []
        for at in range(0, len(frames), BURST_MAX):
            messages = [(PACKET, number, direction, flow, frame) for frame in frames[at : at + BURST_MAX]]
            sent += self._burst(messages)
        return sent

    def advance(self, seconds: float) -> list[Packet]:
        """Lets time pass; timers that come due run at their time. Returns what left."""
        end = self.now + round(seconds * SECOND_NS)
        sent: list[Packet] = []
        while self.alarm <= end:
            self.now = max(self.now, self.alarm)
            sent += self._burst([(TIMER, 0, FORWARD, 0, bytes(8))])
        self.now = end
        return sent

    def read(self, handler: str) -> str:
        """The value of a handler. KeyError when there is none, or it cannot be read."""
        name = handler.encode()
        self._in.write(b"R" + struct.pack("<I", len(name)) + name)
        return self._answer(handler).decode()

    def write(self, handler: str, value: object = "") -> None:
        """Writes a handler. KeyError when there is none or it cannot be written, ValueError for a bad value."""
        name, data = handler.encode(), str(value).encode()
        self._in.write(b"W" + struct.pack("<I", len(name)) + name + struct.pack("<I", len(data)) + data)
        self._answer(handler)

    def _answer(self, handler: str) -> bytes:
        self._in.flush()
        status, length = struct.unpack("<iI", self._take(8))
        data = self._take(length)
        if status <= -3:
            raise ValueError(f"{handler} does not take this value")
        if status < 0:
            raise KeyError(handler)
        return data

    def _burst(self, messages: Sequence[tuple[int, int, int, int, bytes]]) -> list[Packet]:
        command = [b"B", struct.pack("<QI", self.now, len(messages))]
        for kind, port, direction, flow, data in messages:
            command += [struct.pack("<BBBQI", kind, port, direction, flow, len(data)), data]
        self._in.write(b"".join(command))
        self._in.flush()
        (count,) = struct.unpack("<I", self._take(4))
        sent = []
        for _ in range(count):
            verdict, direction, length = struct.unpack("<iBI", self._take(9))
            data = self._take(length)
            if verdict == DROP:
                self.dropped += 1
            elif verdict == DONE:
                self.consumed += 1
            else:
                sent.append((self._device(verdict, direction), data))
        (self.alarm,) = struct.unpack("<Q", self._take(8))
        return sent

    def _take(self, size: int) -> bytes:
        data = self._out.read(size)
        if len(data) < size:
            self._process.wait(10)
            report = self._process.stderr.read().decode("utf-8", "replace") if self._process.stderr else ""
            raise AssertionError(f"the configuration died:\n{report}")
        return data

    def _number(self, device: str) -> int:
        names = self.router.devices
        return names[device] if device in names else int(device)

    def _device(self, verdict: int, direction: int) -> str:
        assert verdict == BACK or 0 <= verdict < 16, f"illegal verdict {verdict}"
        if verdict == BACK:
            number = 0 if direction == FORWARD else 1
        else:
            number = verdict + 1 if direction == FORWARD else verdict
        names = {number: name for name, number in self.router.devices.items()}
        return names.get(number, str(number))


@contextmanager
def start(config: str, variables: Mapping[str, str] | None = None, folder: Path | None = None) -> Iterator[Click]:
    """Compiles and runs a configuration, as if it lay in a folder. Raises ClickError when it is wrong."""
    router = load(Source(str((folder or Path()) / "test.click"), config), variables)
    with tempfile.TemporaryDirectory(prefix="click-test-") as folder:
        program = Path(folder, "click")
        program.write_bytes(_binary(emit(router)))
        program.chmod(0o700)
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        with subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as process:
            try:
                yield Click(router, process)
            finally:
                process.kill()


def _binary(code: str) -> bytes:
    headers = sorted(share("guest", "include").rglob("*.h"))
    parts: list[bytes | str] = ["click test", *_FLAGS, code, _DRIVER.read_bytes(), *(h.read_bytes() for h in headers)]

    def make() -> bytes:
        with tempfile.TemporaryDirectory(prefix="click-build-") as folder:
            source, program = Path(folder, "click.c"), Path(folder, "click")
            source.write_text(code)
            include = f"-I{share('guest', 'include')}"
            command = ["cc", *_FLAGS, include, str(source), str(_DRIVER), "-o", str(program)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX, check=False)
            assert done.returncode == 0, done.stderr
            return program.read_bytes()

    return CodeCache().get(parts, make)


def errors(config: str) -> list[str]:
    """What is wrong with a configuration, one `test.click:line:column: message` each."""
    try:
        load(Source("test.click", config))
    except ClickError as error:
        return list(error.findings)
    return []


def fuzz(config: str, devices: Sequence[str], seeds: Sequence[bytes], count: int = 2000, seed: int = 1) -> Click:
    """Sends random and mutated packets through a configuration; any read or write out of bounds fails.

    Everything that came in or was made must be accounted for. `seeds` are packets to mutate.
    """
    source = random.Random(seed)
    with start(config) as click:
        for _ in range(0, count, BURST_MAX):
            device = source.choice(devices)
            click.push(device, *(mutated(source, seeds) for _ in range(BURST_MAX)))
            click.advance(source.choice((0, 0.001, 0.5)))
        return click


def mutated(source: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with a few bytes changed, cut or extended; sometimes nothing but noise."""
    if not seeds or source.random() < 0.05:
        return source.randbytes(source.choice((0, 1, 13, 14, 20, 34, 60, 300, 1514, 2048)))
    data = bytearray(source.choice(seeds))
    for _ in range(source.choice((0, 1, 1, 2, 4, 16))):
        if data:
            data[source.randrange(len(data))] = source.choice(
                (0, 1, 0x45, 0x4F, 0x7F, 0x80, 0xFF, source.randrange(256))
            )
    how = source.random()
    if how < 0.25:
        del data[source.randrange(len(data) + 1) :]
    elif how < 0.35:
        data += source.randbytes(source.randrange(64))
    return bytes(data[:2048])
