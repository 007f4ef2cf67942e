"""Network namespaces and veth pairs, by netlink: what the demo, benchmarks and tests put around a node.

The namespaces have no names. Each lives as long as this process holds it open or a program runs in it, so whatever ends
the process, kill -9 included, leaves none behind. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN (root, or `unshare -Urn`) and
the package pyroute2.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_interface
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from edgeos.errors import EdgeosError

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_IFA_F_NODAD = 0x02  # an IPv6 address that is usable at once, without asking for duplicates

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace of our own, with the loopback device up. A context manager that lets go of it."""

    def __init__(self) -> None:
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise _error("cannot make a network namespace")
            self.fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            _enter(home)
        finally:
            os.close(home)
        self.set_up("lo")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the namespace; it ends, with its devices, when nothing runs in it any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace meanwhile: sockets and processes made there stay there."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.fd)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Starts a program in the namespace, in a session of its own: interrupts at the terminal do not reach it."""
        with self.entered():
            return subprocess.Popen(command, text=True, start_new_session=True, **options)

    def run(self, command: Sequence[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
        """Runs a program in the namespace for at most `timeout` seconds and returns its status and output."""
        with self.entered():
            return subprocess.run(command, text=True, capture_output=True, timeout=timeout, check=False)

    def set_up(self, device: str, addresses: Sequence[str] = (), **attributes: Any) -> None:
        """Brings a device up and gives it addresses, such as "10.0.0.1/24"; `attributes` as in `ip link`, e.g. mtu."""
        with self._link(device) as (ip, index):
            ip.link("set", index=index, state="up", **attributes)
            for address in map(ip_interface, addresses):
                flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
                ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)

    def add_neighbour(self, device: str, address: str, mac: str) -> None:
        """Says for good which Ethernet address a neighbour has."""
        with self._link(device) as (ip, index):
            ip.neigh("add", dst=address, lladdr=mac, ifindex=index, state="permanent")

    def add_route(self, network: str, gateway: str) -> None:
        """Says through which neighbour a network is reached."""
        with self.entered(), IPRoute() as ip:
            ip.route("add", dst=network, gateway=gateway)

    def set_down(self, device: str) -> None:
        """Takes a device down."""
        with self._link(device) as (ip, index):
            ip.link("set", index=index, state="down")

    def delete(self, device: str) -> None:
        """Removes a device; its peer goes with it."""
        with self._link(device) as (ip, index):
            ip.link("del", index=index)

    def move(self, device: str, to: Namespace) -> None:
        """Moves a device to another namespace, where it is down."""
        with self._link(device) as (ip, index):
            ip.link("set", index=index, net_ns_fd=to.fd)

    @contextmanager
    def _link(self, device: str) -> Iterator[tuple[Any, int]]:
        with self.entered(), IPRoute() as ip:
            found = ip.link_lookup(ifname=device)
            if not found:
                raise EdgeosError(f"{device}: there is no such device in this namespace")
            yield ip, found[0]


def join(near: Namespace, device: str, far: Namespace, peer: str) -> None:
    """Makes a veth pair with one end in each namespace; both ends are down."""
    with near.entered(), IPRoute() as ip:
        ip.link("add", ifname=device, kind="veth", peer={"ifname": peer, "net_ns_fd": far.fd})


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise _error("cannot enter a network namespace")


def _error(what: str) -> EdgeosError:
    reason = os.strerror(ctypes.get_errno())
    return EdgeosError(f"{what}: {reason} (run as root or in `unshare -Urn`)")
