"""A chain of a node, as a program holds it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from edgeos.settings import ChainSettings
from edgeos.statistics import ChainStatistics, ClientStatistics

if TYPE_CHECKING:
    from edgeos.node import Node


class Chain:
    """A handle; `Node.add_chain` makes one. A context manager: leaving it closes the chain, the node goes on."""

    def __init__(self, node: Node, settings: ChainSettings) -> None:
        self._node = node
        self.settings = settings

    @property
    def name(self) -> str:
        return self.settings.name

    def statistics(self) -> ChainStatistics:
        """The chain's counters as they are now."""
        return self._node.statistics().chain(self.name)

    def clients(self) -> tuple[ClientStatistics, ...]:
        """The live clients with their guests' counters."""
        return self._node.clients(self.name)

    def close(self) -> None:
        """Takes no new clients from now on; the living leave as soon as no message of theirs is in flight."""
        self._node.close_chain(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
