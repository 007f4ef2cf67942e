"""Runs one guest alone in Wasmtime and plays the host's part of the guest ABI (guest/include/edgeos.h)."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from edgeos.guest_build import build

ROOT = Path(__file__).resolve().parent.parent
FORWARD, REVERSE = 0, 1
DROP = -1
SECOND_NS = 1_000_000_000

_LAYOUT = struct.Struct("<11I")
_MESSAGE = struct.Struct("<IIIBBBBQQ")
_COUNTER = struct.Struct("<24sQ")
_ENGINE = wasmtime.Engine()


class GuestRefusedError(Exception):
    """The guest's init failed; the text is the reason that it gave."""


@dataclass(frozen=True)
class Message:
    """A message for the guest; `time_ns` in nanoseconds since 1970."""

    data: bytes
    direction: int = FORWARD
    time_ns: int = SECOND_NS
    kind: int = 0
    flow: int = 0


@dataclass(frozen=True)
class Result:
    """The verdict on a message, and its bytes as the guest left them."""

    verdict: int
    data: bytes


@functools.cache
def compile_appliance(name: str) -> wasmtime.Module:
    """Builds appliances/NAME/NAME.c once per test run, as users do."""
    return wasmtime.Module(_ENGINE, build(ROOT / "appliances" / name / f"{name}.c"))


Stream = Callable[[int, int, int, int, int, int], int]
"""The call edgeos.stream: message, flow, out port, kind, address, length to what it answers."""


class Guest:
    """One instance of a guest, started with a configuration. Raises GuestRefusedError when its init fails."""

    def __init__(self, module: wasmtime.Module, config: bytes = b"", stream: Stream = lambda *_: -1) -> None:
        self.drawn: list[bytes] = []  # what edgeos.random has answered, by `draw`
        self.draw: Callable[[int], bytes] = os.urandom
        self._store = wasmtime.Store(_ENGINE)
        linker = wasmtime.Linker(_ENGINE)
        i32, i64 = wasmtime.ValType.i32, wasmtime.ValType.i64
        linker.define_func("edgeos", "emit", wasmtime.FuncType([i32()] * 4, [i32()]), lambda *_: -1)
        linker.define_func("edgeos", "stream", wasmtime.FuncType([i32(), i64(), *[i32()] * 4], [i32()]), stream)
        linker.define_func("edgeos", "random", wasmtime.FuncType([i32(), i32()], [i32()]), self._random)
        exports = linker.instantiate(self._store, module).exports(self._store)
        self._exports = exports
        memory = exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        if "_initialize" in exports:
            self._call("_initialize")
        self._layout_at = self._call("edgeos_layout_v1")
        self._read_layout()
        self._start(config)
        burst = exports["edgeos_burst"]
        assert isinstance(burst, wasmtime.Func)
        self._burst = burst

    def _random(self, address: int, size: int) -> int:
        self.drawn.append(self.draw(size))
        self.write(address, self.drawn[-1])
        return 0

    def _call(self, name: str, *arguments: int) -> int:
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return int(function(self._store, *arguments) or 0)

    def _read_layout(self) -> None:
        layout = _LAYOUT.unpack(self.read(self._layout_at, _LAYOUT.size))
        version, self.slots, self.slot_size, self._stride, self._messages, self._verdicts, self._data = layout[:7]
        self._counters, self._counter_count, self._error, self._error_len = layout[7:]
        assert version == 1

    def _start(self, config: bytes) -> None:
        address = self._call("edgeos_config", len(config))
        self.write(address, config)
        try:
            self._call("edgeos_start", address, len(config))
        except wasmtime.Trap as trap:
            self._read_layout()
            raise GuestRefusedError(self.read(self._error, self._error_len).decode("ascii")) from trap

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the guest's memory."""
        return bytes(self._memory.read(self._store, address, address + size))

    def write(self, address: int, data: bytes) -> None:
        """Changes the guest's memory. No bytes may be written anywhere, even at its end."""
        if data:
            self._memory.write(self._store, data, address)

    def place(self, messages: Sequence[Message]) -> None:
        """Puts messages into slots 0, 1, …; the bytes behind each are left as they are."""
        for slot, message in enumerate(messages):
            address = self._data + slot * self._stride
            port = 0 if message.direction == FORWARD else 1
            fields = (message.kind, port, message.direction, 0, message.flow, message.time_ns)
            entry = (address, len(message.data), self.slot_size, *fields)
            self.write(address, message.data)
            self.write(self._messages + slot * _MESSAGE.size, _MESSAGE.pack(*entry))

    def run(self, count: int) -> None:
        """Has the guest handle the messages in slots 0 to count - 1."""
        self._burst(self._store, 0, count)

    def handle(self, messages: Sequence[Message]) -> list[Result]:
        """Has the guest handle messages in bursts, in order."""
        results: list[Result] = []
        for first in range(0, len(messages), self.slots):
            burst = messages[first : first + self.slots]
            self.place(burst)
            self.run(len(burst))
            results += [self._result(slot) for slot in range(len(burst))]
        return results

    def _result(self, slot: int) -> Result:
        entry = _MESSAGE.unpack(self.read(self._messages + slot * _MESSAGE.size, _MESSAGE.size))
        (verdict,) = struct.unpack("<i", self.read(self._verdicts + 4 * slot, 4))
        return Result(verdict, self.read(entry[0], entry[1]))

    def counters(self) -> dict[str, int]:
        """The guest's counters by name."""
        raw = self.read(self._counters, self._counter_count * _COUNTER.size)
        return {name.rstrip(b"\0").decode(): value for name, value in _COUNTER.iter_unpack(raw)}

    def memory_size(self) -> int:
        """Bytes of the guest's linear memory."""
        return self._memory.data_len(self._store)


def start_appliance(name: str, config: str = "") -> Guest:
    """Builds and starts an appliance of the project."""
    return Guest(compile_appliance(name), config.encode())
