"""Jobs that do not begin though they have a ticket, or whose ticket is gone."""

from __future__ import annotations

from dicomnode.adapters.db.job_tickets import enqueue, is_current, locked_job, too_early_s
from dicomnode.adapters.db.limits import MODEL_LIMIT, ROOM, full, wake
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow
from dicomnode.adapters.db.telling import tell_job

ELSEWHERE = "elsewhere"


def requeue_job(unit: Unit, job_id: str, run: int, why: str) -> bool:
    """A new ticket for a job that has lost its own; False if things went on meanwhile, or it is to have none."""
    job = locked_job(unit, job_id)
    if job is None or not is_current(job, run):
        return False
    if job.code == MODEL_LIMIT and full(unit, job):
        return False
    if job.code == ELSEWHERE:
        job.code, job.reason = "", ""  # anybody may take it
    tell_job(unit, job, "job.requeued", why)
    enqueue(unit, job, delay_s=too_early_s(unit, job))
    return True


def hold_job(unit: Unit, job_id: str, run: int, reason: str) -> bool:
    """Its ticket is somebody's who waits for room; the story tells that once, the job's row how things stand."""
    return _waits(unit, job_id, run, ROOM, reason) is not None


def leave_job(unit: Unit, job_id: str, run: int, reason: str, machine: str, again_s: float) -> bool:
    """A new ticket for the workers of that machine alone, since who had it may not run the job.

    Without a machine for all of them, since who had it has no place for it.
    """
    job = _waits(unit, job_id, run, ELSEWHERE if machine else ROOM, reason)
    if job is not None:
        enqueue(unit, job, delay_s=max(too_early_s(unit, job), again_s), machine=machine)
        wake(unit, job)
    return job is not None


def _waits(unit: Unit, job_id: str, run: int, code: str, reason: str) -> JobRow | None:
    job = locked_job(unit, job_id)
    if job is None or not is_current(job, run):
        return None
    if job.code != code:
        tell_job(unit, job, "job.waits", reason)
    job.code, job.reason = code, reason
    return job
