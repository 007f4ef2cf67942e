"""The supervisor: worker processes that run one manifest, started, watched, replaced, drained and reconfigured.

It moves no messages. It holds the sockets that messages come by, and a prepared spare process that takes the place of a
worker that dies. When the supervisor itself dies the workers go on, and the next one for the same manifest finds them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeos.errors import EdgeosError
from edgeos.manifest import load_manifest
from edgeos.service.adoption import Found, adopt
from edgeos.service.control_server import ControlServer, Verb
from edgeos.service.guests import load_guests
from edgeos.service.place import WorkerPlace
from edgeos.service.protocol import Descriptors, Request
from edgeos.service.records import WorkerRecord
from edgeos.service.run_directory import RunDirectory
from edgeos.service.sockets import WorkerSockets
from edgeos.service.spare import Spare
from edgeos.service.worker_settings import keep_manifest, what_workers_cannot_change
from edgeos.settings import Manifest
from edgeos.sharing import number_of_workers, threads_of_worker
from edgeos.statistics import NodeStatistics
from edgeos.statistics_sum import total

DRAIN_POLL_SECONDS = 0.1
STOP_SECONDS = 30.0
HANDLER_KEYS = ("chain", "stage", "client", "name")


class Supervisor:
    """Of one manifest's workers. `open` before all else, `close` after all."""

    def __init__(self, manifest: Manifest, folder: RunDirectory, report: Callable[[str], None]) -> None:
        self._manifest = manifest
        self._folder = folder
        self._report = report
        self._workers = number_of_workers(manifest)
        self._kept: Path | None = None
        self._sockets = WorkerSockets(manifest.ports, {})
        self._spare = Spare(self._start_options)
        self._places: list[WorkerPlace] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._changes = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._started = time.monotonic()
        self._state = "starting"
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self._server = ControlServer(folder.control_socket, self._verbs())

    # ---- From start to end ----

    async def open(self) -> None:
        """All workers serve, the control socket answers. Raises EdgeosError, and then no process is left."""
        self._kept = keep_manifest(self._manifest, self._folder.path)
        cores = cores_for(self._workers, threads_of_worker(self._manifest))
        self._places = [
            WorkerPlace(i, cores[i], self._spare, self._changes, self._report) for i in range(self._workers)
        ]
        found = await adopt(self._folder.path, self._manifest, self._workers, self._report)
        try:
            self._sockets = found.sockets or WorkerSockets.open(self._manifest, self._workers)
            await self._fill(found)
            await self._server.start()
        except BaseException:
            await self._give_up(found)
            raise
        self._spare.refill()
        for place in self._places:
            self._start(place.keep())
            self._start(place.count_often())
        self._state = "running"

    async def _fill(self, found: Found) -> None:
        """Gets a process into each place. Workers that were found run what they ran before; now it is this manifest."""
        filling = [asyncio.create_task(place.fill(found.links.get(place.index))) for place in self._places]
        try:
            await asyncio.gather(*filling)
        except BaseException:  # what the others have begun they finish, so that it can be taken back
            await asyncio.gather(*filling, return_exceptions=True)
            raise
        for place in self._places:
            if place.index in found.links:
                await place.ask("reconfigure", manifest=str(self._kept))
        for path in found.kept:
            if path != self._kept:
                path.unlink(missing_ok=True)

    async def _give_up(self, found: Found) -> None:
        """Leaves workers that were found as they were, and ends the others."""
        for link in found.links.values():
            link.let_go()
        await self._spare.close()
        for place in self._places:
            if place.index not in found.links:
                await place.stop(STOP_SECONDS)
        self._forget(keep=bool(found.links))

    def _forget(self, *, keep: bool) -> None:
        """Closes the sockets; where workers go on they keep theirs, and the manifest that they run."""
        self._sockets.close(remove_files=not keep)
        if keep:
            return
        if self._kept is not None:
            self._kept.unlink(missing_ok=True)
        for path in self._folder.path.glob("worker-*.sock"):  # of processes that were killed while they started
            path.unlink(missing_ok=True)

    async def wait(self, seconds: float) -> bool:
        """Waits up to so long; True once the node was told to end and has ended its clients. Raises what went wrong."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        if self._failure is not None:
            raise self._failure
        return self._over.is_set()

    async def close(self) -> None:
        """Ends all processes, with their last counters."""
        self._state = "ended"
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._server.close()
        await self._spare.close()
        await asyncio.gather(*(place.stop(STOP_SECONDS) for place in self._places))
        self._forget(keep=False)

    def end(self) -> None:
        """Ends the node now, without waiting for anybody."""
        self._over.set()

    async def drain(self) -> None:
        """Lets no new clients in, and ends the node when the last has left or `drain_timeout` is over."""
        if self._state == "draining":
            return
        self._state = "draining"
        loop = asyncio.get_running_loop()
        end = loop.time() + self._manifest.node.drain_timeout_ns / 1e9
        await asyncio.gather(*(place.drain() for place in self._places), return_exceptions=True)
        self._sockets.refuse()
        while loop.time() < end:
            await asyncio.gather(*(place.count() for place in self._places))
            if not any(place.has_clients for place in self._places):
                break
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        self._over.set()

    def _start_options(self) -> tuple[Path, Path, dict[str, list[int]], int]:
        assert self._kept is not None
        return self._folder.path, self._kept, self._sockets.files, self._workers

    # ---- Another manifest ----

    async def reload(self) -> None:
        """Reads the manifest's file again and runs it. Raises EdgeosError with all findings, and nothing changes."""
        if self._manifest.path is None:
            raise EdgeosError("there is no manifest file to read again")
        async with self._reloading:  # one after the other: the last one has read the file as it is now
            manifest = await asyncio.to_thread(load_manifest, self._manifest.path)
            await self.reconfigure(manifest)

    async def reconfigure(self, manifest: Manifest) -> None:
        """Makes all workers run another manifest, or none of them."""
        await asyncio.to_thread(load_guests, manifest, None)
        async with self._changes:
            changed = what_workers_cannot_change(self._manifest, manifest)
            if changed:
                raise EdgeosError(f"{changed} cannot change while the node runs: restart it")
            earlier, sockets = self._sockets, self._sockets.following(manifest, self._workers)
            before, kept = self._kept, keep_manifest(manifest, self._folder.path)
            self._sockets = sockets
            try:
                await self._reconfigure_all(before, kept, earlier)
            except BaseException:
                sockets.close(but=earlier)
                raise
            earlier.close(but=sockets)
            self._manifest, self._kept = manifest, kept
            self._spare.replace()
            if before is not None and before != kept:
                before.unlink(missing_ok=True)

    async def _reconfigure_all(self, before: Path | None, kept: Path, earlier: WorkerSockets) -> None:
        """Worker after worker; those that have changed go back, to the earlier sockets too, when one refuses."""
        changed: list[WorkerPlace] = []
        try:
            for place in self._places:
                if place.link is not None:
                    await place.ask("reconfigure", manifest=str(kept))
                    changed.append(place)
        except BaseException:
            self._sockets = earlier
            for place in changed:
                with suppress(EdgeosError):
                    await place.ask("reconfigure", manifest=str(before))
            if kept != before:
                kept.unlink(missing_ok=True)
            raise

    # ---- What it knows ----

    def statistics(self) -> NodeStatistics:
        """Everything that all workers have counted, those that died included."""
        return total(place.sum for place in self._places)

    def records(self) -> tuple[WorkerRecord, ...]:
        """How each worker is."""
        return tuple(place.record() for place in self._places)

    # ---- The control socket ----

    def _verbs(self) -> dict[str, Verb]:
        async def status(request: Request) -> dict[str, Any]:
            return {
                "manifest": str(self._manifest.path),
                "pid": os.getpid(),
                "state": self._state,
                "seconds": time.monotonic() - self._started,
                "workers": [record.as_dict(with_statistics=False) for record in self.records()],
            }

        async def statistics(request: Request) -> dict[str, Any]:
            await asyncio.gather(*(place.count() for place in self._places))
            records = [record.as_dict(with_statistics=True) for record in self.records()]
            return {**self.statistics().as_dict(), "workers": records}

        async def reload(request: Request) -> None:
            await self.reload()

        async def drain(request: Request) -> None:
            self._start(self.drain())

        async def sockets(request: Request) -> Descriptors:
            files = self._sockets.of_worker(request.number("worker"))
            return Descriptors(list(files), list(files.values()))

        verbs: dict[str, Verb] = {verb.__name__: verb for verb in (status, statistics, reload, drain, sockets)}
        for verb, keys in (("read_handler", HANDLER_KEYS), ("write_handler", (*HANDLER_KEYS, "value"))):
            verbs[verb] = self._asks_all(verb, keys)
        return verbs

    def _asks_all(self, verb: str, keys: Sequence[str]) -> Verb:
        async def ask(request: Request) -> list[Any]:
            arguments = {key: request.arguments.get(key) for key in keys}
            answers = [await place.ask(verb, **arguments) for place in self._places if place.link is not None]
            return [answer for of_worker in answers for answer in of_worker]

        return ask

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_failure)
        self._keepers.append(task)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        """What should not happen does not go unnoticed: it ends the node."""
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self._over.set()


def cores_for(workers: int, threads: int) -> list[int | None]:
    """A core for each worker; any core for all when there is one worker, several threads of each, or too few cores."""
    cores = sorted(os.sched_getaffinity(0))
    if workers == 1 or threads > 1 or len(cores) < workers:
        return [None] * workers
    return list(cores[:workers])
