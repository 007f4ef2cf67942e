"""How much C stack a guest may need: its functions' frames, added up along the deepest chain of calls.

Compilers keep C variables whose address is taken on a stack in the guest's own memory; its first global is the pointer.
A function that has some begins with `global.get 0, i32.const FRAME, i32.sub`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgeos.wasm import FUNCTION, FuncType, Module
from edgeos.wasm_code import (
    CALL,
    CALL_INDIRECT,
    GLOBAL_GET,
    I32_CONST,
    I32_SUB,
    RETURN_CALL,
    RETURN_CALL_INDIRECT,
    Instruction,
    bodies,
)


@dataclass(frozen=True, slots=True)
class StackNeed:
    """Bytes of the deepest chain of calls. Functions that call each other count once each, and `recursive` says so."""

    bytes: int
    recursive: bool


@dataclass(slots=True)
class _Function:
    frame: int = 0
    calls: set[int] = field(default_factory=set)
    indirect: set[int] = field(default_factory=set)  # types of functions, by number


def stack_need(module: Module) -> StackNeed:
    """What the exported functions need of C stack; arrays whose size is known at run time only are not counted.

    Raises GuestError for code that this reader does not know.
    """
    functions = _functions(module)
    calls = _calls(module, functions)
    roots = [export.index for export in module.exports if export.kind == FUNCTION]
    frames = dict.fromkeys(calls, 0) | {index: function.frame for index, function in functions.items()}
    return _deepest(frames, calls, roots)


def call_graph(module: Module) -> dict[int, set[int]]:
    """The functions that each function of the module itself may call, directly or through its table.

    A call through the table leads to a negative number, which stands for the type and calls the functions that fit it:
    so the graph is no larger than the module. Raises GuestError for code that this reader does not know.
    """
    return _calls(module, _functions(module))


def _calls(module: Module, functions: dict[int, _Function]) -> dict[int, set[int]]:
    kinds, first = _kinds(module), module.imported(FUNCTION)
    calls: dict[int, set[int]] = {~kind: set() for kind in kinds}
    for index in module.referenced:
        if index >= first:
            calls[~kinds[module.functions[index - first]]].add(index)
    for index, function in functions.items():
        calls[index] = function.calls.union(~kind for kind in function.indirect)
    return calls


def _kinds(module: Module) -> list[int]:
    """Of each type the number of the first that is equal to it."""
    firsts: dict[FuncType, int] = {}
    return [firsts.setdefault(kind, number) for number, kind in enumerate(module.types)]


def _deepest(frames: dict[int, int], calls: dict[int, set[int]], roots: Iterable[int]) -> StackNeed:
    """Tarjan's search for groups of functions that call each other; a group's need is known when it has been found.

    It does not call itself: chains of calls may be longer than Python's.
    """
    needs: dict[int, int] = {}
    met: dict[int, int] = {}  # functions, in the order in which they were met
    back: dict[int, int] = {}  # how far back each leads
    path: list[int] = []  # functions whose group is not known yet
    recursive = False
    todo = [index for index in roots if index in frames]
    while todo:
        index = todo[-1]
        if index in back:
            todo.pop()
            continue
        callees = [callee for callee in calls[index] if callee in frames]
        if index not in met:
            met[index] = len(met)
            path.append(index)
            todo += [callee for callee in callees if callee not in met]
            continue
        todo.pop()
        back[index] = min([met[index], *(back.get(callee, met[callee]) for callee in callees if callee not in needs)])
        if back[index] == met[index]:
            group = [path.pop()]
            while group[-1] != index:
                group.append(path.pop())
            frame = sum(frames[member] for member in group)
            recursive |= frame > 0 and (len(group) > 1 or index in calls[index])
            further = [needs[callee] for member in group for callee in calls[member] if callee in needs]
            needs.update(dict.fromkeys(group, frame + max(further, default=0)))
    return StackNeed(max(needs.values(), default=0), recursive)


def _functions(module: Module) -> dict[int, _Function]:
    first, kinds = module.imported(FUNCTION), _kinds(module)
    return {first + number: _function(body, kinds) for number, body in enumerate(bodies(module.code))}


def _function(body: Sequence[Instruction], kinds: Sequence[int]) -> _Function:
    function = _Function()
    for number, (code, operand) in enumerate(body):
        if code in (CALL, RETURN_CALL):
            function.calls.add(operand)
        elif code in (CALL_INDIRECT, RETURN_CALL_INDIRECT):
            function.indirect.update(kinds[operand : operand + 1])
        elif (
            code == I32_SUB and number >= 2 and body[number - 2] == (GLOBAL_GET, 0) and body[number - 1][0] == I32_CONST
        ):
            function.frame = max(function.frame, body[number - 1][1])
    return function
