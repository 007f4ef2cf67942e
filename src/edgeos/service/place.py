"""The place of one worker: keeps a process in it, and the counters of those that have died there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edgeos.errors import EdgeosError
from edgeos.service.records import State, WorkerRecord
from edgeos.service.spare import Spare
from edgeos.service.worker_link import WorkerLink
from edgeos.statistics import NodeStatistics
from edgeos.statistics_sum import NOTHING, after_death, statistics_from, total

SETTLED_SECONDS = 10.0
"""A process that ran so long did not die of its start: the next one comes at once."""

BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long to wait before the next process, by the number of those in a row that died early."""

COUNT_SECONDS = 0.25

COUNTED_FWPS_MAX = 2000
"""Guests' counters are summed up every time while no more FWPs live: it takes time on the data plane."""


class WorkerPlace:
    """One worker's place. `spare` has a prepared process; `report` is told what people should know.

    While `changes` is locked workers are told to run another manifest, and nobody takes a place.
    """

    def __init__(
        self,
        index: int,
        core: int | None,
        spare: Spare,
        changes: asyncio.Lock,
        report: Callable[[str], None],
    ) -> None:
        self.index = index
        self.link: WorkerLink | None = None
        self.state: State = "starting"
        self._core = core
        self._spare = spare
        self._changes = changes
        self._report = report
        self._pinned: int | None = None
        self._draining = False
        self._restarts = 0
        self._early_deaths = 0
        self._problem = ""
        self._statistics: NodeStatistics | None = None
        self._past = NOTHING

    async def fill(self, link: WorkerLink | None = None) -> None:
        """Gets a process into the place: one that serves here already, or a prepared one. Raises EdgeosError."""
        if link is None:
            link = await self._spare.take()
            try:
                link.core = await link.ask("serve", worker=self.index, core=self._core)
                if self._draining:
                    await link.ask("drain")
            except BaseException:
                link.kill()
                await link.ended()
                raise
        self._pinned = link.core
        self.link = link
        self.state = "running"

    async def keep(self) -> None:
        """Keeps a process here for as long as this task runs."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            if self.link is not None:
                self._bury(await self.link.ended(), loop.time() - began)
            delay = BACKOFF_SECONDS[min(self._early_deaths, len(BACKOFF_SECONDS) - 1)]
            died = loop.time()
            if delay > 0:
                self.state = "waiting"
                self._report(f"worker {self.index} died {self._early_deaths + 1} times in a row: next in {delay:g} s")
                await asyncio.sleep(delay)
            self.state = "starting"
            try:
                async with self._changes:
                    await self.fill()
            except EdgeosError as error:
                self._early_deaths += 1
                self._problem = str(error)
                self._report(f"worker {self.index}: {error}")
                continue
            self._restarts += 1
            self._spare.refill()
            assert self.link is not None
            self._report(f"worker {self.index} serves again, process {self.link.pid}, after {loop.time() - died:.2f} s")

    def _bury(self, how: str, lived: float) -> None:
        assert self.link is not None
        self._early_deaths = 0 if lived >= SETTLED_SECONDS else self._early_deaths + 1 if self._restarts else 0
        self._problem = f"process {self.link.pid} {how}"
        self._report(f"worker {self.index}: {self._problem}")
        if self._statistics is not None:
            self._past = total((self._past, after_death(self._statistics)))
        self._statistics = None
        self.link = None

    async def count_often(self) -> None:
        """Asks the process for its counters for as long as this task runs, so that little is unknown when it dies."""
        while True:
            await self.count()
            await asyncio.sleep(COUNT_SECONDS)

    async def count(self) -> None:
        """Asks the process for its counters."""
        link = self.link
        if link is None:
            return
        live = sum(chain.live for chain in self._statistics.chains) if self._statistics is not None else 0
        with suppress(EdgeosError):
            found = await link.ask("statistics", guest_counters=live <= COUNTED_FWPS_MAX)
            if self.link is link:
                self._statistics = statistics_from(found)

    async def stop(self, seconds: float) -> None:
        """Ends the process, which gives its last counters; `keep` must not run any more."""
        if self.link is None:
            return
        try:
            self._statistics = statistics_from(await self.link.ask("stop", seconds=seconds))
            await self.link.finish(seconds)
        except EdgeosError as error:
            self.link.kill()
            self._bury(await self.link.ended(), SETTLED_SECONDS)
            self._problem = str(error)
        self.link = None
        self.state = "ended"

    async def drain(self) -> None:
        """Lets no new clients in, nor will a process that takes the place later. Raises EdgeosError."""
        self._draining = True
        if self.link is not None:
            await self.link.ask("drain")

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """Asks the process. Raises EdgeosError; when there is none now, too."""
        if self.link is None:
            raise EdgeosError(f"worker {self.index} is {self.state}")
        return await self.link.ask(verb, **arguments)

    @property
    def sum(self) -> NodeStatistics:
        """All that was counted here."""
        return total((self._past, *([self._statistics] if self._statistics is not None else [])))

    @property
    def has_clients(self) -> bool:
        return self._statistics is not None and any(chain.live for chain in self._statistics.chains)

    def record(self) -> WorkerRecord:
        """How things are here."""
        return WorkerRecord(
            index=self.index,
            state=self.state,
            pid=None if self.link is None else self.link.pid,
            core=self._pinned,
            restarts=self._restarts,
            problem=self._problem,
            statistics=self._statistics,
            past=self._past,
        )
