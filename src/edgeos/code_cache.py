"""A cache on disk whose entries may be executed, and which is therefore never trusted.

An entry is used only if it carries a keyed hash (HMAC-SHA256) over its key and contents, made with a secret that lies
beside the entries and that only this user can read. So a corrupt, truncated, renamed or foreign entry is noticed,
reported once and made anew. A directory that others could write to is not used at all. Any number of processes and
threads may share a directory: entries appear whole, by renaming, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

SIZE_LIMIT_DEFAULT: Final = 512 * 1024 * 1024
"""Bytes that the entries of a cache may take together; past it the longest unused go."""

_MAGIC: Final = b"edgeosC1"
_SECRET_NAME: Final = "secret"
_SECRET_SIZE: Final = 32
_SECRET_ATTEMPTS: Final = 8  # other processes may make and remove it at the same time
_MAC_SIZE: Final = 32
_HEADER_SIZE: Final = len(_MAGIC) + _MAC_SIZE
_ENTRY_SUFFIX: Final = ".entry"
_NEW_SUFFIX: Final = ".new"
_STALE_AFTER: Final = 3600.0  # seconds after which a file that was being written belongs to a process that died
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted pipe must not block us

_log = logging.getLogger(__name__)


def default_directory() -> Path:
    """`$XDG_CACHE_HOME/edgeos`, or `~/.cache/edgeos` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~"), ".cache")) / "edgeos"


class _UnusableError(Exception):
    """The directory cannot be used; the text says why."""


class _BadEntryError(Exception):
    """An entry is there and must not be used; the text says why."""


class CodeCache:
    """Bytes by key, made on the first request and kept on disk.

    `hits` counts entries used, `misses` entries that were not there, `rebuilt` entries that were there and bad.
    A directory that cannot be used is reported once, in the log; from then on everything is a miss.
    """

    def __init__(self, directory: Path | None = None, *, size_limit: int = SIZE_LIMIT_DEFAULT) -> None:
        self.directory = default_directory() if directory is None else directory
        self.size_limit = size_limit
        self.hits = 0
        self.misses = 0
        self.rebuilt = 0
        self._usable = True

    def get(self, key_parts: Sequence[bytes | str], make: Callable[[], bytes]) -> bytes:
        """The bytes kept under the key, or else those that `make` returns; what `make` raises passes through."""
        key = _digest(key_parts)
        kept = self._load(key)
        if kept is not None:
            return kept
        payload = make()
        self._store(key, payload)
        return payload

    def _load(self, key: bytes) -> bytes | None:
        """The entry's payload, or None where there is no entry to be used; counts which of these it was."""
        try:
            with self._open() as directory:
                payload = _read_entry(directory, key, _secret(directory))
        except _BadEntryError as problem:
            self.rebuilt += 1
            _log.warning("%s: entry %s %s; making it anew", self.directory, key.hex()[:16], problem)
            return None
        except (_UnusableError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                self._give_up(error)
            self.misses += 1
            return None
        self.hits += 1
        return payload

    def _store(self, key: bytes, payload: bytes) -> None:
        if not self._usable or len(payload) + _HEADER_SIZE > self.size_limit:
            return
        try:
            with self._open() as directory:
                mac = _mac(_secret(directory), key, payload)
                _write(directory, _entry_name(key), _MAGIC + mac + payload)
                _evict(directory, self.size_limit)
        except (_UnusableError, OSError) as error:
            self._give_up(error)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        """A descriptor of the checked directory. All files are reached through it, so that nobody can swap the path."""
        if not self._usable:
            raise _UnusableError
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_directory(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _give_up(self, error: Exception) -> None:
        if self._usable:
            self._usable = False
            _log.warning("cache %s is not used: %s", self.directory, error)


def _digest(parts: Sequence[bytes | str]) -> bytes:
    """A hash over the parts and their lengths, so that no two lists of parts look alike."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


def _mac(secret: bytes, key: bytes, payload: bytes) -> bytes:
    mac = hmac.new(secret, key, hashlib.sha256)
    mac.update(payload)
    return mac.digest()


def _entry_name(key: bytes) -> str:
    return key.hex() + _ENTRY_SUFFIX


def _check_directory(descriptor: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        raise _UnusableError(
            f"it belongs to user {found.st_uid}, not to {os.geteuid()}; set XDG_CACHE_HOME to a directory of your own"
        )
    if found.st_mode & 0o022:
        raise _UnusableError(f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o}); run `chmod 700` on it")


def _read_private(directory: int, name: str, forbidden: int) -> bytes | None:
    """Contents of a plain file that is ours and has none of the forbidden mode bits; None when it is not such a file.

    Raises FileNotFoundError when there is none.
    """
    try:
        descriptor = os.open(name, _OPEN, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError:  # a symbolic link, or not readable
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & forbidden:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _read_entry(directory: int, key: bytes, secret: bytes) -> bytes:
    """The payload of an entry; raises FileNotFoundError where there is none, _BadEntryError where it is not genuine."""
    name = _entry_name(key)
    raw = _read_private(directory, name, 0o022)
    if raw is None:
        raise _BadEntryError("is not a plain file of ours that only we can write")
    if len(raw) < _HEADER_SIZE or not raw.startswith(_MAGIC):
        raise _BadEntryError("is truncated, or not an entry")
    payload = raw[_HEADER_SIZE:]
    if not hmac.compare_digest(raw[len(_MAGIC) : _HEADER_SIZE], _mac(secret, key, payload)):
        raise _BadEntryError("is corrupt, or belongs to another key or user")
    with contextlib.suppress(OSError):
        os.utime(name, dir_fd=directory, follow_symlinks=False)  # eviction goes by the time of the last use
    return payload


def _secret(directory: int) -> bytes:
    """This user's key; made where there is none, or where others could have read it, which voids all entries."""
    for _ in range(_SECRET_ATTEMPTS):
        try:
            secret = _read_private(directory, _SECRET_NAME, 0o077)
        except FileNotFoundError:
            _make_secret(directory)
            continue
        if secret is not None and len(secret) == _SECRET_SIZE:
            return secret
        _log.warning("the cache's secret is damaged, or others could read it; making everything anew")
        _remove(directory, _SECRET_NAME)
    raise _UnusableError(f"its file '{_SECRET_NAME}' cannot be replaced; delete the directory")


def _make_secret(directory: int) -> None:
    """Links a whole file into place, so that of several processes one wins and the others read its secret."""
    name = _new_file(directory, secrets.token_bytes(_SECRET_SIZE))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(name, _SECRET_NAME, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.unlink(name, dir_fd=directory)


def _write(directory: int, name: str, contents: bytes) -> None:
    new = _new_file(directory, contents)
    try:
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(new, dir_fd=directory)
        raise


def _new_file(directory: int, contents: bytes) -> str:
    """A new file of mode 0600 under a name that nobody can guess."""
    name = secrets.token_hex(16) + _NEW_SUFFIX
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(contents)
    except OSError:
        os.unlink(name, dir_fd=directory)
        raise
    return name


def _evict(directory: int, size_limit: int) -> None:
    """Removes the longest unused entries until the rest fits, and what processes that died were writing."""
    entries: list[tuple[float, int, str]] = []
    for name in os.listdir(directory):
        if not name.endswith((_ENTRY_SUFFIX, _NEW_SUFFIX)):
            continue
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if name.endswith(_ENTRY_SUFFIX):
            entries.append((found.st_mtime, found.st_size, name))
        elif time.time() - found.st_mtime > _STALE_AFTER:
            _remove(directory, name)
    total = sum(size for _, size, _ in entries)
    for _, size, name in sorted(entries):
        if total <= size_limit:
            return
        _remove(directory, name)
        total -= size


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):  # another process was faster
        os.unlink(name, dir_fd=directory)
