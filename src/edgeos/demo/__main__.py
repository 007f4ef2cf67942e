"""Chooses how the demo can run here, runs it, and cleans up whatever happens.

Exit status: 0 everything was as expected, 1 it was not, 2 the chosen mode is not possible here, 128 + N after signal N.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from edgeos.demo.replay import replay
from edgeos.demo.story import Story
from edgeos.errors import EdgeosError

_NEW_USER = ("unshare", "--user", "--map-root-user", "--net")
_INSIDE = "inside-userns"


class _InterruptedError(BaseException):
    """A signal that ends the demo. Not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> int:
    """Runs the demo with the arguments of the process; the exit status."""
    modes = ("auto", "root", "userns", "pcap")
    parser = argparse.ArgumentParser(prog="python -m edgeos.demo", description=__doc__)
    parser.add_argument("--mode", choices=(*modes, _INSIDE), metavar="|".join(modes), default="auto")
    mode = parser.parse_args().mode
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _run(mode, Story())
    except _InterruptedError as interrupt:
        print("interrupted: everything is cleaned up", file=sys.stderr)
        return 128 + interrupt.number
    except EdgeosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(mode: str, story: Story) -> int:
    if mode == "pcap":
        return _tell(story, live=False)
    if mode in ("root", _INSIDE):
        obstacle = _obstacle_to_live()
        if mode == "root" and os.geteuid() != 0:
            obstacle = "this is not root"
        if not obstacle:
            return _tell(story, live=True)
    elif mode == "userns":
        obstacle = _obstacle_to_live() or _obstacle_to_userns()
        if not obstacle:
            _enter_userns()
    else:
        return _choose(story)
    print(f"error: mode {mode} is not possible: {obstacle}", file=sys.stderr)
    return 2


def _choose(story: Story) -> int:
    """Root, a user namespace, or capture files: the first that works here, saying what is left out and why."""
    obstacle = _obstacle_to_live()
    if not obstacle and os.geteuid() == 0 and _works("unshare", "--net", "true"):
        return _tell(story, live=True)
    obstacle = obstacle or _obstacle_to_userns()
    if not obstacle:
        _enter_userns()
    story.step(f"no network namespaces: {obstacle}")
    story.note("left out: ping, curl, the web server and its answers; generated captures stand in for the clients")
    return _tell(story, live=False)


def _tell(story: Story, *, live: bool) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeos-demo-") as name:
        if live:
            from edgeos.demo.live import LiveDemo  # noqa: PLC0415  (needs pyroute2, which the captures do not)

            with LiveDemo(story, Path(name)) as demo:
                demo.run()
        else:
            replay(story, Path(name))
    return story.end(time.monotonic() - started)


def _obstacle_to_live() -> str:
    """What stands in the way of real packets, whoever runs the demo; empty when nothing does."""
    try:
        from edgeos.demo.live import PROGRAMS  # noqa: PLC0415
    except ImportError:
        return "the Python package pyroute2 is missing (pip install pyroute2)"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    return f"programs are missing (apt-get install {' '.join(missing)})" if missing else ""


def _obstacle_to_userns() -> str:
    if not shutil.which("unshare"):
        return "unshare is missing (apt-get install util-linux)"
    return "" if _works(*_NEW_USER, "true") else "this system gives this user no user namespace of their own"


def _works(*command: str) -> bool:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    return ended.returncode == 0


def _enter_userns() -> None:
    """Becomes the demo as root of a new user namespace. Does not return."""
    sys.stdout.flush()
    os.execvp(_NEW_USER[0], [*_NEW_USER, sys.executable, "-m", "edgeos.demo", "--mode", _INSIDE])


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # cleaning up is not interrupted again
    raise _InterruptedError(number)


if __name__ == "__main__":
    sys.exit(main())
