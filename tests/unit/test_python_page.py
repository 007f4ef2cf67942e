"""The programs on the page about the Python API run as they stand, and print what it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    block
    for page in (ROOT / "README.md", ROOT / "docs/python-api.md")
    for block in BLOCK.findall(page.read_text(encoding="utf-8"))
    if "import edgeos" in block  # others are pieces that speak of a node which is there
]
PRINTED = re.compile(r"^ *print\(.*?\) *(?:#|\n +#) (.*)$", re.MULTILINE)


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 5


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_it_runs_and_prints_what_the_page_says(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "page", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    for line in PRINTED.findall(program):
        assert line in printed
