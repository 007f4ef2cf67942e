"""The guest toolchain."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgeos import guest_build, wasm
from edgeos.checkpoint import make_checkpoint
from edgeos.code_cache import CodeCache
from edgeos.errors import GuestError
from edgeos.guest_build import build
from edgeos.share import share

FORWARD = "#include <edgeos.h>\nint edgeos_handle(edgeos_message *m) { (void)m; return 0; }\n"


@pytest.fixture
def cache(tmp_path: Path) -> CodeCache:
    return CodeCache(tmp_path / "cache")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_header_is_shared() -> None:
    assert share("guest", "include", "edgeos.h").is_file()


def test_builds_a_guest(tmp_path: Path, cache: CodeCache) -> None:
    output = tmp_path / "out.wasm"
    lines: list[str] = []
    module = build(write(tmp_path, "guest.c", FORWARD), output, cache=cache, progress=lines.append)
    assert output.read_bytes() == module
    assert lines == ["compiling guest.c (the first build ever takes about 40 s)"]
    assert {entry.name for entry in wasm.parse(module).exports} == {
        "memory", "_initialize", "edgeos_layout_v1", "edgeos_config", "edgeos_start", "edgeos_burst",
        "edgeos_access",
    }  # fmt: skip


def test_slots_stack_and_definitions_reach_the_guest(tmp_path: Path, cache: CodeCache) -> None:
    source = write(tmp_path, "guest.c", FORWARD + "#if ANSWER != 42\n#error wrong\n#endif\n")
    module = build(source, slots=16, slot_size=256, stack=8192, defines={"ANSWER": 42}, cache=cache)
    layout = make_checkpoint(module, b"").layout
    assert (layout.slots, layout.slot_size, layout.stack_pointer) == (16, 256, 8192)


def test_tcp_reaches_the_guest_as_a_definition(tmp_path: Path, cache: CodeCache) -> None:
    source = write(tmp_path, "guest.c", "#if !EDGEOS_TCP || ANSWER != 42\n#error it is not defined\n#endif\n" + FORWARD)
    with pytest.raises(GuestError, match="it is not defined"):
        build(source, defines={"ANSWER": 42}, cache=cache)
    assert build(source, defines={"ANSWER": 42}, tcp=True, cache=cache)


def test_a_source_may_set_its_own_slots(tmp_path: Path, cache: CodeCache) -> None:
    lines: list[str] = []
    source = write(tmp_path, "guest.c", "#define EDGEOS_SLOTS 32\n" + FORWARD)
    assert make_checkpoint(build(source, cache=cache, progress=lines.append), b"").layout.slots == 32
    assert len(lines) == 1, lines


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"EDGEOS_TCP_CONNECTIONS": 3}, "a power of two from 1 to 4096"),
        ({"EDGEOS_TCP_MEMORY": 15360}, "from 16384"),
        ({"EDGEOS_TCP_SEGMENT": 1971}, "fit a slot"),
        ({"EDGEOS_HEADROOM": 16}, "no room of the guest's in front"),
    ],
)
def test_settings_that_tcp_cannot_have(tmp_path: Path, cache: CodeCache, setting: dict[str, int], words: str) -> None:
    with pytest.raises(GuestError, match=words):
        build(write(tmp_path, "guest.c", FORWARD), defines=setting, tcp=True, cache=cache)


def test_several_sources_make_one_guest(tmp_path: Path, cache: CodeCache) -> None:
    first = write(tmp_path, "a.c", "#include <edgeos.h>\nint verdict(void);\n" + FORWARD.replace("0;", "verdict();"))
    second = write(tmp_path, "b.c", "int verdict(void);\nint verdict(void) { return 1; }\n")
    assert wasm.parse(build([first, second], cache=cache)).exports


def test_the_compilers_words_reach_the_user(tmp_path: Path, cache: CodeCache) -> None:
    source = write(tmp_path, "guest.c", FORWARD + "int oops = missing;\n")
    with pytest.raises(GuestError, match=r"guest\.c:3:12: error: .*missing"):
        build(source, cache=cache)
    with pytest.raises(GuestError, match="power of two"):
        build(write(tmp_path, "slots.c", FORWARD), slots=7, cache=cache)


def test_a_missing_handler_is_explained(tmp_path: Path, cache: CodeCache) -> None:
    with pytest.raises(GuestError, match=r"fix: define int edgeos_handle\(edgeos_message \*m\)"):
        build(write(tmp_path, "guest.c", "#include <edgeos.h>\n"), cache=cache)


def test_warnings_are_reported(tmp_path: Path, cache: CodeCache) -> None:
    lines: list[str] = []
    build(write(tmp_path, "guest.c", FORWARD + "static int unused;\n"), cache=cache, progress=lines.append)
    assert any("unused" in line for line in lines)


def test_a_compiler_that_takes_too_long_is_stopped(tmp_path: Path, cache: CodeCache) -> None:
    started = time.monotonic()
    with pytest.raises(GuestError, match=r"did not finish within 0\.01 s"):
        build(write(tmp_path, "guest.c", FORWARD), cache=cache, time_limit=0.01)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"stack": 0}, "stack is 0 bytes"),
        ({"stack": 100}, "stack is 100 bytes"),
        ({"defines": {"A B": 1}}, "'A B' cannot be defined"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, cache: CodeCache, kwargs: dict[str, object], words: str) -> None:
    with pytest.raises(GuestError, match=words):
        build(write(tmp_path, "guest.c", FORWARD), cache=cache, **kwargs)  # type: ignore[arg-type]


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path, cache: CodeCache) -> None:
    with pytest.raises(GuestError, match=r"absent\.c: cannot be read: No such file"):
        build(tmp_path / "absent.c", cache=cache)
    with pytest.raises(GuestError, match="not a regular file"):
        build(tmp_path, cache=cache)
    with pytest.raises(GuestError, match="no source file"):
        build([], cache=cache)
    with pytest.raises(GuestError, match="cannot be written"):
        build(write(tmp_path, "guest.c", FORWARD), tmp_path / "absent" / "out.wasm", cache=cache)


class Compilations:
    """Counts runs of a compiler that is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(guest_build, "_compile", self._compile)

    def _compile(self, *_: object) -> bytes:
        self.count += 1
        return b"module %d" % self.count


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Compilations:
    return Compilations(monkeypatch)


def test_the_same_input_is_compiled_once(tmp_path: Path, cache: CodeCache, compilations: Compilations) -> None:
    source = write(tmp_path, "guest.c", FORWARD)
    assert build(source, cache=cache) == build(source, cache=cache) == b"module 1"
    assert (cache.hits, cache.misses) == (1, 1)


@pytest.mark.parametrize(
    "setting",
    [{"stack": 4096}, {"slots": 8}, {"slot_size": 64}, {"optimize": "-Os"}, {"defines": {"A": 1}}, {"tcp": True}],
    ids=lambda setting: next(iter(setting)),
)
def test_every_setting_counts(
    tmp_path: Path, cache: CodeCache, compilations: Compilations, setting: dict[str, object]
) -> None:
    source = write(tmp_path, "guest.c", FORWARD)
    build(source, cache=cache)
    build(source, cache=cache, **setting)  # type: ignore[arg-type]
    assert compilations.count == 2


def test_every_file_that_is_included_counts(tmp_path: Path, cache: CodeCache, compilations: Compilations) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    source = write(folder, "guest.c", '  #  include "near.h"\n#include \\\n"../far.h"\n' + FORWARD)
    near = write(folder, "near.h", '#include "nearer.h" /* words */\n#include "near.h"\n')
    nearer = write(folder, "nearer.h", "")
    far = write(tmp_path, "far.h", "")
    unrelated = write(folder, "unrelated.h", "")
    build(source, cache=cache)
    for path in (source, near, nearer, far):
        path.write_text(path.read_text() + "\n// changed\n")
        before = compilations.count
        build(source, cache=cache)
        assert compilations.count == before + 1, path
    unrelated.write_text("changed")
    before = compilations.count
    build(source, cache=cache)
    assert compilations.count == before


def test_a_header_that_appears_later_counts(tmp_path: Path, cache: CodeCache, compilations: Compilations) -> None:
    source = write(tmp_path, "guest.c", '#include "string.h"\n' + FORWARD)
    build(source, cache=cache)
    write(tmp_path, "string.h", "")
    build(source, cache=cache)
    assert compilations.count == 2


def test_the_sdk_counts(
    tmp_path: Path, cache: CodeCache, compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = write(tmp_path, "edgeos.h", "")
    monkeypatch.setattr(guest_build, "_include_folder", lambda: tmp_path)
    (tmp_path / "src").mkdir()
    source = write(tmp_path / "src", "guest.c", FORWARD)
    build(source, cache=cache)
    header.write_text("// changed")
    build(source, cache=cache)
    assert compilations.count == 2


def test_files_that_the_sdk_includes_for_some_guests_only_count(
    tmp_path: Path, cache: CodeCache, compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tcp").mkdir()
    (tmp_path / "src").mkdir()
    write(tmp_path, "edgeos.h", "#ifdef EDGEOS_TCP\n#include <tcp/tcp.h>\n#endif\n")
    write(tmp_path / "tcp", "tcp.h", '#include "segment.h"\n')
    inner = write(tmp_path / "tcp", "segment.h", "")
    monkeypatch.setattr(guest_build, "_include_folder", lambda: tmp_path)
    source = write(tmp_path / "src", "guest.c", FORWARD)
    build(source, tcp=True, cache=cache)
    inner.write_text("// changed")
    build(source, tcp=True, cache=cache)
    build(source, tcp=True, cache=cache)
    assert compilations.count == 2


@pytest.mark.parametrize(
    "text",
    [
        "#define WHICH <stdio.h>\n#include WHICH\n",
        '#embed "table.bin"\n',
        '#if __has_include("x.h")\n#endif\n',
        "%:include_next <stdint.h>\n",
        "static const char *built = __DATE__;\n",
        "static const char *built = __DA\\\nTE__;\n",
    ],
)
def test_what_cannot_be_followed_is_never_kept(
    tmp_path: Path, cache: CodeCache, compilations: Compilations, text: str
) -> None:
    source = write(tmp_path, "guest.c", text + FORWARD)
    build(source, cache=cache)
    build(source, cache=cache)
    assert compilations.count == 2


def test_a_source_that_is_a_pipe_does_not_block(tmp_path: Path, cache: CodeCache) -> None:
    os.mkfifo(tmp_path / "guest.c")
    with pytest.raises(GuestError, match="not a regular file"):
        build(tmp_path / "guest.c", cache=cache)
