"""The package's public face: what is exported exists, is documented and typed; the documented guest works as it is."""

from __future__ import annotations

import inspect
import re
import typing
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

import edgeos
from edgeos import ChainSettings, Node, TemplateSettings, testing

ROOT = Path(__file__).resolve().parents[2]
SELF_EXPLANATORY = {"name", "sent"}


def public_names(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }


def public_methods(owner: type) -> list[tuple[str, object]]:
    return [
        (name, value.fget if isinstance(value, property) else getattr(value, "__func__", value))
        for name, value in vars(owner).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property | classmethod | staticmethod))
    ]


def test_all_is_what_there_is() -> None:
    assert list(edgeos.__all__) == sorted(edgeos.__all__)
    assert set(edgeos.__all__) == public_names(edgeos)
    assert edgeos.__version__


@pytest.mark.parametrize("name", edgeos.__all__)
def test_everything_is_documented(name: str) -> None:
    value = getattr(edgeos, name)
    assert (value.__doc__ or "").strip(), name
    # A record's made-up docstring is its signature.
    assert not value.__doc__.startswith(f"{name}("), name
    if inspect.isclass(value):
        undocumented = [
            method
            for method, function in public_methods(value)
            if not inspect.getdoc(function)
            and method not in getattr(value, "__dataclass_fields__", {})
            and getattr(function, "__qualname__", "") == f"{name}.{method}"
        ]
        assert set(undocumented) <= SELF_EXPLANATORY, f"{name}: {undocumented}"


@pytest.mark.parametrize("name", edgeos.__all__)
def test_everything_is_typed(name: str) -> None:
    value = getattr(edgeos, name)
    functions = [(name, value)] if inspect.isfunction(value) else public_methods(value)
    for called, function in functions:
        if not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, called
        bare = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.annotation is inspect.Parameter.empty and parameter.name not in ("self", "cls")
        ]
        assert bare == [], called


def test_records_are_immutable() -> None:
    for name in edgeos.__all__:
        if name.endswith(("Settings", "Statistics")) or name in ("Manifest", "Match", "Checkpoint"):
            parameters = getattr(edgeos, name).__dataclass_params__
            assert parameters.frozen, name
            assert typing.get_type_hints(getattr(edgeos, name)), name


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files("edgeos").joinpath("py.typed").is_file()


def test_testing_is_public_and_documented() -> None:
    for name in public_names(testing):
        value = getattr(testing, name)
        if getattr(value, "__module__", "") == testing.__name__:
            assert inspect.getdoc(value), name


FIRST_GUEST = """#include <edgeos.h>

static uint64_t seen;

void edgeos_init(const uint8_t *config, uint32_t len) { (void)config; (void)len; }

int edgeos_handle(edgeos_message *m)      /* the SDK loops over the burst */
{
    seen++;
    if (m->len < 14) return EDGEOS_DROP;
    return 0;                             /* forward on out port 0; k forwards on out port k */
}
"""


def documented_guests() -> list[str]:
    """Whole guests in C from the documents."""
    blocks = []
    for path in (ROOT / "README.md", ROOT / "docs" / "guest-abi.md"):
        blocks += re.findall(r"```c\n(.*?)```", path.read_text(), re.DOTALL)
    return [block for block in blocks if "edgeos_handle" in block and "#include" in block]


def test_the_documents_show_a_guest() -> None:
    assert documented_guests()


@pytest.mark.parametrize("source", [FIRST_GUEST, *documented_guests()])
def test_a_documented_guest_builds_and_runs_unchanged(source: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.c"
    path.write_text(source)
    assert edgeos.build(path).startswith(b"\0asm")
    with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, Node() as node:
        node.add_port(lan)
        node.add_port(wan)
        node.add_template(TemplateSettings(name="mine", source=path))
        node.add_chain(ChainSettings(name="edge", path=("lan", "mine", "wan"), max_fwps=4))
        node.add_rule("any", chain="edge")
        frame = testing.udp_packet("10.0.0.1", "10.0.0.2", b"hello")
        lan.inject(frame)
        while node.run_once():
            pass
        assert [data for data, _ in wan.take()] == [frame]
        assert node.statistics().balance == 0
