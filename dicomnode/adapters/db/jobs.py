"""A job from its start to its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.classes import job_ended
from dicomnode.adapters.db.deliveries import deliver_results, forms_for, stored_result
from dicomnode.adapters.db.job_tickets import enqueue, is_current, locked_job, too_early_s
from dicomnode.adapters.db.limits import full, park, wake
from dicomnode.adapters.db.models import model_of, models_before
from dicomnode.adapters.db.receive import load_series
from dicomnode.adapters.db.routing import active_job
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelRow, ResultRow, RuleRow, SeriesRow
from dicomnode.adapters.db.telling import tell_job
from dicomnode.domain.job import (
    JOB_CRASHES_MOST,
    JobEvent,
    JobState,
    job_backoff_s,
    next_job_state,
)
from dicomnode.domain.result import StoredResult
from dicomnode.domain.study import Series
from dicomnode.errors import AlreadyActive
from dicomnode.ports import QUARANTINED, JobFailed, JobFinished, JobOutcome, JobRefused, JobStopped, JobWork, Running


def start_job(unit: Unit, job_id: str, run: int | None) -> JobWork | None:
    job = locked_job(unit, job_id)
    if job is None or not is_current(job, run):
        return None
    if job.state is JobState.QUEUED and (wait_s := too_early_s(unit, job)) > 0:
        enqueue(unit, job, wait_s)
        return None
    if job.state is JobState.QUEUED and (words := full(unit, job)):
        park(unit, job, words)
        return None
    if job.state is JobState.RUNNING and _died_once_too_often(unit, job):
        return None
    job.state = next_job_state(job.state, JobEvent.START)
    job.attempts, job.started_at, job.code, job.reason = job.attempts + 1, unit.now(), "", ""
    tell_job(unit, job, "job.started", "started" + (f", attempt {job.attempts}" if job.attempts > 1 else ""))
    wake(unit, job)  # who waits for this one alone goes past those that it keeps back from another model
    inputs = _inputs(unit.session, job)
    if gone := [role for role, series in inputs.items() if series is None]:
        words = f"the series in the role {' and '.join(gone)} is not here any more: send it again and rerun the study"
        _end(unit, job, JobEvent.REFUSE, "input-gone", words)
        return None
    given = {role: series for role, series in inputs.items() if series is not None}
    return _work(unit.session, job, given, forms_for(unit, job))


def lose_job(unit: Unit, job_id: str, run: int) -> bool:
    """Its process died: it stands in line again, where it stood, and its place is free; False if it did not run."""
    job = locked_job(unit, job_id)
    if job is None or not is_current(job, run) or job.state is not JobState.RUNNING:
        return False
    if not _died_once_too_often(unit, job):
        job.state = next_job_state(job.state, JobEvent.LOSE)
        tell_job(unit, job, "job.lost", "its worker died while it ran: it is begun again")
        enqueue(unit, job, delay_s=0.0)
        wake(unit, job)
    return True


def _died_once_too_often(unit: Unit, job: JobRow) -> bool:
    """Counts the crash, and ends a job that had too many."""
    job.crashes += 1
    if given_up := job.crashes > JOB_CRASHES_MOST:
        _end(unit, job, JobEvent.FAIL, "worker-died", f"its process died {job.crashes} times while it ran")
    return given_up


def waiting_job(session: Session, job_id: str, run: int) -> JobWork | None:
    """What start_job would give, as far as it is there; nothing is begun."""
    job = session.get(JobRow, job_id)
    if job is None or not is_current(job, run):
        return None
    return _work(session, job, {role: series for role, series in _inputs(session, job).items() if series is not None})


def finish_job(unit: Unit, job_id: str, outcome: JobOutcome, attempt: int | None) -> None:
    job = locked_job(unit, job_id)
    if job is None or attempt not in (None, job.attempts):
        return  # a process that was taken for dead came back; the job is another's now
    if job.state is not JobState.RUNNING:
        if job.state is JobState.CANCELLED:
            _tell_after_cancel(unit, job, outcome)
        return  # also where it is queued again, since its process was taken for dead
    _tell_quarantined(unit, job, outcome)
    match outcome:
        case JobFinished():
            _finish(unit, job, outcome)
        case JobRefused():
            _end(unit, job, JobEvent.REFUSE, outcome.code, outcome.reason)
        case JobFailed():
            _fail(unit, job, outcome)
        case JobStopped():
            pass  # it was taken back (taken_back), and has begun again since


def _tell_quarantined(unit: Unit, job: JobRow, outcome: JobOutcome) -> None:
    """Before the job's end, which they may be the reason of."""
    for one in outcome.quarantined if isinstance(outcome, JobFinished | JobFailed) else ():
        tell_job(unit, job, QUARANTINED, one.words, result=one.kind, reason=one.reason, place=one.place)


def _tell_after_cancel(unit: Unit, job: JobRow, outcome: JobOutcome) -> None:
    _tell_quarantined(unit, job, outcome)
    if isinstance(outcome, JobStopped):
        tell_job(unit, job, "job.stopped", "its work was stopped")
    else:
        tell_job(unit, job, "job.discarded", "what it gave after it was cancelled is not used")


def taken_back(session: Session, running: Collection[Running]) -> dict[Running, str]:
    """Those that are not that beginning's any more, and why."""
    ids = [one.job_id for one in running]
    query = sa.select(JobRow.id, JobRow.state, JobRow.run, JobRow.attempts).where(JobRow.id.in_(ids))
    rows = {row.id: row for row in session.execute(query)}
    return {one: why for one in running if (why := _why_taken_back(one, rows.get(one.job_id)))}


def _why_taken_back(one: Running, row: sa.Row[str, JobState, int, int] | None) -> str:
    if row is None:
        return "the job is not there any more"
    if row.state is not JobState.RUNNING:
        return f"the job is {row.state}"
    return "" if (row.run, row.attempts) == (one.run, one.attempt) else "the job was begun again"


def _finish(unit: Unit, job: JobRow, outcome: JobFinished) -> None:
    job.timings_s, job.details = dict(outcome.timings_s), dict(outcome.details)
    results = [_keep(unit, job, result) for result in outcome.results]
    unit.session.flush()
    _end(unit, job, JobEvent.FINISH, "", "; ".join(filter(None, [outcome.note, _unchanged(job, results)])))
    if job.shadow:
        return  # what a shadow gives is there to be compared: it is not sent, and takes no other's place
    later = _later_job(unit.session, job)
    if later is not None:
        _overtaken(unit, job, results, later)
        return
    _supersede(unit, job, results)
    unit.session.flush()
    deliver_results(unit, job, results)


def _unchanged(job: JobRow, results: Sequence[ResultRow]) -> str:
    """What is the same object as before, in words; "" when nothing is."""
    before = [result for result in results if result.job_id != job.id]
    if not before:
        return ""
    jobs = " and ".join(sorted({result.job_id for result in before}))
    what = "the same results" if len(before) == len(results) else "the same " + ", ".join(r.kind for r in before)
    return f"unchanged: {what} as job {jobs}"


def _supersede(unit: Unit, job: JobRow, results: Sequence[ResultRow]) -> None:
    """Takes the place of what this rule and model gave on this series before, any revision and version."""
    kept = {result.id for result in results}
    old = [row for row in unit.session.scalars(_in_force(job)).all() if row.id not in kept]
    for row in results:
        row.superseded_by = None  # also of one that was in force before, and is again
    for row in old:
        row.superseded_by = job.id
    if old:
        jobs = " and ".join(sorted({row.job_id for row in old}))
        words = f"its results are newer than those of job {jobs} and supersede them; {_WHAT_WAS_SENT_STAYS}"
        tell_job(unit, job, "job.supersedes", words)


# C-STORE and STOW-RS add objects; nothing in PS3.4 or PS3.18 puts one in another's place
_WHAT_WAS_SENT_STAYS = "what was sent of the old ones stays at its destination, since DICOM knows no replacing"


def _overtaken(unit: Unit, job: JobRow, results: Sequence[ResultRow], later: JobRow) -> None:
    """A job that was made after this one has given its results already: this one's are kept here and sent nowhere."""
    for result in results:
        if result.job_id == job.id:
            result.superseded_by = later.id
    tell_job(unit, job, "job.overtaken", f"its results are not sent: job {later.id} was made later and is done")


def _in_force(job: JobRow) -> sa.Select[ResultRow]:
    """Results of this rule and model on this series, any revision and version, that no other took the place of.

    Not those of shadows, which are in force nowhere.
    """
    return (
        sa.select(ResultRow)
        .join(JobRow, ResultRow.job_id == JobRow.id)
        .join(RuleRow, JobRow.rule_id == RuleRow.id)
        .join(ModelRow, JobRow.model_id == ModelRow.id)
        .where(JobRow.series_id == job.series_id, ResultRow.superseded_by.is_(None), JobRow.shadow.is_(False))
        .where(RuleRow.name == job.rule.name, ModelRow.name == job.model.name)
        .order_by(ResultRow.id.desc())
    )


def _later_job(session: Session, job: JobRow) -> JobRow | None:
    """As _in_force, but a job: made after this one, and done."""
    query = (
        sa.select(JobRow)
        .join(RuleRow, JobRow.rule_id == RuleRow.id)
        .join(ModelRow, JobRow.model_id == ModelRow.id)
        .where(JobRow.series_id == job.series_id, JobRow.id != job.id, JobRow.state == JobState.SUCCEEDED)
        .where(JobRow.shadow.is_(False))
        .where(RuleRow.name == job.rule.name, ModelRow.name == job.model.name, JobRow.created_at > job.created_at)
        .order_by(JobRow.created_at.desc())
        .limit(1)
    )
    return session.scalar(query)


def _fail(unit: Unit, job: JobRow, outcome: JobFailed) -> None:
    delay_s = job_backoff_s(job.attempts - job.crashes) if outcome.retryable else None
    if delay_s is None:
        _end(unit, job, JobEvent.FAIL, outcome.code, outcome.reason)
        return
    job.state = next_job_state(job.state, JobEvent.POSTPONE)
    job.code, job.reason = outcome.code, outcome.reason
    tell_job(unit, job, "job.postponed", f"{outcome.reason}; again in {delay_s:.0f} s", code=outcome.code)
    enqueue(unit, job, delay_s)
    wake(unit, job)


_ENDED = {
    JobEvent.FINISH: "finished",
    JobEvent.REFUSE: "refused",
    JobEvent.FAIL: "failed",
    JobEvent.CANCEL: "cancelled",
}


def _end(unit: Unit, job: JobRow, event: JobEvent, code: str, reason: str) -> None:
    job.state = next_job_state(job.state, event)
    job.code, job.reason, job.finished_at = code, reason, unit.now()
    words = _ENDED[event]
    tell_job(unit, job, f"job.{words}", f"{words}: {reason}" if reason else words, code=code, **_took(job))
    job_ended(unit, job)
    wake(unit, job)


def _took(job: JobRow) -> dict[str, float]:
    if job.started_at is None or job.finished_at is None:
        return {}
    return {"seconds": round((job.finished_at - job.started_at).total_seconds(), 3)}


def _keep(unit: Unit, job: JobRow, result: StoredResult) -> ResultRow:
    """The result's row. The same object again stays what it was: a file that was sent is never another's."""
    row = unit.session.scalar(sa.select(ResultRow).where(ResultRow.sop_instance_uid == result.sop_instance_uid))
    if row is None:
        row = ResultRow(sop_instance_uid=result.sop_instance_uid, job_id=job.id, created_at=unit.now())
        row.kind, row.sop_class_uid, row.path = result.kind, result.sop_class_uid, result.path
        row.series_instance_uid = result.series_instance_uid
        unit.session.add(row)
    elif not job.shadow and unit.session.get_one(JobRow, row.job_id).shadow:
        row.job_id = job.id  # its version is no shadow any more: from now on it is a result like others
    if row.path == result.path:  # written anew where the first file was lost, or first of all
        row.size_bytes, row.sha256 = result.size_bytes, result.sha256
    return row


def retry_job(unit: Unit, job: JobRow) -> None:
    """Back to the queue, as if new; raises IllegalTransition or AlreadyActive."""
    state = next_job_state(job.state, JobEvent.RETRY)
    if (other := active_job(unit, job.series_id, job.model_id, job.rule_id)) is not None:
        raise AlreadyActive(f"job {other} does the same on this series already: dicomnode jobs show {other}")
    job.state, job.attempts, job.crashes = state, 0, 0
    job.code, job.reason, job.started_at, job.finished_at = "", "", None, None
    tell_job(unit, job, "job.retried", "queued again by the administrator")
    enqueue(unit, job, delay_s=0.0)


def cancel_job(unit: Unit, job: JobRow) -> None:
    """Raises IllegalTransition."""
    _end(unit, job, JobEvent.CANCEL, "cancelled", "by the administrator")


def _work(session: Session, job: JobRow, inputs: dict[str, Series], forms: tuple[str, ...] = ()) -> JobWork:
    options = job.options or {}
    return JobWork(
        job_id=job.id,
        series=load_series(session, job.series),
        model=model_of(job.model),
        rule_name=job.rule.name,
        rule_revision=job.rule.revision,
        destinations=tuple(job.destinations),
        attempt=job.attempts,
        created_at=job.created_at,
        predecessors=tuple(map(stored_result, session.scalars(_in_force(job)))),
        parameters=dict(options.get("parameters", {})),
        objects=tuple(options.get("objects", ())),
        inputs=inputs,
        before=models_before(session, options),
        earlier=_earlier(session, job),
        priority=job.priority,
        forms=forms,
    )


def _inputs(session: Session, job: JobRow) -> dict[str, Series | None]:
    """Role → its series as it is now, None when it is gone."""
    found: dict[str, Series | None] = {}
    for role, uid in (job.options or {}).get("inputs", {}).items():
        row = session.scalar(sa.select(SeriesRow).where(SeriesRow.series_instance_uid == uid))
        found[role] = None if row is None else load_series(session, row)
    return found


def _earlier(session: Session, job: JobRow) -> tuple[StoredResult, ...]:
    """All that jobs on this series gave before."""
    query = sa.select(ResultRow).join(JobRow, ResultRow.job_id == JobRow.id).where(JobRow.series_id == job.series_id)
    return tuple(map(stored_result, session.scalars(query.order_by(ResultRow.id))))
