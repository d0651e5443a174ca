"""Proof of deliveries: whom to ask now, under which Transaction UID, and what becomes of the answers."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import database_now
from dicomnode.adapters.db.deliveries import destination_of, give_up_sent, send_again, tell_delivery
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import CommitmentRow, DeliveryRow, DestinationRow
from dicomnode.domain.delivery_options import Wish
from dicomnode.domain.job import ARRIVED_DELIVERY_STATES, DeliveryEvent, DeliveryState, next_delivery_state
from dicomnode.domain.proof import (
    LOST_MOST,
    PROOF_UNSUPPORTED_S,
    ProofAnswer,
    Reference,
    Shortfall,
    ask_pause_s,
    commitment_shortfall,
    search_shortfall,
)
from dicomnode.ports import ProofWork

_AT_ONCE_MOST = 100  # objects in one request
_KEEP_ASKED = timedelta(days=7)


def proofs_due(unit: Unit, but: Collection[str]) -> list[ProofWork]:
    """One request a destination for what is to be asked about now; each is asked again later if nobody answers.

    Not of destinations that are away, nor of those named in `but`.
    """
    now = unit.now()
    found: list[ProofWork] = []
    for destination, rows in _by_destination(_due(unit, now, but)):
        if not destination.in_force:
            _stop_asking(rows, "not asked: its destination was removed or has another address now")
            continue
        asked = [row for row in rows[:_AT_ONCE_MOST] if _claim(unit, row, now)]
        if asked:
            found.append(_work(unit, destination, asked, now))
    if found:
        unit.session.execute(sa.delete(CommitmentRow).where(CommitmentRow.asked_at < now - _KEEP_ASKED))
    return found


def is_any_due(session: Session) -> bool:
    """Asked each second: with the partial index, and without a write lock."""
    query = (
        sa.select(DeliveryRow.id)
        .join(DestinationRow, DeliveryRow.destination_id == DestinationRow.id)
        .where(DeliveryRow.ask_at.is_not(None), DeliveryRow.ask_at <= database_now())
        .where(DestinationRow.down_since.is_(None))
    )
    return session.scalar(query.limit(1)) is not None


def _due(unit: Unit, now: datetime, but: Collection[str]) -> list[DeliveryRow]:
    query = (
        sa.select(DeliveryRow)
        .join(DestinationRow, DeliveryRow.destination_id == DestinationRow.id)
        .where(DeliveryRow.ask_at.is_not(None), DeliveryRow.ask_at <= now, DestinationRow.down_since.is_(None))
        .where(DestinationRow.name.not_in(but))
    )
    locked = (
        query.order_by(DeliveryRow.id).limit(20 * _AT_ONCE_MOST).with_for_update(of=DeliveryRow, skip_locked=True)
    )
    return list(unit.session.scalars(locked))


def _by_destination(rows: Sequence[DeliveryRow]) -> Iterator[tuple[DestinationRow, list[DeliveryRow]]]:
    found: dict[int, list[DeliveryRow]] = {}
    for row in rows:
        found.setdefault(row.destination_id, []).append(row)
    for each in found.values():
        yield each[0].destination, each


def _claim(unit: Unit, row: DeliveryRow, now: datetime) -> bool:
    """The next time it is asked for, should nobody answer; False when it is not asked for any more."""
    if row.state not in ARRIVED_DELIVERY_STATES or row.delivered_at is None:
        row.ask_at = None
        return False
    age_s = (now - row.delivered_at).total_seconds()
    pause_s = ask_pause_s(row.destination.kind, row.asks + 1, age_s)
    if pause_s is None:
        row.ask_at = None
        row.proof_words = f"asked {row.asks} times in 72 hours without an answer; {row.proof_words}".rstrip("; ")
        tell_delivery(unit, row, "delivery.unproven", f"stays {row.state}: {row.proof_words}")
        return False
    row.asks, row.ask_at = row.asks + 1, now + timedelta(seconds=pause_s)
    return True


def _work(unit: Unit, destination: DestinationRow, rows: Sequence[DeliveryRow], now: datetime) -> ProofWork:
    transaction_uid = f"2.25.{uuid.uuid4().int}"  # PS3.5 B.2
    items = {row.result.sop_instance_uid: row.id for row in rows}
    unit.session.add(
        CommitmentRow(transaction_uid=transaction_uid, destination_id=destination.id, items=items, asked_at=now)
    )
    return ProofWork(transaction_uid, destination_of(destination), tuple(map(_reference, rows)))


def _reference(row: DeliveryRow) -> Reference:
    result = row.result
    study = result.job.series.study.study_instance_uid
    return Reference(result.sop_class_uid, result.sop_instance_uid, result.series_instance_uid, study)


def _stop_asking(rows: Sequence[DeliveryRow], words: str) -> None:
    for row in rows:
        row.ask_at, row.proof_words = None, words


# ------------------------------------------------------------------------------------------------- what came of it


def proof_answered(unit: Unit, transaction_uid: str, answer: ProofAnswer) -> bool:
    """False when there is no such transaction; what is answered about that was not asked for is not believed."""
    request = _request(unit, transaction_uid)
    if request is None:
        return False
    request.answered_at = unit.now()
    for row in _rows(unit, request):
        uid = row.result.sop_instance_uid
        if uid in answer.failed:
            _failed(unit, row, answer.failed[uid], answer)
        elif uid in answer.proven:
            _proven(unit, row, answer)
    return True


def proof_put_off(unit: Unit, transaction_uid: str, words: str) -> None:
    """There is no answer yet, or it could not be asked now: it is asked again at the time that was set."""
    request = _request(unit, transaction_uid)
    for row in _rows(unit, request) if request is not None else ():
        if row.state is DeliveryState.SENT and row.ask_at is not None:
            row.proof_words = words


def proof_unsupported(unit: Unit, transaction_uid: str, words: str) -> None:
    """It cannot answer: what was sent stays sent, with the reason. Where proof is demanded it is asked again."""
    request = _request(unit, transaction_uid)
    if request is None:
        return
    destination = unit.session.get_one(DestinationRow, request.destination_id)
    options = destination_of(destination).options
    wish = options.commitment if destination.kind == "dimse" else options.verify
    if wish is Wish.YES:
        proof_put_off(unit, transaction_uid, words)
        return
    _stop_asking(_rows(unit, request), words)
    destination.unprovable_until = unit.now() + timedelta(seconds=PROOF_UNSUPPORTED_S)
    destination.unprovable_words = words


def _request(unit: Unit, transaction_uid: str) -> CommitmentRow | None:
    query = sa.select(CommitmentRow).where(CommitmentRow.transaction_uid == transaction_uid)
    return unit.session.scalar(query.with_for_update())


def _rows(unit: Unit, request: CommitmentRow) -> list[DeliveryRow]:
    """Those that are still where the request found them, locked."""
    query = sa.select(DeliveryRow).where(
        DeliveryRow.id.in_(request.items.values()),
        DeliveryRow.destination_id == request.destination_id,
        DeliveryRow.state.in_(ARRIVED_DELIVERY_STATES),
        DeliveryRow.delivered_at <= request.asked_at,  # not sent again since
    )
    return list(unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)))


def _proven(unit: Unit, row: DeliveryRow, answer: ProofAnswer) -> None:
    state = DeliveryState.COMMITTED if answer.committed else DeliveryState.ACCEPTED
    row.ask_at = None
    if row.state is state or row.state is DeliveryState.COMMITTED:
        return
    row.state = next_delivery_state(row.state, DeliveryEvent.COMMIT if answer.committed else DeliveryEvent.ACCEPT)
    row.proven_at, row.proof_words, row.losses = unit.now(), answer.words, 0
    tell_delivery(unit, row, f"delivery.{state}", f"{state}: {answer.words}")


def _failed(unit: Unit, row: DeliveryRow, reason: int, answer: ProofAnswer) -> None:
    if row.state is not DeliveryState.SENT:
        return  # an older request is answered late
    shortfall, said = commitment_shortfall(reason)
    words = f"{row.destination.name} does not commit to it: {said}"
    if not answer.committed:
        shortfall, words = search_shortfall(row.asks), answer.words
    match shortfall:
        case Shortfall.ASK_AGAIN:
            row.proof_words = words
        case Shortfall.TELL:
            row.ask_at, row.proof_words = None, words
            tell_delivery(unit, row, "delivery.unproven", f"stays sent: {words}")
        case Shortfall.SEND_AGAIN:
            _lost(unit, row, words, sure=answer.committed)


def _lost(unit: Unit, row: DeliveryRow, words: str, sure: bool) -> None:
    """Sent again, some times. A search may be of another archive than what stores: alone it fails nothing."""
    row.losses, row.proof_words = row.losses + 1, words
    wish = destination_of(row.destination).options.verify
    if row.losses <= LOST_MOST:
        send_again(unit, row, words)
    elif sure or wish is Wish.YES:
        give_up_sent(unit, row, f"sent {row.losses} times, and each time said to be stored; {words}")
    else:
        row.ask_at = None
        tell_delivery(unit, row, "delivery.unproven", f"stays sent: {words}, {row.losses} times")
