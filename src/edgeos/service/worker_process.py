"""One worker process: a node of its own, told what to do by its supervisor over a socket.

It starts without ports and prepared, as a spare. `serve` gives it the place of a worker, with that one's sockets and
core. It goes on when the supervisor is gone, which can be started again and find it by its socket in the node's folder;
when none has come for `orphan_timeout` it drains, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import edgeos
from edgeos.errors import EdgeosError
from edgeos.node import Node
from edgeos.service import node_verbs
from edgeos.service.control_client import ControlClient
from edgeos.service.control_server import ControlServer, Verb
from edgeos.service.protocol import Descriptors, Request
from edgeos.service.run_directory import CONTROL_SOCKET, tidy
from edgeos.service.sockets import fetch_sockets
from edgeos.service.worker_settings import kept_manifest, manifest_of_worker, socket_path
from edgeos.settings import Manifest, PortSettings

POLL_SECONDS = 0.25
FLUSH_SECONDS = 2.0


class WorkerProcess:
    """The state of this process: a spare until it serves, then a worker with a number."""

    def __init__(self, folder: Path, manifest: Path, files: dict[str, list[int]], workers: int) -> None:
        self._path = socket_path(folder, os.getpid())
        self._manifest_path = manifest
        self._manifest = kept_manifest(manifest)
        self._files = files
        self._workers = workers
        self._node = Node.from_manifest(manifest_of_worker(self._manifest, workers))
        self._index: int | None = None
        self._core: int | None = None
        self._draining = False
        self._stopping = False
        self._over = asyncio.Event()
        self._changes = asyncio.Lock()
        self._server = ControlServer(self._path, self._verbs())

    async def run(self, supervisor: socket.socket) -> None:
        """Until it is told to stop, its data plane fails, or it has been without a supervisor for too long."""
        await self._server.start()
        self._server.serve(supervisor)
        watch = asyncio.create_task(self._watch())
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait((watch, over), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            await self._let_the_supervisor_read()
        finally:
            watch.cancel()
            over.cancel()
            await self._server.close()
            self._node.close()
            tidy(self._path.parent)

    def _verbs(self) -> dict[str, Verb]:
        node_answers: dict[str, Callable[[Node, Request], Any]] = {
            "statistics": node_verbs.statistics,
            "read_handler": node_verbs.read_handler,
            "write_handler": node_verbs.write_handler,
        }
        own: list[Callable[[Request], Any]] = [
            self.hello, self.serve, self.sockets, self.reconfigure, self.drain, self.stop,
        ]  # fmt: skip
        verbs: dict[str, Verb] = {verb.__name__: verb for verb in own}
        for name, answer in node_answers.items():
            verbs[name] = self._asks_node(answer)
        return verbs

    def _asks_node(self, answer: Callable[[Node, Request], Any]) -> Verb:
        async def ask(request: Request) -> Any:
            return await asyncio.to_thread(answer, self._node, request)

        return ask

    async def hello(self, request: Request) -> dict[str, Any]:
        """Who this is. A spare that has just started answers when it is prepared, or with what keeps it from that."""
        if self._index is None:
            async with self._changes:
                await asyncio.to_thread(self._node.prepare)
        return {
            "pid": os.getpid(),
            "version": edgeos.__version__,
            "worker": self._index,
            "workers": self._workers,
            "core": self._core,
            "manifest": str(self._manifest_path),
            "draining": self._draining,
        }

    async def serve(self, request: Request) -> int | None:
        """Takes the place of a worker: `worker` is its number, `core` the core for its data plane, or null for any.

        Returns the core that it is pinned to, null when that could not be.
        """
        index = request.number("worker")
        core = None if request.arguments.get("core") is None else request.number("core")
        async with self._changes:
            if self._index is not None:
                raise EdgeosError(f"this process is worker {self._index} already")
            self._node.take_sockets({name: files[index] for name, files in self._files.items()})
            await asyncio.to_thread(self._start, core)
            self._index = index
        return self._core

    def _start(self, core: int | None) -> None:
        """Threads that the node starts stay on the core; this one, which only answers questions, may run anywhere."""
        anywhere = os.sched_getaffinity(0)
        if core is not None:
            with suppress(OSError):
                os.sched_setaffinity(0, {core})
                self._core = core
        try:
            self._node.start()
        finally:
            os.sched_setaffinity(0, anywhere)

    async def sockets(self, request: Request) -> Descriptors:
        """Copies of a worker's sockets, for a new supervisor."""
        index = request.number("worker")
        return Descriptors(list(self._files), [files[index] for files in self._files.values()])

    async def reconfigure(self, request: Request) -> None:
        """Runs another manifest, which the supervisor has put into the folder: all of it, or an error and nothing."""
        path = Path(request.text("manifest"))
        manifest = kept_manifest(path)
        wanted = manifest_of_worker(manifest, self._workers)
        async with self._changes:
            files = await asyncio.to_thread(self._files_for, manifest)
            try:
                ports = tuple(self._with_socket(port, files) for port in wanted.ports)
                same = replace(wanted, node=self._node.manifest.node, ports=ports)  # as the supervisor has found
                await asyncio.to_thread(self._node.reconfigure, same)
            except BaseException:
                _close(files, but=self._files)
                raise
            _close(self._files, but=files)
            self._files, self._manifest, self._manifest_path = files, manifest, path

    def _files_for(self, manifest: Manifest) -> dict[str, list[int]]:
        """The sockets of a manifest's ports: those that are here of ports as before, and copies of the supervisor's."""
        if manifest.ports == self._manifest.ports:
            return self._files
        same = {port.name for port in manifest.ports if port in self._manifest.ports} & self._files.keys()
        with ControlClient(self._path.parent / CONTROL_SOCKET) as supervisor:
            files = fetch_sockets(supervisor, self._workers)
        kept = {name: self._files[name] for name in same}
        _close({name: files[name] for name in same})
        return {**files, **kept}

    def _with_socket(self, port: PortSettings, files: dict[str, list[int]]) -> PortSettings:
        return (
            port if self._index is None or port.name not in files else replace(port, fd=files[port.name][self._index])
        )

    async def drain(self, request: Request) -> None:
        """Lets no new clients in."""
        self._draining = True
        await asyncio.to_thread(self._node.drain)

    async def stop(self, request: Request) -> dict[str, Any] | None:
        """Ends. The last statistics, of a worker."""
        async with self._changes:
            self._stopping = True
            last = await asyncio.to_thread(self._node.stop) if self._index is not None else None
            self._over.set()
        return None if last is None else last.as_dict()

    async def _watch(self) -> None:
        """Ends the process when nobody has been connected for too long, or with the data plane's error."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._server.connections:
                heard = loop.time()
            elif loop.time() - heard >= self._patience():
                break
            if self._index is not None and not self._stopping:
                self._node.wait(0)  # raises when the data plane has failed
        if self._index is not None:
            await self._drain_alone()
        self._over.set()

    def _patience(self) -> float:
        return 0.0 if self._index is None else self._manifest.node.orphan_timeout_ns / 1e9

    async def _drain_alone(self) -> None:
        loop = asyncio.get_running_loop()
        self._draining = True
        self._node.drain()
        end = loop.time() + self._manifest.node.drain_timeout_ns / 1e9
        while loop.time() < end and any(chain.live for chain in self._node.statistics(guest_counters=False).chains):
            await asyncio.sleep(POLL_SECONDS)

    async def _let_the_supervisor_read(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + FLUSH_SECONDS
        while self._server.connections and loop.time() < end:
            await asyncio.sleep(0.01)


def _close(files: Mapping[str, list[int]], *, but: Mapping[str, list[int]] | None = None) -> None:
    for name, of_port in files.items():
        if but is None or but.get(name) != of_port:
            for file in of_port:
                os.close(file)


async def _run(told: dict[str, Any]) -> None:
    process = WorkerProcess(Path(told["folder"]), Path(told["manifest"]), told["files"], told["workers"])
    await process.run(socket.socket(fileno=told["supervisor"]))


def main() -> None:
    """The process; what it is told is its one argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asyncio.run(_run(json.loads(sys.argv[1])))
    except EdgeosError as error:
        sys.exit(f"error: worker process {os.getpid()}: {error}")


if __name__ == "__main__":
    main()
