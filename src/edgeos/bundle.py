"""Several open files, and a note about them, that are passed on as one: in a Unix socket that nobody reads from.

Each process that has the bundle holds what is in it; when the last has let go of the bundle, all in it is let go of.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
_FILE = array("i")
_FILES_MAX = 16
_NOTE_BYTES_MAX = 4096


def bundle(note: str, files: Sequence[int]) -> int:
    """A descriptor that holds copies of `files`. Raises OSError when the system allows no further one."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        socket.send_fds(one, [note.encode()[:_NOTE_BYTES_MAX]], list(files))
        return other.detach()


@contextmanager
def unbundled(file: int) -> Iterator[tuple[str, list[int]]]:
    """The note, and copies of what the bundle holds, which are closed with the block; the bundle keeps its own.

    Raises OSError when the system allows no further ones.
    """
    with socket.socket(fileno=os.dup(file)) as kept:
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        note, extras, result, _ = kept.recvmsg(_NOTE_BYTES_MAX, socket.CMSG_LEN(_FILES_MAX * _FILE.itemsize), flags)
    files = array("i", b"".join(data for level, kind, data in extras if (level, kind) == _RIGHTS))
    try:
        if result & socket.MSG_CTRUNC:  # some of them, or all, are missing
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        yield note.decode(errors="replace"), list(files)
    finally:
        for copy in files:
            os.close(copy)
