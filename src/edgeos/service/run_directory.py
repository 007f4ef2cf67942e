"""Where a running node keeps its control socket: a folder of its own for each manifest, open to its owner only.

It is the folder that was asked for, or the one that systemd made ($RUNTIME_DIRECTORY), or else one below
$XDG_RUNTIME_DIR/edgeos, /run/edgeos (for root) or /tmp/edgeos-UID, named after the manifest. Whoever runs the node
holds a lock on it. What a node leaves there when it is killed is removed by whoever sees next that none of it lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeos.errors import EdgeosError
from edgeos.service.control_client import ControlClient

CONTROL_SOCKET = "control.sock"
_LOCK = "lock"
_LOCK_SECONDS = 0.5
_FIND_SECONDS = 0.05
"""So long somebody may hold the lock who only tidies up, for one who starts a node and for one who looks for it."""

_WORKER_SOCKETS = "worker-*.sock"
_MADE_BY_NODES = (CONTROL_SOCKET, _WORKER_SOCKETS, "manifest-*")


class InUseError(EdgeosError):
    """Another process runs the same manifest, or uses the same folder."""


class RunDirectory:
    """A folder that this process has made, or found, and locked. A context manager that lets go of it.

    With `find` the folder is not made: OSError when there is none.
    """

    def __init__(self, path: Path, *, find: bool = False) -> None:
        self.path = path
        end = time.monotonic() + (_FIND_SECONDS if find else _LOCK_SECONDS)
        while (lock := _lock(path, make=not find)) is None:
            if time.monotonic() >= end:
                raise InUseError(
                    f"{path}: another process runs this manifest: stop it, or give each a folder of its own with "
                    "--run-dir"
                )
            time.sleep(0.01)
        self._lock = lock

    @property
    def control_socket(self) -> Path:
        return self.path / CONTROL_SOCKET

    def close(self) -> None:
        """Removes the folder if nothing is left in it that somebody uses, and lets go of the lock."""
        if self._lock < 0:
            return
        with suppress(OSError):
            if not living_workers(self.path):
                for name in _MADE_BY_NODES:
                    for path in self.path.glob(name):
                        path.unlink(missing_ok=True)
            if not any(name != _LOCK for name in os.listdir(self.path)):
                (self.path / _LOCK).unlink()
                self.path.rmdir()
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def living_workers(folder: Path) -> list[int]:
    """The worker processes that answer there."""
    living = []
    for path in folder.glob(_WORKER_SOCKETS):
        with suppress(OSError), ControlClient(path):
            living.append(int(path.stem.partition("-")[2]))
    return sorted(living)


def tidy(folder: Path) -> bool:
    """Removes what dead processes have left in a folder, and the folder; False if a node has it."""
    try:
        RunDirectory(folder, find=True).close()
    except InUseError:
        return False
    except OSError:
        pass
    return True


def open_run_directory(manifest: Path, wanted: Path | None = None) -> RunDirectory:
    """The folder for a manifest, locked. Raises InUseError, or EdgeosError when there is no place for one."""
    problems = []
    for path in [wanted] if wanted else run_directories(manifest):
        try:
            if wanted is None and path.parent.name.startswith("edgeos"):
                _make_private(path.parent)
            return RunDirectory(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    found = "; ".join(problems)
    raise EdgeosError(f"found no folder for the control socket ({found}); give one that may be written to: --run-dir")


def connect(manifest: Path, wanted: Path | None = None) -> ControlClient:
    """A connection to the running node of a manifest. Raises EdgeosError when there is none."""
    paths = [wanted] if wanted else run_directories(manifest)
    for path in paths:
        with suppress(OSError):
            return ControlClient(path / CONTROL_SOCKET)
    for path in paths:
        if not tidy(path):
            raise EdgeosError(f"{manifest}: the node does not answer, since it starts or ends; ask again")
        if living := living_workers(path):
            processes = " and ".join(map(str, living))
            raise EdgeosError(
                f"{manifest}: the supervisor has died, its workers (process {processes}) go on for a while; "
                "`edgeos up` takes them over"
            )
    raise EdgeosError(f"{manifest}: no node runs this manifest; start it with `edgeos up`, or say where with --run-dir")


def run_directories(manifest: Path) -> list[Path]:
    """Where the folder of a manifest may be, the best place first."""
    if given := _given():
        return [given]
    resolved = os.path.realpath(manifest)
    name = f"{manifest.stem[:40]}-{hashlib.sha256(os.fsencode(resolved)).hexdigest()[:12]}"
    return [base / name for base in _bases()]


def connect_only() -> ControlClient:
    """A connection to the one node of this user that runs, whatever its manifest. Raises EdgeosError for none and many.

    Nodes with a `--run-dir` of their own are not found.
    """
    folders = [given] if (given := _given()) else [path for base in _bases() for path in _folders(base)]
    running = []
    for path in folders:
        with suppress(OSError):
            running.append((path.name, ControlClient(path / CONTROL_SOCKET)))
            continue
        tidy(path)
    if len(running) == 1:
        return running[0][1]
    for _, client in running:
        client.close()
    if not running:
        raise EdgeosError("no node runs; start one with `edgeos up`, or say where it is with --manifest or --run-dir")
    names = ", ".join(sorted(name for name, _ in running))
    raise EdgeosError(f"{len(running)} nodes run ({names}); say which one with --manifest")


def _given() -> Path | None:
    """The folder that systemd made: for a dynamic user what is in /run is a link to it."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(given).resolve() if given else None


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(path for path in base.iterdir() if path.is_dir())
    except OSError:
        return []


def _bases() -> list[Path]:
    bases = [Path(tempfile.gettempdir(), f"edgeos-{os.geteuid()}")]
    if os.geteuid() == 0:
        bases.insert(0, Path("/run/edgeos"))
    if os.environ.get("XDG_RUNTIME_DIR"):
        bases.insert(0, Path(os.environ["XDG_RUNTIME_DIR"], "edgeos"))
    return bases


def _lock(path: Path, *, make: bool) -> int | None:
    """A descriptor that holds the lock of the folder; None if somebody else does. Raises OSError."""
    while True:
        try:
            if make:
                _make_private(path)
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
            lock = os.open(path / _LOCK, flags, 0o600)
        except FileNotFoundError:
            if make and path.parent.is_dir():
                continue  # the last owner has just removed the folder
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # so it has here


def _make_private(path: Path) -> None:
    """Makes the folder, for this user only. Raises OSError; EdgeosError if it is another's."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EdgeosError(f"{path}: is not a folder of this user; give another one with --run-dir")
    if found.st_mode & 0o077:
        path.chmod(0o700)
