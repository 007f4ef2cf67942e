"""libmemcached's program that tries what a memcached server is capable of."""

from __future__ import annotations

import shutil
import subprocess

import pytest

_PROGRAM = next((found for name in ("memccapable", "memcapable") if (found := shutil.which(name))), None)

needs_memccapable = pytest.mark.skipif(
    _PROGRAM is None, reason="libmemcached's memccapable is not installed (apt-get install libmemcached-tools)"
)


def memccapable(address: str, port: int) -> list[str]:
    """The command; each of its tests may take 20 seconds."""
    return [str(_PROGRAM), "-h", address, "-p", str(port), "-t", "20"]


def check_capable(found: subprocess.CompletedProcess[str]) -> None:
    assert found.returncode == 0, found.stdout + found.stderr
    assert "All tests passed" in found.stdout
    assert "[fail]" not in found.stdout
