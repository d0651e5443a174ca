"""Results that a rule no longer wants, now that more of the study came: what was not sent yet stays here."""

from __future__ import annotations

import sqlalchemy as sa

from dicomnode.adapters.db.deliveries import NOT_YET_SENT, cancel_delivery, destination_in_force, retry_delivery
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import DeliveryRow, JobRow, ResultRow
from dicomnode.domain.job import ARRIVED_DELIVERY_STATES, DeliveryState

_WORDS = "the study changed, and the rule decides otherwise now"


def withdraw(unit: Unit, job: JobRow) -> str:
    """Cancels what waits of a job's results; in words what became of them, "" when there is nothing to tell."""
    rows = _deliveries(unit, job)
    waiting = [row for row in rows if row.state in NOT_YET_SENT]
    for row in waiting:
        cancel_delivery(unit, row, _WORDS)
    sent = sorted({row.destination.name for row in rows if row.state in ARRIVED_DELIVERY_STATES})
    if not waiting and (not sent or any(_is_ours(row) for row in rows)):
        return ""
    stays = f"what was sent before stays at {', '.join(sent)}: remove it there if it misleads" if sent else ""
    held = f"{len(waiting)} that waited to be sent stay here" if waiting else ""
    return f"its results are no longer wanted, since {_WORDS}; " + "; ".join(filter(None, [held, stays]))


def restore(unit: Unit, job: JobRow) -> None:
    """What `withdraw` cancelled is sent after all: the study changed back."""
    for row in _deliveries(unit, job):
        if _is_ours(row) and destination_in_force(unit, row.destination.name) is not None:
            retry_delivery(unit, row)


def _is_ours(row: DeliveryRow) -> bool:
    return row.state is DeliveryState.CANCELLED and row.reason == _WORDS


def _deliveries(unit: Unit, job: JobRow) -> list[DeliveryRow]:
    """Of what is in force of a job's results."""
    query = sa.select(DeliveryRow).join(ResultRow, DeliveryRow.result_id == ResultRow.id)
    query = query.where(ResultRow.job_id == job.id, ResultRow.superseded_by.is_(None))
    return list(unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)))
