"""Documents keep up with the source: links lead somewhere, and the architecture names every file there is."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("native/kernel", "native/ports", "src/edgeos", "src/edgeos/service", "src/edgeos/click")
LINK = re.compile(r"\[[^][]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"#{1,6} +(.+)")
NAME = re.compile(r"`([\w./-]+)`")


def _documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / name for name in listed.stdout.splitlines()] or sorted(
        [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("appliances/**/*.md")]
    )


def _prose(document: Path) -> str:
    """The text without its blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, made as GitHub makes them."""
    headings = (found[1] for line in _prose(document).splitlines() if (found := HEADING.fullmatch(line)))
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    broken = []
    for link in LINK.findall(re.sub(r"`[^`]*`", "", _prose(document))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document if not name else document.parent / name
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


def test_the_architecture_names_every_file() -> None:
    named = {Path(name).stem for name in NAME.findall((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))}
    missing = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).iterdir())
        if path.suffix in (".cpp", ".hpp", ".py") and not path.stem.startswith("__") and path.stem not in named
    ]
    assert not missing


def test_the_architecture_names_no_file_that_is_gone() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tables = text.partition("## What each file does")[2]
    stems = {path.stem for folder in FOLDERS for path in (ROOT / folder).iterdir()} | {"bindings", "click", "elements"}
    stems |= {Path(folder).name for folder in FOLDERS}
    rows = [line.split("|")[1] for line in tables.splitlines() if line.startswith("|")]
    assert not {Path(name).stem for row in rows for name in NAME.findall(row)} - stems


def test_the_readme_lists_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme.partition("## Documents")[2]
    assert not [page.name for page in sorted((ROOT / "docs").glob("*.md")) if f"(docs/{page.name})" not in listed]
