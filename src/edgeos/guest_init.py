"""Runs a guest's init and captures the state after it, for a checkpoint.

Init runs once per template, here, under limits on time, stack and memory. What it left behind (linear memory and
mutable globals) becomes the data segments and initialisers of a new module, which the kernel instantiates once per FWP.
State that such a module cannot hold (changed tables, references, segments that init may have dropped) is refused with
the reason. docs/guest-abi.md lists the rules. Nothing that the guest says is believed: its layout is read once and
checked here.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import struct
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from edgeos import wasm
from edgeos.checkpoint import Checkpoint, Counter, Layout
from edgeos.errors import GuestError
from edgeos.host_calls import CALLS, import_problem
from edgeos.wasm_code import changes_table
from edgeos.wasm_growth import may_grow

INIT_STACK_SIZE: Final = 512 * 1024
"""Bytes of native stack for init."""

SEGMENT_GAP: Final = 256
"""Zeroes between two runs of data that are copied rather than cost a segment of their own each time an FWP is made."""

TABLE_ELEMENTS_MAX: Final = 20_000
"""Elements of a guest's table; one table per guest."""

GLOBALS_MAX: Final = 1024
"""Globals that a guest may define."""

ERROR_TEXT_MAX: Final = 1024
"""Bytes of the guest's own reason that are shown."""

SLOTS_MIN: Final = 8
SLOTS_MAX: Final = 256
SLOT_SIZE_MIN: Final = 64
SLOT_SIZE_MAX: Final = 65536
COUNTERS_MAX: Final = 256
MESSAGE_SIZE: Final = 32
VERDICT_SIZE: Final = 4
COUNTER_SIZE: Final = 32
COUNTER_NAME_SIZE: Final = 24

_VERSION: Final = 1
_LAYOUT: Final = struct.Struct("<9I")
_LAYOUT_ERROR: Final = struct.Struct("<2I")
_LAYOUT_SIZE: Final = _LAYOUT.size + _LAYOUT_ERROR.size
_COMPILE: Final = "compile with `edgeos build`"

_I = wasm.I32
_FUNCTIONS: Final = {
    "edgeos_layout_v1": wasm.FuncType(b"", bytes([_I])),
    "edgeos_config": wasm.FuncType(bytes([_I]), bytes([_I])),
    "edgeos_start": wasm.FuncType(bytes([_I, _I]), b""),
    "edgeos_burst": wasm.FuncType(bytes([_I, _I]), b""),
    "edgeos_access": wasm.FuncType(bytes([_I] * 6), bytes([_I])),
    "_initialize": wasm.FuncType(b"", b""),
}
_OPTIONAL: Final = ("_initialize", "edgeos_access")
# The kernel finds the first two by their place. Behind them stand the mutable globals, "global 0" and so on, which it
# reads and writes where clients are parked.
_KEPT: Final = ("memory", "edgeos_burst", "edgeos_access")
_START_EXPORT: Final = "start"
_TABLE_EXPORT: Final = "table"

_REASONS: Final = {
    wasmtime.TrapCode.OUT_OF_FUEL: "it executed more instructions than the limit; does it loop for ever?",
    wasmtime.TrapCode.INTERRUPT: "it took longer than the limit; does it loop for ever?",
    wasmtime.TrapCode.STACK_OVERFLOW: f"it used more than {INIT_STACK_SIZE} bytes of stack; does it recurse for ever?",
    wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS: "it read or wrote outside its memory",
    wasmtime.TrapCode.TABLE_OUT_OF_BOUNDS: "it used an element outside its table",
    wasmtime.TrapCode.INDIRECT_CALL_TO_NULL: "it called a null function pointer",
    wasmtime.TrapCode.BAD_SIGNATURE: "it called a function pointer of another type",
    wasmtime.TrapCode.INTEGER_DIVISION_BY_ZERO: "it divided by zero",
    wasmtime.TrapCode.INTEGER_OVERFLOW: "an integer division overflowed",
    wasmtime.TrapCode.BAD_CONVERSION_TO_INTEGER: "it converted an unrepresentable number to an integer",
    wasmtime.TrapCode.UNREACHABLE: "it trapped (unreachable code, abort or failed assertion)",
}


def capture(
    module: bytes, config: bytes, *, memory_limit: int, fuel: int, time_limit: float, granted: Collection[str]
) -> Checkpoint:
    """Does what `edgeos.make_checkpoint` promises."""
    parsed = wasm.parse(module)
    exports = _check_interface(parsed, granted)
    _check_state(parsed)
    memory = _bounded_memory(parsed, memory_limit)
    copy = wasm.rewrite(parsed, exports=_probe_exports(parsed, exports), memory=memory)
    init = _Init(copy, parsed, memory, fuel, time_limit)
    raw_layout = init.run(config)
    snapshot = init.memory()
    values = init.globals()
    layout = _check_layout(raw_layout, snapshot, _stack_pointer(parsed, values))
    _clear_messages(snapshot, layout)

    pages = len(snapshot) // wasm.PAGE_SIZE
    handlers = [exports[name].index for name in _KEPT if name in exports and exports[name].kind == wasm.FUNCTION]
    limits = replace(memory, minimum=pages)
    if not may_grow(parsed, handlers):
        limits = replace(limits, maximum=pages)

    def written(*, references: bool) -> bytes:
        return wasm.rewrite(
            parsed,
            exports=[
                *(exports[name] for name in _KEPT if name in exports),
                *(wasm.Export(f"global {n}", wasm.GLOBAL, index) for n, index in enumerate(_mutable(parsed))),
            ],
            memory=limits,
            globals=_captured_globals(parsed, values),
            data=_segments(snapshot),
            references=references,
        )

    # An instance without a table is made and cleared sooner. Whether the code does without one, validation tells.
    result = written(references=False)
    has_table = not init.is_valid(result)
    if has_table:
        result = written(references=True)
        init.validate(result)
    most = len(snapshot) if limits.maximum is None else limits.maximum * wasm.PAGE_SIZE
    return Checkpoint(result, layout, len(snapshot), most, not (has_table and changes_table(parsed.code)))


# ---- What is refused before anything runs ----


def _check_interface(module: wasm.Module, granted: Collection[str]) -> dict[str, wasm.Export]:
    """The exports of the guest ABI by name, when imports and exports are what the ABI allows."""
    problems = [import_problem(entry, granted) for entry in module.imports]
    exports = {entry.name: entry for entry in module.exports}
    memory = exports.get("memory")
    if memory is None or memory.kind != wasm.MEMORY:
        problems.append(f"export 'memory' (a memory) is missing: {_COMPILE}")
    problems += [_export_problem(module, exports.get(name), name, wanted) for name, wanted in _FUNCTIONS.items()]
    found = [problem for problem in problems if problem]
    if found:
        raise GuestError("the module is not an edgeos guest:\n" + "\n".join(f"  {problem}" for problem in found[:20]))
    return exports


def _export_problem(module: wasm.Module, found: wasm.Export | None, name: str, wanted: wasm.FuncType) -> str:
    if found is None:
        return "" if name in _OPTIONAL else f"export '{name}' {wanted} is missing: {_COMPILE}"
    if found.kind != wasm.FUNCTION:
        return f"export '{name}' is a {wasm.KIND_NAMES[found.kind]}, it must be a function {wanted}: {_COMPILE}"
    actual = module.function_type(found.index)
    if actual != wanted:
        return f"export '{name}' has type {_short(str(actual))}, it must be {wanted}: {_COMPILE}"
    return ""


def _check_state(module: wasm.Module) -> None:
    """Refuses state that a new module cannot start with, and what the kernel's pool has no room for."""
    if len(module.memories) != 1:
        raise GuestError(f"the module has {len(module.memories)} memories, an FWP has exactly one: {_COMPILE}")
    if module.memories[0].shared:
        raise GuestError("the memory is shared: an FWP shares none; compile without threads")
    if module.memories[0].wide:
        raise GuestError("the memory has 64-bit addresses: compile for wasm32")
    if len(module.globals) > GLOBALS_MAX:
        raise GuestError(f"the module has {len(module.globals)} globals, at most {GLOBALS_MAX} are allowed")
    for number, entry in enumerate(module.globals):
        if entry.mutable and entry.value in wasm.REFERENCES:
            raise GuestError(
                f"global {number} is a mutable {wasm.VALUE_NAMES[entry.value]}: a checkpoint cannot hold references; "
                "keep function pointers in memory instead"
            )
    if wasm.PASSIVE in module.data or wasm.PASSIVE in module.elements:
        raise GuestError(
            "the module has passive segments: whether init dropped one cannot be captured; compile without threads"
        )
    _check_tables(module)


def _check_tables(module: wasm.Module) -> None:
    if len(module.tables) > 1:
        raise GuestError(f"the module has {len(module.tables)} tables, at most one is allowed: {_COMPILE}")
    for table in module.tables:
        if table.element != wasm.FUNCREF:
            held = wasm.VALUE_NAMES[table.element]
            raise GuestError(f"the table holds {held}, only functions are allowed: {_COMPILE}")
        if table.limits.wide or table.limits.shared:
            raise GuestError("the table is shared or has 64-bit indices: compile for wasm32 without threads")
        if table.limits.minimum > TABLE_ELEMENTS_MAX:
            raise GuestError(
                f"the table has {table.limits.minimum} elements, at most {TABLE_ELEMENTS_MAX} are allowed: take the "
                "address of fewer functions"
            )


def _bounded_memory(module: wasm.Module, memory_limit: int) -> wasm.Limits:
    """The module's memory with the limit as its maximum, or its own maximum where that is smaller."""
    declared = module.memories[0]
    limit = min(memory_limit // wasm.PAGE_SIZE, 65536)
    if declared.minimum > limit:
        raise GuestError(
            f"the module starts with {declared.minimum * wasm.PAGE_SIZE} bytes of memory, the limit is {memory_limit}: "
            "raise the memory limit, or use smaller arrays, fewer slots or a smaller stack"
        )
    return wasm.Limits(declared.minimum, limit if declared.maximum is None else min(declared.maximum, limit))


# ---- Running init ----


def _probe_exports(module: wasm.Module, exports: dict[str, wasm.Export]) -> list[wasm.Export]:
    """The ABI, and what init must be watched through: start as a function, the table, each mutable global."""
    probes = [exports[name] for name in ("memory", *_FUNCTIONS) if name in exports]
    if module.start is not None:
        probes.append(wasm.Export(_START_EXPORT, wasm.FUNCTION, module.start))
    if module.tables:
        probes.append(wasm.Export(_TABLE_EXPORT, wasm.TABLE, 0))
    return probes + [wasm.Export(_global_export(index), wasm.GLOBAL, index) for index in _mutable(module)]


def _global_export(index: int) -> str:
    return f"global {index}"


def _mutable(module: wasm.Module) -> list[int]:
    return [index for index, entry in enumerate(module.globals) if entry.mutable]


def _engine() -> wasmtime.Engine:
    """An engine of its own for each init: raising its epoch stops everything that runs in it."""
    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    config.max_wasm_stack = INIT_STACK_SIZE
    config.cranelift_opt_level = "none"
    config.wasm_simd = True
    config.wasm_bulk_memory = True
    config.wasm_multi_value = True
    config.wasm_reference_types = True
    config.wasm_threads = False
    config.wasm_tail_call = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.wasm_relaxed_simd = False
    config.wasm_component_model = False
    config.wasm_exceptions = False
    config.wasm_function_references = False
    config.wasm_gc = False
    config.wasm_wide_arithmetic = False
    config.wasm_custom_page_sizes = False
    config.wasm_stack_switching = False
    return wasmtime.Engine(config)


_VALUE_TYPES: Final = {wasm.I32: wasmtime.ValType.i32, wasm.I64: wasmtime.ValType.i64}


def _call_in_init(store: wasmtime.Store, name: str) -> wasmtime.Func:
    """What a host call does in init, which has no client: it answers -1, or ends init where the answer would stay."""
    call = CALLS[name]

    def answer(*_: int) -> int:
        if call.secret:
            raise GuestError(
                f"init called edgeos.{name}: the checkpoint would give every client {call.secret}; "
                "call it when a message is handled"
            )
        return -1

    parameters, results = ([_VALUE_TYPES[value]() for value in part] for part in (call.type.params, call.type.results))
    return wasmtime.Func(store, wasmtime.FuncType(parameters, results), answer)


class _Init:
    """One run of a guest's init, in an instance of its own."""

    def __init__(self, copy: bytes, module: wasm.Module, memory: wasm.Limits, fuel: int, time_limit: float) -> None:
        self._module = module
        self._time_limit = time_limit
        self._engine = _engine()
        self._store = wasmtime.Store(self._engine)
        self._store.set_limits(
            memory_size=(memory.maximum or 0) * wasm.PAGE_SIZE,
            table_elements=TABLE_ELEMENTS_MAX,
            instances=1,
            tables=1,
            memories=1,
        )
        self._store.set_fuel(fuel)
        self._store.set_epoch_deadline(1)
        self._exports = self._instantiate(copy)
        self._memory: wasmtime.Memory = self._exports["memory"]
        self._layout_address: int | None = None

    def _instantiate(self, copy: bytes) -> Any:
        try:
            compiled = wasmtime.Module(self._engine, copy)
            calls = [_call_in_init(self._store, entry.name) for entry in self._module.imports]
            instance = wasmtime.Instance(self._store, compiled, calls)
        except wasmtime.WasmtimeError as error:
            raise GuestError(f"the module is not valid: {_short(str(error))}") from None
        except wasmtime.Trap as trap:
            raise GuestError(f"the module's own segments do not fit: {_short(trap.message)}") from None
        return instance.exports(self._store)

    def run(self, config: bytes) -> bytes:
        """Runs init to its end; returns the layout's bytes as they stood when the guest gave it."""
        before = self._table()
        with self._deadline():
            for name in (_START_EXPORT, "_initialize"):
                if name in self._exports:
                    self._call(name)
            layout = self._read_layout()
            self._start(config)
        if self._table() != before:
            raise GuestError(
                "init changed the function table: a checkpoint cannot hold references; keep function pointers in memory"
            )
        return layout

    def memory(self) -> bytearray:
        """A copy of the linear memory."""
        return self._memory.read(self._store, 0, self._memory.data_len(self._store))

    def globals(self) -> dict[int, bytes]:
        """The mutable globals' bytes by index; read raw, since a Python float would not keep every NaN."""
        return {index: self._global(self._exports[_global_export(index)]) for index in _mutable(self._module)}

    def is_valid(self, result: bytes) -> bool:
        """Whether the engine takes a module."""
        try:
            self.validate(result)
        except GuestError:
            return False
        return True

    def validate(self, result: bytes) -> None:
        """Checks that the rewritten module is one that the engine takes."""
        try:
            wasmtime.Module.validate(self._engine, result)
        except wasmtime.WasmtimeError as error:
            raise GuestError(f"the checkpoint is not valid: {_short(str(error))}") from None

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """Raises the epoch when the time is over. Fuel alone would not do: one instruction may fill a whole memory."""
        timer = threading.Timer(self._time_limit, self._engine.increment_epoch)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _call(self, name: str, *arguments: int) -> int:
        try:
            result = self._exports[name](self._store, *arguments)
        except wasmtime.Trap as trap:
            raise GuestError(self._trap_reason(name, trap)) from None
        except wasmtime.WasmtimeError as error:
            raise GuestError(f"{name} failed: {_short(str(error))}") from None
        return result & 0xFFFFFFFF if isinstance(result, int) else 0

    def _read_layout(self) -> bytes:
        address = self._call("edgeos_layout_v1")
        if address + _LAYOUT_SIZE > self._memory.data_len(self._store):
            raise GuestError(f"edgeos_layout_v1 returned {address}, which is outside the memory: {_COMPILE}")
        self._layout_address = address
        return bytes(self._memory.read(self._store, address, address + _LAYOUT.size))

    def _start(self, config: bytes) -> None:
        if len(config) > 0xFFFFFFFF:
            raise GuestError("the configuration is larger than 4 GiB")
        address = self._call("edgeos_config", _as_i32(len(config)))
        if config and address == 0:
            raise GuestError(
                f"the guest has no room for {len(config)} bytes of configuration: raise the template's memory limit"
            )
        if address + len(config) > self._memory.data_len(self._store):
            raise GuestError(f"edgeos_config returned {address}, where {len(config)} bytes do not fit: {_COMPILE}")
        if config:
            self._memory.write(self._store, config, address)
        self._call("edgeos_start", _as_i32(address), _as_i32(len(config)))

    def _trap_reason(self, name: str, trap: wasmtime.Trap) -> str:
        own_words = self._error_text()
        if own_words:
            return f"init failed: {own_words}"
        try:
            reason = _REASONS.get(trap.trap_code) if trap.trap_code else None
        except ValueError:  # a code newer than the package's list
            reason = None
        return f"init failed in {name}: {reason or _short(trap.message)}"

    def _error_text(self) -> str:
        """What the guest gave to edgeos_fail; empty when it gave nothing, or an address outside its memory."""
        if self._layout_address is None:
            return ""
        start = self._layout_address + _LAYOUT.size
        address, length = _LAYOUT_ERROR.unpack(self._memory.read(self._store, start, start + _LAYOUT_ERROR.size))
        length = min(length, ERROR_TEXT_MAX)
        if address == 0 or address + length > self._memory.data_len(self._store):
            return ""
        return printable(self._memory.read(self._store, address, address + length).decode("utf-8", "replace"))

    def _global(self, entry: wasmtime.Global) -> bytes:
        raw = ffi.wasmtime_val_t()
        ffi.wasmtime_global_get(self._store._context(), ctypes.byref(entry._global), ctypes.byref(raw))
        return bytes(raw.of)

    def _table(self) -> list[int | None]:
        """The function in each element: its address in the engine, which is its own for as long as the store lives."""
        if _TABLE_EXPORT not in self._exports:
            return []
        table = self._exports[_TABLE_EXPORT]
        return [self._element(table, index) for index in range(table.size(self._store))]

    def _element(self, table: wasmtime.Table, index: int) -> int | None:
        raw = ffi.wasmtime_val_t()
        ffi.wasmtime_table_get(self._store._context(), ctypes.byref(table._table), index, ctypes.byref(raw))
        function = raw.of.funcref
        # By getattr, since the plain name of the field would be mangled with the name of this class.
        return getattr(function, "__private") if function.store_id else None


# ---- What init left ----


def _check_layout(raw: bytes, snapshot: bytearray, stack_pointer: int) -> Layout:
    """The guest's layout, when every number in it is in range and every area lies in the memory on its own."""
    version, slots, slot_size, stride, messages, verdicts, data, counters, count = _LAYOUT.unpack(raw)
    if version != _VERSION:
        raise GuestError(f"the layout has version {version}, this edgeos reads version {_VERSION}: rebuild the guest")
    _require(
        SLOTS_MIN <= slots <= SLOTS_MAX and slots & (slots - 1) == 0,
        f"slots is {slots}, it must be a power of two from {SLOTS_MIN} to {SLOTS_MAX}",
    )
    _require(
        SLOT_SIZE_MIN <= slot_size <= SLOT_SIZE_MAX and slot_size % 64 == 0,
        f"slot_size is {slot_size}, it must be a multiple of 64 from {SLOT_SIZE_MIN} to {SLOT_SIZE_MAX}",
    )
    _require(
        stride >= slot_size and stride % 16 == 0,
        f"slot_stride is {stride}, it must be a multiple of 16 and at least slot_size, {slot_size}",
    )
    _require(count <= COUNTERS_MAX, f"counter_count is {count}, at most {COUNTERS_MAX} are allowed")
    if data == 0:
        raise GuestError(
            f"the guest has no room for {slots} slots of {stride} bytes: raise the template's memory limit, or build "
            "with fewer or smaller slots"
        )
    areas = [
        _Area("messages", messages, MESSAGE_SIZE * slots, 8),
        _Area("verdicts", verdicts, VERDICT_SIZE * slots, 4),
        _Area("data", data, stride * slots, 16),
    ]
    if count:
        areas.append(_Area("counters", counters, COUNTER_SIZE * count, 8))
    _check_areas(areas, len(snapshot))
    names = _counters(snapshot, counters, count)
    return Layout(slots, slot_size, stride, messages, verdicts, data, names, stack_pointer)


@dataclass(frozen=True, slots=True)
class _Area:
    name: str
    start: int
    size: int
    alignment: int

    @property
    def end(self) -> int:
        return self.start + self.size


def _check_areas(areas: list[_Area], memory: int) -> None:
    for area in areas:
        _require(area.start % area.alignment == 0, f"{area.name} at {area.start} is not aligned to {area.alignment}")
        _require(
            area.end <= memory,
            f"{area.name} at {area.start} with {area.size} bytes ends outside the memory of {memory} bytes",
        )
    ordered = sorted(areas, key=lambda area: area.start)
    for first, second in itertools.pairwise(ordered):
        _require(first.end <= second.start, f"{first.name} and {second.name} overlap at {second.start}")


def _counters(snapshot: bytearray, address: int, count: int) -> tuple[Counter, ...]:
    found: dict[str, Counter] = {}
    for number in range(count):
        at = address + number * COUNTER_SIZE
        raw = bytes(snapshot[at : at + COUNTER_NAME_SIZE]).split(b"\0", 1)[0]
        name = raw.decode("ascii", "replace")
        _require(
            re.fullmatch(r"[!-~]+", name) is not None,
            f"the name of counter {number} is '{printable(name)}', it must be printable ASCII without spaces",
        )
        _require(name not in found, f"two counters have the name '{name}'")
        found[name] = Counter(name, at + COUNTER_NAME_SIZE)
    return tuple(found.values())


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise GuestError(f"the guest's layout is wrong: {problem}; {_COMPILE}")


def _clear_messages(snapshot: bytearray, layout: Layout) -> None:
    """The kernel fills messages and slots before a guest sees them; zeroes keep the checkpoint small."""
    for start, size in (
        (layout.messages, MESSAGE_SIZE * layout.slots),
        (layout.verdicts, VERDICT_SIZE * layout.slots),
        (layout.data, layout.slot_stride * layout.slots),
    ):
        snapshot[start : start + size] = bytes(size)


def _segments(snapshot: bytearray) -> list[tuple[int, bytes]]:
    """Runs of non-zero bytes as (address, bytes); shorter gaps than SEGMENT_GAP are included.

    The longest gap doubles until the number of segments is one that every engine takes.
    """
    runs = [match.span() for match in re.finditer(rb"[^\0]+", snapshot)]
    gap = SEGMENT_GAP
    while True:
        merged: list[list[int]] = []
        for start, end in runs:
            if merged and start - merged[-1][1] < gap:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        if len(merged) <= wasm.DATA_SEGMENTS_MAX // 2:
            return [(start, bytes(snapshot[start:end])) for start, end in merged]
        gap *= 2


def _captured_globals(module: wasm.Module, values: dict[int, bytes]) -> list[wasm.Global]:
    return [
        replace(entry, init=wasm.constant(entry.value, values[index])) if index in values else entry
        for index, entry in enumerate(module.globals)
    ]


def _stack_pointer(module: wasm.Module, values: dict[int, bytes]) -> int:
    for index, entry in enumerate(module.globals):
        if entry.mutable and entry.value == wasm.I32:
            return int.from_bytes(values[index][:4], "little")
    return 0


def _as_i32(value: int) -> int:
    """An unsigned number of 32 bits as the signed one with the same bits, which is how wasmtime takes it."""
    return value - (1 << 32) if value >= 1 << 31 else value


def printable(text: str) -> str:
    """Text of a guest's with everything that could upset a terminal escaped, and cut to ERROR_TEXT_MAX characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:ERROR_TEXT_MAX])


def _short(message: str) -> str:
    """An engine's message, which may quote the guest's names, on one line."""
    return printable(" ".join(message.split()))[:300]
