"""Destinations, and what becomes of the deliveries on their way when one is changed, removed or added again."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db import deliveries
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import DeliveryRow, DestinationRow
from dicomnode.domain.delivery_options import as_document
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import OPEN_DELIVERY_STATES
from dicomnode.errors import AlreadyExists, NotFound


def destinations(session: Session) -> list[Destination]:
    query = sa.select(DestinationRow).where(DestinationRow.in_force).order_by(DestinationRow.name)
    return [deliveries.destination_of(row) for row in session.scalars(query)]


def deliveries_on_their_way(session: Session) -> dict[str, int]:
    """How many wait for, or are being sent to, each destination that has any."""
    query = (
        sa.select(DestinationRow.name, sa.func.count())
        .join(DeliveryRow, DeliveryRow.destination_id == DestinationRow.id)
        .where(DeliveryRow.state.in_(OPEN_DELIVERY_STATES))
        .group_by(DestinationRow.name)
    )
    return dict(session.execute(query).all())


def add_destination(unit: Unit, destination: Destination, replace: bool) -> int:
    """How many deliveries on their way go to the new address. Raises AlreadyExists."""
    unit.alone_with(DestinationRow)
    before = deliveries.destination_in_force(unit, destination.name)
    if before is None:
        _put(unit, destination)
        unit.tell("destination.added", f"Destination {destination.name} is {destination.shown}")
        return 0
    if not replace:
        was = deliveries.destination_of(before).shown
        raise AlreadyExists(f"there is a destination {before.name} already, {was}; --replace changes its address")
    known = deliveries.destination_of(before)
    if known == destination:
        return 0
    if known.address == destination.address:
        _set_options(unit, before, destination)
        return 0
    return _replace(unit, before, destination)


def _put(unit: Unit, destination: Destination) -> DestinationRow:
    row = DestinationRow(
        name=destination.name,
        kind=destination.kind,
        address=str(destination.address),
        in_force=True,
        created_at=unit.now(),
        options=as_document(destination.options),
    )
    unit.session.add(row)
    unit.session.flush()
    return row


def _set_options(unit: Unit, row: DestinationRow, destination: Destination) -> None:
    """What is known of it goes with its old options: it may be able to prove now."""
    row.options, row.unprovable_until, row.unprovable_words = as_document(destination.options), None, ""
    unit.tell("destination.changed", f"Destination {destination.name} has other options now")


def _replace(unit: Unit, before: DestinationRow, destination: Destination) -> int:
    """The old row stays for the story of what was sent there; what is being sent this moment ends there."""
    was = deliveries.destination_of(before).shown
    before.in_force = False
    unit.session.flush()  # at most one is in force, in between too
    after = _put(unit, destination)
    waiting = [row for row in _on_their_way(unit, before) if row.state in deliveries.NOT_YET_SENT]
    for row in waiting:
        deliveries.move_delivery(unit, row, after)
    unit.tell("destination.changed", f"Destination {destination.name} is {destination.shown}, before {was}")
    return len(waiting)


def remove_destination(unit: Unit, name: str) -> int:
    """How many deliveries were cancelled. Raises NotFound."""
    unit.alone_with(DestinationRow)
    row = deliveries.destination_in_force(unit, name)
    if row is None:
        raise NotFound(f"there is no destination {name}")
    row.in_force = False
    cancelled = _on_their_way(unit, row)
    for delivery in cancelled:
        deliveries.cancel_delivery(unit, delivery, "its destination was removed")
    unit.tell("destination.removed", f"Destination {name} was removed")
    return len(cancelled)


def _on_their_way(unit: Unit, row: DestinationRow) -> list[DeliveryRow]:
    """Locked, in the order of their ids, as by every process; those of earlier addresses of that name too."""
    named = sa.select(DestinationRow.id).where(DestinationRow.name == row.name)
    query = sa.select(DeliveryRow).where(
        DeliveryRow.destination_id.in_(named), DeliveryRow.state.in_(OPEN_DELIVERY_STATES)
    )
    return list(unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)))
