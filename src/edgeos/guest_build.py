"""Builds guests: C sources to a WebAssembly module, with the compiler in the `ziglang` wheel.

Results are kept in the code cache under everything that went into them: the sources and the files they include, the
flags, and the compiler's version.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeos.code_cache import CodeCache
from edgeos.errors import GuestError
from edgeos.installed import installed_version
from edgeos.share import share

TIME_LIMIT_DEFAULT: Final = 300.0
"""Seconds that the compiler may take; its first run builds its C library, which takes about 40."""

SOURCE_SIZE_MAX: Final = 16 * 1024 * 1024
"""Bytes of the largest source or header."""

_TARGET: Final = ("-target", "wasm32-wasi", "-mcpu=baseline+simd128+bulk_memory", "-mexec-model=reactor")
_WARNINGS: Final = ("-Wall", "-Wextra")
_STACK_ALIGNMENT: Final = 16
_DIRECTIVE: Final = re.compile(rb"^[ \t]*(?:#|%:)[ \t]*(include|include_next|import|embed)\b[ \t]*(.*)$", re.MULTILINE)
_OPERAND: Final = re.compile(rb'(?:"([^"\n]+)"|<([^>\n]+)>)')
_UNTRACKED: Final = (b"__has_include", b"__has_embed", b"incbin", b"__DATE__", b"__TIME__", b"__TIMESTAMP__")


def build(
    source: Path | Sequence[Path],
    output: Path | None = None,
    *,
    stack: int | None = None,
    slots: int | None = None,
    slot_size: int | None = None,
    optimize: str = "-O3",
    defines: Mapping[str, str | int] | None = None,
    tcp: bool = False,
    cache: CodeCache | None = None,
    progress: Callable[[str], None] | None = None,
    time_limit: float = TIME_LIMIT_DEFAULT,
) -> bytes:
    """Compiles one or more C files to a guest; returns the module, and writes it to `output` when that is given.

    `stack` is in bytes; None is as much as the code needs. `slots` (messages) and `slot_size` (bytes) set EDGEOS_SLOTS
    and EDGEOS_SLOT_SIZE; None leaves them to the source, or to edgeos.h (64 and 2048). `tcp` defines EDGEOS_TCP, with
    which the guest speaks TCP by itself. `progress` is called with a line of text before the compiler runs and with its
    warnings after. Raises GuestError with the compiler's words when it fails, or when `time_limit` (seconds) is over.
    """
    sources = [source] if isinstance(source, Path) else list(source)
    if not sources:
        raise GuestError("nothing to build: no source file was given")
    if stack is not None and (stack <= 0 or stack % _STACK_ALIGNMENT):
        raise GuestError(f"stack is {stack} bytes, it must be a positive multiple of {_STACK_ALIGNMENT}")
    with_tcp = {"EDGEOS_TCP": 1} if tcp else {}
    flags = _flags(optimize, _definitions(slots, slot_size, {**(defines or {}), **with_tcp}))
    report = progress or (lambda _: None)

    def make() -> bytes:
        report(f"compiling {', '.join(path.name for path in sources)} (the first build ever takes about 40 s)")
        return _compile(sources, flags, stack, report, time_limit)

    key = _key(sources, [*flags, f"stack {stack}"])
    module = make() if key is None else (cache or CodeCache()).get(key, make)
    if output is not None:
        _write(output, module)
    return module


def build_code(
    code: str,
    name: str,
    *,
    stack: int | None = None,
    slots: int | None = None,
    slot_size: int | None = None,
    optimize: str = "-O3",
    cache: CodeCache | None = None,
    progress: Callable[[str], None] | None = None,
    time_limit: float = TIME_LIMIT_DEFAULT,
) -> bytes:
    """Compiles C that a program has written, which includes files of edgeos only. `name` is for messages.

    The result is kept under the code itself, so that it does not matter where it came from. The rest is as in `build`.
    """
    flags = _flags(optimize, _definitions(slots, slot_size, {}))
    report = progress or (lambda _: None)

    def make() -> bytes:
        report(f"compiling {name} (the first build ever takes about 40 s)")
        import tempfile  # noqa: PLC0415  (of no use where modules are kept already)

        with tempfile.TemporaryDirectory(prefix="edgeos-code-") as folder:
            source = Path(folder, "code.c")
            source.write_text(code, encoding="utf-8")
            return _compile([source], flags, stack, report, time_limit)

    key = _key([], [*flags, f"stack {stack}"], code.encode())
    return make() if key is None else (cache or CodeCache()).get(key, make)


def _definitions(slots: int | None, slot_size: int | None, defines: Mapping[str, str | int]) -> dict[str, str]:
    definitions = {name: str(value) for name, value in defines.items()}
    for name in definitions:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise GuestError(f"'{name}' cannot be defined: it is not a C identifier")
    if slots is not None:
        definitions["EDGEOS_SLOTS"] = str(slots)
    if slot_size is not None:
        definitions["EDGEOS_SLOT_SIZE"] = str(slot_size)
    return definitions


def _flags(optimize: str, definitions: Mapping[str, str]) -> list[str]:
    return [
        *_TARGET,
        optimize,
        *_WARNINGS,
        "-DEDGEOS_SLOTS_AFTER_DATA",  # this toolchain's allocator takes new pages only; a test holds it to that
        *(f"-D{name}={value}" for name, value in sorted(definitions.items())),
        "-s",
    ]


# ---- The key of a result ----


def _key(sources: Sequence[Path], flags: Sequence[str], code: bytes = b"") -> list[bytes | str] | None:
    """All that goes into a build; None when a source reads something that cannot be told from its text.

    `code` is a source that is in no file.
    """
    key: list[bytes | str] = ["guest", _compiler_version(), str(len(flags)), *flags, code]
    seen: set[Path] = set()
    waiting = [path.resolve() for path in reversed(sources)]
    if code:
        included = _includes(_include_folder() / "code.c", code)
        if included is None:
            return None
        waiting += reversed(included)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        text = _read(path)
        included = _includes(path, text)
        if included is None:
            return None
        key += [os.fsencode(path), text]
        waiting += reversed(included)
    return key


def _compiler_version() -> str:
    try:
        return installed_version("ziglang")
    except ModuleNotFoundError:
        raise GuestError("the C compiler is missing: pip install ziglang") from None


def _includes(path: Path, text: bytes) -> list[Path] | None:
    """The files beside `path` or of edgeos that it includes; those of the compiler are covered by its version.

    None when an include is made by a macro, or the file reads others in ways that this does not follow.
    """
    joined = text.replace(b"\\\n", b"")
    if any(word in joined for word in _UNTRACKED):
        return None
    found: list[Path] = []
    for directive, operand in _DIRECTIVE.findall(joined):
        match = _OPERAND.match(operand)
        if directive != b"include" or match is None:
            return None
        quoted, angled = match.groups()
        folders = [path.parent] if quoted else []
        candidates = [folder / os.fsdecode(quoted or angled) for folder in (*folders, _include_folder())]
        found += [file.resolve() for file in candidates if file.is_file()][:1]
    return found


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise GuestError(f"{path}: not a regular file")
        if found.st_size > SOURCE_SIZE_MAX:
            raise GuestError(f"{path}: the file is larger than {SOURCE_SIZE_MAX} bytes")
        return path.read_bytes()
    except OSError as error:
        raise GuestError(f"{path}: cannot be read: {error.strerror}") from None


def _include_folder() -> Path:
    return share("guest", "include")


# ---- Running the compiler ----


def _compile(
    sources: Sequence[Path], flags: Sequence[str], stack: int | None, report: Callable[[str], None], time_limit: float
) -> bytes:
    from edgeos.guest_compiler import compile_guest  # noqa: PLC0415  (of no use where modules are kept already)

    return compile_guest(sources, [*flags, f"-I{_include_folder()}"], stack, report, time_limit)


def _write(output: Path, module: bytes) -> None:
    try:
        output.write_bytes(module)
    except OSError as error:
        raise GuestError(f"{output}: cannot be written: {error.strerror}") from None
