"""Open files that are passed on as one, and live as long as somebody has the bundle."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence

import pytest

from edgeos import _native, port
from edgeos.bundle import bundle, unbundled
from edgeos.settings import PortSettings


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


def test_a_bundle_whose_files_find_no_room_says_so():
    reader, writer = os.pipe()
    held = bundle("", [reader, writer])
    free = os.dup(reader)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (free + 2, before[1])
    )  # one for reading the bundle, one for its two files
    try:
        with pytest.raises(OSError, match="Too many open files"), unbundled(held):
            pass
        assert os.dup(reader) == free, "what there was room for is closed"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for file in (free, reader, writer, held):
        os.close(file)


def test_a_port_for_several_workers_is_let_go_of_when_not_all_can_have_it(monkeypatch: pytest.MonkeyPatch):
    reader, link = os.pipe()
    spaces = [os.dup(link), os.dup(link)]
    made: list[int] = []

    def bundle_once(note: str, files: Sequence[int]) -> int:
        if made:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(bundle(note, files))
        return made[0]

    monkeypatch.setattr(port, "bundle", bundle_once)
    monkeypatch.setattr(_native, "open_xdp_pairs", lambda *_, **__: (link, spaces))
    settings = PortSettings(name="lan", kind="afxdp", device="lan0", fallback="none")
    with pytest.raises(OSError, match="Too many open files"):
        port.open_shared_afxdp(settings, 2, by_destination=False)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b"", "nobody holds any of it"
    os.close(reader)
