"""The elements in edgeos/click/elements/basic.py: configuration in, packets in, packets out."""

from __future__ import annotations

import pytest
from click_harness import errors, fuzz, start

A, B, C = (bytes([letter]) * 60 for letter in b"ABC")


def test_packets_pass_between_devices_both_ways() -> None:
    with start("FromDevice(lan) -> ToDevice(wan); FromDevice(wan) -> Null -> ToDevice(lan);") as click:
        assert click.push("lan", A, B) == [("wan", A), ("wan", B)]
        assert click.push("wan", C) == [("lan", C)]
        assert click.dropped == 0


def test_a_packet_may_go_back_where_it_came_from() -> None:
    with start("FromDevice(lan) -> ToDevice(lan); FromDevice(wan) -> ToDevice(wan);") as click:
        assert click.push("lan", A) == [("lan", A)]
        assert click.push("wan", B) == [("wan", B)]


def test_rings_are_ports_by_number() -> None:
    with start("FromRing -> ToRing; FromRing(1) -> ToRing(0);") as click:
        assert click.push("0", A) == [("1", A)]
        assert click.push("1", B) == [("0", B)]


def test_packets_of_a_device_that_nothing_takes_are_dropped() -> None:
    with start("FromDevice(lan) -> ToDevice(wan);") as click:
        assert click.push("wan", A) == []
        assert click.dropped == 1


def test_discard_ends_and_counts() -> None:
    with start("FromDevice(lan) -> d :: Discard;") as click:
        assert click.push("lan", A, B) == []
        assert (click.dropped, click.read("d.count")) == (2, "2")


def test_idle_gives_nothing_and_drops() -> None:
    with start("FromDevice(lan) -> Idle -> ToDevice(wan);") as click:
        assert click.push("lan", A) == []
        assert click.dropped == 1


def test_counter_counts_and_resets() -> None:
    with start("FromDevice(lan) -> c :: Counter -> ToDevice(wan);") as click:
        assert click.push("lan", A, B) == [("wan", A), ("wan", B)]
        assert (click.read("c.count"), click.read("c.byte_count")) == ("2", "120")
        click.write("c.reset")
        assert click.read("c.count") == "0"


def test_handlers_that_are_not_there() -> None:
    with start("FromDevice(lan) -> c :: Counter -> ToDevice(wan);") as click:
        for name in ("c.nothing", "d.count", "c", "c.", ".count", "", "c.count2"):
            with pytest.raises(KeyError):
                click.read(name)
        with pytest.raises(KeyError):
            click.write("c.count", 1)
        with pytest.raises(KeyError):
            click.read("c.reset")


def test_tee_copies_to_all_outputs_in_order() -> None:
    config = (
        "FromDevice(lan) -> t :: Tee(3) -> ToDevice(wan); t[1] -> ToDevice(lan); t[2] -> Paint(1) -> ToDevice(wan);"
    )
    with start(config) as click:
        assert click.push("lan", A, B) == [(to, data) for data in (A, B) for to in ("wan", "lan", "wan")]


def test_tee_copies_are_its_own() -> None:
    config = "FromDevice(lan) -> t :: Tee -> Strip(10) -> ToDevice(wan); t[1] -> ToDevice(lan);"
    with start(config) as click:
        assert click.push("lan", A) == [("wan", A[10:]), ("lan", A)]


def test_queue_passes_a_burst_on_in_order() -> None:
    for way in ("Queue -> Unqueue", "Queue -> Null", "SimpleQueue -> Unqueue(-1)"):
        with start(f"FromDevice(lan) -> {way} -> ToDevice(wan);") as click:
            frames = [bytes([n]) * 60 for n in range(100)]
            assert click.push("lan", *frames) == [("wan", frame) for frame in frames]
            assert (click.dropped, click.consumed) == (0, 0)  # they left from where they lay


def test_what_a_queue_holds_survives_its_burst() -> None:
    config = "FromDevice(lan) -> q :: Queue(3) -> u :: Unqueue(ACTIVE false) -> ToDevice(wan);"
    with start(config) as click:
        assert click.push("lan", A, B) == []
        assert click.push("lan", C, A) == []
        assert (click.read("q.length"), click.read("q.drops"), click.consumed, click.dropped) == ("3", "1", 3, 1)
        click.write("u.active", "true")
        assert click.push("wan", B) == [("wan", A), ("wan", B), ("wan", C)]
        assert click.read("q.length") == "0"


def test_older_packets_leave_before_those_of_the_burst() -> None:
    config = "FromDevice(lan) -> Queue -> u :: Unqueue(ACTIVE false) -> ToDevice(wan); FromDevice(wan) -> Discard;"
    with start(config) as click:
        click.push("lan", A)
        click.write("u.active", "true")
        assert click.push("lan", B, C) == [("wan", A), ("wan", B), ("wan", C)]


def test_an_emitted_packet_keeps_its_place_behind_all_of_the_burst() -> None:
    config = "FromDevice(lan) -> t :: Tee -> ToDevice(wan); t[1] -> q :: Queue -> ToDevice(wan);"
    with start(config) as click:
        assert click.push("lan", A, B) == [("wan", A), ("wan", B), ("wan", A), ("wan", B)]


def test_front_drop_queue_keeps_the_newest() -> None:
    config = "FromDevice(lan) -> q :: FrontDropQueue(2) -> u :: Unqueue(ACTIVE no) -> ToDevice(wan);"
    with start(config) as click:
        assert click.push("lan", A, B, C) == []
        assert click.read("q.drops") == "1"
        click.write("u.active", 1)
        assert click.push("wan", A) == [("wan", B), ("wan", C)]
        assert click.read("q.highwater_length") == "2"


def test_a_queue_can_be_emptied() -> None:
    config = "FromDevice(lan) -> q :: Queue(5) -> u :: Unqueue(ACTIVE no) -> ToDevice(wan);"
    with start(config) as click:
        for _ in range(3):
            click.push("lan", A, B, C)
            click.write("q.reset")
            assert click.read("q.length") == "0"
        assert click.push("lan", *[A] * 10) == []
        assert click.read("q.length") == "5"


def test_unqueue_stops_at_its_limit() -> None:
    with start("FromDevice(lan) -> Queue -> u :: Unqueue(LIMIT 2) -> ToDevice(wan);") as click:
        assert click.push("lan", A, B, C) == [("wan", A), ("wan", B)]
        click.write("u.reset")
        assert click.push("lan", A) == [("wan", C), ("wan", A)]


def test_paint_and_its_switches() -> None:
    config = """
        FromDevice(lan) -> Paint(1) -> check :: CheckPaint(1) -> p :: PaintSwitch;
        check[1] -> Discard;
        p[0] -> Discard; p[1] -> ToDevice(wan);
        FromDevice(wan) -> Paint(7) -> CheckPaint(1) -> ToDevice(lan);
    """
    with start(config) as click:
        assert click.push("lan", A) == [("wan", A)]
        assert click.push("wan", A) == []
        assert click.dropped == 1


def test_switch_follows_its_handler() -> None:
    config = "FromDevice(lan) -> s :: Switch(1) -> ToDevice(lan); s[1] -> ToDevice(wan);"
    with start(config) as click:
        assert click.push("lan", A) == [("wan", A)]
        click.write("s.switch", 0)
        assert (click.push("lan", A), click.read("s.switch")) == ([("lan", A)], "0")
        click.write("s.switch", -1)
        assert (click.push("lan", A), click.dropped) == ([], 1)
        for bad in ("2", "x", "", "-2", "99999999999999999999"):
            with pytest.raises(ValueError, match="value"):
                click.write("s.switch", bad)
    assert "connected outputs: 0 to 0" in errors("FromDevice(a) -> Switch(1) -> Discard;")[0]


def test_strip_and_unstrip() -> None:
    with start("FromDevice(lan) -> Strip(14) -> Unstrip(4) -> ToDevice(wan);") as click:
        frame = bytes(range(60))
        assert click.push("lan", frame, b"short") == [("wan", frame[10:]), ("wan", b"hort")]


def test_unstrip_makes_room_and_drops_what_would_be_too_long() -> None:
    with start("FromDevice(lan) -> Unstrip(100) -> ToDevice(wan);") as click:
        ((_, data),) = click.push("lan", A)
        assert data == bytes(100) + A
        assert click.push("lan", bytes(2000)) == []
        assert click.dropped == 1


def test_print_keeps_the_last_packet() -> None:
    with start("FromDevice(lan) -> p :: Print(in, 6) -> ToDevice(wan);") as click:
        assert click.read("p.last") == ""
        click.push("lan", A, bytes(range(20)))
        assert click.read("p.last") == "in: 20 | 00010203 0405"
        click.write("p.active", "false")
        click.push("lan", B)
        assert click.read("p.count") == "2"


def test_compound_elements_are_named_by_their_path() -> None:
    config = (
        "elementclass Two { input -> c :: Counter -> d :: { input -> e :: Counter -> output } -> output }"
        " FromDevice(lan) -> t :: Two -> ToDevice(wan);"
    )
    with start(config) as click:
        click.push("lan", A)
        assert (click.read("t/c.count"), click.read("t/d/e.count")) == ("1", "1")


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> t :: Tee -> Paint(2) -> Print -> Strip(20) -> q :: Queue(7) -> Unqueue(3)
            -> Unstrip(30) -> ToDevice(wan);
        t[1] -> Unstrip(70) -> CheckPaint(0) -> FrontDropQueue(3) -> Strip(2) -> ToDevice(lan);
    """
    click = fuzz(config, ["lan"], [A, bytes(2040), b""])
    assert click.dropped
