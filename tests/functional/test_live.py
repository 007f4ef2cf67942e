"""Real packets through real devices: client — node — server in network namespaces, with Linux's default offloads.

Without root the whole file runs once more inside a user namespace, where the system gives one.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from privileges import IS_ROOT, needs_tap, needs_xdp

import edgeos
from edgeos.settings import NodeSettings, PortSettings

netns = pytest.importorskip("edgeos.netns", reason="needs pyroute2")

CLIENT = ("10.78.0.2", "fd00:78::2")
SERVER = ("10.78.0.1", "fd00:78::1")
PORT = 7878
LIMIT_SECONDS = 10
TRANSFER_BYTES = 8 << 20
USER_NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]

pytestmark = pytest.mark.privileged
as_root = pytest.mark.skipif(not IS_ROOT, reason="runs inside a user namespace, see test_in_a_user_namespace")
needs_ping = pytest.mark.skipif(not shutil.which("ping"), reason="ping is not installed (apt-get install iputils-ping)")


KINDS = [
    "afpacket",
    pytest.param("afxdp", marks=needs_xdp),
    pytest.param("tap", marks=needs_tap),
]

LAID_KINDS = KINDS[:2]
"""Those over devices that are there before the node."""


class Lab:
    """Client and server namespaces, and the node's between them."""

    def __init__(self, stack: ExitStack) -> None:
        self.client, self.node, self.server = (stack.enter_context(netns.Namespace()) for _ in range(3))

    def lay_cables(self) -> None:
        """For all but TAP: devices lan and wan in the node's namespace, whose peers the client and the server have."""
        netns.join(self.client, "eth0", self.node, "lan")
        netns.join(self.server, "eth0", self.node, "wan")
        self.set_up_ends("eth0", "eth0")
        for device in ("lan", "wan"):
            self.node.set_up(device)

    def move_taps(self) -> None:
        """For TAP: the node has made them in its namespace, the client and the server get them."""
        for device, to in (("lan", self.client), ("wan", self.server)):
            self.node.move(device, to)
        self.set_up_ends("lan", "wan")

    def set_up_ends(self, client_device: str, server_device: str) -> None:
        self.client.set_up(client_device, [f"{CLIENT[0]}/24", f"{CLIENT[1]}/64"])
        self.server.set_up(server_device, [f"{SERVER[0]}/24", f"{SERVER[1]}/64"])

    @contextmanager
    def running(self, kind: str = "afpacket", **settings: str) -> Iterator[edgeos.Node]:
        """A node that forwards, one FWP a client; its messages must all be accounted for in the end."""
        with edgeos.Node(NodeSettings(**settings)) as node:
            for name in ("lan", "wan"):
                node.add_port(PortSettings(name=name, kind=kind, device=name))
            node.add_template(edgeos.TemplateSettings(name="fw", appliance="firewall", config=b"allow all"))
            node.add_template(edgeos.TemplateSettings(name="wire", appliance="bridge"))
            node.add_chain(edgeos.ChainSettings(name="clients", path=("lan", "fw", "wire", "wan"), max_fwps=32))
            node.add_chain(
                edgeos.ChainSettings(name="others", path=("lan", "wire", "wan"), isolate="shared", max_fwps=32)
            )
            node.add_rule("ip", chain="clients")
            node.add_rule("any", chain="others")
            with self.node.entered():
                if kind != "tap" and "lan" not in devices():
                    self.lay_cables()
                node.start()
            if kind == "tap":
                self.move_taps()
            yield node
            statistics = node.stop()
            assert statistics.balance == 0
            assert all(chain.balance == 0 for chain in statistics.chains)
            assert not any(chain.kills[cause] for chain in statistics.chains for cause in chain.kills)

    def pings(self, address: str = SERVER[0], seconds: float = 2) -> bool:
        command = ["ping", "-n", "-c", "1", "-W", str(seconds), address]
        return self.client.run(command, timeout=LIMIT_SECONDS).returncode == 0

    def listen(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with self.server.entered():
            listener = socket.socket(family, kind)
        listener.settimeout(LIMIT_SECONDS)
        listener.bind((SERVER[family == socket.AF_INET6], PORT))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        return listener

    def connect(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with self.client.entered():
            connection = socket.socket(family, kind)
        connection.settimeout(LIMIT_SECONDS)
        connection.connect((SERVER[family == socket.AF_INET6], PORT))
        return connection


def devices() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack)


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Runs `work` on another thread meanwhile; its exception is raised here."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * LIMIT_SECONDS)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def eventually(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def receive_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 18), b""))


@pytest.mark.skipif(IS_ROOT, reason="root needs no user namespace")
def test_in_a_user_namespace() -> None:
    if subprocess.run([*USER_NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("not root, and this system gives this user no user namespace")
    command = [*USER_NAMESPACE, sys.executable, "-m", "pytest", "-q", "-rs", __file__]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@as_root
@needs_ping
@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("kind", KINDS)
def test_ping(lab: Lab, kind: str, mover: str) -> None:
    with lab.running(kind, mover=mover) as node:
        assert lab.pings(SERVER[0])
        assert lab.pings(SERVER[1])
        assert {client.address for client in node.clients("clients")} >= {*CLIENT}


@as_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("mover", ["inline", "dedicated"])
@pytest.mark.parametrize("kind", KINDS)
def test_tcp_carries_much_both_ways(lab: Lab, kind: str, mover: str, family: int) -> None:
    up, down = (random.Random(seed).randbytes(TRANSFER_BYTES) for seed in (1, 2))
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(LIMIT_SECONDS)
            received.append(receive_all(connection))
            connection.sendall(down)

    with lab.running(kind, mover=mover) as node:
        with lab.listen(family) as listener, in_background(serve), lab.connect(family) as connection:
            connection.sendall(up)
            connection.shutdown(socket.SHUT_WR)
            received.append(receive_all(connection))
        assert [hashlib.sha256(data).digest() for data in received] == [
            hashlib.sha256(data).digest() for data in (up, down)
        ]
        # Super-frames came in as segments: nothing was over the slot size.
        assert node.statistics().chain("clients").dropped.get("oversize", 0) == 0


@as_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", KINDS)
def test_udp_of_every_size(lab: Lab, kind: str, family: int) -> None:
    # 3,000 bytes come as IP fragments.
    datagrams = [random.Random(size).randbytes(size) for size in (0, 1, 17, 18, 500, 1400, 1452, 3000)]

    def serve() -> None:
        for _ in datagrams:
            data, sender = server.recvfrom(65536)
            server.sendto(data[::-1], sender)

    with (
        lab.running(kind),
        lab.listen(family, socket.SOCK_DGRAM) as server,
        in_background(serve),
        lab.connect(family, socket.SOCK_DGRAM) as client,
    ):
        for data in datagrams:
            client.send(data)
            assert client.recv(65536) == data[::-1]


@as_root
@needs_ping
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_leaves_nothing_attached(lab: Lab, kind: str, tmp_path: Path) -> None:
    manifest = tmp_path / "edge.toml"
    manifest.write_text(
        f"""
        [node]
        orphan_timeout = "0"
        [port.lan]
        kind = "{kind}"
        device = "lan"
        [port.wan]
        kind = "{kind}"
        device = "wan"
        [template.wire]
        appliance = "bridge"
        [chain.all]
        path = ["lan", "wire", "wan"]
        isolate = "shared"
        [[rule]]
        match = "any"
        chain = "all"
        """
    )
    if kind != "tap":
        lab.lay_cables()
    for _ in range(2):
        process = lab.node.start(
            [sys.executable, "-m", "edgeos", "up", "--quiet", "--run-dir", str(tmp_path / "run"), str(manifest)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            if kind == "tap":
                assert eventually(lambda: {"lan", "wan"} <= set(devices_in(lab.node)), 60)
                lab.move_taps()
            assert eventually(lambda: lab.pings(seconds=1), 60)
            assert kind == "tap" or (kind == "afxdp") == (xdp_program(lab.node, "lan") is not None)
        finally:
            process.kill()
            _, errors = process.communicate(timeout=60)
        assert errors == ""
        assert eventually(lambda: not lab.pings(seconds=0.3), 60)
        if kind == "tap":  # the devices went with their process, wherever they were
            assert eventually(lambda: devices_in(lab.client) == devices_in(lab.server) == ["lo"])
        else:
            assert eventually(lambda: promiscuity(lab.node, "lan") == 0)
            assert eventually(lambda: xdp_program(lab.node, "lan") is None)


def devices_in(namespace: netns.Namespace) -> list[str]:
    with namespace.entered():
        return devices()


def promiscuity(namespace: netns.Namespace, device: str) -> int:
    """How many sockets have asked the device for all packets."""
    with namespace.entered(), netns.IPRoute() as ip:
        link = ip.get_links(ip.link_lookup(ifname=device)[0])
        return int(next(iter(link)).get_attr("IFLA_PROMISCUITY"))


def xdp_program(namespace: netns.Namespace, device: str) -> int | None:
    """The number of the XDP program that is attached to the device."""
    with namespace.entered(), netns.IPRoute() as ip:
        link = next(iter(ip.get_links(ip.link_lookup(ifname=device)[0])))
        return link.get_attr("IFLA_XDP").get_attr("IFLA_XDP_PROG_ID")  # type: ignore[no-any-return]


@as_root
@needs_ping
@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_disappears(lab: Lab, kind: str) -> None:
    with lab.running(kind, wait="block") as node:
        assert lab.pings()
        if kind == "tap":
            lab.server.delete("wan")
        else:
            lab.node.delete("wan")
        assert not lab.pings(seconds=0.3)
        assert eventually(lambda: node.statistics().port("wan").problem.startswith("wan: "))
        assert "gone" not in node.statistics().port("lan").problem
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.25, "it waits for a device that is gone by asking again and again"


@as_root
@needs_ping
@pytest.mark.parametrize("kind", LAID_KINDS)
def test_a_device_that_goes_down_and_comes_up(lab: Lab, kind: str) -> None:
    with lab.running(kind) as node:
        assert lab.pings()
        lab.node.set_down("wan")
        assert not lab.pings(seconds=0.3)
        lab.node.set_up("wan")
        assert eventually(lambda: lab.pings(seconds=0.5))
        assert "down" in node.statistics().port("wan").problem


@as_root
@pytest.mark.parametrize("kind", LAID_KINDS)
def test_a_device_that_does_not_exist(lab: Lab, kind: str) -> None:
    lab.lay_cables()
    lab.node.delete("wan")
    with pytest.raises(edgeos.ManifestError, match='"wan", which does not exist; allowed: lan, lo'), lab.running(kind):
        pass


@as_root
@pytest.mark.parametrize("kind", LAID_KINDS)
def test_a_device_that_is_down(lab: Lab, kind: str) -> None:
    lab.lay_cables()
    lab.node.set_down("wan")
    with pytest.raises(edgeos.PortError, match=r"port\.wan: .*is down .*ip link set wan up"), lab.running(kind):
        pass


@as_root
@needs_tap
def test_a_tap_whose_name_is_taken(lab: Lab) -> None:
    lab.lay_cables()
    with pytest.raises(edgeos.PortError, match=r"port\.lan: .*choose another name"), lab.running("tap"):
        pass
