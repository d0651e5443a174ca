"""Recording where a series goes, and making its jobs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dicomnode.adapters.db.classes import is_over, job_ended
from dicomnode.adapters.db.evidence import keep
from dicomnode.adapters.db.job_tickets import put
from dicomnode.adapters.db.limits import wake
from dicomnode.adapters.db.receive import locked_series, name_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, RuleRow, SeriesRow, StudyRow
from dicomnode.adapters.db.telling import tell_job
from dicomnode.adapters.db.unwanted import restore, withdraw
from dicomnode.domain.job import ACTIVE_JOB_STATES, JobEvent, JobState, next_job_state
from dicomnode.domain.routing import OutcomeKind
from dicomnode.domain.schedule import NODE_ZONE, next_start
from dicomnode.domain.study import Evidence, Series, SeriesState, StudyState
from dicomnode.ports import NewJob, SeriesRouting

# The code of a job that was cancelled since later images, or another series, take its place
_SUPERSEDED = "superseded"
_DECIDED = (SeriesState.ROUTED, SeriesState.NOT_ROUTED)


def record_routing(
    unit: Unit,
    series: Series,
    jobs: Sequence[NewJob],
    why: str,
    detail: Mapping[str, Any],
    evidence: Evidence | None = None,
) -> list[str]:
    row = locked_series(unit, series.series_instance_uid)
    if row is None or row.state is not SeriesState.COMPLETE or row.generation != series.generation:
        return []  # another process was first, or late images came: the series will be complete again
    if evidence is not None and is_over(unit.session, row, evidence.awaited):
        return []  # it stays complete, to be routed with the classes that came meanwhile
    kept = _kept(unit, row)
    new = [job for job in jobs if not any(_is_made(there, job) for there in kept)]
    row.why = why
    _set_state(row, routed=bool(new or kept), detail=detail)
    if evidence is not None:
        keep(unit, row, evidence)
    _tell_routed(unit, row, len(new), bool(kept), detail)
    _supersede(unit, row)
    return [job_id for job in new if (job_id := _make(unit, row, job, options_of(unit, job))) is not None]


def _set_state(row: SeriesRow, routed: bool, detail: Mapping[str, Any]) -> None:
    row.state = SeriesState.ROUTED if routed else SeriesState.NOT_ROUTED
    row.waits = not routed and _waits(detail)


def _kept(unit: Unit, series: SeriesRow) -> list[JobRow]:
    """Jobs of the series as it is: there are some when it is asked about again, with classes."""
    query = sa.select(JobRow).where(JobRow.series_id == series.id, JobRow.generation == series.generation)
    return _of_now(series, unit.session.scalars(query.with_for_update()))


def _of_now(series: SeriesRow, jobs: Iterable[JobRow]) -> list[JobRow]:
    return [job for job in jobs if job.generation == series.generation and job.code != _SUPERSEDED]


def _is_made(there: JobRow, new: NewJob) -> bool:
    """Whether the rule has made its job, by an earlier revision or of the version that was active then, may be."""
    return (there.rule.name, there.model.name, there.shadow) == (new.rule.name, new.model.name, new.shadow)


def _tell_routed(unit: Unit, series: SeriesRow, made: int, again: bool, detail: Mapping[str, Any]) -> None:
    kind, words = _ROUTED if made else _NOTHING_MORE if again else _waits_words(detail) or _NOT_ROUTED
    since = ", now that it is classified" if again else ""
    _tell(unit, series, kind, f"{words}{since}: {series.why}", detail)


def _tell_settled(unit: Unit, series: SeriesRow, routing: SeriesRouting, made: int) -> None:
    """What the whole study added, and not again what was said when the series came."""
    said = [rule["words"] for rule in routing.detail.get("rules", ()) if rule["rule"] in routing.settled]
    why = ". ".join([*said[:1], *(words[:1].upper() + words[1:] for words in said[1:])]) or series.why
    if series.state is not SeriesState.ROUTED:
        kind, words = _waits_words(routing.detail) or _NOT_ROUTED
    elif made:
        kind, words = _ROUTED
    else:
        kind, words = _NOTHING_MORE
    _tell(unit, series, kind, f"{words}, now that its study is complete: {why}", routing.detail)


def _tell(unit: Unit, series: SeriesRow, kind: str, words: str, detail: Mapping[str, Any]) -> None:
    unit.tell(
        kind,
        f"The {name_of(series)} {words}",
        study_instance_uid=series.study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        detail=dict(detail),
    )


_ROUTED = ("series.routed", "was routed")
_NOT_ROUTED = ("series.not-routed", "was not routed")
_NOTHING_MORE = ("series.routed", "gets no further job")
_WAITS: Mapping[str, tuple[str, str]] = {
    OutcomeKind.WAITS_FOR_STUDY: ("series.waits", "waits for its study"),
    OutcomeKind.WAITS_FOR_CLASSES: ("series.waits", "waits to be classified"),
}


def _waits_words(detail: Mapping[str, Any]) -> tuple[str, str] | None:
    """What it waits for so that a rule may still make a job of it: its study, or classes; None when nothing may."""
    outcomes = {rule.get("outcome") for rule in detail.get("rules", ())}
    return next((words for outcome, words in _WAITS.items() if outcome in outcomes), None)


def _waits(detail: Mapping[str, Any]) -> bool:
    return _waits_words(detail) is not None


# ------------------------------------------------------------------------------------------- the whole study


def record_study_routing(
    unit: Unit, study_instance_uid: str, generation: int, routings: Sequence[SeriesRouting]
) -> list[str]:
    rows = _locked_rows(unit, study_instance_uid)
    query = sa.select(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid)
    # as complete_study: a plain lock would stand in the way of everything that refers to the study
    query = query.with_for_update(key_share=True)
    study = unit.session.scalars(query).one_or_none()
    if study is None or study.state is not StudyState.COMPLETE or study.generation != generation:
        return []  # another process was first, or more images came: the study will be complete again
    study.state = StudyState.ROUTED
    made: list[str] = []
    for routing in routings:
        row = rows.get(routing.series.series_instance_uid)
        if row is not None and row.generation == routing.series.generation and row.state in _DECIDED:
            made += _settle(unit, row, routing)
    told = {routing.series.series_instance_uid for routing in routings}
    for row in rows.values():
        row.waits = row.waits and row.series_instance_uid in told  # of no other does a rule have anything to say yet
    if routings:
        _tell_study(unit, study, len(made))
    return made


def _locked_rows(unit: Unit, study_instance_uid: str) -> dict[str, SeriesRow]:
    """Of all its series, before the study, and in the order in which whoever records images locks them."""
    of_study = sa.select(StudyRow.id).where(StudyRow.study_instance_uid == study_instance_uid).scalar_subquery()
    query = sa.select(SeriesRow).where(SeriesRow.study_id == of_study).order_by(SeriesRow.series_instance_uid)
    rows = unit.session.scalars(query.with_for_update().execution_options(populate_existing=True))
    return {row.series_instance_uid: row for row in rows}


def _tell_study(unit: Unit, study: StudyRow, made: int) -> None:
    jobs = f"{made} job{'s' if made != 1 else ''}" if made else "no further job"
    unit.tell(
        "study.routed" if made else "study.not-routed",
        f"The rules that look at the whole study were asked: {jobs}",
        study_instance_uid=study.study_instance_uid,
        detail={"jobs": made, "generation": study.generation},
    )


def _settle(unit: Unit, series: SeriesRow, routing: SeriesRouting) -> list[str]:
    """Jobs of the settled rules become those that are wanted; the ids of the new ones."""
    wanted = [(new, options_of(unit, new)) for new in routing.jobs]
    there = unit.session.scalars(sa.select(JobRow).where(JobRow.series_id == series.id).with_for_update()).all()
    settled = [job for job in there if unit.session.get_one(RuleRow, job.rule_id).name in routing.settled]
    unwanted = _withdraw(unit, [job for job in settled if job.state in ACTIVE_JOB_STATES], wanted)
    _withdraw_results(unit, [job for job in settled if job.state is JobState.SUCCEEDED], wanted)
    kept = _of_now(series, there)
    missing = [(new, options) for new, options in wanted if not any(_is_same(job, new, options) for job in kept)]
    before = (series.state, series.why)
    series.why = routing.why
    _set_state(series, routed=bool(kept or missing), detail=routing.detail)
    if missing or unwanted or before != (series.state, series.why):
        _tell_settled(unit, series, routing, len(missing))
    made = [job_id for new, options in missing if (job_id := _make(unit, series, new, options)) is not None]
    for job in unwanted:
        job_ended(unit, job)
    return made


def _withdraw(unit: Unit, active: Iterable[JobRow], wanted: Sequence[tuple[NewJob, dict[str, Any]]]) -> list[JobRow]:
    """The jobs that were cancelled, since the study as it is now asks for others."""
    unwanted = [job for job in active if not any(_is_same(job, new, options) for new, options in wanted)]
    for job in unwanted:
        _cancel(unit, job, "the study changed, and the rule decides otherwise now")
    unit.session.flush()
    return unwanted


def _withdraw_results(unit: Unit, done: Iterable[JobRow], wanted: Sequence[tuple[NewJob, dict[str, Any]]]) -> None:
    """Of rules that want nothing of the series any more; where they want another job, its results supersede them."""
    names = {new.rule.name for new, _ in wanted}
    for job in done:
        if any(_is_same(job, new, options) for new, options in wanted):
            restore(unit, job)
        elif unit.session.get_one(RuleRow, job.rule_id).name not in names and (words := withdraw(unit, job)):
            tell_job(unit, job, "job.unwanted", words)


def _is_same(job: JobRow, new: NewJob, options: Mapping[str, Any]) -> bool:
    same = (job.rule_id, job.model_id, job.shadow) == (new.rule.id, new.model.id, new.shadow)
    return same and (job.options or _NO_OPTIONS) == options


# ---------------------------------------------------------------------------------------------------- jobs

_NO_OPTIONS: dict[str, Any] = {"parameters": {}, "objects": [], "inputs": {}, "input_generations": {}}


def options_of(unit: Unit, new: NewJob) -> dict[str, Any]:
    """What the rule wants of a job, as JSON: what sets it apart from another one of the rule on the series.

    Of its further series also how often they were complete: more images of them make another job.
    """
    query = sa.select(SeriesRow.series_instance_uid, SeriesRow.generation)
    uids = list(new.inputs.values())
    generations = (
        dict(unit.session.execute(query.where(SeriesRow.series_instance_uid.in_(uids))).all()) if uids else {}
    )
    return {
        "parameters": dict(new.parameters),
        "objects": list(new.objects),
        "inputs": dict(new.inputs),
        "input_generations": {role: generations.get(uid, 0) for role, uid in new.inputs.items()},
        **({"before": {called: model.id for called, model in new.before.items()}} if new.before else {}),
    }


def _make(unit: Unit, series: SeriesRow, new: NewJob, options: dict[str, Any]) -> str | None:
    if active_job(unit, series.id, new.model.id, new.rule.id) is not None:
        return None
    now = unit.now()
    not_before = next_start(new.schedule, now.astimezone(NODE_ZONE))
    row = JobRow(
        id=secrets.token_hex(8),
        series_id=series.id,
        rule_id=new.rule.id,
        model_id=new.model.id,
        generation=series.generation,
        state=JobState.QUEUED,
        priority=new.priority,
        destinations=list(new.destinations),
        options=options,
        not_before=not_before,
        run=1,
        created_at=now,
        shadow=new.shadow,
    )
    unit.session.add(row)
    unit.session.flush()
    until = f", from {not_before.astimezone(NODE_ZONE):%Y-%m-%d %H:%M} on" if not_before else ""
    until += ", as a shadow: its results are kept and sent nowhere" * new.shadow
    by = f"queued by rule {new.rule.name} revision {new.rule.revision}"
    tell_job(unit, row, "job.made", f"{by}, priority {new.priority}{until}")
    delay_s = (not_before - now).total_seconds() if not_before else 0.0
    put(unit, row, delay_s)
    return row.id


def active_job(unit: Unit, series_id: int, model_id: int, rule_id: int) -> str | None:
    query = sa.select(JobRow.id).where(
        JobRow.series_id == series_id,
        JobRow.model_id == model_id,
        JobRow.rule_id == rule_id,
        JobRow.state.in_(ACTIVE_JOB_STATES),
    )
    return unit.session.scalar(query)


def _supersede(unit: Unit, series: SeriesRow) -> None:
    """Cancels active jobs of the series as it was before late images came: their results would be of a part."""
    query = sa.select(JobRow).where(JobRow.series_id == series.id, JobRow.state.in_(ACTIVE_JOB_STATES))
    for job in unit.session.scalars(query.where(JobRow.generation < series.generation).with_for_update()).all():
        _cancel(unit, job, "the series was routed anew, with later images or as the administrator asked")
    unit.session.flush()


def _cancel(unit: Unit, job: JobRow, reason: str) -> None:
    job.state = next_job_state(job.state, JobEvent.CANCEL)
    job.code, job.reason, job.finished_at = _SUPERSEDED, reason, unit.now()
    tell_job(unit, job, "job.cancelled", job.reason)
    wake(unit, job)
