"""`edgeos click …`: Click configurations on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeos.click.place import router_of
from edgeos.errors import EdgeosError
from edgeos.findings import BadValueError, nearest, printable, shown
from edgeos.kinds import Definitions
from edgeos.settings import TemplateSettings
from edgeos.terminal import console

if TYPE_CHECKING:
    from edgeos.click.router import Router

click_app = typer.Typer(
    no_args_is_help=True,
    help="Compile and draw configurations in the Click language; list its elements.",
    epilog="Examples:  [bold]edgeos click build firewall.click[/]  ·  [bold]edgeos click elements Queue[/]",
    rich_markup_mode="rich",
)

ConfigurationPath = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration.", show_default=False)]
Defines = Annotated[
    list[str] | None,
    typer.Option("--define", "-D", metavar="NAME=VALUE", help="A value for a $variable; may be given again."),
]
Devices = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help='Devices in the order of their numbers, "lan,wan"; else as they are met.'),
]


@click_app.command(
    epilog="Examples:  [bold]edgeos click build nat.click -D PUBLIC=192.0.2.1[/]  ·  "
    "[bold]edgeos click build nat.click --c -o -[/]",
)
def build(
    file: ConfigurationPath,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help='FILE with .wasm or .c if not given; "-" is stdout.'),
    ] = None,
    as_c: Annotated[bool, typer.Option("--c", help="Write the C program instead of the module.")] = False,
    define: Defines = None,
    devices: Devices = None,
) -> None:
    """Compile a configuration to a guest module, or to the C that it becomes."""
    router = _router(file, define, devices)
    if as_c:
        from edgeos.click.emit import emit  # noqa: PLC0415  (each command loads what it needs)

        content = emit(router).encode()
    else:
        from edgeos.click.build import build_configuration  # noqa: PLC0415

        content = build_configuration(router, progress=lambda line: print(printable(line), file=sys.stderr))
    target = output or str(file.with_suffix(".c" if as_c else ".wasm"))
    _write(target, content)
    if target != "-":
        print(f"{printable(target)}: {len(content):,} bytes, {_summary(router)}")


@click_app.command(
    epilog="Examples:  [bold]edgeos click graph router.click[/]  ·  "
    "[bold]edgeos click graph router.click -o - | display[/]",
)
def graph(
    file: ConfigurationPath,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help='A name in .svg or .dot; FILE with .svg if not given; "-" is SVG on stdout.',
        ),
    ] = None,
    define: Defines = None,
    devices: Devices = None,
) -> None:
    """Draw a configuration as SVG, or write it for Graphviz."""
    router = _router(file, define, devices)
    target = output or str(file.with_suffix(".svg"))
    suffix = Path(target).suffix
    if suffix in (".dot", ".gv"):
        from edgeos.click.dot import dot  # noqa: PLC0415

        text = dot(router)
    elif suffix == ".svg" or target == "-":
        from edgeos.click.svg import svg  # noqa: PLC0415

        text = svg(router)
    else:
        raise typer.BadParameter(
            f"found {shown(target)}; allowed: a name that ends in .svg, .dot or .gv", param_hint="-o"
        )
    _write(target, text.encode())
    if target != "-":
        print(f"{printable(target)}: {_summary(router)}")


@click_app.command(
    epilog="Examples:  [bold]edgeos click elements[/]  ·  [bold]edgeos click elements IPRewriter[/]",
)
def elements(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One element class, in full.", show_default=False)
    ] = None,
) -> None:
    """List the element classes, or tell everything about one."""
    from edgeos.click.reference import card, table  # noqa: PLC0415
    from edgeos.click.registry import element_classes  # noqa: PLC0415

    classes = element_classes()
    if name is None:
        console().print(table(classes.values()))
        return
    if name not in classes:
        hint = nearest(name, classes)
        raise typer.BadParameter(
            f"there is no element class {shown(name)}" + (f"; {hint}" if hint else ""), param_hint="NAME"
        )
    console().print(card(classes[name]))


def _router(file: Path, define: list[str] | None, devices: str | None) -> Router:
    names = tuple(filter(None, (devices or "").split(",")))
    return router_of(TemplateSettings(name=file.stem, click=file, define=_definitions(define or []), devices=names))


def _definitions(texts: list[str]) -> dict[str, str]:
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"found {shown(text)}; allowed: NAME=VALUE", param_hint="--define")
        values[name] = value
    try:
        Definitions().check(values)
    except BadValueError as error:
        raise typer.BadParameter(str(error), param_hint="--define") from None
    return values


def _summary(router: Router) -> str:
    devices = ", ".join(f"{name} {number}" for name, number in sorted(router.devices.items(), key=lambda item: item[1]))
    parts = [f"{len(router.elements)} elements", f"devices {devices}" if devices else "no devices"]
    return ", ".join(parts + ["timers"] * router.timer)


def _write(target: str, content: bytes) -> None:
    if target == "-":
        sys.stdout.buffer.write(content)
        return
    try:
        Path(target).write_bytes(content)
    except OSError as error:
        raise EdgeosError(f"{target} cannot be written: {error.strerror}") from None
