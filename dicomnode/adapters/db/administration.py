"""Destinations, and what an administrator does to jobs and studies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db import deliveries, jobs
from dicomnode.adapters.db.job_tickets import enqueue, locked_job, too_early_s
from dicomnode.adapters.db.limits import wake
from dicomnode.adapters.db.receive import name_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.story import find_only_study, job_view
from dicomnode.adapters.db.tables import (
    DeliveryRow,
    JobRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from dicomnode.adapters.db.telling import tell_job
from dicomnode.domain.job import OPEN_DELIVERY_STATES, JobState, Priority
from dicomnode.domain.job_changes import JobWish, can, nothing_of_its_own, why_not
from dicomnode.domain.study import SeriesState, StudyState
from dicomnode.errors import Ambiguous, IllegalTransition, NotFound
from dicomnode.ports import JobChange, JobView

_LISTED_MOST = 10

# ------------------------------------------------------------------------------------------------------ jobs


def find_job(session: Session, key: str) -> JobRow:
    """By id or its unambiguous beginning; raises NotFound, or Ambiguous when several begin so."""
    beginning = JobRow.id.startswith(key, autoescape=True)
    query = sa.select(JobRow).where(beginning).order_by(JobRow.id).limit(_LISTED_MOST + 1)
    found = session.scalars(query).all() if key else []
    if not found:
        raise NotFound(f"there is no job {key}; those there are: dicomnode jobs list")
    if len(found) > 1 and found[0].id != key:
        raise Ambiguous(f"several jobs begin with {key}; give more of the id:\n" + "\n".join(_candidates(found)))
    return found[0]


def _candidates(rows: Sequence[JobRow]) -> Iterator[str]:
    for row in rows[:_LISTED_MOST]:
        about = row.series.description or row.series.series_instance_uid
        yield f"  {row.id}  {row.state}  {row.model.name} {row.model.version} on {about}"
    if len(rows) > _LISTED_MOST:
        yield "  and more: dicomnode jobs list"


def retry_job(unit: Unit, key: str) -> JobChange:
    """Queues it again; of a job that succeeded, the deliveries that did not."""
    job = _locked_job(unit, key)
    before = job_view(job)
    if job.state is JobState.SUCCEEDED:
        _retry_deliveries(unit, job)
    else:
        _check(JobWish.RETRY, job)
        jobs.retry_job(unit, job)
    return _changed(unit, before, job)


def _retry_deliveries(unit: Unit, job: JobRow) -> None:
    """Of what was superseded meanwhile nothing is sent, nor anything to a destination that was removed.

    A destination that was changed, or removed and added again, gets it where it is now.
    """
    made = deliveries.deliver_missing(unit, job)
    unit.session.flush()
    failed = [d for d in _deliveries(unit, job) if d.state in deliveries.RETRYABLE]
    failed = [d for d in failed if not deliveries.is_taken_over(unit, d)]
    wanted = [d for d in failed if not d.result.superseded_by]
    if failed and not wanted:
        later = failed[0].result.superseded_by
        words = f"the results of job {job.id} are superseded by those of job {later}"
        raise IllegalTransition(f"{words}: dicomnode jobs show {later}")
    there = [d for d in wanted if deliveries.destination_in_force(unit, d.destination.name)]
    if wanted and not there and not made:
        raise NotFound(_no_destination(job, wanted[0].destination.name))
    if not there and not made:
        raise IllegalTransition(_nothing_to_send(unit, job))
    for delivery in there:
        deliveries.retry_delivery(unit, delivery)


def _no_destination(job: JobRow, name: str) -> str:
    again = (
        f"add it again (dicomnode destinations add {name} --dimse AET@HOST:PORT), then: dicomnode jobs retry {job.id}"
    )
    return f"there is no destination {name} any more; {again}"


def _nothing_to_send(unit: Unit, job: JobRow) -> str:
    if any(d.state in OPEN_DELIVERY_STATES for d in _deliveries(unit, job)):
        return f"job {job.id} succeeded and its results are on their way: dicomnode jobs show {job.id}"
    return _why_not(JobWish.RETRY, job)


def cancel_job(unit: Unit, key: str) -> JobChange:
    """Ends it; of a job that succeeded, the deliveries still to come."""
    job = _locked_job(unit, key)
    before = job_view(job)
    still_open = [d for d in _deliveries(unit, job) if d.state in OPEN_DELIVERY_STATES]
    if job.state is not JobState.SUCCEEDED or not still_open:
        _check(JobWish.CANCEL, job)
        jobs.cancel_job(unit, job)
    else:
        for delivery in still_open:
            deliveries.cancel_delivery(unit, delivery, "by the administrator")
    return _changed(unit, before, job)


def _check(wish: JobWish, job: JobRow) -> None:
    if not can(wish, job.state):
        raise IllegalTransition(_why_not(wish, job))


def _why_not(wish: JobWish, job: JobRow) -> str:
    series, study = job.series.series_instance_uid, job.series.study.study_instance_uid
    if job.state is JobState.SUCCEEDED and not job.results and wish is not JobWish.PRIORITISE:
        return nothing_of_its_own(job.reason, job=job.id, series=series)
    return why_not(wish, job.state, job=job.id, series=series, study=study)


def _changed(unit: Unit, before: JobView, job: JobRow) -> JobChange:
    unit.session.flush()
    for result in job.results:  # deliveries may have been added
        unit.session.expire(result, ["deliveries"])
    return JobChange(before, job_view(job))


def _locked_job(unit: Unit, key: str) -> JobRow:
    job = locked_job(unit, find_job(unit.session, key).id)
    if job is None:
        raise NotFound(f"there is no job {key}; those there are: dicomnode jobs list")
    unit.session.refresh(job)
    return job


def _deliveries(unit: Unit, job: JobRow) -> list[DeliveryRow]:
    query = sa.select(DeliveryRow).join(ResultRow).where(ResultRow.job_id == job.id)
    return _locked(unit, query)


def _locked(unit: Unit, query: sa.Select[DeliveryRow]) -> list[DeliveryRow]:
    """Rows in the order of their ids, locked: every process locks in the same order."""
    locked = query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)
    return list(unit.session.scalars(locked.execution_options(populate_existing=True)))


def prioritise_job(unit: Unit, key: str, priority: Priority, now: bool) -> JobChange:
    """A new ticket takes the place of the old one, whose priority the queue does not change any more."""
    job = _locked_job(unit, key)
    before = job_view(job)
    _check(JobWish.PRIORITISE, job)
    hurried = now and job.not_before is not None
    if priority != job.priority or hurried:
        _put(unit, job, priority, hurried)
    return _changed(unit, before, job)


def _put(unit: Unit, job: JobRow, priority: Priority, hurried: bool) -> None:
    words = f"priority {priority} by the administrator" + (f", before {job.priority}" * (priority != job.priority))
    if hurried:
        job.not_before, words = None, f"{words}; it does not wait for its schedule"
    job.priority = priority
    tell_job(unit, job, "job.prioritised", words)
    enqueue(unit, job, too_early_s(unit, job))
    wake(unit, job)


# --------------------------------------------------------------------------------------------------- studies


def rerun_study(unit: Unit, key: str) -> list[str]:
    """Its series are COMPLETE once more, one generation on, and the study is RECEIVING: the completer does the rest.

    Jobs that are active go on until the new routing is recorded, which ends them.
    """
    study = find_only_study(unit.session, key)
    query = sa.select(SeriesRow).where(SeriesRow.study_id == study.id, SeriesRow.state.in_(_DECIDED))
    if any(series.series_instance_uid == key for series in study.series):
        query = query.where(SeriesRow.series_instance_uid == key)
    locked = query.order_by(SeriesRow.series_instance_uid).with_for_update()
    again = unit.session.scalars(locked.execution_options(populate_existing=True)).all()
    for series in again:
        series.state, series.generation = SeriesState.COMPLETE, series.generation + 1
        series.completed_at = None  # nobody is at its routing: the next worker that looks takes it up
        _tell_rerun(unit, study, series)
    if again:
        # The study is locked after its series, as by everybody who locks both; what was read of it before may be old,
        # and assigning what it seems to be already would write nothing
        changed = sa.update(StudyRow).where(StudyRow.id == study.id).values(state=StudyState.RECEIVING)
        unit.session.execute(changed)
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
