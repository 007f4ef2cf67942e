"""The soak's own checks: that they notice what they are there for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from node_harness import client_packet, guest, line

pytest.importorskip("pyroute2")

from soak.run import Soak
from soak.traffic import Tally


def test_messages_that_are_not_accounted_for_are_a_problem() -> None:
    soak = Soak(cast(Any, None), cast(Any, None), cast(Any, None), 0.0)
    with line(guest("tally")) as rig:
        rig.pass_through("lan", client_packet(1), client_packet(2))
        statistics = rig.check()
    soak.check(statistics, "calm")
    assert soak.problems == []
    soak.check(replace(statistics, received=statistics.received + 1), "flood")
    assert soak.problems == ["flood: 1 messages of the node are not accounted for"]
    chain = replace(statistics.chains[0], sent=0)
    soak.check(replace(statistics, chains=(chain,)), "flood")
    assert soak.problems[-1] == "flood: 2 messages of edge are not accounted for"


def test_a_stretch_with_a_loss_or_a_failure_is_not_flawless() -> None:
    assert Tally(sent=5, arrived=5, exchanges={80: 1}).flawless
    assert not Tally(sent=5, arrived=4, exchanges={80: 1}).flawless
    assert not Tally(sent=5, arrived=5, exchanges={80: 1, 81: 0}).flawless
    assert not Tally(sent=5, arrived=5, exchanges={80: 1}, failures={"TimeoutError": 1}).flawless
    assert not Tally(exchanges={80: 1}).flawless
