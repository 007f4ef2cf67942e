"""Elements that act by themselves, through the kernel: timers come, and packets of their own are in the balance."""

from __future__ import annotations

import time
from pathlib import Path

from node_harness import Rig, client_packet, line

from edgeos import NodeStatistics, TemplateSettings

SECONDS_MAX = 30


def template_of(tmp_path: Path, text: str) -> TemplateSettings:
    file = tmp_path / "own.click"
    file.write_text(f"{text} FromDevice(wan) -> ToDevice(lan);")
    return TemplateSettings(name="own", click=file, ready_low=1, ready_high=4)


def collect(rig: Rig, count: int) -> list[bytes]:
    """Runs the node until so many packets have come out of the far port, or the bound is over."""
    found: list[bytes] = []
    end = time.monotonic() + SECONDS_MAX
    while len(found) < count and time.monotonic() < end:
        rig.node.run_once()
        rig.check()
        found += rig.take("wan")
    return found


def test_a_source_sends_from_its_client_s_first_packet_on(tmp_path: Path) -> None:
    config = "FromDevice(lan) -> Discard; TimedSource(0.01, tick, LIMIT 3) -> w :: ToDevice(wan);"
    config += "RatedSource(tock, 100, 4) -> w;"
    with line(template_of(tmp_path, config)) as rig:
        rig.settle()
        assert rig.take("wan") == []
        rig.inject("lan", client_packet(1))
        found = collect(rig, 7)
        assert sorted(found) == [b"tick"] * 3 + [b"tock"] * 4


def test_what_a_shaper_holds_leaves_later(tmp_path: Path) -> None:
    for way in ("RatedUnqueue(200)", "Shaper(200) -> Unqueue", "BandwidthRatedUnqueue(20kBps, BURST_BYTES 60)"):
        with line(template_of(tmp_path, f"FromDevice(lan) -> Queue(64) -> {way} -> ToDevice(wan);")) as rig:
            packets = [client_packet(1, bytes([n]) * 20) for n in range(20)]
            rig.settle()  # the node is made by now
            start = time.monotonic()
            rig.inject("lan", *packets)
            assert collect(rig, len(packets)) == packets
            assert time.monotonic() - start > 0.04  # 20 packets at 200 a second, but for what a bucket holds


def test_packets_that_a_guest_makes_are_in_the_balance(tmp_path: Path) -> None:
    config = "FromDevice(lan) -> t :: Tee(3) -> w :: ToDevice(wan); t[1] -> w; t[2] -> Strip(14) -> CheckIPHeader"
    with line(template_of(tmp_path, f"{config} -> IPFragmenter(68, HONOR_DF false) -> w;")) as rig:
        sent = rig.pass_through("lan", client_packet(1, bytes(200)))
        assert len(sent) == 2 + 5
        statistics: NodeStatistics = rig.check()
        assert statistics.balance == 0
