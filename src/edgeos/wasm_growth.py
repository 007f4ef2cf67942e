"""Whether a guest can ask for more memory while it runs: most get theirs from the linker and in init."""

from __future__ import annotations

from collections.abc import Iterable

from edgeos.errors import GuestError
from edgeos.wasm import FUNCTION, Module
from edgeos.wasm_code import MEMORY_GROW, bodies
from edgeos.wasm_stack import call_graph


def may_grow(module: Module, roots: Iterable[int]) -> bool:
    """True when calls of these functions may come to `memory.grow`; code that is not known counts as such."""
    first = module.imported(FUNCTION)
    try:
        calls = call_graph(module)
        growing = {
            first + number
            for number, body in enumerate(bodies(module.code))
            if any(code == MEMORY_GROW for code, _ in body)
        }
    except GuestError:
        return True
    reached: set[int] = set()
    waiting = set(roots)
    while waiting:
        index = waiting.pop()
        reached.add(index)
        waiting |= calls.get(index, set()) - reached
    return not growing.isdisjoint(reached)
