"""What is between the clients and the services of `edgeos bench listen`: a TAP device, or the loopback device.

Both end in the load generator, a C program. Behind the TAP device it is a router and a network of clients that speak a
TCP of their own (remote_load.c), so the service's system does the service's part of TCP only, as for clients that are
elsewhere. What it does for a packet that arrives is done on the core that hands the packet over, the generator's, or on
the service's. Over loopback (echo_load.c) the service's system does the clients' part of TCP, too.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import shutil
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from edgeos.bench.cores import service_cores
from edgeos.bench.programs import Programs
from edgeos.errors import EdgeosError

if TYPE_CHECKING:
    from edgeos.netns import Namespace

TAP = "tap"
"""Clients elsewhere; packets are received on another core than the service's."""
ONE_CORE = "tap, one core"
"""The same, but packets are received on the service's core, so all that the service's system does is done there."""
LOOPBACK = "loopback"
"""Clients in the service's own system."""

_CLONE_DEVICE = "/dev/net/tun"
_DEVICE = "clients0"
_ADDRESS, _ROUTER, _PREFIX = "10.201.0.1", "10.201.0.2", 24
_CLIENTS = "10.202.0.0/16"
_MAC, _ROUTER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"  # the same as in remote_packets.h
_QUEUE_PACKETS = 32768
"""Room in the device: more than there are packets under way, so it never drops one."""

_CONGESTION_CONTROL = "reno"
"""Every system has it. With one message in flight it has nothing to do, and it costs least."""

_SETTINGS_SECONDS = 10.0
_LOST_AT = 11  # packets that could not be sent, among a device's counters in /proc/net/dev

_BPF_CALL = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD, _BPF_PROG_TYPE_SOCKET_FILTER = 5, 1
_ATTRIBUTES_BYTES = 128  # of the call; those that are not set are 0
_RETURN_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit

# <linux/if_tun.h>; these numbers are the same on x86-64 and aarch64
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETSTEERINGEBPF = 0x800454E0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM = 0x01
_IFREQ = "16sH22x"


class Link(ABC):
    """Between clients and services. `address` is where services listen, `device` where their packets come in.

    It is None where nobody but the system may have them.
    """

    name: str
    address: str
    device: str | None = None

    @abstractmethod
    def entered(self) -> AbstractContextManager[object]:
        """The calling thread is meanwhile where services have to be: sockets and programs made there stay there."""

    @abstractmethod
    def load_command(self, port: int, numbers: Sequence[int]) -> tuple[list[str], tuple[int, ...]]:
        """The load generator against a service's port, and the files that it needs.

        `numbers` are connections, bytes of a message, milliseconds to warm up and to measure.
        """

    def check(self) -> None:  # noqa: B027  (loopback loses nothing)
        """Raises EdgeosError when the link itself has lost a packet of a service since the last time.

        The service's system sends it again, late, so nobody else would notice. A lost message of a client is never
        answered, and that the load generator tells.
        """


class Loopback(Link):
    """Clients in the services' own system."""

    name, address = LOOPBACK, "127.0.0.1"

    def __init__(self, programs: Programs) -> None:
        self._program = programs.make("echo_load")

    def entered(self) -> AbstractContextManager[object]:
        return nullcontext()

    def load_command(self, port: int, numbers: Sequence[int]) -> tuple[list[str], tuple[int, ...]]:
        return [str(self._program), *map(str, (port, *numbers))], ()


class TapLink(Link):
    """A namespace for the services with a TAP device, at whose other end are a router and the clients."""

    address = _ADDRESS

    def __init__(self, program: Path, space: Namespace, file: int, *, one_core: bool) -> None:
        self.name = ONE_CORE if one_core else TAP
        # AF_XDP takes a packet where it is handed over, before it could be received on another core.
        self.device = None if one_core else _DEVICE
        self._program = program
        self._space = space
        self._file = file
        self._lost = 0

    def entered(self) -> AbstractContextManager[object]:
        return self._space.entered()

    def load_command(self, port: int, numbers: Sequence[int]) -> tuple[list[str], tuple[int, ...]]:
        words = (self._program, self._file, self.address, port, *numbers)
        return [str(word) for word in words], (self._file,)

    def check(self) -> None:
        with self._space.entered():
            # The file of a thread: /proc/net is that of the process.
            lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
        words = next(line for line in lines if line.strip().startswith(f"{_DEVICE}:")).split(":")[1].split()
        before, self._lost = self._lost, int(words[_LOST_AT])
        if self._lost > before:
            raise EdgeosError(f"the TAP device lost {self._lost - before} packets of the service")


@contextmanager
def tap_link(programs: Programs, *, one_core: bool = False) -> Iterator[TapLink]:
    """A namespace with the device, which ends with the context. Raises EdgeosError where there can be none.

    With `one_core`, packets that arrive are received on the service's core.
    """
    try:
        from edgeos.netns import Namespace  # noqa: PLC0415  (pyroute2 is optional)
    except ImportError:
        raise EdgeosError("the package pyroute2 is not installed: pip install 'edgeos[net]'") from None
    program = programs.make("remote_load")
    with Namespace() as space:
        file = _open_device(space)
        try:
            space.set_up(_DEVICE, [f"{_ADDRESS}/{_PREFIX}"], address=_MAC, txqlen=_QUEUE_PACKETS)
            space.add_neighbour(_DEVICE, _ROUTER, _ROUTER_MAC)
            space.add_route(_CLIENTS, _ROUTER)
            _choose_congestion_control(space)
            with _received_on(space, service_cores()) if one_core else nullcontext():
                yield TapLink(program, space, file, one_core=one_core)
        finally:
            os.close(file)


def _open_device(space: Namespace) -> int:
    """Checksums are left to the other end, as to a network card."""
    with space.entered():
        try:
            device = os.open(_CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(device, _TUNSETIFF, struct.pack(_IFREQ, _DEVICE.encode(), flags))
            fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM)
            _choose_queue(device)
        except OSError as error:
            raise EdgeosError(f"{_CLONE_DEVICE}: {error.strerror}; a TAP device is needed (modprobe tun)") from None
    return device


def _choose_queue(device: int) -> None:
    """The device has one queue. Unless a program says so, and one may be loaded, the system may look into each packet.

    It does so, at the service's cost, when packet steering is in use for any device of the machine.
    """
    call = _BPF_CALL.get(platform.machine())
    if call is None:
        return
    instructions, licence = ctypes.create_string_buffer(_RETURN_0), ctypes.create_string_buffer(b"MIT")
    places = (ctypes.addressof(instructions), ctypes.addressof(licence))
    attributes = struct.pack("<IIQQ", _BPF_PROG_TYPE_SOCKET_FILTER, len(_RETURN_0) // 8, *places)
    library = ctypes.CDLL(None, use_errno=True)
    program = library.syscall(call, _BPF_PROG_LOAD, attributes.ljust(_ATTRIBUTES_BYTES, b"\0"), _ATTRIBUTES_BYTES)
    if program < 0:
        return
    try:
        fcntl.ioctl(device, _TUNSETSTEERINGEBPF, struct.pack("i", program))
    finally:
        os.close(program)


def _choose_congestion_control(space: Namespace) -> None:
    try:
        with space.entered():
            Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(_CONGESTION_CONTROL, encoding="ascii")
    except OSError as error:
        raise EdgeosError(f"the namespace's congestion control cannot be chosen: {error.strerror}") from None


@contextmanager
def _received_on(space: Namespace, cores: set[int]) -> Iterator[None]:
    """By receive packet steering. It is taken back in the end: while any device has it, all pay a little for it."""
    try:
        _steer(space, cores)
        yield
    finally:
        _steer(space, set())


def _steer(space: Namespace, cores: set[int]) -> None:
    """The setting is in sysfs, which has to be mounted in a namespace to show its devices."""
    if shutil.which("unshare") is None:
        raise EdgeosError("unshare is not installed: apt-get install util-linux")
    setting = f"/sys/class/net/{_DEVICE}/queues/rx-0/rps_cpus"
    script = f"mount -t sysfs sysfs /sys && echo {core_mask(cores)} > {setting}"
    found = space.run(["unshare", "--mount", "sh", "-c", script], timeout=_SETTINGS_SECONDS)
    if found.returncode != 0:
        raise EdgeosError(f"the core that receives cannot be chosen: {found.stderr.strip()}")


def core_mask(cores: set[int]) -> str:
    """A set of cores as sysfs takes it: hexadecimal words of 32 bits, the highest first."""
    mask = sum(1 << core for core in cores)
    words = [mask >> shift & 0xFFFFFFFF for shift in range(0, max(1, mask.bit_length()), 32)]
    return ",".join(f"{word:08x}" for word in reversed(words))
