"""The elements in edgeos/click/elements/shaping.py and sources.py. Time is the packets' own, so nothing here waits."""

from __future__ import annotations

import pytest
from click_harness import Click, Packet, errors, fuzz, start
from click_packets import ether, udp

A = bytes(100)


def over(click: Click, seconds: float, step: float = 0.01) -> list[Packet]:
    """What leaves while time passes, a little at a time."""
    sent: list[Packet] = []
    for _ in range(round(seconds / step)):
        sent += click.advance(step)
    return sent


@pytest.mark.parametrize("element", ["RatedUnqueue(100)", "Shaper(100) -> Unqueue(-1)"])
def test_packets_a_second(element: str) -> None:
    with start(f"FromDevice(a) -> q :: Queue(200) -> {element} -> ToDevice(b);") as click:
        burst = click.push("a", *[A] * 150)
        assert 1 <= len(burst) <= 2
        assert 98 <= len(over(click, 1)) <= 102
        assert len(over(click, 1)) + len(burst) == pytest.approx(50, abs=3)
        assert click.read("q.length") == "0"


@pytest.mark.parametrize("element", ["BandwidthRatedUnqueue(10kBps)", "BandwidthShaper(80kbps) -> Unqueue(-1)"])
def test_bytes_a_second(element: str) -> None:
    with start(f"FromDevice(a) -> q :: Queue(200) -> {element} -> ToDevice(b);") as click:
        burst = click.push("a", *[A] * 150)
        assert 1 <= len(burst) <= 3
        assert 97 <= len(over(click, 1)) <= 103


def test_sizes_of_buckets() -> None:
    for arguments, burst in [("100, BURST_SIZE 7", 7), ("100, BURST_DURATION 0.5", 50), ("1000", 20), ("10", 1)]:
        with start(f"FromDevice(a) -> Queue(200) -> RatedUnqueue({arguments}) -> ToDevice(b);") as click:
            assert len(click.push("a", *[A] * 32)) + len(click.push("a", *[A] * 32)) == burst
    with start("FromDevice(a) -> Queue(200) -> BandwidthRatedUnqueue(1000, BURST_BYTES 1000) -> ToDevice(b);") as click:
        assert len(click.push("a", *[A] * 32)) == 10


def test_a_rate_is_read_and_written() -> None:
    with start("FromDevice(a) -> Queue(200) -> u :: RatedUnqueue(10) -> ToDevice(b);") as click:
        click.push("a", *[A] * 150)
        click.write("u.rate", 100)
        assert click.read("u.rate") == "100"
        assert 85 <= len(over(click, 1)) <= 105  # what was waited for at the old rate comes first
        for bad in ("0", "", "fast", "-1", "99999999999"):
            with pytest.raises(ValueError, match="value"):
                click.write("u.rate", bad)
        click.write("u.active", "false")
        assert over(click, 0.5) == []
        assert click.push("a", A) == []
        click.write("u.active", "true")
        click.write("u.reset")
        assert click.push("a", A) != []


def test_a_shaper_s_second_output_gets_what_is_in_between() -> None:
    config = """
        FromDevice(a) -> Queue(200) -> s :: Shaper(10); s[0] -> Unqueue(-1) -> ToDevice(a);
        s[1] -> Unqueue(-1) -> Strip(50) -> ToDevice(a);
    """
    with start(config) as click:
        sizes = [len(data) for _, data in click.push("a", *[A] * 20)]
        assert sizes.count(100) == 1
        assert sizes.count(50) == 19


def paced(click: Click, rate: int, seconds: float, data: bytes = A) -> list[str]:
    """The ways that evenly spaced packets take."""
    ways = []
    for _ in range(int(rate * seconds)):
        click.now += 10**9 // rate
        ways += [device for device, _ in click.push("a", data)]
    return ways


def test_meters_tell_rates_apart() -> None:
    for element in ("Meter(200, 1000)", "BandwidthMeter(20kBps, 100000)"):
        config = f"FromDevice(a) -> m :: {element}; m[0] -> ToDevice(a); m[1] -> ToDevice(b); m[2] -> Discard;"
        with start(config) as click:
            assert set(paced(click, 100, 1)) == {"a"}
            assert paced(click, 500, 1)[-1] == "b"
            assert click.push("a", A) != []
            assert int(click.read("m.rate")) == pytest.approx(500 if element[0] == "M" else 50000, rel=0.15)
            dropped = click.dropped
            paced(click, 5000, 0.5)
            assert click.dropped - dropped > 1000
            click.now += 10**9
            assert [device for device, _ in click.push("a", A)] == ["a"]


def test_counters_of_rates() -> None:
    with start(
        "FromDevice(a) -> c :: Counter -> v :: AverageCounter -> i :: AverageCounter(1) -> ToDevice(b);"
    ) as click:
        paced(click, 100, 3)
        assert float(click.read("v.rate")) == pytest.approx(100, rel=0.01)
        assert float(click.read("v.byte_rate")) == pytest.approx(10000, rel=0.01)
        assert (click.read("v.count"), click.read("v.byte_count")) == ("300", "30000")
        assert 195 <= int(click.read("i.count")) <= 201
        assert int(click.read("c.rate")) == pytest.approx(100, rel=0.1)
        assert (
            int(click.read("c.bit_rate")) == 8 * int(click.read("c.byte_rate")) // 1
            or int(click.read("c.bit_rate")) > 0
        )
        click.write("v.reset")
        assert (click.read("v.count"), click.read("v.rate")) == ("0", "0.000")


MONITOR = """FromDevice(a) -> MarkIPHeader -> [0]m :: IPRateMonitor({}); FromDevice(b) -> MarkIPHeader -> [1]m;
    m[0] -> ToDevice(b); m[1] -> ToDevice(a);"""


def test_rates_by_address() -> None:
    with start(MONITOR.format("PACKETS, 1, 50")) as click:
        for n in range(400):
            click.now += 2_500_000
            click.push("a", udp(src="10.1.2.3"))
            if n % 40 == 0:
                click.push("a", udp(src="20.1.2.3"))
                click.push("b", udp(dst="10.1.2.3"))
        rows = {tuple(row.split("\t")[:2]): float(row.split("\t")[2]) for row in click.read("m.look").splitlines()[1:]}
        assert rows["10.1.2.3", "from"] == pytest.approx(400, rel=0.2)
        assert rows["10", "from"] == pytest.approx(400, rel=0.2)
        assert 2 < rows["20", "from"] < 30
        assert ("20.1", "from") not in rows
        assert ("10", "to") in rows
        assert click.read("m.thresh") == "50"
        click.write("m.reset")
        assert click.read("m.look") == "0\n"


def test_a_monitor_keeps_to_its_memory() -> None:
    with start(MONITOR.format("BYTES, 0.5, 0, 100")) as click:
        for n in range(300):
            click.push("a", *(udp(src=f"10.{n % 250}.{m}.1") for m in range(8)))
            click.advance(0.01)
        assert len(click.read("m.look").splitlines()) > 2


def test_a_source_makes_packets_at_its_rate() -> None:
    config = "FromDevice(a) -> Discard; s :: RatedSource(hello, 50, 60) -> ToDevice(b);"
    with start(config) as click:
        first = click.push("a", A)
        sent = over(click, 0.5)
        assert {data for _, data in first + sent} == {b"hello"}
        assert len(first + sent) == pytest.approx(25, abs=2)
        assert len(first + sent + over(click, 2)) == 60
        assert click.read("s.count") == "60"
        click.write("s.reset")
        click.write("s.rate", "10")
        click.write("s.limit", "5")
        click.push("a", A)
        over(click, 2)
        assert (click.read("s.count"), click.read("s.limit"), click.read("s.rate")) == ("5", "5", "10")


def test_a_source_can_be_pulled() -> None:
    with start("FromDevice(a) -> Discard; RatedSource(RATE 20, LENGTH 70) -> Unqueue -> ToDevice(b);") as click:
        sent = click.push("a", A) + over(click, 1)
        assert len(sent) == pytest.approx(20, abs=2)
        assert {len(data) for _, data in sent} == {70}


def test_a_bandwidth_becomes_a_rate() -> None:
    with start("FromDevice(a) -> Discard; s :: RatedSource(BANDWIDTH 10kBps, LENGTH 100) -> ToDevice(b);") as click:
        assert click.read("s.rate") == "100"


def test_a_timed_source_keeps_its_interval() -> None:
    with start(r"FromDevice(a) -> Discard; s :: TimedSource(0.25, \<01 02>, LIMIT 6) -> ToDevice(b);") as click:
        assert click.push("a", A) == []
        assert over(click, 1.1) == [("b", b"\x01\x02")] * 4
        assert over(click, 3) == [("b", b"\x01\x02")] * 2
        assert click.read("s.interval") == "0.250000000"
        click.write("s.interval", "0.5")
        click.write("s.reset")
        click.push("a", A)
        assert len(over(click, 1.1)) == 2
        for bad in ("0", "x", "1.2.3", ".", "-1", "99999999999999999999"):
            with pytest.raises(ValueError, match="value"):
                click.write("s.interval", bad)


def test_an_infinite_source_stops_at_its_limit_and_when_there_is_no_way_out() -> None:
    with start("FromDevice(a) -> Discard; s :: InfiniteSource(x, 10, 3) -> ToDevice(b);") as click:
        assert len(click.push("a", A)) == 10
        assert over(click, 0.1) == []
    with start("FromDevice(a) -> Discard; s :: InfiniteSource(x, BURST 4) -> ToDevice(b);") as click:
        first = len(click.push("a", A))
        assert 10 < first < 200
        assert len(over(click, 0.05)) > first
        click.write("s.active", "false")
        assert over(click, 0.05) == []
    with start("FromDevice(a) -> Discard; InfiniteSource(x) -> Unqueue(LIMIT 5) -> ToDevice(b);") as click:
        assert len(click.push("a", A)) == 5


def test_bad_arguments() -> None:
    def one_error(element: str, ending: str = "-> Discard") -> str:
        return errors(f"FromDevice(a) -> Queue -> {element} {ending};")[0]

    assert "1 to 1000000000" in one_error("RatedUnqueue(0)")
    assert "a rate up to" in one_error("BandwidthShaper(fast)")
    assert "two sizes" in one_error("RatedUnqueue(5, BURST_SIZE 1, BURST_DURATION 1)")
    meter = "FromDevice(a) -> m :: Meter({}); m[0] -> Discard; m[1] -> Discard;"
    assert "rates must grow" in errors(meter.format("5, 4"))[0]
    assert "there must be one output more" in errors(meter.format("5, 6"))[0]
    assert "no rate" in errors(meter.format(""))[0]
    assert "allowed: a time" in errors("TimedSource(never) -> Discard;")[0]
    assert "PACKETS, BYTES" in errors("FromDevice(a) -> IPRateMonitor(FLOWS, 1, 1) -> Discard;")[0]


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    config = """
        FromDevice(lan) -> MarkIPHeader(14) -> IPRateMonitor(BYTES, 0.7, 10, 100) -> AverageCounter
            -> m :: Meter(50, 90)
            -> q :: Queue(20) -> BandwidthShaper(1kBps) -> RatedUnqueue(10) -> ToDevice(wan);
        m[1] -> q; m[2] -> b :: BandwidthMeter(1000) -> q; b[1] -> Discard;
        RatedSource(RATE 30) -> q; TimedSource(0.1) -> q;
    """
    fuzz(config, ["lan"], [ether(udp())], 3000)


@pytest.mark.parametrize("element", ["BandwidthShaper(1000kBps)", "Shaper(10000)"])
def test_a_lowered_rate_saves_nothing_up_while_nobody_sends(element: str) -> None:
    with start(f"FromDevice(a) -> Queue(200) -> s :: {element} -> Unqueue(-1) -> ToDevice(b);") as click:
        click.push("a", A)
        click.write("s.rate", 1000)
        click.advance(30)
        burst = sum(len(click.push("a", *[A] * 32)) for _ in range(4))
        assert burst <= 20, "no more than the bucket holds at the new rate"
