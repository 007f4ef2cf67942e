"""What a chain would be without edgeos: network namespaces with a bridge each, joined by veth pairs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from edgeos.errors import EdgeosError

if TYPE_CHECKING:
    from edgeos.netns import Namespace

NEAR, FAR = "near0", "far0"
SETTLE_SECONDS = 0.1


@contextmanager
def bridged_line(stages: int) -> Iterator[VethLine]:
    """A sender's namespace, `stages` namespaces that bridge, and a receiver's. Raises EdgeosError with the reason."""
    try:
        from edgeos.netns import Namespace, join  # noqa: PLC0415  (pyroute2 is optional)
    except ImportError:
        raise EdgeosError("the package pyroute2 is not installed: pip install 'edgeos[net]'") from None
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]  # noqa: PLC0415

    with ExitStack() as stack:
        try:
            spaces = [stack.enter_context(Namespace()) for _ in range(stages + 2)]
            for left, right in pairwise(spaces):
                join(left, FAR, right, NEAR)
            for space in spaces[1:-1]:
                with space.entered(), IPRoute() as ip:
                    ip.link("add", ifname="bridge0", kind="bridge")
                    bridge = ip.link_lookup(ifname="bridge0")[0]
                    for device in (NEAR, FAR):
                        ip.link("set", index=ip.link_lookup(ifname=device)[0], master=bridge, state="up")
                    ip.link("set", index=bridge, state="up")
            spaces[0].set_up(FAR)
            spaces[-1].set_up(NEAR)
        except NetlinkError as error:
            raise EdgeosError(f"netlink refused: {error}") from None
        time.sleep(SETTLE_SECONDS)  # until the bridges forward
        yield VethLine(spaces[0], spaces[-1])


class VethLine:
    """The two ends of the line."""

    def __init__(self, sender: Namespace, receiver: Namespace) -> None:
        self._sender = sender
        self._receiver = receiver

    def time_messages(self, send: Path, *, size: int, milliseconds: int) -> float:
        """Nanoseconds a message that reached the far end, with or without a queueing discipline, as is quicker."""
        return min(self._time(send, size, milliseconds, qdisc) for qdisc in (0, 1))

    def _time(self, send: Path, size: int, milliseconds: int, qdisc: int) -> float:
        before = self._received()
        command = [str(send), FAR, str(size), str(milliseconds), str(qdisc)]
        found = self._sender.run(command, timeout=milliseconds / 1000 + 30)
        if found.returncode != 0:
            raise EdgeosError(f"sending into veth failed: {found.stderr.strip()}")
        received = self._received() - before
        if received == 0:
            raise EdgeosError("nothing came through the namespaces")
        return float(found.stdout.split()[1]) / received

    def _received(self) -> int:
        """Packets that the last device has received."""
        found = self._receiver.run(["cat", "/proc/net/dev"], timeout=10)
        line = next(line for line in found.stdout.splitlines() if line.strip().startswith(f"{NEAR}:"))
        return int(line.split(":")[1].split()[1])
