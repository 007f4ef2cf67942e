"""`edgeos up` as a program of its own, in a folder of its own: started, asked, signalled, ended whatever happens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from edgeos.errors import EdgeosError
from edgeos.service.run_directory import connect

LIMIT_SECONDS = 60.0

ECHO = """
[node]
workers = {workers}
drain_timeout = "{drain_timeout}"
orphan_timeout = "{orphan_timeout}"
[port.front]
kind = "tcp"
listen = "127.0.0.1:{port}"
[template.echo]
source = "{source}"
[chain.all]
path = ["front", "echo"]
isolate = "{isolate}"
[[rule]]
match = "tcp"
chain = "all"
"""

SOURCE = Path(__file__).parent.parent / "examples" / "echo.c"


def eventually(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> bool:
    """True as soon as the condition holds, False when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def echo_manifest(**values: object) -> str:
    """Echo over TCP; `port` is free unless given."""
    settings = {
        "workers": 2,
        "drain_timeout": "30s",
        "orphan_timeout": "30s",
        "isolate": "connection",
        "source": SOURCE,
        **values,
    }
    settings.setdefault("port", free_port())
    return ECHO.format(**settings)


class Service:
    """One node. Its messages are in the file `log`, whoever of its processes wrote them."""

    def __init__(self, folder: Path, manifest: str, before: Sequence[str] = ()) -> None:
        self.folder = folder
        self.manifest = folder / "edge.toml"
        self.run = folder / "run"
        self.manifest.write_text(manifest)
        self._before = list(before)
        self._log = folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> Self:
        """Starts the supervisor, without waiting for anything."""
        command = [*self._before, sys.executable, "-m", "edgeos", "up", "edge.toml", "--run-dir", "run", *options]
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
                )
            )
        return self

    def running(self, *options: str) -> Self:
        """Starts it and waits until it runs."""
        return self.start(*options).wait_until_running()

    def wait_until_running(self) -> Self:
        """After `start`."""
        assert eventually(lambda: self.state == "running" or self.process.poll() is not None), self.log
        assert self.process.poll() is None, self.log
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self._processes[-1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, verb: str, **arguments: Any) -> Any:
        with connect(self.manifest, self.run) as client:
            return client.ask(verb, **arguments)

    @property
    def state(self) -> str:
        try:
            return str(self.ask("status")["state"])
        except EdgeosError:
            return ""

    def workers(self) -> list[dict[str, Any]]:
        return list(self.ask("status")["workers"])

    def process_of(self, worker: int) -> int:
        pid = self.workers()[worker]["pid"]
        assert isinstance(pid, int)
        return pid

    def end(self, number: signal.Signals = signal.SIGINT) -> dict[str, Any]:
        """Tells it to end and waits for that; its statistics if it was started with `--json result.json`."""
        self.process.send_signal(number)
        assert self.process.wait(LIMIT_SECONDS) == 0, self.log
        result = self.folder / "result.json"
        return json.loads(result.read_text()) if result.exists() else {}

    def processes(self) -> set[int]:
        """All worker processes that there are, by their sockets' names, also those in reserve."""
        return {pid for path in self.run.glob("worker-*.sock") if is_alive(pid := int(path.stem.split("-")[1]))}

    def close(self) -> None:
        workers = self.processes()
        for process in self._processes:
            process.kill()
            process.wait()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def service(folder: Path, manifest: str, before: Sequence[str] = ()) -> Iterator[Service]:
    """A node whose processes are all ended with the block."""
    made = Service(folder, manifest, before)
    try:
        yield made
    finally:
        made.close()


def is_alive(pid: int) -> bool:
    """False for a process that is gone, or has ended and was not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
