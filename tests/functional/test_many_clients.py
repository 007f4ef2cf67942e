"""Thousands of clients that live at the same time, each in an FWP of its own, all of them answered again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeos import LimitError
from edgeos.bench.live import live_clients
from edgeos.bench.programs import SOURCES
from edgeos.code_cache import CodeCache
from edgeos.guest_build import build

ROUNDS = 4


@pytest.fixture(scope="module")
def reflector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = tmp_path_factory.mktemp("guest") / "reflect.wasm"
    build(SOURCES / "reflect.c", module, cache=CodeCache())
    return module


@pytest.mark.parametrize("count", [2_000, 15_000])
def test_every_live_client_is_answered_by_its_own_fwp(reflector: Path, count: int) -> None:
    """Each answer holds how many packets its FWP has seen; `send_round` checks that for every client."""
    try:
        with live_clients(reflector, count) as clients:
            for _ in range(ROUNDS):
                clients.send_round()
            chain = clients.node.statistics(guest_counters=False).chain("edge")
            assert (chain.live, chain.activations, chain.received) == (count, count, ROUNDS * count)
            assert clients.answers == chain.sent == ROUNDS * count
    except LimitError as error:
        pytest.skip(str(error))
