"""The echo services of `edgeos bench listen`: a node with an FWP for each connection, and what stands beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgeos import _native
from edgeos.bench.cores import pinned, service_cores
from edgeos.bench.listen_links import Link
from edgeos.bench.programs import SOURCES, Programs
from edgeos.code_cache import CodeCache
from edgeos.descriptors import require_descriptors
from edgeos.errors import EdgeosError
from edgeos.guest_build import build
from edgeos.node import Node
from edgeos.settings import ChainSettings, Manifest, PortSettings, TemplateSettings

FWPS = "FWP per connection"
PROCESSES = "process per connection"
THREADS = "thread per connection"
UVLOOP = "uvloop"
ASYNCIO = "asyncio"
BARE = "bare loop"
"""The physical limit: a C program that reads and sends on in one loop, and does nothing else."""

SUBJECTS = (FWPS, PROCESSES, THREADS, UVLOOP, ASYNCIO, BARE)
END_SECONDS = 30.0
_SPARE = 16  # places of a node beyond the connections


class Services:
    """What is needed to start any of them; programs are compiled, and the guest is built, at once."""

    def __init__(self, programs: Programs) -> None:
        serve = str(programs.make("echo_serve"))
        asynchronous = (sys.executable, "-m", "edgeos.bench.echo_async")
        self._commands: dict[str, tuple[str, ...]] = {
            PROCESSES: (serve, "process"),
            THREADS: (serve, "thread"),
            BARE: (serve, "loop"),
            UVLOOP: (*asynchronous, "uvloop"),
            ASYNCIO: (*asynchronous, "asyncio"),
        }
        self._guest = programs.folder / "echo.wasm"
        self._cores = service_cores()
        build(SOURCES / "echo.c", self._guest, cache=CodeCache())

    @contextmanager
    def started(self, subject: str, link: Link, connections: int) -> Iterator[int]:
        """One service at the link's address, on its cores; its port. Raises EdgeosError."""
        if subject == FWPS:
            with self._node(link, connections) as port:
                yield port
        else:
            with self._program([*self._commands[subject], link.address], link) as port:
                yield port

    @contextmanager
    def _node(self, link: Link, connections: int) -> Iterator[int]:
        places = connections + _SPARE
        require_descriptors(
            Manifest(ports=(PortSettings(name="echo", kind="tcp", listen=f"{link.address}:1", max_connections=places),))
        )
        with Node() as node:
            node.add_template(TemplateSettings(name="guest", module=self._guest, memory=256 * 1024))
            node.add_chain(ChainSettings(name="echo", path=("echo", "guest"), isolate="connection", max_fwps=places))
            node.add_rule("any", chain="echo")
            with link.entered(), pinned(self._cores):
                port = _native.open_listener(
                    "echo", "tcp", link.address, 0, backlog=4096, max_connections=places, max_per_client=places
                )
                node.add_port(port)
                node.start()
            yield port.port_number
            statistics = node.statistics(guest_counters=False)
        chain = statistics.chain("echo")
        if statistics.balance != 0 or chain.activations < connections:
            raise EdgeosError(f"{chain.activations} FWPs for {connections} connections, balance {statistics.balance}")

    @contextmanager
    def _program(self, command: Sequence[str], link: Link) -> Iterator[int]:
        with link.entered(), pinned(self._cores):
            service = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stderr is not None
        try:
            line = service.stdout.readline()
            if not line.strip().isdigit():
                raise EdgeosError(f"the service does not start: {service.stderr.read().strip()[-300:]}")
            yield int(line)
        finally:
            service.stdin.close()
            try:
                service.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
            service.stdout.close()
            service.stderr.close()
