"""A template: a guest that has been built, initialised and checkpointed, for FWPs to be made from."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from edgeos.checkpoint import Checkpoint
from edgeos.code_cache import CodeCache
from edgeos.errors import EdgeosError
from edgeos.guest import load_guest
from edgeos.settings import TemplateSettings


class Template:
    """Made at once, so that a guest that does not build, or whose init fails, shows here. A context manager.

    A node can be given a template instead of its settings; several nodes can share one.
    """

    def __init__(self, settings: TemplateSettings, *, progress: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self._checkpoint: Checkpoint | None = load_guest(settings, CodeCache(), progress)

    @property
    def checkpoint(self) -> Checkpoint:
        """The module at its checkpoint with its layout. Raises EdgeosError once the template is closed."""
        if self._checkpoint is None:
            raise EdgeosError(f"the template {self.settings.name} is closed")
        return self._checkpoint

    @property
    def counters(self) -> tuple[str, ...]:
        """Names of the guest's own counters."""
        return tuple(counter.name for counter in self.checkpoint.layout.counters)

    def close(self) -> None:
        """Lets go of the guest; nodes that have it keep it."""
        self._checkpoint = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
