"""The small C programs that a benchmark needs beside it, compiled when it starts and gone when it ends."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeos.errors import EdgeosError

SOURCES = Path(__file__).parent / "programs"
COMPILE_TIME_MAX = 300.0  # seconds; the compiler of the ziglang wheel builds its C library on first use


class Programs:
    """Compiles programs statically, with the system's C compiler or else the one in the ziglang wheel.

    A context manager; `folder` holds the programs meanwhile. `compiler` says which one made the last program.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="edgeos-bench-")
        self.folder = Path(self._temporary.name)
        self.compiler = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def make(self, name: str) -> Path:
        """Compiles `name`.c. Raises EdgeosError with the compilers' words when none can."""
        target = self.folder / name
        complaints = []
        for label, command in _compilers():
            found = subprocess.run(
                [*command, "-static", "-O2", "-o", str(target), str(SOURCES / f"{name}.c"), "-lm"],
                capture_output=True, text=True, timeout=COMPILE_TIME_MAX, check=False,
            )  # fmt: skip
            if found.returncode == 0:
                self.compiler = label
                return target
            complaints.append(f"{label}: {found.stderr.strip()[:500]}")
        advice = f"{name}.c cannot be compiled; install a C compiler with a static libc"
        raise EdgeosError("\n".join([advice, *complaints]))


def _compilers() -> list[tuple[str, list[str]]]:
    system = [(f"{name} with the system's libc", [name]) for name in ("cc", "gcc", "clang") if shutil.which(name)]
    target = f"{platform.machine()}-linux-musl"
    return [*system, ("zig cc with musl", [sys.executable, "-m", "ziglang", "cc", "-target", target])]
