"""The control socket of a node that runs in this process: served by a thread beside it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from edgeos.errors import EdgeosError
from edgeos.service import node_verbs
from edgeos.service.control_server import ControlServer, Verb
from edgeos.service.protocol import Request
from edgeos.service.run_directory import open_run_directory

if TYPE_CHECKING:
    from pathlib import Path

    from edgeos.node import Node


@contextmanager
def served(node: Node, manifest: Path, run_directory: Path | None) -> Iterator[None]:
    """Answers requests for the started node meanwhile.

    A run over files is over soon and may run beside another one of the same manifest: where there is no place for a
    socket it goes without, unless a folder was asked for.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(open_run_directory(manifest, run_directory))
        except EdgeosError:
            if run_directory is not None:
                raise
        else:
            stack.enter_context(_thread(folder.control_socket, _verbs(node, manifest)))
        yield


@contextmanager
def _thread(path: Path, verbs: dict[str, Verb]) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    server = ControlServer(path, verbs)
    thread = threading.Thread(target=loop.run_forever, name="control", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _verbs(node: Node, manifest: Path) -> dict[str, Verb]:
    started = time.monotonic()

    def status(node: Node, request: Request) -> dict[str, Any]:
        return {
            "manifest": str(manifest),
            "pid": os.getpid(),
            "state": "running",
            "seconds": time.monotonic() - started,
            "workers": [],
        }

    def verb(answer: Callable[[Node, Request], Any]) -> Verb:
        async def ask(request: Request) -> Any:
            return await asyncio.to_thread(answer, node, request)

        return ask

    known = (status, node_verbs.statistics, node_verbs.read_handler, node_verbs.write_handler)
    return {answer.__name__: verb(answer) for answer in known}
