"""The supervisor's end of a worker process: starts or finds it, asks it, and notices when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
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
        """Starts a process in a session of its own, which neither interrupts at the terminal nor our end reach."""
        near, far = socket.socketpair()
        with far:
            told = {
                "folder": str(folder),
                "manifest": str(manifest),
                "files": files,
                "workers": workers,
                "supervisor": far.fileno(),
            }
            kept = [far.fileno(), *(file for of_port in files.values() for file in of_port)]
            child = subprocess.Popen(
                [sys.executable, "-m", "edgeos.service.worker_process", json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=kept,
                start_new_session=True,
            )
        link = cls(child.pid, socket_path(folder, child.pid), child)
        try:
            await link._connect(near)
        except BaseException:
            near.close()
            link.kill()
            await link.ended()
            raise
        return link

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
        """The result of a request. Raises EdgeosError with what the worker says, or when it is gone or hangs."""
        async with self._busy:
            if self._reader is None or self._writer is None:
                raise EdgeosError(f"worker process {self.pid} is gone")
            try:
                async with asyncio.timeout(seconds):
                    self._writer.write(encode_request(verb, arguments))
                    await self._writer.drain()
                    line = await self._reader.readline()
            except TimeoutError:
                self.kill()
                raise EdgeosError(f"worker process {self.pid} did not answer in {seconds:g} s and was ended") from None
            except (OSError, ValueError):
                line = b""
            except asyncio.CancelledError:  # its answer would be taken for that of the next request
                self._disconnect()
                raise
            if not line:
                raise EdgeosError(f"worker process {self.pid} has ended")
            return decode_answer(line)

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
