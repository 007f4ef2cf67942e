"""The supervisor's end of a worker process: starts or finds it, asks it, and notices when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from edgeos.errors import EdgeosError
from edgeos.service.protocol import ANSWER_BYTES_MAX, decode_answer, encode_request
from edgeos.service.unix_address import unix_address
from edgeos.service.worker_settings import socket_path

ANSWER_SECONDS = 60.0
"""A worker that has not answered by then hangs."""


class WorkerLink:
    """One worker process. What it is asked is answered one after the other."""

    def __init__(self, pid: int, path: Path, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._path = path
        self.core: int | None = None
        self._child = child
        self._busy = asyncio.Lock()
        self._ended = asyncio.Event()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._note_end)

    @classmethod
    async def start(cls, folder: Path, manifest: Path, files: dict[str, list[int]], workers: int) -> Self:
        """Starts a process in a session of its own, which neither interrupts at the terminal nor our end reach.

        Raises EdgeosError when the system allows no further process or open file.
        """
        try:
            link, near = cls._spawn(folder, manifest, files, workers)
        except OSError as error:
            raise EdgeosError(f"a worker process cannot be started: {error.strerror}") from None
        try:
            await link._connect(near)
        except BaseException:
            near.close()
            link.kill()
            await link.ended()
            raise
        return link

    @classmethod
    def _spawn(
        cls, folder: Path, manifest: Path, files: dict[str, list[int]], workers: int
    ) -> tuple[Self, socket.socket]:
        """The process, and our end of the connection to it. Raises OSError, and then there is neither."""
        with ExitStack() as undo:
            near, far = map(undo.enter_context, socket.socketpair())
            told = {
                "folder": str(folder),
                "manifest": str(manifest),
                "files": files,
                "workers": workers,
                "supervisor": far.fileno(),
            }
            child = subprocess.Popen(
                [sys.executable, "-m", "edgeos.service.worker_process", json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[far.fileno(), *(file for of_port in files.values() for file in of_port)],
                start_new_session=True,
            )
            undo.callback(child.wait)
            undo.callback(child.kill)
            link = cls(child.pid, socket_path(folder, child.pid), child)
            undo.pop_all()
            far.close()
        return link, near

    @classmethod
    async def find(cls, path: Path, pid: int) -> Self:
        """A process that another supervisor has started. Raises OSError when it is gone."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with unix_address(path) as address:
                connection.connect(address)
            link = cls(pid, path, None)
        except BaseException:
            connection.close()
            raise
        await link._connect(connection)
        return link

    async def _connect(self, connection: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=connection, limit=ANSWER_BYTES_MAX)

    async def ask(self, verb: str, *, seconds: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """The result of a request. Raises EdgeosError with what the worker says, or when it is gone or hangs.

        Whoever asks may be cancelled: the answer is read all the same, or the next request would get it.
        """
        line = await asyncio.shield(self._exchange(encode_request(verb, arguments), seconds))
        if isinstance(line, EdgeosError):
            raise line
        return decode_answer(line)

    async def _exchange(self, request: bytes, seconds: float) -> bytes | EdgeosError:
        """The line that answers; an error is returned, not raised, since nobody may be left to catch it."""
        try:
            async with asyncio.timeout(seconds):
                await self._busy.acquire()
        except TimeoutError:
            return EdgeosError(f"worker process {self.pid} was busy for {seconds:g} s")
        try:
            return await self._exchange_now(request, seconds)
        finally:
            self._busy.release()

    async def _exchange_now(self, request: bytes, seconds: float) -> bytes | EdgeosError:
        if self._reader is None or self._writer is None:
            return EdgeosError(f"worker process {self.pid} is gone")
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(request)
                await self._writer.drain()
                line = await self._reader.readline()
        except TimeoutError:
            self.kill()
            return EdgeosError(f"worker process {self.pid} did not answer in {seconds:g} s and was ended")
        except (OSError, ValueError):
            line = b""
        return line or EdgeosError(f"worker process {self.pid} has ended")

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    async def ended(self) -> str:
        """Waits for the end of the process, and says how it came, as far as is known."""
        await self._ended.wait()
        if self._child is None:
            return "ended"
        code = self._child.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        """Ends the process at once."""
        if self.alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def finish(self, seconds: float) -> None:
        """Lets go of the process, which was told to stop; it is killed if it has not ended in time."""
        self._disconnect()
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def let_go(self) -> None:
        """Leaves the process to itself."""
        self._disconnect()
        if self.alive:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._ended.set()

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set()
        self._path.unlink(missing_ok=True)

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
