"""A light client beside a heavy one: what counts is in which order their messages come out."""

from __future__ import annotations

import pytest
from node_harness import MILLISECOND_NS, client_packet, guest, line

from edgeos import NodeSettings

HEAVY, LIGHT = 1, 2
WORK = bytes([20, 0])  # some milliseconds in the guest toil
REST = bytes([0, 0])


@pytest.mark.parametrize("mover", ["inline", "dedicated"])
def test_a_light_client_passes_a_heavy_one(mover: str) -> None:
    """One after the other the heavy client's messages would all come first."""
    settings = NodeSettings(mover=mover)  # type: ignore[arg-type]
    toil = guest("toil", budget_ns=10_000 * MILLISECOND_NS)
    with line(toil, settings=settings) as node:
        # The node learns from its first bursts that this client is heavy.
        for _ in range(3):
            node.pass_through("lan", *[client_packet(HEAVY, WORK)] * 2)
        heavy = [client_packet(HEAVY, WORK)] * 12
        light = [client_packet(LIGHT, REST, sport=port) for port in range(1, 9)]
        out = node.pass_through("lan", *heavy, *light)
        assert len(out) == 20
        last_light = max(index for index, data in enumerate(out) if data in light)
        assert last_light < 8 + 3, "the light client waited for the heavy one's messages"
        assert [data for data in out if data in light] == light, "a flow keeps its order"
