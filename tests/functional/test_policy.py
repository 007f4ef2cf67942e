"""The function that a manifest names for clients which no rule matches: checked, loaded, asked, reloaded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from service_harness import LIMIT_SECONDS, SOURCE, Service, eventually, free_port, service

from edgeos import ManifestError, Node, load_manifest
from edgeos.manifest import find_warnings

EXAMPLES = Path(__file__).parents[2] / "examples"

MANIFEST = """
[port.web]
kind = "tcp"
listen = "127.0.0.1:{port}"
[template.echo]
source = "{source}"
[chain.members]
path = ["web", "echo"]
[chain.guests]
path = ["web", "echo"]
[[rule]]
match = "src 127.0.0.2"
chain = "members"
[unmatched]
callback = "policy.py:decide"
deadline = "1h"
"""
GUESTS = "def decide(client):\n    return 'guests'\n"
NOBODY = "from edgeos import Answer\n\ndef decide(client):\n    return Answer()\n"


def write(folder: Path, policy: str | bytes | None = GUESTS, old: str = "", new: str = "") -> Path:
    """The manifest, with `old` replaced, and the policy beside it."""
    manifest = folder / "edge.toml"
    assert old in MANIFEST
    manifest.write_text(MANIFEST.format(port=free_port(), source=SOURCE).replace(old, new))
    if policy is not None:
        (folder / "policy.py").write_bytes(policy.encode() if isinstance(policy, str) else policy)
    return manifest


def is_served(port: int, address: str = "127.0.0.1") -> bool:
    """True if the client of this address gets its bytes back, False if it is turned away."""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS, (address, 0)) as s:
        s.sendall(b"x")
        return s.recv(1) == b"x"
    return False


CALLBACK = 'callback = "policy.py:decide"'


@pytest.mark.parametrize(
    ("policy", "old", "new", "problem"),
    [
        (None, "", "", 'unmatched.callback: found "policy.py", which does not exist; allowed: "FILE.py:FUNCTION", a'),
        (GUESTS, "policy.py:", "polcy.py:", 'found "polcy.py", which does not exist; allowed: "FILE.py:FUNCTION", a'),
        (GUESTS, "policy.py:", "polcy.py:", 'did you mean "policy.py"?'),
        (
            GUESTS,
            ":decide",
            ":decidee",
            'found "decidee", which "policy.py" does not define or import by name; allowed: d',
        ),
        (GUESTS, ":decide", ":decidee", 'did you mean "decide"?'),
        ("", "", "", "allowed: a function, but there is none"),
        (GUESTS, ":decide", "", 'found "policy.py"; allowed: "FILE.py:FUNCTION"'),
        (GUESTS, CALLBACK, "callback = 3", 'found 3; allowed: "FILE.py:FUNCTION"'),
        (GUESTS, CALLBACK, "", "unmatched.callback: found nothing; allowed"),
        ("x = 1\ndef decide(:\n", "", "", 'found "policy.py", which is no Python: line 2: '),
        ("def decide(c):\n  pass\nreturn 1\n", "", "", 'found "policy.py", which is no Python: line 3: '),
        (b"\xff\xfe\n", "", "", 'found "policy.py", which is no text'),
        (b"# coding: no-such\n", "", "", 'found "policy.py", which is no text'),
        ("x = 1\0\n", "", "", 'found "policy.py", which is no Python: '),
        ("(" * 5000, "", "", 'found "policy.py", which is no Python: '),
        ("#" * (2**20 + 1), "", "", 'found "policy.py", a larger file'),
        (GUESTS, '"1h"', '"2h"', 'unmatched.deadline: found "2h"; allowed: 1ms to 1h'),
        (GUESTS, 'deadline = "1h"', 'default = "guest"', 'unmatched.default: found "guest"; allowed: members, guests'),
        (GUESTS, "deadline", "dedline", 'unmatched.dedline: found "dedline"'),
    ],
)
def test_what_is_wrong_is_said_without_running_it(
    tmp_path: Path, policy: str | bytes | None, old: str, new: str, problem: str
) -> None:
    manifest = write(tmp_path, policy, old, new)
    with pytest.raises(ManifestError) as found:
        load_manifest(manifest)
    (line,) = found.value.problems
    assert line.startswith(f"{manifest}: unmatched.")
    assert problem in line


def test_check_ends_without_a_traceback(tmp_path: Path) -> None:
    write(tmp_path, "def decide(:\n")
    command = [sys.executable, "-m", "edgeos", "check", "edge.toml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith('edge.toml: unmatched.callback: found "policy.py", which is no Python: line 1: ')
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("policy", ["import random as decide\n", "decide = print\n", "class decide: pass\n", GUESTS])
def test_any_way_to_define_it_will_do(tmp_path: Path, policy: str) -> None:
    manifest = load_manifest(write(tmp_path, policy))
    assert manifest.unmatched is not None
    assert find_warnings(manifest) == [], "answers may name any chain"


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("import no_such_module\ndecide = print\n", "ModuleNotFoundError: No module named 'no_such_module' in line 1"),
        ("def decide(c): pass\n\n1 / 0\n", "ZeroDivisionError: division by zero in line 3"),
        ("decide = 1\nraise SystemExit(3)\n", "SystemExit: 3 in line 2"),
        ("decide = 7\n", 'found "decide", which is 7; allowed: a function'),
    ],
)
def test_a_file_that_does_not_load_keeps_the_node_from_starting(tmp_path: Path, policy: str, problem: str) -> None:
    manifest = write(tmp_path, policy)
    with Node.from_manifest(load_manifest(manifest)) as node, pytest.raises(ManifestError) as found:
        node.start()
    (line,) = found.value.problems
    assert line.startswith(f"{manifest}: unmatched.callback: found ")
    assert problem in line


def test_records_of_the_file_know_their_module(tmp_path: Path) -> None:
    lines = ("from __future__ import annotations", "import dataclasses", "import typing", "@dataclasses.dataclass")
    policy = "\n".join((*lines, "class A:", "    x: typing.ClassVar[int] = 1", GUESTS))
    with Node.from_manifest(load_manifest(write(tmp_path, policy))) as node:
        node.prepare()


def test_over_files(tmp_path: Path) -> None:
    (tmp_path / "first-steps.pcap").write_bytes((EXAMPLES / "first-steps.pcap").read_bytes())
    (tmp_path / "policy.py").write_text(GUESTS)
    chain = '[chain.guests]\npath = ["lan", "monitor", "wan"]'
    manifest = (EXAMPLES / "tenants.toml").read_text().partition("[chain.edge]")[0]
    unmatched = '[unmatched]\ncallback = "policy.py:decide"\ndeadline = "1h"\n'
    (tmp_path / "edge.toml").write_text(f"{manifest}\n{chain}\n{unmatched}")
    command = [sys.executable, "-m", "edgeos", "up", "edge.toml", "--json", "result.json"]
    subprocess.run(command, cwd=tmp_path, timeout=LIMIT_SECONDS, check=True)
    statistics = json.loads((tmp_path / "result.json").read_text())
    assert statistics["balance"] == 0
    unmatched_clients = statistics["unmatched"]
    assert unmatched_clients["answered"] == unmatched_clients["asked"] == statistics["chains"][0]["activations"] > 1
    assert set(statistics["dropped"]) <= {"undecided"}


def test_the_example_runs_as_it_is() -> None:
    manifest = load_manifest(EXAMPLES / "unmatched.toml")
    number = free_port()
    ports = (replace(manifest.ports[0], listen=f"127.0.0.1:{number}"),)
    assert manifest.unmatched is not None
    patient = replace(manifest.unmatched, deadline_ns=3600 * 10**9)
    with Node.from_manifest(replace(manifest, ports=ports, unmatched=patient)) as node:
        node.start()
        assert [is_served(number, f"127.0.0.{last}") for last in (1, 2, 3)] == [True, True, False]
        statistics = node.stop()
    assert statistics.balance == 0
    assert [chain.activations for chain in statistics.chains] == [1, 1]
    assert (statistics.unmatched.asked, statistics.unmatched.answered) == (2, 2)


def port_of(node: Service) -> int:
    return int(node.manifest.read_text().partition("127.0.0.1:")[2].partition('"')[0])


def test_workers_ask_it_and_a_reload_takes_another_or_leaves_all_as_it_was(tmp_path: Path) -> None:
    write(tmp_path)
    policy = tmp_path / "policy.py"
    with service(tmp_path, (tmp_path / "edge.toml").read_text()) as node:
        node.running()
        port = port_of(node)
        worker = node.process_of(0)
        assert is_served(port)
        policy.unlink()
        with pytest.raises(ManifestError, match="does not exist"):
            node.ask("reload")
        for client, broken, says in ((7, "def decide(:\n", "no Python"), (8, "decide = 1 / 0\n", "ZeroDivisionError")):
            policy.write_text(broken)
            with pytest.raises(ManifestError, match=says):
                node.ask("reload")
            assert is_served(port, f"127.0.0.{client}"), "by the one that was there"
        node.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "nothing was changed" in node.log), node.log
        policy.write_text(NOBODY)
        node.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "reloaded" in node.log), node.log
        assert not is_served(port, "127.0.0.5")
        assert is_served(port, "127.0.0.2"), "who has a rule does not notice"
        assert node.process_of(0) == worker
        # A worker that starts now asks the file as it was taken, whatever it holds by now.
        policy.write_text(GUESTS)
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: node.workers()[0]["state"] == "running" and node.workers()[0]["restarts"] == 1)
        assert not is_served(port, "127.0.0.6")
        node.manifest.write_text(node.manifest.read_text().partition("[unmatched]")[0])
        with pytest.raises(Exception, match=r"unmatched.* restart it"):
            node.ask("reload")
        node.end()


def test_another_function_is_asked_anew_and_a_hung_one_holds_up_nobody(tmp_path: Path) -> None:
    free = tmp_path / "free"
    hung = f"import pathlib, time\n\ndef decide(client):\n    while not pathlib.Path({str(free)!r}).exists():\n"
    hung += "        time.sleep(0.01)\n"
    manifest = write(tmp_path, hung, '"1h"', '"10ms"')
    port = int(manifest.read_text().partition("127.0.0.1:")[2].partition('"')[0])
    with Node.from_manifest(load_manifest(manifest)) as node:
        node.start()
        assert not is_served(port), "by default"
        (tmp_path / "policy.py").write_text(GUESTS)
        manifest.write_text(manifest.read_text().replace('"10ms"', '"1h"'))
        node.reconfigure(load_manifest(manifest))
        assert is_served(port), "what was decided by the last one does not hold"
        assert is_served(port, "127.0.0.9")
        free.touch()
        assert eventually(lambda: node.statistics().unmatched.late == 1)
        assert node.stop().balance == 0
