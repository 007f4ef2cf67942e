"""Open files that are passed on as one, and live as long as somebody has the bundle."""

from __future__ import annotations

import os

from edgeos.bundle import bundle, unbundled


def test_a_bundle_is_read_as_often_as_one_likes_and_keeps_what_is_in_it():
    reader, writer = os.pipe()
    held = bundle("a note", [reader, writer])
    os.close(reader)
    os.close(writer)
    for data in (b"once", b"again"):
        with unbundled(held) as (note, (one, other)):
            assert note == "a note"
            assert not os.get_inheritable(one)
            os.write(other, data)
            assert os.read(one, 100) == data
    os.close(held)


def test_what_is_in_a_bundle_is_let_go_of_with_its_last_copy():
    reader, writer = os.pipe()
    held = bundle("", [writer])
    os.close(writer)
    copy = os.dup(held)
    os.close(held)
    os.set_blocking(reader, False)
    try:
        os.read(reader, 1)
        raise AssertionError("nobody can write any more")
    except BlockingIOError:
        pass
    os.close(copy)
    assert os.read(reader, 1) == b""
    os.close(reader)
