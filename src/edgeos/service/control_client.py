"""Asks a control socket: one connection, one request at a time."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeos.errors import EdgeosError
from edgeos.service.protocol import ANSWER_BYTES_MAX, decode_answer, encode_request
from edgeos.service.unix_address import unix_address

FILES_MAX = 253  # SCM_MAX_FD of Linux
TIMEOUT_SECONDS = 60.0


class ControlClient:
    """A connection to a control socket. Raises OSError when nobody listens there; a context manager that closes it."""

    def __init__(self, path: Path, timeout: float = TIMEOUT_SECONDS) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.settimeout(timeout)
            with unix_address(path) as address:
                self._connection.connect(address)
        except BaseException:
            self._connection.close()
            raise

    def ask(self, verb: str, **arguments: Any) -> Any:
        """The result of a request. Raises EdgeosError with what the other side says, or when it is gone."""
        return self.ask_for_files(verb, **arguments)[0]

    def ask_for_files(self, verb: str, **arguments: Any) -> tuple[Any, list[int]]:
        """The result, and the open files that came with it, which are the caller's to close."""
        files: list[int] = []
        try:
            self._connection.sendall(encode_request(verb, arguments))
            line = self._read_line(files)
            return decode_answer(line), files
        except OSError as error:
            _close(files)
            raise EdgeosError(f"the control socket does not answer: {error.strerror or error}") from None
        except EdgeosError:
            _close(files)
            raise

    def _read_line(self, files: list[int]) -> bytes:
        parts: list[bytes] = []
        length = 0
        while not parts or not parts[-1].endswith(b"\n"):
            data, received, _, _ = socket.recv_fds(self._connection, 1 << 16, FILES_MAX)
            files += received
            length += len(data)
            if not data or length > ANSWER_BYTES_MAX:
                raise EdgeosError("the control socket was closed before it answered")
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
    files.clear()
