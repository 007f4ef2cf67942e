"""The program `edgeos` while it is still being loaded."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys

import pytest

LOADING = """
import sys, time
class Slow:
    def find_spec(self, name, *_):
        if name == "edgeos.cli":
            print("loading", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


def program() -> str:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="edgeos")
    return f"from {entry.module} import {entry.attr}\n{entry.attr}()\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_an_interrupt_while_the_program_is_loaded_ends_it_quietly(ignored: bool) -> None:
    """Unless it was started with interrupts ignored, as shells start what runs in the background."""
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", LOADING + program()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, kept)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        if ignored:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
            process.kill()
            return
        out, errors = process.communicate(timeout=30)
    assert (out, errors, process.returncode) == ("", "", 130)
