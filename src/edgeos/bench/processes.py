"""Peers of an FWP's start: processes and containers, timed by a parent that is as small as a process can be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeos.bench.programs import Programs
from edgeos.errors import EdgeosError

TIME_MAX = 120.0  # seconds for one series
TRUE = "/bin/true"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One kind of process: how it is started and how often in one round of the benchmark."""

    name: str
    method: str
    command: tuple[str, ...]
    rounds: int


def peers(noop: Path, quick: bool) -> list[Peer]:
    """All processes that need no privileges and no packages."""
    many, few = (30, 5) if quick else (200, 20)
    return [
        Peer(name="fork+exec /bin/true", method="fork", command=(TRUE,), rounds=many),
        Peer(name="posix_spawn /bin/true", method="posix_spawn", command=(TRUE,), rounds=many),
        Peer(name="fork+exec static no-op", method="fork", command=(str(noop),), rounds=many),
        Peer(name="posix_spawn static no-op", method="posix_spawn", command=(str(noop),), rounds=many),
        Peer(name="python -c pass", method="posix_spawn", command=(sys.executable, "-c", "pass"), rounds=few),
    ]


def runc_peer(noop: Path, programs: Programs, quick: bool) -> Peer:
    """`runc run` of the static no-op in a bundle with nothing else in it. Raises EdgeosError when it does not work."""
    runc = shutil.which("runc", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if runc is None:
        raise EdgeosError("runc is not installed")
    bundle = programs.folder / "bundle"
    (bundle / "rootfs" / "proc").mkdir(parents=True)
    shutil.copy(noop, bundle / "rootfs" / "noop")
    (bundle / "config.json").write_text(json.dumps(_bundle_settings()), encoding="utf-8")
    state = programs.folder / "runc"
    command = (runc, "--root", str(state), "run", "--bundle", str(bundle), f"edgeos-bench-{os.getpid()}")
    trial = subprocess.run(command, capture_output=True, text=True, timeout=TIME_MAX, check=False)
    if trial.returncode != 0:
        raise EdgeosError(f"runc does not run here: {trial.stderr.strip()[-300:] or f'status {trial.returncode}'}")
    return Peer(name="runc run static no-op", method="posix_spawn", command=command, rounds=5 if quick else 20)


def time_peer(spawn: Path, peer: Peer) -> tuple[list[float], list[float]]:
    """Nanoseconds of each start: until the parent went on, and until the child had ended. Raises EdgeosError."""
    command = [str(spawn), peer.method, str(peer.rounds), *peer.command]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIME_MAX, check=False)
    if found.returncode != 0:
        raise EdgeosError(f"{peer.name}: {found.stderr.strip()[-300:]}")
    return samples_of(found.stdout.splitlines())


def samples_of(lines: Sequence[str]) -> tuple[list[float], list[float]]:
    """The two columns that the program `spawn` prints."""
    pairs = [line.split() for line in lines]
    return [float(pair[0]) for pair in pairs], [float(pair[1]) for pair in pairs]


def _bundle_settings() -> dict[str, object]:
    """The least that the OCI runtime specification allows: the usual namespaces, no devices, no limits."""
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
    linux: dict[str, object] = {"namespaces": namespaces}
    if os.geteuid() != 0:
        namespaces.append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/noop"], "cwd": "/", "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": linux,
    }  # fmt: skip
