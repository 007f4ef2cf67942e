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

from edgeos import wasm
from edgeos.errors import GuestError
from edgeos.settings import STACK_MIN
from edgeos.wasm_stack import stack_need

_STACK_ALIGNMENT: Final = 16
STACK_RECURSIVE: Final = 16384
"""Bytes of stack for code in which functions call themselves, directly or not, beside what each of them needs once."""

_MESSAGE_SIZE_MAX: Final = 8192


def compile_guest(
    sources: Sequence[Path], flags: Sequence[str], stack: int | None, report: Callable[[str], None], time_limit: float
) -> bytes:
    """The module that the sources make with a stack of that size; with None, of one that is as large as they need.

    Warnings go to `report`. Raises GuestError with the compiler's words.
    """
    # It lies at the start of the memory, so it is small where it can be: what each message touches, the first slot
    # included, then lies in the first 8 KiB, and nothing else does.
    module, messages = _compile(sources, flags, stack or STACK_MIN, time_limit)
    need = stack_need(wasm.parse(module))
    deepest = need.bytes + (STACK_RECURSIVE if need.recursive else 0)
    if stack is None and deepest > STACK_MIN:
        module, messages = _compile(sources, flags, -(-deepest // _STACK_ALIGNMENT) * _STACK_ALIGNMENT, time_limit)
    for line in messages.splitlines():
        report(line)
    if stack is not None and need.bytes > stack:
        report(f"warning: the code may use {need.bytes} bytes of stack and has {stack}: an overflow ends the FWP")
    return module


def _compile(sources: Sequence[Path], flags: Sequence[str], stack: int, time_limit: float) -> tuple[bytes, str]:
    """A module and the compiler's warnings."""
    with tempfile.TemporaryDirectory(prefix="edgeos-build-") as folder:
        target = Path(folder, "guest.wasm")
        command = [
            sys.executable, "-m", "ziglang", "cc", *flags, f"-Wl,-z,stack-size={stack}",
            *(str(path.resolve()) for path in sources), "-o", str(target),
        ]  # fmt: skip
        status, messages = _run(command, folder, time_limit)
        if status != 0 or not target.is_file():
            raise GuestError(f"{', '.join(map(str, sources))}: does not compile:\n{_explained(messages)}")
        return target.read_bytes(), messages


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
