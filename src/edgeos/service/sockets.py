"""The sockets by which worker processes receive: made and kept by their supervisor, one for each port and worker.

The kernel chooses among a port's sockets by the client's address, in their order. Since the supervisor and all workers
hold all of them, a worker that dies changes nothing for the others, and what comes for it meanwhile waits for its
successor; at an AF_XDP port, whose socket is the worker's own, it is lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeos import _native
from edgeos.errors import PortError
from edgeos.listening import make_listening_sockets
from edgeos.port import open_shared_afxdp
from edgeos.settings import Manifest, PortSettings
from edgeos.sharing import steered_by_destination

if TYPE_CHECKING:
    from edgeos.service.control_client import ControlClient

SHARED_KINDS = ("afpacket", "tap", "afxdp", "tcp", "udp", "unix")
"""Ports of other kinds are opened by the worker, and there is only one; so is AF_XDP's where there is one worker."""


class WorkerSockets:
    """Descriptors by the name of their port, one for each worker."""

    def __init__(self, ports: Iterable[PortSettings], files: Mapping[str, list[int]]) -> None:
        self._ports = tuple(ports)
        self.files = dict(files)

    @classmethod
    def open(cls, manifest: Manifest, workers: int) -> WorkerSockets:
        """Makes them for so many workers. Raises PortError that names the port; then none is open."""
        return cls((), {}).following(manifest, workers)

    def following(self, manifest: Manifest, workers: int) -> WorkerSockets:
        """Those for another manifest: these where a port stays where it is, and new ones. Raises as `open`."""
        sockets = WorkerSockets(manifest.ports, {})
        far = steered_by_destination(manifest)
        known = {_place(port): self.files[port.name] for port in self._ports if port.name in self.files}
        try:
            for port in manifest.ports:
                if port.kind in SHARED_KINDS and not (port.kind == "afxdp" and workers == 1):
                    files = known.get(_place(port))
                    sockets.files[port.name] = files or _open(port, workers, port.name in far)
        except PortError:
            sockets.close(but=self)
            raise
        return sockets

    def all_files(self) -> list[int]:
        """Every descriptor."""
        return [file for files in self.files.values() for file in files]

    def of_worker(self, worker: int) -> dict[str, int]:
        """One worker's descriptors by the name of their port."""
        return {name: files[worker] for name, files in self.files.items()}

    def refuse(self) -> None:
        """Lets nobody connect any more."""
        for port in self._ports:
            for file in self.files.get(port.name, ()):
                if port.kind in ("tcp", "unix"):
                    with suppress(OSError), socket.socket(fileno=os.dup(file)) as listening:
                        listening.shutdown(socket.SHUT_RDWR)

    def close(self, *, remove_files: bool = True, but: WorkerSockets | None = None) -> None:
        """Closes the sockets and removes the files of Unix sockets. What workers have open stays theirs.

        `but` those that are others' too; nobody can connect to the rest any more.
        """
        kept = [] if but is None else list(but.files.values())
        self._ports = tuple(port for port in self._ports if self.files.get(port.name) not in kept)
        if but is not None:
            self.refuse()
        for port in self._ports:
            files = self.files.pop(port.name, [])
            for file in files:
                os.close(file)
            if remove_files and files and port.kind == "unix" and port.listen is not None:
                Path(port.listen).unlink(missing_ok=True)


def fetch_sockets(client: ControlClient, workers: int) -> dict[str, list[int]]:
    """Copies of the sockets that the other process holds, by port, one for each worker."""
    files: dict[str, list[int]] = {}
    for worker in range(workers):
        names, received = client.ask_for_files("sockets", worker=worker)
        for name, file in zip(names, received, strict=True):
            os.set_inheritable(file, False)
            files.setdefault(name, []).append(file)
    return files


def _place(port: PortSettings) -> tuple[str, str | None]:
    return port.kind, port.listen or port.device


def _open(port: PortSettings, workers: int, by_destination: bool) -> list[int]:
    try:
        if port.kind == "afpacket":
            return _native.open_packet_group(port.device or "", sockets=workers, by_destination=by_destination)
        if port.kind == "tap":
            return _native.open_tap_queues(port.device or "", queues=workers, by_destination=by_destination)
        if port.kind == "afxdp":
            return open_shared_afxdp(port, workers, by_destination=by_destination)
    except (RuntimeError, OSError) as error:
        raise PortError(f"port.{port.name}: {error}") from None
    return make_listening_sockets(port, workers)
