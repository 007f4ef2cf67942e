"""Where listeners listen: both families, the ends that guests are told of, and addresses that cannot be had."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from stream_harness import GUESTS, TIMEOUT, Service, read_exactly, serving

from edgeos import Node, PortSettings, TemplateSettings
from edgeos.errors import PortError
from edgeos.port import open_native_port

ENDPOINTS = struct.Struct("<BBHHH16s16s")  # edgeos_endpoints


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def connect(service: Service, address: str, kind: str = "tcp") -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    s.connect((address, service.listener.port_number))
    return s


@pytest.mark.parametrize("listen", [pytest.param("::", marks=needs_ipv6), "0.0.0.0"])
def test_a_guest_is_told_both_ends(listen: str) -> None:
    clients = ["127.0.0.1"] + ["::1"] * (listen == "::")
    with serving("whoami.c", address=listen) as service:
        for address in clients:
            with connect(service, address) as s:
                family, transport, peer_port, local_port, upstream, peer, local = ENDPOINTS.unpack(
                    read_exactly(s, ENDPOINTS.size)
                )
                version = ipaddress.ip_address(address).version
                assert (family, transport, upstream) == (version, 6, 0)
                assert (peer_port, local_port) == (s.getsockname()[1], service.listener.port_number)
                for end in (ipaddress.IPv6Address(peer), ipaddress.IPv6Address(local)):
                    assert str(end.ipv4_mapped or end) == address
        service.stop()


@pytest.mark.parametrize("isolate", ["shared", "client", "connection"])
@pytest.mark.parametrize("listen", [pytest.param("::", marks=needs_ipv6), "0.0.0.0"])
def test_datagrams_come_back_from_the_address_that_they_were_sent_to(listen: str, isolate: str) -> None:
    targets = ["127.0.0.1", "127.0.0.77"] + ["::1"] * (listen == "::")
    with serving(kind="udp", address=listen, isolate=isolate) as service:
        for target in targets:  # a connected socket hears its peer only
            with connect(service, target, "udp") as s:
                for text in (b"one", b"two"):
                    s.send(text)
                    assert s.recv(100) == text
        activations = service.stop().chain("service").activations
    assert activations == {"shared": 1, "client": len(targets) - 1, "connection": len(targets)}[isolate]


def test_a_unix_client_has_no_address_and_shares_an_fwp_by_isolation_alone(tmp_path: Path) -> None:
    with serving("whoami.c", kind="unix", address=str(tmp_path / "s"), isolate="connection") as service:
        for _ in range(2):
            with service.connect() as s:
                assert ENDPOINTS.unpack(read_exactly(s, ENDPOINTS.size))[:3] == (0, 0, 0)
        assert service.stop().chain("service").activations == 2


# ---- Addresses that cannot be had ----


def refused(port: PortSettings) -> str:
    with pytest.raises(PortError) as error:
        open_native_port(port)
    return str(error.value)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_an_address_in_use(kind: str) -> None:
    with closing(socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)) as s:
        s.bind(("127.0.0.1", 0))
        if kind == "tcp":
            s.listen()
        listen = f"127.0.0.1:{s.getsockname()[1]}"
        words = refused(PortSettings(name="web", kind=kind, listen=listen))  # type: ignore[arg-type]
    expected = f"port.web: {listen}: cannot listen (another program listens there: stop it, or choose another port)"
    assert words.startswith(expected)


def test_an_address_that_no_interface_has() -> None:
    words = refused(PortSettings(name="web", kind="tcp", listen="192.0.2.1:8080"))
    assert "no interface of this machine has the address" in words


def test_a_folder_that_is_not_there_and_a_file_that_is_no_socket(tmp_path: Path) -> None:
    assert "make the folder first" in refused(PortSettings(name="web", kind="unix", listen=str(tmp_path / "no" / "s")))
    file = tmp_path / "file"
    file.write_text("precious")
    assert "is not a socket, and is left alone" in refused(PortSettings(name="web", kind="unix", listen=str(file)))
    assert file.read_text() == "precious"


def test_a_socket_that_somebody_listens_on_stays_and_one_left_behind_goes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as s:
        s.bind(str(path))
        s.listen()
        assert "another program listens there" in refused(PortSettings(name="web", kind="unix", listen=str(path)))
        assert path.exists()
    assert path.exists()  # closed, but its file is left behind
    assert open_native_port(PortSettings(name="web", kind="unix", listen=str(path))).name == "web"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without the privilege")
def test_a_port_that_needs_a_privilege() -> None:
    program = (
        "import os\n"
        "from edgeos import _native\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: _native.open_listener('web', 'tcp', '127.0.0.1', 81)\n"
        "except (OSError, RuntimeError) as error: print(error)\n"
    )
    unprivileged = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if unprivileged <= 81:
        pytest.skip("this system lets everybody have low ports")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert "ports below 1024 need CAP_NET_BIND_SERVICE" in done.stdout, done.stderr


def test_of_two_listeners_of_which_one_fails_nothing_stays_open() -> None:
    with closing(socket.socket()) as taken, closing(socket.socket()) as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        free_port = free.getsockname()[1]
        free.close()
        before = len(os.listdir("/proc/self/fd"))
        with Node() as node:
            node.add_port(PortSettings(name="a", kind="tcp", listen=f"127.0.0.1:{free_port}", max_connections=100))
            taken_at = f"127.0.0.1:{taken.getsockname()[1]}"
            node.add_port(PortSettings(name="b", kind="tcp", listen=taken_at, max_connections=100))
            node.add_template(TemplateSettings(name="app", source=GUESTS / "echo.c"))
            with pytest.raises(PortError, match=r"port\.b"):
                node.start()
        assert len(os.listdir("/proc/self/fd")) <= before
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free_port), TIMEOUT)
