"""Heartbeats of the processes that run jobs."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import database_now
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import ExecutorRow
from dicomnode.ports import Executor, Pulse


def beat(unit: Unit, executor: Executor) -> None:
    unit.session.merge(
        ExecutorRow(
            id=executor.id,
            host=executor.host,
            pid=executor.pid,
            pid_started=executor.pid_started,
            beat_at=unit.now(),
        )
    )


def forget(unit: Unit, executor_id: str) -> None:
    unit.session.execute(sa.delete(ExecutorRow).where(ExecutorRow.id == executor_id))


def pulses(session: Session) -> list[Pulse]:
    now = session.scalars(sa.select(database_now())).one()
    return [
        Pulse(Executor(row.id, row.host, row.pid, row.pid_started), (now - row.beat_at).total_seconds())
        for row in session.scalars(sa.select(ExecutorRow).order_by(ExecutorRow.id))
    ]
