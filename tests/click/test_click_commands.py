"""`edgeos click build`, `graph` and `elements`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from edgeos.cli import app
from edgeos.click.element import handler_names
from edgeos.click.registry import element_classes

CONFIGURATION = r"""
define($CAPACITY 8)
FromDevice(lan) -> switch :: PaintSwitch;
switch[0] -> Queue($CAPACITY) -> Unqueue -> ToDevice(wan);
switch[1] -> Print("<a & \"b\">") -> d :: Discard;
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fw.click").write_text(CONFIGURATION)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["click", *arguments])


def test_build_writes_a_module() -> None:
    result = run("build", "fw.click")
    assert result.exit_code == 0, result.output
    module = Path("fw.wasm").read_bytes()
    assert module.startswith(b"\0asm")
    assert result.stdout == f"fw.wasm: {len(module):,} bytes, 7 elements, devices lan 0, wan 1\n"


def test_build_writes_c() -> None:
    assert run("build", "fw.click", "--c").exit_code == 0
    code = Path("fw.c").read_text()
    assert "switch :: PaintSwitch, line 3" in code
    assert run("build", "fw.click", "--c", "-o", "-", "-D", "CAPACITY=9", "--devices", "wan,lan").stdout != code


def test_graph_draws_each_element_and_connection() -> None:
    assert run("graph", "fw.click").stdout == "fw.svg: 7 elements, devices lan 0, wan 1\n"
    drawing = ElementTree.fromstring(Path("fw.svg").read_text())
    name = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in drawing.iter(f"{name}title")]
    assert len(titles) == 7
    assert "switch :: PaintSwitch()" in titles
    assert sum('Print("<a & \\"b\\">")' in str(title) for title in titles) == 1
    assert len(list(drawing.iter(f"{name}path"))) == 6
    assert len(list(drawing.iter(f"{name}polygon"))) == 12


def test_boxes_do_not_touch() -> None:
    text = "c :: Tee(12); FromDevice(0) -> c;" + "".join(
        f"c[{n}] -> Print({'x' * n}) -> d{n} :: Discard;" for n in range(12)
    )
    Path("wide.click").write_text(text)
    assert run("graph", "wide.click").exit_code == 0
    boxes = [
        tuple(float(number) for number in match)
        for match in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', Path("wide.svg").read_text())
    ]
    assert len(boxes) == 26
    for index, (x, y, width) in enumerate(boxes):
        for other_x, other_y, other_width in boxes[index + 1 :]:
            assert y != other_y or x + width <= other_x or other_x + other_width <= x


def test_cycles_and_long_chains_are_drawn() -> None:
    Path("cycle.click").write_text("a :: Tee(2); FromDevice(0) -> a; a[0] -> Counter -> a; a[1] -> Discard;")
    assert run("graph", "cycle.click").exit_code == 0
    chain = " -> ".join(["FromDevice(0)", *["Null"] * 2000, "Discard"])
    Path("long.click").write_text(f"{chain};")
    assert run("graph", "long.click").exit_code == 0


def test_graph_for_graphviz() -> None:
    assert run("graph", "fw.click", "-o", "fw.dot").exit_code == 0
    text = Path("fw.dot").read_text()
    assert text.count("->") == 6
    assert text.count("arrowhead=empty") == 1
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg", "fw.dot"], capture_output=True, check=True, timeout=60)


def test_elements_are_listed() -> None:
    result = run("elements")
    assert result.exit_code == 0
    first_words = {line.split(" ")[0] for line in result.stdout.splitlines()}
    assert set(element_classes()) <= first_words


@pytest.mark.parametrize("name", list(element_classes()))
def test_an_element_is_told_in_full(name: str) -> None:
    result = run("elements", name)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{name}(")
    of = element_classes()[name]
    for word in (*(parameter.name for parameter in of.parameters), *handler_names(of)):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["elements", "Quene"], 'did you mean "Queue"?'),
        (["graph", "fw.click", "-o", "fw.bmp"], "allowed: a name that ends in .svg"),
        (["build", "fw.click", "-D", "CAPACITY"], "allowed: NAME=VALUE"),
        (["build", "fw.click", "-D", "1=2"], "the name"),
        (["build", "fw.click", "-D", "CAPACITY=none"], "fw.click:4:20"),
        (["graph", "no.click"], "no.click cannot be read: No such file"),
    ],
)
def test_errors_name_what_is_wrong(arguments: list[str], error: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert error in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
    assert "Traceback" not in result.output
