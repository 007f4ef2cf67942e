"""`edgeos up` with worker processes: signals, reports, and the supervisor between its start and its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from edgeos.errors import EdgeosError, ManifestError
from edgeos.service.guests import load_guests
from edgeos.service.notify import notify, notify_reloading
from edgeos.service.records import WorkerRecord
from edgeos.service.run_directory import RunDirectory, open_run_directory
from edgeos.service.supervisor import Supervisor
from edgeos.settings import Manifest
from edgeos.statistics import NodeStatistics


def run_supervised(
    settings: Manifest,
    manifest: Path,
    *,
    run_directory: Path | None,
    duration: float | None,
    report: Callable[[str], None],
    progress: Callable[[str], None] | None,
    on_tick: Callable[[NodeStatistics], None] | None,
    tick_seconds: float,
) -> tuple[NodeStatistics, tuple[WorkerRecord, ...]]:
    """Runs until told to end, or for `duration` seconds. Raises EdgeosError; KeyboardInterrupt before the node ran."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    with open_run_directory(manifest, run_directory) as folder:
        load_guests(settings, progress)
        return asyncio.run(_run(_Run(settings, folder, report), duration, on_tick, tick_seconds))


class _Run:
    """A supervisor, and what signals do to it."""

    def __init__(self, settings: Manifest, folder: RunDirectory, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._folder = folder
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_to_end = False
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> Supervisor:
        """Raises EdgeosError, or KeyboardInterrupt when it was told to end meanwhile."""
        self.supervisor = Supervisor(self._settings, self._folder, self._report)
        loop = asyncio.get_running_loop()
        for number, act in (
            (signal.SIGINT, self._end),
            (signal.SIGTERM, self._drain),
            (signal.SIGHUP, self._reload),
        ):
            loop.add_signal_handler(number, act)
        self._opening = asyncio.create_task(self.supervisor.open())
        try:
            await self._opening
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        self._opening = None
        notify("READY=1")
        return self.supervisor

    def _end(self) -> None:
        """At once; while it starts what has begun is taken back, which further signals do not disturb."""
        if self._opening is not None and not self._opening.cancelling():
            self._opening.cancel()
        self.supervisor.end()

    def _drain(self) -> None:
        """The first time the living may finish, the second time not."""
        if self._told_to_end or self._opening is not None:
            self._end()
            return
        self._told_to_end = True
        notify("STOPPING=1")
        self._start(self.supervisor.drain())

    def _reload(self) -> None:
        if self._opening is None:
            self._start(self._reload_and_tell())

    async def _reload_and_tell(self) -> None:
        notify_reloading()
        try:
            await self.supervisor.reload()
            self._report("reloaded")
        except ManifestError as error:
            for problem in error.problems:
                self._report(problem)
            self._report("nothing was changed")
        except EdgeosError as error:
            self._report(f"not reloaded, nothing was changed: {error}")
        notify("READY=1")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(
    run: _Run, duration: float | None, on_tick: Callable[[NodeStatistics], None] | None, tick_seconds: float
) -> tuple[NodeStatistics, tuple[WorkerRecord, ...]]:
    supervisor = await run.open()
    end = None if duration is None else time.monotonic() + duration
    try:
        while not await supervisor.wait(tick_seconds if end is None else min(tick_seconds, end - time.monotonic())):
            if on_tick is not None:
                on_tick(supervisor.statistics())
            if end is not None and time.monotonic() >= end:
                break
    finally:
        await supervisor.close()
    return supervisor.statistics(), supervisor.records()
