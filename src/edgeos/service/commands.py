"""Commands that speak to a running node by its control socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeos.findings import counted, printable
from edgeos.service.run_directory import connect

RunDirectoryOption = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", help="Folder of the control socket.", show_default=False),
]
RunningManifest = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="The manifest that the node was started with.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command(epilog="Example:  [bold]edgeos status edge.toml[/]")(status)
    app.command(epilog="Example:  [bold]edgeos reload edge.toml[/]")(reload)
    app.command(epilog="Example:  [bold]edgeos drain edge.toml[/]")(drain)


def status(
    manifest: RunningManifest,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    run_directory: RunDirectoryOption = None,
) -> None:
    """Say how a running node and its worker processes are."""
    with connect(manifest, run_directory) as client:
        found = client.ask("status")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"{printable(found['manifest'])}: {found['state']}, process {found['pid']}, for {found['seconds']:.0f} s")
    for worker in found["workers"]:
        print(_worker_line(worker))


def reload(manifest: RunningManifest, run_directory: RunDirectoryOption = None) -> None:
    """Make a running node read its manifest again, as SIGHUP does; a bad one changes nothing."""
    with connect(manifest, run_directory) as client:
        client.ask("reload")


def drain(manifest: RunningManifest, run_directory: RunDirectoryOption = None) -> None:
    """Make a running node let no new clients in and end, as SIGTERM does."""
    with connect(manifest, run_directory) as client:
        client.ask("drain")


def _worker_line(worker: dict[str, Any]) -> str:
    parts = [f"  worker {worker['index']}: {worker['state']}"]
    if worker["pid"] is not None:
        parts.append(f"process {worker['pid']}")
    if worker["core"] is not None:
        parts.append(f"core {worker['core']}")
    if worker["restarts"]:
        parts.append(f"{counted(worker['restarts'], 'restart')}, {counted(worker['lost'], 'message')} lost")
        parts.append(f"the last: {worker['problem']}")
    return printable(", ".join(parts))
