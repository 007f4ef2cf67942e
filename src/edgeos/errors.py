"""Errors that edgeos raises on purpose. Each message says what was found, where, and what to do about it."""

from __future__ import annotations


class EdgeosError(Exception):
    """Base of all errors that edgeos raises on purpose; the command line prints its text without a traceback."""


class ManifestError(EdgeosError):
    """A manifest, or settings given to the Python API, are wrong. `problems` holds every finding, one text each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class GuestError(EdgeosError):
    """A guest cannot be built, loaded or checkpointed: the compiler's words, a missing export, a trap in its init."""


class PortError(EdgeosError):
    """A port cannot be opened: the device, file or privilege that is missing is named."""


class LimitError(EdgeosError):
    """A limit of the system stands in the way; the message holds the command that raises it."""
