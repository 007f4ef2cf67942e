"""The memcached appliance beside a memcached program: the same bytes for the same commands, over connections."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memcached_commands import binary_commands, lines, settled, shift, shift_back, without_cas
from memcached_harness import PROGRAM, GuestCache, ProgramCache, program

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no memcached program is installed")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(commands=st.lists(st.tuples(st.integers(1, 3), lines()), max_size=25))
def test_text_answers_are_the_same(reference: str, commands: list[tuple[int, bytes]]) -> None:
    guest, other = GuestCache("memory 4m"), ProgramCache(reference)
    other.ask(9, b"flush_all\r\n", 4)
    offset = _cas_offset(other)
    try:
        for connection, command in commands:
            if connection in guest.closed:
                continue
            shifted = shift(command, offset)
            got = guest.ask(connection, command)
            expected = shift_back(other.ask(connection, shifted, len(got), connection in guest.closed), offset)
            assert settled(got) == settled(expected), command
            assert (connection in guest.closed) == (connection in other.closed)
    finally:
        other.close()


@pytest.fixture(scope="module")
def reference() -> object:
    with program("-m", "64") as path:
        yield path


def _cas_offset(other: ProgramCache) -> int:
    """The last CAS number that the program has given; it goes on counting over all tests."""
    got = other.ask(9, b"ms offset 0 c\r\n\r\nmd offset\r\n", 6)
    return int(got.split(b" c")[1].split()[0])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(commands=st.lists(st.tuples(st.integers(1, 2), binary_commands()), max_size=25))
def test_binary_answers_are_the_same(reference: str, commands: list[tuple[int, bytes]]) -> None:
    guest, other = GuestCache("memory 4m"), ProgramCache(reference)
    other.ask(9, b"flush_all\r\n", 4)
    try:
        for connection, command in commands:
            if connection in guest.closed:
                continue
            got = guest.ask(connection, command)
            expected = other.ask(connection, command, len(got), connection in guest.closed)
            assert without_cas(got) == without_cas(expected), command
            assert (connection in guest.closed) == (connection in other.closed)
    finally:
        other.close()
