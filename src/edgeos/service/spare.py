"""A worker process in reserve: prepared, without a place, so that the place of one that dies is taken at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from edgeos.errors import EdgeosError
from edgeos.service.worker_link import WorkerLink

STOP_SECONDS = 2.0
PREPARE_SECONDS = 120.0

StartOptions = Callable[[], tuple[Path, Path, dict[str, list[int]], int]]


class Spare:
    """At most one, made by `refill`."""

    def __init__(self, options: StartOptions) -> None:
        self._options = options
        self._coming: asyncio.Task[WorkerLink] | None = None
        self._going: set[asyncio.Task[None]] = set()

    async def take(self) -> WorkerLink:
        """A prepared process, made now if there is none. Raises EdgeosError with what keeps it from running."""
        coming, self._coming = self._coming, None
        if coming is not None:
            try:
                link = await coming
                if link.alive:
                    return link
            except EdgeosError:
                pass  # it may do now
        return await self._make()

    def refill(self) -> None:
        """Makes a new one, in the background."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._make())

    def replace(self) -> None:
        """Makes a new one by the options as they are now, and ends the one that is there."""
        coming, self._coming = self._coming, None
        if coming is not None:
            going = asyncio.create_task(self._end(coming))
            self._going.add(going)
            going.add_done_callback(self._going.discard)
        self.refill()

    async def close(self) -> None:
        """Ends it."""
        coming, self._coming = self._coming, None
        if coming is not None:
            await self._end(coming)
        await asyncio.gather(*self._going)

    @staticmethod
    async def _end(coming: asyncio.Task[WorkerLink]) -> None:
        """One that is still being made is not waited for."""
        coming.cancel()
        await asyncio.wait((coming,))
        if not coming.cancelled() and coming.exception() is None:
            link = coming.result()
            link.kill()
            await link.finish(STOP_SECONDS)

    async def _make(self) -> WorkerLink:
        link = await WorkerLink.start(*self._options())
        try:
            await link.ask("hello", seconds=PREPARE_SECONDS)
        except BaseException:
            link.kill()
            await link.finish(STOP_SECONDS)
            raise
        return link
