"""What senders announce, and what they may send."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import AnnouncedSeriesRow, AnnouncementRow, EventRow, SourceRow, StudyRow
from dicomnode.domain.announcement import (
    FINAL_STATES,
    AnnouncedSeries,
    Announcement,
    AnnouncementKind,
    AnnouncementState,
    said,
    studies_of,
)
from dicomnode.domain.source import Source, as_document, parse_source
from dicomnode.errors import IllegalTransition, NotFound
from dicomnode.ports import Event

UNFULFILLED_KEPT = timedelta(days=30)  # of an announcement none of whose images came


def record_announcement(unit: Unit, announcement: Announcement) -> None:
    """Raises IllegalTransition for one that may no longer be updated."""
    row = unit.session.scalar(_announcement(announcement.sop_instance_uid).with_for_update())
    if row is not None and row.state in FINAL_STATES:
        raise IllegalTransition(f"the procedure step {row.sop_instance_uid} is {row.state}: it stays as it is")
    changed = row is None or row.state != announcement.state
    now = unit.now()
    if row is None:
        _drop_unfulfilled(unit.session, now - UNFULFILLED_KEPT)
        row = AnnouncementRow(
            kind=str(announcement.kind), sop_instance_uid=announcement.sop_instance_uid, received_at=now
        )
        unit.session.add(row)
    row.calling_ae_title, row.state, row.changed_at = announcement.calling_ae_title, str(announcement.state), now
    row.document = dict(announcement.document)
    _replace_series(unit.session, row, [*announcement.series, *_whole_studies(announcement)])
    if changed:
        _tell(unit, announcement)


def _drop_unfulfilled(session: Session, before: datetime) -> None:
    """Announcements of studies of which nothing ever came: they name patients whom the node has not met."""
    came = (
        sa.select(AnnouncedSeriesRow.announcement_id)
        .join(StudyRow, StudyRow.study_instance_uid == AnnouncedSeriesRow.study_instance_uid)
        .where(AnnouncedSeriesRow.announcement_id == AnnouncementRow.id)
    )
    old = sa.select(AnnouncementRow.id).where(AnnouncementRow.changed_at < before, ~came.exists())
    if numbers := session.scalars(old).all():
        session.execute(sa.delete(AnnouncedSeriesRow).where(AnnouncedSeriesRow.announcement_id.in_(numbers)))
        session.execute(sa.delete(AnnouncementRow).where(AnnouncementRow.id.in_(numbers)))


def _announcement(sop_instance_uid: str) -> sa.Select[AnnouncementRow]:
    return sa.select(AnnouncementRow).where(AnnouncementRow.sop_instance_uid == sop_instance_uid)


def _replace_series(session: Session, row: AnnouncementRow, series: Sequence[AnnouncedSeries]) -> None:
    session.flush()
    session.execute(sa.delete(AnnouncedSeriesRow).where(AnnouncedSeriesRow.announcement_id == row.id))
    session.add_all(
        AnnouncedSeriesRow(
            announcement_id=row.id,
            study_instance_uid=one.study_instance_uid,
            series_instance_uid=one.series_instance_uid,
            sop_instance_uids=list(one.sop_instance_uids),
        )
        for one in series
    )


def _whole_studies(announcement: Announcement) -> list[AnnouncedSeries]:
    """By which an announcement is found that names no series yet, as an MPPS does in the beginning."""
    return [AnnouncedSeries(study, "", ()) for study in studies_of(announcement)]


def _tell(unit: Unit, announcement: Announcement) -> None:
    """In the story of each study that it is about, which may not have come yet."""
    line = said(announcement)
    for study in studies_of(announcement):
        unit.tell(line.kind, line.message, study_instance_uid=study, detail=dict(line.detail))


def announcement(session: Session, sop_instance_uid: str) -> Announcement | None:
    query = _announcement(sop_instance_uid).options(selectinload(AnnouncementRow.series))
    row = session.scalar(query)
    if row is None:
        return None
    return Announcement(
        kind=AnnouncementKind(row.kind),
        sop_instance_uid=row.sop_instance_uid,
        calling_ae_title=row.calling_ae_title,
        state=AnnouncementState(row.state),
        series=tuple(
            AnnouncedSeries(one.study_instance_uid, one.series_instance_uid, tuple(one.sop_instance_uids))
            for one in sorted(row.series, key=lambda one: one.id)
            if one.series_instance_uid
        ),
        document=row.document,
    )


def rejections(session: Session, most: int) -> list[Event]:
    """They are of no study, which the index finds."""
    query = sa.select(EventRow).where(EventRow.study_instance_uid == "", EventRow.kind.in_(_REJECTED))
    rows = session.scalars(query.order_by(EventRow.id.desc()).limit(most))
    return [Event(row.at, row.kind, row.message, detail=row.detail) for row in rows]


_REJECTED = ("association.rejected", "context.rejected")


def sources(session: Session) -> list[Source]:
    rows = session.scalars(sa.select(SourceRow).order_by(SourceRow.ae_title))
    return [parse_source(row.document) for row in rows]


def put_source(unit: Unit, source: Source) -> None:
    query = sa.select(SourceRow).where(SourceRow.ae_title == source.ae_title).with_for_update()
    row, now = unit.session.scalar(query), unit.now()
    if row is None:
        row = SourceRow(ae_title=source.ae_title)
        unit.session.add(row)
    row.document, row.changed_at = as_document(source), now


def remove_source(unit: Unit, ae_title: str) -> None:
    """Raises NotFound."""
    removed = unit.session.execute(
        sa.delete(SourceRow).where(SourceRow.ae_title == ae_title).returning(SourceRow.id)
    ).all()
    if not removed:
        raise NotFound(f"there are no settings for {ae_title!r}; `dicomnode sources list` shows all")
