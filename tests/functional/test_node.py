"""What a node does with messages, seen from its memory ports."""

from __future__ import annotations

import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import MILLISECOND_NS, Rig, client_packet, guest, line, rig

from edgeos import ChainSettings, EdgeosError, Node, NodeSettings, TemplateSettings, testing

FORWARD, DROP, BACK, EMIT, EMIT_BACK, TRAP = range(6)
LOOP, SHORTEN, LENGTHEN, PORT = 8, 10, 11, 13
MOVERS = ["inline", "dedicated"]


def mover(name: str) -> NodeSettings:
    return NodeSettings(mover=name)  # type: ignore[arg-type]


def actor(stage: int = 0, **more: object) -> TemplateSettings:
    return guest(f"actor{stage}", "actor", config=str(stage).encode(), **more)


def acts(client: int, *pairs: tuple[int, int], mark: int = 0, sport: int = 40000) -> bytes:
    """A packet that says what each stage in turn does with it; `mark` tells it from others."""
    script = b"".join(bytes(pair) for pair in pairs).ljust(16, b"\0")
    return client_packet(client, script + struct.pack("<I", mark), sport=sport)


# ---- Order, limits, reasons ----


@pytest.mark.parametrize("name", MOVERS)
def test_order_within_a_flow_is_kept_through_a_long_chain(name: str) -> None:
    with line(*(actor(stage) for stage in range(4)), settings=mover(name), lossless=True) as rig:
        frames = [acts(n % 3, mark=n, sport=n % 2) for n in range(600)]
        out = rig.pass_through("lan", *frames)
        assert sorted(out) == sorted(frames)
        flow = lambda frame: (frame[29], frame[34:36])  # noqa: E731
        for key in {flow(frame) for frame in frames}:
            assert [f for f in out if flow(f) == key] == [f for f in frames if flow(f) == key]


def test_a_port_that_may_drop_drops_what_a_full_chain_cannot_take() -> None:
    with line(actor(slots=8)) as rig:
        statistics = rig.settle()
        rig.inject("lan", *(acts(1, mark=n) for n in range(32)))
        rig.node.run_once()
        statistics = rig.settle()
        assert statistics.chain("edge").dropped == {"ring_full": 28}
        assert len(rig.take("wan")) == 4


def test_a_lossless_port_waits_instead() -> None:
    with line(actor(slots=8), lossless=True) as rig:
        frames = [acts(1, mark=n) for n in range(500)]
        assert rig.pass_through("lan", *frames) == frames
        assert rig.check().chain("edge").dropped == {}


def test_packets_too_short_or_too_long() -> None:
    with line(actor()) as rig:
        edge = client_packet(1, bytes(2048 - 42))
        rig.inject("lan", b"", bytes(13), bytes(65535), edge, edge + b"x", bytes(14))
        statistics = rig.settle()
        assert rig.take("wan") == [edge, bytes(14)]
        assert statistics.dropped == {"malformed": 2}
        assert statistics.chain("edge").dropped == {"oversize": 2}


def test_a_message_too_long_for_the_next_stage_is_dropped_there() -> None:
    with line(actor(0), actor(1, slot_size=256)) as rig:
        small, large = acts(1), client_packet(1, bytes(300))
        assert rig.pass_through("lan", small, large, acts(1, (LENGTHEN, 0)), small) == [small, small]
        assert rig.check().chain("edge").dropped == {"oversize": 2}
        (back,) = rig.pass_through("wan", testing.reply_to(small), out="lan")
        assert back == testing.reply_to(small)


def test_a_full_port_of_exit_is_counted() -> None:
    chain = ChainSettings(name="edge", path=("lan", "actor0", "wan"), max_fwps=8)
    with rig([actor()], [chain], capacity=10) as node:
        for n in range(20):
            node.inject("lan", acts(1, mark=n))
            node.settle()
        assert node.check().chain("edge").dropped == {"tx_full": 10}
        assert len(node.take("wan")) == 10


def test_rules_decide_in_order() -> None:
    chains = [ChainSettings(name=n, path=("lan", f"actor{i}", "wan"), max_fwps=4) for i, n in enumerate(("a", "b"))]
    rules = [("udp dst port 53", "a"), ("udp dst port 80", "drop"), ("udp dst port 1-99", "b")]
    with rig([actor(0), actor(1)], chains, rules) as node:
        node.pass_through("lan", *(client_packet(1, dport=port) for port in (53, 80, 99, 100)))
        statistics = node.check()
        assert (statistics.chain("a").received, statistics.chain("b").received) == (1, 1)
        assert statistics.dropped == {"rule": 1, "no_rule": 1}


# ---- Verdicts and emits ----


def test_back_sends_a_message_the_way_it_came() -> None:
    with line(actor(0), actor(1)) as rig:
        early, late = acts(1, (BACK, 0)), acts(1, (FORWARD, 0), (BACK, 0))
        assert rig.pass_through("lan", early, out="lan") == [early]
        rig.inject("lan", late)
        rig.settle()
        # Stage 0 sees it again, on its way back, and lets it on.
        assert rig.take("lan") == [late]
        assert rig.take("wan") == []
        assert rig.pass_through("wan", early, out="lan") == []
        assert rig.take("wan") == [early], "what came from the far side goes back there"


def test_a_ball_between_two_stages_is_dropped_after_so_many_hops() -> None:
    """Two guests send it to each other by BACK; only the hop limit ends the game."""
    with line(guest("pong0", "pong", config=b"0"), guest("pong1", "pong", config=b"1")) as rig:
        assert rig.pass_through("lan", acts(1)) == []
        chain = rig.check().chain("edge")
        assert chain.dropped == {"hop_limit": 1}
        assert sum(stage.handled for stage in chain.stages) == 65


def test_emitted_messages_go_before_the_message_they_were_made_for() -> None:
    with line(actor()) as rig:
        first, second = acts(1, (EMIT, 2), mark=1), acts(1, (EMIT, 1), mark=2)
        assert rig.pass_through("lan", first, second) == [first, first, first, second, second]
        chain = rig.check().chain("edge")
        assert (chain.received, chain.emitted, chain.sent, chain.emit_refused) == (2, 3, 5, 0)


def test_emitting_back_answers_a_client() -> None:
    with line(actor()) as rig:
        frame = acts(1, (EMIT_BACK, 3))
        assert rig.pass_through("lan", frame, out="lan") == [frame] * 3
        assert rig.take("wan") == []


def test_emits_beyond_the_room_are_refused_and_counted() -> None:
    with line(actor()) as rig:
        frame = acts(1, (EMIT, 200))
        out = rig.pass_through("lan", frame)
        chain = rig.check().chain("edge")
        assert out == [frame] * len(out)
        assert chain.emitted == len(out) - 1
        assert 32 <= chain.emitted <= 64
        assert chain.emitted + chain.emit_refused == 200


def test_bytes_that_may_be_emitted_are_bounded() -> None:
    with line(actor(slot_size=65536, memory=8 * 1024 * 1024)) as rig:
        frame = acts(1, (EMIT, 30)) + bytes(60_000)
        out = rig.pass_through("lan", frame)
        assert len(out) == 1 + 256 * 1024 // len(frame)
        assert rig.check().chain("edge").emit_refused == 30 - (len(out) - 1)


def test_a_graph_with_several_out_ports() -> None:
    chain = ChainSettings(
        name="edge",
        links=("lan -> actor0", "actor0 -> actor1 -> wan", "actor0[1] -> audit"),
        max_fwps=16,
    )
    with rig([actor(0), actor(1)], [chain], ports=("lan", "wan", "audit")) as node:
        main, aside = acts(1, (PORT, 0)), acts(1, (PORT, 1))
        node.inject("lan", main, aside, main)
        node.settle()
        assert node.take("wan") == [main, main]
        assert node.take("audit") == [aside]
        reply = testing.reply_to(main)
        assert node.pass_through("wan", reply, out="lan") == [reply]
        reply = testing.reply_to(aside)[:42] + acts(1)[42:]
        assert node.pass_through("audit", reply, out="lan") == [reply]


# ---- Clients that come and go ----


def live(rig: Rig) -> int:
    return rig.check().chain("edge").live


def test_idle_clients_leave_after_the_timeout_and_not_before() -> None:
    with line(actor(0), actor(1), idle_timeout_ns=30 * 10**9) as rig:
        clock = testing.FakeClock(rig.node)
        rig.pass_through("lan", acts(1), acts(2))
        assert live(rig) == 4
        clock.advance(20)
        rig.pass_through("lan", acts(2))
        clock.advance(12)
        rig.settle()
        assert [c.address for c in rig.node.clients("edge")] == ["10.0.0.2"]
        clock.advance(20)
        statistics = rig.settle()
        assert live(rig) == 0
        assert statistics.flows == 0
        assert statistics.chain("edge").expired == 2
        assert statistics.chain("edge").activations == 2


def test_at_the_limit_new_clients_are_refused() -> None:
    with line(actor(), max_fwps=2, when_full="refuse") as rig:
        frames = [acts(client) for client in (1, 2, 3, 1)]
        # Packets of one client leave together, so the last one overtakes that of client 2.
        assert sorted(rig.pass_through("lan", *frames)) == sorted([frames[0], frames[1], frames[3]])
        assert rig.check().dropped == {"max_fwps": 1}
        assert live(rig) == 2


def test_at_the_limit_the_longest_idle_client_is_evicted() -> None:
    with line(actor(), max_fwps=2, when_full="evict") as rig:
        clock = testing.FakeClock(rig.node)
        for client in (1, 2, 1, 3):
            clock.advance(10)
            assert len(rig.pass_through("lan", acts(client))) == 1
        chain = rig.check().chain("edge")
        assert (chain.evicted, chain.live, chain.peak) == (1, 2, 2)
        assert {c.address for c in rig.node.clients("edge")} == {"10.0.0.1", "10.0.0.3"}


def test_the_limit_counts_all_stages() -> None:
    with line(actor(0), actor(1), max_fwps=5) as rig:
        rig.pass_through("lan", *(acts(client) for client in range(5)))
        assert live(rig) == 4


def test_after_a_kill_the_client_starts_over_or_is_blocked() -> None:
    with line(actor(), on_kill="restart") as rig:
        rig.pass_through("lan", acts(1, (TRAP, 0)))
        assert len(rig.pass_through("lan", acts(1))) == 1
    with line(actor(), on_kill="block") as rig:
        rig.pass_through("lan", acts(1, (TRAP, 0)), acts(2))
        assert rig.pass_through("lan", acts(1), acts(2)) == [acts(2)]
        assert rig.check().chain("edge").dropped == {"killed": 1, "blocked": 1}
        assert {c.address: c.blocked for c in rig.node.clients("edge")} == {"10.0.0.1": True, "10.0.0.2": False}


def test_a_kill_in_one_stage_spares_the_others() -> None:
    with line(guest("tally"), actor(0)) as rig:
        rig.pass_through("lan", acts(1, (TRAP, 0)))
        (frame,) = rig.pass_through("lan", acts(1))
        assert struct.unpack("<I", frame[-12:-8]) == (2,), "the first stage's FWP lives on"


def test_recycled_fwps_start_at_the_checkpoint() -> None:
    with line(guest("tally", ready_high=1), max_fwps=1, idle_timeout_ns=10**9) as rig:
        clock = testing.FakeClock(rig.node)
        for client in range(30):
            for expected in (1, 2):
                (frame,) = rig.pass_through("lan", client_packet(client, bytes(30)))
                assert struct.unpack("<I", frame[-12:-8]) == (expected,)
            clock.advance(2)
            rig.settle()


def test_activations_are_timed() -> None:
    with line(actor()) as rig:
        rig.pass_through("lan", *(acts(client) for client in range(20)))
        chain = rig.check().chain("edge")
        assert chain.activations == 20
        assert 0 < chain.activation_p50_ns <= chain.activation_p99_ns <= chain.activation_max_ns < 10**9


# ---- Both movers alike ----

scripts = st.lists(
    st.tuples(
        st.integers(0, 3),  # client
        st.sampled_from([FORWARD, FORWARD, DROP, BACK, EMIT, EMIT_BACK, TRAP, 6, 7, 9, SHORTEN, LENGTHEN, 12]),
        st.integers(0, 5),
        st.booleans(),  # from the far side
    ),
    max_size=40,
)


def outputs(name: str, script: list[tuple[int, int, int, bool]]) -> tuple[object, ...]:
    with line(actor(0), actor(1), settings=mover(name), lossless=True) as rig:
        for number, (client, act, parameter, reverse) in enumerate(script):
            stage_acts = ((act, parameter), (FORWARD, 0)) if number % 2 else ((FORWARD, 0), (act, parameter))
            frame = acts(client, *stage_acts, mark=number)
            rig.inject("wan" if reverse else "lan", testing.reply_to(frame) if reverse else frame)
            rig.settle()
        chain = rig.check().chain("edge")
        return (rig.take("wan"), rig.take("lan"), chain.dropped, chain.kills, chain.emitted, chain.emit_refused)


@settings(max_examples=25, deadline=None)
@given(scripts)
def test_both_movers_do_the_same(script: list[tuple[int, int, int, bool]]) -> None:
    assert outputs("inline", script) == outputs("dedicated", script)


# ---- The life of a node ----


@pytest.mark.parametrize("name", MOVERS)
def test_a_node_on_its_own_thread(name: str) -> None:
    with line(actor(), settings=mover(name)) as rig:
        rig.node.start()
        for n in range(50):
            rig.inject("lan", acts(n % 5, mark=n))
            assert rig.check()
        deadline = time.monotonic() + 5
        while rig.check().sent < 50 and time.monotonic() < deadline:
            time.sleep(0.001)
        statistics = rig.node.stop()
        assert (statistics.sent, statistics.balance) == (50, 0)


@pytest.mark.parametrize("name", MOVERS)
def test_stop_ends_a_guest_in_an_endless_loop(name: str) -> None:
    with line(actor(budget_ns=300 * MILLISECOND_NS), settings=mover(name)) as rig:
        rig.node.start()
        rig.inject("lan", acts(1, (LOOP, 0)), *(acts(1, mark=n) for n in range(5)))
        time.sleep(0.05)
        start = time.monotonic()
        statistics = rig.node.stop()
        assert time.monotonic() - start < 5
        assert statistics.chain("edge").kills == {"budget": 1}
        assert statistics.balance == 0


def test_a_node_that_was_stepped_is_not_started() -> None:
    """The CPU time of guests is watched on the thread that ran them first."""
    with line(actor()) as rig:
        rig.settle()
        with pytest.raises(EdgeosError):
            rig.node.start()
        assert rig.pass_through("lan", acts(1)) == [acts(1)]


def test_a_stopped_node_says_so_and_stays_readable() -> None:
    with line(actor()) as rig:
        rig.pass_through("lan", acts(1))
        rig.node.stop()
        for call in (rig.node.run_once, rig.node.start):
            with pytest.raises(EdgeosError):
                call()
        assert rig.node.statistics().sent == 1
        assert rig.node.stop().sent == 1


def test_a_running_node_is_not_started_or_stepped() -> None:
    with line(actor()) as rig:
        rig.node.start()
        for call in (rig.node.run_once, rig.node.start):
            with pytest.raises(EdgeosError):
                call()


def test_what_is_in_flight_when_a_node_stops_is_counted() -> None:
    with line(actor(slots=8), lossless=True) as rig:
        rig.settle()
        rig.inject("lan", *(acts(1, mark=n) for n in range(32)))
        rig.node.run_once()
        assert rig.check().in_flight > 0
        statistics = rig.node.stop()
        assert statistics.in_flight == 0
        assert statistics.balance == 0


def test_statistics_may_be_asked_from_another_thread_while_the_node_is_stepped_and_stopped() -> None:
    with line(guest("tally")) as rig:
        done = threading.Event()
        balances: list[int] = []

        def ask() -> None:
            while not done.is_set():
                balances.append(rig.node.statistics().balance)

        asker = threading.Thread(target=ask)
        asker.start()
        for number in range(300):
            rig.inject("lan", client_packet(number % 200, b"x"))
            rig.node.run_once()
        rig.node.stop()
        done.set()
        asker.join(10)
        assert balances
        assert set(balances) == {0}


def test_another_thread_cannot_go_on_stepping() -> None:
    with line(guest("tally")) as rig:
        rig.node.run_once()
        caught: list[str] = []

        def step() -> None:
            with pytest.raises(EdgeosError) as error:
                rig.node.run_once()
            caught.append(str(error.value))

        stepper = threading.Thread(target=step)
        stepper.start()
        stepper.join(10)
        assert "another thread" in caught[0]


@pytest.mark.alone
@pytest.mark.parametrize("wait", ["adaptive", "block"])
def test_an_idle_node_uses_no_cpu(wait: str) -> None:
    with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, Node(NodeSettings(wait=wait)) as node:  # type: ignore[arg-type]
        node.add_port(lan)
        node.add_port(wan)
        node.add_template(guest("tally"))
        node.add_chain(ChainSettings(name="edge", path=("lan", "tally", "wan")))
        node.add_rule("any", chain="edge")
        node.start()
        for client in range(50):
            assert lan.inject(client_packet(client))
        time.sleep(0.3)
        before = time.process_time()
        time.sleep(1.0)
        used = time.process_time() - before
        assert node.statistics().chain("edge").live == 50
        assert used < 0.02
