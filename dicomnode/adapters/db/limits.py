"""How many jobs of a model run at once, on all hosts together, and who is next.

A job that a limit keeps back, its model's or that of a model which runs before its own, has no ticket: a place in the
queue would keep others back. It gets one when its turn comes, in the transaction that makes it so: when a job ends or
leaves the line. Who decides over limits keeps all others from it, so that none is overlooked and nobody goes
past one that came before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.job_tickets import enqueue, too_early_s
from dicomnode.adapters.db.models import before_ids
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelLimitRow, ModelRow
from dicomnode.adapters.db.telling import tell_job
from dicomnode.domain.job import JobState, Priority
from dicomnode.domain.turns import InLine, held_back, whose_turn
from dicomnode.errors import NotFound

MODEL_LIMIT = "model-limit"
ROOM = "room"
_IN_LINE = ("", ROOM, MODEL_LIMIT)
"""Codes of queued jobs that would begin if they could; others wait for their next attempt, or for another machine."""
_TURN = (sa.case({p: p.rank for p in Priority}, value=JobRow.priority), JobRow.created_at, JobRow.id)
"""As domain.turns.turn_of."""

Asks = dict[str, int]


def full(unit: Unit, job: JobRow) -> str:
    """Why a limit keeps it back, in words; "" when none does. Nobody else decides until the transaction ends."""
    limited = _limited(unit.session)
    own = InLine(job.id, _asks(limited, job.model_id, job.options))
    if not own.asks:
        return ""
    unit.alone_with(ModelLimitRow)
    return held_back(own, _line(unit, limited, before=job), _running(unit.session, limited), job.model.name)


def park(unit: Unit, job: JobRow, words: str) -> None:
    """Without a ticket, until wake()."""
    if job.code != MODEL_LIMIT:
        tell_job(unit, job, "job.waits", words)
    job.code, job.reason = MODEL_LIMIT, words
    wake(unit, job)


def wake(unit: Unit, moved: JobRow) -> None:
    """Tickets for those whose turn has come, now that this job began, ended, or stands elsewhere in line."""
    limited = _limited(unit.session)
    if _asks(limited, moved.model_id, moved.options):
        _wake(unit, limited)


def _wake(unit: Unit, limited: Mapping[int, tuple[str, int]]) -> None:
    unit.alone_with(ModelLimitRow)
    kept_back = sa.select(JobRow.id).where(JobRow.state == JobState.QUEUED, JobRow.code == MODEL_LIMIT)
    parked = unit.session.scalars(kept_back.order_by(*_TURN)).all()
    if not parked:
        return
    line = list(_line(unit, limited))
    may = set(whose_turn(line, _running(unit.session, limited)))
    limits_hold = {job.job_id for job in line}  # not where the limit was taken away
    for job_id in parked:
        if job_id in may or job_id not in limits_hold:
            _give_ticket(unit, job_id)


def _give_ticket(unit: Unit, job_id: str) -> None:
    """Nothing when somebody else has it in hand, or it waits no more."""
    query = sa.select(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.QUEUED, JobRow.code == MODEL_LIMIT)
    job = unit.session.scalar(query.with_for_update(skip_locked=True))
    if job is not None:
        job.code, job.reason = "", ""
        enqueue(unit, job, delay_s=too_early_s(unit, job))


# ------------------------------------------------------------------------------------------------ what there is


def _limited(session: Session) -> dict[int, tuple[str, int]]:
    """Versions with a limit: number → name, and how many jobs of it may run at once."""
    set_here = model_limits(session)
    said = ModelRow.card["network"]["at_once"].as_integer()
    found = {}
    for number, name, by_card in session.execute(sa.select(ModelRow.id, ModelRow.name, said)):
        if most := set_here.get(name, by_card or 0):
            found[number] = (name, most)
    return found


def _asks(limited: Mapping[int, tuple[str, int]], model: int, options: Mapping[str, Any] | None) -> Asks:
    """Of all versions that a job runs, those that have a limit: who runs before another model counts as much."""
    return dict(limited[number] for number in (model, *before_ids(options)) if number in limited)


def _line(unit: Unit, limited: Mapping[int, tuple[str, int]], before: JobRow | None = None) -> Iterable[InLine]:
    """Who would begin if the limits let them, the first first."""
    composed = sa.cast(JobRow.options, sa.Text).like('%"before"%')
    query = (
        sa.select(JobRow.id, JobRow.model_id, JobRow.options)
        .where(JobRow.state == JobState.QUEUED, JobRow.code.in_(_IN_LINE))
        .where(JobRow.not_before.is_(None) | (JobRow.not_before <= unit.now()))
        .where(JobRow.model_id.in_(limited) | composed)
        .order_by(*_TURN)
    )
    if before is not None:
        its_own = (before.priority.rank, sa.literal(before.created_at, JobRow.created_at.type), before.id)
        query = query.where(sa.tuple_(*_TURN) < sa.tuple_(*its_own))
    for job_id, *versions in unit.session.execute(query):
        if asks := _asks(limited, *versions):
            yield InLine(job_id, asks)


def _running(session: Session, limited: Mapping[int, tuple[str, int]]) -> Counter[str]:
    jobs = sa.select(JobRow.model_id, JobRow.options).where(JobRow.state == JobState.RUNNING)
    return Counter(name for row in session.execute(jobs) for name in _asks(limited, *row))


# ------------------------------------------------------------------------------------------- the administrator's


def model_limits(session: Session) -> dict[str, int]:
    """Those that an administrator set, by name; 0: none, whatever the card says."""
    return {row.name: row.at_once for row in session.scalars(sa.select(ModelLimitRow))}


def limit_model(unit: Unit, name: str, at_once: int | None) -> int | None:
    """Sets it, or with None takes it away: then the card decides. What it was. Raises NotFound."""
    if unit.session.scalar(sa.select(ModelRow.id).where(ModelRow.name == name).limit(1)) is None:
        raise NotFound(f"there is no model {name}; those there are: dicomnode models list")
    unit.alone_with(ModelLimitRow)
    row = unit.session.get(ModelLimitRow, name)
    before = None if row is None else row.at_once
    if at_once is None and row is not None:
        unit.session.delete(row)
    elif at_once is not None and row is None:
        unit.session.add(ModelLimitRow(name=name, at_once=at_once))
    elif at_once is not None and row is not None:
        row.at_once = at_once
    unit.session.flush()
    _wake(unit, _limited(unit.session))
    return before
