"""Pools follow arrivals, by a clock that the test sets: `made_on_path` counts the clients that waited for an FWP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from node_harness import Rig, client_packet, guest, line

from edgeos import StageStatistics, testing

WINDOW_S = 0.01


@contextmanager
def node_of(*, ready_max: int = 1024, max_fwps: int = 2000, **more: int) -> Iterator[tuple[Rig, testing.FakeClock]]:
    tally = guest("tally", ready_low=2, ready_high=4, ready_max=ready_max, **more)
    with line(tally, max_fwps=max_fwps, idle_timeout_ns=3600 * 10**9) as node:
        clock = testing.FakeClock(node.node)
        node.settle()
        yield node, clock


def stage(node: Rig) -> StageStatistics:
    return node.check().chain("edge").stages[0]


def arrive(node: Rig, clock: testing.FakeClock, first: int, count: int) -> int:
    """New clients within one window; how many of them had to wait for an FWP."""
    before = stage(node).made_on_path
    for start in range(first, first + count, 32):
        node.inject("lan", *(client_packet(c) for c in range(start, min(start + 32, first + count))))
        while node.node.run_once():
            pass
    clock.advance(WINDOW_S)
    node.settle()
    return stage(node).made_on_path - before


def test_the_second_burst_finds_ready_fwps() -> None:
    with node_of() as (node, clock):
        assert arrive(node, clock, 1, 100) > 0
        assert stage(node).ready_wanted >= 190
        assert stage(node).ready >= 95
        assert arrive(node, clock, 200, 95) == 0


def test_what_was_kept_ready_is_given_up_slowly() -> None:
    with node_of() as (node, clock):
        arrive(node, clock, 1, 100)
        high = stage(node).ready
        clock.advance(1)
        node.settle()
        assert 100 < stage(node).ready < high
        assert arrive(node, clock, 200, 100) == 0, "a burst a second later finds them"
        clock.advance(3600)
        node.settle()
        assert stage(node).ready == stage(node).ready_wanted == 4


def test_a_steady_rate_is_followed_up_and_down() -> None:
    with node_of() as (node, clock):
        waited = sum(arrive(node, clock, 1 + 20 * turn, 20) for turn in range(20))
        assert waited <= 20, "only the first ones wait"
        wanted = stage(node).ready_wanted
        assert 35 <= wanted <= 40
        for turn in range(500):
            arrive(node, clock, 1000 + turn, 1)
        assert stage(node).ready_wanted < wanted / 2


def test_the_manifest_bounds_it() -> None:
    with node_of(ready_max=10) as (node, clock):
        arrive(node, clock, 1, 200)
        assert (stage(node).ready_wanted, stage(node).ready) == (10, 10)


def test_a_pool_takes_no_places_that_its_chains_cannot_fill() -> None:
    with node_of(max_fwps=40) as (node, clock):
        arrive(node, clock, 1, 30)
        assert stage(node).ready <= 40 + 4 - 30
        arrive(node, clock, 31, 10)
        assert stage(node).ready == 4
        assert node.check().dropped == {}
        assert stage(node).exhausted == 0
