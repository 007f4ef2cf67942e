"""What a node in this process answers at a control socket: its counters and its guests' named values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeos.errors import EdgeosError
from edgeos.findings import shown
from edgeos.handlers import HandlerAnswer
from edgeos.service.protocol import Request

if TYPE_CHECKING:
    from edgeos.node import Node


def read_handler(node: Node, request: Request) -> list[dict[str, str]]:
    """A named value of a stage's guest, of one client or of all."""
    where = (request.text("chain"), request.text("stage"))
    try:
        answers = node.read_handler(*where, request.optional_text("client"), request.text("name"))
    except KeyError as missing:
        raise _nowhere(missing) from None
    return [_plain(answer) for answer in answers]


def write_handler(node: Node, request: Request) -> list[dict[str, str]]:
    """Sets a named value of a stage's guest, of one client or of all that live."""
    where = (request.text("chain"), request.text("stage"))
    value = request.text("value").encode("utf-8", "surrogateescape")
    try:
        answers = node.write_handler(*where, request.optional_text("client"), request.text("name"), value)
    except KeyError as missing:
        raise _nowhere(missing) from None
    return [_plain(answer) for answer in answers]


def statistics(node: Node, request: Request) -> dict[str, Any]:
    """All counters, as `edgeos up --json` writes them; those of guests unless `guest_counters` is false."""
    return node.statistics(guest_counters=request.arguments.get("guest_counters") is not False).as_dict()


def handler_answers(plain: list[dict[str, str]]) -> list[HandlerAnswer]:
    """The records of what `read_handler` and `write_handler` answered."""
    return [
        HandlerAnswer(
            client=answer["client"],
            value=answer["value"].encode("utf-8", "surrogateescape"),
            problem=answer["problem"],
        )
        for answer in plain
    ]


def _plain(answer: HandlerAnswer) -> dict[str, str]:
    """JSON has no bytes: those that are no UTF-8 become lone surrogates, which lead back to them."""
    value = answer.value.decode("utf-8", "surrogateescape")
    return {"client": answer.client, "value": value, "problem": answer.problem}


def _nowhere(missing: KeyError) -> EdgeosError:
    return EdgeosError(f"there is no chain or stage {shown(missing.args[0])}")
