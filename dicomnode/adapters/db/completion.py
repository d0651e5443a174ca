"""The moment at which a series, or a study, counts as complete, and what is left over when a process dies then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from dicomnode.adapters.db.columns import database_now
from dicomnode.adapters.db.receive import load_series, locked_series, name_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.signs import (
    association_ended,
    associations_lost,
    own_series,
    places,
    receiving_series,
    receiving_studies,
    record_count,
)
from dicomnode.adapters.db.tables import InstanceRow, SeriesRow, StudyRow
from dicomnode.domain.completeness import Verdict
from dicomnode.domain.quantity import quantity
from dicomnode.domain.study import Series, SeriesState, StudyState

__all__ = [
    "association_ended",
    "associations_lost",
    "complete_series",
    "complete_study",
    "complete_unrouted",
    "complete_unrouted_studies",
    "own_series",
    "places",
    "quiet_series",
    "receiving_series",
    "receiving_studies",
    "record_count",
]


def quiet_series(session: Session, quiet_period_s: float, most: int) -> list[str]:
    quiet_since = session.scalars(sa.select(database_now())).one() - timedelta(seconds=quiet_period_s)
    query = (
        sa.select(SeriesRow.series_instance_uid)
        .where(SeriesRow.state == SeriesState.RECEIVING, SeriesRow.last_received_at <= quiet_since)
        .order_by(SeriesRow.last_received_at)
        .limit(most)
    )
    return list(session.scalars(query))


def complete_series(
    unit: Unit, series_instance_uid: str, quiet_period_s: float, verdict: Verdict | None = None
) -> Series | None:
    row = locked_series(unit, series_instance_uid)
    now = unit.now()
    if row is None or row.state is not SeriesState.RECEIVING:
        return None
    if row.last_received_at > now - timedelta(seconds=quiet_period_s):
        return None
    if verdict is not None and _instances_of(unit.session, row) != verdict.instances:
        return None
    row.state, row.generation, row.completed_at = SeriesState.COMPLETE, row.generation + 1, now
    series = load_series(unit.session, row)
    words = f"The {name_of(row)} is complete{_again(row.generation)}: {quantity(len(series.instances), 'instance')}"
    unit.tell(
        "series.complete",
        f"{words}; {verdict.words}" if verdict else words,
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series_instance_uid,
        detail=_detail(len(series.instances), row.generation, verdict),
    )
    return series


def _instances_of(session: Session, series: SeriesRow) -> int:
    query = sa.select(sa.func.count()).where(InstanceRow.series_id == series.id, InstanceRow.in_use)
    return session.scalars(query).one()


def _again(generation: int) -> str:
    return " again" if generation > 1 else ""


def _detail(instances: int, generation: int, verdict: Verdict | None) -> dict[str, Any]:
    detail: dict[str, Any] = {"instances": instances, "generation": generation}
    if verdict is not None:
        detail |= {"signal": str(verdict.signal), "signs": dict(verdict.signs)}
    return detail


def complete_unrouted(session: Session, older_than_s: float = 0.0) -> list[Series]:
    left = _left_over(session, SeriesRow.completed_at, older_than_s)
    query = sa.select(SeriesRow).where(SeriesRow.state == SeriesState.COMPLETE, left)
    return [load_series(session, row) for row in session.scalars(query.order_by(SeriesRow.last_received_at)).all()]


def _left_over(
    session: Session, completed_at: InstrumentedAttribute[datetime | None], older_than_s: float
) -> sa.ColumnElement[bool]:
    """Of what is complete without a time nobody is at the routing: an administrator asked for it."""
    if older_than_s <= 0:
        return sa.true()
    since = session.scalars(sa.select(database_now())).one() - timedelta(seconds=older_than_s)
    return sa.or_(completed_at.is_(None), completed_at <= since)


def complete_study(unit: Unit, study_instance_uid: str, verdict: Verdict) -> int | None:
    """Who records images locks the study too: an image is either counted here or finds the study complete."""
    query = sa.select(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid)
    query = query.with_for_update(key_share=True)
    row = unit.session.scalars(query).one_or_none()
    if row is None or row.state is not StudyState.RECEIVING:
        return None
    series = dict(_instances_by_state(unit.session, row))
    received = {state: n for state, n in series.items() if state is not SeriesState.OWN_RESULT}
    if received.keys() & {SeriesState.RECEIVING, SeriesState.COMPLETE} or sum(received.values()) != verdict.instances:
        return None
    row.state, row.generation, row.completed_at = StudyState.COMPLETE, row.generation + 1, unit.now()
    unit.tell(
        "study.complete",
        f"The study is complete{_again(row.generation)}: {quantity(verdict.instances, 'instance')}; {verdict.words}",
        study_instance_uid=study_instance_uid,
        detail=_detail(verdict.instances, row.generation, verdict),
    )
    return row.generation


def _instances_by_state(session: Session, study: StudyRow) -> list[tuple[SeriesState, int]]:
    query = (
        sa.select(SeriesRow.state, sa.func.count(InstanceRow.id))
        .join(InstanceRow, sa.and_(InstanceRow.series_id == SeriesRow.id, InstanceRow.in_use), isouter=True)
        .where(SeriesRow.study_id == study.id)
        .group_by(SeriesRow.state)
    )
    return [(state, number) for state, number in session.execute(query)]


def complete_unrouted_studies(session: Session, older_than_s: float = 0.0) -> list[tuple[str, int]]:
    left = _left_over(session, StudyRow.completed_at, older_than_s)
    query = sa.select(StudyRow.study_instance_uid, StudyRow.generation).where(StudyRow.state == StudyState.COMPLETE)
    return [
        (uid, generation) for uid, generation in session.execute(query.where(left).order_by(StudyRow.completed_at))
    ]
