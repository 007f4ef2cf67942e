"""What `edgeos bench listen` makes of the loads that it has measured; never the figures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgeos.bench import listen
from edgeos.bench.listen import Case, Load
from edgeos.bench.listen_links import LOOPBACK, ONE_CORE, TAP, core_mask
from edgeos.bench.listen_subjects import BARE, LISTENER, PROCESSES, SUBJECTS, TCP_FWPS, UVLOOP
from edgeos.bench.programs import SOURCES

STRICT = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror")


def load_at(rate: float, busy: float = 0.5) -> Load:
    return Load(rate=rate, p50_ns=1, p99_ns=2, generator_busy=busy)


def test_the_promised_ratios_are_of_tcp_in_the_fwp_and_the_listeners_stand_beside_them():
    rates = {
        TAP: {TCP_FWPS: 600, LISTENER: 300, PROCESSES: 100, UVLOOP: 200, BARE: 400},
        ONE_CORE: {LISTENER: 120, PROCESSES: 60},
        LOOPBACK: {LISTENER: 50, PROCESSES: 100, UVLOOP: 40},
    }
    loads = {
        Case(link, subject, listen.COMPARED): [load_at(rate)]
        for link, of_link in rates.items()
        for subject, rate in of_link.items()
    }
    loads[Case(TAP, TCP_FWPS, 1)] = [load_at(7)]
    ratios = listen.ratios_of(loads)
    assert ratios["vs_process_per_connection_1000"] == 6
    assert ratios["vs_uvloop_1000"] == 3
    assert ratios["vs_bare_loop_1000"] == 1.5
    assert ratios["vs_listener_1000"] == 2
    assert ratios["vs_thread_per_connection_1000"] is None
    assert ratios["listener_vs_process_per_connection_1000"] == 3
    assert ratios["listener_vs_uvloop_1000"] == 1.5
    assert ratios["listener_vs_bare_loop_1000"] == 0.75
    assert ratios["bare_loop_vs_process_per_connection_1000"] == 4
    assert ratios["bare_loop_vs_uvloop_1000"] == 2
    assert ratios["listener_vs_process_per_connection_1000_one_core"] == 2
    assert ratios["listener_vs_process_per_connection_1000_loopback"] == 0.5
    assert ratios["listener_vs_uvloop_1000_loopback"] == 1.25
    assert ratios["listener_vs_uvloop_1000_one_core"] is None


def test_without_af_xdp_the_promised_ratios_are_not_measured():
    loads = {Case(TAP, subject, listen.COMPARED): [load_at(1)] for subject in SUBJECTS if subject != TCP_FWPS}
    ratios = listen.ratios_of(loads)
    assert {value for name, value in ratios.items() if name.startswith("vs_")} == {None}
    assert ratios["listener_vs_uvloop_1000"] == 1


def test_nothing_over_loopback_becomes_a_promised_ratio():
    loads = {Case(LOOPBACK, subject, listen.COMPARED): [load_at(1)] for subject in SUBJECTS}
    ratios = listen.ratios_of(loads)
    assert {name for name, value in ratios.items() if value is not None} == {
        name for name in ratios if name.endswith("_loopback")
    }


def test_a_ratio_is_the_median_of_the_repetitions_own_ratios():
    """Which a machine that is slower for a while moves less than medians of each side."""
    rates = {TCP_FWPS: (300, 100, 900), PROCESSES: (100, 25, 150)}
    loads = {Case(TAP, name, listen.COMPARED): [load_at(rate) for rate in of_name] for name, of_name in rates.items()}
    assert listen.ratios_of(loads)["vs_process_per_connection_1000"] == 4


def test_a_generator_at_its_limit_is_said_with_what_it_limited():
    loads = {Case(TAP, BARE, 1000): load_at(1, busy=0.96), Case(LOOPBACK, LISTENER, 5000): load_at(1, busy=0.94)}
    (note,) = listen.limits(loads)
    assert "bare loop with 1,000 connections over tap" in note
    assert "5,000" not in note
    assert listen.limits({Case(TAP, TCP_FWPS, 1): load_at(1)}) == ()


def test_what_clients_sent_again_is_said():
    lossy = Load(rate=1, p50_ns=1, p99_ns=2, generator_busy=0.5, repeated=7)
    (note,) = listen.repetitions({Case(TAP, TCP_FWPS, 5000): lossy, Case(TAP, LISTENER, 5000): load_at(1)})
    assert "TCP in the FWP with 5,000 connections over tap (7 times)" in note
    assert "listener" not in note
    assert listen.repetitions({Case(TAP, TCP_FWPS, 1): load_at(1)}) == ()


def test_the_generators_output_is_messages_elapsed_times_share_and_what_it_repeated():
    assert listen.load_of("1000 500000000 20000 30000 0.750\n") == Load(
        rate=2000, p50_ns=20000, p99_ns=30000, generator_busy=0.75
    )
    assert listen.load_of("1000 500000000 20000 30000 0.750\n3\n").repeated == 3


@pytest.mark.parametrize(
    ("cores", "mask"),
    [({0}, "00000001"), ({0, 2}, "00000005"), ({31}, "80000000"), ({33, 1}, "00000002,00000002"), (set(), "00000000")],
)
def test_cores_are_masked_in_words_of_32_bits(cores: set[int], mask: str):
    assert core_mask(cores) == mask


@pytest.mark.parametrize("program", ["echo_load", "remote_load", "echo_serve"])
def test_the_programs_compile_without_a_warning(program: str, tmp_path: Path):
    command = ["cc", *STRICT, "-o", str(tmp_path / program), str(SOURCES / f"{program}.c")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
