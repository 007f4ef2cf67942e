"""A strict reader and rewriter of WebAssembly modules (binary format, version 1).

It reads everything around the code: types, imports, tables, memories, globals, exports, start, segments. Function
bodies are passed through unread; the engine validates them. Source: https://webassembly.github.io/spec/core/binary/

The input is hostile. Each malformed module raises GuestError with the offset of the byte that is wrong, and never
another exception. Reading takes time and memory linear in the size of the module: each entry of a vector takes at least
a byte, and no count is believed before its bytes are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from edgeos.errors import GuestError

PAGE_SIZE: Final = 65536
"""Bytes in a page of linear memory."""

MODULE_SIZE_MAX: Final = 16 * 1024 * 1024
"""Bytes of the largest module that is read."""

ENTRIES_MAX: Final = 1_000_000
"""Entries of the longest vector that is read, as in engines."""

DATA_SEGMENTS_MAX: Final = 100_000
"""Data segments that engines accept in a module."""

I32: Final = 0x7F
I64: Final = 0x7E
F32: Final = 0x7D
F64: Final = 0x7C
V128: Final = 0x7B
FUNCREF: Final = 0x70
EXTERNREF: Final = 0x6F
VALUE_NAMES: Final[Mapping[int, str]] = {
    I32: "i32", I64: "i64", F32: "f32", F64: "f64", V128: "v128", FUNCREF: "funcref", EXTERNREF: "externref",
}  # fmt: skip
REFERENCES: Final = (FUNCREF, EXTERNREF)

FUNCTION: Final = 0
TABLE: Final = 1
MEMORY: Final = 2
GLOBAL: Final = 3
KIND_NAMES: Final = ("function", "table", "memory", "global")

ACTIVE: Final = "active"
PASSIVE: Final = "passive"
DECLARATIVE: Final = "declarative"

_MAGIC: Final = b"\0asm"
_VERSION: Final = b"\x01\0\0\0"
_CUSTOM: Final = 0
_TYPES: Final = 1
_IMPORTS: Final = 2
_FUNCTIONS: Final = 3
_TABLES: Final = 4
_MEMORIES: Final = 5
_GLOBALS: Final = 6
_EXPORTS: Final = 7
_START: Final = 8
_ELEMENTS: Final = 9
_CODE: Final = 10
_DATA: Final = 11
_DATA_COUNT: Final = 12
_ORDER: Final = (
    _TYPES, _IMPORTS, _FUNCTIONS, _TABLES, _MEMORIES, _GLOBALS, _EXPORTS, _START, _ELEMENTS, _DATA_COUNT, _CODE, _DATA,
)  # fmt: skip
_SECTION_NAMES: Final = (
    "custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data",
    "data count",
)  # fmt: skip

_END: Final = 0x0B
_GLOBAL_GET: Final = 0x23
_I32_CONST: Final = 0x41
_I64_CONST: Final = 0x42
_F32_CONST: Final = 0x43
_F64_CONST: Final = 0x44
_REF_NULL: Final = 0xD0
_REF_FUNC: Final = 0xD2
_SIMD: Final = 0xFD
_V128_CONST: Final = 12
_ARITHMETIC: Final = (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E)  # add, sub, mul of i32 and i64: extended constants

# How a constant of each type is written: its instruction, and the bytes of its value in memory.
_CONSTANTS: Final = {
    I32: (bytes([_I32_CONST]), 4),
    I64: (bytes([_I64_CONST]), 8),
    F32: (bytes([_F32_CONST]), 4),
    F64: (bytes([_F64_CONST]), 8),
    V128: (bytes([_SIMD, _V128_CONST]), 16),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FuncType:
    """Parameters and results of a function, one value type (I32 …) a byte."""

    params: bytes
    results: bytes

    def __str__(self) -> str:
        return f"({_names(self.params)}) -> ({_names(self.results)})"


@dataclass(frozen=True, slots=True)
class Limits:
    """Size of a memory (pages) or table (elements); `maximum` None means unbounded."""

    minimum: int
    maximum: int | None
    shared: bool = False
    wide: bool = False  # 64-bit addresses


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the reference type (FUNCREF or EXTERNREF) of its elements."""

    element: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Global:
    """A global that the module defines. `init` is its initialiser as it stands in the module, with the closing end."""

    value: int
    mutable: bool
    init: bytes


@dataclass(frozen=True, slots=True)
class Import:
    """An import; `function` is its type when it imports a function, otherwise None."""

    module: str
    name: str
    kind: int
    function: FuncType | None


@dataclass(frozen=True, slots=True)
class Export:
    """An export: the entry `index` among the module's functions, tables, memories or globals, by `kind`."""

    name: str
    kind: int
    index: int


@dataclass(frozen=True, slots=True)
class Module:
    """What a module holds. Index spaces (functions, tables, memories, globals) begin with the imported ones."""

    types: tuple[FuncType, ...]
    imports: tuple[Import, ...]
    functions: tuple[int, ...]
    tables: tuple[Table, ...]
    memories: tuple[Limits, ...]
    globals: tuple[Global, ...]
    exports: tuple[Export, ...]
    start: int | None
    elements: tuple[str, ...]  # the mode of each segment: ACTIVE, PASSIVE or DECLARATIVE
    data: tuple[str, ...]  # likewise
    data_count: int | None
    referenced: frozenset[int]  # functions that element segments and initialisers name, which indirect calls may reach
    sections: Mapping[int, bytes]  # contents by section number, custom sections left out

    @property
    def code(self) -> bytes:
        """The code section's contents: a vector of bodies."""
        return self.sections.get(_CODE, b"\0")

    def imported(self, kind: int) -> int:
        """How many entries of `kind` are imported, hence the index of the first that the module defines."""
        return sum(1 for entry in self.imports if entry.kind == kind)

    def function_type(self, index: int) -> FuncType:
        """Type of function `index`, imported or defined."""
        imported = [entry.function for entry in self.imports if entry.function is not None]
        if index < len(imported):
            return imported[index]
        return self.types[self.functions[index - len(imported)]]


def parse(data: bytes) -> Module:
    """Reads a module; raises GuestError for whatever is not a core WebAssembly module that this reader knows."""
    return _Parser(data).module()


class Reader:
    """A cursor over data[position:end]; every read is checked, errors carry the offset in the whole module."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data = data
        self.position = position
        self.end = end

    def fail(self, what: str, offset: int | None = None) -> NoReturn:
        at = self.position if offset is None else offset
        raise GuestError(f"malformed WebAssembly at byte {at}: {what}")

    def byte(self) -> int:
        if self.position >= self.end:
            self.fail("ends too early")
        self.position += 1
        return self.data[self.position - 1]

    def skip(self, count: int) -> None:
        if count > self.end - self.position:
            self.fail(f"{count} bytes are announced, {self.end - self.position} are left")
        self.position += count

    def take(self, count: int) -> bytes:
        start = self.position
        self.skip(count)
        return self.data[start : self.position]

    def unsigned(self, bits: int = 32) -> int:
        """An unsigned LEB128 number of at most `bits` bits."""
        start = self.position
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                self.fail(f"number is longer than {bits} bits", start)
        if value >> bits:
            self.fail(f"number is larger than {bits} bits", start)
        return value

    def signed(self, bits: int) -> int:
        """A signed LEB128 number of at most `bits` bits."""
        start = self.position
        value = 0
        for shift in range(7, bits + 7, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift - 7
            if byte < 0x80:
                return value - (1 << shift) if byte & 0x40 else value
        return self.fail(f"number is longer than {bits} bits", start)

    def count(self) -> int:
        """Length of a vector; each entry takes a byte or more, so it cannot exceed the bytes that are left."""
        start = self.position
        count = self.unsigned()
        if count > self.end - self.position:
            self.fail(f"{count} entries are announced, {self.end - self.position} bytes are left", start)
        if count > ENTRIES_MAX:
            self.fail(f"{count} entries, at most {ENTRIES_MAX} are allowed", start)
        return count

    def vector(self, entry: Callable[[], T]) -> tuple[T, ...]:
        return tuple([entry() for _ in range(self.count())])

    def name(self) -> str:
        start = self.position
        try:
            return self.take(self.unsigned()).decode("utf-8")
        except UnicodeDecodeError:
            self.fail("name is not UTF-8", start)

    def below(self, limit: int, what: str) -> int:
        """An index smaller than `limit`."""
        start = self.position
        index = self.unsigned()
        if index >= limit:
            self.fail(f"{what} {index} does not exist, there are {limit}", start)
        return index

    def value_type(self) -> int:
        value = self.byte()
        if value not in VALUE_NAMES:
            self.fail(f"value type 0x{value:02x} is unknown or not supported", self.position - 1)
        return value

    def reference_type(self) -> int:
        value = self.byte()
        if value not in REFERENCES:
            self.fail(f"reference type 0x{value:02x} is unknown or not supported", self.position - 1)
        return value

    def flag(self, allowed: int, what: str) -> int:
        value = self.byte()
        if value >= allowed:
            self.fail(f"{what} 0x{value:02x} is unknown or not supported", self.position - 1)
        return value


class _Parser(Reader):
    """Reads a whole module, section by section."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, 0, len(data))
        self.types: tuple[FuncType, ...] = ()
        self.imports: tuple[Import, ...] = ()
        self.functions: tuple[int, ...] = ()
        self.tables: tuple[Table, ...] = ()
        self.memories: tuple[Limits, ...] = ()
        self.globals: tuple[Global, ...] = ()
        self.exports: tuple[Export, ...] = ()
        self.start: int | None = None
        self.elements: tuple[str, ...] = ()
        self.segments: tuple[str, ...] = ()
        self.data_count: int | None = None
        self.referenced: set[int] = set()
        self.bodies = 0
        self.counts = [0, 0, 0, 0]  # entries in each index space, by kind

    def module(self) -> Module:
        self._preamble()
        sections: dict[int, bytes] = {}
        place = 0
        whole = self.end
        while self.position < whole:
            number = self.flag(len(_SECTION_NAMES), "section")
            size = self.unsigned()
            start = self.position
            self.skip(size)
            if number != _CUSTOM:
                if number not in _ORDER[place:]:
                    self.fail(f"{_SECTION_NAMES[number]} section is repeated or out of order", start)
                place = _ORDER.index(number) + 1
                sections[number] = self.data[start : self.position]
            self.position, self.end = start, start + size
            self._section(number)
            if self.position != self.end:
                self.fail(f"{_SECTION_NAMES[number]} section is longer than its contents")
            self.end = whole
        self._agree()
        return Module(
            self.types, self.imports, self.functions, self.tables, self.memories, self.globals, self.exports,
            self.start, self.elements, self.segments, self.data_count, frozenset(self.referenced), sections,
        )  # fmt: skip

    def _preamble(self) -> None:
        if not self.data:
            raise GuestError("not a WebAssembly module: it has 0 bytes")
        if self.end > MODULE_SIZE_MAX:
            raise GuestError(f"the module has {self.end} bytes, at most {MODULE_SIZE_MAX} are allowed")
        if self.data[:4] != _MAGIC:
            raise GuestError("not a WebAssembly module: it does not begin with '\\0asm'; compile with `edgeos build`")
        version = self.data[4:8]
        if len(version) == 4 and version[2:] == b"\x01\0":
            raise GuestError("a WebAssembly component; edgeos runs core modules: compile with `edgeos build`")
        if version != _VERSION:
            self.fail("version is not 1", 4)
        self.position = 8

    def _section(self, number: int) -> None:
        if number == _CUSTOM:
            self.name()
            self.position = self.end
        elif number == _TYPES:
            self.types = self.vector(self._type)
        elif number == _IMPORTS:
            self.imports = self.vector(self._import)
        elif number == _FUNCTIONS:
            self.functions = self.vector(lambda: self.below(len(self.types), "type"))
            self.counts[FUNCTION] += len(self.functions)
        elif number == _TABLES:
            self.tables = self.vector(self._table)
            self.counts[TABLE] += len(self.tables)
        elif number == _MEMORIES:
            self.memories = self.vector(self._limits)
            self.counts[MEMORY] += len(self.memories)
        elif number == _GLOBALS:
            self.globals = self.vector(self._global)
            self.counts[GLOBAL] += len(self.globals)
        elif number == _EXPORTS:
            self._exports()
        elif number == _START:
            self.start = self.below(self.counts[FUNCTION], "function")
        elif number == _ELEMENTS:
            self.elements = self.vector(self._element)
        elif number == _CODE:
            self.bodies = self.count()
            for _ in range(self.bodies):
                self.skip(self.unsigned())
        elif number == _DATA:
            self.segments = self.vector(self._data_segment)
        else:
            self.data_count = self.unsigned()

    def _agree(self) -> None:
        if self.bodies != len(self.functions):
            self.fail(f"{len(self.functions)} functions are declared, {self.bodies} have bodies")
        if self.data_count is not None and self.data_count != len(self.segments):
            self.fail(f"{self.data_count} data segments are announced, there are {len(self.segments)}")

    def _type(self) -> FuncType:
        form = self.byte()
        if form != 0x60:
            self.fail(f"type 0x{form:02x} is not a function type", self.position - 1)
        return FuncType(self._value_types(), self._value_types())

    def _value_types(self) -> bytes:
        return bytes(self.vector(self.value_type))

    def _import(self) -> Import:
        module, name = self.name(), self.name()
        kind = self.flag(len(KIND_NAMES), "kind of import")
        function = None
        if kind == FUNCTION:
            function = self.types[self.below(len(self.types), "type")]
        elif kind == TABLE:
            self._table()
        elif kind == MEMORY:
            self._limits()
        else:
            self.value_type()
            self.flag(2, "mutability")
        self.counts[kind] += 1
        return Import(module, name, kind, function)

    def _limits(self) -> Limits:
        flags = self.flag(8, "limits")
        bits = 64 if flags & 4 else 32
        start = self.position
        minimum = self.unsigned(bits)
        maximum = self.unsigned(bits) if flags & 1 else None
        if maximum is not None and maximum < minimum:
            self.fail(f"maximum {maximum} is smaller than minimum {minimum}", start)
        return Limits(minimum, maximum, shared=bool(flags & 2), wide=bool(flags & 4))

    def _table(self) -> Table:
        return Table(self.reference_type(), self._limits())

    def _global(self) -> Global:
        value = self.value_type()
        mutable = bool(self.flag(2, "mutability"))
        start = self.position
        self._constant()
        return Global(value, mutable, self.data[start : self.position])

    def _constant(self) -> None:
        """Passes over a constant expression."""
        while True:
            start = self.position
            code = self.byte()
            if code == _END:
                return
            if code == _I32_CONST:
                self.signed(32)
            elif code == _I64_CONST:
                self.signed(64)
            elif code == _F32_CONST:
                self.skip(4)
            elif code == _F64_CONST:
                self.skip(8)
            elif code == _GLOBAL_GET:
                self.unsigned()
            elif code == _REF_NULL:
                self.reference_type()
            elif code == _REF_FUNC:
                self.referenced.add(self.below(self.counts[FUNCTION], "function"))
            elif code == _SIMD and self.unsigned() == _V128_CONST:
                self.skip(16)
            elif code not in _ARITHMETIC:
                self.fail(f"instruction 0x{code:02x} is not allowed in a constant expression", start)

    def _exports(self) -> None:
        start = self.position
        self.exports = self.vector(self._export)
        if len({entry.name for entry in self.exports}) != len(self.exports):
            self.fail("two exports have the same name", start)

    def _export(self) -> Export:
        name = self.name()
        kind = self.flag(len(KIND_NAMES), "kind of export")
        return Export(name, kind, self.below(self.counts[kind], KIND_NAMES[kind]))

    def _element(self) -> str:
        """Flags: 1 not active; 2 table index given (active) or declarative (not active); 4 expressions, not indices."""
        flags = self.flag(8, "kind of element segment")
        if not flags & 1:
            if flags & 2:
                self.below(self.counts[TABLE], "table")
            self._constant()
        if flags & 3:
            if flags & 4:
                self.reference_type()
            else:
                self.flag(1, "kind of elements")
        for _ in range(self.count()):
            if flags & 4:
                self._constant()
            else:
                self.referenced.add(self.below(self.counts[FUNCTION], "function"))
        if not flags & 1:
            return ACTIVE
        return DECLARATIVE if flags & 2 else PASSIVE

    def _data_segment(self) -> str:
        flags = self.flag(3, "kind of data segment")
        if flags == 2:
            self.below(self.counts[MEMORY], "memory")
        if flags != 1:
            self._constant()
        self.skip(self.unsigned())
        return PASSIVE if flags == 1 else ACTIVE


# ---- Writing ----


def constant(value_type: int, raw: bytes) -> bytes:
    """Initialiser of a global of a number or vector type: `raw` begins with the value's bytes, little endian."""
    code, size = _CONSTANTS[value_type]
    value = raw[:size]
    if value_type in (I32, I64):
        value = _signed(int.from_bytes(value, "little", signed=True))
    return code + value + bytes([_END])


def rewrite(
    module: Module,
    *,
    exports: Sequence[Export],
    memory: Limits,
    globals: Sequence[Global] | None = None,
    data: Sequence[tuple[int, bytes]] | None = None,
    references: bool = True,
) -> bytes:
    """The module without its start function and its custom sections, with these exports and this size of its memory.

    `globals` replaces the globals, same number, order and types; `data` replaces the data segments by active ones
    (address, bytes). Left out, both stay as they are. Code and types stay; so do tables and element segments, unless
    `references` is False: then the module is valid only if its code uses none of them.
    """
    sections = {number: body for number, body in module.sections.items() if number != _START}
    sections[_EXPORTS] = _vector(_name(e.name) + bytes([e.kind]) + _unsigned(e.index) for e in exports)
    sections[_MEMORIES] = _vector([_limits(memory)])
    if globals is not None:
        sections[_GLOBALS] = _vector(bytes([g.value, g.mutable]) + g.init for g in globals)
    if data is not None:
        _replace_data(module, sections, data)
    if references:
        _declare_dropped(module, sections, exports)
    else:
        sections.pop(_TABLES, None)
        sections.pop(_ELEMENTS, None)
    body = b"".join(
        bytes([number]) + _unsigned(len(sections[number])) + sections[number] for number in _ORDER if number in sections
    )
    return _MAGIC + _VERSION + body


def _replace_data(module: Module, sections: dict[int, bytes], data: Sequence[tuple[int, bytes]]) -> None:
    segments = list(data)
    if module.data_count is not None:
        # The code may name the old segments. They were active, hence of length 0 once the instance runs, and so are
        # the new ones: only their number must not shrink.
        segments += [(0, b"")] * (module.data_count - len(segments))
        sections[_DATA_COUNT] = _unsigned(len(segments))
    if len(segments) > DATA_SEGMENTS_MAX:
        raise GuestError(f"{len(segments)} data segments are needed, engines accept at most {DATA_SEGMENTS_MAX}")
    sections[_DATA] = _vector(
        b"\0" + constant(I32, address.to_bytes(4, "little")) + _unsigned(len(content)) + content
        for address, content in segments
    )


def _declare_dropped(module: Module, sections: dict[int, bytes], exports: Sequence[Export]) -> None:
    """Code may take references to exported functions; a declarative segment keeps that legal for dropped exports."""
    kept = {entry.index for entry in exports if entry.kind == FUNCTION}
    dropped = sorted({entry.index for entry in module.exports if entry.kind == FUNCTION} - kept)
    if not dropped:
        return
    segment = b"\x03\0" + _vector(_unsigned(index) for index in dropped)
    old = sections.get(_ELEMENTS)
    entries = b"" if old is None else old[len(_prefix(old)) :]
    sections[_ELEMENTS] = _unsigned(len(module.elements) + 1) + entries + segment


def _prefix(vector: bytes) -> bytes:
    """The encoded length at the start of a vector, which need not be encoded in the shortest way."""
    end = next(index for index, byte in enumerate(vector) if byte < 0x80)
    return vector[: end + 1]


def _limits(limits: Limits) -> bytes:
    if limits.maximum is None:
        return b"\0" + _unsigned(limits.minimum)
    return b"\x01" + _unsigned(limits.minimum) + _unsigned(limits.maximum)


def _vector(entries: Iterable[bytes]) -> bytes:
    items = list(entries)
    return _unsigned(len(items)) + b"".join(items)


def _name(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return _unsigned(len(encoded)) + encoded


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def _names(types: bytes) -> str:
    return ", ".join(VALUE_NAMES[value] for value in types)
