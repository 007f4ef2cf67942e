"""`edgeos bench click`: what it runs does the work that it claims, in FWPs and in native Click."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeos.bench import click, click_native
from edgeos.bench.click_cases import CASES, Case
from edgeos.bench.click_native import NativeClick, find_click
from edgeos.bench.click_runs import measure
from edgeos.cli import app
from edgeos.errors import EdgeosError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("isolate", ["shared", "client"])
def test_each_case_does_its_work(case: Case, isolate: str) -> None:
    run = measure(case, isolate, 5, 0.02)  # type: ignore[arg-type]  # it raises when other frames left than must
    assert run.ns_per_packet > 0


def test_traffic_of_many_clients_comes_in_turns() -> None:
    case = CASES[0]
    sources = [frame[26:30] for frame in case.traffic(7)]
    assert len(set(sources)) == len(sources) == 7
    assert len({frame[26:30] for frame in case.traffic(1)}) == 1


def fake(folder: Path, script: str) -> Path:
    """A program that plays native Click."""
    program = folder / "click"
    program.write_text(f'#!/bin/sh\ncase "$1" in --version) echo "click (Click) 9.9"; exit 0;; esac\n{script}\n')
    program.chmod(0o755)
    return program


def test_native_click_gets_the_configuration_with_other_ends(tmp_path: Path) -> None:
    program = fake(tmp_path, f'cp "$1" {tmp_path}/script; echo "$2 $3" > {tmp_path}/arguments; echo 0.001 1024 1024')
    case = next(case for case in CASES if case.name == "router")
    with NativeClick(program) as native:
        run = native.run(case, case.traffic(1), 1024)
    assert (run.frames, run.left, run.elapsed_ns) == (1024, 1024, 1e6)
    script = (tmp_path / "script").read_text()
    assert "Device" not in script
    assert "to_lan :: BenchEnd" in script
    assert "write wan/arp.insert 10.2.0.2 02:00:00:00:00:22" in script
    assert "LAN=10.1.0.1/16" in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo", "found no figures"),
        ("echo 0.001 0 0", "0 of 1024 packets went in"),
        ("echo 0 1024 1024", "1024 of 1024"),
        ("echo it burns >&2; exit 1", "it burns"),
    ],
)
def test_a_native_run_that_moved_nothing_is_an_error(tmp_path: Path, script: str, error: str) -> None:
    with NativeClick(fake(tmp_path, script)) as native, pytest.raises(EdgeosError, match=error):
        native.run(CASES[0], CASES[0].traffic(1), 1024)


def test_a_native_run_that_dropped_packets_is_an_error(tmp_path: Path) -> None:
    plan = click.Plan(repetitions=1, seconds=0.01, clients=(1,), frames=64)
    with NativeClick(fake(tmp_path, "echo 0.001 64 10")) as native, pytest.raises(EdgeosError, match="10 of 64 left"):
        click._native(native, CASES[0], plan)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgeosError, match="found no program"):
        find_click(tmp_path / "click")


def test_a_run_says_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "CASES", CASES[:1])
    monkeypatch.setattr(click, "QUICK", click.Plan(repetitions=1, seconds=0.02, clients=(1, 10), frames=64))
    program = fake(tmp_path, "echo 0.001 64 64")
    result = CliRunner().invoke(
        app,
        ["bench", "click", "--quick", "--click", str(program), "--json", "-", "--plot", str(tmp_path / "plot.svg")],
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (row,) = found["results"]["configurations"]
    assert set(row["fwp_per_client"]) == {"1", "10"}
    assert row["module_bytes"] > 1000
    assert row["bytes_per_client"] is None
    assert any("memory a client" in what for what in found["not_measured"])
    assert row["build_seconds"] > 0
    assert row["native"]["ns_per_packet"] == pytest.approx(15625)
    assert found["ratios"]["vs_click.bridge"] > 0
    assert (tmp_path / "plot.svg").stat().st_size > 0
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(click_native.shutil, "which", lambda name: None)
    without = CliRunner().invoke(app, ["bench", "click", "--quick", "--json", "-"])
    assert json.loads(without.stdout)["ratios"] == {"vs_click.bridge": None}
