"""Signs of completeness, and the moment at which a series, or a study, counts as complete."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import database_now
from dicomnode.adapters.db.receive import load_series, locked_series, name_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import SeriesRow
from dicomnode.domain.completeness import Place, SeriesSigns, StudySigns, Verdict
from dicomnode.domain.study import Series, SeriesState


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
    row.state, row.generation, row.completed_at = SeriesState.COMPLETE, row.generation + 1, now
    series = load_series(unit.session, row)
    again = f", for the {row.generation}th time" if row.generation > 1 else ""
    count = len(series.instances)
    unit.tell(
        "series.complete",
        f"The {name_of(row)} is complete{again}: {count} instance{'s' if count != 1 else ''}",
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series_instance_uid,
        detail={"instances": count, "generation": row.generation},
    )
    return series


def complete_unrouted(session: Session) -> list[Series]:
    query = sa.select(SeriesRow).where(SeriesRow.state == SeriesState.COMPLETE).order_by(SeriesRow.last_received_at)
    return [load_series(session, row) for row in session.scalars(query).all()]


def association_ended(unit: Unit, association: str, how: str) -> None:
    raise NotImplementedError


def associations_lost(unit: Unit, receiver: str, but: str) -> None:
    raise NotImplementedError


def receiving_series(session: Session, most: int) -> list[SeriesSigns]:
    raise NotImplementedError


def places(session: Session, series_instance_uid: str) -> list[Place]:
    raise NotImplementedError


def record_count(unit: Unit, series_instance_uid: str, instances: int, source: str) -> None:
    raise NotImplementedError


def receiving_studies(session: Session, most: int) -> list[StudySigns]:
    raise NotImplementedError


def complete_study(unit: Unit, study_instance_uid: str, verdict: Verdict) -> int | None:
    raise NotImplementedError


def complete_unrouted_studies(session: Session) -> list[tuple[str, int]]:
    raise NotImplementedError
