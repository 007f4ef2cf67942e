"""The elements in edgeos/click/elements/lookup.py, compared with a search through all routes."""

from __future__ import annotations

import ipaddress
import random

import pytest
from click_harness import Click, errors, start
from click_packets import CLIENT, udp
from scapy.layers.inet import IP

NONE = "none"


def routed(click: Click, *addresses: str) -> list[tuple[str, str]]:
    """The way that each address goes, and the gateway that it gets; packets that are dropped leave nothing."""
    sent = click.push("in", *(udp(dst=address) for address in addresses))
    return [(device, IP(data).dst) for device, data in sent]


def config(element: str, routes: list[str]) -> str:
    return f"""
        FromDevice(out) -> Discard; out :: ToDevice(out);
        FromDevice(in) -> GetIPAddress(16) -> r :: {element}({", ".join(routes)});
        r[0] -> Strip(100) -> EtherEncap(0, 1:1:1:1:1:1, 1:1:1:1:1:1) -> out;
        r[1] -> IPEncap(4, 1.1.1.1, DST_ANNO) -> out;
    """


ROUTES = ["10.0.0.0/8 0", "10.1/16 10.0.0.254 1", "10.1.2.0/24 0", "10.1.2.3 1", "0/0 10.0.0.1 1"]


@pytest.mark.parametrize("element", ["StaticIPLookup", "LinearIPLookup", "RadixIPLookup"])
def test_the_longest_prefix_wins_and_names_the_gateway(element: str) -> None:
    with start(config(element, ROUTES)) as click:
        for address, gateway in [("10.9.9.9", None), ("10.1.9.9", "10.0.0.254"), ("10.1.2.9", None), ("10.1.2.3",
            "10.1.2.3"),
                                 ("8.8.8.8", "10.0.0.1")]:  # fmt: skip
            ((_, data),) = click.push("in", udp(dst=address))
            assert len(data) == 14 if gateway is None else IP(data).dst == gateway
        assert "10.1.0.0/16\t10.0.0.254\t1\n" in click.read("r.table")
        assert "10.0.0.0/8\t-\t0\n" in click.read("r.table")


def reference(routes: list[tuple[ipaddress.IPv4Network, int]], address: str) -> int | None:
    fitting = [(net.prefixlen, output) for net, output in routes if ipaddress.ip_address(address) in net]
    return max(fitting)[1] if fitting else None


@pytest.mark.parametrize("count", [3, 8, 9, 400])
def test_random_tables_against_a_search_through_all_routes(count: int) -> None:
    source = random.Random(count)
    nets: dict[ipaddress.IPv4Network, int] = {}
    while len(nets) < count:
        bits = source.choice((1, 4, 8, 9, 12, 16, 20, 24, 25, 30, 31, 32))
        base = source.choice((0x0A000000, 0x0A010000, 0xC0000200, 0xFFFFFF00)) ^ source.randrange(
            1 << source.choice((4, 12, 20))
        )
        nets[ipaddress.IPv4Network((base, bits), strict=False)] = source.randrange(2)
    routes = list(nets.items())
    with start(config("RadixIPLookup", [f"{net} {output}" for net, output in routes])) as click:
        addresses = []
        for net, _ in routes[:60]:
            edges = [
                int(net.network_address) - 1,
                int(net.network_address),
                int(net.broadcast_address),
                int(net.broadcast_address) + 1,
            ]
            addresses += [str(ipaddress.IPv4Address(edge & 0xFFFFFFFF)) for edge in edges]
        addresses += ["0.0.0.0", "255.255.255.255", CLIENT]
        for address in addresses:
            sent = click.push("in", udp(dst=address))
            found = None if not sent else 0 if len(sent[0][1]) == 14 else 1
            assert found == reference(routes, address), address


def test_routes_change_while_it_runs() -> None:
    with start(config("RadixIPLookup", ["10.0.0.0/8 0"])) as click:
        assert routed(click, "192.168.0.1") == []
        click.write("r.add", "192.168.0.0/16 10.0.0.1 1")
        assert routed(click, "192.168.0.1") == [("out", "10.0.0.1")]
        click.write("r.set", "192.168.0.0/16 10.0.0.2 1")
        assert routed(click, "192.168.0.1") == [("out", "10.0.0.2")]
        for bad in (
            "192.168.0.0/16 1",
            "1.0.0.0/8 2",
            "1.0.0.0/8",
            "1.0.0.0/33 1",
            "1.0.0.0/8 x 1",
            "",
            "1.0.0.0/255.0.255.0 1",
        ):
            with pytest.raises(ValueError, match="value"):
                click.write("r.add", bad)
        click.write("r.remove", "192.168.0.0/16")
        assert routed(click, "192.168.0.1") == []
        with pytest.raises(ValueError, match="value"):
            click.write("r.remove", "192.168.0.0/16")
        assert click.read("r.table") == "10.0.0.0/8\t-\t0\n"


def test_ctrl_does_all_of_its_lines_or_none() -> None:
    with start(config("LinearIPLookup", ["10.0.0.0/8 0"])) as click:
        with pytest.raises(ValueError, match="value"):
            click.write("r.ctrl", "remove 10.0.0.0/8\nadd 1.0.0.0/8 1\nremove 2.0.0.0/8\n")
        assert click.read("r.table") == "10.0.0.0/8\t-\t0\n"
        click.write("r.ctrl", "remove 10.0.0.0/8\n\nadd 1.0.0.0/8 - 1\nset 2.0.0.0/255.0.0.0 2.2.2.2 1")
        assert click.read("r.table") == "1.0.0.0/8\t-\t1\n2.0.0.0/8\t2.2.2.2\t1\n"


def test_a_table_has_room_for_64_more() -> None:
    with start(config("LinearIPLookup", ["10.0.0.0/8 0"])) as click:
        for n in range(64):
            click.write("r.add", f"11.{n}.0.0/16 1")
        with pytest.raises(ValueError, match="value"):
            click.write("r.add", "12.0.0.0/8 1")


def test_bad_arguments() -> None:
    def one_error(routes: str) -> str:
        return errors(f"FromDevice(a) -> StaticIPLookup({routes}) -> Discard;")[0]

    assert "found no route" in one_error("")
    assert "a route is a prefix" in one_error("10.0.0.0/8 x 0")
    assert "connected: 1" in one_error("10.0.0.0/8 1")
    assert "already" in one_error("10.0.0.0/8 0, 10.1.0.0/8 0")
    assert "allowed" in one_error("10.0.0.0/8")
