"""A chain's shape: from its `path` or `links` to stages, out ports and points of entry, as the kernel takes them.

A path is a line, `["lan", "fw", "mon", "wan"]`. Links are a graph, `["lan -> fw", "fw -> wan", "fw[1] -> audit"]`: one
stage's out port (0 if none is named) to one in port of the next; `a -> b -> c` is two links. A name is a port's or a
template's; `left:fw` is a stage called left of the template fw, for a template that stands in a chain twice. A path may
name a template several times as it is: every position is a stage of its own.

Links describe the forward direction. Messages that come in at a port which links only lead into travel them backwards:

    in ports     0 to F-1 by the order of the F links into the stage; F + k: back along the link of out port k
    out ports    forward: k is the link `stage[k] -> …`; reverse: k is the k-th link into the stage, backwards

so in a line in port 0 is the client's side and 1 the far side. The BACK verdict of a forward message means the stage's
reverse out port 0, and the other way round.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from edgeos.errors import ManifestError
from edgeos.findings import BadValueError, quoted, shown, unknown
from edgeos.match import NAME
from edgeos.settings import ChainSettings

STAGES_MAX = 16
OUT_PORTS_MAX = 16
IN_LINKS_MAX = OUT_PORTS_MAX  # backwards they are out ports

FORWARD = 0
REVERSE = 1

# ("stage", stage index, in port) or ("port", port name)
Destination = tuple[Literal["stage"], int, int] | tuple[Literal["port"], str]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One position in a chain. `outs[direction][out port]` says where a message goes on; direction 0 is forward."""

    name: str
    template: str
    outs: tuple[tuple[Destination, ...], tuple[Destination, ...]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where messages from a port of the node come into the chain."""

    port: str
    stage: int
    direction: int
    in_port: int


@dataclass(frozen=True, kw_only=True)
class ChainGraph:
    """Stages in the order in which the chain names them, and one entry for each port that the chain names."""

    stages: tuple[Stage, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class _Node:
    """One end of a link: a port of the node (no template) or a stage."""

    name: str
    template: str | None


@dataclass(frozen=True)
class _Link:
    source: _Node
    out_port: int
    target: _Node

    def __str__(self) -> str:
        out_port = f"[{self.out_port}]" if self.out_port else ""
        return f'"{self.source.name}{out_port} -> {self.target.name}"'


def build_graph(chain: ChainSettings, ports: Collection[str], templates: Collection[str]) -> ChainGraph:
    """The graph of a chain, given the names of the node's ports and templates.

    Raises ManifestError with every finding, each as `chain.NAME.path: …` or `chain.NAME.links: …`.
    """
    key = "links" if chain.links else "path"
    names = _Names(set(ports), set(templates))
    problems: list[BadValueError] = []
    if chain.path and chain.links:
        problems.append(BadValueError("path and links", "one of the two"))
    elif chain.links:
        links = _read_links(chain.links, names, problems)
    else:
        links = _read_path(chain.path, names, problems)
    if not problems:
        problems.extend(_check_links(links))
    if problems:
        raise ManifestError([f"chain.{quoted(chain.name)}.{key}: {problem}" for problem in problems])
    return _number(links)


class _Names:
    """Tells ports from stages, and keeps the stages that `name:template` declares."""

    def __init__(self, ports: set[str], templates: set[str]) -> None:
        self.ports = ports
        self.templates = templates
        self.stages = {template: template for template in templates - ports}

    def declare(self, word: str) -> None:
        """Takes note of `name:template`; any other word is left for `resolve`."""
        name, colon, template = word.partition(":")
        if not colon:
            return
        if not NAME.fullmatch(name):
            raise BadValueError(shown(word), "name:template, the name of 1 to 32 letters, digits, - and _")
        if template not in self.templates:
            raise unknown(template, sorted(self.templates), "a template, but there is none")
        if name in self.ports:
            raise BadValueError(shown(word), "a stage name that no port has")
        if self.stages.setdefault(name, template) != template:
            raise BadValueError(
                shown(word), f"one meaning for {shown(name)}, which is {shown(self.stages[name])} already"
            )

    def resolve(self, word: str) -> _Node:
        name = word.partition(":")[0]
        if name in self.ports:
            return _Node(name, None)
        if name not in self.stages:
            known = [*sorted(self.ports), *sorted(self.stages)]
            raise unknown(name, known, "a port or template, but there is none")
        return _Node(name, self.stages[name])


def _read_path(path: tuple[str, ...], names: _Names, problems: list[BadValueError]) -> list[_Link]:
    nodes = list(_resolve_all(path, names, problems))
    if problems:
        return []
    problems.extend(_check_path(nodes))
    seen: Counter[str] = Counter()
    stages = []
    for node in nodes:
        seen[node.name] += 1
        # A dot cannot stand in a name, so that the second "fw" meets no other stage called "fw.2".
        repeated = node.template is not None and seen[node.name] > 1
        stages.append(_Node(f"{node.name}.{seen[node.name]}", node.template) if repeated else node)
    return [_Link(source, 0, target) for source, target in pairwise(stages)]


def _check_path(nodes: list[_Node]) -> Iterator[BadValueError]:
    if len(nodes) < 2 or all(node.template is None for node in nodes):
        yield BadValueError(
            f"{len(nodes)} names" if len(nodes) != 1 else shown(nodes[0].name),
            'a port, one template or more, and a port, such as ["lan", "fw", "wan"]',
        )
        return
    if nodes[0].template is not None:
        yield BadValueError(f"the template {shown(nodes[0].name)} first", "a port first")
    for node in nodes[1:-1]:
        if node.template is None:
            yield BadValueError(f"the port {shown(node.name)} in the middle", "ports at the ends only", 'use "links"')
    if nodes[0] == nodes[-1] and nodes[0].template is None:
        yield BadValueError(f"the port {shown(nodes[0].name)} twice", "two different ports", 'use "links"')


_LINK_END = re.compile(r"([^\[\]\s]+)(?:\[([0-9]{1,3})\])?")


def _read_links(texts: tuple[str, ...], names: _Names, problems: list[BadValueError]) -> list[_Link]:
    rows = [row for text in texts if (row := _split_link(text, problems))]
    _resolve_all([word for row in rows for word, _ in row], names, problems)
    if problems:
        return []
    return [
        _Link(names.resolve(source), out_port, names.resolve(target))
        for row in rows
        for (source, out_port), (target, _) in pairwise(row)
    ]


def _split_link(text: str, problems: list[BadValueError]) -> list[tuple[str, int]]:
    """Name and out port of each end of `a -> b[1] -> c`."""
    ends = [_LINK_END.fullmatch(part.strip()) for part in text.split("->")]
    if len(ends) < 2 or not all(ends):
        problems.append(BadValueError(shown(text), '"from -> to", with an out port as in "fw[1] -> wan"'))
        return []
    row = [(end.group(1), int(end.group(2) or 0)) for end in ends if end]
    if ends[-1] and ends[-1].group(2):
        problems.append(BadValueError(shown(text), "an out port at the source of a link only"))
    problems.extend(
        BadValueError(f"out port {out_port} in {shown(text)}", f"0 to {OUT_PORTS_MAX - 1}")
        for _, out_port in row
        if out_port >= OUT_PORTS_MAX
    )
    return row


def _resolve_all(words: Collection[str], names: _Names, problems: list[BadValueError]) -> list[_Node]:
    """The nodes behind the words; declarations first, so that a name may be used before the link that declares it."""
    bad: dict[str, BadValueError] = {}
    for word in words:
        try:
            names.declare(word)
        except BadValueError as problem:
            bad[word] = problem
    nodes = []
    for word in words:
        try:
            nodes.append(names.resolve(word))
        except BadValueError as problem:
            bad.setdefault(word, problem)
    problems.extend(bad.values())
    return nodes


def _check_links(links: list[_Link]) -> Iterator[BadValueError]:
    """Everything that keeps well-formed links from being a chain."""
    stages = _stages(links)
    if len(stages) > STAGES_MAX:
        yield BadValueError(f"{len(stages)} stages", f"at most {STAGES_MAX} in one chain")
        return
    for link in links:
        if link.source.template is None and link.target.template is None:
            yield BadValueError(str(link), "a stage at one end or both")
        if link.source.template is None and link.out_port:
            yield BadValueError(str(link), "out port 0: a port of the node has only one way in")
    yield from _check_port_sources(links)
    for stage in stages:
        yield from _check_stage(stage, links)
    if loop := _find_loop(links):
        yield BadValueError(f"a loop: {' -> '.join(loop)}", "stages that lead onward only")


def _check_port_sources(links: list[_Link]) -> Iterator[BadValueError]:
    feeds: dict[str, list[str]] = {}
    for link in links:
        if link.source.template is None:
            feeds.setdefault(link.source.name, []).append(link.target.name)
    for port, targets in feeds.items():
        if len(targets) > 1:
            yield BadValueError(f"the port {shown(port)} feeding {', '.join(targets)}", "one stage for each port")


def _check_stage(stage: _Node, links: list[_Link]) -> Iterator[BadValueError]:
    into = [link for link in links if link.target == stage]
    if not into:
        yield BadValueError(f"nothing that leads to {shown(stage.name)}", "a link into every stage")
    if len(into) > IN_LINKS_MAX:
        yield BadValueError(f"{len(into)} links into {shown(stage.name)}", f"at most {IN_LINKS_MAX}")
    out_ports = Counter(link.out_port for link in links if link.source == stage)
    for out_port, count in out_ports.items():
        if count > 1:
            yield BadValueError(f"{count} links from {stage.name}[{out_port}]", "one link from each out port")
    missing = sorted(set(range(max(out_ports, default=-1))) - set(out_ports))
    if missing:
        gap = ", ".join(f"{stage.name}[{out_port}]" for out_port in missing)
        yield BadValueError(f"no link from {gap}", f"out ports of {shown(stage.name)} from 0 without a gap")


def _find_loop(links: list[_Link]) -> list[str]:
    """The names along one loop among stages, the first repeated at the end; empty if there is none."""
    onward: dict[str, list[str]] = {}
    for link in links:
        if link.source.template is not None and link.target.template is not None:
            onward.setdefault(link.source.name, []).append(link.target.name)
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for target in onward.get(name, ()):
            if loop := walk(target, [*trail, name]):
                return loop
        done.add(name)
        return []

    return next((loop for name in onward if (loop := walk(name, []))), [])


def _stages(links: list[_Link]) -> list[_Node]:
    ends = dict.fromkeys(end for link in links for end in (link.source, link.target))
    return [end for end in ends if end.template is not None]


def _number(links: list[_Link]) -> ChainGraph:
    """Numbers stages, in ports and out ports of links that `_check_links` found nothing wrong with."""
    stages = _stages(links)
    index = {stage: number for number, stage in enumerate(stages)}
    into = {stage: [link for link in links if link.target == stage] for stage in stages}
    out_of = {
        stage: sorted((link for link in links if link.source == stage), key=lambda link: link.out_port)
        for stage in stages
    }

    def arrival(link: _Link, direction: int) -> Destination:
        """Where a message along the link, in the direction, arrives."""
        end = link.source if direction == REVERSE else link.target
        if end.template is None:
            return ("port", end.name)
        in_port = len(into[end]) + link.out_port if direction == REVERSE else into[end].index(link)
        return ("stage", index[end], in_port)

    entries: dict[str, Entry] = {}
    # Forward entries first: a port that links lead both out of and into is a client's side. Of several links into a
    # port the first listed one is the way back.
    for direction in (FORWARD, REVERSE):
        for link in links:
            port = link.source if direction == FORWARD else link.target
            destination = arrival(link, direction)
            if port.template is None and port.name not in entries and destination[0] == "stage":
                _, stage, in_port = destination
                entries[port.name] = Entry(port=port.name, stage=stage, direction=direction, in_port=in_port)
    return ChainGraph(
        stages=tuple(
            Stage(
                name=stage.name,
                template=stage.template or "",
                outs=(
                    tuple(arrival(link, FORWARD) for link in out_of[stage]),
                    tuple(arrival(link, REVERSE) for link in into[stage]),
                ),
            )
            for stage in stages
        ),
        entries=tuple(entries.values()),
    )
