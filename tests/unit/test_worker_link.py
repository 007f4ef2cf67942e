"""The supervisor's end of a worker process, its place and its spare, against stand-ins for the process."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from edgeos.errors import EdgeosError
from edgeos.service.control_server import ControlServer
from edgeos.service.place import WorkerPlace
from edgeos.service.protocol import Request
from edgeos.service.spare import Spare
from edgeos.service.worker_link import WorkerLink

LIMIT_SECONDS = 30.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, LIMIT_SECONDS))


class Worker:
    """What answers at the other end: `slow` when it is let, `echo` at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked, self.let = asyncio.Event(), asyncio.Event()
        self.server = ControlServer(path, {"slow": self.slow, "echo": self.echo})

    async def slow(self, request: Request) -> str:
        self.asked.set()
        await self.let.wait()
        return "late"

    async def echo(self, request: Request) -> Any:
        return request.arguments["value"]

    async def __aenter__(self) -> Worker:
        await self.server.start()
        self.link = await WorkerLink.find(self.path, os.getpid())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.link.let_go()
        await self.server.close()


def test_a_question_that_is_given_up_does_not_spoil_the_next(tmp_path: Path) -> None:
    async def work() -> None:
        async with Worker(tmp_path / "s") as worker:
            given_up = asyncio.create_task(worker.link.ask("slow"))
            await worker.asked.wait()
            given_up.cancel()
            following = asyncio.create_task(worker.link.ask("echo", value=7))
            await asyncio.wait((given_up,))
            worker.let.set()
            assert given_up.cancelled()
            assert await following == 7

    run(work())


def test_who_waits_for_a_busy_worker_gives_up_and_it_lives(tmp_path: Path) -> None:
    async def work() -> None:
        async with Worker(tmp_path / "s") as worker:
            slow = asyncio.create_task(worker.link.ask("slow"))
            await worker.asked.wait()
            with pytest.raises(EdgeosError, match=r"was busy for 0\.01 s"):
                await worker.link.ask("echo", seconds=0.01, value=7)
            worker.let.set()
            assert await slow == "late"

    run(work())


def test_a_process_that_the_system_refuses_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async def work() -> None:
        await WorkerLink.start(tmp_path, tmp_path, {}, 1)

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(EdgeosError, match="a worker process cannot be started: Resource temporarily unavailable"):
        run(work())
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_spare_that_is_still_being_made_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> WorkerLink:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(WorkerLink, "start", never)

    async def work() -> None:
        spare = Spare(lambda: (Path(), Path(), {}, 1))
        spare.refill()
        await asyncio.sleep(0)
        await spare.close()

    run(work())


class Link:
    """A process that does what it is asked, and notes it."""

    pid = 1
    core = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, verb: str, **_: object) -> None:
        self.asked.append(verb)


class Taken(Spare):
    def __init__(self, link: Link) -> None:
        self._link = link

    async def take(self) -> WorkerLink:
        return cast(WorkerLink, self._link)


@pytest.mark.parametrize("draining", [False, True])
def test_who_takes_the_place_of_a_draining_worker_drains_too(draining: bool) -> None:
    async def work() -> None:
        link = Link()
        place = WorkerPlace(0, None, Taken(link), asyncio.Lock(), lambda _: None)
        if draining:
            await place.drain()
        await place.fill()
        assert link.asked == ["serve", "drain"][: 1 + draining]

    run(work())
