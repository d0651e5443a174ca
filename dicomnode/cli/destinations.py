"""`dicomnode destinations`: where results go."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode.domain.destination import Address, Destination, parse_dimse, parse_stow
from dicomnode.errors import AlreadyExists, DeliveryError, InvalidDestination, NotFound

app = typer.Typer(help="Destinations: PACS, archives and viewers that results are sent to.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The destination's name, as rules use it.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check what is given, change nothing.")]


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="A name for it: letters, digits, '.', '_' and '-'.", show_default=False)
    ],
    dimse: Annotated[
        str, typer.Option(metavar="AET@HOST:PORT", help="Send to it by C-STORE.", show_default=False)
    ] = "",
    stow: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Send to it by STOW-RS; the root of its DICOMweb service, user:password@ before the host if wanted.",
            show_default=False,
        ),
    ] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Register a destination; rules name it under `destinations`.

    Example: dicomnode destinations add pacs --dimse ORTHANC@127.0.0.1:4242

    Example: dicomnode destinations add archive --stow http://127.0.0.1:8042/dicom-web
    """
    context = ctx.obj
    context.json = context.json or as_json
    destination = Destination(name, _address(dimse, stow))
    if dry_run:
        if any(known.name == name for known in context.state.destinations()):
            raise AlreadyExists(f"there is a destination {name} already; remove it first")
        context.done(f"{name} could be added; nothing was changed", **_row(destination))
        return
    context.state.add_destination(destination)
    context.done(f"{name} is added: {destination.shown}", **_row(destination))


@app.command("list")
def list_destinations(ctx: typer.Context, as_json: Json = False) -> None:
    """The destinations; passwords are not shown.

    Example: dicomnode destinations list
    """
    context = ctx.obj
    context.json = context.json or as_json
    rows = [_row(destination) for destination in context.state.destinations()]
    context.show(rows, ["name", "kind", "address"], "Destinations")


@app.command()
def remove(ctx: typer.Context, name: Name, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take a destination out; what was delivered to it stays there.

    Example: dicomnode destinations remove pacs
    """
    context = ctx.obj
    context.json = context.json or as_json
    if dry_run:
        destination = _find(context.state.destinations(), name)
        context.done(f"{name} could be removed; nothing was changed", **_row(destination))
        return
    context.state.remove_destination(name)
    context.done(f"{name} is removed", name=name)


@app.command()
def echo(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Ask a destination whether it is there: C-ECHO, or a QIDO-RS request.

    Example: dicomnode destinations echo pacs
    """
    context = ctx.obj
    context.json = context.json or as_json
    destination = _find(context.state.destinations(), name)
    try:
        answer = context.sink.echo(destination)
    except DeliveryError as error:
        if not context.json:
            raise
        context.done(f"{name}: {error}", name=name, ok=False, code=error.code, retryable=error.retryable)
        raise typer.Exit(error.exit_code) from None
    context.done(f"{name}: {answer}", name=name, ok=True)


def _address(dimse: str, stow: str) -> Address:
    if bool(dimse) == bool(stow):
        raise InvalidDestination("give one of --dimse AET@HOST:PORT and --stow URL")
    return parse_dimse(dimse) if dimse else parse_stow(stow)


def _find(destinations: list[Destination], name: str) -> Destination:
    found = next((destination for destination in destinations if destination.name == name), None)
    if found is None:
        known = ", ".join(destination.name for destination in destinations) or "none yet"
        raise NotFound(f"there is no destination {name}; there are: {known}")
    return found


def _row(destination: Destination) -> dict[str, str]:
    return {"name": destination.name, "kind": destination.kind, "address": destination.shown}
