"""The command line and what it prints, with a node that only plays its part."""

from __future__ import annotations

import json
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner, Result

from edgeos import guest_build
from edgeos.cli import app
from edgeos.errors import GuestError, LimitError
from edgeos.report import LiveReport, live_table, summary
from edgeos.settings import Manifest
from edgeos.statistics import ParkingStatistics, TenantStatistics, UnmatchedStatistics

MANIFEST = """
[port.lan]
kind = "pcap"
read = "in.pcap"
[port.wan]
kind = "pcap"
write = "out.pcap"
[template.fw]
source = "mine.c"
[chain.edge]
path = ["lan", "fw", "wan"]
[[rule]]
match = "ip"
chain = "edge"
"""


# The shape of the records in edgeos.statistics, made by hand so that these tests need no native kernel.
@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str = "fw"
    handled: int = 1000
    ready: int = 8
    counters: dict[str, int] = field(default_factory=lambda: {"allowed": 900, "denied": 100})


@dataclass(frozen=True, kw_only=True)
class Chain:
    name: str = "edge"
    received: int = 1000
    emitted: int = 5
    sent: int = 901
    dropped: dict[str, int] = field(default_factory=lambda: {"verdict": 100, "full": 0})
    in_flight: int = 4
    consumed: int = 0
    activations: int = 12
    activation_p50_ns: float = 812.0
    activation_p99_ns: float = 2345.0
    live: int = 11
    peak: int = 12
    kills: dict[str, int] = field(default_factory=lambda: {"trap": 2})
    evicted: int = 3
    stages: tuple[Stage, ...] = (Stage(),)
    parking: ParkingStatistics = field(default_factory=ParkingStatistics)


@dataclass(frozen=True, kw_only=True)
class Port:
    name: str = "lan"
    kind: str = "pcap"
    received: int = 1007
    received_bytes: int = 64448
    sent: int = 901
    sent_bytes: int = 57664
    send_dropped: int = 0
    receive_overrun: int = 0
    mode: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    chains: tuple[Chain, ...] = (Chain(),)
    ports: tuple[Port, ...] = (Port(), Port(name="wan"))
    dropped: dict[str, int] = field(default_factory=lambda: {"no_rule": 7})
    received: int = 1007
    sent: int = 901
    in_flight: int = 4
    consumed: int = 0
    lost: int = 0
    elapsed_ns: int = 1_500_000_000
    tenants: tuple[TenantStatistics, ...] = ()
    unmatched: UnmatchedStatistics = field(default_factory=UnmatchedStatistics)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def node_of(**changes: Any) -> Any:
    return Node(**changes)


def rendered(part: RenderableType) -> str:
    console = Console(file=StringIO(), width=140)
    console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_summary() -> None:
    lines = words(rendered(summary(node_of())))
    assert ["edge", "1,000", "901", "100", "12", "812ns", "2.35us", "11", "12", "2", "3"] in lines
    assert ["node", "no_rule", "7"] in lines
    assert ["edge", "verdict", "100"] in lines
    assert ["edge", "trap", "2"] in lines
    assert ["edge", "fw", "1,000", "8", "allowed", "900", "denied", "100"] in lines
    assert ["lan", "pcap", "1,007", "64,448", "901", "57,664", "0", "0"] in lines
    balance = "received 1,007 + emitted 5 = sent 901 + dropped 107 + in flight 4, in 1.5s"
    assert " ".join(lines[-1]) == balance
    assert not any("full" in line for line in lines), "a reason that never happened is left out"


def test_summary_of_nothing() -> None:
    text = rendered(summary(node_of(chains=(), ports=(), dropped={}, received=0, sent=0, in_flight=0)))
    assert text.strip() == "received 0 + emitted 0 = sent 0 + dropped 0 + in flight 0, in 1.5s"


def test_clients_that_no_rule_matches() -> None:
    counted = UnmatchedStatistics(
        asked=5, answered=3, failed=1, defaulted=2, turned_away=4, problem="KeyError: 'x\x1b'"
    )
    text = rendered(summary(node_of(unmatched=counted)))
    assert ["clients", "5", "3", "1", "2", "0", "4"] in words(text)
    assert "unmatched.callback: KeyError: 'x\\x1b'" in text
    assert "no rule matches" not in rendered(summary(node_of()))


def test_clients_that_are_parked() -> None:
    parking = ParkingStatistics(
        parked=2000,
        resumed=990,
        clients=1003,
        bytes=1_331_000,
        dropped={"keep_memory": 7},
        refused={"connected": 2},
        resume_p99_ns=2600,
    )
    node = node_of(chains=(Chain(parking=parking),))
    for text in (rendered(summary(node)), rendered(live_table(node))):
        wanted = ["edge", "1,003", "1,331,000", "2,000", "990", "2.6us", "keep_memory", "7", "connected", "2"]
        assert wanted in words(text)
    assert "parked" not in rendered(summary(node_of()))


def test_no_times_without_activations() -> None:
    chain = Chain(activations=0, activation_p50_ns=0.0, activation_p99_ns=0.0)
    assert words(rendered(summary(node_of(chains=(chain,)))))[1][4:7] == ["0", "-", "-"]


def test_hostile_text_is_made_printable() -> None:
    stage = Stage(name="fw", counters={"\x1b[2J[red]x": 1})
    node = node_of(chains=(Chain(stages=(stage,)),), ports=(Port(problem="[bold]in.pcap\x1b: truncated"),))
    for text in (rendered(summary(node)), rendered(live_table(node))):
        assert "\x1b" not in text
        assert "[bold]in.pcap\\x1b: truncated" in text
    assert "\\x1b[2J[red]x 1" in rendered(summary(node))


def test_live_table_shows_rates() -> None:
    before = node_of(elapsed_ns=1_000_000_000, chains=(Chain(received=400),))
    lines = words(rendered(live_table(node_of(), before)))
    assert lines[0] == ["edgeos,", "1.5s"]
    assert next(line for line in lines if line[:1] == ["edge"])[:3] == ["edge", "1,200", "1,000"]


def test_live_report_on_a_terminal() -> None:
    console = Console(file=StringIO(), width=140, force_terminal=True)
    with LiveReport(console) as report:
        report(node_of())
    assert "812ns" in console.file.getvalue()  # type: ignore[attr-defined]


class PlayedNode:
    """Stands for edgeos.node.Node; `opening` is what its start does, `act` what happens while it is waited for."""

    opening: Callable[[], None] = staticmethod(lambda: None)
    act: Callable[[], bool] = staticmethod(lambda: True)
    calls: list[str]

    @classmethod
    def from_manifest(cls, manifest: Manifest, *, progress: Callable[[str], None] | None) -> Self:
        assert manifest.chains[0].name == "edge"
        cls.calls = ["made, quiet" if progress is None else "made"]
        return cls()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("closed")

    def start(self) -> None:
        self.calls.append("started")
        type(self).opening()

    def wait(self, timeout: float) -> bool:
        assert 0 <= timeout <= 1
        self.calls.append("waited")
        time.sleep(timeout / 10)
        return type(self).act()

    def statistics(self, *, guest_counters: bool) -> Node:
        raise AssertionError("no live table without a terminal")

    def stop(self) -> Node:
        self.calls.append("stopped")
        return Node()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edge.toml").write_text(MANIFEST)
    Path("in.pcap").touch()
    Path("mine.c").touch()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[PlayedNode]]:
    class Played(PlayedNode):
        pass

    module = types.ModuleType("edgeos.node")
    module.Node = Played  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edgeos.node", module)
    handler = signal.getsignal(signal.SIGTERM)
    yield Played
    signal.signal(signal.SIGTERM, handler)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="edgeos")


def raiser(error: BaseException) -> Any:
    def act() -> Any:
        raise error

    return staticmethod(act)


def test_check_of_a_good_manifest() -> None:
    result = run("check", "edge.toml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "edge.toml: ok, 2 ports, 1 template, 1 chain, 1 rule\n"


def test_check_of_a_bad_manifest() -> None:
    Path("edge.toml").write_text(MANIFEST.replace("path = ", "pth = ").replace('"ip"', '"ipp"'))
    result = run("check", "edge.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "chain.edge.pth",
        "rule #1.match",
        "chain.edge.path",
    ]


def test_check_warns() -> None:
    Path("edge.toml").write_text(MANIFEST + '[template.mon]\nsource = "mine.c"\n')
    result = run("check", "edge.toml")
    assert result.exit_code == 0
    assert result.stderr == "warning: edge.toml: template.mon: no chain uses it\n"


def test_check_without_a_manifest() -> None:
    assert run("check").exit_code == 2
    result = run("check", "no.toml")
    assert (result.exit_code, result.stderr) == (
        2,
        "no.toml: found no such file; allowed: a manifest in TOML\n",
    )


def test_keys() -> None:
    result = run("check", "--keys")
    assert result.exit_code == 0
    assert "[[rule]]" in result.stdout
    rows = words(result.stdout)
    assert ["[port.NAME]"] in rows
    assert ["max_fwps", "1", "to", "1000000", "1000"] in [row[:5] for row in rows]


def test_up_prints_the_summary(node: type[PlayedNode]) -> None:
    result = run("up", "edge.toml")
    assert result.exit_code == 0, result.output
    assert "received 1,007 + emitted 5 = sent 901" in result.stdout
    assert node.calls == ["made", "started", "waited", "stopped", "closed"]


def test_up_ends_when_its_time_is_over(node: type[PlayedNode]) -> None:
    node.act = staticmethod(lambda: False)
    assert run("up", "edge.toml", "--duration", "0.1", "--quiet").exit_code == 0
    assert node.calls[0] == "made, quiet"
    assert node.calls[-2:] == ["stopped", "closed"]
    assert node.calls.count("waited") > 1


def test_up_writes_json(node: type[PlayedNode]) -> None:
    assert run("up", "edge.toml", "--json", "result.json").exit_code == 0
    assert json.loads(Path("result.json").read_text()) == json.loads(json.dumps(node_of().as_dict()))


def test_up_json_on_stdout_is_nothing_but_json(node: type[PlayedNode]) -> None:
    result = run("up", "edge.toml", "--json", "-")
    assert json.loads(result.stdout)["received"] == 1007
    assert "received 1,007" in result.stderr


def test_up_refuses_a_json_file_before_it_runs(node: type[PlayedNode]) -> None:
    node.opening = raiser(AssertionError("the node was made"))
    result = run("up", "edge.toml", "--json", "no/where.json")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_up_checks_the_manifest(node: type[PlayedNode]) -> None:
    node.opening = raiser(AssertionError("the node was made"))
    Path("in.pcap").unlink()
    result = run("up", "edge.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith('edge.toml: port.lan.read: found "in.pcap", which does not exist')


def test_interrupted_while_running_ends_clean(node: type[PlayedNode]) -> None:
    node.act = raiser(KeyboardInterrupt())
    result = run("up", "edge.toml", "--json", "result.json")
    assert result.exit_code == 0
    assert "received 1,007 + " in result.stdout
    assert json.loads(Path("result.json").read_text())["received"] == 1007


def test_interrupted_before_it_runs(node: type[PlayedNode]) -> None:
    node.opening = raiser(KeyboardInterrupt())
    result = run("up", "edge.toml")
    assert (result.exit_code, result.stdout) == (130, "")
    assert node.calls == ["made", "started", "closed"]


def test_terminated_while_running_ends_clean(node: type[PlayedNode]) -> None:
    def terminate() -> bool:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on after SIGTERM")

    node.act = staticmethod(terminate)
    result = run("up", "edge.toml")
    assert result.exit_code == 0, result.output
    assert "received 1,007 + " in result.stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (LimitError("vm.max_map_count is too low"), "error: vm.max_map_count is too low\n"),
        (GuestError("init: \x1b[2J"), "error: init: \\x1b[2J\n"),
    ],
)
def test_errors_end_without_a_traceback(node: type[PlayedNode], error: Exception, line: str) -> None:
    node.opening = raiser(error)
    result = run("up", "edge.toml")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line)


def test_build(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def build(source: Path, output: Path, **options: Any) -> bytes:
        asked.update(source=source, output=output, **options)
        return b"\0asm"

    monkeypatch.setattr(guest_build, "build", build)
    result = run("build", "mine.c", "--slot-size", "9KiB", "--stack", "32768", "--slots", "128")
    assert result.exit_code == 0, result.output
    assert result.stdout == "mine.wasm: 4 bytes\n"
    assert asked.pop("progress")
    assert asked == {
        "source": Path("mine.c"),
        "output": Path("mine.wasm"),
        "stack": 32768,
        "slots": 128,
        "slot_size": 9216,
        "tcp": False,
    }
    assert run("build", "mine.c", "-o", "other.wasm").stdout == "other.wasm: 4 bytes\n"
    assert (asked["slots"], asked["slot_size"], asked["stack"]) == (None, None, None)
    assert run("build", "mine.c", "--tcp").exit_code == 0
    assert asked["tcp"] is True


def test_build_with_a_bad_size() -> None:
    result = run("build", "mine.c", "--stack", "32XB")
    assert result.exit_code == 2
    assert "--stack" in result.stderr


@pytest.mark.parametrize("command", ["", "up", "check", "build"])
def test_help_has_examples(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"edgeos {command or 'up'} " in result.stdout


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("edgeos")


def test_unknown_command() -> None:
    result = run("chek")
    assert result.exit_code == 2
    assert "check" in result.stderr
