"""Jobs on their way into the queue and out of it: tickets, what a job waits for, and how many of a model run at once.

A job that its model's limit keeps back has no ticket: a place in the queue would keep others back. It gets one when a
job of its model ends, in the same transaction. Whoever starts or ends jobs of such a model locks the model first, so
that none is overlooked.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelLimitRow, ModelRow
from dicomnode.adapters.db.telling import tell_job
from dicomnode.domain.job import ACTIVE_JOB_STATES, JobState, Priority
from dicomnode.errors import NotFound

MODEL_LIMIT = "model-limit"
ROOM = "room"
ELSEWHERE = "elsewhere"


def locked_job(unit: Unit, job_id: str) -> JobRow | None:
    return unit.session.scalar(sa.select(JobRow).where(JobRow.id == job_id).with_for_update())


def is_current(job: JobRow | None, run: int | None) -> bool:
    """Whether it waits or runs and that is its ticket."""
    return job is not None and job.state in ACTIVE_JOB_STATES and run in (None, job.run)


def too_early_s(unit: Unit, job: JobRow) -> float:
    """Seconds until its schedule lets it start; 0 when it may."""
    return 0.0 if job.not_before is None else max((job.not_before - unit.now()).total_seconds(), 0.0)


def enqueue(unit: Unit, job: JobRow, delay_s: float) -> None:
    job.run += 1
    unit.queue.add_job(unit.session, job.id, job.run, priority=job.priority.rank, delay_s=delay_s)


def requeue_job(unit: Unit, job_id: str, run: int, why: str) -> bool:
    """A new ticket for a job that has lost its own; False if things went on meanwhile, or it is to have none."""
    job = locked_job(unit, job_id)
    if job is None or not is_current(job, run):
        return False
    if job.code == MODEL_LIMIT and full(unit, job):
        return False
    tell_job(unit, job, "job.requeued", why)
    enqueue(unit, job, delay_s=too_early_s(unit, job))
    return True


def hold_job(unit: Unit, job_id: str, run: int, reason: str) -> bool:
    """Its ticket is somebody's who waits for room; the story tells that once, the job's row how things stand."""
    return _waits(unit, job_id, run, ROOM, reason) is not None


def leave_job(unit: Unit, job_id: str, run: int, reason: str, delay_s: float) -> bool:
    """A new ticket for others to take, since who had it may not run the job."""
    job = _waits(unit, job_id, run, ELSEWHERE, reason)
    if job is not None:
        enqueue(unit, job, delay_s=max(delay_s, too_early_s(unit, job)))
    return job is not None


def _waits(unit: Unit, job_id: str, run: int, code: str, reason: str) -> JobRow | None:
    job = locked_job(unit, job_id)
    if job is None or not is_current(job, run):
        return None
    if job.code != code:
        tell_job(unit, job, "job.waits", reason)
    job.code, job.reason = code, reason
    return job


# ------------------------------------------------------------------------------------------------- models' limits


def full(unit: Unit, job: JobRow) -> str:
    """Why its model's limit keeps it back, in words; "" when it does not."""
    most = limit_of(unit.session, job.model)
    if most is None:
        return ""
    running = _running(unit, job.model.name)
    if running < most:
        return ""
    return f"waits: of the model {job.model.name} {most} may run at once, and {running} do"


def park(unit: Unit, job: JobRow, words: str) -> None:
    """Without a ticket, until wake()."""
    if job.code != MODEL_LIMIT:
        tell_job(unit, job, "job.waits", words)
    job.code, job.reason = MODEL_LIMIT, words


def wake(unit: Unit, model: ModelRow) -> None:
    """A ticket for as many that were kept back as may run now, the most urgent and then the oldest first."""
    most = limit_of(unit.session, model)
    if most is not None:
        _wake(unit, model.name, most - _running(unit, model.name))


def _wake(unit: Unit, name: str, count: int | None) -> None:
    waiting = (
        sa.select(JobRow)
        .join(ModelRow, JobRow.model_id == ModelRow.id)
        .where(JobRow.state == JobState.QUEUED, JobRow.code == MODEL_LIMIT, ModelRow.name == name)
        .order_by(sa.case({p: p.rank for p in Priority}, value=JobRow.priority), JobRow.created_at)
        .limit(count)
        .with_for_update(of=JobRow, skip_locked=True)
    )
    for job in unit.session.scalars(waiting).all() if count is None or count > 0 else []:
        job.code, job.reason = "", ""
        enqueue(unit, job, delay_s=too_early_s(unit, job))


def limit_of(session: Session, model: ModelRow) -> int | None:
    """How many jobs of the model may run at once, of all its versions; None: as many as there are workers for."""
    row = session.get(ModelLimitRow, model.name)
    most = row.at_once if row is not None else model.card.get("network", {}).get("at_once", 0)
    return most or None


def _running(unit: Unit, name: str) -> int:
    """With the model locked until the end of the transaction."""
    unit.session.execute(sa.select(ModelRow.id).where(ModelRow.name == name).with_for_update(key_share=True))
    of_it = sa.select(sa.func.count()).select_from(JobRow).join(ModelRow, JobRow.model_id == ModelRow.id)
    return unit.session.scalar(of_it.where(JobRow.state == JobState.RUNNING, ModelRow.name == name)) or 0


def model_limits(session: Session) -> dict[str, int]:
    """Those that an administrator set, by name; 0: none, whatever the card says."""
    return {row.name: row.at_once for row in session.scalars(sa.select(ModelLimitRow))}


def limit_model(unit: Unit, name: str, at_once: int | None) -> int | None:
    """Sets it, or with None takes it away: then the card decides. What it was. Raises NotFound."""
    model = unit.session.scalar(
        sa.select(ModelRow).where(ModelRow.name == name).order_by(ModelRow.id.desc()).limit(1)
    )
    if model is None:
        raise NotFound(f"there is no model {name}; those there are: dicomnode models list")
    row = unit.session.get(ModelLimitRow, name, with_for_update=True)
    before = None if row is None else row.at_once
    if at_once is None and row is not None:
        unit.session.delete(row)
    elif at_once is not None and row is None:
        unit.session.add(ModelLimitRow(name=name, at_once=at_once))
    elif at_once is not None and row is not None:
        row.at_once = at_once
    unit.session.flush()
    most = limit_of(unit.session, model)
    _wake(unit, name, None if most is None else most - _running(unit, name))
    return before
