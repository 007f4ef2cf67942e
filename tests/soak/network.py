"""The namespaces and devices around the node under test.

sender eth0 ─ lan  ┐        ┌ wan  ─ eth0 receiver        an AF_PACKET line
sender eth1 ─ xlan ┤ middle ├ xwan ─ eth1 receiver        an AF_XDP line, or AF_PACKET where that cannot be
sender eth2 ─ wlan ┤        ├ wwan ─ eth2 receiver        the same to two worker processes
public eth0 ─ svc  ┘                                      TCP clients of the listener
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edgeos.netns import IPRoute, Namespace, join

SERVICE_ADDRESS = "10.201.0.2"
CLIENT_ADDRESSES = tuple(f"10.201.0.{number}" for number in range(10, 18))
LINES = (("eth0", "lan", "wan"), ("eth1", "xlan", "xwan"), ("eth2", "wlan", "wwan"))
BUFFER_BYTES = 8 << 20
POLL_SECONDS = 0.1
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33


class Network:
    """All four namespaces, with their devices up."""

    def __init__(self, stack: ExitStack) -> None:
        self.sender, self.middle, self.receiver, self.public = (stack.enter_context(Namespace()) for _ in range(4))
        for end, lan, wan in LINES:
            join(self.sender, end, self.middle, lan)
            join(self.receiver, end, self.middle, wan)
            self.sender.set_up(end)
            self.receiver.set_up(end)
            self.middle.set_up(lan)
            self.middle.set_up(wan)
        join(self.public, "eth0", self.middle, "svc")
        self.public.set_up("eth0", [f"{address}/24" for address in CLIENT_ADDRESSES])
        self.middle.set_up("svc", [f"{SERVICE_ADDRESS}/24"])

    def service_mac(self) -> bytes:
        """The Ethernet address of the device that the listener's clients reach."""
        with self.middle.entered(), IPRoute() as ip:
            link = next(iter(ip.get_links(ip.link_lookup(ifname="svc")[0])))
            return bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))


def packet_socket(space: Namespace, device: str, *, receive: bool = False) -> socket.socket:
    """For frames of a device, in its namespace; only sends unless it is said to receive."""
    with space.entered():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind((device, _ETH_P_ALL if receive else 0))
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    except OSError:  # in a user namespace
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    made.settimeout(POLL_SECONDS)
    return made


@contextmanager
def network() -> Iterator[Network]:
    """They end with the context, whatever happened to their devices."""
    with ExitStack() as stack:
        yield Network(stack)
