"""What tests need of whoever runs them, with the words for those that are skipped where that is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

IS_ROOT = os.geteuid() == 0

MAY_USE_XDP = IS_ROOT and Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
"""AF_XDP asks for privileges that root of a user namespace does not have."""

MAY_OPEN_TAP = os.access("/dev/net/tun", os.R_OK | os.W_OK)

needs_xdp = pytest.mark.skipif(
    not MAY_USE_XDP, reason="AF_XDP and BPF programs need root of the machine, not of a user namespace: use sudo"
)
needs_tap = pytest.mark.skipif(
    not MAY_OPEN_TAP, reason="/dev/net/tun is not there (modprobe tun) or not open to this user"
)
