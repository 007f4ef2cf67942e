"""The program `edgeos`: loads the command line, and ends quietly when it is interrupted meanwhile.

A package of its own, since whoever imports a part of `edgeos` waits for all of it, which takes a third of a second.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command line."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _end)
    from edgeos.cli import main as run  # noqa: PLC0415

    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)


def _end(*_: Any) -> None:
    os._exit(_EXIT_INTERRUPTED)  # nothing has begun that would have to be put in order
