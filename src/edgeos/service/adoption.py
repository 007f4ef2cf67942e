"""Finds the workers that a supervisor has left behind when it died, with their sockets."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import edgeos
from edgeos.errors import EdgeosError
from edgeos.service.control_client import ControlClient
from edgeos.service.sockets import WorkerSockets, fetch_sockets
from edgeos.service.worker_link import WorkerLink
from edgeos.service.worker_settings import kept_manifest, what_workers_cannot_change
from edgeos.settings import Manifest

STOP_SECONDS = 10.0


@dataclass
class Found:
    """Workers by their numbers, the sockets of all, and the files of the manifests that they run."""

    links: dict[int, WorkerLink] = field(default_factory=dict)
    sockets: WorkerSockets | None = None
    kept: list[Path] = field(default_factory=list)


async def adopt(folder: Path, manifest: Manifest, workers: int, report: Callable[[str], None]) -> Found:
    """The workers in the folder that can run the manifest; others are ended."""
    found = Found(kept=list(folder.glob("manifest-*")))
    for path in sorted(folder.glob("worker-*.sock")):
        try:
            with ControlClient(path) as client:
                hello = client.ask("hello")
                if hello["worker"] is None or not _fits(hello, manifest, workers):
                    await _end(path, hello, report)
                    continue
                if found.sockets is None:
                    found.sockets = WorkerSockets(manifest.ports, fetch_sockets(client, workers))
                link = await WorkerLink.find(path, hello["pid"])
        except (OSError, EdgeosError):
            path.unlink(missing_ok=True)
            continue
        link.core = hello["core"]
        found.links[hello["worker"]] = link
        report(f"found worker {hello['worker']}, process {hello['pid']}, which went on by itself")
    return found


def _fits(hello: dict[str, Any], manifest: Manifest, workers: int) -> bool:
    """Whether the worker has the ports that this manifest asks for, and may be told to run it."""
    if hello["version"] != edgeos.__version__ or hello["workers"] != workers or hello["draining"]:
        return False
    try:
        before = kept_manifest(Path(hello["manifest"]))
        return before.ports == manifest.ports and not what_workers_cannot_change(before, manifest)
    except (OSError, pickle.PickleError, AttributeError, AssertionError, EOFError):
        return False


async def _end(path: Path, hello: dict[str, Any], report: Callable[[str], None]) -> None:
    if hello["worker"] is not None:
        report(f"worker {hello['worker']}, process {hello['pid']}, ran with other ports and is ended")
    link = await WorkerLink.find(path, hello["pid"])
    with suppress(EdgeosError):
        await link.ask("stop", seconds=STOP_SECONDS)
    await link.finish(STOP_SECONDS)
