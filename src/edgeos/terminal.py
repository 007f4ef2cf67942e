"""What commands have in common: where they print their tables, and the files that they are to write in the end."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 140  # columns; wide enough for every table


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal; where there is none, wide enough that tables need no second lines."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def require_writable(path: Path, option: str) -> None:
    """Refuses a file that could not be written after the run, when it is too late. Raises a usage error."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written", param_hint=option)
