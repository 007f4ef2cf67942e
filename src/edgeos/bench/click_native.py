"""A configuration of the gallery in native Click, where there is one: the same text with other ends, the same frames.

Where the configuration has a device, its packets come out of a capture file in memory, which is mapped, or leave
through a counter into nothing. The time is that from when packets begin to flow until the last has been dealt with.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeos.bench.click_cases import Case
from edgeos.errors import EdgeosError

TIMEOUT_SECONDS = 60
_DEVICE = re.compile(r"(\b\w+\s*::\s*)?\b(From|To)Device\(\s*(\w+)\s*\)")
_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class NativeRun:
    """Frames that went in, those that left by a device, and nanoseconds for all of them."""

    frames: int
    left: int
    elapsed_ns: float


class NativeClick:
    """The program, with a folder for what it reads. A context manager that removes the folder."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.version = self._ask("--version").splitlines()[0]
        where = _IN_MEMORY if _IN_MEMORY.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="edgeos-click-", dir=where)

    def __enter__(self) -> NativeClick:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, case: Case, turn: Sequence[bytes], frames: int) -> NativeRun:
        """Sends about so many frames, whole turns of them. Raises EdgeosError when not all of them went in."""
        turns = max(1, frames // len(turn))
        capture = Path(self._folder.name, f"{case.name}.pcap")
        script = Path(self._folder.name, f"{case.name}.click")
        _write_capture(capture, turn, turns)
        script.write_text(_script(case, capture), encoding="utf-8")
        try:
            words = self._ask(str(script), *(f"{name}={value}" for name, value in case.define.items())).split()
        finally:
            capture.unlink()
        try:
            seconds, entered, left = float(words[0]), int(words[1]), sum(map(int, words[2:]))
        except (IndexError, ValueError):
            raise EdgeosError(f"{self.program}, {case.name}: found no figures in {' '.join(words)[:200]!r}") from None
        if entered != turns * len(turn) or seconds <= 0:
            raise EdgeosError(f"{self.program}, {case.name}: {entered} of {turns * len(turn)} packets went in")
        return NativeRun(frames=entered, left=left, elapsed_ns=seconds * 1e9)

    def _ask(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [self.program, *arguments], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeosError(f"{self.program}: {error}") from None
        if done.returncode != 0:
            raise EdgeosError(f"{self.program} {Path(arguments[0]).name}: {done.stderr.strip()[:500]}")
        return done.stdout


def find_click(wanted: Path | None) -> Path | None:
    """The program that was asked for, or else one on the search path. Raises EdgeosError when the former is none."""
    if wanted is not None:
        if not wanted.is_file():
            raise EdgeosError(f"--click: found no program {wanted}; allowed: the userlevel driver of Click")
        return wanted
    found = shutil.which("click")
    return None if found is None else Path(found)


def _script(case: Case, capture: Path) -> str:
    """The configuration between a capture file and counters, run by a script that prints time, packets in and out."""
    ends: list[str] = []

    def end(match: re.Match[str]) -> str:
        if match[2] == "From":
            kind = "bench_source" if match[3] == case.device else "Idle"
            return f"{match[1] or ''}{kind}"
        name = match[1].rstrip(": \t") if match[1] else f"bench_out_{len(ends)}"
        ends.append(name)
        return f"{name} :: BenchEnd"

    text = _DEVICE.sub(end, case.path.read_text(encoding="utf-8"))
    neighbours = "".join(f"write {handler} {value}, " for handler, value in case.neighbours)
    counts = " ".join(f"$({name}/left.count)" for name in ends)
    return (
        f"bench_source :: FromDump({capture}, STOP true, ACTIVE false);\n"
        "elementclass BenchEnd { input -> left :: Counter -> Discard(BURST 32) }\n"
        f"{text}\n"
        f"Script(TYPE DRIVER, {neighbours}set start $(now), write bench_source.active true, pause, "
        f'print "$(sub $(now) $start) $(bench_source.count) {counts}");\n'
    )


def _write_capture(path: Path, turn: Sequence[bytes], turns: int) -> None:
    """A capture file with the frames of a turn, over and over."""
    records = b"".join(struct.pack("<IIII", 1, 0, len(frame), len(frame)) + frame for frame in turn)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for _ in range(turns):
            file.write(records)
