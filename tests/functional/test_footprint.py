"""What FWPs hold in memory, as much in each life as in the first, and what a node's process holds beside them."""

from __future__ import annotations

import itertools
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import wasmtime
from node_harness import Rig, client_packet, guest, line

from edgeos import NodeSettings, TemplateSettings, testing
from edgeos.code_cache import CodeCache
from edgeos.guest import load_guest

CLIENTS = 150
LIVES = 4
IDLE_TIMEOUT_S = 1
PAGE = resource.getpagesize()
MOST = max(8192, PAGE)
"""Bytes of a small guest's memory that its first messages touch: stack, variables, messages' records and first slot."""

GUARD = 65536
"""Bytes between two memories."""

SPARE = 8
"""FWPs more than clients: those that are ready for the next ones."""

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p 0+ 00:00 0 *$")


@contextmanager
def crowd(template: TemplateSettings) -> Iterator[tuple[Rig, testing.FakeClock]]:
    with line(
        template,
        settings=NodeSettings(memory="compact"),
        max_fwps=CLIENTS,
        idle_timeout_ns=IDLE_TIMEOUT_S * 10**9,
    ) as node:
        clock = testing.FakeClock(node.node)
        node.settle()
        yield node, clock


def live_once(node: Rig, clock: testing.FakeClock, generation: int, payload: bytes = b"") -> None:
    """New clients come, send, and leave; their FWPs are recycled, or given back to the engine."""
    first = generation * CLIENTS
    for begin in range(first, first + CLIENTS, 32):
        node.inject("lan", *(client_packet(c, payload) for c in range(begin, min(begin + 32, first + CLIENTS))))
        while node.node.run_once():
            pass
    assert node.check().chain("edge").live == CLIENTS
    clock.advance(2 * IDLE_TIMEOUT_S)
    for _ in range(CLIENTS):  # a mass leave is spread over iterations
        node.settle()
    node.take("wan")
    assert node.check().chain("edge").live == 0


def resident_memories(size: int) -> int:
    """Resident bytes of this process's memories of FWPs, which are the anonymous mappings of their size."""
    found, counts = 0, False
    for text in Path("/proc/self/smaps").read_text().splitlines():
        mapping = _MAPPING.match(text)
        if mapping is not None:
            counts = int(mapping[2], 16) - int(mapping[1], 16) == size
        elif re.match(r"^[0-9a-f]+-[0-9a-f]+ ", text):
            counts = False
        elif counts and text.startswith("Rss:"):
            found += int(text.split()[1]) * 1024
    return found


def test_an_fwp_holds_as_much_in_later_lives_as_in_its_first() -> None:
    template = guest("tally")
    memory = load_guest(template, CodeCache()).initial_memory
    with crowd(template) as (node, clock):
        held = []
        for generation in range(LIVES):
            live_once(node, clock, generation)
            held.append(resident_memories(memory))
    assert CLIENTS * PAGE <= held[0] <= (CLIENTS + SPARE) * MOST
    # The engine may take another place for one of them than it did before.
    assert max(held) <= held[0] + SPARE * MOST, [size // PAGE for size in held]


def test_memories_that_cannot_grow_lie_close_together() -> None:
    template = guest("tally")
    memory = load_guest(template, CodeCache()).initial_memory
    with crowd(template) as (node, clock):
        live_once(node, clock, 0)
        lines = Path("/proc/self/maps").read_text().splitlines()
        found = [(int(m[1], 16), int(m[2], 16)) for m in map(_MAPPING.match, lines) if m is not None]
    starts = sorted(start for start, end in found if end - start == memory)
    near = [after - before for before, after in itertools.pairwise(starts) if after - before <= memory + GUARD]
    assert len(near) >= CLIENTS - 1, "each but the last is followed by the next, and a guard between"


START = """
import sys
from edgeos import ChainSettings, Node, TemplateSettings, testing
with testing.memory_port("lan") as lan, testing.memory_port("wan") as wan, Node() as node:
    node.add_port(lan)
    node.add_port(wan)
    node.add_template(TemplateSettings(name="bridge", appliance="bridge"))
    node.add_chain(ChainSettings(name="edge", path=("lan", "bridge", "wan")))
    node.add_rule("any", chain="edge")
    node.run_once()
    print(*(name for name in sys.argv[1:] if name in sys.modules))
"""

NEEDED_TO_BUILD = ("wasmtime", "edgeos.guest_init", "edgeos.guest_compiler", "subprocess", "edgeos.click.router")


def test_a_node_whose_guests_are_kept_loads_nothing_that_builds_them() -> None:
    load_guest(TemplateSettings(name="bridge", appliance="bridge"), CodeCache())
    command = [sys.executable, "-c", START, *NEEDED_TO_BUILD, "importlib.metadata"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout.strip(), found.stderr) == (0, "", "")


def test_a_node_lets_go_of_the_code_that_only_its_start_needed() -> None:
    template = guest("tally")
    wasm = load_guest(template, CodeCache()).wasm
    with line(template) as node:
        node.node.prepare()
        wasmtime.Module(wasmtime.Engine(), wasm)  # as compiling does, maps much of the library
        before = resident_library()
        node.settle()
        after = resident_library()
        assert len(node.pass_through("lan", client_packet(1))) == 1
    assert after < before / 2, (before, after)


def resident_library() -> int:
    """Resident bytes of Wasmtime's library in this process."""
    found, counts = 0, False
    for text in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", text):
            counts = text.endswith("_libwasmtime.so")
        elif counts and text.startswith("Rss:"):
            found += int(text.split()[1]) * 1024
    return found
