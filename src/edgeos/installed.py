"""What is known of installed packages, without loading them or the standard library's large machinery for it."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path


@cache
def installed_version(package: str) -> str:
    """The version of a package, by the folder that its installer has left beside it. ModuleNotFoundError without it."""
    found = [folder.name for folder in _folder(package).parent.glob(f"{package}-*.dist-info")]
    if len(found) == 1:
        return found[0].removeprefix(f"{package}-").removesuffix(".dist-info")
    from importlib import metadata  # noqa: PLC0415  (large)

    return metadata.version(package)


def wasmtime_library() -> Path:
    """Wasmtime's C library, in its wheel. ModuleNotFoundError when that is not installed."""
    return _folder("wasmtime") / f"{sys.platform}-{os.uname().machine}" / "_libwasmtime.so"


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    return Path(spec.origin).parent
