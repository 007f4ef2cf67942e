"""A second node, in worker processes under a supervisor, whose workers are killed."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service_harness import Service, echo_manifest, eventually, service

from edgeos.bench.resident import resident
from soak.network import LINES, Network

WORKERS_PORT = 8008
WORKERS = 2
BETWEEN_SECONDS = 2.0
BACK_SECONDS = 30.0
LINE = """
[port.wlan]
kind = "afxdp"
device = "{lan}"
fallback = "afpacket"
[port.wwan]
kind = "afxdp"
device = "{wan}"
fallback = "afpacket"
[template.monitor]
appliance = "monitor"
[chain.line]
path = ["wlan", "monitor", "wwan"]
max_fwps = 2000
idle_timeout = "300ms"
[[rule]]
match = "any"
chain = "line"
"""
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends when this process does, however that ends. Workers then end by themselves."""


class Supervised:
    """The node of worker processes, asked by its control socket."""

    def __init__(self, node: Service) -> None:
        self.kills = 0
        self._node = node

    def workers_killed(self, network: Network, port: int, seconds: float) -> None:
        """Each worker in turn by SIGKILL; it must be back before the next one."""
        end = time.monotonic() + seconds
        for worker in range(WORKERS):
            before = self._node.process_of(worker)
            os.kill(before, signal.SIGKILL)
            self.kills += 1
            if not eventually(lambda worker=worker, before=before: self._is_back(worker, before), BACK_SECONDS):
                raise AssertionError(f"worker {worker} does not come back: {self._node.log}")
            time.sleep(min(BETWEEN_SECONDS, max(0.0, end - time.monotonic())))
        time.sleep(max(0.0, end - time.monotonic()))

    def problems(self) -> Iterator[str]:
        """What does not hold although there is no traffic any more, after some patience."""
        if not eventually(lambda: self._is_at_rest(self._statistics()), BACK_SECONDS):
            yield f"workers do not come to rest: {self._statistics()}"
        if balance := self._statistics()["balance"]:
            yield f"{balance} messages of worker processes are not accounted for"
        restarts = sum(worker["restarts"] for worker in self._node.workers())
        if restarts != self.kills:
            yield f"{restarts} restarts of workers after {self.kills} kills"

    def held(self) -> tuple[int, int]:
        """Resident bytes and open files of the supervisor."""
        pid = self._node.process.pid
        return resident(pid).rss, len(os.listdir(f"/proc/{pid}/fd"))

    def end(self) -> int:
        """Stops it as a user does; what its sums do not account for."""
        return int(self._node.end()["balance"])

    def _statistics(self) -> Any:
        return self._node.ask("statistics")

    def _is_back(self, worker: int, before: int) -> bool:
        found = self._node.workers()[worker]
        return found["pid"] not in (before, None) and found["state"] == "running"

    @staticmethod
    def _is_at_rest(statistics: Any) -> bool:
        return statistics["in_flight"] == 0 and all(port["connections"] == 0 for port in statistics["ports"])


@contextmanager
def supervised(around: Network) -> Iterator[Supervised]:
    """In the middle namespace, at a port of its own; all its processes end with the context."""
    _, lan, wan = LINES[2]
    manifest = echo_manifest(port=WORKERS_PORT, workers=WORKERS).replace("127.0.0.1:", "0.0.0.0:")
    manifest += LINE.format(lan=lan, wan=wan)
    with (
        tempfile.TemporaryDirectory(prefix="edgeos-soak-") as folder,
        service(Path(folder), manifest, ENDS_WITH_US) as node,
    ):
        with around.middle.entered():
            node.start("--json", "result.json")
        node.wait_until_running()
        yield Supervised(node)
