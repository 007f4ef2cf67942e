"""The harness of the benchmarks: its arithmetic, its output, that a quick run says everything; never the figures."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeos.bench import churn as churn_bench
from edgeos.bench import density, listen_links, listen_subjects, output, ports, processes, scale_runs, startup, veth
from edgeos.bench.churn_runs import Churn, Crowd
from edgeos.bench.cli import bench_app
from edgeos.bench.listen import Case
from edgeos.bench.machine import this_machine
from edgeos.bench.memory import per_unit
from edgeos.bench.plot import save
from edgeos.bench.processes import Peer, samples_of, time_peer
from edgeos.bench.programs import Programs
from edgeos.bench.resident import Resident, resident
from edgeos.bench.result import Bar, Missing, Result, by_reason
from edgeos.bench.samples import Summary, percentile, ratio
from edgeos.errors import EdgeosError

NOBODY = 65534
QUICK_SECONDS_MAX = 120  # a quick run takes some ten; this only ends one that hangs


def test_percentile_is_a_measured_value_of_the_nearest_rank():
    samples = [50, 10, 40, 20, 30]
    assert [percentile(samples, p) for p in (0, 20, 21, 50, 99, 100)] == [10, 10, 20, 30, 50, 50]
    assert percentile([7], 99) == 7
    assert percentile(range(1, 101), 99) == 99


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1], -1), ([1], 101)])
def test_percentile_refuses_what_has_none(samples: list[float], percent: float):
    with pytest.raises(ValueError, match=r"no samples|no percentage"):
        percentile(samples, percent)


def test_summary_is_not_moved_by_one_outlier():
    summary = Summary.of([100.0] * 99 + [1e9])
    assert (summary.count, summary.p50_ns, summary.p99_ns, summary.max_ns) == (100, 100, 100, 1e9)


def test_ratio_of_what_was_not_measured_is_none():
    assert ratio(6, 3) == 2
    assert ratio(None, 3) is None
    assert ratio(6, None) is None
    assert ratio(6, 0) is None


def test_bars_are_met_in_their_own_direction():
    higher = Bar(name="x", value=15, bar=14.88, goal=25)
    assert (higher.met, higher.goal_met) == (True, False)
    lower = Bar(name="x", value=1.7, bar=1.6, better="lower")
    assert (lower.met, lower.goal_met) == (False, None)
    unknown = Bar(name="x", value=None, bar=1, goal=2)
    assert (unknown.met, unknown.goal_met) == (None, None)


def test_a_unit_of_memory_is_the_difference_over_the_units():
    before = Resident(rss=1_000, pss=500, page_tables=10)
    after = Resident(rss=3_000, pss=1_500, page_tables=110)
    assert per_unit(before, after, 10) == {"rss": 200, "pss": 100, "page_tables": 10, "total": 210}
    assert per_unit(Resident(rss=0, pss=None, page_tables=0), after, 10)["pss"] is None


def test_resident_memory_of_this_process_follows_what_it_touches():
    with mmap.mmap(-1, 32 << 20) as held:  # pages of its own: what is allocated may be there from earlier
        before = resident("self").rss
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert resident("self").rss - before > 30 << 20


def test_processes_are_timed_and_a_failing_one_is_named():
    with Programs() as programs:
        spawn, noop = programs.make("spawn"), programs.make("noop")
        for method in ("fork", "posix_spawn"):
            returned, ended = time_peer(spawn, Peer(name="no-op", method=method, command=(str(noop),), rounds=3))
            assert len(returned) == len(ended) == 3
            assert all(0 < r <= e for r, e in zip(returned, ended, strict=True))
        with pytest.raises(EdgeosError, match=r"wrong: .*status 1"):
            time_peer(spawn, Peer(name="wrong", method="fork", command=("/bin/false",), rounds=1))
    assert not programs.folder.exists()


def test_samples_are_two_columns():
    assert samples_of(["1 2", "3 4"]) == ([1, 3], [2, 4])


def test_runc_that_is_missing_is_a_reason_and_no_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes.shutil, "which", lambda *_, **__: None)
    with Programs() as programs, pytest.raises(EdgeosError, match="runc is not installed"):
        processes.runc_peer(Path("noop"), programs, quick=True)


def test_a_program_that_no_compiler_takes_is_named(monkeypatch: pytest.MonkeyPatch):
    with Programs() as programs:
        monkeypatch.setattr("edgeos.bench.programs._compilers", lambda: [("false", ["false"])])
        with pytest.raises(EdgeosError, match=r"noop\.c cannot be compiled"):
            programs.make("noop")


def test_plots_without_matplotlib_say_the_fix_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(output.util, "find_spec", lambda _: None)
    with pytest.raises(EdgeosError, match=r"pip install 'edgeos\[bench\]'"):
        output.Output(json_file=None, plot_file=tmp_path / "plot.png").check()


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_ends_before_the_run(option: str, tmp_path: Path):
    found = CliRunner(env={"COLUMNS": "300"}).invoke(bench_app, ["startup", option, str(tmp_path / "missing" / "file")])
    assert found.exit_code == 2
    assert "cannot be written" in found.output


def test_plot_of_an_unknown_format_is_an_error_with_the_file(tmp_path: Path):
    pytest.importorskip("matplotlib")
    figures = {"rss": 1, "pss": 1, "page_tables": 1, "total": 2048}
    fwp = {"idle": figures, "active": figures, "active_again": figures, "active_burst": figures}
    result = Result(
        benchmark="memory",
        quick=True,
        machine=this_machine(),
        results={
            "default_mode": "guard",
            "fwp": {"guard": fwp},
            "minimal_process": figures,
            "python_process": figures,
        },
        ratios={},
        bars=(),
    )
    save(result, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8").startswith("<?xml")
    with pytest.raises(EdgeosError, match=r"plot\.nonsense"):
        save(result, tmp_path / "plot.nonsense")


def test_what_was_not_measured_is_a_line_for_each_reason():
    def cases(kind: str, count: int, why: str) -> list[Missing]:
        return [Missing(kind, f"{kind} {number}", why) for number in range(count)]

    assert by_reason([]) == []
    assert by_reason([*cases("tap", 1, "no root"), *cases("veth", 1, "no veth"), *cases("afxdp", 1, "no root")]) == [
        "tap 0; afxdp 0: no root",
        "veth 0: no veth",
    ]
    assert by_reason([*cases("tap", 30, "no root"), *cases("afxdp", 24, "no root"), *cases("veth", 1, "no veth")]) == [
        "54 cases of tap, afxdp: no root",
        "veth 0: no veth",
    ]
    assert by_reason(cases("tap", 3, "no root")) == ["tap 0; tap 1; tap 2: no root"]


# ---- Quick runs ----


def quick_run(name: str, prefix: Sequence[str], home: Path) -> dict[str, Any]:
    command = [*prefix, sys.executable, "-m", "edgeos", "bench", name, "--quick", "--json", "-"]
    environment = {**os.environ, "TMPDIR": str(home)}
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=QUICK_SECONDS_MAX, check=False, env=environment, cwd=home
    )
    assert found.returncode == 0, found.stderr
    assert "Bars and goals" in found.stderr
    result: dict[str, Any] = json.loads(found.stdout)
    assert set(result) == {
        "benchmark", "quick", "machine", "results", "ratios", "bars", "notes", "not_measured",
    }  # fmt: skip
    assert result["benchmark"] == name
    assert result["quick"] is True
    assert {"cpu", "cores", "kernel", "load", "edgeos", "wasmtime", "python"} <= set(result["machine"])
    assert all(bar["met"] in (True, False) or bar["value"] is None for bar in result["bars"])
    assert all(value is None or value > 0 for value in result["ratios"].values())
    return result


def is_said(result: dict[str, Any], case: str, kind: str) -> bool:
    """Whether the case is among those not measured: by its name, or counted among others of its kind."""
    return any(case in what or (" cases of " in what and kind in what) for what in result["not_measured"])


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A place that every user can write to; pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture(params=["as we are", "without privileges"])
def prefix(request: pytest.FixtureRequest) -> list[str]:
    """How a command is run: as the user that we are, or as nobody, who may read files and nothing else."""
    if request.param == "as we are":
        return []
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root, with setpriv, can become another user")
    kept = "-all,+dac_override,+dac_read_search"  # the interpreter may lie where others cannot look
    return [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        f"--inh-caps={kept}",
        f"--ambient-caps={kept}",
    ]


def test_quick_startup_says_all(prefix: list[str], home: Path):
    found = quick_run("startup", prefix, home)
    assert set(found["ratios"]) >= set(startup.BARS)
    assert {bar["name"] for bar in found["bars"]} == set(startup.BARS)
    assert "fork+exec /bin/true" in found["results"]["processes"]
    for mode in startup.MODES:
        assert {"create", "first_call", "recycle", "activate", "activate_burst", "lifecycles_per_second"} == set(
            found["results"]["fwp"][mode]
        )
    has_runc = startup.RUNC in found["results"]["processes"]
    assert has_runc == (found["ratios"]["activate_vs_runc"] is not None)
    assert has_runc != any(startup.RUNC in what for what in found["not_measured"])


def test_quick_chain_says_all(prefix: list[str], home: Path):
    found = quick_run("chain", prefix, home)
    assert {"hop_vs_memcpy_64", "hop_vs_memcpy_1024", "chain6_vs_veth6_64"} <= set(found["ratios"])
    rows = found["results"]["chain"]
    assert {(row["length"], row["size"], row["mode"]) for row in rows} == {
        (length, size, mode) for length in (1, 6) for size in (64, 1024) for mode in ("inline", "dedicated")
    }
    assert all(row["mpps"] > 0 for row in (*rows, *found["results"]["one_fwp"], *found["results"]["memcpy"]))
    has_veth = bool(found["results"]["veth"])
    assert has_veth == (found["ratios"]["chain6_vs_veth6_64"] is not None)
    assert has_veth != any("veth" in what for what in found["not_measured"])


def test_quick_memory_says_all(prefix: list[str], home: Path):
    found = quick_run("memory", prefix, home)
    assert {"minimal_process_vs_active_client", "python_process_vs_active_client"} <= set(found["ratios"])
    for mode in ("guard", "compact"):
        figures = found["results"]["fwp"][mode]
        assert figures["idle"]["rss"] > 0
        assert figures["active_burst"]["rss"] > figures["active"]["rss"] / 2


def test_quick_listen_says_all(prefix: list[str], home: Path):
    found = quick_run("listen", prefix, home)
    assert {"vs_process_per_connection_1000", "vs_uvloop_1000"} == {bar["name"] for bar in found["bars"]}
    rows = found["results"]["loads"]
    cases = {(row["link"], row["subject"], row["connections"]) for row in rows}
    for link in (listen_links.TAP, listen_links.ONE_CORE, listen_links.LOOPBACK):
        own = (listen_subjects.TCP_FWPS,) if link == listen_links.TAP else ()
        for subject in (*own, listen_subjects.LISTENER, listen_subjects.THREADS, listen_subjects.BARE):
            case = Case(link, subject, 1000)  # not without root, and not where the system has no TAP or no AF_XDP
            lacking = f"clients elsewhere, over {link}: "
            said = is_said(found, str(case), subject) or any(what.startswith(lacking) for what in found["not_measured"])
            assert (case in cases) != said
    assert (listen_links.TAP, listen_subjects.TCP_FWPS, 1000) in cases or found["ratios"]["vs_uvloop_1000"] is None
    assert (listen_links.TAP, listen_subjects.LISTENER, 1000) in cases or found["ratios"][
        "listener_vs_uvloop_1000"
    ] is None
    assert (listen_links.LOOPBACK, listen_subjects.LISTENER, 1000) in cases
    assert all(row["messages_per_second"] > 0 and 0 < row["p50_ns"] <= row["p99_ns"] for row in rows)


def test_quick_density_says_all(prefix: list[str], home: Path):
    found = quick_run("density", prefix, home)
    rows = {row["clients"]: row for row in found["results"]["fwps"]}
    for clients, row in rows.items():
        assert row["answers"] >= 10 * clients
        assert 4096 < row["share"] < 1 << 20
    lacking = [what for what in found["not_measured"] if "clients:" in what]
    assert (15_000 in rows) != any("15,000" in what for what in lacking)
    assert rows or lacking


def test_quick_ports_says_all(prefix: list[str], home: Path):
    found = quick_run("ports", prefix, home)
    assert {"tap_vs_bridge", "afpacket_vs_bridge", "afxdp_vs_bridge"} == set(found["ratios"])
    rows = {(row["subject"], row["wait"], row["pause_us"]) for row in found["results"]["round_trips"]}
    assert all(0 < row["p50_ns"] <= row["p99_ns"] for row in found["results"]["round_trips"])
    for port in ports.PORTS:  # not without root, and not where the system lacks one
        for wait in ports.WAITS:
            measured = {(port, wait, pause) for pause in ports.PAUSES_US} <= rows
            assert measured != is_said(found, f"{port} {wait}", port)


def test_quick_scale_says_all(prefix: list[str], home: Path):
    found = quick_run("scale", prefix, home)
    assert {"per_client_vs_shared_2000", "per_client_vs_shared_2000_afpacket"} <= set(found["ratios"])
    rows = {(row["port"], row["subject"], row["clients"]): row for row in found["results"]["passages"]}
    assert 0 <= found["results"]["stalled_share"] < 1
    for clients in (1, 2000):
        for subject in scale_runs.SUBJECTS:
            assert rows["memory", subject.name, clients]["lost"] == 0
    for row in rows.values():
        assert 0 < row["p50_ns"] <= row["p99_ns"] <= row["p999_ns"]
        assert row["throughput"] > 0
    for port in ("afpacket", "afxdp"):  # not without root, and not where the system has no AF_XDP
        for subject in scale_runs.SUBJECTS:
            measured = (port, subject.name, 1) in rows
            assert measured != is_said(found, f"{port}, {subject.name}, 1 clients", port)


def test_quick_churn_says_all(prefix: list[str], home: Path):
    found = quick_run("churn", prefix, home)
    assert {"activate_vs_fork_exec", "new_clients_per_second_vs_fork_exec"} <= set(found["ratios"])
    assert {"fork+exec static no-op", "posix_spawn static no-op"} == set(found["results"]["processes"])
    for row in (*found["results"]["crowds"], *found["results"]["once"]):
        assert row["received"] >= row["activations"] > 0
        assert 0 < row["activation_p50_ns"] <= row["activation_p99_ns"]


def crowd_of(rate: int, messages: int = 1) -> Crowd:
    return Crowd(rate=rate, lifetime_ns=10_000_000, messages=messages, seconds=1)


def test_a_crowds_lives_end_when_they_should():
    crowd = Crowd(rate=1000, lifetime_ns=60_000_000, messages=4, seconds=1)
    assert (crowd.gap_ns, crowd.idle_timeout_ns, crowd.live) == (10_000_000, 30_000_000, 60)
    loop = [frame[26:30] for frame, _ in crowd.loop()]
    positions = [position for position, client in enumerate(loop) if client == bytes([10, 0, 0, 50])]
    assert [position // crowd.messages for position in positions] == [50, 60, 70, 80]
    assert len(set(loop)) > crowd.live_max


def test_a_crowd_begins_with_its_first_client_and_not_amid_lives():
    loop = Crowd(rate=1000, lifetime_ns=60_000_000, messages=4, seconds=1).loop()
    known = [len({frame for frame, _ in loop[:end]}) for end in range(4, 400, 4)]
    assert known == list(range(1, 100))


def test_figures_of_live_clients_are_medians_a_client():
    def held(pages: int) -> dict[str, int]:
        return {"rss": 4096 * pages, "pss": 4096 * pages, "page_tables": 0}

    def run(after: int, end: int) -> dict[str, Any]:
        times = {"idle_cpu": 0.001, "first_seconds": 1.0, "round_seconds": 0.5}
        return {"clients": 10, "answers": 50, "before": held(10), "after": held(after), "end": held(end), **times}

    figures = density.figures_of([run(50, 50), run(60, 61), run(1000, 2000)])
    assert figures["resident"] == figures["share"] == 4096 * 50 / 10
    assert figures["drift"] == 4096 / 10
    assert figures["idle_percent"] == 0.1


def test_what_a_port_adds_is_beyond_one_veth_pair_with_the_same_pause():
    def trip(p50_ns: float) -> ports.RoundTrip:
        return ports.RoundTrip(count=1, p50_ns=p50_ns, p99_ns=p50_ns, max_ns=p50_ns, unanswered=0)

    trips = {(ports.NOTHING, "", 0): trip(10), (ports.NOTHING, "", 1000): trip(30), ("tap", "spin", 1000): trip(50)}
    assert ports.added_ns(("tap", "spin", 1000), trips) == 20
    assert ports.added_ns((ports.NOTHING, "", 0), trips) == 0
    del trips[ports.NOTHING, "", 1000]
    assert ports.added_ns(("tap", "spin", 1000), trips) is None


def test_the_most_without_loss_is_below_the_first_loss():
    def churn(lost: int, kept_up: bool = True) -> Churn:
        figures = dict.fromkeys(Churn.__dataclass_fields__, 0)
        return Churn(**{**figures, "lost": lost, "kept_up": kept_up})

    runs = {crowd_of(3): churn(0), crowd_of(1): churn(0), crowd_of(2): churn(1)}
    assert churn_bench.most_without_loss(runs) == 1
    assert churn_bench.most_without_loss({crowd_of(1): churn(0, kept_up=False)}) is None


@pytest.mark.privileged
def test_messages_pass_the_bridged_namespaces():
    if os.geteuid() != 0:
        pytest.skip("needs root")
    pytest.importorskip("pyroute2")
    with Programs() as programs:
        send = programs.make("send")
        with veth.bridged_line(2) as line:
            assert line.time_messages(send, size=64, milliseconds=20) > 0
            with pytest.raises(EdgeosError, match="sending into veth failed"):
                line.time_messages(send, size=9, milliseconds=20)
