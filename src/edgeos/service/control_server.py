"""A control socket: answers the requests of whoever may open it, one after the other for each connection.

An asyncio server over plain sockets, because an answer may carry open files. Only the owner of the process may connect.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeos.errors import EdgeosError
from edgeos.service.protocol import (
    REQUEST_BYTES_MAX,
    Descriptors,
    Request,
    decode_request,
    encode_error,
    encode_result,
    unknown_verb,
)
from edgeos.service.unix_address import unix_address

CONNECTIONS_MAX = 64

Verb = Callable[[Request], Awaitable[Any]]


class ControlServer:
    """Serves from `start` to `close`, in the event loop that it was started in."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb]) -> None:
        self.path = path
        self._verbs = verbs
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self._listening: socket.socket | None = None

    async def start(self) -> None:
        """Listens. A socket that is there already is a dead process's: its folder is locked by its owner."""
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.path.unlink(missing_ok=True)
        with unix_address(self.path) as address:
            self._listening.bind(address)
        self.path.chmod(0o600)
        self._listening.listen(CONNECTIONS_MAX)
        self._spawn(self._accept(self._listening))

    async def close(self) -> None:
        """Ends all connections and removes the socket."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
            self.path.unlink(missing_ok=True)
            self._listening = None

    def serve(self, connection: socket.socket) -> None:
        """Serves one more connection, which is there already."""
        connection.setblocking(False)
        self._spawn(self._serve(connection))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:  # no more descriptors: try again when some may be free
                await asyncio.sleep(0.1)
                continue
            if self.connections >= CONNECTIONS_MAX:
                connection.close()
            else:
                self.serve(connection)

    async def _serve(self, connection: socket.socket) -> None:
        self.connections += 1
        try:
            await self._answer_all(connection)
        finally:
            self.connections -= 1

    async def _answer_all(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        buffer = b""
        with connection, suppress(OSError):
            while True:
                line, found, rest = buffer.partition(b"\n")
                if found:
                    buffer = rest
                    await self._answer(connection, line)
                elif len(buffer) > REQUEST_BYTES_MAX:
                    error = EdgeosError(f"found a longer request; allowed: at most {REQUEST_BYTES_MAX} bytes")
                    await loop.sock_sendall(connection, encode_error(error))
                    return
                else:
                    data = await loop.sock_recv(connection, 65536)
                    if not data:
                        return
                    buffer += data

    async def _answer(self, connection: socket.socket, line: bytes) -> None:
        files: list[int] = []
        try:
            request = decode_request(line)
            if request.verb not in self._verbs:
                raise unknown_verb(request.verb, self._verbs)
            result = await self._verbs[request.verb](request)
            if isinstance(result, Descriptors):
                files, result = result.files, result.result
            answer = encode_result(result)
        except EdgeosError as error:
            answer = encode_error(error)
        except Exception as error:  # a defect: it is told, and whoever asked can go on
            answer = encode_error(EdgeosError(f"an error inside edgeos: {error!r}"))
        if files:
            sent = socket.send_fds(connection, [answer[:1]], files)
            answer = answer[sent:]
        await asyncio.get_running_loop().sock_sendall(connection, answer)
