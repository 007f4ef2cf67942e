"""Worker processes and their supervisor, as programs of their own, with clients over the loopback device."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from service_harness import LIMIT_SECONDS, Service, echo_manifest, eventually, free_port, is_alive, service

from edgeos import Manifest, load_manifest
from edgeos.errors import EdgeosError, ManifestError
from edgeos.service import supervisor
from edgeos.service.run_directory import RunDirectory, open_run_directory
from edgeos.service.supervisor import Supervisor

CLIENTS = [f"127.0.0.{number}" for number in range(1, 13)]


class Client:
    """Asks over and over from one address, with a connection for each question, or one for all."""

    def __init__(self, address: str, port: int, stay: bool = False) -> None:
        self.address = address
        self.failures = 0
        self.answers = 0
        self._port = port
        self._stay = stay
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with connection(self.address, self._port) as asked:
                    self._ask(asked)
                    while self._stay and not self._over.is_set():
                        self._ask(asked)
            except (OSError, AssertionError):
                self.failures += 1
            self._over.wait(0.002)

    def _ask(self, asked: socket.socket) -> None:
        assert answers(asked)
        self.answers += 1
        self._over.wait(0.002)


def connection(address: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS, source_address=(address, 0))


def answers(asked: socket.socket, data: bytes = b"a question") -> bool:
    asked.sendall(data)
    return asked.recv(100) == data


@contextmanager
def asking(port: int, addresses: list[str], stay: bool = True) -> Iterator[list[Client]]:
    clients = [Client(address, port, stay) for address in addresses]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.stop()


def worker_of(node: Service, address: str, port: int) -> int:
    """The worker that serves an address."""
    before = [worker["statistics"]["ports"][0]["accepted"] for worker in node.ask("statistics")["workers"]]
    with connection(address, port) as asked:
        assert answers(asked)
        after = [worker["statistics"]["ports"][0]["accepted"] for worker in node.ask("statistics")["workers"]]
    (found,) = [index for index, (b, a) in enumerate(zip(before, after, strict=True)) if a > b]
    return found


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_killed_worker_is_replaced_and_the_clients_of_others_notice_nothing(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running("--json", "result.json")
        of_first = [address for address in CLIENTS if worker_of(node, address, port) == 0]
        of_others = [address for address in CLIENTS if address not in of_first]
        assert of_first
        assert of_others
        with asking(port, CLIENTS) as clients:
            assert eventually(lambda: all(client.answers > 20 for client in clients))
            node.ask("statistics")  # what is known of the worker when it dies
            killed = node.process_of(0)
            os.kill(killed, signal.SIGKILL)
            seen = {client.address: client.answers for client in clients}
            assert eventually(lambda: all(client.answers > seen[client.address] + 20 for client in clients)), node.log
            assert node.process_of(0) not in (killed, None)
            assert [worker["restarts"] for worker in node.workers()] == [1, 0]
        assert {client.address: client.failures for client in clients if client.address in of_others} == dict.fromkeys(
            of_others, 0
        )
        assert all(client.failures <= 1 for client in clients)
        assert "was killed by SIGKILL" in node.log
        statistics = node.end()
    assert statistics["balance"] == 0
    assert all(chain["received"] > 0 for chain in statistics["chains"])
    assert statistics["ports"][0]["ended"]["lost"] == len(of_first)
    first, other = statistics["workers"]
    assert (first["restarts"], other["restarts"]) == (1, 0)
    total = sum(chain["received"] for chain in statistics["chains"])
    assert total > sum(worker["statistics"]["received"] for worker in statistics["workers"])  # the dead one's are kept
    assert not node.processes()


BUSY_GUEST = """
#include <edgeos.h>
int edgeos_handle(edgeos_message *m) {
    for (volatile int turns = 0; m->len > 0 && m->data[0] == 'l';) turns++;
    return EDGEOS_BACK;
}
"""


def test_what_was_on_its_way_in_a_killed_worker_is_counted_as_lost(tmp_path: Path, port: int) -> None:
    (tmp_path / "busy.c").write_text(BUSY_GUEST)
    manifest = echo_manifest(port=port, source="busy.c")
    manifest = manifest.replace("[node]", '[node]\nmover = "dedicated"').replace('.c"', '.c"\nbudget = "10s"')
    with service(tmp_path, manifest) as node:
        node.running("--json", "result.json")
        with connection("127.0.0.1", port) as asked:
            assert answers(asked)
            asked.sendall(b"loop")

            def busy() -> list[dict[str, Any]]:
                return [w for w in node.ask("statistics")["workers"] if w["statistics"]["in_flight"] > 0]

            assert eventually(lambda: bool(busy()))
            (worker,) = busy()
            on_their_way = worker["statistics"]["in_flight"]
            os.kill(worker["pid"], signal.SIGKILL)
            assert eventually(lambda: node.workers()[worker["index"]]["restarts"] == 1)
        statistics = node.end()
    assert statistics["lost"] == on_their_way
    assert statistics["balance"] == 0
    assert sum(chain["lost"] for chain in statistics["chains"]) == on_their_way
    assert statistics["workers"][worker["index"]]["lost"] == on_their_way


def test_a_worker_that_dies_again_and_again_is_held_back(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running()
        for death in range(1, 4):
            os.kill(node.process_of(1), signal.SIGKILL)
            assert eventually(
                lambda death=death: node.workers()[1]["restarts"] == death and node.workers()[1]["pid"] is not None
            ), node.log
        assert "died 3 times in a row" in node.log
        assert node.workers()[0]["restarts"] == 0
        with connection("127.0.0.1", port) as asked:
            assert answers(asked)
        node.end()


def test_workers_outlive_their_supervisor_and_the_next_one_finds_them(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node, ExitStack() as stack:
        node.running()
        workers = {node.process_of(0), node.process_of(1)}
        living = [stack.enter_context(connection(address, port)) for address in CLIENTS]
        assert all(map(answers, living))
        node.process.kill()
        node.process.wait()
        assert eventually(lambda: node.processes() == workers)  # the one in reserve has ended
        processes = " and ".join(map(str, sorted(workers)))
        with pytest.raises(EdgeosError, match=rf"supervisor has died, its workers \(process {processes}\) go on"):
            node.ask("status")
        assert all(map(answers, living))
        node.running("--json", "result.json")
        assert {node.process_of(0), node.process_of(1)} == workers
        assert all(map(answers, living))
        # The sockets came along: another process can take a worker's place.
        os.kill(node.process_of(0), signal.SIGKILL)
        assert eventually(lambda: node.workers()[0]["restarts"] == 1 and node.workers()[0]["state"] == "running")
        for address in CLIENTS:
            with connection(address, port) as asked:
                assert answers(asked)
        statistics = node.end()
        assert statistics["balance"] == 0
        assert sum(chain["activations"] for chain in statistics["chains"]) >= 2 * len(CLIENTS)
        assert not node.processes()
    assert not list(node.run.glob("*"))


def test_workers_without_a_supervisor_end_in_time(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port, orphan_timeout="300ms", drain_timeout="300ms")) as node:
        node.running()
        workers = node.processes()
        assert len(workers) >= 2
        with connection("127.0.0.1", port) as asked:
            assert answers(asked)
            node.process.kill()
            node.process.wait()
            assert eventually(lambda: not any(map(is_alive, workers)))
        assert eventually(lambda: not lets_in(port))
        assert not node.run.exists(), "the last one tidies up"
        with pytest.raises(EdgeosError, match="no node runs this manifest"):
            node.ask("status")
        node.running().end()
        assert "found worker" not in node.log


def test_what_killed_processes_leave_goes_with_the_next_command(tmp_path: Path, port: int) -> None:
    def kill_all() -> None:
        tasks = Path(f"/proc/{node.process.pid}/task").glob(
            "*/children"
        )  # with the one in reserve, that may be starting
        workers = [int(pid) for children in tasks for pid in children.read_text().split()]
        node.process.kill()
        node.process.wait()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(is_alive, workers)))
        assert (node.run / "control.sock").exists()

    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running()
        kill_all()
        node.running()
        assert len(node.workers()) == 2
        assert len(list(node.run.glob("manifest-*"))) == 1
        kill_all()
        with pytest.raises(EdgeosError, match="no node runs this manifest"):
            node.ask("status")
        assert not node.run.exists()
        # Nor does a node leave anything that cannot start.
        node.running()
        kill_all()
        with socket.create_server(("127.0.0.1", port)):
            assert node.start().process.wait(LIMIT_SECONDS) == 1
        assert not node.run.exists()


def test_workers_with_other_ports_are_ended_and_new_ones_started(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running()
        workers = {node.process_of(0), node.process_of(1)}
        node.process.kill()
        node.process.wait()
        other = free_port()
        node.manifest.write_text(echo_manifest(port=other))
        node.running()
        assert not workers & {node.process_of(0), node.process_of(1)}
        assert not any(map(is_alive, workers))
        with connection("127.0.0.1", other) as asked:
            assert answers(asked)
        node.end()


def test_sigterm_lets_nobody_in_and_the_living_finish(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node, ExitStack() as stack:
        node.running("--json", "result.json")
        living = [stack.enter_context(connection(address, port)) for address in CLIENTS]
        assert all(map(answers, living))
        node.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: node.state == "draining")
        assert eventually(lambda: not lets_in(port))
        assert all(map(answers, living))
        assert node.process.poll() is None
        for asked in living:
            asked.close()
        assert node.process.wait(LIMIT_SECONDS) == 0
        assert not node.processes()


def lets_in(port: int) -> bool:
    try:
        connection("127.0.0.1", port).close()
    except OSError:
        return False
    return True


def test_the_drain_timeout_is_kept(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port, drain_timeout="200ms")) as node:
        node.running("--json", "result.json")
        with connection("127.0.0.1", port) as asked:
            assert answers(asked)
            node.ask("drain")
            assert node.process.wait(LIMIT_SECONDS) == 0
            with suppress(ConnectionResetError):
                assert asked.recv(1) == b""
        assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_drain(tmp_path: Path, port: int, again: signal.Signals) -> None:
    with service(tmp_path, echo_manifest(port=port, drain_timeout="1h")) as node:
        node.running()
        with connection("127.0.0.1", port) as asked:
            assert answers(asked)
            node.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: node.state == "draining")
            node.process.send_signal(again)
            assert node.process.wait(LIMIT_SECONDS) == 0
        assert not node.processes()


def test_sighup_reloads_and_the_living_stay_where_they_are(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running()
        workers = {node.process_of(0), node.process_of(1)}
        with connection("127.0.0.1", port) as old:
            assert answers(old)
            node.manifest.write_text(echo_manifest(port=port).replace("[[rule]]", DROP_RULE))
            node.process.send_signal(signal.SIGHUP)
            assert eventually(lambda: "reloaded" in node.log), node.log
            assert answers(old)
            with suppress(ConnectionResetError, BrokenPipeError), connection("127.0.0.1", port) as refused:
                refused.sendall(b"x")
                assert refused.recv(1) == b""
            with connection("127.0.0.2", port) as other:
                assert answers(other)
        assert {node.process_of(0), node.process_of(1)} == workers
        # A worker that starts now runs the new manifest too.
        os.kill(node.process_of(0), signal.SIGKILL)
        assert eventually(lambda: node.workers()[0]["state"] == "running" and node.workers()[0]["restarts"] == 1)
        statistics = node.ask("statistics")
        assert statistics["balance"] == 0
        assert statistics["ports"][0]["refused"] == {"rule": 1}
        node.end()


def test_a_chain_that_a_reload_changes_keeps_its_living(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node, ExitStack() as stack:
        node.running()
        living = [stack.enter_context(connection(address, port)) for address in CLIENTS]
        assert all(map(answers, living))
        node.manifest.write_text(echo_manifest(port=port, isolate="client"))
        node.ask("reload")
        assert all(map(answers, living))
        for address in CLIENTS:
            with connection(address, port) as one, connection(address, port) as other:
                assert answers(one)
                assert answers(other)
        old, new = sorted(node.ask("statistics")["chains"], key=lambda chain: not chain["retired"])
        assert (old["retired"], old["activations"], old["live"]) == (True, len(CLIENTS), len(CLIENTS))
        assert new["activations"] >= len(CLIENTS)
        assert node.ask("statistics")["balance"] == 0
        node.end()


DROP_RULE = """
[[rule]]
match = "src 127.0.0.1"
drop = true
[[rule]]"""


def test_a_bad_manifest_changes_nothing_and_all_that_is_wrong_is_said(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running()
        good = node.manifest.read_text()
        node.manifest.write_text(good.replace("isolate", "isolat").replace('chain = "all"', 'chain = "al"'))
        with pytest.raises(ManifestError) as refused:
            node.ask("reload")
        assert [problem.split(": ")[1] for problem in refused.value.problems] == ["chain.all.isolat", "rule #1.chain"]
        node.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "nothing was changed" in node.log)
        assert "chain.all.isolat" in node.log
        assert "rule #1.chain" in node.log
        node.manifest.write_text(good.replace('kind = "tcp"', 'kind = "tcp"\nbacklog = 5'))
        with pytest.raises(EdgeosError, match=r"^port\.front\.backlog cannot change while the node runs: restart it"):
            node.ask("reload")
        node.manifest.write_text(good.replace("workers = 2", "workers = 3"))
        with pytest.raises(EdgeosError, match="the number of workers cannot change"):
            node.ask("reload")
        with connection("127.0.0.1", port) as asked:
            assert answers(asked)
        assert [worker["restarts"] for worker in node.workers()] == [0, 0]
        node.end()


def test_a_request_says_nothing_to_workers_but_what_it_asks(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node, ExitStack() as stack:
        node.running()
        living = stack.enter_context(connection("127.0.0.1", port))
        assert answers(living)
        for more in ({"seconds": 0}, {"seconds": "x"}):
            with pytest.raises(EdgeosError, match="no handler"):
                node.ask("read_handler", chain="all", stage="echo", client=None, name="nothing", **more)
        assert answers(living)
        assert [worker["restarts"] for worker in node.workers()] == [0, 0]
        node.end()


def test_an_earlier_reload_that_takes_longer_does_not_undo_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edge.toml"
    building, built = threading.Event(), threading.Event()

    def load_guests(manifest: Manifest, progress: object) -> None:
        if manifest.node.drain_timeout_ns == 2_000_000_000:
            building.set()
            built.wait(LIMIT_SECONDS)

    def write(drain_timeout: str) -> None:
        path.write_text(echo_manifest(drain_timeout=drain_timeout, port=1))

    async def run(folder: RunDirectory) -> int:
        write("1s")
        node = Supervisor(load_manifest(path), folder, print)
        monkeypatch.setattr(supervisor, "load_guests", load_guests)
        monkeypatch.setattr(node._spare, "replace", lambda: None)
        write("2s")
        first = asyncio.create_task(node.reload())
        await asyncio.to_thread(building.wait, LIMIT_SECONDS)
        write("3s")
        second = asyncio.create_task(node.reload())
        await asyncio.wait([second], timeout=0.5)
        built.set()
        await asyncio.gather(first, second)
        return node._manifest.node.drain_timeout_ns

    with open_run_directory(path, tmp_path / "run") as folder:
        assert asyncio.run(run(folder)) == 3_000_000_000


def test_only_one_supervisor_for_a_manifest(tmp_path: Path, port: int) -> None:
    with service(tmp_path, echo_manifest(port=port)) as node:
        node.running()
        first = node.process
        second = node.start().process
        assert second.wait(LIMIT_SECONDS) == 1
        assert "another process runs this manifest" in node.log
        assert first.poll() is None
        assert len(node.workers()) == 2


def test_what_keeps_a_node_from_starting_leaves_no_process(tmp_path: Path, port: int) -> None:
    """A port in use, few descriptors, bad rights: one line, exit code 1, nothing half-started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with service(tmp_path, echo_manifest(port=port)) as node:
            assert node.start().process.wait(LIMIT_SECONDS) == 1
            assert node.log.splitlines()[-1].startswith(f"error: port.front: 127.0.0.1:{port}: cannot listen (another")
            assert "Traceback" not in node.log
            assert not node.processes()
            assert not list(node.run.glob("*"))


PACKETS = """
[node]
workers = 2
[port.lan]
kind = "afpacket"
device = "lo"
[port.wan]
kind = "tap"
device = "eos-none"
[template.wire]
appliance = "bridge"
[chain.all]
path = ["lan", "wire", "wan"]
[[rule]]
match = "any"
chain = "all"
"""


@pytest.mark.parametrize(
    ("before", "manifest", "line"),
    [
        (["prlimit", "--nofile=300:300"], echo_manifest(), "the listeners need up to 5256 open files"),
        (["setpriv", "--bounding-set=-net_bind_service"], echo_manifest(port=7), "need CAP_NET_BIND_SERVICE"),
        (
            ["setpriv", "--bounding-set=-net_raw"],
            PACKETS,
            "port.lan: lo: cannot open a packet socket (needs CAP_NET_RAW",
        ),
        (
            ["setpriv", "--bounding-set=-net_admin"],
            PACKETS,
            "port.wan: eos-none: cannot attach to the device (needs CAP",
        ),
    ],
    ids=["descriptors", "privileged port", "packet sockets", "devices"],
)
def test_what_the_process_may_not_do_is_said(tmp_path: Path, before: list[str], manifest: str, line: str) -> None:
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{before[0]} cannot do that here")
    if "BIND" in line and int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 7:
        pytest.skip("this system lets everybody have low ports")
    with service(tmp_path, manifest, before) as node:
        assert node.start().process.wait(LIMIT_SECONDS) == 1
        assert "Traceback" not in node.log
        assert line in node.log
        assert not node.processes()
        assert [path.name for path in node.run.glob("*")] == []
