"""`edgeos read` and `edgeos write`: named values of the guests of a running node."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeos.errors import EdgeosError
from edgeos.findings import printable, shown
from edgeos.handlers import HandlerAnswer, total
from edgeos.service.commands import RunDirectoryOption
from edgeos.service.control_client import ControlClient
from edgeos.service.node_verbs import handler_answers
from edgeos.service.run_directory import connect, connect_only

WHERE = "CHAIN/STAGE[@CLIENT]"

Where = Annotated[
    str,
    typer.Argument(metavar=WHERE, help="A stage of a chain, for all live clients or for one.", show_default=False),
]
HandlerName = Annotated[
    str,
    typer.Argument(
        metavar="HANDLER", help="ELEMENT.HANDLER of a Click configuration, or a counter.", show_default=False
    ),
]
ManifestOption = Annotated[
    Path | None,
    typer.Option("--manifest", "-m", metavar="MANIFEST", help="Which node, where several run.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Clients, values, problems and the sum, as JSON.")]


@dataclass(frozen=True)
class Target:
    """Whose value is meant; without a client that of all that live."""

    chain: str
    stage: str
    client: str | None

    @classmethod
    def parse(cls, text: str) -> Target:
        """From CHAIN/STAGE[@CLIENT]. Raises a usage error."""
        place, at, client = text.partition("@")
        chain, slash, stage = place.partition("/")
        if not chain or not slash or not stage or (at and not client):
            raise typer.BadParameter(
                f"found {shown(text)}; allowed: {WHERE}, such as edge/fw@10.0.0.7", param_hint=WHERE
            )
        return cls(chain, stage, client or None)

    def __str__(self) -> str:
        return f"{self.chain}/{self.stage}" + (f"@{self.client}" if self.client else "")


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command(
        epilog="Examples:  [bold]edgeos read edge/fw@10.0.0.7 counter.count[/]  ·  [bold]edgeos read edge/fw denied[/]"
    )(read)
    app.command(
        epilog="Examples:  [bold]edgeos write edge/fw@10.0.0.7 shaper.rate 500[/]  ·  "
        "[bold]edgeos write edge/fw counter.reset[/]"
    )(write)


def read(
    where: Where,
    handler: HandlerName,
    manifest: ManifestOption = None,
    as_json: Json = False,
    run_directory: RunDirectoryOption = None,
) -> None:
    """Read a named value of guests: of one client, or of each and their sum."""
    target = Target.parse(where)
    with _connect(manifest, run_directory) as node:
        plain = node.ask("read_handler", chain=target.chain, stage=target.stage, client=target.client, name=handler)
    answers = _answered(handler_answers(plain), target)
    if as_json:
        _print_json(answers)
    elif target.client is not None and not answers[0].problem:
        print(_lines(answers[0].text))
    else:
        _print_each(answers)
        if (number := total(answers)) is not None:
            print(f"sum  {number}")
    _end(answers)


def write(
    where: Where,
    handler: HandlerName,
    value: Annotated[str, typer.Argument(metavar="[VALUE]", help="Its new value.", show_default=False)] = "",
    manifest: ManifestOption = None,
    as_json: Json = False,
    run_directory: RunDirectoryOption = None,
) -> None:
    """Set a named value of guests: of one client, or of all that live. Clients that come later know nothing of it."""
    target = Target.parse(where)
    with _connect(manifest, run_directory) as node:
        plain = node.ask(
            "write_handler", chain=target.chain, stage=target.stage, client=target.client, name=handler, value=value
        )
    answers = _answered(handler_answers(plain), target)
    if as_json:
        _print_json(answers)
    else:
        _print_each([answer for answer in answers if answer.problem or answer.value])
    _end(answers)


def _connect(manifest: Path | None, run_directory: Path | None) -> ControlClient:
    if manifest is None and run_directory is None:
        return connect_only()
    return connect(manifest or Path(), run_directory)


def _answered(answers: Sequence[HandlerAnswer], target: Target) -> Sequence[HandlerAnswer]:
    if not answers:
        raise EdgeosError(f"{target}: {'this client is not live' if target.client else 'no client is live'}")
    return answers


def _print_each(answers: Sequence[HandlerAnswer]) -> None:
    """One line for each client; values of several lines stand below it."""
    for answer in answers:
        if answer.problem:
            print(f"{answer.client}: {printable(answer.problem)}", file=sys.stderr)
            continue
        text = _lines(answer.text)
        print(f"{answer.client}  {text}" if "\n" not in text else f"{answer.client}\n{text}")


def _lines(text: str) -> str:
    """The value with its line ends, and nothing else that a terminal would act on."""
    return "\n".join(printable(line) for line in text.removesuffix("\n").split("\n"))


def _print_json(answers: Sequence[HandlerAnswer]) -> None:
    clients = [{"client": a.client, "value": a.text, "problem": a.problem} for a in answers]
    print(json.dumps({"clients": clients, "sum": total(answers)}, indent=2))


def _end(answers: Sequence[HandlerAnswer]) -> None:
    if any(answer.problem for answer in answers):
        raise typer.Exit(1)
