"""What is known of installed packages is what the packages and the standard library say."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from wasmtime import _ffi

import edgeos
from edgeos.installed import installed_version, wasmtime_library


@pytest.mark.parametrize("package", ["wasmtime", "ziglang"])
def test_versions_are_those_of_the_standard_library(package: str) -> None:
    assert installed_version(package) == metadata.version(package)


def test_the_library_is_the_one_that_its_package_opens() -> None:
    assert wasmtime_library() == Path(_ffi.filename)


def test_what_is_not_installed_is_said() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        installed_version("no_such_package")


def test_without_one_folder_of_the_installer_the_standard_library_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twice.py").touch()
    for version in ("1.0", "2.0"):
        folder = tmp_path / f"twice-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twice\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version("twice") == metadata.version("twice")


def test_the_package_says_its_own_version() -> None:
    assert edgeos.__version__ == metadata.version("edgeos")
    with pytest.raises(AttributeError, match="no_such_name"):
        edgeos.no_such_name  # noqa: B018
