"""The unit file: checked by systemd's own tools, its privileges and messages by a node that has just them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import uuid
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from service_harness import echo_manifest, eventually, service
from worker_lab import NODE, Lab, netns

UNIT = Path(__file__).parents[2] / "packaging" / "edgeos@.service"
TIMEOUT = 60

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def values(key: str) -> list[str]:
    (line,) = re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(line).split()


def with_privileges_of_the_unit() -> list[str]:
    """A command's start that leaves it the capabilities of the unit and no others; the user stays the same."""
    capabilities = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in values("AmbientCapabilities"))
    sets = [f"--{name}=-all,{capabilities}" for name in ("inh-caps", "ambient-caps", "bounding-set")]
    return ["setpriv", "--securebits=+noroot", *sets, "--no-new-privs"]


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "edgeos@test.service"
    unit.write_text(UNIT.read_text().replace("/opt/edgeos/bin/edgeos", "/bin/true"))
    command = ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@needs_systemd
def test_the_unit_asks_for_little() -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(UNIT)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert found.returncode == 0, found.stdout[-200:] + found.stderr


@pytest.mark.privileged
@pytest.mark.parametrize("kind", ["afpacket", "tap", "afxdp"])
def test_its_capabilities_are_enough_for_devices(kind: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give up what the unit does not have")
    with ExitStack() as stack:
        lab = Lab(stack, kind)
        stack.enter_context(lab.node.entered())
        manifest = NODE.format(kind=kind)
        if kind == "afxdp":  # of several workers it needs more than the unit grants
            manifest = manifest.replace("workers = 2", "workers = 1")
            manifest = manifest.replace("[port.wan]", 'take = ["any"]\n[port.wan]')
        node = stack.enter_context(service(tmp_path, manifest, with_privileges_of_the_unit()))
        node.running("--json", "result.json")
        status = Path(f"/proc/{node.process_of(0)}/status").read_text()
        assert bin(int(re.findall(r"CapEff:\s*(\S+)", status)[0], 16)).count("1") == len(values("AmbientCapabilities"))
        assert "NoNewPrivs:\t1" in status
        if kind == "tap":
            lab.move_taps()
        server = stack.enter_context(closing(lab.echo(socket.AF_INET)))
        for number in range(1, 5):
            with lab.client_socket(socket.AF_INET, number) as client:
                assert lab.asks(server, client, b"a question")
        assert node.end()["balance"] == 0


@pytest.mark.privileged
def test_its_capabilities_are_enough_for_low_ports(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give up what the unit does not have")
    with ExitStack() as stack:
        stack.enter_context(stack.enter_context(netns.Namespace()).entered())
        node = stack.enter_context(service(tmp_path, echo_manifest(port=7), with_privileges_of_the_unit()))
        node.running()
        with socket.create_connection(("127.0.0.1", 7), TIMEOUT) as asked:
            asked.sendall(b"x")
            assert asked.recv(1) == b"x"
        node.end()


def test_systemd_is_told_how_the_node_is(tmp_path: Path) -> None:
    name = f"edgeos-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name)
        systemd.settimeout(TIMEOUT)
        with service(tmp_path, echo_manifest(), ["env", f"NOTIFY_SOCKET=@{name}"]) as node:
            node.start()
            assert systemd.recv(1000) == b"READY=1"
            assert node.state == "running"
            node.process.send_signal(signal.SIGHUP)
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(1000))
            assert systemd.recv(1000) == b"READY=1"
            node.end(signal.SIGTERM)
            assert systemd.recv(1000) == b"STOPPING=1"
            assert eventually(lambda: not node.processes())
