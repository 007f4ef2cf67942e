"""Listening sockets that several worker processes share: made by their supervisor, passed on to the workers.

    with ListeningSockets(manifest.ports, workers=4) as sockets:
        for worker in range(4):
            start_process(ports=sockets.ports_of(worker), pass_fds=sockets.descriptors_of(worker))

Of each TCP and UDP listener every worker has a socket of its own, and the kernel chooses among them by the client's
address: a client always comes to the same worker, also after a worker was started again with the same number. Who comes
meanwhile waits in the socket. Where a PROXY header names the client, the kernel cannot see it and shares out
connections evenly.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeos import _native
from edgeos.errors import PortError
from edgeos.port import split_endpoint
from edgeos.settings import PortSettings


def make_listening_sockets(port: PortSettings, workers: int) -> list[int]:
    """One listening socket for each worker, in their order; the caller closes them. Raises PortError."""
    _, address, number = split_endpoint(port.listen or "")
    try:
        return _native.open_listening_group(
            port.kind,
            address,
            number,
            sockets=workers,
            by_source=not port.proxy_protocol,
            backlog=port.backlog,
            mode=port.mode,
        )
    except (RuntimeError, OSError) as error:
        raise PortError(f"port.{port.name}: {error}") from None


class ListeningSockets:
    """The listening sockets of all listeners among `ports`. Raises PortError; then none is open."""

    def __init__(self, ports: Iterable[PortSettings], workers: int) -> None:
        self.workers = workers
        self._ports: list[PortSettings] = []
        self._descriptors: dict[str, list[int]] = {}
        try:
            for port in ports:
                self._ports.append(port)
                if port.is_listener:
                    self._descriptors[port.name] = make_listening_sockets(port, workers)
        except PortError:
            self.close()
            raise

    def ports_of(self, worker: int) -> tuple[PortSettings, ...]:
        """All ports as this worker opens them, with its sockets and its share of the limits that count for all."""
        return tuple(self._port_of(port, worker) for port in self._ports)

    def descriptors_of(self, worker: int) -> Sequence[int]:
        """The descriptors that this worker must inherit."""
        return [descriptors[worker] for descriptors in self._descriptors.values()]

    def stop(self) -> None:
        """Lets nobody in any more: connections are refused, datagrams wait until the sockets are closed."""
        for port in self._ports:
            for descriptor in self._descriptors.get(port.name, ()):
                with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listening:
                    listening.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes all sockets and removes the files of Unix sockets. What workers have open stays theirs."""
        for port in self._ports:
            for descriptor in self._descriptors.pop(port.name, ()):
                os.close(descriptor)
                if port.kind == "unix" and port.listen is not None:
                    with suppress(FileNotFoundError):
                        Path(port.listen).unlink()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the sockets."""
        self.close()

    def _port_of(self, port: PortSettings, worker: int) -> PortSettings:
        if port.name not in self._descriptors:
            return port
        return replace(
            port,
            fd=self._descriptors[port.name][worker],
            max_connections=-(-port.max_connections // self.workers),
            accept_rate=-(-port.accept_rate // self.workers),
        )
