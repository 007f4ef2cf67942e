"""Runs the soak: `python -m soak SECONDS`. Exit status 0 when all was well or it cannot run here, otherwise 1."""

from __future__ import annotations

import faulthandler
import os
import shutil
import subprocess
import sys

SPARE_SECONDS = 180.0
"""After the time given, for what is under way; then the process prints what each thread does, and ends."""


def main() -> int:
    """Runs it here, or inside a user namespace when this is not root."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    if os.geteuid() != 0:
        return _in_user_namespace()
    faulthandler.dump_traceback_later(seconds + SPARE_SECONDS, exit=True)
    from soak.run import soak  # noqa: PLC0415  (the kernel is needed from here on)

    return soak(seconds)


def _in_user_namespace() -> int:
    enter = ["unshare", "-Urn"]
    if not shutil.which("unshare") or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        print("soak: skipped, it needs network namespaces: run it as root, or where users may have them (unshare -Urn)")
        return 0
    return subprocess.call([*enter, sys.executable, "-m", "soak", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
