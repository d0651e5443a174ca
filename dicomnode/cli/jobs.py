"""`dicomnode jobs`: what runs, what ran, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.ports import DeliveryView, JobFilter, JobView

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Jobs: one model on one series each.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
Id = Annotated[str, typer.Argument(help="The job's id, or as much of its beginning as makes it unambiguous.")]

STYLES = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.REFUSED: "magenta",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "dim",
    DeliveryState.QUEUED: "yellow",
    DeliveryState.SENDING: "cyan",
    DeliveryState.WAITING: "yellow",
    DeliveryState.DELIVERED: "green",
    DeliveryState.FAILED: "bold red",
    DeliveryState.CANCELLED: "dim",
}
_ID_CHARACTERS = 8


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    state: Annotated[JobState | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """The jobs, newest first.

    Example: dicomnode jobs list --state failed
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    jobs = context.state.jobs(JobFilter(states=(state,) if state else ()), most=most)
    if context.json:
        context.print_json(jobs)
    elif not jobs:
        context.console.print("no job" + (f" is {state}" if state else " yet"))
    else:
        context.console.print(_table(jobs))


def _table(jobs: list[JobView]) -> Table:
    table = Table(header_style="bold cyan", expand=False)
    for column in ("job", "state", "model", "series", "made"):
        table.add_column(column, no_wrap=column in ("job", "state", "made"))
    table.add_column("result", overflow="fold")
    for job in jobs:
        table.add_row(
            job.job_id[:_ID_CHARACTERS],
            Text(job.state, style=STYLES[job.state]),
            job.model,
            Text(job.series_description or "…" + job.series_instance_uid[-12:]),
            _at(job.created_at, "%m-%d %H:%M"),
            _outcome(job),
        )
    return table


def _outcome(job: JobView) -> Text:
    """What came of a job in a few words."""
    if job.state is not JobState.SUCCEEDED:
        return Text(job.reason)
    text = Text(f"{seconds_of(job):.1f} s")
    for delivery in job.deliveries:
        text.append(f", {delivery.kind} ")
        text.append(f"{delivery.state} {delivery.destination}", style=STYLES[delivery.state])
    return text


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
    yield "state", Text(job.state, style=STYLES[job.state])
    if job.reason:
        yield "reason", Text(job.reason + (f" ({job.code})" if job.code else ""))
    yield "model", Text(job.model)
    yield "rule", Text(f"{job.rule}, priority {job.priority}")
    yield "series", Text(f"{job.series_description}\n{job.series_instance_uid}".strip())
    yield "study", Text(job.study_instance_uid)
    yield "made", Text(_at(job.created_at))
    yield "started", Text(_at(job.started_at) + (f", attempt {job.attempts}" if job.attempts > 1 else ""))
    yield "finished", Text(_at(job.finished_at) + (f", after {seconds_of(job):.2f} s" if job.finished_at else ""))
    timings = [f"{stage} {seconds:.2f} s" for stage, seconds in job.timings_s.items()]
    yield from _lines("stages", [Text(", ".join(timings))] if timings else [])
    yield from _lines("results", [Text(f"{r.kind} {r.size_bytes / 1e6:.2f} MB {r.path}") for r in job.results])
    yield from _lines("deliveries", [_delivery_words(d) for d in job.deliveries])
    yield from _lines("details", [Text(f"{name}: {_short(value)}") for name, value in job.details.items()])


def _lines(label: str, values: list[Text]) -> Iterator[tuple[str, Text]]:
    for number, value in enumerate(values):
        yield (label if number == 0 else ""), value


def _delivery_words(delivery: DeliveryView) -> Text:
    text = Text(f"{delivery.kind} to {delivery.destination}: ")
    text.append(delivery.state, style=STYLES[delivery.state])
    if delivery.delivered_at is not None:
        text.append(f" {_at(delivery.delivered_at)}")
    if delivery.reason:
        text.append(f", {delivery.reason}")
    if delivery.state is DeliveryState.WAITING and delivery.next_attempt_at is not None:
        text.append(f"; attempt {delivery.attempts + 1} at {_at(delivery.next_attempt_at)}")
    return text


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
