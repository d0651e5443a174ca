"""`dicomnode studies`: what came in and where it went; having it done again, or forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dicomnode import bootstrap
from dicomnode.cli import quarantined, study_story
from dicomnode.cli.known_names import check_names
from dicomnode.cli.lines import Labelled
from dicomnode.cli.moments import Since, Until, span
from dicomnode.cli.several import OneStudy, each_study
from dicomnode.cli.study_story import STYLES, Json, Key, at, headline
from dicomnode.cli.watch import EVERY_S, Every, View, Watch, present
from dicomnode.domain.job import JobState
from dicomnode.domain.study import SeriesState
from dicomnode.errors import UsageError
from dicomnode.ports import Event, Forgotten, JobFilter, JobView, SeriesView, StudyFilter, StudyView
from dicomnode.stages.forget import Removed, in_words, sent_of, sent_words
from dicomnode.stages.forget import forget as forget_study

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Studies: what came in, where it went, and why.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="studies")


DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]

_JOBS_MOST = 1000
_Shown = tuple[StudyView, list[Event]]  # and what of it lies in quarantine


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
    first, last = span(since, until)
    check_names(context.state, rule=rule, model=model, destination=destination)
    which = StudyFilter(
        series_states=tuple(state or ()),
        job_states=tuple(job_state or ()),
        model=model,
        rule=rule,
        destination=destination,
        since=first,
        until=last,
    )
    nothing = (
        "no study yet" if which == StudyFilter() else "no study is as asked for; with fewer options, there may be"
    )
    view = View(
        look=lambda: context.state.studies(which, most=most),
        draw=lambda studies: _studies_table(studies) if studies else Text(nothing),
        document=lambda studies: studies,
        parts=lambda studies: {study.study_instance_uid: study for study in studies},
        wide=True,
    )
    present(context, view, watch=watch, every_s=every)


def _studies_table(studies: Iterable[StudyView]) -> Table:
    table = Table(header_style="bold cyan")
    table.add_column("received", no_wrap=True)
    table.add_column("patient ID", overflow="fold")
    table.add_column("accession", overflow="fold")
    table.add_column("study", overflow="fold", ratio=1)
    table.add_column("series", no_wrap=True)
    for study in studies:
        table.add_row(
            at(study.received_at, "%m-%d %H:%M"),
            Text(study.patient_id),
            Text(study.accession_number),
            Text(_title(study)),
            _states(study.series),
        )
    return table


def _title(study: StudyView) -> str:
    """The end of the UID where nothing better is; the whole of it where the study cannot be named otherwise."""
    named = study.patient_id or study.accession_number
    return study.description or ("…" + study.study_instance_uid[-12:] if named else study.study_instance_uid)


def _states(series: Iterable[SeriesView]) -> Text:
    """3 CT routed, 1 SR not-routed."""
    ordered = sorted(series, key=lambda s: (s.modality, s.state))
    parts = [
        Text(f"{len(list(group))} {modality or '?'} {state}", style=STYLES[state])
        for (modality, state), group in groupby(ordered, key=lambda s: (s.modality, s.state))
    ]
    return Text("\n").join(parts)


@app.command()
def show(ctx: typer.Context, key: Key, watch: Watch = False, every: Every = EVERY_S, as_json: Json = False) -> None:
    """A study with its series and the state of each, and what lies in quarantine; several when the key fits several.

    Example: dicomnode studies show 20240131-007
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    one: OneStudy[_Shown] = OneStudy(
        look=lambda study: (study, quarantined.quarantined(context.state.events(study.study_instance_uid))),
        draw=lambda shown: Group(headline(shown[0]), Text(), Labelled(_study_lines(shown))),
        document=_document,
        parts=lambda shown: {"": _document(shown)},
    )
    present(context, each_study(context, key, one), watch=watch, every_s=every)


def _study_lines(shown: _Shown) -> Iterator[tuple[Text, Text]]:
    yield from _series_lines(shown[0].series)
    yield from quarantined.lines(shown[1], with_job=True)


def _document(shown: _Shown) -> dict[str, Any]:
    study, aside = shown
    facts = {spec.name: getattr(study, spec.name) for spec in fields(study)}
    return {**facts, "quarantined": quarantined.rows(aside)}


def _series_lines(series: Iterable[SeriesView]) -> Iterator[tuple[Text, Text]]:
    for one in series:
        words = Text(f"{one.modality or '?'} {one.description}".strip(), style="bold")
        number = in_words({"instances": one.instances})
        came = f", {number} from {one.calling_ae_title}, last {at(one.last_received_at)}"
        words.append(came, style="not bold").append(f"\n{one.series_instance_uid}", style="dim not bold")
        yield Text(one.state, style=STYLES[one.state]), words


@app.command()
def rerun(ctx: typer.Context, key: Key, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Route a study, or one of its series, again by the rules in force now, as if it had just come.

    Jobs that still run are superseded. What comes out unchanged is not sent again.

    What was sent stays at its destination, also when it is superseded: what comes out otherwise is sent beside it.

    Example: dicomnode studies rerun 20240131-007 --dry-run
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    study = context.state.only_study(key)
    uid = study.study_instance_uid
    series = context.state.rerun_study(key if _is_series(study, key) else uid, dry_run=dry_run)
    there = sent_of(_jobs(context, uid, series))
    number = f"{len(series)} series of study {uid}"
    if not series:
        words = f"nothing is routed again: {_why_nothing(study)}"
    elif dry_run:
        words = f"{number} would be routed again{_stays(there)}; nothing was changed"
    else:
        words = f"{number} are routed again within seconds{_stays(there)}; then: dicomnode studies why {uid}"
    context.done(words, study_instance_uid=uid, series=series, sent=there, dry_run=dry_run)


def _is_series(study: StudyView, key: str) -> bool:
    return any(series.series_instance_uid == key for series in study.series)


def _jobs(context: Context, study_instance_uid: str, series: Sequence[str]) -> list[JobView]:
    every = context.state.jobs(JobFilter(study_instance_uid=study_instance_uid), most=_JOBS_MOST)
    return [job for job in every if job.series_instance_uid in series]


def _stays(sent: Mapping[str, Mapping[str, int]]) -> str:
    """What the results of before are at their destinations, which nobody takes back."""
    return f"; {sent_words(sent)} stays there: what comes out different now is sent beside it" if sent else ""


def _why_nothing(study: StudyView) -> str:
    states = {series.state for series in study.series}
    if states & {SeriesState.RECEIVING, SeriesState.COMPLETE}:
        why = f"dicomnode studies why {study.study_instance_uid}"
        return f"it is still being received or waits to be routed as it is: {why}"
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

    What was sent to a destination stays there, also what was superseded: delete it there if it is to go.

    It is refused while jobs run or results are on their way. After a crash, repeat it to remove what is left.

    Example: dicomnode studies forget 20240131-007 --yes
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    if dry_run:
        _say_forgotten(context, context.state.forget_study(key, dry_run=True))
    elif not yes:
        raise UsageError(
            "it cannot be undone: look with --dry-run what would go, then say --yes "
            f"(dicomnode studies forget {shlex.quote(key)} --dry-run)"
        )
    else:
        removed = forget_study(context.state, context.store, key, quarantine=bootstrap.quarantine(context.settings))
        _say_forgotten(context, removed.forgotten, removed)


def _say_forgotten(context: Context, gone: Forgotten, removed: Removed | None = None) -> None:
    """Without `removed` nothing was done."""
    counts = {"series": gone.series, "instances": gone.instances, "jobs": gone.jobs, "results": gone.results}
    found = {"study_instance_uid": gone.study_instance_uid, **counts, "sent": gone.sent}
    stays = f"; {sent_words(gone.sent)} stays there: delete it there if it is to go" if gone.sent else ""
    name = f"study {gone.study_instance_uid}"
    if removed is None:
        message = f"{name} would be forgotten: {in_words(counts)}{stays}; nothing was changed"
        context.done(message, **found, dry_run=True)
        return
    files = f"{in_words({'files': removed.files})} removed" + (
        f", {removed.spooled} from the spool" if removed.spooled else ""
    )
    message = f"{name} is forgotten: {in_words(counts)}; {files}{stays}"
    context.done(message, **found, files=removed.files, spooled=removed.spooled, dry_run=False)


study_story.register(app)
