"""The echo services of `edgeos bench listen`: nodes with an FWP for each connection, and what stands beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from edgeos import _native
from edgeos.bench.cores import pinned, service_cores
from edgeos.bench.listen_links import Link
from edgeos.bench.programs import SOURCES, Programs
from edgeos.descriptors import require_descriptors
from edgeos.errors import EdgeosError
from edgeos.match import parse_match
from edgeos.node import Node
from edgeos.port import Port, open_native_port
from edgeos.settings import ChainSettings, Grants, Manifest, PortSettings, TemplateSettings

TCP_FWPS = "TCP in the FWP"
"""A node with an AF_XDP port and an FWP for each connection, which speaks TCP by itself."""
LISTENER = "listener"
"""A node with a listener, so the kernel's TCP, and an FWP for each connection."""
PROCESSES = "process per connection"
THREADS = "thread per connection"
UVLOOP = "uvloop"
ASYNCIO = "asyncio"
BARE = "bare loop"
"""The physical limit: a C program that reads and sends on in one loop, and does nothing else."""

SUBJECTS = (TCP_FWPS, LISTENER, PROCESSES, THREADS, UVLOOP, ASYNCIO, BARE)
NODES = (TCP_FWPS, LISTENER)
PORT = 7777
"""Where the FWPs that speak TCP by themselves are."""

END_SECONDS = 30.0
_SPARE = 16  # places of a node beyond the connections
_PORT = "wan"

_IS_TOLD = TemplateSettings(name="echo", source=SOURCES / "echo.c", memory=256 * 1024)
_SPEAKS_TCP = replace(_IS_TOLD, tcp=True, memory=1024 * 1024, grant=Grants(timer=True, random=True))


class Services:
    """What is needed to start any of them; programs are compiled at once, guests when a node first needs them."""

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
        self._cores = service_cores()

    @contextmanager
    def started(self, subject: str, link: Link, connections: int) -> Iterator[int]:
        """One service at the link's address, on its cores; its port. Raises EdgeosError, PortError without AF_XDP."""
        if subject == TCP_FWPS:
            with _echoes(connections, "flow", _SPEAKS_TCP) as node:
                self._start(node, self._packet_port(link), link)
                yield PORT
        elif subject == LISTENER:
            with _echoes(connections, "connection", _IS_TOLD) as node:
                port = self._listener(link, connections)
                self._start(node, port, link)
                yield port.port_number
        else:
            with self._program([*self._commands[subject], link.address], link) as number:
                yield number

    def _start(self, node: Node, port: Port, link: Link) -> None:
        node.add_port(port)
        with link.entered(), pinned(self._cores):
            node.start()

    def _packet_port(self, link: Link) -> Port:
        take = (parse_match(f"tcp dst port {PORT}"),)
        with link.entered():
            return open_native_port(PortSettings(name=_PORT, kind="afxdp", device=link.device, take=take))

    def _listener(self, link: Link, connections: int) -> _native.Listener:
        places = connections + _SPARE
        settings = PortSettings(name=_PORT, kind="tcp", listen=f"{link.address}:1", max_connections=places)
        require_descriptors(Manifest(ports=(settings,)))
        with link.entered():
            return _native.open_listener(
                _PORT, "tcp", link.address, 0, backlog=4096, max_connections=places, max_per_client=places
            )

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


@contextmanager
def _echoes(connections: int, isolate: Literal["flow", "connection"], guest: TemplateSettings) -> Iterator[Node]:
    """A node, without its port yet, with an FWP for each connection; raises EdgeosError if there were fewer."""
    with Node() as node:
        node.add_template(guest)
        chain = ChainSettings(name="echo", path=(_PORT, guest.name), isolate=isolate, max_fwps=connections + _SPARE)
        node.add_chain(chain)
        node.add_rule("any", chain="echo")
        yield node
        statistics = node.statistics(guest_counters=False)
    activations = statistics.chain("echo").activations
    if statistics.balance != 0 or activations < connections:
        raise EdgeosError(f"{activations} FWPs for {connections} connections, balance {statistics.balance}")
