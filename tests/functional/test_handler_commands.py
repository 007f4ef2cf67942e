"""`edgeos read` and `edgeos write` against a running node, a Click configuration among its stages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_harness import Rig, client_packet, guest, line
from typer.testing import CliRunner, Result

from edgeos import TemplateSettings
from edgeos.cli import app
from edgeos.service import run_directory
from edgeos.service.local import served

CONFIGURATION = """
FromDevice(0) -> seen :: Counter -> gate :: Switch -> ToDevice(1);
gate[1] -> shut :: Counter -> Discard;
FromDevice(1) -> Print(MAXLENGTH 4) -> ToDevice(0);
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(run_directory, "_bases", lambda: [tmp_path / "run"])  # other nodes may run on this machine
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    Path("gate.click").write_text(CONFIGURATION)
    click = TemplateSettings(name="gate", click=Path("gate.click"), ready_low=1, ready_high=4)
    with line(click, guest("handles")) as rig:
        rig.inject("lan", client_packet(1), client_packet(1), client_packet(2))
        rig.node.start()
        while rig.node.statistics(guest_counters=False).sent < 3:
            rig.node.wait(0.01)
        with served(rig.node, Path("edge.toml"), None):
            yield rig


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_a_value_of_one_client(node: Rig) -> None:
    result = run("read", "edge/gate@10.0.0.1", "seen.count")
    assert (result.exit_code, result.stdout) == (0, "2\n")


def test_values_of_all_clients_and_their_sum(node: Rig) -> None:
    result = run("read", "edge/gate", "seen.count", "--manifest", "edge.toml")
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == ["10.0.0.1  2", "10.0.0.2  1", "sum  3"]
    found = json.loads(run("read", "edge/gate", "seen.count", "--json").stdout)
    assert found["sum"] == 3
    assert {client["client"]: client["value"] for client in found["clients"]} == {"10.0.0.1": "2", "10.0.0.2": "1"}


def test_a_guests_counters_are_read_too(node: Rig) -> None:
    assert run("read", "edge/handles@10.0.0.2", "seen").stdout == "1\n"


def test_a_value_is_written_for_one_client_or_for_all(node: Rig) -> None:
    assert run("write", "edge/gate@10.0.0.1", "gate.switch", "1").exit_code == 0
    assert sorted(run("read", "edge/gate", "gate.switch").stdout.splitlines()) == [
        "10.0.0.1  1",
        "10.0.0.2  0",
        "sum  1",
    ]
    assert run("write", "edge/gate", "gate.switch", "--", "-1").exit_code == 0
    assert run("read", "edge/gate@10.0.0.2", "gate.switch").stdout == "-1\n"
    assert run("write", "edge/gate", "seen.reset").exit_code == 0
    assert run("read", "edge/gate@10.0.0.1", "seen.count").stdout == "0\n"


def test_what_a_guest_refuses_is_said_and_fails(node: Rig) -> None:
    result = run("write", "edge/gate", "gate.switch", "7")
    assert result.exit_code == 1
    assert sorted(result.stderr.splitlines()) == [
        "10.0.0.1: the guest does not take this value",
        "10.0.0.2: the guest does not take this value",
    ]
    assert "can only be read" in run("write", "edge/gate@10.0.0.1", "seen.count", "1").stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["read", "edge/gate", "seen.cuont"], 'the guest has no handler "seen.cuont"'),
        (["read", "edge/gate@10.0.0.9", "seen.count"], "edge/gate@10.0.0.9: this client is not live"),
        (["read", "edge/gate@someone", "seen.count"], 'found the client "someone"; allowed: an IP or Ethernet address'),
        (["read", "edge/gates", "seen.count"], 'there is no chain or stage "gates"'),
        (["read", "edge", "seen.count"], 'found "edge"; allowed: CHAIN/STAGE[@CLIENT]'),
        (["read", "edge/gate@", "seen.count"], 'found "edge/gate@"; allowed'),
        (["read", "edge/gate", "seen.count", "-m", "other.toml"], "other.toml: no node runs this manifest"),
    ],
)
def test_errors_end_without_a_traceback(node: Rig, arguments: list[str], error: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert error in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
    assert "Traceback" not in result.output


def test_which_node_is_asked_where_none_or_several_run(node: Rig, tmp_path: Path) -> None:
    with served(node.node, Path("second.toml"), None):
        result = run("read", "edge/gate@10.0.0.1", "seen.count")
        assert result.exit_code == 1
        assert "2 nodes run (edge-" in result.stderr
        assert run("read", "edge/gate@10.0.0.1", "seen.count", "-m", "second.toml").stdout == "2\n"


def test_without_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    result = run("read", "edge/gate", "seen.count")
    assert result.exit_code == 1
    assert "no node runs" in result.stderr
