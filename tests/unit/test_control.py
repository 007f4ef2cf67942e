"""The control socket: its protocol, its folder, and what a running node answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import edgeos
from edgeos import testing
from edgeos.errors import EdgeosError, ManifestError
from edgeos.service import control_server
from edgeos.service.control_client import ControlClient
from edgeos.service.control_server import ControlServer, Verb
from edgeos.service.local import served
from edgeos.service.node_verbs import handler_answers
from edgeos.service.protocol import REQUEST_BYTES_MAX, Descriptors, Request
from edgeos.service.run_directory import InUseError, connect, open_run_directory, run_directories

GUESTS = Path(__file__).parents[1] / "guests"


async def echo(request: Request) -> Any:
    return dict(request.arguments)


async def refuse(request: Request) -> Any:
    raise ManifestError(["edge.toml: one", "edge.toml: two"])


@contextmanager
def serving(path: Path, verbs: dict[str, Verb]) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    server = ControlServer(path, verbs)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ControlClient]:
    with serving(tmp_path / "s", {"echo": echo, "refuse": refuse}), ControlClient(tmp_path / "s") as client:
        yield client


def test_one_connection_asks_many_things(client: ControlClient) -> None:
    for value in (1, "ü\n", [None, {"a": 2.5}], "x" * 500_000):
        assert client.ask("echo", value=value) == {"value": value}


def test_a_defect_is_told_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def broken(request: Request) -> Any:
        return {}["nothing"]

    verbs: dict[str, Verb] = {"broken": broken, "echo": echo}
    with serving(tmp_path / "s", verbs), ControlClient(tmp_path / "s") as client:
        with pytest.raises(EdgeosError, match=r"an error inside edgeos: KeyError\('nothing'\)"):
            client.ask("broken")
        assert client.ask("echo") == {}


def test_errors_come_back_as_they_were(client: ControlClient) -> None:
    with pytest.raises(ManifestError) as refused:
        client.ask("refuse")
    assert refused.value.problems == ("edge.toml: one", "edge.toml: two")
    with pytest.raises(EdgeosError, match='found the verb "eco"; allowed: echo, refuse; did you mean "echo"'):
        client.ask("eco")
    assert client.ask("echo") == {}


@pytest.mark.parametrize("line", [b"", b"nonsense", b"[1]", b'{"verb": 3}', b"\xff\x00", b"[" * 100_000])
def test_what_is_no_request_is_answered_and_harms_nobody(tmp_path: Path, line: bytes) -> None:
    with serving(tmp_path / "s", {"echo": echo}), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / "s"))
        raw.sendall(line + b"\n" + b'{"verb": "echo"}\n')
        answers = raw.makefile("rb")
        assert "found no request" in json.loads(answers.readline())["error"]
        assert json.loads(answers.readline()) == {"ok": True, "result": {}}


def test_a_request_without_end_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "s", {"echo": echo}), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / "s"))
        raw.sendall(b"x" * (REQUEST_BYTES_MAX + 1))
        assert b"found a longer request" in raw.makefile("rb").readline()
        with ControlClient(tmp_path / "s") as other:
            assert other.ask("echo") == {}


def test_too_many_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "CONNECTIONS_MAX", 2)
    path = tmp_path / "s"
    with serving(path, {"echo": echo}), ControlClient(path) as one, ControlClient(path) as two:
        assert one.ask("echo") == two.ask("echo") == {}
        with ControlClient(path) as third, pytest.raises(EdgeosError):
            third.ask("echo")
        assert one.ask("echo") == {}


def test_an_answer_can_carry_open_files(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    async def give(request: Request) -> Descriptors:
        return Descriptors({"names": ["pipe"]}, [writer])

    with serving(tmp_path / "s", {"give": give}), ControlClient(tmp_path / "s") as client:
        result, files = client.ask_for_files("give")
    assert result == {"names": ["pipe"]}
    os.close(writer)
    os.write(files[0], b"through")
    os.close(files[0])
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_arguments_are_checked() -> None:
    request = Request("read_handler", {"name": 3, "worker": -1})
    with pytest.raises(EdgeosError, match=r"read_handler\.name: found 3; allowed: a text"):
        request.text("name")
    with pytest.raises(EdgeosError, match=r"read_handler\.chain: found nothing; allowed: a text"):
        request.text("chain")
    with pytest.raises(EdgeosError, match=r"read_handler\.worker: found -1"):
        request.number("worker")
    assert request.optional_text("client") is None


def test_a_folder_has_one_owner_and_is_his_alone(tmp_path: Path) -> None:
    manifest = tmp_path / "edge.toml"
    with open_run_directory(manifest, tmp_path / "run") as folder:
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        with pytest.raises(InUseError, match="another process runs this manifest"):
            open_run_directory(manifest, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with open_run_directory(manifest, tmp_path / "run"):
        pass


def test_where_no_folder_can_be_made_the_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeosError, match=r"found no folder for the control socket .*file/run.*--run-dir"):
        open_run_directory(tmp_path / "edge.toml", tmp_path / "file" / "run")


def test_each_manifest_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, other = (run_directories(Path(name)) for name in ("a/edge.toml", "b/edge.toml"))
    assert one[0].parent == tmp_path / "edgeos"
    assert not set(one) & set(other)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/from-systemd")
    assert run_directories(Path("edge.toml")) == [Path("/run/from-systemd")]


def test_the_folder_from_systemd_is_a_link_for_dynamic_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "private").mkdir()
    link = tmp_path / "edgeos"
    link.symlink_to(tmp_path / "private")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(link))
    with open_run_directory(Path("edge.toml")) as folder:
        assert folder.path == tmp_path / "private"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EdgeosError, match=r"no node runs this manifest; start it with `edgeos up`"):
        connect(tmp_path / "edge.toml", tmp_path)


@contextmanager
def running_node() -> Iterator[edgeos.Node]:
    with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, edgeos.Node() as node:
        node.add_port(lan)
        node.add_port(wan)
        node.add_template(edgeos.TemplateSettings(name="guest", source=GUESTS / "handles.c"))
        node.add_chain(edgeos.ChainSettings(name="edge", path=("lan", "guest", "wan")))
        node.add_rule("ip", chain="edge")
        lan.inject(testing.udp_packet("10.0.0.1", "192.0.2.1", b"a question", dport=53))
        node.start()
        yield node


def eventually_received(client: ControlClient) -> dict[str, Any]:
    for _ in range(3000):
        found: dict[str, Any] = client.ask("statistics", guest_counters=False)
        if found["sent"]:
            return found
        threading.Event().wait(0.01)
    raise AssertionError("nothing was sent")


def test_a_node_answers_for_itself(tmp_path: Path) -> None:
    manifest = tmp_path / "edge.toml"
    deep = tmp_path / ("x" * 120)  # longer than an address of a Unix socket
    with running_node() as node, served(node, manifest, deep), connect(manifest, deep) as client:
        assert stat.S_IMODE((deep / "control.sock").stat().st_mode) == 0o600
        assert client.ask("status")["state"] == "running"
        assert eventually_received(client)["balance"] == 0
        where = {"chain": "edge", "stage": "guest"}
        assert client.ask("write_handler", **where, client="10.0.0.1", name="limit", value="7")[0]["problem"] == ""
        assert client.ask("write_handler", **where, name="limit", value="x")[0]["problem"] == "only digits"
        answers = client.ask("read_handler", **where, client=None, name="limit")
        assert answers == [{"client": "10.0.0.1", "value": "7", "problem": ""}]
        odd = b"\xff\x00z".decode("utf-8", "surrogateescape")
        written = client.ask("write_handler", **where, client="10.0.0.1", name="echo", value=odd)
        assert handler_answers(written)[0].value == b"z\x00\xff"
        with pytest.raises(EdgeosError, match='there is no chain or stage "edgy"'):
            client.ask("read_handler", chain="edgy", stage="guest", name="text")
        with pytest.raises(EdgeosError, match="the guest has no handler"):
            client.ask("read_handler", **where, name="nothing")
    assert not deep.exists()


def test_status_of_the_command_line(tmp_path: Path) -> None:
    with running_node() as node, served(node, tmp_path / "edge.toml", tmp_path / "run"):
        command = [sys.executable, "-m", "edgeos", "status", "edge.toml", "--run-dir", str(tmp_path / "run")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"running, process {os.getpid()}" in done.stdout
