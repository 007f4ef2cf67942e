"""A running node beside a memcached program: several connections take turns, in text, meta and binary, on one cache."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from memcached_commands import binary_commands, lines, settled, shift, shift_back, without_cas
from memcached_harness import PROGRAM, program
from memcached_node import TIMEOUT, serving

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no memcached program is installed")

Connect = Callable[[], socket.socket]
TEXT_MARK = b"set mark 0 0 6\r\nmarked\r\nget mark\r\n"
TEXT_MARKED = b"VALUE mark 0 6\r\nmarked\r\nEND\r\n"
BINARY_MARK = struct.pack(">BBHBBHIIQ", 0x80, 0x0A, 0, 0, 0, 0, 0, 0x55555555, 0)
BINARY_MARKED = b"\x81" + BINARY_MARK[1:]


class Side:
    """The connections to one of the two. `base` is the last CAS number that was given before the example."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._sockets: dict[str, socket.socket] = {}
        self.ask("t0", b"flush_all\r\n")
        answer = self.ask("t0", b"ms base 0 c\r\n\r\nmd base\r\n")
        self.base = int(answer.split(b" c")[1].split()[0])

    def ask(self, name: str, command: bytes) -> bytes:
        """All that is answered to a command; then b"<closed>" when the connection ends; a new one follows."""
        mark, marked = (TEXT_MARK, TEXT_MARKED) if name.startswith("t") else (BINARY_MARK, BINARY_MARKED)
        if name not in self._sockets:
            self._sockets[name] = self._connect()
        used = self._sockets[name]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            used.sendall(command + mark)
        got = b""
        while not got.endswith(marked):
            try:
                part = used.recv(1 << 16)
            except ConnectionResetError:
                part = b""
            if not part:
                self._sockets.pop(name).close()
                return got + b"<closed>"
            got += part
        return got

    def close(self) -> None:
        for used in self._sockets.values():
            used.close()


class Beside(RuleBasedStateMachine):
    """The same commands for both, and the same bytes from both."""

    connects: tuple[Connect, Connect]

    @initialize()
    def begin(self) -> None:
        self.ours, self.theirs = (Side(connect) for connect in self.connects)

    @rule(name=st.sampled_from(["t0", "t1", "t2"]), command=lines())
    def say(self, name: str, command: bytes) -> None:
        answers = [
            settled(shift_back(side.ask(name, shift(command, side.base)), side.base))
            for side in (self.ours, self.theirs)
        ]
        assert answers[0] == answers[1], command

    # Behind an unknown command the program reads over as many bytes more as it has a body.
    @rule(name=st.sampled_from(["b0", "b1"]), command=binary_commands().filter(lambda c: c[1] != 0x50 or len(c) == 24))
    def say_in_binary(self, name: str, command: bytes) -> None:
        answers = [without_cas(side.ask(name, command)) for side in (self.ours, self.theirs)]
        assert answers[0] == answers[1], command

    @rule(name=st.sampled_from(["t0", "t1", "t2"]), batch=st.lists(lines(), min_size=2, max_size=8))
    def say_at_once(self, name: str, batch: list[bytes]) -> None:
        """Several commands in one piece, without those to which the program answers by how far it has come with it.

        After a long key in `get` or `gat` it forgets earlier answers. A number that gets shorter is padded, unless an
        earlier answer with it has not left yet. CAS numbers are shifted for single commands only.
        """
        kept = [command for command in batch if not command.startswith((b"incr", b"decr", b"ma ", b"cas"))]
        kept = [command for command in kept if not (command.startswith((b"get", b"gat")) and b"k" * 251 in command)]
        self.say(name, b"".join(kept))

    def teardown(self) -> None:
        if hasattr(self, "ours"):
            self.ours.close()
            self.theirs.close()


@pytest.fixture(scope="module", params=["inline", "dedicated"])
def connects(request: pytest.FixtureRequest) -> Iterator[tuple[Connect, Connect]]:
    def their(path: str) -> socket.socket:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(TIMEOUT)
        s.connect(path)
        return s

    template = {"memory": 4 << 20}
    with serving(isolate="client", template=template, mover=request.param) as node, program("-m", "64") as path:
        yield node.connect, lambda: their(path)


def test_both_answer_alike(connects: tuple[Connect, Connect]) -> None:
    machine = type("Machine", (Beside,), {"connects": connects})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        del machine.connects  # hypothesis keeps the class, which would keep the node
