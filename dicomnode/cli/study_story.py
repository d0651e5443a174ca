"""`dicomnode studies why`: the story of a study, why each series went where it went, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dicomnode.cli.moments import now
from dicomnode.cli.several import OneStudy, each_study
from dicomnode.cli.watch import EVERY_S, Every, Watch, present
from dicomnode.domain.completeness import Policy, Signal
from dicomnode.domain.job import ARRIVED_DELIVERY_STATES, DeliveryState, JobState
from dicomnode.domain.quantity import quantity
from dicomnode.domain.routing import OutcomeKind
from dicomnode.domain.study import SeriesState
from dicomnode.ports import DeliveryView, Event, JobFilter, JobView, SeriesView, StudyView
from dicomnode.stages.advice import next_steps
from dicomnode.stages.situation import ROUTINGS, last_of_each, situation

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Key = Annotated[str, typer.Argument(help="Study or Series Instance UID, accession number, or patient ID.")]

STYLES: Mapping[str, str] = {
    SeriesState.RECEIVING: "cyan",
    SeriesState.COMPLETE: "yellow",
    SeriesState.ROUTED: "green",
    SeriesState.NOT_ROUTED: "magenta",
    SeriesState.WAITING: "yellow",
    SeriesState.OWN_RESULT: "dim",
}
JOB_STYLES: Mapping[str, str] = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.REFUSED: "magenta",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "dim",
    DeliveryState.SENDING: "cyan",
    DeliveryState.WAITING: "yellow",
    DeliveryState.SENT: "green",
    DeliveryState.ACCEPTED: "green",
    DeliveryState.COMMITTED: "bold green",
}
_OUTCOMES: Mapping[str, str] = {
    OutcomeKind.MATCHED: "green",
    OutcomeKind.SHADOW: "cyan",
    OutcomeKind.WAITS_FOR_STUDY: "yellow",
    OutcomeKind.WAITS_FOR_CLASSES: "yellow",
    OutcomeKind.UNREADABLE: "red",
}
_STAYS = " (dicomnode jobs show has its UIDs); this one stays there too, since DICOM knows no replacing"
_NOTHING_SENT = "nothing: everything that was to be sent has arrived"
_NOTHING_FOUND = "nothing: no model was to run on it"
_TOLD_CHARACTERS = 160
_BAD_ENDINGS = ("failed", "quarantined", "lost", "refused", "conflict", "not-routed")
_GOOD_ENDINGS = ("finished", "succeeded", "sent", "accepted", "committed", "recovered", "routed")
_JOBS_MOST = 1000
ID_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Story:
    """All that `why` shows."""

    study: StudyView
    events: tuple[Event, ...]
    jobs: tuple[JobView, ...]  # in the order they were made
    next_steps: tuple[str, ...]


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(ctx: typer.Context, key: Key, watch: Watch = False, every: Every = EVERY_S, as_json: Json = False) -> None:
    """The story of a study in the order it happened, why each series went where it went, and what to do next.

    Example: dicomnode studies why 20240131-007
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    one = OneStudy(look=lambda study: _story(context, study), draw=_drawn, document=_document, parts=_parts)
    present(context, each_study(context, key, one, end_first=True), watch=watch, every_s=every)


def _story(context: Context, study: StudyView) -> Story:
    state = context.state
    events = tuple(state.events(study.study_instance_uid))
    jobs = tuple(reversed(state.jobs(JobFilter(study_instance_uid=study.study_instance_uid), most=_JOBS_MOST)))
    steps = next_steps(situation(state, study, jobs, events, _policy(context), now()))
    return Story(study, events, jobs, tuple(steps))


def _policy(context: Context) -> Policy:
    settings = context.settings
    return Policy(
        quiet_period_s=settings.quiet_period_s,
        sources={source.ae_title: source for source in context.state.sources()},
    )


def _document(story: Story) -> dict[str, Any]:
    return {"study": story.study, "story": story.events, "jobs": story.jobs, "next_steps": story.next_steps}


def _parts(story: Story) -> dict[str, Any]:
    """Each line of the story by itself, and the steps whenever they change."""
    lines: dict[str, Any] = {str(number): {"event": event} for number, event in enumerate(story.events)}
    return lines | {"next_steps": {"next_steps": story.next_steps}}


# --------------------------------------------------------------------------------------------------- drawing


def _drawn(story: Story) -> RenderableType:
    steps = story.next_steps or [_NOTHING_SENT if story.jobs else _NOTHING_FOUND]
    return Group(
        headline(story.study),
        _part("What happened", _story_grid(story.events)),
        _part("The series", _series_grid(story.study, story.events)),
        *([_part("The jobs", _jobs_grid(story.jobs))] if story.jobs else []),
        _part("What to do", _steps_grid(steps)),
    )


def _part(title: str, body: Table) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold cyan"), Padding(body, (0, 0, 0, 2)))


def headline(study: StudyView) -> Text:
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
    for event in _condensed(story):
        if (date := at(event.at, "%Y-%m-%d")) != day:
            grid.add_row(date, "")
            day = date
        grid.add_row(at(event.at, "%H:%M:%S"), Text(_told(event), style=_style_of(event)))
    return grid


def _condensed(story: Iterable[Event]) -> list[Event]:
    """Of a delivery's attempts in a row the last, which says how many: an archive may be away for days."""
    told: dict[int, Event] = dict(enumerate(story))
    runs: dict[str, list[Event]] = {}  # delivery → its failed attempts in a row
    last: dict[str, int] = {}
    for number, event in list(told.items()):
        if event.kind != "delivery.waiting":
            runs.pop(event.delivery_id, None)
            continue
        run = runs.setdefault(event.delivery_id, [])
        run.append(event)
        if len(run) > 1:
            del told[last[event.delivery_id]]
            told[number] = replace(event, message=f"{event.message} (since {at(run[0].at, '%H:%M:%S')})")
        last[event.delivery_id] = number
    return list(told.values())


def _told(event: Event) -> str:
    """Routing reasons are cut short: they stand in full under the series. A model's name stays as it is."""
    if event.kind in ROUTINGS and len(event.message) > _TOLD_CHARACTERS:
        return event.message[: _TOLD_CHARACTERS - 1] + "…"
    return event.message if event.kind.startswith("job.") else _sentence(event.message)


def _style_of(event: Event) -> str:
    ending = event.kind.rsplit(".", 1)[-1]
    if ending.endswith(_BAD_ENDINGS):
        return "red" if ending != "not-routed" else "magenta"
    return "green" if ending in _GOOD_ENDINGS else ""


def _series_grid(study: StudyView, story: Sequence[Event]) -> Table:
    routing, complete = last_of_each(story, ROUTINGS), last_of_each(story, ("series.complete",))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for series in study.series:
        name = Text(f"{series.modality or '?'} {series.description or series.series_instance_uid}", style="bold")
        name.append(f", {quantity(series.instances, 'instance')}", style="not bold")
        last = routing.get(series.series_instance_uid)
        grid.add_row(Text(series.state, style=STYLES[series.state]), name)
        for line in _signs(complete.get(series.series_instance_uid)):
            grid.add_row("", line)
        for reason in _reasons(series, last):
            grid.add_row("", reason)
    return grid


def _signs(complete: Event | None) -> Iterator[Text]:
    """Why it was taken as complete, and why no surer sign than that said so."""
    detail = complete.detail if complete else {}
    signal = detail.get("signal", "")
    said: Mapping[str, str] = detail.get("signs", {}).get("said", {})
    if signal not in said:
        return
    order = list(Signal)
    surer = order[: order.index(signal)]
    doubts = "; ".join(words for sign in surer if (words := said.get(sign)) and words not in said[signal])
    lead = "Taken as complete" if signal == Signal.QUIET else "Complete"
    yield Text(f"{lead} because {said[signal]}").append(f" (no surer sign: {doubts})" if doubts else "", style="dim")


def _reasons(series: SeriesView, routing: Event | None) -> list[Text]:
    """A line a rule, in the colour of what it came to; or the one reason that there was."""
    rules = routing.detail.get("rules", []) if routing else []
    if not rules:
        return [Text(_sentence(series.why))] if series.why else []
    return [Text(_sentence(rule["words"]), style=_style_of_rule(rule)) for rule in rules]


def _style_of_rule(rule: Mapping[str, Any]) -> str:
    return _OUTCOMES.get(rule.get("outcome", ""), "green" if rule.get("matches") else "")


def _jobs_grid(jobs: Iterable[JobView]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for job in jobs:
        head = Text(f"{job.model} on {job.series_description or job.series_instance_uid}", style="bold")
        head.append(f", job {job.job_id[:ID_CHARACTERS]}, by {job.rule}", style="not bold")
        grid.add_row(Text(job.state, style=JOB_STYLES.get(job.state, "")), head)
        for line in _job_lines(job):
            grid.add_row("", line)
    return grid


def _job_lines(job: JobView) -> Iterator[Text]:
    if job.parameters:
        yield Text("with " + ", ".join(f"{name} {value}" for name, value in job.parameters.items()))
    for role, series in job.inputs.items():
        yield Text(f"{role}: series {series}")
    if job.state is JobState.QUEUED and job.not_before is not None:
        yield Text(f"not before {at(job.not_before, '%Y-%m-%d %H:%M')}, as its rule says")
    if job.reason:
        yield Text(_sentence(job.reason))
    for delivery in job.deliveries:
        yield _delivery_line(job, delivery)
    sent = {delivery.sop_instance_uid for delivery in job.deliveries}
    for result in job.results:
        if result.sop_instance_uid not in sent:
            yield Text(f"{result.kind} kept here, sent nowhere")


def _delivery_line(job: JobView, delivery: DeliveryView) -> Text:
    text = Text(f"{delivery.kind} to {delivery.destination}: ")
    text.append(delivery.state, style=JOB_STYLES.get(delivery.state, ""))
    text.append(_said_of(delivery))
    if later := job.superseded.get(delivery.sop_instance_uid):
        stays = _STAYS if delivery.state in ARRIVED_DELIVERY_STATES else ""
        text.append(f"; superseded: the newer one is that of job {later[:ID_CHARACTERS]}{stays}", style="dim")
    return text


def _said_of(delivery: DeliveryView) -> str:
    words = f", {delivery.reason}" if delivery.reason else ""
    return words + (f"; {delivery.proof}" if delivery.proof else "")


def _steps_grid(steps: Iterable[str]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, style="bold yellow")
    grid.add_column(overflow="fold")
    for step in steps:
        grid.add_row("→", Text(_sentence(step)))
    return grid


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def at(moment: datetime, layout: str = "%Y-%m-%d %H:%M:%S") -> str:
    """In this host's zone."""
    return moment.astimezone().strftime(layout)
