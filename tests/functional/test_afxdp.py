"""AF_XDP beyond what all live ports do: memory that is shared and never lost, what the kernel keeps, refusals."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from privileges import needs_xdp

import edgeos
from edgeos import _native
from edgeos.match import parse_match
from edgeos.native_rule import native_rule
from edgeos.port import open_native_port
from edgeos.settings import PortSettings
from edgeos.testing import udp_packet

netns = pytest.importorskip("edgeos.netns", reason="needs pyroute2")

NEAR, FAR = "10.79.0.1", "10.79.0.2"
SOL_PACKET, PACKET_AUXDATA = 263, 8

pytestmark = [pytest.mark.privileged, needs_xdp]


class Cable:
    """A veth pair: `dut` and `second` in the node's namespace, with `peer` and `other` at the far ends."""

    def __init__(self, stack: ExitStack, mtu: int) -> None:
        self.node, self.far = (stack.enter_context(netns.Namespace()) for _ in range(2))
        for namespace in (self.node, self.far):  # which would send packets of its own
            with namespace.entered():
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        for device, peer in (("dut", "peer"), ("second", "other")):
            netns.join(self.node, device, self.far, peer)
            self.node.set_up(device, mtu=mtu)
            self.far.set_up(peer, mtu=mtu)

    def open(self, devices: tuple[str, ...] = ("dut",), take: str = "") -> list[_native.AfXdpPort]:
        terms = [native_rule(parse_match(take))] if take else []
        with self.node.entered():
            umem = _native.Umem([(device, -1) for device in devices])
            return [_native.AfXdpPort(device, device, umem, -1, terms) for device in devices]

    def raw(self, device: str) -> socket.socket:
        """A packet socket at a far end."""
        with self.far.entered():
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.bind((device, 0))
        end.settimeout(5)
        return end


@pytest.fixture
def cable(request: pytest.FixtureRequest) -> Iterator[Cable]:
    with ExitStack() as stack:
        yield Cable(stack, getattr(request, "param", 1500))


WIRE = edgeos.TemplateSettings(name="wire", appliance="bridge")


def forwarding(ports: list[_native.AfXdpPort], template: edgeos.TemplateSettings = WIRE) -> edgeos.Node:
    """A node from the first port to the second, to be stepped."""
    node = edgeos.Node()
    for port in ports:
        node.add_port(port)
    node.add_template(template)
    node.add_chain(edgeos.ChainSettings(name="all", path=("dut", "wire", "second"), isolate="shared"))
    node.add_rule("any", chain="all")
    return node


def step_until_idle(node: edgeos.Node, sent: int) -> None:
    for _ in range(200_000):
        node.run_once()
        if node.statistics().sent >= sent:
            return
    raise AssertionError(f"{node.statistics()} of {sent}")


def assert_no_frame_is_lost(ports: list[_native.AfXdpPort], umem_frames: int) -> None:
    taken = 0
    for port in ports:
        for frames, filled, held, free_to_send, sending in port.frames():
            assert frames == filled + held + free_to_send + sending
            taken += frames
    assert taken == umem_frames


def test_two_ports_share_one_memory_and_no_frame_is_lost(cable: Cable):
    with cable.node.entered():
        umem = _native.Umem([("dut", -1), ("second", -1)])
        ports = [_native.AfXdpPort(device, device, umem) for device in ("dut", "second")]
    assert umem.free_frames == 0
    assert all(port.mode in ("native, copy, 1 queue", "generic, copy, 1 queue") for port in ports)
    with forwarding(ports) as node, cable.raw("peer") as sender, cable.raw("other") as receiver:
        node.run_once()
        total = 0
        for size in (0, 1, 500, 1458):  # each frame is used several times over
            for _ in range(40):
                packets = [udp_packet(FAR, NEAR, bytes([n]) * size, sport=1000 + n) for n in range(50)]
                for packet in packets:
                    sender.send(packet)
                total += len(packets)
                step_until_idle(node, total)
                assert_no_frame_is_lost(ports, umem.frames)
                assert [receiver.recv(2048) for _ in packets] == packets
        statistics = node.stop()
        assert statistics.balance == 0
        assert statistics.port("dut").receive_overrun == 0
        assert (statistics.port("second").sent, statistics.port("second").queued) == (total, 0)
    assert_no_frame_is_lost(ports, umem.frames)
    ports.clear()
    del node
    assert umem.free_frames == umem.frames


def test_more_than_the_rings_hold_is_counted(cable: Cable):
    ports = cable.open(("dut", "second"))
    with forwarding(ports) as node, cable.raw("peer") as sender:
        node.run_once()
        packet = udp_packet(FAR, NEAR, b"flood")
        for _ in range(3000):
            sender.send(packet)
        step_until_idle(node, 2048)
        step_for_statistics(node)
        statistics = node.stop()
        port = statistics.port("dut")
        assert (port.received, port.receive_overrun) == (2048, 3000 - 2048)
        assert statistics.balance == 0


def step_for_statistics(node: edgeos.Node) -> None:
    """Until the port has asked the kernel again what was lost."""
    for _ in range(20):
        node.run_once()
        time.sleep(0.001)


def test_vlan_tags_are_kept(cable: Cable):
    ports = cable.open(("dut", "second"))
    packet = udp_packet(FAR, NEAR, b"tagged")
    with forwarding(ports) as node, cable.raw("peer") as sender, cable.raw("other") as receiver:
        receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)  # the receiving kernel takes the tag out of the frame
        node.run_once()
        sender.send(packet[:12] + bytes.fromhex("81006007") + packet[12:])
        step_until_idle(node, 1)
        data, extra, _, _ = receiver.recvmsg(2048, 256)
        assert data == packet
        assert [int.from_bytes(value[16:18], sys.byteorder) for *_, value in extra] == [0x6007]
        assert node.stop().port("dut").received_bytes == len(packet) + 4


def test_what_is_not_asked_for_goes_to_the_kernel(cable: Cable):
    cable.node.set_up("dut", [f"{NEAR}/24"])
    cable.far.set_up("peer", [f"{FAR}/24"])
    with cable.node.entered():
        kernel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        kernel.bind((NEAR, 80))
        kernel.settimeout(5)
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind((NEAR, 53))
        taken.settimeout(0.2)
    with cable.far.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with kernel, taken, client:
        ports = cable.open(("dut", "second"), "udp dst port 53")
        with forwarding(ports) as node:
            node.run_once()
            client.sendto(b"for the kernel", (NEAR, 80))  # and before it ARP, both ways
            assert kernel.recv(100) == b"for the kernel"
            client.sendto(b"for the node", (NEAR, 53))
            step_until_idle(node, 1)
            with pytest.raises(TimeoutError):
                taken.recv(100)
            assert node.statistics().port("dut").received == 1
            node.stop()


@pytest.mark.parametrize(("cable", "mode"), [(3400, "native"), (3700, "generic")], indirect=["cable"])
def test_a_large_mtu_takes_larger_frames_or_generic_mode(cable: Cable, mode: str):
    ports = cable.open(("dut", "second"))
    assert ports[0].mode.startswith(mode)
    template = edgeos.TemplateSettings(name="wire", appliance="bridge", slot_size=4096)
    with forwarding(ports, template) as node, cable.raw("peer") as sender, cable.raw("other") as receiver:
        node.run_once()
        packet = udp_packet(FAR, NEAR, bytes(3300))
        sender.send(packet)
        step_until_idle(node, 1)
        assert receiver.recv(8192) == packet
        node.stop()


@pytest.mark.parametrize("cable", [9000], indirect=True)
def test_an_mtu_beyond_what_frames_hold(cable: Cable):
    with cable.node.entered(), pytest.raises(edgeos.PortError, match=r"port\.lan: dut: .*MTU 9000 .*mtu 1500"):
        open_native_port(PortSettings(name="lan", kind="afxdp", device="dut"))


@pytest.mark.parametrize("cable", [9000], indirect=True)
def test_the_fallback_tells_why_it_is_used(cable: Cable):
    settings = PortSettings(name="dut", kind="afxdp", device="dut", fallback="afpacket")
    with cable.node.entered(), edgeos.open_port(settings) as port:
        assert type(port) is _native.AfPacketPort
        assert port.mode.startswith("AF_PACKET, because dut: AF_XDP cannot take packets of MTU 9000")


def test_a_queue_that_is_not_there(cable: Cable):
    with cable.node.entered(), pytest.raises(edgeos.PortError, match=r"no queue 5 \(it has 1"):
        open_native_port(PortSettings(name="lan", kind="afxdp", device="dut", queues=5))


def test_a_device_that_another_program_uses(cable: Cable):
    ports = cable.open()
    with cable.node.entered(), pytest.raises(edgeos.PortError, match="another socket uses this queue"):
        open_native_port(PortSettings(name="lan", kind="afxdp", device="dut"))
    ports.clear()
    with cable.node.entered(), edgeos.open_port(PortSettings(name="lan", kind="afxdp", device="dut")) as port:
        assert port.mode.endswith("1 queue")  # though the kernel frees the queue a little later


@pytest.mark.parametrize(
    ("dropped", "take", "named"),
    [
        ("net_raw", "", "CAP_NET_RAW"),
        ("net_admin,-sys_admin", "", "CAP_NET_ADMIN"),
        ("bpf,-sys_admin", "", "CAP_BPF"),
        ("perfmon,-sys_admin", "parse_match('ip')", "CAP_PERFMON"),
        ("perfmon,-sys_admin", "", "opened"),
    ],
)
def test_a_missing_privilege_is_named(cable: Cable, dropped: str, take: str, named: str):
    program = (
        "import edgeos; from edgeos.match import parse_match; from edgeos.settings import PortSettings\n"
        "try:\n"
        f"    port = PortSettings(name='lan', kind='afxdp', device='dut', take=[{take}])\n"
        "    with edgeos.open_port(port): print('opened')\n"
        "except edgeos.PortError as error: print(error)"
    )
    bounds = [f"--bounding-set=-{dropped}", f"--inh-caps=-{dropped}"]
    found = cable.node.run(["setpriv", *bounds, sys.executable, "-c", program], timeout=30)
    assert named in found.stdout, found.stdout + found.stderr


def test_packets_that_the_device_would_not_take(cable: Cable):
    ports = cable.open(("dut", "second"))
    with forwarding(ports) as node:
        node.run_once()
        cable.node.set_down("second")
        with cable.raw("peer") as sender:
            sender.send(udp_packet(FAR, NEAR, b"nowhere"))
            for _ in range(20_000):
                node.run_once()
        statistics = node.stop()
        assert statistics.port("second").send_dropped >= 1
        assert "down" in statistics.port("second").problem
        assert statistics.balance == 0
