"""Caches that are parked, over real connections: items with flags, expiry and CAS are there again, for their client."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from memcached_node import CacheNode, ask, serving
from service_harness import Service, eventually, free_port, service

from edgeos import NodeStatistics
from edgeos.statistics import ParkingStatistics

SECOND_NS = 10**9
KEEP = {"keep": True, "idle_timeout_ns": SECOND_NS // 5, "max_fwps": 1}
MISSING = b"END\r\n"


def parked(node: CacheNode, clients: int) -> ParkingStatistics:
    """Waits until nobody has an FWP and so many clients are parked."""

    def away(statistics: NodeStatistics) -> bool:
        chain = statistics.chain("caches")
        return chain.live == 0 and chain.parking.clients == clients and chain.stages[0].ready > 0

    return node.wait_until(away).chain("caches").parking


def command(node: CacheNode, data: bytes, until: bytes = b"\r\n", client: str = "127.0.0.1") -> bytes:
    with node.connect(client) as s:
        return ask(s, data, until)


def fill(client: int) -> bytes:
    """Ten small items with flags."""
    lines = (b"set key:%d %d 0 20\r\n%-20d\r\n" % (i, 100 * client + i, 1000 * client + i) for i in range(10))
    return b"".join(lines) + b"gets key:9\r\n"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_ten_items_survive_while_others_use_the_memory(kind: Any) -> None:
    """One FWP for three clients in turns."""
    frame = b"\0\x01\0\0\0\x01\0\0" if kind == "udp" else b""
    listener = {"idle_timeout_ns": SECOND_NS // 5} if kind == "udp" else {}
    with serving(kind, chain=KEEP, template={"stack": 4608}, **listener) as node:
        for client in (1, 2, 3):
            with node.connect(f"127.0.0.{client}") as s:
                assert ask(s, frame + b"get key:3\r\n", MISSING) == frame + MISSING
                for line in fill(client).split(b"set ")[1:]:
                    store = b"set " + line.split(b"gets")[0]
                    assert ask(s, frame + store, b"\r\n") == frame + b"STORED\r\n"
            counted = parked(node, client)
            assert counted.bytes < client * 2048
        for client in (2, 1, 3):
            with node.connect(f"127.0.0.{client}") as s:
                got = ask(s, frame + b"gets key:3\r\n", MISSING)
                assert got == frame + b"VALUE key:3 %d 20 4\r\n%-20d\r\nEND\r\n" % (100 * client + 3, 1000 * client + 3)
            counted = parked(node, 3)
        assert (counted.parked, counted.resumed, counted.dropped) == (6, 3, {})


def test_cas_counters_and_statistics_go_on() -> None:
    with serving(chain=KEEP) as node:
        assert command(node, b"set n 7 0 2\r\n41\r\nset m 0 0 1\r\nx\r\ngets n\r\n", MISSING).endswith(
            b"VALUE n 7 2 1\r\n41\r\nEND\r\n"
        )
        parked(node, 1)
        assert command(node, b"cas n 7 0 2 1\r\n42\r\n") == b"STORED\r\n"
        parked(node, 1)
        assert command(node, b"cas n 7 0 2 1\r\n43\r\n") == b"EXISTS\r\n"
        assert command(node, b"gets n\r\n", MISSING) == b"VALUE n 7 2 3\r\n42\r\nEND\r\n"
        parked(node, 1)
        assert command(node, b"incr n 8\r\n") == b"50\r\n"
        stats = command(node, b"stats\r\n", MISSING)
        assert b"STAT curr_items 2\r\n" in stats
        assert b"STAT cmd_set 4\r\n" in stats
        assert b"STAT curr_connections 1\r\n" in stats


def test_items_whose_time_is_over_meanwhile_are_gone() -> None:
    with serving(chain=KEEP) as node:
        assert command(node, b"set short 0 1 1\r\nx\r\n") == b"STORED\r\n"
        assert command(node, b"set long 0 1000 1\r\ny\r\n") == b"STORED\r\n"
        parked(node, 1)

        def over(_: NodeStatistics) -> bool:
            return command(node, b"get short\r\n", MISSING) == MISSING

        node.wait_until(over)
        parked(node, 1)
        assert command(node, b"get short long\r\n", MISSING) == b"VALUE long 0 1\r\ny\r\nEND\r\n"


def test_a_large_cache_comes_back_whole() -> None:
    """Its memory has grown; every item is compared."""
    with serving(chain=KEEP, template={"memory": 1024 * 1024}) as node:
        value = bytes(range(48, 123)) * 13
        with node.connect() as s:
            for i in range(500):
                s.sendall(b"set k%03d 0 0 %d noreply\r\n" % (i, len(value)) + value + b"\r\n")
            assert ask(s, b"get k499\r\n", MISSING).endswith(value + b"\r\nEND\r\n")
        assert 500 * len(value) < parked(node, 1).bytes < 600 * 1024
        assert command(node, b"get k000\r\n", MISSING, "127.0.0.2") == MISSING
        parked(node, 2)
        with node.connect() as s:
            for i in range(500):
                assert (
                    ask(s, b"get k%03d\r\n" % i, MISSING)
                    == b"VALUE k%03d 0 %d\r\n" % (i, len(value)) + value + b"\r\nEND\r\n"
                )


def test_a_client_that_is_connected_is_not_idle() -> None:
    with serving(chain={**KEEP, "max_fwps": 4}) as node, node.connect() as s:
        assert ask(s, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
        command(node, b"set b 0 0 1\r\ny\r\n", client="127.0.0.2")
        node.wait_until(lambda s: s.chain("caches").parking.clients == 1)
        assert ask(s, b"get a\r\n", MISSING) == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        assert node.node.statistics().chain("caches").live == 1


def test_one_with_connections_that_has_to_give_way_is_counted() -> None:
    with serving(chain={**KEEP, "when_full": "evict", "idle_timeout_ns": 600 * SECOND_NS}) as node, node.connect() as s:
        assert ask(s, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
        node.wait_until(lambda s: s.in_flight == 0)
        assert command(node, b"get a\r\n", MISSING, "127.0.0.2") == MISSING
        chain = node.node.statistics().chain("caches")
        assert chain.parking.refused == {"connected": 1}


MANIFEST = """
[port.tcp]
kind = "tcp"
listen = "127.0.0.1:{port}"
[template.cache]
appliance = "memcached"
grant = {{ random = true }}
[chain.caches]
path = ["tcp", "cache"]
idle_timeout = "200ms"
keep = true
max_fwps = {max_fwps}
[[rule]]
match = "any"
chain = "caches"
"""


def keeps(node: Service, clients: int) -> bool:
    chains = node.ask("statistics")["chains"]
    return sum(chain["parking"]["clients"] for chain in chains) == clients


def say(port: int, data: bytes, until: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        return ask(s, data, until)


def test_a_reload_keeps_what_did_not_change_and_a_dead_workers_are_counted(tmp_path: Path) -> None:
    port = free_port()
    with service(tmp_path, MANIFEST.format(port=port, max_fwps=8)) as node:
        node.running("--json", "result.json")
        assert say(port, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
        assert eventually(lambda: keeps(node, 1))
        node.manifest.write_text(MANIFEST.format(port=port, max_fwps=8) + '[tenant.acme]\nmemory = "1MiB"\n')
        node.ask("reload")
        assert say(port, b"get a\r\n", MISSING) == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        assert eventually(lambda: keeps(node, 1))
        node.manifest.write_text(MANIFEST.format(port=port, max_fwps=9))
        node.ask("reload")
        assert say(port, b"get a\r\n", MISSING) == MISSING
        assert say(port, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
        assert eventually(lambda: keeps(node, 1))
        os.kill(node.process_of(0), signal.SIGKILL)
        assert eventually(lambda: node.workers()[0]["restarts"] == 1 and node.state == "running")
        assert say(port, b"get a\r\n", MISSING) == MISSING
        statistics = node.end()
    dropped: dict[str, int] = {}
    for chain in statistics["chains"]:
        for reason, number in chain["parking"]["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + number
    assert dropped["lost"] == 1
    assert dropped["removed"] >= 1
