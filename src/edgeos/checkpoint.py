"""The checkpoint: a guest's state after its init, as a module of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

MEMORY_LIMIT_DEFAULT: Final = 1024 * 1024
"""Bytes of linear memory that one FWP may have."""

FUEL_DEFAULT: Final = 2_000_000_000
"""Wasm instructions that init may execute, roughly."""

TIME_LIMIT_DEFAULT: Final = 30.0
"""Seconds that init may take."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter of the guest and the address of its value (u64) in the guest's memory."""

    name: str
    address: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the kernel finds slots, messages, verdicts and counters in a guest's memory; addresses are checked."""

    slots: int
    slot_size: int
    slot_stride: int
    messages: int
    verdicts: int
    data: int
    counters: tuple[Counter, ...]
    stack_pointer: int
    """Value of the first mutable i32 global, by convention the stack pointer of C guests; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A module that starts in the state after init, the layout of its memory, and the size (bytes) it starts with.

    `memory_max` (bytes) is the most that it may have; when its code cannot ask for more memory, what it starts with.
    `fixed_table` is False when its code may change its function table, which no copy of its memory and globals holds.
    """

    wasm: bytes
    layout: Layout
    initial_memory: int
    memory_max: int
    fixed_table: bool = True


def make_checkpoint(
    module: bytes,
    config: bytes,
    *,
    memory_limit: int = MEMORY_LIMIT_DEFAULT,
    fuel: int = FUEL_DEFAULT,
    time_limit: float = TIME_LIMIT_DEFAULT,
    granted: Collection[str] = (),
) -> Checkpoint:
    """Runs the init of `module` with `config` and captures what it left.

    `memory_limit` (bytes, rounded down to pages of 64 KiB) holds for init and for the FWPs: past it memory.grow answers
    -1. `fuel` (instructions) and `time_limit` (seconds) bound init. `granted` are the calls beyond edgeos.emit and
    edgeos.stream that the guest may import: "connect", "timer", "clock", "random". Raises GuestError with the reason
    and the fix when the module is malformed, asks for what it does not get, fails in init, or has state that cannot be
    captured.
    """
    from edgeos.guest_init import capture  # noqa: PLC0415  (large; of no use where checkpoints are kept already)

    return capture(module, config, memory_limit=memory_limit, fuel=fuel, time_limit=time_limit, granted=granted)
