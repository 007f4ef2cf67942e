"""What guests may do where it is granted: timers, the clock, randomness; and consumed messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from node_harness import MILLISECOND_NS, Rig, client_packet, guest, line, rig

from edgeos import ChainSettings, Grants, NodeSettings

START_NS = 1_000 * 1_000_000_000
ALL = Grants(timer=True, clock=True, random=True)


@contextmanager
def granted(**settings: object) -> Iterator[Rig]:
    with line(guest("granted", grant=ALL), **settings) as made:
        made.node.set_fake_time(START_NS)
        yield made


def ask(client: int, letter: str, *numbers: int) -> bytes:
    return client_packet(client, letter.encode() + bytes(numbers) + bytes(64))


def after(rig: Rig, milliseconds: int) -> list[bytes]:
    rig.node.set_fake_time(START_NS + milliseconds * MILLISECOND_NS)
    rig.settle()
    return rig.take("wan")


def tokens(frames: list[bytes]) -> list[int]:
    return [int.from_bytes(frame[:8], "little") for frame in frames]


def counter(rig: Rig, name: str) -> int:
    return rig.node.statistics().chain("edge").stages[0].counters[name]


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_timers_run_out_in_time_and_once(mover: str) -> None:
    with granted(settings=NodeSettings(mover=mover)) as rig:  # type: ignore[arg-type]
        rig.pass_through("lan", ask(1, "t", 30, 3), ask(1, "t", 10, 1), ask(2, "t", 20, 2))
        assert after(rig, 9) == []
        assert tokens(after(rig, 10)) == [1]
        assert tokens(after(rig, 100)) == [2, 3]
        assert after(rig, 1000) == []
        chain = rig.check().chain("edge")
        assert (chain.consumed, chain.emitted) == (3, 6)


def test_a_token_set_again_moves_its_timer_and_never_ends_it() -> None:
    with granted() as rig:
        rig.pass_through("lan", ask(1, "t", 10, 1), ask(1, "t", 50, 1), ask(1, "t", 20, 2), ask(1, "x", 0, 2))
        assert after(rig, 40) == []
        assert tokens(after(rig, 50)) == [1]
        assert counter(rig, "refused") == 0


def test_an_fwp_has_64_timers_at_most() -> None:
    with granted() as rig:
        rig.pass_through("lan", ask(1, "f"))
        assert counter(rig, "refused") == 64
        rig.pass_through("lan", ask(2, "t", 1, 1))
        assert tokens(after(rig, 1)) == [1]


def test_timers_of_a_client_that_left_are_gone() -> None:
    with granted(idle_timeout_ns=100 * MILLISECOND_NS) as rig:
        rig.pass_through("lan", ask(1, "t", 250, 1))
        after(rig, 200)
        assert rig.check().chain("edge").live == 0
        rig.pass_through("lan", ask(2, "t", 1, 9))
        assert tokens(after(rig, 300)) == [9]
        assert counter(rig, "fired") == 1


def test_timers_do_not_keep_a_silent_client() -> None:
    with granted(idle_timeout_ns=100 * MILLISECOND_NS) as rig:
        rig.pass_through("lan", ask(1, "t", 60, 1))
        assert tokens(after(rig, 60)) == [1]
        after(rig, 120)
        assert rig.check().chain("edge").live == 0


def test_a_timer_may_be_dropped_but_not_sent_on() -> None:
    with granted() as rig:
        rig.pass_through("lan", ask(1, "t", 1, 251), ask(2, "t", 1, 250))
        assert after(rig, 1) == []
        chain = rig.check().chain("edge")
        assert chain.dropped == {"verdict": 1, "killed": 1}
        assert chain.kills == {"bad_port": 1}


def test_timers_that_find_no_room_wait_for_it() -> None:
    settings = guest("granted", grant=ALL, slots=8)
    with rig([settings], [ChainSettings(name="edge", path=("lan", "granted", "wan"))]) as made:
        made.node.set_fake_time(START_NS)
        for token in range(1, 21):
            made.pass_through("lan", ask(1, "t", 5, token))
        found: list[int] = []
        for milliseconds in range(5, 30):
            found += tokens(after(made, milliseconds))
        assert sorted(found) == list(range(1, 21))
        assert made.check().in_flight == 0


@pytest.mark.parametrize("wait", ["adaptive", "block"])
def test_a_sleeping_node_wakes_for_a_timer(wait: str) -> None:
    with line(guest("granted", grant=ALL), settings=NodeSettings(wait=wait)) as made:  # type: ignore[arg-type]
        made.node.start()
        made.inject("lan", ask(1, "t", 50, 7))
        frames: list[bytes] = []
        end = time.monotonic() + 5
        while len(frames) < 2 and time.monotonic() < end:
            time.sleep(0.005)
            frames += made.take("wan")
        assert tokens(frames[1:]) == [7]


def test_the_clock_is_the_time_of_day() -> None:
    with granted() as rig:
        before = time.time_ns()
        (frame,) = rig.pass_through("lan", ask(1, "c"))
        assert before <= int.from_bytes(frame[43:51], "little") <= time.time_ns()


def test_randomness_is_fresh_for_every_call_and_client() -> None:
    with granted() as rig:
        frames = rig.pass_through("lan", *(ask(client, "r") for client in (1, 1, 2, 3)))
        assert len({frame[43:75] for frame in frames}) == 4
        assert counter(rig, "refused") == 0


def test_randomness_stays_inside_the_memory_and_the_limit() -> None:
    with granted() as rig:
        rig.pass_through("lan", ask(1, "b"))
        assert counter(rig, "refused") == 2
        assert rig.check().chain("edge").kills == {}
