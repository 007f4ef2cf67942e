"""Runs the C compiler in the `ziglang` wheel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgeos.errors import GuestError

_MESSAGE_SIZE_MAX: Final = 8192


def compile_sources(
    sources: Sequence[Path], flags: Sequence[str], report: Callable[[str], None], time_limit: float
) -> bytes:
    """The module that the sources make; warnings go to `report`. Raises GuestError with the compiler's words."""
    with tempfile.TemporaryDirectory(prefix="edgeos-build-") as folder:
        target = Path(folder, "guest.wasm")
        command = [
            sys.executable, "-m", "ziglang", "cc", *flags,
            *(str(path.resolve()) for path in sources), "-o", str(target),
        ]  # fmt: skip
        status, messages = _run(command, folder, time_limit)
        if status != 0 or not target.is_file():
            raise GuestError(f"{', '.join(map(str, sources))}: does not compile:\n{_explained(messages)}")
        for line in messages.splitlines():
            report(line)
        return target.read_bytes()


def _run(command: Sequence[str], folder: str, time_limit: float) -> tuple[int, str]:
    """Exit status and messages of the compiler; it runs in a session of its own, so that its children end with it."""
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=time_limit)
        except subprocess.TimeoutExpired:
            raise GuestError(f"the compiler did not finish within {time_limit:g} s and was stopped") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output.decode("utf-8", "replace")


def _explained(messages: str) -> str:
    """The compiler's lines, cut to a size that fits a screen, and what to do about the usual one of them."""
    shown = messages.strip()[:_MESSAGE_SIZE_MAX] or "the compiler gave no reason"
    if "undefined symbol: edgeos_handle" in shown:
        return shown + "\nfix: define int edgeos_handle(edgeos_message *m)"
    return shown
