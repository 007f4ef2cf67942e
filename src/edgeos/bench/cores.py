"""Who runs on which core, so that what is measured and what measures it do not disturb each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def load_cores() -> set[int]:
    """The core of a load generator: the last one."""
    return {max(os.sched_getaffinity(0))}


def service_cores() -> set[int]:
    """The cores of what is measured: all others, or the only one."""
    return os.sched_getaffinity(0) - load_cores() or load_cores()
