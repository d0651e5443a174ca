"""`dicomnode studies`: what came in and where it went; having it done again, or forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicomnode.cli import study_story
from dicomnode.cli.moments import Since, Until, moment
from dicomnode.cli.study_story import STYLES, Json, Key, at, headline
from dicomnode.cli.watch import EVERY_S, Every, View, Watch, present
from dicomnode.domain.job import ACTIVE_JOB_STATES, OPEN_DELIVERY_STATES, JobState
from dicomnode.domain.study import SeriesState
from dicomnode.errors import UsageError
from dicomnode.ports import JobFilter, JobView, SeriesView, StudyFilter, StudyView
from dicomnode.stages.forget import forget as forget_study
from dicomnode.stages.forget import in_words

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Studies: what came in, where it went, and why.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]

_DECIDED = frozenset({SeriesState.ROUTED, SeriesState.NOT_ROUTED})
_JOBS_MOST = 1000


@app.command("list")
def list_studies(
    ctx: typer.Context,
    state: Annotated[
        list[SeriesState] | None, typer.Option("--state", help="With a series in this state; may be repeated.")
    ] = None,
    job_state: Annotated[
        list[JobState] | None, typer.Option("--job-state", help="With a job in this state; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="With a job of it: NAME, or 'NAME VERSION'.")] = "",
    rule: Annotated[str, typer.Option("--rule", help="With a job that it made, by any revision.")] = "",
    destination: Annotated[str, typer.Option("--destination", help="With a job whose results go there.")] = "",
    since: Since = "",
    until: Until = "",
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = 50,
    watch: Watch = False,
    every: Every = EVERY_S,
    as_json: Json = False,
) -> None:
    """The studies received, newest first.

    Options about jobs mean one and the same job. Example: dicomnode studies list --job-state failed --since 2d
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    which = StudyFilter(
        series_states=tuple(state or ()),
        job_states=tuple(job_state or ()),
        model=model,
        rule=rule,
        destination=destination,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
    )
    nothing = (
        "no study yet" if which == StudyFilter() else "no study is as asked for; with fewer options, there may be"
    )
    view = View(
        look=lambda: context.state.studies(which, most=most),
        draw=lambda studies: _studies_table(studies) if studies else Text(nothing),
        document=lambda studies: studies,
        parts=lambda studies: {study.study_instance_uid: study for study in studies},
    )
    present(context, view, watch=watch, every_s=every)


def _studies_table(studies: Iterable[StudyView]) -> Table:
    table = Table(header_style="bold cyan")
    table.add_column("received", no_wrap=True)
    table.add_column("patient ID", overflow="fold")
    table.add_column("accession", overflow="fold")
    table.add_column("study", overflow="fold", ratio=1)
    table.add_column("series")
    for study in studies:
        table.add_row(
            at(study.received_at, "%m-%d %H:%M"),
            Text(study.patient_id),
            Text(study.accession_number),
            Text(study.description or study.study_instance_uid),
            _states(study.series),
        )
    return table


def _states(series: Iterable[SeriesView]) -> Text:
    """3 CT routed, 1 SR not-routed."""
    ordered = sorted(series, key=lambda s: (s.modality, s.state))
    parts = [
        Text(f"{len(list(group))} {modality or '?'} {state}", style=STYLES[state])
        for (modality, state), group in groupby(ordered, key=lambda s: (s.modality, s.state))
    ]
    return Text("\n").join(parts)


@app.command()
def show(ctx: typer.Context, key: Key, as_json: Json = False) -> None:
    """A study with its series and the state of each.

    Example: dicomnode studies show 20240131-007
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    view = View(
        look=lambda: context.state.study(key),
        draw=lambda study: Group(headline(study), _series_table(study.series)),
        document=lambda study: study,
        parts=lambda study: {study.study_instance_uid: study},
    )
    present(context, view)


def _series_table(series: Iterable[SeriesView]) -> RenderableType:
    table = Table(header_style="bold cyan")
    for column in ("modality", "description", "images", "from", "last image", "state"):
        table.add_column(column, justify="right" if column == "images" else "left")
    for one in series:
        table.add_row(
            one.modality,
            Text(one.description or "…" + one.series_instance_uid[-12:]),
            str(one.instances),
            Text(one.calling_ae_title),
            at(one.last_received_at),
            Text(one.state, style=STYLES[one.state]),
        )
    return table


@app.command()
def rerun(ctx: typer.Context, key: Key, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Route a study, or one of its series, again by the rules in force now, as if it had just come.

    Jobs that still run are superseded. What comes out unchanged is not sent again.

    Example: dicomnode studies rerun 20240131-007 --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    study = context.state.study(key)
    series = _to_rerun(study, key) if dry_run else context.state.rerun_study(key)
    number = f"{len(series)} series of study {study.study_instance_uid}"
    if not series:
        words = f"nothing is routed again: {_why_nothing(study)}"
    elif dry_run:
        words = f"{number} would be routed again; nothing was changed"
    else:
        words = f"{number} are routed again within seconds; then: dicomnode studies why {study.study_instance_uid}"
    context.done(words, study_instance_uid=study.study_instance_uid, series=series, dry_run=dry_run)


def _to_rerun(study: StudyView, key: str) -> list[str]:
    """As State.rerun_study chooses them."""
    decided = [series.series_instance_uid for series in study.series if series.state in _DECIDED]
    named = key in {series.series_instance_uid for series in study.series}
    return [uid for uid in decided if uid == key] if named else decided


def _why_nothing(study: StudyView) -> str:
    states = {series.state for series in study.series}
    if states & {SeriesState.RECEIVING, SeriesState.COMPLETE}:
        return "it is still being received or waits to be routed as it is"
    return "it holds nothing but results of this node"


@app.command("forget")
def forget(
    ctx: typer.Context,
    key: Key,
    yes: Annotated[bool, typer.Option("--yes", help="Really do it: it cannot be undone.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a study from the node for good: its images, jobs, results and story.

    What was sent to a destination stays there. It is refused while jobs run or results are on their way. Repeat it
    after a crash: what is left is removed then. Example: dicomnode studies forget 20240131-007 --yes
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if dry_run:
        _say_what_would_go(context, context.state.study(key))
    elif not yes:
        raise UsageError("it cannot be undone: look with --dry-run what would go, then say --yes")
    else:
        removed = forget_study(context.state, context.store, key)
        gone = removed.forgotten
        counts = {"series": gone.series, "instances": gone.instances, "jobs": gone.jobs, "results": gone.results}
        words = in_words(counts)
        files = f"{in_words({'files': removed.files})} removed" + (
            f", {removed.spooled} from the spool" if removed.spooled else ""
        )
        message = f"study {gone.study_instance_uid} is forgotten: {words}; {files}"
        found = {"study_instance_uid": gone.study_instance_uid, **counts}
        context.done(message, **found, files=removed.files, spooled=removed.spooled, dry_run=False)


def _say_what_would_go(context: Context, study: StudyView) -> None:
    jobs = context.state.jobs(JobFilter(study_instance_uid=study.study_instance_uid), most=_JOBS_MOST)
    counts = {
        "series": len(study.series),
        "instances": sum(series.instances for series in study.series),
        "jobs": len(jobs),
        "results": sum(len(job.results) for job in jobs),
    }
    words = in_words(counts)
    busy = _busy(jobs)
    refused = f"; it would be refused now: end them first with dicomnode jobs cancel {busy[0]}" if busy else ""
    message = f"study {study.study_instance_uid} would be forgotten: {words}{refused}; nothing was changed"
    uid = study.study_instance_uid
    context.done(message, study_instance_uid=uid, **counts, busy_jobs=busy, dry_run=True)


def _busy(jobs: Sequence[JobView]) -> list[str]:
    """Jobs that wait, run, or have results on their way."""
    return [
        job.job_id
        for job in jobs
        if job.state in ACTIVE_JOB_STATES or any(d.state in OPEN_DELIVERY_STATES for d in job.deliveries)
    ]


study_story.register(app)
