"""AF_XDP ports of two workers: which packets come to them, what is counted, and that nothing of them stays behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from privileges import needs_xdp
from service_harness import Service, eventually, is_alive, service
from worker_lab import CLIENTS, NETWORKS, Lab, netns

from edgeos.bundle import unbundled
from edgeos.service.control_client import ControlClient
from edgeos.testing import udp_packet

SERVERS = {"v4": NETWORKS[socket.AF_INET][1], "v6": NETWORKS[socket.AF_INET6][1]}
WAIT_SECONDS = 30

NODE = """
[node]
workers = 2
drain_timeout = "0"
[port.lan]
kind = "afxdp"
device = "lan"
{lan}
[port.wan]
kind = "{wan}"
device = "wan"
[template.wire]
appliance = "bridge"
slot_size = 4096
[chain.edge]
path = ["lan", "wire", "wan"]
isolate = "client"
[[rule]]
match = "udp dst port 53"
chain = "edge"
"""

pytestmark = [pytest.mark.privileged, needs_xdp]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, "afxdp")


@contextmanager
def serving(lab: Lab, folder: Path, *, lan: str = "", wan: str = "afxdp") -> Iterator[Service]:
    with lab.node.entered(), service(folder, NODE.format(lan=lan, wan=wan)) as node:
        yield node.running("--json", "result.json")


@contextmanager
def raw(space: netns.Namespace, device: str) -> Iterator[socket.socket]:
    """A packet socket at a far end."""
    with space.entered():
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with end:
        end.bind((device, 0))
        yield end


def workers_of(node: Service) -> list[dict[str, Any]]:
    return [worker["statistics"] for worker in node.ask("statistics")["workers"]]


def port_of(statistics: dict[str, Any], name: str = "lan") -> dict[str, Any]:
    return next(port for port in statistics["ports"] if port["name"] == name)


def sent(node: Service) -> int:
    """Packets that have gone through chains."""
    return sum(chain["sent"] for chain in node.ask("statistics")["chains"])


def states_of(pid: int) -> set[str]:
    """Of all threads."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {text.rpartition(")")[2].split()[0] for text in texts}


def is_attached(lab: Lab, device: str) -> bool:
    found = lab.node.run(["ip", "-details", "link", "show", device], timeout=WAIT_SECONDS)
    assert found.returncode == 0, found.stderr
    return "prog/xdp" in found.stdout


@contextmanager
def witness(lab: Lab, node: Service) -> Iterator[str]:
    """A device whose other end lies beside the first worker's pair, so that it goes when the pair goes."""
    with ControlClient(node.run / f"worker-{node.process_of(0)}.sock") as client:
        names, files = client.ask_for_files("sockets", worker=0)
    try:
        with unbundled(files[names.index("lan")]) as (_, kept), lab.client.entered(), netns.IPRoute() as ip:
            ip.link("add", ifname="witness", kind="veth", peer={"ifname": "beside", "net_ns_fd": kept[0]})
    finally:
        for file in files:
            os.close(file)
    yield "witness"


def is_there(space: netns.Namespace, device: str) -> bool:
    with space.entered():
        return device in [name for _, name in socket.if_nameindex()]


@pytest.mark.parametrize("how", ["told to end", "all are killed"])
def test_no_program_and_no_pair_is_left(lab: Lab, tmp_path: Path, how: str) -> None:
    with serving(lab, tmp_path) as node, witness(lab, node) as device:
        assert is_attached(lab, "lan")
        assert is_there(lab.client, device)
        if how == "told to end":
            node.end()
        else:
            everybody = {node.process.pid, *node.processes()}
            for pid in everybody:
                os.kill(pid, signal.SIGKILL)
            node.process.wait()
            assert eventually(lambda: not any(map(is_alive, everybody)))
        assert eventually(lambda: not is_attached(lab, "lan") and not is_attached(lab, "wan"))
        assert eventually(lambda: not is_there(lab.client, device))


def test_pairs_outlive_the_supervisor_and_all_workers_but_one(lab: Lab, tmp_path: Path) -> None:
    with lab.running(tmp_path) as node, closing(lab.echo(socket.AF_INET)) as server:
        server.settimeout(0.5)  # what comes while a worker is missing is lost, and asked again
        node.process.kill()
        node.process.wait()
        with lab.client_socket(socket.AF_INET, 1) as client, lab.client_socket(socket.AF_INET, 2) as other:
            assert lab.asks(server, client, b"without a supervisor")
            node.running("--json", "result.json")
            node.manifest.write_text(node.manifest.read_text().replace('match = "any"', 'match = "non-ip"'))
            node.ask("reload")
            for worker in (0, 1):
                os.kill(node.process_of(worker), signal.SIGKILL)
                assert lab.asks(server, client, b"again")
                assert lab.asks(server, other, b"again")
                assert eventually(lambda w=worker: node.workers()[w]["restarts"] == 1)
        assert node.end()["balance"] == 0


@pytest.mark.parametrize("wan", ["afxdp", "afpacket"])
def test_a_client_has_one_worker_at_both_ends_whatever_their_kinds(lab: Lab, tmp_path: Path, wan: str) -> None:
    clients = [("v4", f"10.1.{number}.7") for number in range(100)]
    clients += [("v6", f"fd00:7::{number}") for number in range(1, 101)]
    with serving(lab, tmp_path, wan=wan) as node:
        with raw(lab.client, "lan0") as near, raw(lab.server, "wan0") as far:
            for version, client in clients:
                for _ in range(2):
                    near.send(udp_packet(client, SERVERS[version], b"there"))
                    far.send(udp_packet(SERVERS[version], client, b"back", sport=53, dport=40000))
        assert eventually(lambda: sent(node) == 4 * len(clients)), node.ask("statistics")
        live = [sum(chain["live"] for chain in worker["chains"]) for worker in workers_of(node)]
        assert sum(live) == len(clients), "who comes to two workers has an FWP in each"
        assert min(live) > len(clients) / 4
        assert node.end()["balance"] == 0


def test_what_is_not_asked_for_goes_to_the_kernel(lab: Lab, tmp_path: Path) -> None:
    near, here = "10.79.1.1", "10.79.1.2"
    lab.client.set_up("lan0", [f"{near}/24"])
    lab.node.set_up("lan", [f"{here}/24"])
    with ExitStack() as stack, serving(lab, tmp_path, lan='take = "udp dst port 53"') as node:
        with lab.node.entered():
            kernel, taken = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        with lab.client.entered():
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        kernel.bind((here, 80))
        kernel.settimeout(WAIT_SECONDS)
        taken.bind((here, 53))
        taken.setblocking(False)
        client.sendto(b"for the kernel", (here, 80))  # and before it ARP, both ways
        assert kernel.recv(100) == b"for the kernel"
        for _ in range(10):
            client.sendto(b"for a worker", (here, 53))
        assert eventually(lambda: sent(node) == 10), node.ask("statistics")
        client.sendto(b"once more", (here, 80))
        assert kernel.recv(100) == b"once more"
        with pytest.raises(BlockingIOError):
            taken.recv(100)
        assert sum(port_of(worker)["received"] for worker in workers_of(node)) == 10
        node.end()


@pytest.mark.parametrize(("mtu", "mode"), [(1500, "native"), (3400, "generic")])
def test_the_mode_is_told_and_both_carry_the_largest_packets(lab: Lab, tmp_path: Path, mtu: int, mode: str) -> None:
    for space, device in ((lab.client, "lan0"), (lab.node, "lan"), (lab.node, "wan"), (lab.server, "wan0")):
        space.set_up(device, mtu=mtu)
    with serving(lab, tmp_path) as node:
        with raw(lab.client, "lan0") as near, raw(lab.server, "wan0") as far:
            for number in range(20):
                near.send(udp_packet(f"10.1.0.{number}", SERVERS["v4"], bytes(mtu - 28)))
                far.send(udp_packet(SERVERS["v4"], f"10.1.0.{number}", bytes(mtu - 28), sport=53, dport=40000))
        assert eventually(lambda: sent(node) == 40), node.ask("statistics")
        for worker in workers_of(node):
            assert [port["mode"] for port in worker["ports"]] == [f"{mode}, copy, through a pair for each worker"] * 2
        assert node.end()["balance"] == 0


def test_tcp_carries_much_both_ways_with_default_offloads(lab: Lab, tmp_path: Path) -> None:
    """Whose checksums are unfinished when packets come from a veth pair."""
    data = random.Random(7).randbytes(1 << 20)
    with ExitStack() as stack, lab.running(tmp_path) as node:
        with lab.server.entered():
            server = stack.enter_context(socket.create_server((SERVERS["v4"], 0)))
        server.settimeout(WAIT_SECONDS)
        for number in CLIENTS:
            with lab.client.entered():
                client = socket.create_connection(server.getsockname(), WAIT_SECONDS, (f"10.79.0.{number}", 0))
            with client, server.accept()[0] as served:
                served.settimeout(WAIT_SECONDS)
                for one, other in ((client, served), (served, client)):
                    sender = threading.Thread(target=one.sendall, args=(data,))
                    sender.start()
                    received = bytearray()
                    while len(received) < len(data):
                        received += other.recv(1 << 16)
                    sender.join()
                    assert received == data
        carried = [port_of(worker)["received_bytes"] for worker in workers_of(node)]
        assert min(carried) > len(data)
        assert node.end()["balance"] == 0


def test_what_a_stopped_worker_could_not_take_is_counted(lab: Lab, tmp_path: Path) -> None:
    """Its rings fill up, while the other's clients are served."""
    with serving(lab, tmp_path) as node, raw(lab.client, "lan0") as near:
        clients = [udp_packet(f"10.1.0.{number}", SERVERS["v4"]) for number in range(20)]
        for packet in clients:
            near.send(packet)
        assert eventually(lambda: sent(node) == len(clients)), node.ask("statistics")
        before = [port_of(worker)["received"] for worker in workers_of(node)]
        each = 300
        stopped = node.process_of(0)
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert eventually(lambda: states_of(stopped) == {"T"})
            for _ in range(each):
                for packet in clients:
                    near.send(packet)
        finally:
            os.kill(stopped, signal.SIGCONT)

        def accounted() -> list[int]:
            ports = [port_of(worker) for worker in workers_of(node)]
            return [port["received"] - was + port["receive_overrun"] for port, was in zip(ports, before, strict=True)]

        share = [sum(chain["live"] for chain in worker["chains"]) * each for worker in workers_of(node)]
        assert share[0] > 2048, "more than its ring holds"
        assert eventually(lambda: all(a >= s for a, s in zip(accounted(), share, strict=True))), (accounted(), share)
        assert port_of(workers_of(node)[0])["receive_overrun"] > 0
        assert node.end()["balance"] == 0


def test_a_device_that_goes_is_told_and_the_node_goes_on(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path) as node:
        lab.node.set_down("wan")
        with raw(lab.client, "lan0") as near:
            for number in range(20):
                near.send(udp_packet(f"10.1.0.{number}", SERVERS["v4"]))
        assert eventually(lambda: all(port_of(w, "wan")["send_dropped"] > 0 for w in workers_of(node))), node.log
        assert all("the interface is down" in port_of(worker, "wan")["problem"] for worker in workers_of(node))
        lab.node.delete("lan")
        assert eventually(lambda: all("the device is gone" in port_of(w)["problem"] for w in workers_of(node))), (
            node.log
        )
        assert [worker["restarts"] for worker in node.workers()] == [0, 0]
        assert node.end()["balance"] == 0


def test_the_fallback_tells_why_it_is_used(lab: Lab, tmp_path: Path) -> None:
    for space, device in ((lab.client, "lan0"), (lab.node, "lan")):
        space.set_up(device, mtu=9000)
    with serving(lab, tmp_path, lan='fallback = "afpacket"') as node:
        with raw(lab.client, "lan0") as near:
            for number in range(20):
                near.send(udp_packet(f"10.1.0.{number}", SERVERS["v4"]))
        assert eventually(lambda: sent(node) == 20), node.ask("statistics")
        for worker in workers_of(node):
            assert port_of(worker)["mode"].startswith("AF_PACKET, because lan: AF_XDP cannot take packets of MTU 9000")
        assert node.end()["balance"] == 0


@pytest.mark.parametrize(
    ("dropped", "named"),
    [("sys_admin", "CAP_SYS_ADMIN"), ("net_admin", "CAP_NET_ADMIN"), ("bpf,-sys_admin", "CAP_BPF")],
)
def test_a_missing_privilege_is_named(lab: Lab, dropped: str, named: str) -> None:
    program = (
        "from edgeos import _native\n"
        "try:\n"
        "    _native.open_xdp_pairs('lan', workers=2, by_destination=False, queue=-1, take=[])\n"
        "    print('opened')\n"
        "except (OSError, RuntimeError) as error: print(error)"
    )
    bounds = [f"--bounding-set=-{dropped}", f"--inh-caps=-{dropped}"]
    found = lab.node.run(["setpriv", *bounds, sys.executable, "-c", program], timeout=WAIT_SECONDS)
    assert named in found.stdout, found.stdout + found.stderr
    assert not is_attached(lab, "lan"), "nothing stays"
