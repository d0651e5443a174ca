"""`dicomnode studies`: what came in, where it went, and why."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dicomnode.domain.study import SeriesState
from dicomnode.ports import Event, JobView, SeriesView, State, StudyView
from dicomnode.stages.advice import next_steps

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

app = typer.Typer(help="Studies: what came in, where it went, and why.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Key = Annotated[str, typer.Argument(help="Study or Series Instance UID, accession number, or patient ID.")]

STYLES = {
    SeriesState.RECEIVING: "cyan",
    SeriesState.COMPLETE: "yellow",
    SeriesState.ROUTED: "green",
    SeriesState.NOT_ROUTED: "magenta",
    SeriesState.OWN_RESULT: "dim",
}
_ROUTING = ("series.routed", "series.not-routed")
_TOLD_CHARACTERS = 160
_BAD_ENDINGS = ("failed", "refused", "conflict", "not-routed")
_GOOD_ENDINGS = ("finished", "succeeded", "delivered", "routed")


@app.command("list")
def list_studies(
    ctx: typer.Context,
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """The studies received, newest first.

    Example: dicomnode studies list --most 10
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    studies = context.state.studies(most=most)
    if context.json:
        context.print_json(studies)
    elif not studies:
        context.console.print("no study yet")
    else:
        context.console.print(_studies_table(studies))


def _studies_table(studies: Iterable[StudyView]) -> Table:
    table = Table(header_style="bold cyan")
    table.add_column("received", no_wrap=True)
    table.add_column("patient ID", overflow="fold")
    table.add_column("accession", overflow="fold")
    table.add_column("study", overflow="fold", ratio=1)
    table.add_column("series")
    for study in studies:
        table.add_row(
            _at(study.received_at, "%m-%d %H:%M"),
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
    study = context.state.study(key)
    if context.json:
        context.print_json(study)
        return
    context.console.print(_headline(study))
    table = Table(header_style="bold cyan")
    for column in ("modality", "description", "images", "from", "last image", "state"):
        table.add_column(column, justify="right" if column == "images" else "left")
    for series in study.series:
        table.add_row(
            series.modality,
            Text(series.description or "…" + series.series_instance_uid[-12:]),
            str(series.instances),
            Text(series.calling_ae_title),
            _at(series.last_received_at),
            Text(series.state, style=STYLES[series.state]),
        )
    context.console.print(table)


@app.command()
def why(ctx: typer.Context, key: Key, as_json: Json = False) -> None:
    """The story of a study in the order it happened, why each series went where it went, and what to do next.

    Example: dicomnode studies why 20240131-007
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    study = context.state.study(key)
    story = context.state.events(study.study_instance_uid)
    steps = next_steps(study, _jobs(context.state, story))
    if context.json:
        context.print_json({"study": study, "story": story, "next_steps": steps})
        return
    context.console.print(_headline(study))
    _print_part(context, "What happened", _story_grid(story))
    _print_part(context, "The series", _series_grid(study, story))
    _print_part(context, "What to do", _steps_grid(steps or ["nothing: everything that was to arrive has arrived"]))


def _jobs(state: State, story: Iterable[Event]) -> list[JobView]:
    """The study's jobs, in the order they appear in its story."""
    return [state.job(job_id) for job_id in dict.fromkeys(event.job_id for event in story if event.job_id)]


def _print_part(context: Context, title: str, body: Table) -> None:
    context.console.print(Text(f"\n{title}", style="bold cyan"))
    context.console.print(Padding(body, (0, 0, 0, 2)), highlight=False)


def _headline(study: StudyView) -> Text:
    text = Text(study.description or "Study", style="bold")
    facts = [
        f"accession {study.accession_number}" if study.accession_number else "",
        f"patient {study.patient_id}" if study.patient_id else "",
        study.study_date,
    ]
    text.append("".join(f" · {fact}" for fact in facts if fact), style="not bold")
    return text.append(f"\n{study.study_instance_uid}", style="dim not bold")


def _story_grid(story: Iterable[Event]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    day = ""
    for event in story:
        if (date := _at(event.at, "%Y-%m-%d")) != day:
            grid.add_row(date, "")
            day = date
        grid.add_row(_at(event.at, "%H:%M:%S"), Text(_told(event), style=_style_of(event)))
    return grid


def _told(event: Event) -> str:
    """Routing reasons are cut short: they stand in full under the series."""
    if event.kind in _ROUTING and len(event.message) > _TOLD_CHARACTERS:
        return event.message[: _TOLD_CHARACTERS - 1] + "…"
    return event.message


def _style_of(event: Event) -> str:
    ending = event.kind.rsplit(".", 1)[-1]
    if ending.endswith(_BAD_ENDINGS):
        return "red" if ending != "not-routed" else "magenta"
    return "green" if ending in _GOOD_ENDINGS else ""


def _series_grid(study: StudyView, story: Iterable[Event]) -> Table:
    routing = {event.series_instance_uid: event for event in story if event.kind in _ROUTING}  # the last of each
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for series in study.series:
        name = Text(f"{series.modality or '?'} {series.description or series.series_instance_uid}", style="bold")
        name.append(f", {series.instances} image{'s' if series.instances != 1 else ''}", style="not bold")
        grid.add_row(Text(series.state, style=STYLES[series.state]), name)
        for reason in _reasons(series, routing.get(series.series_instance_uid)):
            grid.add_row("", reason)
    return grid


def _reasons(series: SeriesView, routing: Event | None) -> list[Text]:
    """A line a rule, those that matched in green; or the one reason that there was."""
    rules = routing.detail.get("rules", []) if routing else []
    if not rules:
        return [Text(series.why[:1].upper() + series.why[1:])] if series.why else []
    return [Text(r["words"][:1].upper() + r["words"][1:], style="green" if r["matches"] else "") for r in rules]


def _steps_grid(steps: Iterable[str]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, style="bold yellow")
    grid.add_column(overflow="fold")
    for step in steps:
        grid.add_row("→", Text(step[:1].upper() + step[1:]))
    return grid


def _at(moment: datetime, layout: str = "%Y-%m-%d %H:%M:%S") -> str:
    return moment.astimezone().strftime(layout)
