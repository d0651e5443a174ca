"""`dicomnode deliveries`: one result to one destination each: sent, proven, waiting, failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.cli.job_facts import at, next_attempt, said_of
from dicomnode.cli.known_names import check_names
from dicomnode.cli.lines import Labelled
from dicomnode.cli.moments import Since, Until, span
from dicomnode.cli.study_story import ID_CHARACTERS, JOB_STYLES
from dicomnode.cli.watch import EVERY_S, Every, View, Watch, present
from dicomnode.domain.delivery_failure import FailureKind, failure_words
from dicomnode.domain.job import ARRIVED_DELIVERY_STATES, DeliveryState
from dicomnode.domain.quantity import quantity
from dicomnode.errors import IllegalTransition, UsageError
from dicomnode.ports import DeliveryChange, DeliveryFilter, DeliveryView, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Deliveries: one result to one destination each.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="deliveries")


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Id = Annotated[str, typer.Argument(help="The delivery's id, or as much of its beginning as makes it unambiguous.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Ids or their beginnings; none: those that options name."),
]
States = Annotated[list[DeliveryState] | None, typer.Option("--state", help="Only in this state; may be repeated.")]
OfDestination = Annotated[str, typer.Option("--destination", help="Only to this destination.")]
OfFailure = Annotated[
    FailureKind | None, typer.Option("--failure", help="Only those whose last failure was of this kind.")
]
OfStudy = Annotated[
    str, typer.Option("--study", help="Only of this study: a UID, an accession number or a patient ID.")
]

_ALL_MOST = 100_000
_NOTHING = "no delivery is as asked for"
_UNDECIDED = (DeliveryState.WAITING, DeliveryState.FAILED)


@app.command("list")
def list_deliveries(
    ctx: typer.Context,
    state: States = None,
    destination: OfDestination = "",
    failure: OfFailure = None,
    study: OfStudy = "",
    since: Since = "",
    until: Until = "",
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = 50,
    watch: Watch = False,
    every: Every = EVERY_S,
    as_json: Json = False,
) -> None:
    """The deliveries, newest first.

    Example: dicomnode deliveries list --state failed --state waiting --destination pacs
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    which = _which(context.state, state or (), destination, failure, since, until)
    view = View(
        look=lambda: _found(context.state, which, study, most),
        draw=lambda found: _table(found) if found else Text(_NOTHING),
        document=lambda found: found,
        parts=lambda found: {one.delivery_id: one for one in found},
        wide=True,
    )
    present(context, view, watch=watch, every_s=every)


def _which(
    state: State,
    states: Sequence[DeliveryState],
    destination: str,
    failure: FailureKind | None,
    since: str = "",
    until: str = "",
) -> DeliveryFilter:
    """Raises NotFound for a destination that never was."""
    check_names(state, rule="", model="", destination=destination)
    first, last = span(since, until)
    return DeliveryFilter(
        states=tuple(states), destination=destination, failure=str(failure or ""), since=first, until=last
    )


def _found(state: State, which: DeliveryFilter, study: str, most: int) -> list[DeliveryView]:
    """Newest first; of all studies that the key fits, if one is given."""
    if not study:
        return state.deliveries(which, most=most)
    uids = [named.study_instance_uid for named in state.studies_named(study)]
    found = [one for uid in uids for one in state.deliveries(replace(which, study_instance_uid=uid), most=most)]
    return sorted(found, key=_begun, reverse=True)[:most]


def _begun(delivery: DeliveryView) -> datetime:
    return delivery.since or datetime.min.replace(tzinfo=UTC)


def _table(deliveries: Sequence[DeliveryView]) -> Table:
    table = Table(header_style="bold cyan")
    for column in ("delivery", "state", "result", "begun"):
        table.add_column(column, no_wrap=column != "result", overflow="fold")
    table.add_column("what", overflow="fold", ratio=1)
    for one in deliveries:
        table.add_row(
            one.delivery_id[:ID_CHARACTERS],
            Text(one.state, style=JOB_STYLES.get(one.state, "")),
            Text(f"{one.kind} to {one.destination}"),
            at(one.since, "%m-%d %H:%M"),
            Text(_what(one)),
        )
    return table


def _what(delivery: DeliveryView) -> str:
    kind = f"{failure_words(delivery.failure)}: " if delivery.failure else ""
    return "; ".join(filter(None, [kind + said_of(delivery).removeprefix(", "), next_attempt(delivery)]))


@app.command()
def show(ctx: typer.Context, delivery_id: Id, as_json: Json = False) -> None:
    """All that is known of a delivery: its state, attempts, the destination's words, proof.

    Example: dicomnode deliveries show 5c1e
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    delivery = context.state.delivery(delivery_id)
    if context.json:
        context.print_json(delivery)
        return
    lines = Labelled((Text(label, style="bold"), words) for label, words in _facts(delivery))
    context.console.print(lines, highlight=False, crop=False)


def _facts(delivery: DeliveryView) -> Iterator[tuple[str, Text]]:
    yield "delivery", Text(delivery.delivery_id)
    yield "state", Text(delivery.state, style=JOB_STYLES.get(delivery.state, ""))
    for label, words in (
        ("failure", failure_words(delivery.failure) if delivery.failure else ""),
        ("said", delivery.reason),
        ("proof", delivery.proof),
        ("result", f"{delivery.kind} {delivery.size_bytes / 1e6:.2f} MB\n{delivery.sop_instance_uid}"),
        ("destination", f"{delivery.destination} ({delivery.address})"),
        ("job", delivery.job_id),
        ("study", delivery.study_instance_uid),
        ("begun", at(delivery.since)),
        ("attempts", str(delivery.attempts)),
        ("next attempt", next_attempt(delivery)),
        ("sent", at(delivery.delivered_at) if delivery.delivered_at is not None else ""),
        ("proven", at(delivery.proven_at) if delivery.proven_at is not None else ""),
        ("asked again", at(delivery.ask_at) if delivery.ask_at is not None else ""),
    ):
        if words:
            yield label, Text(words)


@app.command()
def retry(
    ctx: typer.Context,
    delivery_ids: Ids = None,
    state: States = None,
    destination: OfDestination = "",
    failure: OfFailure = None,
    study: OfStudy = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Send deliveries now: those named, or those waiting and failed that the options name.

    One that was sent is sent again only when it is named: for an archive that lost it.

    Example: dicomnode deliveries retry 5c1e

    Example: dicomnode deliveries retry --destination pacs --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    keys = _meant(context.state, delivery_ids or (), state or (), destination, failure, study)
    changes = [context.state.retry_delivery(key, dry_run=dry_run) for key in keys]
    _say(context, changes, "queued again", dry_run)


@app.command()
def drop(
    ctx: typer.Context,
    delivery_ids: Ids = None,
    state: States = None,
    destination: OfDestination = "",
    failure: OfFailure = None,
    study: OfStudy = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the delivery.")] = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Do not send deliveries: those named, or those waiting and failed that the options name. Results stay here.

    Example: dicomnode deliveries drop 5c1e --reason "sent by hand"
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    keys = _meant(context.state, delivery_ids or (), state or (), destination, failure, study)
    changes = [context.state.drop_delivery(key, reason=reason, dry_run=dry_run) for key in keys]
    _say(context, changes, "dropped", dry_run)


def _meant(
    state: State,
    named: Sequence[str],
    states: Sequence[DeliveryState],
    destination: str,
    failure: FailureKind | None,
    study: str,
) -> list[str]:
    """Ids; raises UsageError when nothing says which, IllegalTransition when there are none such."""
    asked = bool(states or destination or failure or study)
    if named and asked:
        raise UsageError("give ids or options that say which, not both")
    if named:
        return [state.delivery(key).delivery_id for key in dict.fromkeys(named)]
    if not asked:
        raise UsageError("say which: ids, or --destination, --state, --failure or --study")
    if sent := [one for one in states if one in ARRIVED_DELIVERY_STATES]:
        raise UsageError(f"those that are {sent[0]} are to be named by their ids")
    which = _which(state, states or _UNDECIDED, destination, failure)
    found = [one.delivery_id for one in _found(state, which, study, _ALL_MOST)]
    if not found:
        raise IllegalTransition("no delivery is as asked for: dicomnode deliveries list")
    return found


def _say(context: Context, changes: Sequence[DeliveryChange], done: str, dry_run: bool) -> None:
    verb = "would be" if dry_run else ("is" if len(changes) == 1 else "are")
    words = f"{quantity(len(changes), 'delivery', 'deliveries')} {verb} {done}" + "; nothing was changed" * dry_run
    moves = [
        {"delivery_id": c.after.delivery_id, "was": c.before.state, "state": c.after.state, "to": c.after.destination}
        for c in changes
    ]
    context.done(words, deliveries=moves, dry_run=dry_run)
