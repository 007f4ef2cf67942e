"""The demo on real packets: ping, curl and a web server in namespaces, with the node between them."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from edgeos.demo.scenario import (
    BLOCKED,
    BYSTANDERS,
    EVERYBODY,
    HOSTILE,
    MAGIC,
    PORT,
    PREFIX_LENGTH,
    SERVED,
    SERVER,
    write_manifest,
)
from edgeos.demo.story import ClientResult, Story
from edgeos.errors import EdgeosError
from edgeos.manifest import load_manifest
from edgeos.netns import Namespace, join
from edgeos.node import Node
from edgeos.report import LiveReport
from edgeos.statistics import ChainStatistics, NodeStatistics

PROGRAMS = {"ping": "iputils-ping", "curl": "curl"}
"""Programs that the demo runs, and the Debian packages that hold them."""

PAGES_FIRST = 30
PAGES_DURING_ATTACK = 80
PAGES_AFTER = 10
START_SECONDS_MAX = 15
CLIENT_SECONDS_MAX = 20
SILENCE_SECONDS = 1.0
TICK_SECONDS = 0.1

_PORTS = """\
[port.lan]
kind = "afpacket"
device = "lan"

[port.wan]
kind = "afpacket"
device = "wan"
"""


class LiveDemo:
    """The namespaces, the server and the node of one demo; a context manager that ends all of them."""

    def __init__(self, story: Story, folder: Path) -> None:
        self._story = story
        self._folder = folder
        self._stack = ExitStack()
        self._results: dict[str, ClientResult] = {}

    def __enter__(self) -> LiveDemo:
        with ExitStack() as stack:
            self._client, self._node_ns, self._server = (stack.enter_context(Namespace()) for _ in range(3))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> NodeStatistics:
        """Tells the whole story; returns the node's final statistics."""
        self._lay_cables()
        self._start_server()
        self._start_node()
        self._ping()
        self._first_load()
        self._attack()
        self._recover()
        return self._finish()

    def _lay_cables(self) -> None:
        self._story.step("making namespaces client — node — server, joined by veth pairs")
        join(self._client, "lan0", self._node_ns, "lan")
        join(self._server, "wan0", self._node_ns, "wan")
        self._client.set_up("lan0", [f"{address}/{PREFIX_LENGTH}" for address in EVERYBODY])
        self._server.set_up("wan0", [f"{SERVER}/{PREFIX_LENGTH}"])
        for device in ("lan", "wan"):
            self._node_ns.set_up(device)

    def _start_server(self) -> None:
        self._story.step(f"starting a web server at {SERVER}:{PORT} and a node: lan → firewall → monitor → wan")
        server = self._start(
            self._server, [sys.executable, "-m", "edgeos.demo.server", SERVER, str(PORT)], stdin=subprocess.PIPE
        )
        if server.stdout is None or server.stdout.readline() != "ready\n":
            raise EdgeosError("the web server did not start")

    def _start_node(self) -> None:
        path = write_manifest(self._folder, _PORTS)
        with self._node_ns.entered():  # where its devices are
            manifest = load_manifest(path)
            self._node = self._stack.enter_context(Node.from_manifest(manifest, progress=self._story.note))
            self._node.start()

    def _ping(self) -> None:
        self._story.step(f"pinging the server from {len(EVERYBODY)} clients, of which the firewall blocks {BLOCKED}")
        command = ["ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "2", SERVER, "-I"]
        pings = {client: self._start(self._client, [*command, client]) for client in EVERYBODY}
        self._watch(list(pings.values()))
        answered = [client for client, ping in pings.items() if ping.returncode == 0]
        self._story.expect(
            answered == list(SERVED), f"{len(SERVED)} clients were answered, {BLOCKED} was not", f"answered: {answered}"
        )

    def _first_load(self) -> None:
        self._story.step(f"{len(EVERYBODY)} clients fetch {PAGES_FIRST} pages each with curl, at the same time")
        results = self._fetched(self._fetch(EVERYBODY, PAGES_FIRST))
        self._expect_served(results, SERVED, PAGES_FIRST, f"{len(SERVED)} clients got every page")
        self._story.expect(results[BLOCKED].served == 0, f"{BLOCKED} got none", f"{results[BLOCKED].served} pages")
        live = {client.address for chain in ("clients", "inspected") for client in self._node.clients(chain)}
        self._story.expect(
            set(EVERYBODY) <= live, f"{len(EVERYBODY)} clients have FWPs of their own", f"live: {sorted(live)}"
        )

    def _attack(self) -> None:
        self._story.step(f"while {len(BYSTANDERS)} clients go on, {HOSTILE} sends what makes its packet function loop")
        fetching = self._fetch(BYSTANDERS, PAGES_DURING_ATTACK)
        with self._client.entered():
            connection = socket.create_connection((SERVER, PORT), timeout=SILENCE_SECONDS, source_address=(HOSTILE, 0))
        with connection:
            before = _ask(connection, b"before")
            during = _ask(connection, MAGIC)
            # A reset instead of a farewell, so that the deadly segment is not sent again and again.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._story.expect(before and not during, f"{HOSTILE}'s connection worked, then fell silent")
        kills = self._chains()["inspected"].kills
        self._story.expect(kills.get("budget", 0) > 0, "its FWP overran its budget and was killed", f"killed: {kills}")
        results = self._fetched(fetching)
        self._expect_served(
            results, BYSTANDERS, PAGES_DURING_ATTACK, f"{len(BYSTANDERS)} others got every page, no request failed"
        )
        killed = {name: chain.kills for name, chain in self._chains().items() if any(chain.kills.values())}
        self._story.expect(set(killed) == {"inspected"}, "no FWP of another chain was killed", f"killed: {killed}")

    def _recover(self) -> None:
        self._story.step(f"{HOSTILE} behaves again")
        results = self._fetched(self._fetch((HOSTILE,), PAGES_AFTER))
        self._expect_served(results, (HOSTILE,), PAGES_AFTER, f"{HOSTILE} was served by a fresh FWP")

    def _finish(self) -> NodeStatistics:
        clients = {c.address: c for chain in ("clients", "inspected") for c in self._node.clients(chain)}
        statistics = self._node.stop()
        self._story.tables(self._results, clients, statistics)
        self._story.console.print()
        self._story.expect_accounts(statistics)
        return statistics

    # ---- Programs ----

    def _start(
        self, where: Namespace, command: Sequence[str], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        program = where.start(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._stack.callback(_end, program)
        return program

    def _fetch(self, clients: Sequence[str], pages: int) -> dict[str, subprocess.Popen[str]]:
        """Starts one curl for each client, which asks for so many pages one after the other on one connection."""
        command = ["curl", "-s", "--connect-timeout", "2", "--max-time", str(CLIENT_SECONDS_MAX), "-o", "/dev/null"]
        command += ["-w", "%{http_code} %{size_download}\\n"]
        command += ["--fail-early", f"http://{SERVER}:{PORT}/page/[1-{pages}]", "--interface"]
        return {client: self._start(self._client, [*command, client]) for client in clients}

    def _fetched(self, fetching: Mapping[str, subprocess.Popen[str]]) -> dict[str, ClientResult]:
        """Waits for these curls; what each client got, which is added to the demo's results too."""
        self._watch(list(fetching.values()))
        results = {client: _curl_result(curl) for client, curl in fetching.items()}
        for client, result in results.items():
            self._results[client] = self._results.get(client, ClientResult()) + result
        return results

    def _watch(self, programs: Sequence[subprocess.Popen[str]]) -> None:
        """Waits until the programs have ended, showing the node's counters on a terminal."""
        terminal = self._story.console.is_terminal
        end = time.monotonic() + CLIENT_SECONDS_MAX + START_SECONDS_MAX
        with LiveReport(self._story.console) if terminal else nullcontext() as report:
            while any(program.poll() is None for program in programs):
                if time.monotonic() > end:
                    raise EdgeosError("a client of the demo does not come to its end")
                if report is not None:
                    report(self._node.statistics(guest_counters=False))
                time.sleep(TICK_SECONDS)

    def _chains(self) -> dict[str, ChainStatistics]:
        return {chain.name: chain for chain in self._node.statistics(guest_counters=False).chains}

    def _expect_served(
        self, results: Mapping[str, ClientResult], clients: Sequence[str], pages: int, text: str
    ) -> None:
        short = {c: f"{results[c].served} pages" for c in clients if results[c].served != pages or results[c].failed}
        self._story.expect(not short, text, f"of {pages} pages these got less: {short}")


def _ask(connection: socket.socket, words: bytes) -> bool:
    """Asks for a page with these words in its path on an open connection; False when no answer came."""
    connection.sendall(b"GET /" + words + b" HTTP/1.1\r\nHost: server\r\n\r\n")
    received = b""
    with suppress(TimeoutError, ConnectionError):
        while not received.endswith(b"</p>\n"):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received.startswith(b"HTTP/1.1 200 ")


def _curl_result(curl: subprocess.Popen[str]) -> ClientResult:
    lines = curl.stdout.read().split("\n") if curl.stdout else []
    pages = [line.split() for line in lines if line]
    served = [int(size) for code, size in pages if code == "200"]
    failed = len(pages) - len(served) or int(curl.returncode != 0)
    return ClientResult(served=len(served), failed=failed, received_bytes=sum(served))


def _end(program: subprocess.Popen[str]) -> None:
    """Ends a program and lets go of its pipes."""
    if program.poll() is None:
        program.kill()
    program.wait()
    for pipe in (program.stdin, program.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
