"""A manifest of the Click gallery as it is, run by `edgeos up` between two namespaces with real programs in them.

with lab("router", lan=["10.1.0.2/24"], wan=["10.2.0.2/24"]) as it:
    assert it.run(it.client, "ping", "-c", "1", "10.2.0.2").returncode == 0
"""

from __future__ import annotations

import http.server
import json
import re
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeos import netns
from edgeos.share import share

START_SECONDS_MAX = 60  # the compiler may run, on a busy machine
PROGRAM_SECONDS_MAX = 60
IPERF_ATTEMPTS = 3

PACKAGES = {
    "ping": "iputils-ping",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "iperf3": "iperf3",
    "traceroute": "traceroute",
}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where a program is not installed, and says how to get it."""
    missing = [program for program in programs if not shutil.which(program)]
    fix = f"apt-get install {' '.join(PACKAGES[program] for program in missing)}"
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed ({fix})")


def eventually(condition: Callable[[], bool], seconds: float = PROGRAM_SECONDS_MAX) -> bool:
    """Polls until the condition holds; False when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Lab:
    """The namespaces around a running node, and what was asked of it in the end."""

    client: netns.Namespace
    server: netns.Namespace
    manifest: Path
    folder: Path
    statistics: dict[str, Any] = field(default_factory=dict)

    def run(self, where: netns.Namespace, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end."""
        return where.run(list(command), timeout=PROGRAM_SECONDS_MAX)

    def pings(self, address: str, *options: str, count: int = 3) -> int:
        """How many of so many pings were answered."""
        output = self.run(
            self.client, "ping", "-n", "-i", "0.05", "-c", str(count), "-W", "5", *options, address
        ).stdout
        found = re.search(r"(\d+) received", output)
        assert found, output
        return int(found[1])

    def read(self, target: str, name: str) -> dict[str, Any]:
        """What `edgeos read` says, as JSON."""
        done = self.command("read", target, name, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def write(self, target: str, name: str, value: str) -> None:
        """Sets a value by `edgeos write`."""
        done = self.command("write", target, name, value)
        assert done.returncode == 0, done.stderr

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """An `edgeos` command about the running node."""
        command = [sys.executable, "-m", "edgeos", *arguments, "--run-dir", str(self.folder / "run")]
        return subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS_MAX, check=False)


@contextmanager
def lab(
    name: str,
    lan: Sequence[str],
    wan: Sequence[str] = (),
    *,
    lan_routes: Sequence[tuple[str, str | None]] = (),
    wan_routes: Sequence[tuple[str, str | None]] = (),
    edit: Callable[[str], str] = lambda text: text,
) -> Iterator[Lab]:
    """Runs a manifest. `lan` and `wan` are addresses at its devices; routes are destinations with their gateways."""
    source = share("appliances", "click", name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeos-lab-")))
        shutil.copytree(source, folder / name)
        manifest = folder / name / f"{name}.toml"
        manifest.write_text(edit(manifest.read_text()))
        client, node, server = (stack.enter_context(netns.Namespace()) for _ in range(3))
        made = Lab(client, server, manifest, folder)
        with _node(node, made):
            ports = tomllib.loads(manifest.read_text())["port"]
            ends = [("lan", client, lan, lan_routes), ("wan", server, wan, wan_routes)]
            for port, where, addresses, routes in ends[: len(ports)]:
                device = ports[port]["device"]
                node.move(device, where)
                where.set_up(device, addresses)
                for to, gateway in routes:
                    _add_route(where, device, to, gateway)
            yield made


@contextmanager
def _node(where: netns.Namespace, made: Lab) -> Iterator[None]:
    """The node, from when its devices are there; its messages must all be accounted for in the end."""
    result = made.folder / "result.json"
    command = [
        sys.executable,
        "-m",
        "edgeos",
        "up",
        "--quiet",
        "--json",
        str(result),
        "--run-dir",
        str(made.folder / "run"),
    ]
    log = (made.folder / "log").open("w+")
    process = where.start(
        [*command, str(made.manifest)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
    )
    try:
        devices = [port["device"] for port in tomllib.loads(made.manifest.read_text())["port"].values()]
        ready = eventually(lambda: process.poll() is not None or _has(where, devices, made.folder), START_SECONDS_MAX)
        assert ready, "the node did not start"
        assert process.poll() is None, (made.folder / "log").read_text()
        yield
        process.send_signal(signal.SIGINT)
        process.wait(PROGRAM_SECONDS_MAX)
        made.statistics = json.loads(result.read_text())
        assert made.statistics["balance"] == 0, made.statistics
        assert not any(n for chain in made.statistics["chains"] for n in chain["kills"].values()), made.statistics
    finally:
        process.kill()
        process.wait()
        log.close()


def _has(where: netns.Namespace, devices: Sequence[str], folder: Path) -> bool:
    with where.entered():
        there = {name for _, name in socket.if_nameindex()}
    return set(devices) <= there and (folder / "run" / "control.sock").exists()


def _add_route(where: netns.Namespace, device: str, to: str, gateway: str | None) -> None:
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # noqa: PLC0415

    with where.entered(), IPRoute() as ip:
        (index,) = ip.link_lookup(ifname=device)
        if gateway is None:
            ip.route("add", dst=to, oif=index, scope="link")
        else:
            ip.route("add", dst=to, gateway=gateway)


# ---- Servers, each a thread of the test with its socket in the namespace ----


@contextmanager
def web_server(where: netns.Namespace, address: str, port: int = 80) -> Iterator[list[str]]:
    """Answers GET with its own address; the list gets the addresses of those who asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.client_address[0])
            body = f"{address}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Tests print nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def server_bind(self) -> None:
            """Asks no name server for the name of its address, as the library would: there is none to answer."""
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = address, port

    with where.entered():
        server = Server((address, port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def name_server(where: netns.Namespace, address: str, answer: str = "192.0.2.53") -> Iterator[None]:
    """Answers every question for an A record with one address (RFC 1035)."""
    with where.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    server.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                query, peer = server.recvfrom(512)
            except TimeoutError:
                continue
            question = query[12 : query.index(b"\0", 12) + 5]
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(answer)
            server.sendto(query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + question + record, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        server.close()


@contextmanager
def iperf_server(where: netns.Namespace, address: str) -> Iterator[None]:
    """An iperf3 server on its usual port."""
    process = where.start(["iperf3", "-s", "-B", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: _listens(where, 5201)), "iperf3 does not listen"
        yield
    finally:
        process.kill()
        process.wait()


def iperf(lab: Lab, address: str, *options: str) -> dict[str, Any]:
    """What an iperf3 client says. On a busy machine it now and then gives up half way; it then gets another chance."""
    output = ""
    for _ in range(IPERF_ATTEMPTS):
        done = lab.run(lab.client, "iperf3", "-J", "-c", address, *options)
        output = done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout).get("end", {}) if done.returncode == 0 else {}
        if "sum_received" in found and "sum_sent" in found:
            return found
    raise AssertionError(output)


def _listens(where: netns.Namespace, port: int) -> bool:
    with where.entered():
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)
