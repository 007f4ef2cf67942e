"""What a cache costs whose client is away (`keep = true`), and how soon it is there again; run as a program, the node.

    python -m edgeos.bench.memcached_parked CLIENTS RETURNS

makes a node, lets CLIENTS clients store ten values each and leave, and RETURNS of them come back, each beside a client
that was never there; prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from edgeos.bench.cores import load_cores, service_cores
from edgeos.bench.resident import resident
from edgeos.bench.result import plain_table
from edgeos.bench.samples import Summary
from edgeos.errors import EdgeosError
from edgeos.units import approximate_duration

KIB = 1024
ITEMS = 10
ROOM_BYTES = 100 * KIB * KIB
"""Room for which it is said how many clients fit."""

_NOTE = (
    "parked: bytes are those that the node charges, records included; resident is what the process grew by for each "
    "client; park and resume are one client's, in the kernel; first answers, to new and returned clients in turns, run "
    "from before the connection is made to the answer's last byte"
)
_TIMEOUT_SECONDS = 60.0
_WARM_UP = 300  # clients that come first, so that the FWPs that are used in turns have been made
_PLACES = 1024
_IDLE_TIMEOUT_NS = 20_000_000
_KEEP_BYTES = 1024 * KIB * KIB
_LIFE_ROUNDS, _LIVE = 2000, 64


@dataclass(frozen=True, kw_only=True)
class Parked:
    """Bytes for each parked client, and times: of parking, resuming, an FWP without a past, and first answers."""

    clients: int
    bytes_per_client: float
    resident_per_client: float | None
    park_p50_ns: float
    park_p99_ns: float
    resume_p50_ns: float
    resume_p99_ns: float
    recycle_p50_ns: float
    recycle_p99_ns: float
    create_p50_ns: float
    create_p99_ns: float
    new_answer_p50_ns: float
    new_answer_p99_ns: float
    returned_answer_p50_ns: float
    returned_answer_p99_ns: float

    @property
    def fit(self) -> int:
        """How many such clients fit into ROOM_BYTES."""
        return int(ROOM_BYTES / self.bytes_per_client)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "clients_in_100_mib": self.fit}


def measure_parked(clients: int, returns: int, value_bytes: int) -> Parked:
    """In a process of its own. Raises EdgeosError when the node does not do its work."""
    command = [sys.executable, "-m", "edgeos.bench.memcached_parked", str(clients), str(returns), str(value_bytes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EdgeosError(f"the node that parks {clients:,} clients took longer than {_TIMEOUT_SECONDS:.0f}s") from None
    if done.returncode != 0:
        raise EdgeosError(f"the node that parks {clients:,} clients failed: {done.stderr.strip()[-300:]}")
    return Parked(**json.loads(done.stdout))


def notes() -> tuple[str, ...]:
    """How it was measured."""
    return (_NOTE,)


def parked_table(found: Parked) -> Table:
    """The figures for people."""
    table = plain_table("", "p50", "p99", title=f"{found.clients:,} parked clients with {ITEMS} values each")
    times = {
        "park": (found.park_p50_ns, found.park_p99_ns),
        "resume": (found.resume_p50_ns, found.resume_p99_ns),
        "recycle its FWP": (found.recycle_p50_ns, found.recycle_p99_ns),
        "make an FWP": (found.create_p50_ns, found.create_p99_ns),
        "first answer, new client": (found.new_answer_p50_ns, found.new_answer_p99_ns),
        "first answer, returned client": (found.returned_answer_p50_ns, found.returned_answer_p99_ns),
    }
    for name, pair in times.items():
        table.add_row(name, *map(approximate_duration, pair))
    size = f"{found.bytes_per_client:,.0f}"
    held = "-" if found.resident_per_client is None else f"{found.resident_per_client:,.0f}"
    table.caption = f"{size} bytes each ({held} resident); {found.fit:,} fit into 100 MiB"
    return table


# ---- In the process with the node ----


def _run(clients: int, returns: int, value_bytes: int) -> Parked:
    from edgeos import _native  # noqa: PLC0415  (whoever only asks for the figures does without the kernel)
    from edgeos.bench.lifecycle import measure_lifecycle  # noqa: PLC0415
    from edgeos.code_cache import CodeCache  # noqa: PLC0415
    from edgeos.guest import load_guest  # noqa: PLC0415
    from edgeos.node import Node  # noqa: PLC0415
    from edgeos.settings import ChainSettings, Grants, NodeSettings, TemplateSettings  # noqa: PLC0415

    template = TemplateSettings(name="cache", appliance="memcached", grant=Grants(random=True), stack=4608)
    port = _native.open_listener("clients", "tcp", "127.0.0.1", 0, backlog=4096, max_connections=_PLACES)
    with Node(NodeSettings(max_flows=4096)) as node:
        node.add_port(port)
        node.add_template(template)
        node.add_chain(
            ChainSettings(
                name="caches",
                path=("clients", "cache"),
                max_fwps=_PLACES,
                idle_timeout_ns=_IDLE_TIMEOUT_NS,
                keep=True,
                keep_memory=_KEEP_BYTES,
            )
        )
        node.add_rule("any", chain="caches")
        os.sched_setaffinity(0, service_cores())
        node.start()
        os.sched_setaffinity(0, load_cores())
        crowd = _Crowd(node, port.port_number, value_bytes)
        crowd.store(range(_WARM_UP))
        before = resident("self").pss
        crowd.store(range(_WARM_UP, _WARM_UP + clients))
        after = resident("self").pss
        parking = node.statistics(guest_counters=False).chain("caches").parking
        who = random.Random(1).sample(range(_WARM_UP, _WARM_UP + clients), returns)
        new, returned = crowd.come_back(who, _WARM_UP + clients)
        done = node.stop()
    chain = done.chain("caches")
    if done.balance != 0 or chain.kills or chain.parking.resumed != returns or parking.refused:
        raise EdgeosError(f"{returns} of {clients} clients came back, and the node counted {chain.parking}")
    life = measure_lifecycle(
        load_guest(template, CodeCache()), mode="compact", rounds=_LIFE_ROUNDS, live=_LIVE, random=True
    )
    recycled, created = Summary.of(life.recycle), Summary.of(life.create)
    return Parked(
        clients=clients,
        bytes_per_client=parking.bytes / parking.clients,
        resident_per_client=None if before is None or after is None else (after - before) / clients,
        park_p50_ns=chain.parking.park_p50_ns,
        park_p99_ns=chain.parking.park_p99_ns,
        resume_p50_ns=chain.parking.resume_p50_ns,
        resume_p99_ns=chain.parking.resume_p99_ns,
        recycle_p50_ns=recycled.p50_ns,
        recycle_p99_ns=recycled.p99_ns,
        create_p50_ns=created.p50_ns,
        create_p99_ns=created.p99_ns,
        new_answer_p50_ns=new.p50_ns,
        new_answer_p99_ns=new.p99_ns,
        returned_answer_p50_ns=returned.p50_ns,
        returned_answer_p99_ns=returned.p99_ns,
    )


class _Crowd:
    """Clients at addresses of their own, one after the other."""

    def __init__(self, node: Any, port: int, value_bytes: int) -> None:
        self._node = node
        self._port = port
        self._value_bytes = value_bytes
        self._parked = 0

    def store(self, clients: range) -> None:
        """Each stores its values and leaves; when all are parked it is over."""
        for number in clients:
            values = (
                b"set key:%d 0 0 %d\r\n%s\r\n" % (i, self._value_bytes, self._value(number, i)) for i in range(ITEMS)
            )
            self._ask(number, b"".join(values), b"STORED\r\n" * ITEMS)
        self._parked += len(clients)
        self._wait()

    def come_back(self, clients: list[int], unknown: int) -> tuple[Summary, Summary]:
        """First answers, of clients that were never there and of these, in turns."""
        new, returned = [], []
        for turn, number in enumerate(clients):
            found = b"VALUE key:3 0 %d\r\n%s\r\nEND\r\n" % (self._value_bytes, self._value(number, 3))
            new.append(self._ask(unknown + turn, b"get key:3\r\n", b"END\r\n"))
            returned.append(self._ask(number, b"get key:3\r\n", found))
        return Summary.of(new), Summary.of(returned)

    def _value(self, number: int, item: int) -> bytes:
        return (b"%d.%d." % (number, item)).ljust(self._value_bytes, b"x")[: self._value_bytes]

    def _ask(self, number: int, request: bytes, answer: bytes) -> float:
        """Nanoseconds until a client has the answer; it comes with the request and leaves with the answer."""
        source = f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        start = time.perf_counter_ns()
        with socket.create_connection(("127.0.0.1", self._port), _TIMEOUT_SECONDS, (source, 0)) as s:
            s.sendall(request)
            got = b""
            while len(got) < len(answer):
                part = s.recv(65536)
                if not part:
                    break
                got += part
            elapsed = time.perf_counter_ns() - start
        if got != answer:
            raise EdgeosError(f"client {number} got {got[:100]!r} instead of {answer[:100]!r}")
        return elapsed

    def _wait(self) -> None:
        end = time.monotonic() + _TIMEOUT_SECONDS
        while self._node.statistics(guest_counters=False).chain("caches").parking.clients < self._parked:
            if time.monotonic() > end:
                raise EdgeosError("clients that have left are not parked in time")
            time.sleep(0.01)


if __name__ == "__main__":
    print(json.dumps(asdict(_run(*map(int, sys.argv[1:])))))
