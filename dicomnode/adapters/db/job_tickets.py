"""A job's ticket in the queue: whose it is, and a new one."""

from __future__ import annotations

import sqlalchemy as sa

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow
from dicomnode.domain.job import ACTIVE_JOB_STATES


def locked_job(unit: Unit, job_id: str) -> JobRow | None:
    return unit.session.scalar(sa.select(JobRow).where(JobRow.id == job_id).with_for_update())


def is_current(job: JobRow | None, run: int | None) -> bool:
    """Whether it waits or runs and that is its ticket."""
    return job is not None and job.state in ACTIVE_JOB_STATES and run in (None, job.run)


def too_early_s(unit: Unit, job: JobRow) -> float:
    """Seconds until its schedule lets it start; 0 when it may."""
    return 0.0 if job.not_before is None else max((job.not_before - unit.now()).total_seconds(), 0.0)


def enqueue(unit: Unit, job: JobRow, delay_s: float, *, machine: str = "") -> None:
    """A new ticket, in the job's turn however late it is written; of a machine, one for its workers alone."""
    job.run += 1
    put(unit, job, delay_s, machine=machine)


def put(unit: Unit, job: JobRow, delay_s: float, *, machine: str = "") -> None:
    """The ticket of the run that the row names."""
    unit.queue.add_job(
        unit.session,
        job.id,
        job.run,
        priority=job.priority.rank,
        since=job.created_at,
        machine=machine,
        delay_s=delay_s,
    )
