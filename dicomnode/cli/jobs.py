"""`dicomnode jobs`: what runs, what ran, and what came of it."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.cli import quarantined
from dicomnode.cli.job_facts import at, facts, seconds_of
from dicomnode.cli.known_names import check_names
from dicomnode.cli.lines import Labelled
from dicomnode.cli.moments import Since, Until, span
from dicomnode.cli.moments import now as moments_now
from dicomnode.cli.study_story import ID_CHARACTERS, JOB_STYLES
from dicomnode.cli.watch import EVERY_S, Every, View, Watch, present
from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.ports import Event, JobChange, JobFilter, JobView, State

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Jobs: one model on one series each.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="jobs")


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Id = Annotated[str, typer.Argument(help="The job's id, or as much of its beginning as makes it unambiguous.")]


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    state: Annotated[
        list[JobState] | None, typer.Option("--state", help="Only jobs in this state; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Only of this model: NAME, or 'NAME VERSION'.")] = "",
    rule: Annotated[str, typer.Option("--rule", help="Only made by this rule, any revision.")] = "",
    destination: Annotated[str, typer.Option("--destination", help="Only jobs whose results go there.")] = "",
    study: Annotated[
        str, typer.Option("--study", help="Only of this study: a UID, an accession number or a patient ID.")
    ] = "",
    since: Since = "",
    until: Until = "",
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = 50,
    watch: Watch = False,
    every: Every = EVERY_S,
    as_json: Json = False,
) -> None:
    """The jobs, newest first.

    Example: dicomnode jobs list --state failed --state refused --since 2d
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    first, last = span(since, until)
    check_names(context.state, rule=rule, model=model, destination=destination)
    which = JobFilter(
        states=tuple(state or ()), model=model, rule=rule, destination=destination, since=first, until=last
    )
    view = View(
        look=lambda: _jobs(context.state, which, study, most),
        draw=lambda jobs: _table(jobs) if jobs else Text(_nothing(which, study)),
        document=lambda jobs: jobs,
        parts=lambda jobs: {job.job_id: job for job in jobs},
        wide=True,
    )
    present(context, view, watch=watch, every_s=every)


def _nothing(which: JobFilter, study: str) -> str:
    if which != JobFilter():
        return "no job is as asked for; ask with fewer options"
    return f"it has no job; why: dicomnode studies why {shlex.quote(study)}" if study else "no job yet"


def _jobs(state: State, which: JobFilter, study: str, most: int) -> list[JobView]:
    """Newest first; of all studies that the key fits, if one is given."""
    if not study:
        return state.jobs(which, most=most)
    uids = [named.study_instance_uid for named in state.studies_named(study)]
    found = [job for uid in uids for job in state.jobs(replace(which, study_instance_uid=uid), most=most)]
    return sorted(found, key=lambda job: job.created_at, reverse=True)[:most]


def _table(jobs: list[JobView]) -> Table:
    table = Table(header_style="bold cyan", expand=False)
    for column in ("job", "state", "model", "rule", "series", "made"):
        table.add_column(column, no_wrap=column in ("job", "state", "made"), overflow="fold")
    table.add_column("result", overflow="fold", min_width=18)
    for job in jobs:
        table.add_row(
            job.job_id[:ID_CHARACTERS],
            Text(job.state, style=JOB_STYLES[job.state]),
            f"{job.model} (shadow)" if job.shadow else job.model,
            job.rule.partition(" revision ")[0],
            Text(job.series_description or "…" + job.series_instance_uid[-12:]),
            at(job.created_at, "%m-%d %H:%M"),
            _outcome(job),
        )
    return table


def _outcome(job: JobView) -> Text:
    """What came of a job in a few words."""
    if job.state is JobState.QUEUED and not job.reason:
        waits = f"not before {at(job.not_before, '%m-%d %H:%M')}" if job.not_before else "waits for a worker"
        return Text(f"priority {job.priority}, {waits}")
    if job.state is not JobState.SUCCEEDED:
        return Text(job.reason)
    text = Text(f"{seconds_of(job):.1f} s")
    for (state, destination), kinds in _delivered(job).items():
        text.append(f", {' and '.join(kinds)} ")
        text.append(f"{state} {destination}", style=JOB_STYLES.get(state, ""))
    text.append(f", {job.reason}" if job.reason else "")
    return text.append(", superseded" if job.superseded else "", style="dim")


def _delivered(job: JobView) -> dict[tuple[DeliveryState, str], list[str]]:
    """State and destination → kinds of results."""
    found: dict[tuple[DeliveryState, str], list[str]] = {}
    for delivery in sorted(job.deliveries, key=lambda delivery: (delivery.destination, delivery.kind)):
        found.setdefault((delivery.state, delivery.destination), []).append(delivery.kind)
    return found


@app.command()
def show(ctx: typer.Context, job_id: Id, watch: Watch = False, every: Every = EVERY_S, as_json: Json = False) -> None:
    """All that is known of a job: times of its stages, results, deliveries, details.

    Example: dicomnode jobs show 3f2a
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    view = View(
        look=lambda: _with_quarantined(context.state, job_id),
        draw=lambda seen: Labelled([*facts(seen[0]), *quarantined.lines(seen[1], with_job=False)]),
        document=_document,
        parts=lambda seen: {seen[0].job_id: _document(seen)},
    )
    present(context, view, watch=watch, every_s=every)


def _with_quarantined(state: State, job_id: str) -> tuple[JobView, list[Event]]:
    job = state.job(job_id)
    return job, quarantined.of_job(state.events(job.study_instance_uid), job.job_id)


def _document(seen: tuple[JobView, list[Event]]) -> dict[str, Any]:
    job, aside = seen
    return {**{spec.name: getattr(job, spec.name) for spec in fields(job)}, "quarantined": quarantined.rows(aside)}


@app.command()
def retry(ctx: typer.Context, job_id: Id, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Queue a job again that failed, was refused or cancelled; of one that succeeded, its failed deliveries.

    Example: dicomnode jobs retry 3f2a
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    _say(context, context.state.retry_job(job_id, dry_run=dry_run), dry_run=dry_run)


@app.command()
def cancel(ctx: typer.Context, job_id: Id, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Cancel a job that waits or runs; of one that succeeded, the deliveries still to come.

    The model of a job that runs stops within seconds.

    Example: dicomnode jobs cancel 3f2a --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    _say(context, context.state.cancel_job(job_id, dry_run=dry_run), dry_run=dry_run)


@app.command()
def prioritise(
    ctx: typer.Context,
    job_id: Id,
    priority: Annotated[Priority, typer.Argument(help="stat goes before high, routine and low.")],
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the hours of its rule.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give a queued job another place in the queue, and with --now do not let it wait for its hours.

    Example: dicomnode jobs prioritise 3f2a stat --now
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    change = context.state.prioritise_job(job_id, priority, now=now, dry_run=dry_run)
    _say_priority(context, change, asked_now=now, dry_run=dry_run)


def _say_priority(context: Context, change: JobChange, *, asked_now: bool, dry_run: bool) -> None:
    before, after = change.before, change.after
    name = f"job {after.job_id} ({after.model}, {after.state})"
    hours = before.not_before is not None and after.not_before is None
    moved = [f"from priority {before.priority} to {after.priority}"] if before.priority != after.priority else []
    moved += ["from waiting for the hours of its rule to now"] if hours else []
    if not moved:
        words = f"{name} has priority {after.priority} already" + (
            " and does not wait for hours" if asked_now else ""
        )
        words += "; nothing was changed"
    else:
        words = f"{name} {'would go' if dry_run else 'went'} {' and '.join(moved)}"
    words += _still_waits(after) + ("; nothing was changed" if dry_run and moved else "")
    context.done(
        words, job_id=after.job_id, was=before.priority, priority=after.priority, changed=bool(moved), dry_run=dry_run
    )


def _still_waits(job: JobView) -> str:
    if job.not_before is None or job.not_before <= moments_now():
        return ""
    return f"; it still waits for the hours of its rule, until {at(job.not_before)}: see --now"


def _say(context: Context, change: JobChange, *, dry_run: bool) -> None:
    """Which states the job and its deliveries were in, and which they are in now."""
    before, after = change.before, change.after
    was = {delivery.delivery_id: str(delivery.state) for delivery in before.deliveries}
    sent = [(was.get(d.delivery_id, "not sent"), d) for d in after.deliveries if was.get(d.delivery_id) != d.state]
    moves = [f"{d.kind} to {d.destination} from {state} to {d.state}" for state, d in sent]
    if before.state != after.state:
        moves.insert(0, f"from {before.state} to {after.state}")
    words = f"job {after.job_id} ({after.model}) {'would go' if dry_run else 'went'} {', '.join(moves)}"
    if before.state is JobState.RUNNING:
        words += "; what it is doing now is stopped"
    context.done(
        words + ("; nothing was changed" if dry_run else ""),
        job_id=after.job_id,
        was=before.state,
        state=after.state,
        deliveries=[{"delivery_id": d.delivery_id, "was": state, "state": d.state} for state, d in sent],
        dry_run=dry_run,
    )
