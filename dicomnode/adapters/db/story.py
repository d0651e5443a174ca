"""What people read: jobs, studies, and a study's story."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload, selectinload

from dicomnode.adapters.db.deliveries import stored_result
from dicomnode.adapters.db.delivery_views import delivery_view
from dicomnode.adapters.db.filters import job_conditions, study_conditions
from dicomnode.adapters.db.tables import (
    DeliveryRow,
    EventRow,
    InstanceRow,
    JobRow,
    ResultRow,
    SeriesRow,
    StudyRow,
    among,
)
from dicomnode.domain.job import ACTIVE_JOB_STATES, OPEN_DELIVERY_STATES
from dicomnode.domain.study import SeriesState
from dicomnode.errors import Ambiguous, NotFound
from dicomnode.ports import Event, JobFilter, JobView, SeriesView, StudyFilter, StudyView

FORGOTTEN = "study.forgotten"  # the one event that stays of a study

_LISTED = "those there are: dicomnode studies list"
_LISTED_MOST = 20

S = TypeVar("S", bound=StrEnum)


def jobs(session: Session, which: JobFilter, most: int) -> list[JobView]:
    """Newest first."""
    query = sa.select(JobRow).where(*job_conditions(which)).order_by(JobRow.created_at.desc(), JobRow.id)
    return [job_view(row) for row in session.scalars(_with_all(query.limit(most)))]


def _with_all(query: sa.Select[JobRow]) -> sa.Select[JobRow]:
    """Loads what a view shows in a few queries, however many jobs."""
    deliveries = selectinload(JobRow.results).selectinload(ResultRow.deliveries)
    return query.options(
        joinedload(JobRow.series).joinedload(SeriesRow.study),
        joinedload(JobRow.rule),
        joinedload(JobRow.model),
        deliveries.joinedload(DeliveryRow.destination),
    )


def job_view(row: JobRow) -> JobView:
    options = row.options or {}
    return JobView(
        job_id=row.id,
        state=row.state,
        study_instance_uid=row.series.study.study_instance_uid,
        series_instance_uid=row.series.series_instance_uid,
        series_description=row.series.description,
        model=f"{row.model.name} {row.model.version}",
        rule=f"{row.rule.name} revision {row.rule.revision}",
        priority=row.priority,
        attempts=row.attempts,
        code=row.code,
        reason=row.reason,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        timings_s=row.timings_s,
        details=row.details,
        results=tuple(stored_result(result) for result in row.results),
        deliveries=tuple(delivery_view(d) for result in row.results for d in result.deliveries),
        parameters=options.get("parameters", {}),
        inputs=options.get("inputs", {}),
        not_before=row.not_before,
        superseded={r.sop_instance_uid: r.superseded_by for r in row.results if r.superseded_by},
        shadow=row.shadow,
    )


def studies(session: Session, which: StudyFilter, most: int) -> list[StudyView]:
    """Newest first."""
    query = sa.select(StudyRow).where(*study_conditions(which)).options(selectinload(StudyRow.series))
    newest = query.order_by(StudyRow.received_at.desc(), StudyRow.id.desc()).limit(most)
    return _study_views(session, session.scalars(newest).all())


def study(session: Session, key: str) -> StudyView:
    return _study_views(session, [find_study(session, key)])[0]


def studies_named(session: Session, key: str) -> list[StudyView]:
    return _study_views(session, find_studies(session, key))


def only_study(session: Session, key: str) -> StudyView:
    return _study_views(session, [find_only_study(session, key)])[0]


def find_study(session: Session, key: str) -> StudyRow:
    """The newest that the key can mean; raises NotFound."""
    return find_studies(session, key)[0]


def find_only_study(session: Session, key: str) -> StudyRow:
    """The one that the key means; raises NotFound and Ambiguous."""
    found = find_studies(session, key)
    if len(found) > 1:
        raise Ambiguous(
            f"{len(found)} studies have {key!r} as their accession number or patient ID; "
            "say which one is meant by its UID:\n" + "\n".join(_candidates(found, key))
        )
    return found[0]


def _candidates(rows: Sequence[StudyRow], key: str) -> Iterator[str]:
    """A line each, by which they are told apart without the patient."""
    for row in rows[:_LISTED_MOST]:
        yield f"  {row.study_instance_uid}  {written_date(row.study_date)}  {row.description}".rstrip()
    if len(rows) > _LISTED_MOST:
        yield f"  and {len(rows) - _LISTED_MOST} older ones: dicomnode studies show {shlex.quote(key)}"


def written_date(date: str) -> str:
    """A DA as 2026-01-31; anything else as it is (PS3.5 6.2)."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date or "no date"


def find_studies(session: Session, key: str) -> Sequence[StudyRow]:
    """By Study Instance UID, Series Instance UID, or accession number or patient ID; the newest first."""
    for same in (
        StudyRow.study_instance_uid == key,
        StudyRow.id.in_(sa.select(SeriesRow.study_id).where(SeriesRow.series_instance_uid == key)),
        sa.or_(StudyRow.accession_number == key, StudyRow.patient_id == key),
    ):
        newest = sa.select(StudyRow).where(same).order_by(StudyRow.received_at.desc(), StudyRow.id.desc())
        if key and (rows := session.scalars(newest).all()):
            return rows
    if (at := forgotten_at(session, key)) is not None:
        raise NotFound(f"study {key} was forgotten on {at:%Y-%m-%d} at {at:%H:%M} UTC; {_LISTED}")
    raise NotFound(f"no study has {key!r} as a UID, a series' UID, an accession number or a patient ID; {_LISTED}")


def forgotten_at(session: Session, study_instance_uid: str) -> datetime | None:
    """When such a study was last forgotten, if one was."""
    told = sa.select(EventRow.at).where(EventRow.study_instance_uid == study_instance_uid, EventRow.kind == FORGOTTEN)
    return session.scalar(told.order_by(EventRow.id.desc()).limit(1)) if study_instance_uid else None


def _study_views(session: Session, rows: Sequence[StudyRow]) -> list[StudyView]:
    counts = _instance_counts(session, [series.id for row in rows for series in row.series])
    return [_study_view(row, counts) for row in rows]


def _instance_counts(session: Session, series_ids: Sequence[int]) -> dict[int, int]:
    query = sa.select(InstanceRow.series_id, sa.func.count()).where(InstanceRow.in_use)
    counted = session.execute(query.where(InstanceRow.series_id.in_(series_ids)).group_by(InstanceRow.series_id))
    return dict(counted.all())


def _study_view(row: StudyRow, counts: dict[int, int]) -> StudyView:
    return StudyView(
        study_instance_uid=row.study_instance_uid,
        patient_id=row.patient_id,
        accession_number=row.accession_number,
        study_date=row.study_date,
        description=row.description,
        received_at=row.received_at,
        series=tuple(_series_view(series, counts.get(series.id, 0)) for series in row.series),
        state=row.state,
    )


def _series_view(row: SeriesRow, instances: int) -> SeriesView:
    return SeriesView(
        series_instance_uid=row.series_instance_uid,
        state=row.standing,
        modality=row.modality,
        description=row.description,
        instances=instances,
        last_received_at=row.last_received_at,
        calling_ae_title=row.calling_ae_title,
        why=row.why,
    )


def events(session: Session, study_instance_uid: str) -> list[Event]:
    query = sa.select(EventRow).where(EventRow.study_instance_uid == study_instance_uid).order_by(EventRow.id)
    return [_event(row) for row in session.scalars(query)]


def last_event_number(session: Session) -> int:
    return session.scalar(sa.select(sa.func.max(EventRow.id))) or 0


def events_after(session: Session, number: int, most: int) -> list[tuple[int, Event]]:
    query = sa.select(EventRow).where(EventRow.id > number).order_by(EventRow.id).limit(most)
    return [(row.id, _event(row)) for row in session.scalars(query)]


def counts(session: Session) -> dict[str, dict[str, int]]:
    return {
        "studies": {"all": _count(session, StudyRow)},
        "instances": {"all": _count(session, InstanceRow)},
        "series": _count_series(session),
        "jobs": _count_by_state(session, JobRow.state),
        "deliveries": _count_by_state(session, DeliveryRow.state),
    }


def _count(session: Session, table: type[StudyRow] | type[InstanceRow]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _count_series(session: Session) -> dict[str, int]:
    found = dict(_count_by_state(session, SeriesRow.state))
    nowhere, waiting = str(SeriesState.NOT_ROUTED), str(SeriesState.WAITING)
    waits = sa.select(sa.func.count()).where(SeriesRow.state == SeriesState.NOT_ROUTED, SeriesRow.waits)
    if number := session.scalar(waits):
        found |= {nowhere: found[nowhere] - number, waiting: number}
    return {state: count for state, count in found.items() if count}


def _count_by_state(session: Session, state: InstrumentedAttribute[S]) -> dict[str, int]:
    counted = session.execute(sa.select(state, sa.func.count()).group_by(state))
    return {str(value): count for value, count in counted}


def _event(row: EventRow) -> Event:
    return Event(
        at=row.at,
        kind=row.kind,
        message=row.message,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        job_id=row.job_id,
        delivery_id=row.delivery_id,
        detail=row.detail,
    )


def open_work(session: Session) -> tuple[dict[str, int], dict[str, int]]:
    """Jobs and deliveries that wait or run, each with the number of its ticket in the queue.

    The states are written as the partial indexes have them, word for word: only so does SQLite use these.
    """
    jobs = session.execute(sa.select(JobRow.id, JobRow.run).where(sa.text(among(ACTIVE_JOB_STATES))))
    deliveries = sa.select(DeliveryRow.id, DeliveryRow.run).where(sa.text(among(OPEN_DELIVERY_STATES)))
    return dict(jobs.all()), dict(session.execute(deliveries).all())
