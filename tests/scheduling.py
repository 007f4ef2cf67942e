"""Distributes tests to the processes of pytest-xdist; those marked `alone` get the machine to themselves.

pytest-xdist's own way to keep tests together (`--dist loadgroup`) keeps them in one process, but other processes go on
with other tests meanwhile, which is what tests that are timed cannot stand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

KNOWN_MIN = 2
"""A process begins a test when it knows which one is next, or that there is none."""

SHARE = 4
"""A process gets one part in so many of its share at once: neighbours stay together, and nobody waits at the end."""


class AloneScheduling(LoadScheduling):
    """First the others, shared out; then those that run alone, by the last process when all others have nothing left.

    `lists` is the folder where each process has written the names of those that run alone.
    """

    def __init__(self, config: pytest.Config, log: Producer, lists: Path) -> None:
        super().__init__(config, log)
        self._lists = lists
        self._alone: list[int] = []

    @property
    def tests_finished(self) -> bool:
        return super().tests_finished and not self._alone

    def schedule(self) -> None:
        if self.collection is None:
            if not self._check_nodes_have_same_collection():
                return
            self.collection = next(iter(self.node2collection.values()))
            alone = {name for found in self._lists.iterdir() for name in found.read_text(encoding="utf-8").split("\n")}
            self.pending = [index for index, name in enumerate(self.collection) if name not in alone]
            self._alone = [index for index, name in enumerate(self.collection) if name in alone]
        self._check_all()

    def check_schedule(self, node: WorkerController, duration: float = 0) -> None:
        if node.shutting_down:
            return
        others = [other for other in self.nodes if other is not node]
        if self.pending:
            if len(self.node2pending[node]) < KNOWN_MIN:
                self._send_tests(node, max(KNOWN_MIN, len(self.pending) // len(self.nodes) // SHARE))
        elif not self._alone or not all(other.shutting_down for other in others):
            node.shutdown()  # after what it has
        elif not any(self.node2pending[other] for other in others):
            self.pending, self._alone = self._alone, []
            self._send_tests(node, len(self.pending))
            node.shutdown()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        self._check_all()

    def remove_node(self, node: WorkerController) -> str | None:
        crashed = super().remove_node(node)
        self._check_all()
        return crashed

    def _check_all(self) -> None:
        for node in self.nodes:
            self.check_schedule(node)
