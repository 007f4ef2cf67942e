"""Tenants: quotas on what all clients of a tenant use together, under reasons of their own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from node_harness import GUESTS, MILLISECOND_NS, Rig, client_packet, guest, rig

from edgeos import (
    ChainSettings,
    Manifest,
    ManifestError,
    Node,
    NodeSettings,
    TenantSettings,
    TenantStatistics,
    _native,
    load_manifest,
    testing,
)

PAGE = 65536
EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def node_of(
    template: str = "tally",
    *,
    chain: dict[str, object] | None = None,
    mover: Literal["inline", "dedicated"] = "inline",
    **quotas: int,
) -> Iterator[Rig]:
    """A node whose clients 10.0.0.0/28 are of the tenant acme and all others of nobody."""
    settings = NodeSettings(max_flows=1024, mover=mover)
    edge = {"name": "edge", "path": ("lan", template, "wan"), "max_fwps": 64, **(chain or {})}
    made = guest(template, memory=16 * PAGE, budget_ns=10_000 * MILLISECOND_NS)
    with rig([made], [ChainSettings(**edge)], [("src 192.0.2.1", "drop")], settings=settings) as node:  # type: ignore[arg-type]
        node.node.add_tenant(TenantSettings(name="acme", **quotas))
        node.node.add_rule("src 10.0.0.0/28", chain="edge", tenant="acme")
        node.node.add_rule("any", chain="edge")
        node.settle()
        yield node


def acme(node: Rig) -> TenantStatistics:
    return node.check().tenant("acme")


def dropped(node: Rig) -> dict[str, int]:
    """Drops by reason, in the chain and before."""
    statistics = node.check()
    counts = dict(statistics.dropped)
    for reason, number in statistics.chain("edge").dropped.items():
        counts[reason] = counts.get(reason, 0) + number
    return counts


def packets(client: int, count: int, payload: bytes = bytes(16)) -> list[bytes]:
    return [client_packet(client, payload) for _ in range(count)]


def test_messages_beyond_the_rate_are_dropped_and_come_again_with_time() -> None:
    with node_of(message_rate=10) as node:
        clock = testing.FakeClock(node.node)
        assert len(node.pass_through("lan", *packets(1, 8), *packets(2, 8))) == 10, "a second's worth is in hand"
        assert len(node.pass_through("lan", *packets(100, 16))) == 16, "others are not held to it"
        assert dropped(node) == {"tenant_messages": 6}
        assert acme(node).refused == {"tenant_messages": 6}
        clock.advance(0.5)
        assert len(node.pass_through("lan", *packets(1, 8))) == 5
        assert (acme(node).received, acme(node).received_bytes) == (15, 15 * len(packets(1, 1)[0]))


def test_copies_count_on_the_way_in_and_onward() -> None:
    size = len(packets(1, 1)[0])
    with node_of(copy_rate=8 * size) as node:
        testing.FakeClock(node.node)
        for expected in (1, 1, 1, 1, 0):  # two copies each: into the FWP, and out of it
            assert len(node.pass_through("lan", *packets(1, 1))) == expected
        assert dropped(node) == {"tenant_copies": 1}
        assert acme(node).copied_bytes == 8 * size


def test_what_a_guest_emits_is_copied_at_its_tenants_cost() -> None:
    with node_of("actor") as node:
        emit_3 = bytes([3, 3]) + bytes(14)
        assert len(node.pass_through("lan", client_packet(1, emit_3))) == 4
        assert acme(node).copied_bytes == 5 * len(client_packet(1, emit_3))


def test_dropped_messages_are_copied_once() -> None:
    with node_of("actor") as node:
        assert node.pass_through("lan", client_packet(1, bytes([1, 0]))) == []
        assert acme(node).copied_bytes == len(client_packet(1, bytes([1, 0])))


def test_a_tenant_that_has_used_its_cpu_time_waits_for_more() -> None:
    work = bytes([100, 0])  # some milliseconds
    with node_of("toil", cpu=1_000_000) as node:  # 1 ms a second, of which a tenth is in hand
        clock = testing.FakeClock(node.node)
        sent = 0
        while not dropped(node):
            sent += len(node.pass_through("lan", client_packet(1, work)))
        assert sent < 20
        assert acme(node).refused == {"tenant_cpu": 1}
        assert acme(node).cpu_ns > 0
        assert len(node.pass_through("lan", client_packet(100, work))) == 1, "others go on"
        clock.advance(3600)
        assert len(node.pass_through("lan", client_packet(1, work))) == 1


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_calls_of_handlers_cost_the_clients_tenant_cpu_time(mover: Literal["inline", "dedicated"]) -> None:
    with node_of("toil", mover=mover, cpu=20_000_000) as node:  # 2 ms in hand
        clock = testing.FakeClock(node.node)
        node.pass_through("lan", client_packet(1, bytes(2)), client_packet(100, bytes(2)))

        def work(client: int, rounds: int = 100) -> str:
            (answer,) = node.node.write_handler("edge", "toil", f"10.0.0.{client}", "work", bytes(rounds))
            return answer.problem

        problem = "its tenant has used its CPU time: ask again later"
        assert [bool(work(1)) for _ in range(6)][0::5] == [False, True]
        assert work(1) == problem
        used = acme(node).cpu_ns
        assert used > 2_000_000
        for _ in range(10):
            assert work(1) == problem
        assert acme(node).cpu_ns == used, "guests that may not run are not asked"
        assert node.pass_through("lan", client_packet(1, bytes(2))) == []
        assert dropped(node) == {"tenant_cpu": 1}
        assert work(100) == "", "others are"
        clock.advance(3600)
        assert work(1) == ""


def test_a_handler_that_grows_beyond_its_tenants_memory_costs_its_fwp() -> None:
    with node_of("toil") as node:
        node.pass_through("lan", client_packet(1, bytes(2)))
        memory = acme(node).memory
        node.node.change_tenant(TenantSettings(name="acme", memory=memory + 2 * PAGE))

        def grow(pages: int) -> str:
            (answer,) = node.node.write_handler("edge", "toil", "10.0.0.1", "grow", bytes(pages))
            return answer.problem

        assert grow(2) == ""
        assert acme(node).memory == memory + 2 * PAGE
        assert grow(1) == "the call ended its FWP: tenant_memory"
        assert node.check().chain("edge").kills == {"tenant_memory": 1}
        assert (acme(node).killed, acme(node).memory) == (1, 0)


def test_clients_and_fwps_are_bounded_over_all_rules() -> None:
    with node_of(max_clients=3) as node:
        for client in range(1, 6):
            node.pass_through("lan", *packets(client, 1))
        node.pass_through("lan", *packets(1, 1), *packets(100, 1))
        assert dropped(node) == {"tenant_clients": 2}
        assert (acme(node).clients, acme(node).fwps, acme(node).admitted) == (3, 3, 3)
        node.node.change_tenant(TenantSettings(name="acme", max_fwps=4))
        for client in range(6, 9):
            node.pass_through("lan", *packets(client, 1))
        assert dropped(node) == {"tenant_clients": 2, "tenant_fwps": 2}
        assert acme(node).clients == 4


def test_places_come_back_when_clients_leave() -> None:
    with node_of(max_clients=1, chain={"idle_timeout_ns": 10**9}) as node:
        clock = testing.FakeClock(node.node)
        node.pass_through("lan", *packets(1, 1), *packets(2, 1))
        assert acme(node).refused == {"tenant_clients": 1}
        clock.advance(2)
        node.settle()
        assert (acme(node).clients, acme(node).fwps, acme(node).memory) == (0, 0, 0)
        assert len(node.pass_through("lan", *packets(2, 1))) == 1


def test_memory_is_bounded_for_new_clients() -> None:
    with node_of("toil") as node:
        node.pass_through("lan", client_packet(1, bytes(2)))
        initial = acme(node).memory
        assert initial >= PAGE
        node.node.change_tenant(TenantSettings(name="acme", memory=2 * initial))
        node.pass_through("lan", client_packet(2, bytes(2)), client_packet(3, bytes(2)))
        assert (acme(node).memory, acme(node).refused) == (2 * initial, {"tenant_memory": 1})


def test_an_fwp_that_grows_beyond_its_tenants_memory_is_killed() -> None:
    with node_of("toil") as node:
        node.pass_through("lan", client_packet(1, bytes(2)), client_packet(2, bytes(2)))
        memory = acme(node).memory
        node.node.change_tenant(TenantSettings(name="acme", memory=memory + 2 * PAGE))
        assert len(node.pass_through("lan", client_packet(1, bytes([0, 2])))) == 1, "it grows within the quota"
        assert acme(node).memory == memory + 2 * PAGE
        assert node.pass_through("lan", client_packet(2, bytes([0, 1]))) == []
        assert node.check().chain("edge").kills == {"tenant_memory": 1}
        assert (acme(node).killed, acme(node).memory) == (1, memory // 2 + 2 * PAGE)
        assert len(node.pass_through("lan", client_packet(1, bytes(2)))) == 1, "the other client lives"
        assert len(node.pass_through("lan", client_packet(2, bytes(2)))) == 1, "and this one has a fresh FWP"


def test_new_clients_come_at_a_rate_of_the_rule_the_chain_and_the_tenant() -> None:
    with node_of(new_clients=2, chain={"new_clients": 5}) as node:
        clock = testing.FakeClock(node.node)
        for client in (*range(1, 5), *range(100, 105)):
            node.pass_through("lan", *packets(client, 1))
        assert dropped(node) == {"new_clients": 4}, "two of the tenant's, and two of the chain's"
        assert acme(node).refused == {"new_clients": 2}
        assert len(node.pass_through("lan", *packets(1, 3))) == 3, "clients that are there are not held up"
        clock.advance(1.5)
        assert len(node.pass_through("lan", *packets(3, 1))) == 1


def test_a_rule_lets_clients_in_at_its_own_rate() -> None:
    with rig([guest("tally")], [ChainSettings(name="edge", path=("lan", "tally", "wan"))], [("tcp", "edge")]) as node:
        node.node.add_rule("any", chain="edge", new_clients=3)
        node.settle()
        testing.FakeClock(node.node)
        assert len(node.pass_through("lan", *(client_packet(client) for client in range(1, 8)))) == 3
        assert node.check().dropped == {"new_clients": 4}


def test_nobody_is_evicted_for_a_client_that_is_turned_away() -> None:
    with node_of(max_clients=1, chain={"max_fwps": 1, "when_full": "evict"}) as node:
        node.pass_through("lan", *packets(1, 1))
        node.pass_through("lan", *packets(2, 1))
        assert (node.check().chain("edge").evicted, acme(node).refused) == (0, {"tenant_clients": 1})


def test_messages_that_are_passed_on_unchanged_count_too() -> None:
    chain = ChainSettings(name="edge", path=("lan", "tally", "wan"))
    with rig([guest("tally")], [chain], [("tcp", "edge")]) as node:
        node.node.add_tenant(TenantSettings(name="acme", message_rate=2))
        node.node.add_rule("any", pass_ports=("lan", "wan"), tenant="acme")
        node.settle()
        testing.FakeClock(node.node)
        assert len(node.pass_through("lan", *packets(1, 5))) == 2
        assert node.check().chain("pass lan wan").dropped == {"tenant_messages": 3}


def test_tenants_come_and_go_while_a_node_runs() -> None:
    with node_of(chain={"idle_timeout_ns": 10**9}) as node:
        clock = testing.FakeClock(node.node)
        node.pass_through("lan", *packets(1, 1))
        with pytest.raises(ManifestError, match="tenant"):
            node.node.remove_tenant("acme")
        rule = next(rule for rule in node.node.rules if rule.settings.tenant)
        node.node.remove_rule(rule)
        node.node.remove_tenant("acme")
        node.pass_through("lan", *packets(1, 1))
        assert acme(node).received == 2, "its client stays under its quotas"
        clock.advance(2)
        node.settle()
        node.node.add_tenant(TenantSettings(name="other"))
        assert [tenant.name for tenant in node.check().tenants] == ["other"]
        with pytest.raises(KeyError):
            node.node.remove_tenant("acme")


def test_a_tenant_cannot_outgrow_its_quota_by_many_clients_at_once() -> None:
    """Hostile: every client grows at once, and the sum stays within the quota but for the one that is killed for it."""
    with node_of("toil", memory=20 * PAGE) as node:
        node.pass_through("lan", *(client_packet(client, bytes([0, 3])) for client in range(1, 15)))
        assert acme(node).memory <= 20 * PAGE
        assert acme(node).killed + acme(node).refused.get("tenant_memory", 0) > 0


# ---- Listeners ----


@contextmanager
def service(kind: str, **quotas: int) -> Iterator[tuple[Node, _native.Listener]]:
    listener = _native.open_listener("web", kind, "127.0.0.1", 0)
    with Node() as node:
        node.add_port(listener)
        node.add_template(guest("echo"))
        node.add_chain(ChainSettings(name="service", path=("web", "echo"), max_fwps=16))
        node.add_tenant(TenantSettings(name="acme", **quotas))
        node.add_rule("any", chain="service", tenant="acme")
        node.start()
        yield node, listener


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_stream_waits_for_its_tenants_quota_and_loses_nothing() -> None:
    data = bytes(range(256)) * 4096
    with service("tcp", copy_rate=2_000_000) as (node, listener):
        with socket.create_connection(("127.0.0.1", listener.port_number), 30) as s:
            sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
            sender.start()
            received = bytearray()
            while part := s.recv(65536):
                received += part
            sender.join()
        assert bytes(received) == data
        statistics = node.stop()
        assert statistics.balance == 0
        assert statistics.tenant("acme").copied_bytes >= 2 * len(data)
        assert statistics.chain("service").dropped == {}


def test_connections_beyond_a_tenants_clients_are_refused() -> None:
    with service("tcp", max_clients=1) as (node, listener):
        address = ("127.0.0.1", listener.port_number)
        with socket.create_connection(address, 30) as first:
            first.sendall(b"hello")
            assert first.recv(16) == b"hello"
            # It may be turned away before connecting has come to its end.
            with pytest.raises(ConnectionError), socket.create_connection(address, 30, ("127.0.0.2", 0)) as other:
                other.recv(16)
            first.sendall(b"again")
            assert first.recv(16) == b"again"
        statistics = node.stop()
        assert statistics.port("web").refused == {"tenant_clients": 1}
        assert statistics.tenant("acme").refused == {"tenant_clients": 1}


def test_datagrams_beyond_the_rate_are_dropped() -> None:
    with service("udp", message_rate=5) as (node, listener), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", listener.port_number))
        for _ in range(40):
            s.send(b"question")
        wait_for(lambda: node.statistics().tenant("acme").refused.get("tenant_messages", 0) > 0)
        statistics = node.stop()
        assert statistics.balance == 0
        assert statistics.chain("service").dropped.keys() <= {"tenant_messages", "evicted", "ring_full"}


# ---- Manifests ----

MANIFEST = """
[port.lan]
kind = "pcap"
read = "in.pcap"
[port.wan]
kind = "pcap"
write = "out.pcap"
[template.tally]
source = "{source}"
[chain.edge]
path = ["lan", "tally", "wan"]
new_clients = "1000/s"
[tenant.acme]
{quotas}
[[rule]]
match = "any"
chain = "edge"
new_clients = 50
tenant = "{tenant}"
"""


def load(folder: Path, quotas: str, tenant: str = "acme") -> Manifest:
    (folder / "in.pcap").touch()
    file = folder / "node.toml"
    file.write_text(MANIFEST.format(source=GUESTS / "tally.c", quotas=quotas, tenant=tenant))
    return load_manifest(file)


def test_quotas_are_read_from_a_manifest(tmp_path: Path) -> None:
    quotas = 'cpu = "12.5%"\nmemory = "64MiB"\nmax_fwps = 8\ncopy_rate = "1.5MB/s"\nmessage_rate = "100/s"\n'
    manifest = load(tmp_path, quotas)
    assert manifest.tenants == (
        TenantSettings(
            name="acme", cpu=125_000_000, memory=64 << 20, max_fwps=8, copy_rate=1_500_000, message_rate=100
        ),
    )
    assert manifest.rules[0].new_clients == 50
    assert manifest.chains[0].new_clients == 1000


@pytest.mark.parametrize(
    ("quotas", "says"),
    [
        ('cpu = "12.5"', "tenant.acme.cpu"),
        ('cpu = "0.0001%"', "tenant.acme.cpu"),
        ('message_rate = "100/min"', "tenant.acme.message_rate"),
        ("message_rate = -1", "tenant.acme.message_rate"),
        ('copy_rate = "100/s per client"', "tenant.acme.copy_rate"),
        ("memry = 1", "memory"),
    ],
)
def test_bad_quotas_are_named(tmp_path: Path, quotas: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        load(tmp_path, quotas)


def test_an_unknown_tenant_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="acme"):
        load(tmp_path, "", tenant="acmee")


def test_the_example_runs_as_it_is(tmp_path: Path) -> None:
    example = EXAMPLES / "tenants.toml"
    for name in ("tenants.toml", "first-steps.pcap"):
        (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
    with Node.from_manifest(load_manifest(tmp_path / example.name)) as node:
        statistics = node.run(duration=30)
    assert statistics.balance == 0
    assert statistics.tenant("other").received == 60
    assert statistics.tenant("acme").received + statistics.tenant("acme").refused["tenant_messages"] == 90
