"""`edgeos_close` for flows of packets: the kernel forgets the flow, and with its last one a client's FWPs."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_harness import MILLISECOND_NS, Rig, client_packet, guest, line, rig
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from edgeos import ChainSettings, Grants, NodeSettings, TemplateSettings, TenantSettings, _native, testing

BACK = 0xFE
OPS_MAX = 1024
FLOWS_MAX = 1024  # of a client
OWNER = 1  # entry of a client, beside those of its flows
GRANT = Grants(timer=True, clock=True)
MOVERS = ["inline", "dedicated"]


@dataclass(frozen=True)
class Stamp:
    """What tests/guests/closer.c wrote."""

    seen: int
    flow: int
    answer: int


@contextmanager
def closing(mover: str = "inline", **chain: object) -> Iterator[Rig]:
    with line(guest("closer", grant=GRANT), settings=NodeSettings(mover=mover), **chain) as made:  # type: ignore[arg-type]
        yield made


def ask(client: int, letter: str = "-", n: int = 0, *, sport: int = 1000, verdict: int = 0) -> bytes:
    return client_packet(client, letter.encode() + struct.pack("<IB", n, verdict) + bytes(24), sport=sport)


def stamps(frames: list[bytes]) -> list[Stamp]:
    return [Stamp(*struct.unpack("<IIi", frame[-12:])) for frame in frames]


def forth(made: Rig, *frames: bytes) -> list[Stamp]:
    return stamps(made.pass_through("lan", *frames))


def back(made: Rig, *frames: bytes) -> list[Stamp]:
    return stamps(made.pass_through("wan", *(testing.reply_to(f) for f in frames), out="lan"))


def live(made: Rig) -> int:
    return made.check().chain("edge").live


def counter(made: Rig, name: str) -> int:
    return made.node.statistics().chain("edge").stages[0].counters[name]


# ---- Lives ----


@pytest.mark.parametrize("isolate", ["client", "flow"])
@pytest.mark.parametrize("mover", MOVERS)
def test_with_its_last_flow_a_client_ends_at_once(mover: str, isolate: str) -> None:
    with closing(mover, isolate=isolate) as made:
        for life in range(1, 4):
            assert forth(made, ask(1)) == [Stamp(1, 1, 0)]
            assert live(made) == 1
            assert forth(made, ask(1, "c")) == [Stamp(2, 1, 0)]
            chain = made.check().chain("edge")
            assert (chain.live, chain.activations, chain.expired) == (0, life, life)
            assert made.node.statistics().flows == 0
        assert made.node.statistics().chain("edge").stages[0].recycled == 3


def test_the_other_flows_of_a_client_go_on() -> None:
    with closing() as made:
        assert forth(made, ask(1, sport=1), ask(1, sport=2)) == [Stamp(1, 1, 0), Stamp(2, 2, 0)]
        forth(made, ask(1, "c", sport=1))
        assert back(made, ask(1, sport=2)) == [Stamp(4, 2, 0)]
        assert forth(made, ask(1, sport=1), ask(1, sport=2)) == [Stamp(5, 3, 0), Stamp(6, 2, 0)]
        forth(made, ask(1, "c", sport=2))
        assert live(made) == 1
        assert [client.flows for client in made.node.clients("edge")] == [1]
        back(made, ask(1, "c", sport=1))
        assert live(made) == 0


def test_a_shared_fwp_forgets_flows_and_never_ends_that_way() -> None:
    with closing(isolate="shared") as made:
        for life in range(5):
            assert forth(made, ask(life, "c"), ask(9, "c"))[0].flow == 2 * life + 1
            assert live(made) == 1
        assert made.node.statistics().flows == OWNER


def test_its_place_is_free_for_the_next_client() -> None:
    with closing(max_fwps=1) as made:
        for client in range(8):
            assert forth(made, ask(client, "c")) == [Stamp(1, 1, 0)]
        assert forth(made, ask(1), ask(2)) == [Stamp(1, 1, 0)]
        assert made.check().dropped == {"max_fwps": 1}


def test_a_timer_may_close_and_those_that_are_left_are_cancelled() -> None:
    with closing() as made:
        clock = testing.FakeClock(made.node)
        forth(made, ask(1, "t", 10, sport=1), ask(1, "t", 50, sport=2), ask(1, "c", sport=2))
        clock.advance(0.011)
        made.settle()
        assert (live(made), counter(made, "late")) == (0, 1)
        forth(made, ask(2))
        clock.advance(1)
        made.settle()
        assert (live(made), counter(made, "late")) == (1, 1)


def test_a_client_whose_chain_keeps_it_is_parked() -> None:
    with closing(keep=True) as made:
        forth(made, ask(1), ask(1, "c"))
        parking = made.check().chain("edge").parking
        assert (live(made), parking.parked, parking.clients) == (0, 1, 1)
        assert forth(made, ask(1)) == [Stamp(3, 2, 0)]
        assert made.check().chain("edge").parking.resumed == 1


def test_who_was_parked_is_not_parked_again_for_each_packet() -> None:
    """Laying its data over an FWP and parking them again may take long: little of the time since it came back."""
    with closing(keep=True) as made:
        clock = testing.FakeClock(made.node)
        for _ in range(20):
            forth(made, ask(1, "c"))
            assert made.check().chain("edge").parking.parked == 1
        assert (live(made), made.node.statistics().flows) == (1, OWNER)
        clock.advance(5)
        made.settle()
        assert (live(made), made.check().chain("edge").parking.parked) == (0, 2)


@pytest.mark.parametrize("mover", MOVERS)
def test_an_answer_that_is_on_its_way_through_other_stages_leaves_first(mover: str) -> None:
    bridge = TemplateSettings(name="bridge", appliance="bridge")
    with line(bridge, guest("closer", grant=GRANT), settings=NodeSettings(mover=mover)) as made:  # type: ignore[arg-type]
        for _ in range(3):
            frames = [ask(n, "c", verdict=BACK) for n in range(4)]
            assert stamps(made.pass_through("lan", *frames, out="lan")) == [Stamp(1, 1, 0)] * 4
            assert live(made) == 0


def test_a_tenants_counts_come_back() -> None:
    with line(guest("closer", grant=GRANT)) as made:
        made.node.add_tenant(TenantSettings(name="t"))
        made.node.add_rule("udp src port 7", chain="edge", tenant="t", priority=1)
        forth(made, *(ask(n, sport=7) for n in range(4)))
        (tenant,) = made.check().tenants
        assert (tenant.clients, tenant.fwps) == (4, 4)
        forth(made, *(ask(n, "c", sport=7) for n in range(4)))
        (tenant,) = made.check().tenants
        assert (tenant.clients, tenant.fwps, tenant.memory) == (0, 0, 0)


# ---- Messages that follow ----


def test_a_flow_with_messages_behind_in_the_burst_goes_on() -> None:
    with closing() as made:
        assert forth(made, ask(1, "c"), ask(1), ask(1)) == [Stamp(n, 1, 0) for n in (1, 2, 3)]
        assert forth(made, ask(1)) == [Stamp(4, 1, 0)]
        assert forth(made, ask(1, "c"), ask(2), ask(1, "c"))[-1].flow == 1
        assert live(made) == 1


def make_slow(made: Rig, client: int) -> None:
    """Until its next burst holds one message."""
    for _ in range(4):
        forth(made, ask(client, "s", 2))


def test_a_flow_with_messages_behind_in_the_ring_goes_on() -> None:
    with closing() as made:
        make_slow(made, 1)
        before = made.node.statistics().chain("edge").stages[0].bursts
        assert forth(made, ask(1, "c"), ask(1)) == [Stamp(5, 1, 0), Stamp(6, 1, 0)]
        assert made.node.statistics().chain("edge").stages[0].bursts == before + 2
        assert forth(made, ask(1)) == [Stamp(7, 1, 0)]


def test_a_client_in_debt_stays_until_its_idle_timeout() -> None:
    with closing(idle_timeout_ns=100 * MILLISECOND_NS) as made:
        clock = testing.FakeClock(made.node)
        make_slow(made, 1)
        assert forth(made, ask(1, "g", 3)) == [Stamp(5, 1, 0)]
        assert live(made) == 1
        assert forth(made, ask(1)) == [Stamp(6, 2, 0)]
        clock.advance(0.2)
        made.settle()
        assert live(made) == 0


# ---- Hostile guests ----


def test_what_there_is_not_is_refused() -> None:
    with closing() as made:
        assert forth(made, ask(1, "x")) == [Stamp(1, 1, -1)]
        assert forth(made, ask(1, "n", 0), ask(1, "n", 2), ask(1, "n", 0xFFFFFFFF)) == [
            Stamp(n, 1, -1) for n in (2, 3, 4)
        ]
        forth(made, ask(2, sport=5), ask(2, sport=6))
        assert forth(made, ask(1, "n", 2))[0].answer == -1
        assert [client.flows for client in made.node.clients("edge")] == [1, 2]


def test_a_flow_that_is_over_already_is_no_news() -> None:
    with closing() as made:
        forth(made, ask(1), ask(1, sport=2))
        assert forth(made, ask(1, "d")) == [Stamp(3, 1, 0)]
        assert forth(made, ask(1, "n", 1, sport=2), ask(1, "n", 1, sport=2))[0].answer == 0
        assert forth(made, ask(1))[0].flow == 3
        assert live(made) == 1


@pytest.mark.parametrize("index", [0, 63, 64, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wrong_index_harms_nobody(index: int) -> None:
    with closing() as made:
        forth(made, ask(1, "i", index), ask(1), ask(2))
        assert forth(made, ask(1))[0].flow == 1
        forth(made, ask(1, "i", index), ask(2))
        made.check()


def test_one_burst_ends_so_many_flows_and_no_more() -> None:
    with closing(isolate="shared") as made:
        for client in range(5):
            forth(made, *(ask(client, sport=port) for port in range(300)))
        assert forth(made, ask(9, "a", 1500))[0].answer == -1
        assert counter(made, "accepted") == OPS_MAX
        assert made.node.statistics().flows == OWNER + 1501 - OPS_MAX


@pytest.mark.parametrize("mover", MOVERS)
def test_a_burst_that_ends_in_a_fault_ends_no_flow(mover: str) -> None:
    with closing(mover) as made:
        forth(made, ask(1), ask(1, "k"))
        chain = made.check().chain("edge")
        assert (chain.kills, chain.dropped) == ({"trap": 1}, {"killed": 2})
        assert forth(made, ask(1))[0] == Stamp(1, 1, 0)


def test_a_blocked_client_stays_blocked() -> None:
    with line(*(guest(name, "closer", grant=GRANT) for name in ("first", "second")), on_kill="block") as made:
        assert forth(made, ask(1, "m")) == []
        chain = made.check().chain("edge")
        assert (chain.kills, chain.live) == ({"trap": 1}, 1)
        assert forth(made, ask(1)) == []
        assert made.check().chain("edge").dropped == {"killed": 1, "blocked": 1}


# ---- The flow table ----


def fragments(client: str) -> list[bytes]:
    whole = bytes(UDP(sport=1000, dport=53, len=8 + 120, chksum=0) / Raw(b"c" + bytes(119)))
    ip = {"src": client, "dst": "192.0.2.1", "id": 7, "proto": 17}
    macs = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
    parts = [(whole[:64], 0, 1), (whole[64:], 8, 0)]
    return [bytes(Ether(**macs) / IP(**ip, frag=at, flags=more) / Raw(part)) for part, at, more in parts]


def test_later_fragments_do_not_hold_a_client() -> None:
    with closing() as made:
        clock = testing.FakeClock(made.node)
        first, later = fragments("10.0.0.1")
        forth(made, first)
        assert live(made) == 0
        assert made.node.statistics().flows == 0
        forth(made, later)
        clock.advance(2)
        made.settle()
        assert made.check().dropped == {"fragment_orphan": 1}


def test_an_icmp_error_about_a_flow_that_is_over_belongs_to_its_sender() -> None:
    with closing() as made:
        frame = ask(1)
        forth(made, frame)
        error = bytes(
            Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
            / IP(src="192.0.2.9", dst="10.0.0.1")
            / ICMP(type=3, code=1)
            / Raw(frame[14:])
        )
        made.pass_through("wan", error, out="lan")
        assert live(made) == 1
        forth(made, ask(1, "c"))
        made.pass_through("wan", error, out="lan")
        assert live(made) == 1
        assert forth(made, ask(1, "c")) == [Stamp(2, 1, 0)]
        assert live(made) == 0


def test_packets_without_an_entry_keep_their_client() -> None:
    """With a full flow table: the guest may hold something of flow 0, which cannot be closed."""
    with line(guest("closer", grant=GRANT), settings=NodeSettings(max_flows=16)) as made:
        forth(made, *(ask(1, sport=port) for port in range(16)))
        assert forth(made, ask(2, "c")) == [Stamp(1, 0, -1)]
        forth(made, ask(1, "a", 16, sport=15))
        assert live(made) == 1
        assert forth(made, ask(2, "c")) == [Stamp(2, 1, 0)]
        assert live(made) == 1


def test_flows_that_gave_way_keep_their_client() -> None:
    """The guest may hold something of a flow that has no entry any more."""
    with closing() as made:
        for port in range(FLOWS_MAX + 1):
            forth(made, ask(1, sport=port))
        forth(made, ask(1, "a", 1000, sport=FLOWS_MAX), ask(1, "a", FLOWS_MAX + 1, sport=FLOWS_MAX))
        forth(made, *(ask(1, "n", flow, sport=FLOWS_MAX) for flow in range(1000, FLOWS_MAX + 2)))
        assert made.node.statistics().flows == OWNER
        assert live(made) == 1


def test_guests_that_say_nothing_have_no_numbers_kept() -> None:
    """Nothing is asked of a chain whose guests do not import the call; flows of other chains are not its business."""
    templates = [guest("closer", grant=GRANT), guest("tally")]
    chains = [ChainSettings(name=t.name, path=("lan", t.name, "wan"), max_fwps=8) for t in templates]
    rules = [("udp src port 1000", "closer"), ("any", "tally")]
    with rig(templates, chains, rules) as made:
        made.pass_through("lan", ask(1, sport=7), ask(1), ask(1, "a", 5))
        statistics = made.check()
        assert [statistics.chain(t.name).live for t in templates] == [0, 1]
        assert statistics.flows == OWNER + 1


def test_flows_of_packets_end_beside_listeners() -> None:
    templates = [guest("closer", grant=GRANT), guest("echo")]
    chains = [
        ChainSettings(name="edge", path=("lan", "closer", "wan"), max_fwps=8),
        ChainSettings(name="service", path=("web", "echo"), max_fwps=8),
    ]
    listener = _native.open_listener("web", "tcp", "127.0.0.1", 0)
    with rig(templates, chains, [("any", "edge"), ("any", "service")]) as made, socket.socket() as client:
        made.node.add_port(listener)
        assert forth(made, ask(1), ask(1, "x")) == [Stamp(1, 1, 0), Stamp(2, 1, -1)]
        client.connect(("127.0.0.1", listener.port_number))
        client.sendall(b"hello")
        made.settle()
        assert client.recv(10) == b"hello"
        assert forth(made, ask(1, "c")) == [Stamp(3, 1, 0)]
        statistics = made.check()
        assert [statistics.chain(name).live for name in ("edge", "service")] == [0, 1]


SYN, RST, ACK = 0x02, 0x04, 0x10


def tcp(flags: int, seq: int = 100, ack: int = 0, payload: bytes = b"") -> bytes:
    return testing.tcp_packet("10.0.0.1", "192.0.2.1", payload, flags=flags, seq=seq, ack=ack)


def answer(made: Rig, frame: bytes) -> tuple[int, int]:
    """Sequence number and flags of the segment that comes back."""
    (back,) = made.pass_through("lan", frame, out="lan")
    return struct.unpack_from("!I", back, 38)[0], back[47]


def test_a_guest_that_speaks_tcp_lets_its_client_go_with_the_last_connection() -> None:
    echo = guest("echo", tcp=True, grant=Grants(timer=True, random=True))
    with rig([echo], [ChainSettings(name="edge", path=("lan", "echo"), max_fwps=8)]) as made:
        for life in range(1, 4):
            first, flags = answer(made, tcp(SYN))
            assert flags == SYN | ACK
            answer(made, tcp(ACK, 101, first + 1, b"hello"))
            assert live(made) == 1
            made.pass_through("lan", tcp(RST, 106))
            chain = made.check().chain("edge")
            assert (chain.live, chain.activations, chain.expired) == (0, life, life)
        assert answer(made, tcp(ACK, 101, 1)) == (1, RST)
        assert live(made) == 0


# ---- All of it together ----

packets = st.builds(
    ask,
    st.integers(0, 4),
    st.sampled_from("--cccdaxkm"),
    st.integers(0, 12),
    sport=st.integers(1, 4),
    verdict=st.sampled_from([0, 0, 0, BACK, 0xFF]),
)
steps = st.lists(st.tuples(st.sampled_from(["lan", "wan", "time"]), st.lists(packets, max_size=30)), max_size=12)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    steps,
    st.sampled_from(["shared", "client", "flow"]),
    st.sampled_from(MOVERS),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([16, 64]),
)
def test_every_message_is_accounted_for_and_no_number_names_two_flows(
    script: list[tuple[str, list[bytes]]],
    isolate: str,
    mover: str,
    stages: int,
    keep: bool,
    lossless: bool,
    max_flows: int,
) -> None:
    closers = [guest(f"c{n}", "closer", grant=GRANT, slots=8 << n) for n in range(stages)]
    node = NodeSettings(mover=mover, max_flows=max_flows)  # type: ignore[arg-type]
    shared = isolate == "shared"
    life_ns = (3600 if shared else 1) * 10**9
    chain = {"isolate": isolate, "max_fwps": 6, "keep": keep and not shared, "idle_timeout_ns": life_ns}
    with line(*closers[:-1], closers[-1], lossless=lossless, settings=node, **chain) as made:
        clock = testing.FakeClock(made.node)
        for what, batch in script:
            if what == "time":
                clock.advance(0.7)
            else:
                made.inject(what, *(batch if what == "lan" else map(testing.reply_to, batch)))
            made.node.run_once()
            made.check()
        for _ in range(20):
            made.node.run_once()
            made.check()
        if shared and stages == 1:
            check_numbers(made.take("wan") + made.take("lan"))
        stopped = made.node.stop()
        assert (stopped.balance, stopped.in_flight) == (0, 0)


def check_numbers(frames: list[bytes]) -> None:
    """What one client has had, in one life: each number has one pair of ends."""
    ends: dict[int, bytes] = {}
    for frame, stamp in zip(frames, stamps(frames), strict=True):
        pair = min(frame[26:38], frame[30:34] + frame[26:30] + frame[36:38] + frame[34:36])
        assert ends.setdefault(stamp.flow, pair) == pair
