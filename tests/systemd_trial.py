"""The unit in a running systemd, with its privileges and no others: run by scripts/try-unit in a machine of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

UNIT = "edgeos@edge.service"
MANIFEST = Path("/etc/edgeos/edge.toml")
PAGE = Path("/etc/edgeos/systemd.md")
RUN = Path("/run/edgeos-edge")
DROP_IN = Path(f"/etc/systemd/system/{UNIT}.d/trial.conf")
LIMIT_SECONDS = 90.0

NODE = """
[node]
workers = {workers}
[port.front]
{port}
[template.echo]
module = "/etc/edgeos/{module}.wasm"
{grant}
[chain.echo]
path = ["front", "echo"]
isolate = "client"
[[rule]]
match = "any"
chain = "echo"
"""

DEVICES = """
ip netns add far
ip link add near type veth peer name far netns far
ip address add 10.77.0.1/24 dev near
ip link set near up
ip -n far address add 10.77.0.2/24 dev far
ip -n far link set far up
"""
WITHOUT_PRIVILEGES = """
AmbientCapabilities=
CapabilityBoundingSet=
RestrictAddressFamilies=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallFilter=~bpf
"""
HELLO = f"echo hello | ip netns exec far nc -w {LIMIT_SECONDS:.0f} -N 10.77.0.1 7777"


def listener(port: int = 7007) -> str:
    return NODE.format(workers=2, port=f'kind = "tcp"\nlisten = "127.0.0.1:{port}"', module="echo", grant="")


def device(workers: int = 1) -> str:
    port = 'kind = "afxdp"\ndevice = "near"\ntake = ["tcp dst port 7777"]'
    grant = "grant = { timer = true, random = true }"
    return NODE.format(workers=workers, port=port, module="echo-tcp", grant=grant)


def run(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout + found.stderr


def shown(name: str) -> str:
    return run("systemctl", "show", "--property", name, "--value", UNIT).strip()


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


class Trial:
    """What was tried, and whether all of it went well."""

    def __init__(self) -> None:
        self.well = True

    def expect(self, what: str, holds: bool) -> None:
        print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
        if not holds:
            print(run("journalctl", "--unit", UNIT, "--lines", "20", "--output", "cat", "--no-pager"))
        self.well = self.well and holds

    def start(self, what: str, manifest: str, drop_in: str = "") -> None:
        """Starts the service with this manifest, and lines added to the unit."""
        run("systemctl", "stop", UNIT)
        run("systemctl", "reset-failed", UNIT)
        MANIFEST.write_text(manifest)
        DROP_IN.parent.mkdir(exist_ok=True)
        DROP_IN.write_text(f"[Service]\n{drop_in}\n")
        run("systemctl", "daemon-reload")
        run("systemctl", "start", UNIT)
        self.expect(f"{what}: starts", shown("ActiveState") == "active")

    def refused(self, what: str, manifest: str, drop_in: str, words: str) -> None:
        """It does not start, and says these words."""
        run("journalctl", "--rotate", "--vacuum-time=1s")
        MANIFEST.write_text(manifest)
        DROP_IN.write_text(f"[Service]\nRestart=no\n{drop_in}\n")
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", UNIT)
        said = run("journalctl", "--unit", UNIT, "--output", "cat", "--no-pager")
        self.expect(f"{what}: does not start, and says why", shown("ActiveState") == "failed" and words in said)


def asks(connection: socket.socket) -> bool:
    connection.sendall(b"a question")
    return connection.recv(100) == b"a question"


def connected(port: int = 7007) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), LIMIT_SECONDS)


def workers() -> list[int]:
    found = run("/opt/edgeos/bin/edgeos", "status", str(MANIFEST), "--run-dir", str(RUN))
    return [int(pid) for pid in re.findall(r"worker \d+: running, process (\d+)", found)]


def try_life(trial: Trial) -> None:
    """Start, reload, deaths and end."""
    trial.start("a listener without privileges", listener(), WITHOUT_PRIVILEGES)
    with connected() as client:
        trial.expect("answers", asks(client))
    trial.start("a listener below 1024", listener(port=7))
    with connected(port=7) as low:
        trial.expect("answers", asks(low))
    trial.start("a listener", listener())
    with connected() as client:
        trial.expect("answers", asks(client))
        run("systemctl", "reload", UNIT)
        trial.expect("a reload keeps connections", asks(client) and shown("ActiveState") == "active")
    killed = set(workers())
    for pid in killed:
        os.kill(pid, 9)
    trial.expect("killed workers are replaced", eventually(lambda: len(set(workers()) - killed) == 2))
    time.sleep(5)  # the next in reserve is prepared
    before, supervisor = workers(), shown("MainPID")
    with connected() as client:
        trial.expect("answers again", asks(client))
        os.kill(int(supervisor), 9)
        trial.expect("without the supervisor: answers", asks(client))
        trial.expect("it comes back", eventually(lambda: shown("MainPID") not in ("0", supervisor)))
        trial.expect("and takes the workers over", eventually(lambda: workers() == before) and asks(client))
        run("systemctl", "stop", UNIT)
    ended = run("journalctl", "--unit", UNIT, "--lines", "30", "--output", "cat", "--no-pager")
    trial.expect("ends with the summary", shown("Result") == "success" and "received " in ended and not RUN.exists())


def try_devices(trial: Trial) -> None:
    """AF_XDP, with several workers as the page says, and each privilege taken away."""
    run("sh", "-c", DEVICES)
    (drop_in,) = re.findall(r"```ini\n\[Service\]\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for number, lines in ((1, ""), (2, drop_in)):
        trial.start(f"AF_XDP, workers: {number}", device(number), lines)
        trial.expect("answers", run("sh", "-c", HELLO) == "hello\n")
    trial.refused("AF_XDP, workers: 2, without the lines", device(2), "", "CAP_SYS_ADMIN")
    for name in ("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_NET_BIND_SERVICE"):
        manifest = listener(port=7) if name == "CAP_NET_BIND_SERVICE" else device()
        trial.refused(f"without {name}", manifest, f"AmbientCapabilities=~{name}\nCapabilityBoundingSet=~{name}", name)


def main() -> None:
    trial = Trial()
    print(os.uname().release, run("systemctl", "--version").splitlines()[0])
    try_life(trial)
    try_devices(trial)
    print("all is well" if trial.well else "something failed", flush=True)


main()
