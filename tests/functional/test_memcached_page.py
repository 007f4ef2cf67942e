"""The example manifest runs as it is, and the tutorial in docs/memcached.md does what it says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from memcached_node import TIMEOUT, ask
from test_examples import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "memcached.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples" / "memcached.toml").read_text(encoding="utf-8")
START_SECONDS = 120.0  # the guest may have to be compiled
EDGEOS = [sys.executable, "-m", "edgeos"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def wait_for(port: int, node: subprocess.Popen[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), TIMEOUT):
            return
        assert node.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_tutorial(tmp_path: Path) -> None:
    start, look = (block.split("\n") for block in blocks("sh"))
    assert start[1] == "edgeos up examples/memcached.toml"
    (program,), (output,) = blocks("python"), blocks("text")
    port = str(free_port())
    manifest = tmp_path / "memcached.toml"
    manifest.write_text(EXAMPLE.replace("11211", port), encoding="utf-8")
    script = tmp_path / "clients.py"
    script.write_text(program.replace("11211", port) + "print(flush=True)\ninput()\n", encoding="utf-8")
    common = ["--run-dir", str(tmp_path / "run")]
    log = tmp_path / "log"
    with (
        log.open("w") as words,
        subprocess.Popen([*EDGEOS, "up", "-q", str(manifest), *common], stdout=words, stderr=words, text=True) as node,
    ):
        try:
            wait_for(int(port), node)
            with subprocess.Popen(
                [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as clients:
                assert clients.stdout is not None
                assert clients.stdout.readline() == output
                for line, expected in zip(look, ("1000", "1"), strict=False):
                    found = subprocess.run(
                        [*EDGEOS, *line.split()[1:], *common],
                        capture_output=True,
                        text=True,
                        timeout=TIMEOUT,
                        check=False,
                    )
                    assert found.returncode == 0, found.stderr
                    assert re.search(rf"\b{expected[0]},?{expected[1:]}\b", found.stdout), found.stdout
                clients.communicate("\n", timeout=TIMEOUT)
            node.terminate()
            assert node.wait(TIMEOUT) == 0, log.read_text()
        finally:
            if node.poll() is None:
                node.kill()


def test_the_example_serves_clients_apart_over_tcp_and_udp(tmp_path: Path) -> None:
    port = free_port()
    manifest = tmp_path / "memcached.toml"
    manifest.write_text(EXAMPLE.replace("11211", str(port)), encoding="utf-8")
    command = [*EDGEOS, "up", "-q", str(manifest), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as node:
        try:
            wait_for(port, node)
            with socket.create_connection(("127.0.0.1", port), TIMEOUT) as s:
                assert ask(s, b"set a 0 0 1\r\nx\r\n", b"\r\n") == b"STORED\r\n"
            with socket.create_connection(("127.0.0.1", port), TIMEOUT, ("127.0.0.2", 0)) as s:
                assert ask(s, b"get a\r\n", b"END\r\n") == b"END\r\n"
            with closing(socket.socket(type=socket.SOCK_DGRAM)) as u:
                u.settimeout(TIMEOUT)
                u.bind(("127.0.0.1", 0))
                u.sendto(b"\0\7\0\0\0\1\0\0get a\r\n", ("127.0.0.1", port))
                assert u.recv(1000) == b"\0\7\0\0\0\1\0\0VALUE a 0 1\r\nx\r\nEND\r\n"
            node.terminate()
            _, words = node.communicate(timeout=TIMEOUT)
            assert node.returncode == 0
            assert "warning" not in words
        finally:
            if node.poll() is None:
                node.kill()
