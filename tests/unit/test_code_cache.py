"""The cache of things that may be executed: what it gives back is what it was given, or made anew."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeos.code_cache import CodeCache, default_directory


def never() -> bytes:
    raise AssertionError("the entry should have been used")


def entry(directory: Path) -> Path:
    (found,) = directory.glob("*.entry")
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def filled(directory: Path) -> Path:
    CodeCache(directory).get(["key"], lambda: b"code")
    return directory


def test_makes_once_and_keeps(directory: Path) -> None:
    first = CodeCache(directory)
    assert first.get(["a", b"b"], lambda: b"code") == b"code"
    assert (first.hits, first.misses, first.rebuilt) == (0, 1, 0)
    second = CodeCache(directory)
    assert second.get(["a", b"b"], never) == b"code"
    assert (second.hits, second.misses, second.rebuilt) == (1, 0, 0)


def test_an_empty_payload_is_a_payload(directory: Path) -> None:
    cache = CodeCache(directory)
    cache.get(["a"], bytes)
    assert cache.get(["a"], never) == b""


def test_keys_are_lists_not_concatenations(directory: Path) -> None:
    cache = CodeCache(directory)
    for number, key in enumerate((["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], [])):
        assert cache.get(key, lambda number=number: b"%d" % number) == b"%d" % number  # type: ignore[misc]
    assert cache.misses == 5


def test_what_make_raises_passes_through_and_leaves_nothing(directory: Path) -> None:
    def broken() -> bytes:
        raise ValueError("no")

    cache = CodeCache(directory)
    with pytest.raises(ValueError, match="no"):
        cache.get(["a"], broken)
    assert cache.get(["a"], lambda: b"yes") == b"yes"


def test_only_the_owner_can_read_or_write(filled: Path) -> None:
    assert filled.stat().st_mode & 0o777 == 0o700
    assert entry(filled).stat().st_mode & 0o777 == 0o600
    assert (filled / "secret").stat().st_mode & 0o777 == 0o600


def overwrite(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def make_link(path: Path) -> None:
    real = path.rename(path.with_suffix(".real"))
    path.symlink_to(real)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        overwrite(lambda raw: b""),
        overwrite(lambda raw: raw[:20]),
        overwrite(lambda raw: raw[:-1]),
        overwrite(lambda raw: raw + b"\0"),
        overwrite(lambda raw: b"\x7fELF" + raw[4:]),
        overwrite(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])),
        overwrite(lambda raw: raw[:8] + bytes(32) + raw[40:]),
        make_link,
        make_pipe,
        lambda path: path.chmod(0o666),
        lambda path: path.chmod(0o620),
    ],
    ids=["empty", "header", "short", "long", "magic", "payload", "mac", "link", "pipe", "world", "group"],
)
def test_a_damaged_entry_is_noticed_once_and_made_anew(
    filled: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(entry(filled))
    cache = CodeCache(filled)
    assert cache.get(["key"], lambda: b"anew") == b"anew"
    assert cache.get(["key"], never) == b"anew"
    assert (cache.hits, cache.misses, cache.rebuilt) == (1, 0, 1)
    assert len(caplog.records) == 1
    assert "making it anew" in caplog.text


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 43), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(filled: Path, position: int, bit: int) -> None:
    raw = bytearray(entry(filled).read_bytes())
    assert len(raw) == 44
    raw[position] ^= 1 << bit
    entry(filled).write_bytes(raw)
    cache = CodeCache(filled)
    assert cache.get(["key"], lambda: b"code") == b"code"
    assert cache.rebuilt == 1


def test_an_entry_under_another_key_is_refused(filled: Path) -> None:
    good = entry(filled).read_bytes()
    cache = CodeCache(filled)
    cache.get(["other"], lambda: b"other")
    for path in filled.glob("*.entry"):
        path.write_bytes(good)
    assert cache.get(["other"], lambda: b"anew") == b"anew"
    assert cache.rebuilt == 1


def test_an_entry_of_another_user_is_refused(filled: Path, tmp_path: Path) -> None:
    CodeCache(tmp_path / "foreign").get(["key"], lambda: b"evil")
    entry(filled).write_bytes(entry(tmp_path / "foreign").read_bytes())
    assert CodeCache(filled).get(["key"], lambda: b"code") == b"code"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.chmod(0o640),
        lambda path: path.write_bytes(b"short"),
        lambda path: path.unlink(),
        make_link,
        make_pipe,
    ],
    ids=["readable", "short", "gone", "link", "pipe"],
)
def test_a_secret_that_is_none_voids_all_entries(filled: Path, damage: Callable[[Path], None]) -> None:
    damage(filled / "secret")
    cache = CodeCache(filled)
    assert cache.get(["key"], lambda: b"anew") == b"anew"
    assert cache.rebuilt == 1
    assert (filled / "secret").stat().st_mode & 0o777 == 0o600
    assert CodeCache(filled).get(["key"], never) == b"anew"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_to_is_not_used(
    filled: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    filled.chmod(mode)
    cache = CodeCache(filled)
    assert cache.get(["key"], lambda: b"made") == b"made"
    assert cache.get(["key"], lambda: b"made again") == b"made again"
    assert (cache.hits, cache.misses) == (0, 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "others may write to it" in caplog.text
    assert "chmod 700" in caplog.text


def test_a_directory_of_another_user_is_not_used(
    filled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert CodeCache(filled).get(["key"], lambda: b"made") == b"made"
    assert f"it belongs to user {owner}, not to {owner + 1}" in caplog.text


def test_a_link_in_place_of_the_directory_is_not_used(filled: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(filled)
    cache = CodeCache(link)
    assert cache.get(["key"], lambda: b"made") == b"made"
    assert cache.misses == 1


def test_a_file_in_place_of_the_directory_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("")
    assert CodeCache(tmp_path / "cache").get(["key"], lambda: b"made") == b"made"
    assert "is not used" in caplog.text


def test_the_longest_unused_entries_go_first(directory: Path) -> None:
    cache = CodeCache(directory, size_limit=5 * 1064)
    old = time.time() - 1000
    for number in range(5):
        cache.get([str(number)], lambda: bytes(1024))
        newest = max(directory.glob("*.entry"), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (old + number, old + number))
    cache.get(["0"], never)  # used again, so 1 is now the oldest
    cache.get(["new"], lambda: bytes(1024))
    assert len(list(directory.glob("*.entry"))) == 5
    cache.get(["0"], never)
    assert cache.get(["1"], lambda: b"evicted") == b"evicted"


def test_what_is_larger_than_the_limit_is_not_kept(directory: Path) -> None:
    cache = CodeCache(directory, size_limit=1000)
    assert cache.get(["a"], lambda: bytes(2000)) == bytes(2000)
    assert not list(directory.glob("*.entry"))


def test_what_dead_processes_were_writing_is_removed(filled: Path) -> None:
    stale, fresh = filled / "stale.new", filled / "fresh.new"
    stale.touch()
    fresh.touch()
    os.utime(stale, (0, 0))
    CodeCache(filled).get(["b"], lambda: b"b")
    assert not stale.exists()
    assert fresh.exists()


def _use(directory: Path) -> int:
    cache = CodeCache(directory)
    for number in range(30):
        expected = b"%d" % number * 1000
        assert cache.get([str(number)], lambda expected=expected: expected) == expected  # type: ignore[misc]
    return cache.rebuilt


def test_processes_can_share_a_directory(directory: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_use, [directory] * 8, chunksize=1) == [0] * 8
    assert len(list(directory.glob("*.entry"))) == 30
    assert not list(directory.glob("*.new"))


def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_directory() == Path("/somewhere/edgeos")
    monkeypatch.setenv("HOME", "/home/me")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_directory() == Path("/home/me/.cache/edgeos")
