"""The words of the control socket: one JSON object per line each way, a request with its verb, then its answer.

{"verb": "read_handler", "chain": "edge", "stage": "fw", "client": null, "name": "denied"}
{"ok": true, "result": [{"client": "10.0.0.7", "value": "3", "problem": ""}]}
{"ok": false, "error": "there is no chain or stage \"fq\""}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeos.errors import EdgeosError, ManifestError
from edgeos.findings import listed, nearest, shown

REQUEST_BYTES_MAX = 1 << 20
ANSWER_BYTES_MAX = 1 << 28


@dataclass(frozen=True)
class Request:
    """A verb and its arguments, which are believed in nothing."""

    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """An argument that must be a text. Raises EdgeosError."""
        value = self.arguments.get(key)
        if not isinstance(value, str):
            raise EdgeosError(f"{self.verb}.{key}: found {shown(value)}; allowed: a text")
        return value

    def optional_text(self, key: str) -> str | None:
        """An argument that may be missing or null. Raises EdgeosError."""
        return None if self.arguments.get(key) is None else self.text(key)

    def number(self, key: str) -> int:
        """An argument that must be a whole number of at least 0. Raises EdgeosError."""
        value = self.arguments.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise EdgeosError(f"{self.verb}.{key}: found {shown(value)}; allowed: a whole number")
        return value


@dataclass(frozen=True)
class Descriptors:
    """A result that goes with open files, which the other process gets copies of."""

    result: Any
    files: list[int]


def encode_request(verb: str, arguments: Mapping[str, Any]) -> bytes:
    """The line of a request."""
    return _line({"verb": verb, **arguments})


def decode_request(line: bytes) -> Request:
    """A request from its line. Raises EdgeosError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("verb"), str):
        raise EdgeosError('found no request; allowed: one JSON object per line, such as {"verb": "status"}')
    return Request(value["verb"], {key: item for key, item in value.items() if key != "verb"})


def encode_result(result: Any) -> bytes:
    """The line of an answer."""
    return _line({"ok": True, "result": result})


def encode_error(error: EdgeosError) -> bytes:
    """The line that says what is wrong; all findings of a manifest are listed."""
    problems = {"problems": list(error.problems)} if isinstance(error, ManifestError) else {}
    return _line({"ok": False, "error": str(error), **problems})


def decode_answer(line: bytes) -> Any:
    """The result of an answer. Raises the error that the other side met."""
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return answer["result"]
        error = str(answer["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EdgeosError("the answer of the control socket is not understood: is it another version?") from None
    if "problems" in answer:
        raise ManifestError([str(problem) for problem in answer["problems"]])
    raise EdgeosError(error)


def unknown_verb(verb: str, verbs: Mapping[str, object]) -> EdgeosError:
    """The error for a verb that is not there."""
    hint = nearest(verb, verbs)
    return EdgeosError(
        f"found the verb {shown(verb)}; allowed: {listed(sorted(verbs))}" + (f"; {hint}" if hint else "")
    )


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
