"""`edgeos bench memcached` with a few clients for moments: it says everything; never the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from memcached_harness import PROGRAM

from edgeos.bench import memcached
from edgeos.bench.memcached_subjects import FWPS, PROCESSES, SHARED
from edgeos.bench.plot import save

TINY = memcached.Plan(
    sizes={1: (100,), 4: (10, 100)},
    repetitions=1,
    offered_repetitions=1,
    warm_up_ms=50,
    milliseconds=200,
    offered_ms=300,
    parked=20,
)


def test_a_tiny_run_says_all(tmp_path: Path) -> None:
    result = memcached.run(plan=TINY)
    found = result.as_dict()
    subjects = {FWPS, PROCESSES, SHARED} if PROGRAM else {FWPS}
    closed = {
        (row["subject"], row["clients"], row["mix"], row["bytes"])
        for row in found["results"]["loads"]
        if not row["offered"]
    }
    assert closed == {
        (subject, clients, mix, size)
        for subject in subjects
        for clients, sizes in TINY.sizes.items()
        for size in sizes
        for mix in memcached.MIXES
    }
    for row in found["results"]["loads"]:
        assert list(row["times_ns"]) == sorted(row["times_ns"])
        assert 0 < row["p50_ns"] <= row["p99_ns"] <= row["p999_ns"]
    for subject in subjects:
        assert sum(row["requests_per_second"] for row in found["results"]["loads"] if row["subject"] == subject) > 0
    offered = [(row["subject"], row["clients"]) for row in found["results"]["loads"] if row["offered"]]
    assert set(offered) == {(subject, clients) for subject in subjects for clients in TINY.sizes}
    for row in found["results"]["memory"]:
        assert row["rss"] > 0
    assert found["results"]["null_responder"]["requests_per_second"] > 0
    parked = found["results"]["parked"]
    assert parked["clients"] == 20
    assert 500 < parked["bytes_per_client"] < 4096
    assert parked["clients_in_100_mib"] == int(100 * 2**20 / parked["bytes_per_client"])
    for what in ("park", "resume", "recycle", "create", "new_answer", "returned_answer"):
        assert 0 < parked[f"{what}_p50_ns"] <= parked[f"{what}_p99_ns"]
    assert set(found["ratios"].values()) == {None}  # they are of 1,000 clients
    assert (PROGRAM is None) == any("memcached" in what for what in found["not_measured"])
    save(result, tmp_path / "memcached.svg")


def test_a_run_that_takes_too_long_says_what_it_left_out() -> None:
    hurried = replace(TINY, sizes={1: (100,), 2: (100,)}, repetitions=3, seconds=0.0)
    found = memcached.run(plan=hurried).as_dict()
    assert {row["clients"] for row in found["results"]["loads"]} == {2}
    assert any(what.startswith("throughput and latency of 1 clients") for what in found["not_measured"])
