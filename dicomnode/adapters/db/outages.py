"""Destinations that are away: what is known of it, and that it began and ended."""

from __future__ import annotations

import logging
from datetime import datetime

import sqlalchemy as sa

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import DeliveryRow, DestinationRow
from dicomnode.domain import outage
from dicomnode.domain.job import OPEN_DELIVERY_STATES
from dicomnode.domain.outage import Health, Turn
from dicomnode.domain.quantity import quantity

log = logging.getLogger(__name__)

# A destination that stumbles is no news; one that is gone is away for three attempts
TOLD_AFTER = 3


def health_of(row: DestinationRow) -> Health:
    return Health(row.down_since, row.failures, row.probe_at, row.down_words)


def turn_of(unit: Unit, row: DestinationRow) -> Turn:
    """What a delivery to it does now. One that is to probe has the turn from here on."""
    if row.down_since is None:
        return Turn.SEND
    _lock(unit, row)
    now, health = unit.now(), health_of(row)
    turn = outage.turn(health, now)
    if turn is Turn.PROBE:
        _put(row, outage.probing(health, now))
    return turn


def look_now(unit: Unit, row: DestinationRow) -> None:
    """The next delivery that starts looks whether it is back: the administrator does not want to wait."""
    if row.down_since is not None:
        _lock(unit, row)
        row.probe_at = unit.now() if row.down_since is not None else None


def parked_s(row: DestinationRow, now: datetime) -> float:
    return outage.parked_s(health_of(row), now)


def probe_in_s(row: DestinationRow, now: datetime) -> float:
    assert row.probe_at is not None
    return max(0.0, (row.probe_at - now).total_seconds())


def is_away(unit: Unit, row: DestinationRow, words: str) -> None:
    _lock(unit, row)
    _put(row, outage.after_failure(health_of(row), unit.now(), words))
    if row.failures == TOLD_AFTER:
        waiting = quantity(_open_deliveries(unit, row), "delivery", "deliveries")
        message = f"{row.name} is away: {words}; {waiting} on the way wait until it is back"
        log.warning("%s", message)
        unit.tell("destination.down", message, detail={"destination": row.name})


def answers(unit: Unit, row: DestinationRow) -> bool:
    """True when it was away until now."""
    if row.down_since is None:
        return False
    _lock(unit, row)
    was = health_of(row)
    if was.down_since is None:
        return False
    _put(row, Health())
    if was.failures >= TOLD_AFTER:
        waiting = quantity(_open_deliveries(unit, row), "delivery", "deliveries")
        message = f"{row.name} answers again after {outage.lasted(was, unit.now())}; {waiting} on the way"
        log.info("%s", message)
        unit.tell("destination.recovered", message, detail={"destination": row.name})
    return True


def _open_deliveries(unit: Unit, row: DestinationRow) -> int:
    query = sa.select(sa.func.count()).where(
        DeliveryRow.destination_id == row.id, DeliveryRow.state.in_(OPEN_DELIVERY_STATES)
    )
    return unit.session.scalar(query) or 0


def _lock(unit: Unit, row: DestinationRow) -> None:
    """And what other processes wrote of it meanwhile."""
    unit.session.flush()
    unit.session.refresh(row, with_for_update=True)


def _put(row: DestinationRow, health: Health) -> None:
    row.down_since, row.failures = health.down_since, health.failures
    row.probe_at, row.down_words = health.probe_at, health.words
