"""The demo as a user runs it: its exit status, and that nothing stays behind, also when it is interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "edgeos.demo"]
LIMIT_SECONDS = 240  # with the compiler's first run; 25 otherwise

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_programs = pytest.mark.skipif(
    not (shutil.which("ping") and shutil.which("curl")), reason="needs ping and curl (iputils-ping, curl)"
)


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """To its end. Its processes are known by the folder in their environment, see `left_behind`."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment, check=False
    )


def network_namespaces(process: Path) -> dict[str, Path]:
    """All that a process runs in or holds open, with a path that leads there."""
    found = {}
    with suppress(OSError):
        for link in (process / "ns/net", *(process / "fd").iterdir()):
            with suppress(OSError):
                if (name := link.readlink().name).startswith("net:"):
                    found[name] = link
    return found


def held_by_others() -> set[str]:
    """Network namespaces of all processes but this one."""
    others = (process for process in Path("/proc").glob("[0-9]*") if int(process.name) != os.getpid())
    return {name for process in others for name in network_namespaces(process)}


def left_behind(folder: Path) -> list[str]:
    """Processes of a demo that was run for this folder. Its namespaces have no names: they live as long as these."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_over_capture_files(tmp_path: Path) -> None:
    ended = run("--mode", "pcap", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "✗" not in ended.stdout
    assert "everything was as expected" in ended.stdout
    assert list(tmp_path.iterdir()) == []


@needs_root
@needs_programs
@pytest.mark.privileged
def test_as_root(tmp_path: Path) -> None:
    ended = run("--mode", "root", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "10.77.2.2 was served by a fresh FWP" in ended.stdout
    assert list(tmp_path.iterdir()) == []
    assert left_behind(tmp_path) == []


@needs_programs
@pytest.mark.privileged
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    own = network_namespaces(Path("/proc/self"))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    demo = subprocess.Popen([*DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "")
        if not any("clients fetch" in line for line in lines):
            pytest.skip("the demo has no network namespaces here")
        time.sleep(0.3)  # in the midst of the requests
        of_demo = network_namespaces(Path("/proc", str(demo.pid)))
        # Held open here, they keep their numbers, which others' new namespaces would else be given.
        held = {name: os.open(link, os.O_RDONLY) for name, link in of_demo.items() if name not in own}
        demo.send_signal(number)
        rest = demo.communicate(timeout=LIMIT_SECONDS)[0]
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.communicate()
    assert demo.returncode == 128 + number, rest
    assert "cleaned up" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert held
    assert not held.keys() & held_by_others()
    for descriptor in held.values():
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() == 0, reason="root has no obstacle")
def test_the_mode_for_root_is_refused_to_others(tmp_path: Path) -> None:
    ended = run("--mode", "root", folder=tmp_path)
    assert ended.returncode == 2
    assert "not root" in ended.stderr
