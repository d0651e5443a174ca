"""`dicomnode destinations`: where results go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from dicomnode.cli import delivery_options as cli_options
from dicomnode.cli.context import Context
from dicomnode.cli.job_facts import at
from dicomnode.cli.lines import Labelled
from dicomnode.domain.delivery_options import DeliveryOptions, as_document
from dicomnode.domain.destination import Address, Destination, parse_dimse, parse_stow, without_password
from dicomnode.domain.job import OPEN_DELIVERY_STATES
from dicomnode.domain.quantity import quantity
from dicomnode.errors import AlreadyExists, DeliveryError, InvalidDestination, NotFound, UsageError
from dicomnode.ports import DestinationView

app = typer.Typer(help="Destinations: PACS, archives and viewers that results are sent to.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="destinations")


Name = Annotated[str, typer.Argument(help="The destination's name, as rules use it.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check what is given, change nothing.")]


@app.command()
@cli_options.takes_delivery_options
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
            help="Send to it by STOW-RS; the root of its DICOMweb service.",
            show_default=False,
        ),
    ] = "",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Change one that exists; what waits goes to its new address. Options not given stay."
        ),
    ] = False,
    *,
    given: cli_options.Given,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Register a destination; rules name it under `destinations`.

    Example: dicomnode destinations add pacs --dimse ORTHANC@127.0.0.1:4242

    Example: dicomnode destinations add pacs --dimse ORTHANC@127.0.0.9:4242 --replace

    Example: dicomnode destinations add archive --stow https://pacs.example/dicom-web --token file:/run/secrets/pacs
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    context.may_begin = not dry_run
    address = _address(dimse, stow)
    known = next((one for one in context.state.destinations() if one.name == name), None)
    if known is not None and not replace:
        raise AlreadyExists(
            f"there is a destination {name} already, {known.shown}; give --replace to change its address, "
            f"or change how it is sent to: dicomnode destinations set {name} …"
        )
    same_kind = known is not None and type(known.address) is type(address)
    options = cli_options.chosen(
        known.options if known is not None and same_kind else DeliveryOptions(),
        given,
    )
    _put(context, known, Destination(name, address, options), dry_run)


def _put(context: Context, known: Destination | None, destination: Destination, dry_run: bool) -> None:
    name = destination.name
    if dry_run:
        waiting = context.state.deliveries_on_their_way().get(name, 0)
        moving = waiting if known is None or known.address != destination.address else 0
        words = f"{name} could be {_changed(known, destination)}{_and_waiting(moving)}; nothing was changed"
        context.done(words + _careful(destination), **_row(destination, waiting))
        return
    moved = context.state.add_destination(destination, replace=known is not None)
    words = f"{name} is {_changed(known, destination)}{_and_waiting(moved)}"
    context.done(words + _careful(destination), **_row(destination, moved))


def _careful(destination: Destination) -> str:
    """What to know of the credentials."""
    url = str(destination.address)
    notes = []
    if destination.kind == "stow" and without_password(url) != url:
        notes.append("the password lies in the node's database; better: --user NAME --password file:/path")
    if url.startswith("http://") and (destination.options.user or destination.options.token or notes):
        notes.append("it goes over the network unencrypted; better: https")
    return "".join(f" (note: {note})" for note in notes)


@app.command("set")
@cli_options.takes_delivery_options
def set_options(
    ctx: typer.Context,
    name: Name,
    *,
    given: cli_options.Given,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change what a destination is sent, and how: profile, proof, limits, credentials; an empty value takes one away.

    Example: dicomnode destinations set viewer --profile ohif

    Example: dicomnode destinations set pacs --commitment yes --max-associations 1 --max-rate 2MB

    Example: dicomnode destinations set archive --user node --password file:/run/secrets/archive --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    known = _find(context.state.destinations(), name)
    options = cli_options.chosen(
        known.options,
        given,
    )
    if options == known.options:
        context.done(f"{name} has these options already; nothing was changed", **_row(known, 0))
        return
    _put(context, known, Destination(name, known.address, options), dry_run)


@app.command()
def show(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """A destination: how it is sent to, whether it answers, and what became of its deliveries.

    Example: dicomnode destinations show pacs
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    _find(context.state.destinations(), name)
    view = next(view for view in context.state.destination_views() if view.destination.name == name)
    if context.json:
        context.print_json(_document(view))
        return
    lines = Labelled((Text(label, style="bold"), Text(words)) for label, words in _facts(view))
    context.console.print(lines, highlight=False, crop=False)


def _facts(view: DestinationView) -> Iterator[tuple[str, str]]:
    destination, health = view.destination, view.health
    yield "name", destination.name
    yield "address", destination.shown
    yield from cli_options.option_words(destination.kind, destination.options)
    yield "answers", _answers(view)
    if health.down_since is not None and health.probe_at is not None:
        yield "looked for", at(health.probe_at)
    if view.unprovable:
        yield "no proof", view.unprovable
    yield "deliveries", ", ".join(f"{number} {state}" for state, number in sorted(view.states.items())) or "none yet"


def _answers(view: DestinationView) -> str:
    health = view.health
    if health.down_since is None:
        return "as far as is known, yes"
    return f"no, since {at(health.down_since)} ({quantity(health.failures, 'attempt')}): {health.words}"


def _document(view: DestinationView) -> dict[str, Any]:
    return {
        **_row(view.destination, sum(view.states.get(state, 0) for state in OPEN_DELIVERY_STATES)),
        "options": as_document(view.destination.options),
        "down_since": view.health.down_since,
        "down_words": view.health.words,
        "looked_for_at": view.health.probe_at,
        "unprovable": view.unprovable,
        "deliveries": view.states,
    }


def _changed(known: Destination | None, destination: Destination) -> str:
    if known is None:
        return f"added: {destination.shown}"
    if known.address == destination.address:
        said = ", ".join(f"{k} {v}" for k, v in cli_options.option_words(destination.kind, destination.options))
        return f"changed: {said}"
    return f"changed: {destination.shown}, before {known.shown}"


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
    away = {v.destination.name: v.health.down_since for v in context.state.destination_views()}
    rows = [row | {"away_since": away.get(row["name"])} for row in rows]
    context.show(rows, ["name", "kind", "address", "waiting", "away_since"], "Destinations")


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
