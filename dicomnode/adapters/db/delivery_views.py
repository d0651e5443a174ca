"""Deliveries as people see them, and what an administrator does to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from dicomnode.adapters.db.deliveries import (
    DUE_S,
    cancel_delivery,
    destination_of,
    locked_delivery,
    retry_delivery,
)
from dicomnode.adapters.db.outages import health_of
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import DeliveryRow, DestinationRow, JobRow, ResultRow, SeriesRow, StudyRow
from dicomnode.domain.destination import parse_address, without_password
from dicomnode.domain.job import DeliveryState
from dicomnode.errors import Ambiguous, IllegalTransition, NotFound
from dicomnode.ports import DeliveryChange, DeliveryFilter, DeliveryView, DestinationView

_LISTED_MOST = 10
_KNOWN = "those there are: dicomnode deliveries list"


def deliveries(session: Session, which: DeliveryFilter, most: int) -> list[DeliveryView]:
    """Newest first."""
    query = sa.select(DeliveryRow).join(ResultRow).join(JobRow).join(SeriesRow).join(StudyRow)
    query = query.join(DestinationRow, DeliveryRow.destination_id == DestinationRow.id).where(*_conditions(which))
    newest = query.order_by(DeliveryRow.since.desc(), DeliveryRow.id).limit(most)
    return [delivery_view(row) for row in session.scalars(_with_all(newest))]


def _conditions(which: DeliveryFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [DeliveryRow.state.in_(which.states)] if which.states else []
    for column, wanted in (
        (DestinationRow.name, which.destination),
        (DeliveryRow.failure, which.failure),
        (ResultRow.job_id, which.job_id),
        (StudyRow.study_instance_uid, which.study_instance_uid),
    ):
        if wanted:
            found.append(column == wanted)
    if which.since is not None:
        found.append(DeliveryRow.since >= which.since)
    if which.until is not None:
        found.append(DeliveryRow.since < which.until)
    return found


def _with_all(query: sa.Select[DeliveryRow]) -> sa.Select[DeliveryRow]:
    return query.options(
        joinedload(DeliveryRow.destination),
        joinedload(DeliveryRow.result)
        .joinedload(ResultRow.job)
        .joinedload(JobRow.series)
        .joinedload(SeriesRow.study),
    )


def _is_parked(row: DeliveryRow) -> bool:
    """Another delivery looks whether their destination is back, and that one wakes it."""
    probe_at, next_at = row.destination.probe_at, row.next_attempt_at
    if row.state is not DeliveryState.WAITING or row.destination.down_since is None:
        return False
    return probe_at is not None and next_at is not None and next_at > probe_at + timedelta(seconds=DUE_S)


def delivery_view(row: DeliveryRow) -> DeliveryView:
    return DeliveryView(
        delivery_id=row.id,
        job_id=row.result.job_id,
        destination=row.destination.name,
        kind=row.result.kind,
        sop_instance_uid=row.result.sop_instance_uid,
        state=row.state,
        attempts=row.attempts,
        reason=row.reason,
        next_attempt_at=row.next_attempt_at,
        delivered_at=row.delivered_at,
        failure=row.failure,
        proof=row.proof_words,
        proven_at=row.proven_at,
        ask_at=row.ask_at,
        study_instance_uid=row.result.job.series.study.study_instance_uid,
        size_bytes=row.result.size_bytes,
        address=without_password(str(parse_address(row.destination.kind, row.destination.address))),
        since=row.since,
        parked=_is_parked(row),
    )


def delivery(session: Session, key: str) -> DeliveryView:
    return delivery_view(find_delivery(session, key))


def find_delivery(session: Session, key: str) -> DeliveryRow:
    """By id or its unambiguous beginning; raises NotFound, or Ambiguous when several begin so."""
    beginning = DeliveryRow.id.startswith(key, autoescape=True)
    query = sa.select(DeliveryRow).where(beginning).order_by(DeliveryRow.id).limit(_LISTED_MOST + 1)
    found = session.scalars(query).all() if key else []
    if not found:
        raise NotFound(f"there is no delivery {key}; {_KNOWN}")
    if len(found) > 1 and found[0].id != key:
        raise Ambiguous(f"several deliveries begin with {key}; give more of the id:\n" + _candidates(found))
    return found[0]


def _candidates(rows: Sequence[DeliveryRow]) -> str:
    lines = [f"  {row.id}  {row.state}  {row.result.kind} to {row.destination.name}" for row in rows[:_LISTED_MOST]]
    return "\n".join([*lines, *(["  and more: dicomnode deliveries list"] * (len(rows) > _LISTED_MOST))])


def retry(unit: Unit, key: str) -> DeliveryChange:
    """At once, to the address that its destination has now; what was sent is sent again."""
    row = _locked(unit, key)
    before = delivery_view(row)
    if row.result.superseded_by:
        later = row.result.superseded_by
        raise IllegalTransition(f"a later job superseded this result: dicomnode jobs show {later}")
    if row.state is DeliveryState.QUEUED:
        raise IllegalTransition(f"delivery {row.id} is in the queue already")
    retry_delivery(unit, row)
    return _changed(unit, before, row)


def drop(unit: Unit, key: str, reason: str) -> DeliveryChange:
    row = _locked(unit, key)
    before = delivery_view(row)
    cancel_delivery(unit, row, "dropped by the administrator" + (f": {reason}" if reason else ""))
    return _changed(unit, before, row)


def _locked(unit: Unit, key: str) -> DeliveryRow:
    row = locked_delivery(unit, find_delivery(unit.session, key).id)
    if row is None:
        raise NotFound(f"there is no delivery {key}; {_KNOWN}")
    unit.session.refresh(row)
    return row


def _changed(unit: Unit, before: DeliveryView, row: DeliveryRow) -> DeliveryChange:
    unit.session.flush()
    return DeliveryChange(before, delivery_view(row))


def destination_views(session: Session) -> list[DestinationView]:
    rows = session.scalars(sa.select(DestinationRow).where(DestinationRow.in_force).order_by(DestinationRow.name))
    counted = sa.select(DestinationRow.name, DeliveryRow.state, sa.func.count()).join(
        DeliveryRow, DeliveryRow.destination_id == DestinationRow.id
    )
    states: dict[str, dict[str, int]] = {}
    for name, state, number in session.execute(counted.group_by(DestinationRow.name, DeliveryRow.state)):
        states.setdefault(name, {})[str(state)] = number
    return [
        DestinationView(
            destination_of(row),
            health_of(row),
            states.get(row.name, {}),
            row.unprovable_words if row.unprovable_until is not None else "",
        )
        for row in rows
    ]
