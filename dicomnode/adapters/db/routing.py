"""Recording where a series goes, and making its jobs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dicomnode.adapters.db.receive import locked_series, name_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelRow, SeriesRow
from dicomnode.domain.job import ACTIVE_JOB_STATES, JobEvent, JobState, next_job_state
from dicomnode.domain.study import Evidence, Series, SeriesState
from dicomnode.ports import NewJob, SeriesRouting

_NOW = 0.0


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
    row.state, row.why = (SeriesState.ROUTED if jobs else SeriesState.NOT_ROUTED), why
    unit.tell(
        "series.routed" if jobs else "series.not-routed",
        f"The {name_of(row)} was {'routed' if jobs else 'not routed'}: {why}",
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        detail=dict(detail),
    )
    _supersede(unit, row)
    return [job_id for job in jobs if (job_id := _make(unit, row, job)) is not None]


def record_study_routing(
    unit: Unit, study_instance_uid: str, generation: int, routings: Sequence[SeriesRouting]
) -> list[str]:
    raise NotImplementedError


def _make(unit: Unit, series: SeriesRow, new: NewJob) -> str | None:
    if active_job(unit, series.id, new.model.id, new.rule.id) is not None:
        return None
    job_id = secrets.token_hex(8)
    row = JobRow(
        id=job_id,
        series_id=series.id,
        rule_id=new.rule.id,
        model_id=new.model.id,
        generation=series.generation,
        state=JobState.QUEUED,
        priority=new.priority,
        destinations=list(new.destinations),
        run=1,
        created_at=unit.now(),
    )
    unit.session.add(row)
    unit.session.flush()
    tell_job(unit, row, "job.made", f"by rule {new.rule.name} revision {new.rule.revision}, {new.priority}")
    unit.queue.add_job(unit.session, job_id, row.run, priority=row.priority.rank, delay_s=_NOW)
    return job_id


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
        job.state = next_job_state(job.state, JobEvent.CANCEL)
        job.code, job.reason, job.finished_at = "superseded", "more images of the series came", unit.now()
        tell_job(unit, job, "job.cancelled", job.reason)
    unit.session.flush()


def tell_job(unit: Unit, job: JobRow, kind: str, words: str, **detail: Any) -> None:
    """A line about a job, as in "torso-ct 1.0.0 on CT series 3: started"."""
    series = unit.session.get_one(SeriesRow, job.series_id)
    model = unit.session.get_one(ModelRow, job.model_id)
    unit.tell(
        kind,
        f"{model.name} {model.version} on {name_of(series)}: {words}",
        study_instance_uid=series.study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        job_id=job.id,
        detail=detail,
    )
