"""All elements at once, in the configuration that the fuzzer of `make fuzz` has too."""

from __future__ import annotations

from pathlib import Path

from click_harness import fuzz
from click_packets import arp, ether, icmp, ip, tcp, udp
from scapy.layers.inet import ICMP, IPOption_RR

from edgeos.click.registry import element_classes
from edgeos.click.router import load
from edgeos.click.source import Source

EVERYTHING = Path(__file__).parents[2].joinpath("native", "fuzz", "everything.click").read_text()


def test_every_element_class_is_there() -> None:
    used = {type(element).__name__ for element in load(Source("everything.click", EVERYTHING)).elements}
    assert set(element_classes()) - used == set()


def test_no_packet_makes_them_read_out_of_bounds() -> None:
    record = IPOption_RR(length=11, pointer=4, routers=["0.0.0.0", "0.0.0.0"])
    quoting = [ip(ICMP(type=3) / udp(src="203.0.113.1")), ip(ICMP(type=11) / tcp())]
    inner = [udp(), tcp(), icmp(), icmp(0), udp(data=b"evil"), udp(options=record), udp(frag=2), udp(data=bytes(400))]
    inner += [*quoting, udp(ttl=1), udp(dst="10.1.0.9")]
    seeds = [*map(ether, inner), arp(1, "10.0.0.1"), arp(2, "10.0.0.1")]
    fuzz(EVERYTHING, [str(device) for device in range(11)], seeds, 8000)
