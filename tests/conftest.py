"""Where tests run: most in several processes, those marked `alone` one by one when all others have ended."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes depends on what else the machine does; a test that hangs meets its time limit. Examples that
# failed are kept, so that a test that is run again begins with them, but not by a user who may not write here.
settings.register_profile("edgeos", deadline=None)
settings.register_profile("elsewhere", deadline=None, database=None)
settings.load_profile("edgeos" if os.access(ROOT, os.W_OK) else "elsewhere")

LIST = "alone_list"
"""Key under which a process of pytest-xdist is told where to write the names of its tests that run alone."""

_folder = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tells a process that is about to start where to write its list. Runs in the process that distributes tests."""
    if _folder not in node.config.stash:
        node.config.stash[_folder] = tempfile.TemporaryDirectory(prefix="edgeos-tests-")
    node.workerinput[LIST] = str(Path(node.config.stash[_folder].name) / node.gateway.id)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Writes the list; pytest-xdist hands on the names of tests and nothing else. Without it there is nothing to do."""
    target = getattr(session.config, "workerinput", {}).get(LIST)
    if target is not None:
        names = (item.nodeid for item in session.items if item.get_closest_marker("alone"))
        Path(target).write_text("\n".join(names), encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """The order of this folder's tests."""
    from scheduling import AloneScheduling  # noqa: PLC0415  (pytest-xdist may not be in use)

    return AloneScheduling(config, log, Path(config.stash[_folder].name))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _folder in config.stash:
        config.stash[_folder].cleanup()
