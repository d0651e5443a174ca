"""What senders asked us to commit to: kept until they were told, so that a restart forgets nobody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import database_now
from dicomnode.adapters.db.senders import sources
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import CommitmentWishRow, DestinationRow, InstanceRow
from dicomnode.domain.commitment_wish import TOLD_ELSEWHERE_AFTER_S, CommitmentWish, tell_pause_s
from dicomnode.domain.destination import DimseAddress, parse_dimse
from dicomnode.domain.proof import Reference
from dicomnode.errors import AlreadyExists
from dicomnode.ports import StoredFile

_KEEP = timedelta(days=30)
_ASKED_AT_ONCE = 500  # UIDs in one query


def record_wish(
    unit: Unit, calling_ae_title: str, called_ae_title: str, transaction_uid: str, references: Sequence[Reference]
) -> None:
    """The same again is harmless. Raises AlreadyExists for another wish under that Transaction UID."""
    items = [[r.sop_class_uid, r.sop_instance_uid] for r in references]
    known = _find(unit.session, calling_ae_title, transaction_uid)
    if known is not None:
        if known.items != items:
            raise AlreadyExists("the Transaction UID is in use")
        return
    now = unit.now()
    unit.session.execute(sa.delete(CommitmentWishRow).where(CommitmentWishRow.asked_at < now - _KEEP))
    unit.session.add(
        CommitmentWishRow(
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            transaction_uid=transaction_uid,
            items=items,
            asked_at=now,
            next_at=now + timedelta(seconds=TOLD_ELSEWHERE_AFTER_S),
            tries=0,
        )
    )


def _find(session: Session, calling_ae_title: str, transaction_uid: str) -> CommitmentWishRow | None:
    return session.scalar(
        sa.select(CommitmentWishRow).where(
            CommitmentWishRow.calling_ae_title == calling_ae_title,
            CommitmentWishRow.transaction_uid == transaction_uid,
        )
    )


def open_wish(session: Session, calling_ae_title: str, transaction_uid: str) -> CommitmentWish | None:
    """None once its sender was told, or given up."""
    row = _find(session, calling_ae_title, transaction_uid)
    return None if row is None or row.next_at is None else _wish(session, row)


def is_any_due(session: Session) -> bool:
    due = sa.select(CommitmentWishRow.id).where(CommitmentWishRow.next_at <= database_now()).limit(1)
    return session.scalar(due) is not None


def wishes_due(unit: Unit) -> list[CommitmentWish]:
    """Those whose senders are to be told now; nobody else gets them before their next time."""
    now = unit.now()
    query = sa.select(CommitmentWishRow).where(CommitmentWishRow.next_at <= now).order_by(CommitmentWishRow.id)
    found = []
    for row in unit.session.scalars(query.limit(20).with_for_update(skip_locked=True)).all():
        pause_s = tell_pause_s(row.tries, (now - row.asked_at).total_seconds())
        if pause_s is None:
            row.next_at, row.words = None, f"given up: {row.words}"
            unit.tell("commitment.untold", f"{row.calling_ae_title} could not be told what is kept: {row.words}")
            continue
        found.append(_wish(unit.session, row))
        row.tries, row.next_at = row.tries + 1, now + timedelta(seconds=pause_s)
    return found


def wish_told(unit: Unit, calling_ae_title: str, transaction_uid: str, words: str) -> None:
    row = _find(unit.session, calling_ae_title, transaction_uid)
    if row is not None and row.next_at is not None:
        row.next_at, row.words = None, words
        unit.tell("commitment.told", f"{calling_ae_title} was told what is kept of what it sent: {words}")


def wish_put_off(unit: Unit, calling_ae_title: str, transaction_uid: str, words: str) -> None:
    row = _find(unit.session, calling_ae_title, transaction_uid)
    if row is not None and row.next_at is not None:
        row.words = words


def _wish(session: Session, row: CommitmentWishRow) -> CommitmentWish:
    references = tuple(Reference(sop_class, instance) for sop_class, instance in row.items)
    return CommitmentWish(
        row.calling_ae_title,
        row.called_ae_title,
        row.transaction_uid,
        references,
        row.asked_at,
        row.tries,
        _address(session, row.calling_ae_title),
    )


def _address(session: Session, ae_title: str) -> DimseAddress | None:
    """Where the sender listens: as its settings say, or as a destination of that AE title has it."""
    source = next((one for one in sources(session) if one.ae_title == ae_title), None)
    if source is not None and source.report is not None:
        return source.report
    query = sa.select(DestinationRow.address).where(DestinationRow.in_force, DestinationRow.kind == "dimse")
    known = (parse_dimse(address) for address in session.scalars(query.order_by(DestinationRow.id)))
    return next((address for address in known if address.ae_title == ae_title), None)


def instances_in_use(session: Session, uids: Sequence[str]) -> dict[str, tuple[str, StoredFile]]:
    """SOP Instance UID → SOP Class UID and file of what is indexed."""
    found: dict[str, tuple[str, StoredFile]] = {}
    for start in range(0, len(uids), _ASKED_AT_ONCE):
        part = uids[start : start + _ASKED_AT_ONCE]
        query = sa.select(InstanceRow).where(InstanceRow.in_use, InstanceRow.sop_instance_uid.in_(part))
        for row in session.scalars(query):
            file = StoredFile(row.path, row.size_bytes, row.sha256)
            found[row.sop_instance_uid] = (row.sop_class_uid, file)
    return found


def age_s(session: Session, since: datetime) -> float:
    """By the database's clock."""
    now: datetime | None = session.scalar(sa.select(database_now()))
    assert now is not None
    return (now - since).total_seconds()
