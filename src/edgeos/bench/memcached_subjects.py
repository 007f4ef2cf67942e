"""What `edgeos bench memcached` compares: a node, a memcached for each client, one for all, and a null responder."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeos.bench.cores import pinned
from edgeos.bench.resident import Resident, resident
from edgeos.errors import EdgeosError

FWPS = "FWP per client"
PROCESSES = "process per client"
SHARED = "one shared process"
NULL = "null responder"

START_SECONDS = 60.0
_FIRST_ADDRESS = ipaddress.IPv4Address("127.96.0.1")  # of the processes; client i speaks to this one + i


@dataclass(frozen=True)
class Subject:
    """A running service: where client i finds it (ADDRESS + STEP * i, PORT), and the processes that it consists of."""

    name: str
    address: str
    step: int
    port: int
    pids: tuple[int, ...]

    def pause(self) -> None:
        """Stops all of it, so that what is idle costs the others nothing."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it run again."""
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def memory(self, clients: int) -> Resident:
        """Of the processes that serve the first `clients` clients, together."""
        pids = self.pids[:clients] if self.step else self.pids
        parts = [resident(pid) for pid in pids]
        shares = [part.pss for part in parts]
        return Resident(
            rss=sum(part.rss for part in parts),
            pss=None if None in shares else sum(share for share in shares if share is not None),
            page_tables=sum(part.page_tables for part in parts),
        )


def memcached_program() -> str | None:
    """The path of the memcached program, if one is installed."""
    return shutil.which("memcached", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/bin:/usr/bin")


@contextmanager
def node(clients: int, cores: set[int]) -> Iterator[Subject]:
    """A node with a cache for each client. Raises EdgeosError, also when it has not served them as it should."""
    command = [sys.executable, "-m", "edgeos.bench.memcached_node", str(clients)]

    def judge(words: str) -> None:
        found = json.loads(words)
        if found["balance"] != 0 or found["kills"] != 0 or found["activations"] != clients:
            raise EdgeosError(f"{FWPS}: {clients} clients, and {words.strip()}")

    with _service(FWPS, command, cores, lambda _: None):
        pass  # compiles the guest where that has not been done: a compiler's memory is not that of caches
    with _service(FWPS, command, cores, judge) as subject:
        yield subject


@contextmanager
def null_responder(program: Path, cores: set[int]) -> Iterator[Subject]:
    """A program that reads requests and writes answers, and does as little as can be between."""
    with _service(NULL, [str(program)], cores, lambda _: None) as subject:
        yield subject


@contextmanager
def _service(name: str, command: Sequence[str], cores: set[int], judge: Callable[[str], None]) -> Iterator[Subject]:
    """A program that prints its port and ends with its input; `judge` gets its last words."""
    with pinned(cores):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    subject: Subject | None = None
    try:
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise EdgeosError(f"{name} does not start: {process.stderr.read().strip()[-300:]}")
        subject = Subject(name, "127.0.0.1", 0, int(line), (process.pid,))
        yield subject
        subject.resume()
        words, _ = process.communicate(timeout=START_SECONDS)
        judge(words)
    except subprocess.TimeoutExpired:
        raise EdgeosError(f"{name} does not end") from None
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


@contextmanager
def shared_process(program: str, clients: int, cores: set[int]) -> Iterator[Subject]:
    """One memcached for all clients, with a thread for each of its cores."""
    most = 2 * clients + 64  # those of the generator before may still be closing
    with _memcacheds(SHARED, program, ["127.0.0.1"], ["-t", str(len(cores)), "-c", str(most)], cores) as subject:
        yield subject


@contextmanager
def processes(program: str, clients: int, cores: set[int]) -> Iterator[Subject]:
    """A memcached for each client, each on an address of its own, with one thread."""
    addresses = [str(_FIRST_ADDRESS + number) for number in range(clients)]
    with _memcacheds(PROCESSES, program, addresses, ["-t", "1"], cores) as subject:
        yield subject


@contextmanager
def _memcacheds(
    name: str, program: str, addresses: Sequence[str], options: Sequence[str], cores: set[int]
) -> Iterator[Subject]:
    port = _free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    started: list[subprocess.Popen[bytes]] = []
    try:
        with pinned(cores):
            for address in addresses:
                command = [program, *user, "-l", address, "-p", str(port), "-U", "0", *options]
                try:
                    started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                except OSError as error:
                    raise EdgeosError(f"{name}: {error.strerror} after {len(started)} processes") from None
        for address, process in zip(addresses, started, strict=True):
            _await(name, address, port, process)
        step = 1 if len(addresses) > 1 else 0
        yield Subject(name, addresses[0], step, port, tuple(process.pid for process in started))
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def _await(name: str, address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), START_SECONDS):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise EdgeosError(f"{name}: memcached does not listen on {address}:{port}")
        time.sleep(0.01)


def _free_port() -> int:
    """A port that is free on all addresses now."""
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        return int(s.getsockname()[1])
