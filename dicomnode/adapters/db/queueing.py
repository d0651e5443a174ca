"""Jobs on their way into the queue and out of it: tickets, what a job waits for, and how many of a model run at once.

A job that its model's limit keeps back, or that of a model which runs before its own, has no ticket: a place in the
queue would keep others back. It gets one when a job of that model ends, in the same transaction. Whoever starts or
ends jobs of such a model locks the model first, so that none is overlooked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.models import before_ids
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelLimitRow, ModelRow
from dicomnode.adapters.db.telling import tell_job
from dicomnode.domain.job import ACTIVE_JOB_STATES, JobState, Priority
from dicomnode.errors import NotFound

MODEL_LIMIT = "model-limit"
_WITHOUT_LIMIT = 1 << 30
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
    """Why the limit of its model, or of one that runs before it, keeps it back, in words; "" when none does."""
    limits = _limits(unit.session, _versions(job.model_id, job.options))
    running = _running(unit, limits) if limits else {}
    for name, most in limits.items():
        if running[name] >= most:
            first = "" if name == job.model.name else ", which comes first,"
            return f"waits: of the model {name}{first} {most} may run at once, and {running[name]} do"
    return ""


def park(unit: Unit, job: JobRow, words: str) -> None:
    """Without a ticket, until wake()."""
    if job.code != MODEL_LIMIT:
        tell_job(unit, job, "job.waits", words)
    job.code, job.reason = MODEL_LIMIT, words


def wake(unit: Unit, ended: JobRow) -> None:
    """Tickets for those that were kept back by a limit and may run now that a job has ended."""
    if limits := _limits(unit.session, _versions(ended.model_id, ended.options)):
        _wake(unit, limits)


def _wake(unit: Unit, limits: Mapping[str, int]) -> None:
    """The most urgent and then the oldest first, as long as any of these models may run once more."""
    free = {name: most - running for name, running in _running(unit, limits).items() for most in [limits[name]]}
    waiting = (
        sa.select(JobRow.id, JobRow.model_id, JobRow.options)
        .where(JobRow.state == JobState.QUEUED, JobRow.code == MODEL_LIMIT)
        .order_by(sa.case({p: p.rank for p in Priority}, value=JobRow.priority), JobRow.created_at)
    )
    for job_id, *versions in unit.session.execute(waiting).all():
        if max(free.values(), default=0) <= 0:
            break
        asked = _limits(unit.session, _versions(*versions))
        others = _running(unit, asked.keys() - free)
        free |= {name: asked[name] - running for name, running in others.items()}
        if all(free[name] > 0 for name in asked) and _woken(unit, job_id):
            free |= {name: free[name] - 1 for name in asked}


def _woken(unit: Unit, job_id: str) -> bool:
    """False when somebody else has it in hand, or it waits no more."""
    query = sa.select(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.QUEUED, JobRow.code == MODEL_LIMIT)
    job = unit.session.scalar(query.with_for_update(skip_locked=True))
    if job is not None:
        job.code, job.reason = "", ""
        enqueue(unit, job, delay_s=too_early_s(unit, job))
    return job is not None


def _versions(model_id: int, options: Mapping[str, Any] | None) -> list[int]:
    """Every one that a job runs, its own first."""
    return [model_id, *before_ids(options)]


def _limits(session: Session, models: Sequence[int]) -> dict[str, int]:
    """How many jobs of these may run at once, by name, of all versions of it; of those alone that have a limit.

    Who runs before another model runs in that one's job, and counts as much.
    """
    found = {}
    for model in filter(None, (session.get(ModelRow, number) for number in dict.fromkeys(models))):
        row = session.get(ModelLimitRow, model.name)
        most = row.at_once if row is not None else model.card.get("network", {}).get("at_once", 0)
        if most:
            found[model.name] = most
    return found


def _running(unit: Unit, names: Collection[str]) -> dict[str, int]:
    """How many jobs run each of these now, with the models locked until the end of the transaction."""
    if not names:
        return {}
    of_them = ModelRow.name.in_(names)
    unit.session.execute(sa.select(ModelRow.id).where(of_them).order_by(ModelRow.id).with_for_update(key_share=True))
    called = {row.id: row.name for row in unit.session.execute(sa.select(ModelRow.id, ModelRow.name).where(of_them))}
    jobs = sa.select(JobRow.model_id, JobRow.options).where(JobRow.state == JobState.RUNNING)
    found = dict.fromkeys(names, 0)
    for number, options in unit.session.execute(jobs):
        for name in {called[n] for n in (number, *before_ids(options)) if n in called}:
            found[name] += 1
    return found


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
    limits = _limits(unit.session, [model.id])
    _wake(unit, limits or {name: _WITHOUT_LIMIT})
    return before
