"""`dicomnode jobs`: what runs, what ran, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.cli.moments import Since, Until, moment
from dicomnode.cli.moments import now as moments_now
from dicomnode.cli.study_story import ID_CHARACTERS, JOB_STYLES
from dicomnode.cli.watch import EVERY_S, Every, View, Watch, present
from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.domain.result import StoredResult
from dicomnode.ports import DeliveryView, JobFilter, JobView

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Jobs: one model on one series each.", no_args_is_help=True)

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
    which = JobFilter(
        states=tuple(state or ()),
        model=model,
        rule=rule,
        destination=destination,
        study_instance_uid=context.state.study(study).study_instance_uid if study else "",
        since=moment(since, "--since"),
        until=moment(until, "--until"),
    )
    nothing = "no job yet" if which == JobFilter() else "no job is as asked for; ask with fewer options"
    view = View(
        look=lambda: context.state.jobs(which, most=most),
        draw=lambda jobs: _table(jobs) if jobs else Text(nothing),
        document=lambda jobs: jobs,
        parts=lambda jobs: {job.job_id: job for job in jobs},
    )
    present(context, view, watch=watch, every_s=every)


def _table(jobs: list[JobView]) -> Table:
    table = Table(header_style="bold cyan", expand=False)
    for column in ("job", "state", "model", "rule", "series", "made"):
        table.add_column(column, no_wrap=column in ("job", "state", "made"), overflow="fold")
    table.add_column("result", overflow="fold")
    for job in jobs:
        table.add_row(
            job.job_id[:ID_CHARACTERS],
            Text(job.state, style=JOB_STYLES[job.state]),
            f"{job.model} (shadow)" if job.shadow else job.model,
            job.rule.partition(" revision ")[0],
            Text(job.series_description or "…" + job.series_instance_uid[-12:]),
            _at(job.created_at, "%m-%d %H:%M"),
            _outcome(job),
        )
    return table


def _outcome(job: JobView) -> Text:
    """What came of a job in a few words."""
    if job.state is JobState.QUEUED and not job.reason:
        waits = f", not before {_at(job.not_before, '%m-%d %H:%M')}" if job.not_before is not None else ""
        return Text(f"priority {job.priority}{waits}")
    if job.state is not JobState.SUCCEEDED:
        return Text(job.reason)
    text = Text(f"{seconds_of(job):.1f} s")
    for delivery in job.deliveries:
        text.append(f", {delivery.kind} ")
        text.append(f"{delivery.state} {delivery.destination}", style=JOB_STYLES.get(delivery.state, ""))
    text.append(f", {job.reason}" if job.reason else "")
    return text.append(", superseded" if job.superseded else "", style="dim")


def seconds_of(job: JobView) -> float:
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return (job.finished_at - job.started_at).total_seconds()


@app.command()
def show(ctx: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """All that is known of a job: times of its stages, results, deliveries, details.

    Example: dicomnode jobs show 3f2a
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    job = context.state.job(job_id)
    if context.json:
        context.print_json(job)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in _facts(job):
        grid.add_row(label, value)
    context.console.print(grid, highlight=False)


def _facts(job: JobView) -> Iterator[tuple[str, Text]]:
    """What is shown of a job, line by line; labels of a second line of the same kind are empty."""
    yield "job", Text(job.job_id)
    yield "state", Text(job.state, style=JOB_STYLES[job.state])
    if job.reason:
        yield "reason", Text(job.reason + (f" ({job.code})" if job.code else ""))
    yield (
        "model",
        Text(f"{job.model}, a shadow: its results are kept here and sent nowhere" if job.shadow else job.model),
    )
    yield "rule", Text(f"{job.rule}, priority {job.priority}")
    yield from _lines("parameters", [Text(f"{name}: {value}") for name, value in job.parameters.items()])
    yield "series", Text(f"{job.series_description}\n{job.series_instance_uid}".strip())
    yield from _lines("inputs", [Text(f"{role}: {uid}") for role, uid in job.inputs.items()])
    yield "study", Text(job.study_instance_uid)
    yield "made", Text(_at(job.created_at))
    if job.not_before is not None:
        yield "not before", Text(_at(job.not_before))
    yield "started", Text(_at(job.started_at) + (f", attempt {job.attempts}" if job.attempts > 1 else ""))
    yield "finished", Text(_at(job.finished_at) + (f", after {seconds_of(job):.2f} s" if job.finished_at else ""))
    timings = [f"{stage} {seconds:.2f} s" for stage, seconds in job.timings_s.items()]
    yield from _lines("stages", [Text(", ".join(timings))] if timings else [])
    yield from _lines("results", [_result_words(job, result) for result in job.results])
    yield from _lines("deliveries", [_delivery_words(d) for d in job.deliveries])
    yield from _lines("classes", [Text(_share_words(row)) for row in job.details.get("classes", [])])
    yield from _lines("details", [Text(f"{name}: {_short(value)}") for name, value in job.details.items()])


def _lines(label: str, values: list[Text]) -> Iterator[tuple[str, Text]]:
    for number, value in enumerate(values):
        yield (label if number == 0 else ""), value


def _result_words(job: JobView, result: StoredResult) -> Text:
    text = Text(f"{result.kind} {result.size_bytes / 1e6:.2f} MB {result.path}")
    if later := job.superseded.get(result.sop_instance_uid):
        text.append(f", superseded by job {later}", style="dim")
    return text


def _delivery_words(delivery: DeliveryView) -> Text:
    text = Text(f"{delivery.kind} to {delivery.destination}: ")
    text.append(delivery.state, style=JOB_STYLES.get(delivery.state, ""))
    if delivery.delivered_at is not None:
        text.append(f" {_at(delivery.delivered_at)}")
    if delivery.reason:
        text.append(f", {delivery.reason}")
    if delivery.state is DeliveryState.WAITING and delivery.next_attempt_at is not None:
        text.append(f"; attempt {delivery.attempts + 1} at {_at(delivery.next_attempt_at)}")
    return text


def _share_words(row: dict[str, Any]) -> str:
    """What a model that gives classes said of how many images."""
    return f"{row['class']}: {row['images']} images, {row['share']:.0%}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:299] + "…"


def _at(moment: datetime | None, layout: str = "%Y-%m-%d %H:%M:%S") -> str:
    return "-" if moment is None else moment.astimezone().strftime(layout)


@app.command()
def retry(ctx: typer.Context, job_id: Id, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Queue a job again that failed, was refused or cancelled; of one that succeeded, its failed deliveries.

    Example: dicomnode jobs retry 3f2a
    """
    _change(ctx, job_id, "retry", dry_run, as_json)


@app.command()
def cancel(ctx: typer.Context, job_id: Id, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Cancel a job that waits or runs; of one that succeeded, the deliveries still to come.

    Example: dicomnode jobs cancel 3f2a --dry-run
    """
    _change(ctx, job_id, "cancel", dry_run, as_json)


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
    job = context.state.job(job_id)
    name = f"job {job.job_id} ({job.model}, {job.state})"
    if dry_run:
        words = f"{name}: priority {priority} in place of {job.priority} was asked for; nothing was changed"
    else:
        context.state.prioritise_job(job.job_id, priority, now=now)
        words = f"{name} has priority {priority}{_still_waits(context.state.job(job.job_id))}"
    context.done(words, job_id=job.job_id, was=job.priority, priority=priority, dry_run=dry_run)


def _still_waits(job: JobView) -> str:
    if job.not_before is None or job.not_before <= moments_now():
        return ""
    return f"; it still waits for the hours of its rule, until {_at(job.not_before)}: see --now"


def _change(ctx: typer.Context, job_id: str, verb: str, dry_run: bool, as_json: bool) -> None:
    context: Context = ctx.obj
    context.json = context.json or as_json
    job = context.state.job(job_id)
    name = f"job {job.job_id} ({job.model}, {job.state})"
    if dry_run:
        words = f"{name}: {verb} was asked for; nothing was changed"
    else:
        change = context.state.retry_job if verb == "retry" else context.state.cancel_job
        change(job.job_id)
        words = f"{name} {'is queued again' if verb == 'retry' else 'was cancelled'}"
    context.done(words, job_id=job.job_id, was=job.state, dry_run=dry_run)
