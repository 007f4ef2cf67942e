"""Laws of every node: no message is lost or counted twice, whatever guests, topologies and packets there are."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_harness import GUESTS, MILLISECOND_NS, Rig, client_packet, line, rig

from edgeos import ChainSettings, NodeSettings, TemplateSettings, testing

ACTS = 14
LOOP = 8
STAGES_MAX = 4


@dataclass(frozen=True)
class Topology:
    """A chain and how its node runs."""

    slots: tuple[int, ...]  # by stage
    isolate: str
    when_full: str
    on_kill: str
    max_fwps: int
    lossless: bool
    mover: str
    graph: bool  # the last stage has a second out port

    def templates(self) -> list[TemplateSettings]:
        return [
            TemplateSettings(
                name=f"s{stage}",
                source=GUESTS / "actor.c",
                config=str(stage).encode(),
                slots=slots,
                slot_size=256 if stage % 2 else 512,
                budget_ns=MILLISECOND_NS,
                ready_low=1,
                ready_high=2,
            )
            for stage, slots in enumerate(self.slots)
        ]

    def chain(self) -> ChainSettings:
        names = [f"s{stage}" for stage in range(len(self.slots))]
        shape: dict[str, tuple[str, ...]] = {"path": ("lan", *names, "wan")}
        if self.graph:
            shape = {"links": (" -> ".join(["lan", *names, "wan"]), f"{names[-1]}[1] -> audit")}
        return ChainSettings(
            name="edge",
            isolate=self.isolate,  # type: ignore[arg-type]
            when_full=self.when_full,  # type: ignore[arg-type]
            on_kill=self.on_kill,  # type: ignore[arg-type]
            max_fwps=self.max_fwps,
            idle_timeout_ns=10**9,
            **shape,
        )

    def ports(self) -> tuple[str, ...]:
        return ("lan", "wan", "audit") if self.graph else ("lan", "wan")


topologies = st.builds(
    Topology,
    slots=st.lists(st.sampled_from([8, 16, 64]), min_size=1, max_size=STAGES_MAX).map(tuple),
    isolate=st.sampled_from(["shared", "client", "flow"]),
    when_full=st.sampled_from(["refuse", "evict"]),
    on_kill=st.sampled_from(["restart", "block"]),
    max_fwps=st.integers(STAGES_MAX, 24),
    lossless=st.booleans(),
    mover=st.sampled_from(["inline", "dedicated"]),
    graph=st.booleans(),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A packet for the actors, or any bytes; a loop, which costs its budget, is rare."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=80))
    acts = st.integers(0, ACTS - 1).map(lambda act: 0 if act == LOOP else act)
    act = LOOP if draw(st.integers(0, 49)) == 0 else draw(acts)
    script = bytearray(2 * STAGES_MAX)
    stage = draw(st.integers(0, STAGES_MAX - 1))
    script[2 * stage : 2 * stage + 2] = bytes([act, draw(st.sampled_from([0, 1, 2, 40, 200]))])
    padding = bytes(draw(st.sampled_from([0, 0, 0, 230, 500])))
    return client_packet(draw(st.integers(0, 9)), bytes(script) + padding, sport=draw(st.integers(1, 3)))


def reply(frame: bytes) -> bytes:
    return testing.reply_to(frame) if frame[12:14] == b"\x08\x00" and len(frame) > 42 else frame


steps = st.lists(
    st.one_of(
        st.tuples(st.just("lan"), st.lists(frames(), max_size=40)),
        st.tuples(st.just("wan"), st.lists(frames().map(reply), max_size=40)),
        st.tuples(st.just("audit"), st.lists(frames(), max_size=5)),
        st.tuples(st.just("time"), st.just([])),
    ),
    max_size=8,
)


def step(rig: Rig, clock: testing.FakeClock, what: str, batch: list[bytes]) -> None:
    if what == "time":
        clock.advance(1.5)
    elif what in rig.ports:
        rig.inject(what, *batch)
    rig.node.run_once()
    rig.check()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(topologies, steps)
def test_every_message_is_accounted_for_at_every_step(
    topology: Topology, script: list[tuple[str, list[bytes]]]
) -> None:
    node_settings = NodeSettings(mover=topology.mover, max_flows=16)  # type: ignore[arg-type]
    with rig(
        topology.templates(),
        [topology.chain()],
        ports=topology.ports(),
        lossless=topology.lossless,
        settings=node_settings,
    ) as made:
        clock = testing.FakeClock(made.node)
        for what, batch in script:
            step(made, clock, what, batch)
        # Enough for every message that waits; not to rest, since a lossless port may stay blocked.
        for _ in range(20):
            step(made, clock, "rest", [])
        statistics = made.check()
        chain = statistics.chain("edge")
        assert chain.live <= topology.max_fwps
        assert chain.sent == sum(port.sent for port in statistics.ports)
        assert statistics.received == sum(port.received for port in statistics.ports)
        stopped = made.node.stop()
        assert stopped.balance == 0
        assert stopped.in_flight == 0
        assert stopped.chain("edge").balance == 0
        taken = sum(len(made.take(port)) for port in made.ports)
        assert taken == stopped.sent


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.binary(min_size=14, max_size=900)), max_size=80),
    st.integers(1, STAGES_MAX),
    st.sampled_from(["inline", "dedicated"]),
)
def test_what_goes_in_comes_out_byte_for_byte_and_in_order(
    packets: list[tuple[int, int, bytes]], length: int, mover: str
) -> None:
    bridges = [TemplateSettings(name=f"b{n}", appliance="bridge", ready_low=1, ready_high=2) for n in range(length)]
    sent = [client_packet(client, payload, sport=sport) for client, sport, payload in packets]
    with line(*bridges, lossless=True, settings=NodeSettings(mover=mover)) as made:  # type: ignore[arg-type]
        got = made.pass_through("lan", *sent)
        by_flow = lambda all_, key: [f for f in all_ if (f[26:30], f[34:36]) == key]  # noqa: E731
        assert sorted(got) == sorted(sent)
        for key in {(f[26:30], f[34:36]) for f in sent}:
            assert by_flow(got, key) == by_flow(sent, key)
