"""Listeners that come to a running node and go from it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from service_harness import eventually, free_port, service
from stream_harness import GUESTS, TIMEOUT

from edgeos import (
    ChainSettings,
    EdgeosError,
    Manifest,
    ManifestError,
    Node,
    NodeSettings,
    PortError,
    PortSettings,
    RuleSettings,
    TemplateSettings,
    parse_match,
)


def listener(name: str, port: int, kind: Literal["tcp", "udp"] = "tcp", **more: object) -> PortSettings:
    return PortSettings(name=name, kind=kind, listen=f"127.0.0.1:{port}", max_connections=50, **more)  # type: ignore[arg-type]


def manifest_of(*ports: PortSettings) -> Manifest:
    """A chain with an echo for each port."""
    return Manifest(
        node=NodeSettings(spare_fwps=200),
        ports=ports,
        templates=(TemplateSettings(name="echo", source=GUESTS / "echo.c"),),
        chains=tuple(
            ChainSettings(name=f"by-{port.name}", path=(port.name, "echo"), isolate="connection", max_fwps=20)
            for port in ports
        ),
        rules=tuple(RuleSettings(match=parse_match("any"), chain=f"by-{port.name}") for port in ports),
    )


@contextmanager
def running(*ports: PortSettings) -> Iterator[Node]:
    with Node.from_manifest(manifest_of(*ports)) as node:
        node.start()
        yield node
        statistics = node.stop()
        assert statistics.balance == 0
        for port in statistics.ports:
            assert port.accepted == port.connections + sum(port.ended.values()), port


def connect(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    if kind == socket.SOCK_STREAM:
        return socket.create_connection(("127.0.0.1", port), TIMEOUT)
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(TIMEOUT)
    s.connect(("127.0.0.1", port))
    return s


def answers(s: socket.socket) -> bool:
    s.sendall(b"hello")
    return s.recv(16) == b"hello"


def lets_in(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_listener_that_comes_is_served_and_one_that_goes_keeps_its_living(kind: Literal["tcp", "udp"]) -> None:
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    one, other = free_port(), free_port()
    with running(listener("one", one, kind)) as node, ExitStack() as stack:
        living = stack.enter_context(connect(one, type_))
        assert answers(living)
        node.reconfigure(manifest_of(listener("one", one, kind), listener("other", other, kind)))
        fresh = stack.enter_context(connect(other, type_))
        assert answers(fresh)
        assert answers(living)
        node.reconfigure(manifest_of(listener("other", other, kind)))
        assert answers(fresh)
        statistics = node.statistics()
        assert [(port.name, port.retired) for port in statistics.ports] == [("other", False), ("one", True)]
        if kind == "udp":  # a flow of datagrams is over
            assert statistics.ports[1].ended == {"evicted": 1}
            return
        assert answers(living)
        assert not lets_in(one)
        living.close()
        assert eventually(lambda: node.statistics().ports[1].ended == {"done": 1})


def test_an_address_is_free_again_when_its_listener_has_gone() -> None:
    one, other = free_port(), free_port()
    with running(listener("web", one, "udp")) as node:
        for port in (other, one, other):
            node.reconfigure(manifest_of(listener("web", port, "udp")))
            with connect(port, socket.SOCK_DGRAM) as fresh:
                assert answers(fresh)


def test_a_listener_moves_to_another_address_under_its_name() -> None:
    one, other = free_port(), free_port()
    with running(listener("web", one)) as node, connect(one) as living:
        assert answers(living)
        node.reconfigure(manifest_of(listener("web", other)))
        with connect(other) as fresh:
            assert answers(fresh)
            assert node.statistics().port("web").accepted == 1
        assert answers(living)
        assert not lets_in(one)
        node.reconfigure(manifest_of(listener("web", one)))
        assert not lets_in(other)
        with connect(one) as fresh:
            assert answers(fresh)
        assert [port.retired for port in node.statistics().ports] == [False, True, True]


def test_what_cannot_be_changes_nothing(tmp_path: Path) -> None:
    one, other = free_port(), free_port()
    with running(listener("one", one)) as node, connect(one) as living:
        assert answers(living)
        before = node.manifest
        with (
            socket.create_server(("127.0.0.1", other)),
            pytest.raises(PortError, match=r"port\.other: .*cannot listen"),
        ):
            node.reconfigure(manifest_of(listener("one", one), listener("other", other)))
        bad = manifest_of(listener("one", one), listener("other", other))
        with pytest.raises(ManifestError, match="nobody"):
            node.reconfigure(replace(bad, rules=(RuleSettings(match=parse_match("any"), chain="nobody"),)))
        with pytest.raises(EdgeosError, match=r"^port\.one\.max_per_client cannot change while the node runs"):
            node.reconfigure(manifest_of(listener("one", one, max_per_client=3)))
        packets = PortSettings(name="lan", kind="pcap", write=tmp_path / "lan.pcap")
        with pytest.raises(EdgeosError, match=r"^port\.lan, which is new cannot change while the node runs"):
            node.reconfigure(replace(before, ports=(*before.ports, packets)))
        assert node.manifest == before
        assert not lets_in(other)
        assert answers(living)
        with connect(one) as fresh:
            assert answers(fresh)


def too_large(manifest: Manifest, chain: str) -> Manifest:
    """The same with a chain that the node has no room for, which shows only when its listeners are there."""
    return replace(
        manifest,
        chains=tuple(replace(c, max_fwps=100_000) if c.name == chain else c for c in manifest.chains),
    )


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("runs", [True, False])
def test_a_listener_of_a_refused_reload_is_gone_and_may_come_with_the_next(
    runs: bool, kind: Literal["tcp", "udp"]
) -> None:
    one, other = free_port(), free_port()
    with Node.from_manifest(manifest_of(listener("one", one, kind))) as node:
        if runs:
            node.start()
        node.statistics()
        wanted = manifest_of(listener("one", one, kind), listener("other", other, kind))
        for _ in range(2):
            with pytest.raises(EdgeosError, match="FWPs"):
                node.reconfigure(too_large(wanted, "by-other"))
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as taken:
                taken.bind(("127.0.0.1", other))
        assert [port.name for port in node.statistics().ports if not port.retired] == ["one"]
        node.reconfigure(wanted)
        if not runs:
            node.start()
        for port in (one, other):
            with connect(port, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as fresh:
                assert answers(fresh)
        assert node.statistics().port("other").accepted == 1
        assert node.stop().balance == 0


def test_there_are_so_many_ports_in_a_nodes_life() -> None:
    numbers = [free_port(), free_port()]
    with running(listener("web", numbers[0])) as node:
        for turn in range(1, 64):
            node.reconfigure(manifest_of(listener("web", numbers[turn % 2])))
        with pytest.raises(EdgeosError, match="at most 64 ports, those included that it once had"):
            node.reconfigure(manifest_of(listener("web", numbers[0])))
        with connect(numbers[1]) as fresh:
            assert answers(fresh)


def test_of_listeners_that_come_together_none_stays_when_one_is_too_many() -> None:
    numbers, further = [free_port(), free_port()], free_port()
    with running(listener("web", numbers[0])) as node:
        for turn in range(1, 63):
            node.reconfigure(manifest_of(listener("web", numbers[turn % 2])))
        for _ in range(2):
            with pytest.raises(EdgeosError, match="at most 64 ports, those included that it once had"):
                node.reconfigure(manifest_of(listener("further", further), listener("web", numbers[1])))
            assert not lets_in(further)  # there was a number left for it, but none for the other
        assert node.statistics().port("web").accepted == 0
        with connect(numbers[0]) as fresh:
            assert answers(fresh)


# ---- Worker processes ----

SERVICE = """
[node]
workers = 2
drain_timeout = "1s"
spare_fwps = 500
[template.echo]
source = "{source}"
"""
ENTRANCE = """
[port.{name}]
kind = "tcp"
listen = "127.0.0.1:{port}"
max_connections = 100
{more}
[chain.by-{name}]
path = ["{name}", "echo"]
isolate = "connection"
max_fwps = 60
[[rule]]
match = "tcp"
chain = "by-{name}"
"""
CLIENTS = [f"127.0.0.{number}" for number in range(1, 13)]


def written(*entrances: str) -> str:
    return SERVICE.format(source=GUESTS / "echo.c") + "".join(entrances)


def entrance(name: str, port: int, more: str = "") -> str:
    return ENTRANCE.format(name=name, port=port, more=more)


def all_are_served(port: int) -> bool:
    """From addresses that lead to both workers."""
    for client in CLIENTS:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT, (client, 0)) as s:
            if not answers(s):
                return False
    return True


def somebody_is_served(port: int) -> bool:
    """From any of those addresses, while one worker stands still."""
    for client in CLIENTS:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0, (client, 0)) as s:
            if answers(s):
                return True
    return False


def test_listeners_of_worker_processes_come_change_and_go_with_reloads(tmp_path: Path) -> None:
    one, other = free_port(), free_port()
    with service(tmp_path, written(entrance("one", one))) as node, ExitStack() as stack:
        node.running("--json", "result.json")

        def reload(*entrances: str) -> None:
            node.manifest.write_text(written(*entrances))
            node.ask("reload")

        living = [stack.enter_context(socket.create_connection(("127.0.0.1", one), TIMEOUT, (c, 0))) for c in CLIENTS]
        assert all(map(answers, living))
        workers = [worker["pid"] for worker in node.workers()]
        reload(entrance("one", one), entrance("other", other))
        assert all_are_served(other)
        # A worker that starts now has the new sockets too, and so have those that are started for it.
        os.kill(workers[0], signal.SIGKILL)
        assert eventually(lambda: node.workers()[0]["restarts"] == 1 and node.workers()[0]["state"] == "running")
        assert all_are_served(one)
        assert all_are_served(other)
        living = [s for s in living if still_answers(s)]
        assert living, "those of the other worker"
        # Other limits at the same address.
        reload(entrance("one", one, "max_per_client = 1"), entrance("other", other))
        assert all(map(answers, living))
        with connect(one) as first:
            assert answers(first)
            with suppress(ConnectionError), connect(one) as second:
                assert not still_answers(second)
        # Gone, but for those who are in.
        reload(entrance("other", other))
        assert not lets_in(one)
        assert all(map(answers, living))
        assert all_are_served(other)
        reload(entrance("one", one), entrance("other", other))
        assert all_are_served(one)
        assert [worker["restarts"] for worker in node.workers()] == [1, 0]
        assert node.end()["balance"] == 0


def still_answers(s: socket.socket) -> bool:
    try:
        return answers(s)
    except (ConnectionError, OSError):
        return False


def test_listeners_come_to_all_workers_or_to_none(tmp_path: Path) -> None:
    one, other = free_port(), free_port()
    with service(tmp_path, written(entrance("one", one))) as node, socket.create_server(("127.0.0.1", 0)) as taken:
        node.running()
        node.manifest.write_text(written(entrance("one", one), entrance("other", taken.getsockname()[1])))
        with pytest.raises(EdgeosError, match=r"port\.other: .*cannot listen"):
            node.ask("reload")
        assert all_are_served(one)
        stopped = node.process_of(1)
        os.kill(stopped, signal.SIGSTOP)
        node.manifest.write_text(written(entrance("other", other)))
        with ThreadPoolExecutor(1) as asking:
            reloading = asking.submit(node.ask, "reload")
            assert eventually(lambda: somebody_is_served(other))  # by the worker that has changed
            os.kill(stopped, signal.SIGKILL)
            error = reloading.exception(TIMEOUT)
        assert eventually(lambda: node.workers()[1]["restarts"] == 1 and node.workers()[1]["state"] == "running")
        if error is None:  # it had died before it was its turn, and its successor runs the new manifest
            assert all_are_served(other)
            assert not lets_in(one)
        else:
            assert "has ended" in str(error)
            assert all_are_served(one)
            assert not lets_in(other)
        node.ask("reload")
        assert all_are_served(other)
        assert not lets_in(one)
        node.end()
