"""`dicomnode destinations`: where results go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dicomnode.cli.context import Context
from dicomnode.domain.destination import Address, Destination, parse_dimse, parse_stow
from dicomnode.domain.quantity import quantity
from dicomnode.errors import AlreadyExists, DeliveryError, InvalidDestination, NotFound, UsageError

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
    replace: Annotated[
        bool, typer.Option("--replace", help="Change the address of one that exists; what waits for it goes there.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Register a destination; rules name it under `destinations`.

    Example: dicomnode destinations add pacs --dimse ORTHANC@127.0.0.1:4242

    Example: dicomnode destinations add pacs --dimse ORTHANC@127.0.0.9:4242 --replace

    Example: dicomnode destinations add archive --stow http://127.0.0.1:8042/dicom-web
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    context.may_begin = not dry_run
    destination = Destination(name, _address(dimse, stow))
    known = next((one for one in context.state.destinations() if one.name == name), None)
    if known is not None and not replace:
        raise AlreadyExists(
            f"there is a destination {name} already, {known.shown}; give --replace to change its address"
        )
    if dry_run:
        waiting = context.state.deliveries_on_their_way().get(name, 0)
        words = f"{name} could be {_changed(known, destination)}{_and_waiting(waiting)}; nothing was changed"
        context.done(words, **_row(destination, waiting))
        return
    moved = context.state.add_destination(destination, replace=replace)
    words = f"{name} is {_changed(known, destination)}{_and_waiting(moved)}"
    context.done(words, **_row(destination, moved))


def _changed(known: Destination | None, destination: Destination) -> str:
    return f"added: {destination.shown}" if known is None else f"changed: {destination.shown}, before {known.shown}"


def _and_waiting(deliveries: int) -> str:
    if not deliveries:
        return ""
    return f"; {_counted(deliveries)} for it, and {'goes' if deliveries == 1 else 'go'} there"


def _counted(deliveries: int) -> str:
    return f"{quantity(deliveries, 'delivery', 'deliveries')} {'waits' if deliveries == 1 else 'wait'}"


@app.command("list")
def list_destinations(ctx: typer.Context, as_json: Json = False) -> None:
    """The destinations; passwords are not shown.

    Example: dicomnode destinations list
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    waiting = context.state.deliveries_on_their_way()
    rows = [_row(one, waiting.get(one.name, 0)) for one in context.state.destinations()]
    context.show(rows, ["name", "kind", "address", "waiting"], "Destinations")


@app.command()
def remove(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[
        bool, typer.Option("--yes", help="Although deliveries wait for it: they are cancelled, and can be retried.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a destination out; what was delivered to it stays there.

    Example: dicomnode destinations remove pacs --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    destination = _find(context.state.destinations(), name)
    waiting = context.state.deliveries_on_their_way().get(name, 0)
    if dry_run:
        needs = f"; {_counted(waiting)} for it and would be cancelled, which --yes allows" if waiting else ""
        context.done(f"{name} could be removed{needs}; nothing was changed", **_row(destination, waiting))
        return
    if waiting and not yes:
        raise UsageError(
            f"{_counted(waiting)} for {name}; give --yes to cancel what waits and remove it, or change its address: "
            f"dicomnode destinations add {name} … --replace"
        )
    cancelled = context.state.remove_destination(name)
    context.done(f"{name} is removed{_cancelled(name, cancelled)}", name=name, cancelled=cancelled)


def _cancelled(name: str, deliveries: int) -> str:
    if not deliveries:
        return ""
    what = f"{quantity(deliveries, 'delivery', 'deliveries')} {'was' if deliveries == 1 else 'were'}"
    return f"; {what} cancelled: once {name} is added again, `dicomnode jobs retry JOB` sends them"


@app.command()
def echo(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Ask a destination whether it is there: C-ECHO, or a QIDO-RS request.

    Example: dicomnode destinations echo pacs
    """
    context: Context = ctx.obj
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


def _row(destination: Destination, waiting: int) -> dict[str, Any]:
    return {
        "name": destination.name,
        "kind": destination.kind,
        "address": destination.shown,
        "waiting": waiting,
    }
