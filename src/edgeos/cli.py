"""The command line: a thin user of the Python API. Exit codes: 0 done, 1 it failed, 2 the input or usage is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import math
import signal
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from edgeos.bench.cli import bench_app
from edgeos.click.cli import click_app
from edgeos.click.source import ClickError
from edgeos.consistency import find_warnings
from edgeos.errors import EdgeosError, ManifestError
from edgeos.findings import counted, printable
from edgeos.manifest import load_manifest
from edgeos.report import LiveReport, summary
from edgeos.schema import INNER, SECTIONS
from edgeos.service import commands, handler_commands
from edgeos.terminal import console, require_writable
from edgeos.units import parse_size

if TYPE_CHECKING:
    from edgeos.node import Node
    from edgeos.service.records import WorkerRecord
    from edgeos.settings import Manifest
    from edgeos.statistics import NodeStatistics

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
TICK_SECONDS = 0.5


class _Commands(TyperGroup):
    """The commands; errors that edgeos raises end without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeosError as error:
            is_input = isinstance(error, ManifestError | ClickError)
            for line in str(error).splitlines():
                print(printable(line) if is_input else f"error: {printable(line)}", file=sys.stderr)
            raise typer.Exit(EXIT_USAGE if is_input else EXIT_FAILED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:  [bold]edgeos check edge.toml[/]  ·  [bold]edgeos up edge.toml --json result.json[/]",
)
app.add_typer(bench_app, name="bench")
commands.register(app)
handler_commands.register(app)
app.add_typer(click_app, name="click")


def main() -> None:
    """Runs the command line with the arguments of the process."""
    app(prog_name="edgeos")


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"edgeos {importlib.metadata.version('edgeos')}")
        except importlib.metadata.PackageNotFoundError:
            print("edgeos, not installed")
        raise typer.Exit


@app.callback()
def _edgeos(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """One isolated featherweight process (FWP) per client, in chains, on real packets."""


ManifestPath = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="The manifest, a TOML file.", show_default=False)
]


@app.command(
    epilog="Examples:  [bold]edgeos up edge.toml[/]  ·  [bold]edgeos up edge.toml --duration 60 --json -[/]",
)
def up(
    manifest: ManifestPath,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help='Write the statistics as JSON; "-" is stdout.')
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live table and no warnings.")] = False,
    duration: Annotated[
        float | None, typer.Option(min=0.0, metavar="SECONDS", help="Stop after this time.", show_default=False)
    ] = None,
    run_directory: commands.RunDirectoryOption = None,
) -> None:
    """Run a node: to the end if all its ports are files, else until Ctrl-C or SIGTERM."""
    settings = load_manifest(manifest)
    if not quiet:
        _print_warnings(find_warnings(settings))
    if json_file not in (None, "-"):
        require_writable(Path(json_file), "--json")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    workers: tuple[WorkerRecord, ...] = ()
    try:
        if any(port.kind == "pcap" for port in settings.ports):
            statistics = _run_here(settings, manifest, run_directory, duration, quiet)
        else:
            statistics, workers = _run_workers(settings, manifest, run_directory, duration, quiet)
    except KeyboardInterrupt:  # before the node ran, or a second one while it was closing
        raise typer.Exit(EXIT_INTERRUPTED) from None
    # With the JSON on stdout the summary goes where it does not disturb.
    console(stderr=json_file == "-").print(summary(statistics, workers))
    if json_file is not None:
        _write_json(json_file, statistics, workers)


@app.command(
    epilog="Examples:  [bold]edgeos check edge.toml[/]  ·  [bold]edgeos check --keys[/]",
)
def check(
    manifest: Annotated[
        Path | None, typer.Argument(metavar="MANIFEST", help="The manifest, a TOML file.", show_default=False)
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List all keys of a manifest and end.")] = False,
) -> None:
    """Say everything that is wrong with a manifest; exit code 2 if anything is."""
    if keys:
        console().print(_table_of_keys())
        return
    if manifest is None:
        raise typer.BadParameter("found none; give the manifest to check", param_hint="MANIFEST")
    settings = load_manifest(manifest)
    _print_warnings(find_warnings(settings))
    counts = [
        counted(len(records), noun)
        for records, noun in (
            (settings.ports, "port"),
            (settings.upstreams, "upstream"),
            (settings.templates, "template"),
            (settings.chains, "chain"),
            (settings.tenants, "tenant"),
            (settings.rules, "rule"),
        )
        if records or noun not in ("upstream", "tenant")
    ]
    print(f"{printable(str(manifest))}: ok, {', '.join(counts)}")


@app.command(
    epilog="Examples:  [bold]edgeos build mine.c[/]  ·  [bold]edgeos build mine.c -o mine.wasm --slot-size 9216[/]",
)
def build(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The guest, a C file.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="The module to write; SOURCE with .wasm if not given."),
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Messages that one FWP holds.", show_default="64")] = None,
    slot_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help='Largest message, such as "9KiB".', show_default="2KiB")
    ] = None,
    stack: Annotated[
        str | None, typer.Option(metavar="SIZE", help="C stack of one FWP.", show_default="what the code needs")
    ] = None,
    tcp: Annotated[
        bool, typer.Option("--tcp", help="The guest speaks TCP by itself, behind ports for packets.")
    ] = False,
) -> None:
    """Compile C to a guest module."""
    from edgeos import guest_build  # noqa: PLC0415  (only this command needs a compiler)

    output = output or source.with_suffix(".wasm")
    module = guest_build.build(
        source,
        output,
        stack=None if stack is None else _size_option("--stack", stack),
        slots=slots,
        slot_size=None if slot_size is None else _size_option("--slot-size", slot_size),
        tcp=tcp,
        progress=_print_progress,
    )
    print(f"{printable(str(output))}: {len(module):,} bytes")


def _run_here(
    settings: Manifest, manifest: Path, run_directory: Path | None, duration: float | None, quiet: bool
) -> NodeStatistics:
    """In this process, whose data plane ends with its files."""
    from edgeos.node import Node  # noqa: PLC0415  (`check` and `--help` start without the kernel)
    from edgeos.service.local import served  # noqa: PLC0415

    with Node.from_manifest(settings, progress=None if quiet else _print_progress) as node:
        node.start()
        with served(node, manifest, run_directory):
            return _run(node, duration, quiet)


def _run_workers(
    settings: Manifest, manifest: Path, run_directory: Path | None, duration: float | None, quiet: bool
) -> tuple[NodeStatistics, tuple[WorkerRecord, ...]]:
    """In worker processes, of which this one is the supervisor."""
    from edgeos.service.run import run_supervised  # noqa: PLC0415

    screen = console()
    with LiveReport(screen) if screen.is_terminal and not quiet else nullcontext() as live:
        return run_supervised(
            settings,
            manifest,
            run_directory=run_directory,
            duration=duration,
            report=_print_progress,
            progress=None if quiet else _print_progress,
            on_tick=live,
            tick_seconds=TICK_SECONDS,
        )


def _run(node: Node, duration: float | None, quiet: bool) -> NodeStatistics:
    """Waits until the started node is at its end, its time is over, or it is interrupted; then stops it.

    Not `Node.run`: an interrupt while the node is being made is another thing than one of a running node.
    """
    screen = console()
    live = screen.is_terminal and not quiet
    end = math.inf if duration is None else time.monotonic() + duration
    with LiveReport(screen) if live else nullcontext() as report, suppress(KeyboardInterrupt):
        while not node.wait(max(0.0, min(TICK_SECONDS, end - time.monotonic()))) and time.monotonic() < end:
            if report is not None:
                report(node.statistics(guest_counters=False))
    return node.stop()


def _print_progress(line: str) -> None:
    print(printable(line), file=sys.stderr)


def _print_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _write_json(json_file: str, statistics: NodeStatistics, workers: tuple[WorkerRecord, ...]) -> None:
    plain = statistics.as_dict()
    if workers:
        plain["workers"] = [worker.as_dict(with_statistics=True) for worker in workers]
    text = json.dumps(plain, indent=2) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
        return
    try:
        Path(json_file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeosError(f"{json_file} cannot be written: {error.strerror}") from None


def _size_option(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ManifestError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _table_of_keys() -> Table:
    table = Table("key", "allowed", "default", "meaning", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for section in (*SECTIONS.values(), *INNER.values()):
        title = "[[rule]]" if section.title == "rule" else f"[{section.title}]"
        table.add_row(Text(title))
        for field in section.fields:
            default = "required" if field.required else section.default(field)
            table.add_row(*map(Text, (f"  {field.key}", field.kind.allowed, default, field.help)))
    return table
