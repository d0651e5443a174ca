"""Destinations, and what an administrator does to jobs and studies."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db import deliveries, jobs
from dicomnode.adapters.db.receive import name_of
from dicomnode.adapters.db.routing import tell_job
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.story import find_study
from dicomnode.adapters.db.tables import (
    DeliveryRow,
    DestinationRow,
    JobRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import OPEN_DELIVERY_STATES, JobEvent, JobState, Priority, next_job_state
from dicomnode.domain.study import SeriesState, StudyState
from dicomnode.errors import AlreadyExists, IllegalTransition, NotFound, UsageError

# ---------------------------------------------------------------------------------------------- destinations


def destinations(session: Session) -> list[Destination]:
    query = sa.select(DestinationRow).where(DestinationRow.in_force).order_by(DestinationRow.name)
    return [deliveries.destination_of(row) for row in session.scalars(query)]


def add_destination(unit: Unit, destination: Destination) -> None:
    unit.alone_with(DestinationRow)
    if deliveries.destination_in_force(unit, destination.name) is not None:
        raise AlreadyExists(f"there is a destination {destination.name} already; remove it first")
    row = DestinationRow(
        name=destination.name,
        kind=destination.kind,
        address=str(destination.address),
        in_force=True,
        created_at=unit.now(),
    )
    unit.session.add(row)
    unit.tell("destination.added", f"Destination {destination.name} is {destination.address}")


def remove_destination(unit: Unit, name: str) -> None:
    row = deliveries.destination_in_force(unit, name)
    if row is None:
        raise NotFound(f"there is no destination {name}")
    row.in_force = False
    query = sa.select(DeliveryRow).where(DeliveryRow.destination_id == row.id)
    for delivery in _locked(unit, query.where(DeliveryRow.state.in_(OPEN_DELIVERY_STATES))):
        deliveries.cancel_delivery(unit, delivery, "its destination was removed")
    unit.tell("destination.removed", f"Destination {name} was removed")


# ------------------------------------------------------------------------------------------------------ jobs


def find_job(session: Session, key: str) -> JobRow:
    """By id or its unambiguous beginning; raises NotFound, or UsageError when several begin so."""
    beginning = JobRow.id.startswith(key, autoescape=True)
    found = session.scalars(sa.select(JobRow).where(beginning).order_by(JobRow.id).limit(2)).all() if key else []
    if not found:
        raise NotFound(f"there is no job {key}")
    if len(found) > 1 and found[0].id != key:
        raise UsageError(f"more than one job begins with {key}; give more of its id")
    return found[0]


def retry_job(unit: Unit, key: str) -> None:
    """Queues it again; of a job that succeeded, the deliveries that did not."""
    job = _locked_job(unit, key)
    failed = [d for d in _deliveries(unit, job) if d.state in deliveries.RETRYABLE]
    superseded = [d.result.superseded_by for d in failed if d.result.superseded_by]
    failed = [d for d in failed if not d.result.superseded_by]
    if superseded and not failed:
        raise IllegalTransition(f"the results of job {job.id} are superseded by those of job {superseded[0]}")
    if job.state is not JobState.SUCCEEDED:
        jobs.retry_job(unit, job)
        return
    if not failed:
        again = f"dicomnode studies rerun {job.series.series_instance_uid}"
        raise IllegalTransition(f"job {job.id} succeeded and its results are sent; to have it done again: {again}")
    for delivery in failed:
        _check_in_force(delivery)
        deliveries.retry_delivery(unit, delivery)


def cancel_job(unit: Unit, key: str) -> None:
    """Ends it; of a job that succeeded, the deliveries still to come."""
    job = _locked_job(unit, key)
    still_open = [d for d in _deliveries(unit, job) if d.state in OPEN_DELIVERY_STATES]
    if job.state is not JobState.SUCCEEDED or not still_open:
        next_job_state(job.state, JobEvent.CANCEL)
        jobs.cancel_job(unit, job)
        return
    for delivery in still_open:
        deliveries.cancel_delivery(unit, delivery, "by the administrator")


def _check_in_force(delivery: DeliveryRow) -> None:
    if not delivery.destination.in_force:
        raise NotFound(f"there is no destination {delivery.destination.name} any more")


def _locked_job(unit: Unit, key: str) -> JobRow:
    job = jobs.locked_job(unit, find_job(unit.session, key).id)
    if job is None:
        raise NotFound(f"there is no job {key}")
    unit.session.refresh(job)
    return job


def _deliveries(unit: Unit, job: JobRow) -> list[DeliveryRow]:
    query = sa.select(DeliveryRow).join(ResultRow).where(ResultRow.job_id == job.id)
    return _locked(unit, query)


def _locked(unit: Unit, query: sa.Select[DeliveryRow]) -> list[DeliveryRow]:
    """Rows in the order of their ids, locked: every process locks in the same order."""
    return list(unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)))


def prioritise_job(unit: Unit, key: str, priority: Priority, now: bool) -> None:
    """A new ticket takes the place of the old one, whose priority the queue does not change any more."""
    job = _locked_job(unit, key)
    if job.state is not JobState.QUEUED:
        raise IllegalTransition(f"a job that is {job.state} has no place in the queue; only a queued one has")
    words = f"priority {priority} by the administrator" + (f", before {job.priority}" * (priority != job.priority))
    if now and job.not_before is not None:
        job.not_before, words = None, f"{words}; it does not wait for its schedule"
    job.priority, job.run = priority, job.run + 1
    delay_s = 0.0 if job.not_before is None else max(0.0, (job.not_before - unit.now()).total_seconds())
    tell_job(unit, job, "job.prioritised", words)
    unit.queue.add_job(unit.session, job.id, job.run, priority=priority.rank, delay_s=delay_s)


# --------------------------------------------------------------------------------------------------- studies


def rerun_study(unit: Unit, key: str) -> list[str]:
    """Its series are COMPLETE once more, one generation on, and the study is RECEIVING: the completer does the rest.

    Jobs that are active go on until the new routing is recorded, which ends them.
    """
    study = find_study(unit.session, key)
    query = sa.select(SeriesRow).where(SeriesRow.study_id == study.id, SeriesRow.state.in_(_DECIDED))
    if any(series.series_instance_uid == key for series in study.series):
        query = query.where(SeriesRow.series_instance_uid == key)
    locked = query.order_by(SeriesRow.series_instance_uid).with_for_update()
    again = unit.session.scalars(locked.execution_options(populate_existing=True)).all()
    for series in again:
        series.state, series.generation = SeriesState.COMPLETE, series.generation + 1
        _tell_rerun(unit, study, series)
    if again:  # the study is locked after its series, as by everybody who locks both
        study.state = StudyState.RECEIVING
    return [series.series_instance_uid for series in again]


_DECIDED = (SeriesState.ROUTED, SeriesState.NOT_ROUTED)


def _tell_rerun(unit: Unit, study: StudyRow, series: SeriesRow) -> None:
    unit.tell(
        "series.rerun",
        f"The {name_of(series)} is routed again, as the administrator asked",
        study_instance_uid=study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        detail={"generation": series.generation},
    )
