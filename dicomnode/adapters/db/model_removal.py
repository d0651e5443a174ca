"""Taking a version out of the registry: of what jobs ran, the row stays, since their results name it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.models import found_row, model_of, models_in_use, named_by_rules, record_change
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import JobRow, ModelRow, ResultRow
from dicomnode.domain.job import ACTIVE_JOB_STATES
from dicomnode.domain.model_change import ModelChangeKind
from dicomnode.domain.quantity import quantity
from dicomnode.errors import IllegalTransition
from dicomnode.ports import ModelVersion

_NAMED_MOST = 3


def remove_model(unit: Unit, name: str, version: str, files_only: bool, author: str, reason: str) -> ModelVersion:
    """As it was; its files are to be removed by whoever asked. Raises NotFound, IllegalTransition."""
    row = found_row(unit, name, version)
    _refuse_while_used(unit.session, row)
    before = model_of(row)
    told = _told(unit.session, row)
    if told and not files_only:
        raise IllegalTransition(
            f"{told} {name} {version}, and name it; --files-only removes its files and leaves what they say"
        )
    record_change(unit, row, ModelChangeKind.REMOVED, author, reason)
    if told or files_only:
        row.path = ""
    else:
        unit.session.delete(row)
    unit.session.flush()
    return before


def _refuse_while_used(session: Session, row: ModelRow) -> None:
    model = f"{row.name} {row.version}"
    if row.active:
        remedy = f"activate another version or dicomnode models deactivate {row.name} first"
        raise IllegalTransition(f"{model} is active: {remedy}")
    if row.shadow:
        raise IllegalTransition(f"{model} is a shadow: dicomnode models shadow {row.name} --off first")
    if (row.name, row.version) in named_by_rules(session):
        raise IllegalTransition(f"a rule in force asks for {model} by its version: change or remove that first")
    query = sa.select(JobRow.id).where(JobRow.model_id == row.id, JobRow.state.in_(ACTIVE_JOB_STATES))
    if jobs := session.scalars(query.order_by(JobRow.id)).all():
        named = ", ".join(jobs[:_NAMED_MOST]) + (" and more" if len(jobs) > _NAMED_MOST else "")
        raise IllegalTransition(
            f"jobs of {model} wait or run: {named}; let them end, or dicomnode jobs cancel {jobs[0]}"
        )
    if row.id in {used.id for used in models_in_use(session)}:
        raise IllegalTransition(f"{model} comes before another model that is in use: deactivate that first")


def _told(session: Session, row: ModelRow) -> str:
    """What refers to it, in words; "" when nothing does."""
    jobs = session.scalar(sa.select(sa.func.count()).select_from(JobRow).where(JobRow.model_id == row.id)) or 0
    of_them = sa.select(sa.func.count()).select_from(ResultRow).join(JobRow, ResultRow.job_id == JobRow.id)
    results = session.scalar(of_them.where(JobRow.model_id == row.id)) or 0
    return f"{quantity(jobs, 'job')} with {quantity(results, 'result')} ran" if jobs else ""
