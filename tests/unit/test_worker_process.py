"""A worker process's own end, in this process."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from service_harness import echo_manifest

from edgeos.manifest import load_manifest
from edgeos.node import Node
from edgeos.service.protocol import Request
from edgeos.service.sockets import WorkerSockets
from edgeos.service.worker_process import POLL_SECONDS, WorkerProcess
from edgeos.service.worker_settings import keep_manifest
from edgeos.statistics import NodeStatistics


def test_one_that_takes_long_to_stop_ends_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Node.stop

    def stop_slowly(node: Node) -> NodeStatistics:
        last = stop(node)
        time.sleep(3 * POLL_SECONDS)
        return last

    monkeypatch.setattr(Node, "stop", stop_slowly)
    (tmp_path / "edge.toml").write_text(echo_manifest())
    manifest = load_manifest(tmp_path / "edge.toml")

    async def work(supervisor: socket.socket, files: dict[str, list[int]]) -> None:
        process = WorkerProcess(tmp_path, keep_manifest(manifest, tmp_path), files, 1)
        running = asyncio.create_task(process.run(supervisor))
        await process.serve(Request("serve", {"worker": 0}))
        assert await process.stop(Request("stop")) is not None
        await running

    with closing(WorkerSockets.open(manifest, 1)) as sockets:
        ours, theirs = socket.socketpair()
        with ours:
            asyncio.run(work(theirs, sockets.files))
