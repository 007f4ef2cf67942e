"""The calls that a guest may import: their types, which of them the manifest must grant, and what init gets from them.

Declared for guests in guest/include/edgeos.h, answered by native/kernel/host_calls.cpp.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from edgeos import wasm
from edgeos.findings import nearest, printable

NAME_SHOWN_MAX: Final = 128
"""Characters of an import's module and name that are shown."""

_I32 = wasm.I32
_I64 = wasm.I64


@dataclass(frozen=True, slots=True)
class HostCall:
    """One call. `grant` is the key that a template needs, as a user writes it; empty when every guest may call.

    In init there is no client, so a call answers -1; one with `secret` ends init, because the checkpoint would hold it.
    """

    type: wasm.FuncType
    grant: str = ""
    secret: str = ""


CALLS: Final[Mapping[str, HostCall]] = {
    "emit": HostCall(wasm.FuncType(bytes([_I32] * 4), bytes([_I32]))),
    "stream": HostCall(wasm.FuncType(bytes([_I32, _I64, _I32, _I32, _I32, _I32]), bytes([_I32]))),
    "connect": HostCall(wasm.FuncType(bytes([_I32]), bytes([_I64])), 'connect = ["UPSTREAM"]'),
    "timer": HostCall(wasm.FuncType(bytes([_I64, _I64]), bytes([_I32])), "timer = true"),
    "clock": HostCall(
        wasm.FuncType(b"", bytes([_I64])), "clock = true", "the time when it was made instead of the time it is"
    ),
    "random": HostCall(
        wasm.FuncType(bytes([_I32, _I32]), bytes([_I32])), "random = true", "the same randomness for every client"
    ),
}


def import_problem(entry: wasm.Import, granted: Collection[str]) -> str:
    """Why a module may not import this, with the fix; empty when it may. `granted` are names of calls."""
    if entry.module == "edgeos" and entry.name in CALLS:
        return _call_problem(entry, CALLS[entry.name], granted)
    name = printable(f"{entry.module[:NAME_SHOWN_MAX]}.{entry.name[:NAME_SHOWN_MAX]}")
    if entry.kind != wasm.FUNCTION:
        return f"import {name}: memory, tables and globals must be the guest's own; compile with `edgeos build`"
    if entry.module.startswith("wasi"):
        return (
            f"import {name}: guests get no files, clock, randomness or sockets; remove the calls that need it, such as "
            "printf, fopen or time"
        )
    calls = [f"edgeos.{call}" for call in CALLS]
    advice = nearest(name, calls) if entry.module == "edgeos" else ""
    fix = advice or "remove the call, or define the function in the guest"
    return f"import {name}: there is only {', '.join(calls)}; {fix}"


def _call_problem(entry: wasm.Import, call: HostCall, granted: Collection[str]) -> str:
    if entry.function != call.type:
        return (
            f"import edgeos.{entry.name} must be a function of type {call.type}: compile with `edgeos build` against "
            "the edgeos.h of this version"
        )
    if call.grant and entry.name not in granted:
        return (
            f"import edgeos.{entry.name} needs grant.{entry.name}: add grant = {{ {call.grant} }} to the template, "
            "or remove the call"
        )
    return ""
