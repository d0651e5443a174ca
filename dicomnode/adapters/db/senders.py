"""What senders announce, and what they may send."""

from __future__ import annotations

from sqlalchemy.orm import Session

from dicomnode.adapters.db.session import Unit
from dicomnode.domain.announcement import Announcement
from dicomnode.domain.source import Source


def record_announcement(unit: Unit, announcement: Announcement) -> None:
    raise NotImplementedError


def announcement(session: Session, sop_instance_uid: str) -> Announcement | None:
    raise NotImplementedError


def sources(session: Session) -> list[Source]:
    raise NotImplementedError


def put_source(unit: Unit, source: Source) -> None:
    raise NotImplementedError


def remove_source(unit: Unit, ae_title: str) -> None:
    raise NotImplementedError
