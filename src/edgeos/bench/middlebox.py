"""Network namespaces with a middlebox in the middle: a node, a kernel bridge, a process for each client, or nothing.

sender  eth0 ─ lan  middle  wan ─ eth0  receiver
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeos.bench.cores import load_cores, pinned, service_cores
from edgeos.errors import EdgeosError
from edgeos.node import Node
from edgeos.settings import ChainSettings, NodeSettings, PortSettings, TemplateSettings

if TYPE_CHECKING:
    from edgeos.netns import Namespace

PacketKind = Literal["tap", "afpacket", "afxdp"]
END, LAN, WAN = "eth0", "lan", "wan"
SENDER_ADDRESS, RECEIVER_ADDRESS = "10.200.0.1", "10.200.0.2"
SETTLE_SECONDS = 0.2  # until the bridge forwards
RUN_SECONDS = 60.0


class Spaces:
    """The three namespaces; nothing is between them until one of the methods has put something there."""

    def __init__(self, sender: Namespace, middle: Namespace, receiver: Namespace) -> None:
        self.sender, self.middle, self.receiver = sender, middle, receiver

    def run(self, command: Sequence[str]) -> list[int]:
        """Runs a load generator, which is told the namespaces' files by `{sender}` and `{receiver}`; its numbers."""
        files = {"sender": str(self.sender.fd), "receiver": str(self.receiver.fd)}
        words = [word.format(**files) for word in command]
        try:
            with pinned(load_cores()):
                found = subprocess.run(
                    words, capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
                    pass_fds=(self.sender.fd, self.receiver.fd),
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EdgeosError(f"{Path(words[0]).name} did not end in {RUN_SECONDS:g} s") from None
        if found.returncode != 0:
            raise EdgeosError(found.stderr.strip()[-300:] or f"{Path(words[0]).name} ended with {found.returncode}")
        return [int(number) for number in found.stdout.split()]

    @contextmanager
    def node(
        self, kind: PacketKind, settings: NodeSettings, template: TemplateSettings, chain: ChainSettings
    ) -> Iterator[Node]:
        """A node with ports lan and wan of that kind in the middle. The chain begins and ends there."""
        with Node(settings) as node:
            for device in (LAN, WAN):
                node.add_port(PortSettings(name=device, kind=kind, device=device))
            node.add_template(template)
            node.add_chain(chain)
            node.add_rule("any", chain=chain.name)
            if kind != "tap":
                self.lay_cables()
            with self.middle.entered(), pinned(service_cores()):
                node.start()
            if kind == "tap":
                self._take_taps()
            yield node
            statistics = node.stop()
            if statistics.balance != 0 or any(any(one.kills.values()) for one in statistics.chains):
                raise EdgeosError(f"balance {statistics.balance}, kills {[one.kills for one in statistics.chains]}")

    @contextmanager
    def bridge(self) -> Iterator[None]:
        """A bridge of the kernel in the middle."""
        from pyroute2 import IPRoute  # type: ignore[import-untyped]  # noqa: PLC0415  (optional)

        self.lay_cables()
        with self.middle.entered(), IPRoute() as ip:
            ip.link("add", ifname="bridge0", kind="bridge")
            bridge = ip.link_lookup(ifname="bridge0")[0]
            for device in (LAN, WAN):
                ip.link("set", index=ip.link_lookup(ifname=device)[0], master=bridge)
            ip.link("set", index=bridge, state="up")
        time.sleep(SETTLE_SECONDS)
        yield

    @contextmanager
    def nothing(self) -> Iterator[None]:
        """One cable from end to end."""
        from edgeos.netns import join  # noqa: PLC0415  (pyroute2 is optional)

        join(self.sender, END, self.receiver, END)
        self._set_up_ends(END, END)
        yield

    @contextmanager
    def processes(self, relay: Path, clients: int) -> Iterator[None]:
        """A process for each client in the middle, see relay.c."""
        self.lay_cables()
        with pinned(service_cores()):
            parent = self.middle.start(
                [str(relay), LAN, WAN, str(clients)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        with parent:
            try:
                assert parent.stdout is not None
                assert parent.stderr is not None
                if parent.stdout.readline() != "ready\n":
                    raise EdgeosError(parent.stderr.read().strip() or "the processes did not start")
                yield
            finally:
                parent.kill()  # its children end with it

    def lay_cables(self) -> None:
        """From each end to the middle."""
        from edgeos.netns import join  # noqa: PLC0415

        for end, device in ((self.sender, LAN), (self.receiver, WAN)):
            join(end, END, self.middle, device)
            self.middle.set_up(device)
        self._set_up_ends(END, END)

    def _take_taps(self) -> None:
        for device, end in ((LAN, self.sender), (WAN, self.receiver)):
            self.middle.move(device, end)
        self._set_up_ends(LAN, WAN)

    def _set_up_ends(self, sender: str, receiver: str) -> None:
        self.sender.set_up(sender, [f"{SENDER_ADDRESS}/24"])
        self.receiver.set_up(receiver, [f"{RECEIVER_ADDRESS}/24"])


@contextmanager
def spaces() -> Iterator[Spaces]:
    """Three new namespaces, which end with the context. Raises EdgeosError with the reason where there can be none."""
    if os.geteuid() != 0:
        raise EdgeosError("it needs root, for network namespaces")
    try:
        from edgeos.netns import Namespace  # noqa: PLC0415
    except ImportError:
        raise EdgeosError("the package pyroute2 is not installed: pip install 'edgeos[net]'") from None
    with ExitStack() as stack:
        yield Spaces(*(stack.enter_context(Namespace()) for _ in range(3)))
