"""Chains to stages, out ports and entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeos.errors import ManifestError
from edgeos.graph import FORWARD, REVERSE, ChainGraph, Destination, Entry, build_graph
from edgeos.settings import ChainSettings

PORTS = {"lan", "wan", "audit"}
TEMPLATES = {"fw", "mon", "ids"}


def path(*names: str) -> ChainGraph:
    return build_graph(ChainSettings(name="c", path=names), PORTS, TEMPLATES)


def links(*texts: str) -> ChainGraph:
    return build_graph(ChainSettings(name="c", links=texts), PORTS, TEMPLATES)


def entry(port: str, stage: int, direction: int, in_port: int) -> Entry:
    return Entry(port=port, stage=stage, direction=direction, in_port=in_port)


def test_line() -> None:
    graph = path("lan", "fw", "mon", "wan")
    assert [(stage.name, stage.template) for stage in graph.stages] == [("fw", "fw"), ("mon", "mon")]
    assert graph.stages[0].outs == ((("stage", 1, 0),), (("port", "lan"),))
    assert graph.stages[1].outs == ((("port", "wan"),), (("stage", 0, 1),))
    assert graph.entries == (entry("lan", 0, FORWARD, 0), entry("wan", 1, REVERSE, 1))


def test_path_and_links_of_a_line_are_the_same() -> None:
    assert (
        path("lan", "fw", "mon", "wan") == links("lan -> fw", "fw->mon", "mon[0] -> wan") == links("lan->fw->mon->wan")
    )


def test_one_template_at_two_positions() -> None:
    graph = path("lan", "fw", "mon", "fw", "wan")
    assert [(stage.name, stage.template) for stage in graph.stages] == [("fw", "fw"), ("mon", "mon"), ("fw.2", "fw")]
    named = path("lan", "outer:fw", "inner:fw", "wan")
    assert [(stage.name, stage.template) for stage in named.stages] == [("outer", "fw"), ("inner", "fw")]


def test_path_that_ends_in_a_stage() -> None:
    graph = path("lan", "fw")
    assert graph.stages[0].outs == ((), (("port", "lan"),))
    assert graph.entries == (entry("lan", 0, FORWARD, 0),)


def test_graph_numbers_ports_both_ways() -> None:
    # lan -> fw: out 0 to wan, out 1 through the ids, which leads to wan too.
    graph = links("lan -> fw", "fw[1] -> ids", "fw -> wan", "ids -> wan")
    fw, ids = graph.stages
    assert fw.outs == ((("port", "wan"), ("stage", 1, 0)), (("port", "lan"),))
    # Back along fw[1]: fw has one link in, so its in port is 1 + 1.
    assert ids.outs == ((("port", "wan"),), (("stage", 0, 2),))
    # The first listed link into wan is the way back: from fw's out port 0, in port 1 + 0.
    assert graph.entries == (entry("lan", 0, FORWARD, 0), entry("wan", 0, REVERSE, 1))


def test_links_that_meet_in_one_stage() -> None:
    graph = links("lan -> fw", "audit -> ids", "fw -> mon", "ids -> mon", "mon -> wan")
    mon = graph.stages[2]
    assert graph.stages[0].outs[FORWARD] == (("stage", 2, 0),)
    assert graph.stages[1].outs[FORWARD] == (("stage", 2, 1),)
    assert mon.outs[REVERSE] == (("stage", 0, 1), ("stage", 1, 1))
    assert graph.entries[2] == entry("wan", 2, REVERSE, 2)


def test_port_that_is_source_and_destination() -> None:
    graph = links("lan -> fw", "fw -> lan")
    assert graph.entries == (entry("lan", 0, FORWARD, 0),)
    assert graph.stages[0].outs == ((("port", "lan"),), (("port", "lan"),))


def test_stage_name_before_its_declaration() -> None:
    graph = links("lan -> left", "left:fw -> right:fw", "right -> wan")
    assert [(stage.name, stage.template) for stage in graph.stages] == [("left", "fw"), ("right", "fw")]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("lan", "fv", "wan"), 'found "fv"; allowed: audit, lan, wan, fw, ids, mon; did you mean "fw"?'),
        (("lan", "fw", "audit", "mon", "wan"), 'found the port "audit" in the middle; allowed: ports at the ends'),
        (("lan", "fw", "lan"), 'found the port "lan" twice; allowed: two different ports; use "links"'),
        (("fw", "wan"), 'found the template "fw" first; allowed: a port first'),
        (("lan", "wan"), "found 2 names; allowed: a port, one template"),
        (("lan",), 'found "lan"; allowed: a port, one template'),
        ((), "found 0 names; allowed: a port, one template"),
        (("lan", *["fw"] * 17, "wan"), "found 17 stages; allowed: at most 16"),
        (("lan", "a:fv", "wan"), 'found "fv"; allowed: fw, ids, mon; did you mean "fw"?'),
        (("lan", "lan:fw", "wan"), "allowed: a stage name that no port has"),
        (("lan", "x:fw", "x:mon", "wan"), 'allowed: one meaning for "x", which is "fw" already'),
        (("lan", "x y:fw", "wan"), "allowed: name:template"),
    ],
)
def test_bad_paths(names: tuple[str, ...], found: str) -> None:
    with pytest.raises(ManifestError) as caught:
        path(*names)
    assert found in str(caught.value)
    assert str(caught.value).startswith("chain.c.path: ")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (("lan fw",), 'found "lan fw"; allowed: "from -> to"'),
        (("lan -> fw[x]",), 'allowed: "from -> to"'),
        (("lan -> fw", "fw -> wan[1]"), "allowed: an out port at the source of a link only"),
        (("lan -> fw", "fw[16] -> wan"), "found out port 16"),
        (("lan[1] -> fw", "fw -> wan"), "allowed: out port 0"),
        (("lan -> fw", "fw -> wn"), 'found "wn"; allowed: audit, lan, wan, fw, ids, mon; did you mean "wan"?'),
        (("lan -> wan",), 'found "lan -> wan"; allowed: a stage at one end or both'),
        (("lan -> fw", "fw -> mon", "mon -> fw"), "found a loop: fw -> mon -> fw"),
        (("lan -> fw", "fw -> fw"), "found a loop: fw -> fw"),
        (("lan -> fw", "fw -> wan", "mon -> audit"), 'found nothing that leads to "mon"'),
        (("lan -> fw", "fw[1] -> wan"), 'found no link from fw[0]; allowed: out ports of "fw" from 0 without a gap'),
        (("lan -> fw", "fw -> wan", "fw -> audit"), "found 2 links from fw[0]; allowed: one link from each out port"),
        (("lan -> fw", "lan -> mon"), 'found the port "lan" feeding fw, mon; allowed: one stage'),
    ],
)
def test_bad_links(texts: tuple[str, ...], found: str) -> None:
    with pytest.raises(ManifestError) as caught:
        links(*texts)
    assert found in str(caught.value)
    assert all(problem.startswith("chain.c.links: ") for problem in caught.value.problems)


def test_all_findings_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        links("lan -> fw", "lan -> mon", "fw[1] -> wan", "fw[1] -> audit", "ids -> wan")
    assert len(caught.value.problems) == 4


def test_both_path_and_links() -> None:
    with pytest.raises(ManifestError, match="found path and links"):
        build_graph(ChainSettings(name="c", path=("lan", "fw"), links=("lan -> fw",)), PORTS, TEMPLATES)


def test_too_many_links_into_one_stage() -> None:
    ports = {f"p{number}" for number in range(17)}
    chain = ChainSettings(name="c", links=tuple(f"{port} -> fw" for port in sorted(ports)))
    with pytest.raises(ManifestError, match='found 17 links into "fw"; allowed: at most 16'):
        build_graph(chain, ports, {"fw"})


NAMES = st.sampled_from(["lan", "wan", "audit", "fw", "mon", "ids", "a:fw", "b:fw", "a", "no", ""])
TEXTS = st.lists(
    st.lists(st.tuples(NAMES, st.sampled_from(["", "", "[1]", "[2]"])).map("".join), min_size=1, max_size=4).map(
        " -> ".join
    ),
    max_size=6,
)


@given(
    st.lists(NAMES).map(lambda names: ChainSettings(name="c", path=tuple(names)))
    | TEXTS.map(lambda texts: ChainSettings(name="c", links=tuple(texts)))
)
def test_what_is_built_leads_back(chain: ChainSettings) -> None:
    """Every hop along an out port has its way back: the receiver's matching out port leads to the sender."""
    try:
        graph = build_graph(chain, PORTS, TEMPLATES)
    except ManifestError:
        return
    for index, stage in enumerate(graph.stages):
        for out_port, destination in enumerate(stage.outs[FORWARD]):
            if destination[0] == "stage":
                _, target, in_port = destination
                back: Destination = ("stage", index, len(stage.outs[REVERSE]) + out_port)
                assert graph.stages[target].outs[REVERSE][in_port] == back
    for way_in in graph.entries:
        assert 0 <= way_in.in_port < sum(map(len, graph.stages[way_in.stage].outs))
