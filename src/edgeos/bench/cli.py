"""`edgeos bench …`: the benchmarks on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edgeos.bench.output import Output
from edgeos.bench.result import Result

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure edgeos beside its peers, in the same run on this machine.",
    epilog="Examples:  [bold]edgeos bench startup --json startup.json[/]  ·  [bold]edgeos bench chain --quick[/]",
    rich_markup_mode="rich",
)

JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help='Write the figures as JSON; "-" is stdout.')
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the figures (.png, .svg, .pdf); needs matplotlib.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Few repetitions: seconds instead of a minute, rough figures.")]


@bench_app.command(epilog="Example:  [bold]edgeos bench startup --json startup.json --plot startup.png[/]")
def startup(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Create, activate and recycle an FWP, beside processes, Python and runc."""
    from edgeos.bench.startup import run  # noqa: PLC0415  (help needs neither the kernel nor the peers)

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench chain --json chain.json --plot chain.png[/]")
def chain(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Messages a second through chains of 1 to 6 FWPs, beside memcpy, one FWP and veth."""
    from edgeos.bench.chain import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench memory --json memory.json --plot memory.png[/]")
def memory(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Memory of idle FWPs and of active clients, beside processes."""
    from edgeos.bench.memory import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench listen --json listen.json --plot listen.png[/]")
def listen(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Echo over TCP with an FWP per connection, beside processes, threads and uvloop."""
    from edgeos.bench.listen import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench density --json density.json --plot density.png[/]")
def density(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Memory and idle CPU with up to 15,000 live clients that pass traffic, beside processes."""
    from edgeos.bench.density import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench churn --json churn.json --plot churn.png[/]")
def churn(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Clients that come and go, 1,000 to 50,000 new ones a second, beside processes."""
    from edgeos.bench.churn import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench click --click ~/click/userlevel/click --json click.json[/]")
def click(
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
    quick: Quick = False,
    program: Annotated[
        Path | None,
        typer.Option(
            "--click", metavar="PATH", help="Native Click's userlevel driver, if it is not on the search path."
        ),
    ] = None,
) -> None:
    """The gallery's Click configurations, one FWP for all and one a client, beside native Click."""
    from edgeos.bench.click import run  # noqa: PLC0415

    _bench(partial(run, click=program), json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench scale --json scale.json --plot scale.png[/]")
def scale(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """Latency and throughput with 1 to 10,000 clients: one shared FWP, an FWP or a chain for each."""
    from edgeos.bench.scale import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench ports --json ports.json --plot ports.png[/]")
def ports(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """The latency that TAP, AF_PACKET and AF_XDP ports add, beside a kernel bridge and nothing."""
    from edgeos.bench.ports import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


@bench_app.command(epilog="Example:  [bold]edgeos bench memcached --json memcached.json --plot memcached.png[/]")
def memcached(json_file: JsonFile = None, plot_file: PlotFile = None, quick: Quick = False) -> None:
    """A cache for each client: FWPs beside memcached processes and one shared memcached."""
    from edgeos.bench.memcached import run  # noqa: PLC0415

    _bench(run, json_file, plot_file, quick)


def _bench(run: Callable[[bool], Result], json_file: str | None, plot_file: Path | None, quick: bool) -> None:
    output = Output(json_file=json_file, plot_file=plot_file)
    output.check()
    output.write(run(quick))
