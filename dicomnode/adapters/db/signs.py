"""Signs of completeness: what associations brought and how they ended, what was announced and counted.

Everything is asked for many series at once: a sweep is a handful of queries, however much is being received.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import database_now, storable
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import (
    AnnouncedSeriesRow,
    AnnouncementRow,
    ArrivalRow,
    InstanceRow,
    JobRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from dicomnode.domain.announcement import AnnouncementKind, AnnouncementState
from dicomnode.domain.completeness import AnnouncedSigns, ArrivalSigns, CountSigns, Place, SeriesSigns, StudySigns
from dicomnode.domain.study import SeriesState, StudyState

R = TypeVar("R")

_UNDECIDED = (SeriesState.RECEIVING, SeriesState.COMPLETE)


def association_ended(unit: Unit, association: str, how: str) -> None:
    _end(unit, how, ArrivalRow.association == association)


def associations_lost(unit: Unit, receiver: str, but: str) -> None:
    _end(
        unit,
        "lost",
        ArrivalRow.association.startswith(f"{receiver}/", autoescape=True),
        sa.not_(ArrivalRow.association.startswith(f"{but}/", autoescape=True)),
    )


def _end(unit: Unit, how: str, *which: sa.ColumnElement[bool]) -> None:
    open_ones = sa.update(ArrivalRow).where(ArrivalRow.ended_at.is_(None), *which)
    unit.session.execute(open_ones.values(ended_at=unit.now(), ended_how=how))


def places(session: Session, series_instance_uid: str) -> list[Place]:
    query = (
        sa.select(
            InstanceRow.instance_number,
            InstanceRow.plane,
            InstanceRow.position_mm,
            InstanceRow.number_of_frames,
            InstanceRow.images_announced,
        )
        .join(SeriesRow, InstanceRow.series_id == SeriesRow.id)
        .where(SeriesRow.series_instance_uid == series_instance_uid, InstanceRow.in_use)
    )
    return [Place(*values) for values in session.execute(query)]


def record_count(
    unit: Unit, series_instance_uid: str, instances: int, source: str, asked_before_s: float = 0.0
) -> None:
    """`counted_at` is when the source was asked: of what came while it answered it may not have known."""
    of_it = sa.update(SeriesRow).where(SeriesRow.series_instance_uid == series_instance_uid)
    asked_at = unit.now() - timedelta(seconds=asked_before_s)
    values = {"counted_instances": instances, "counted_from": storable(source, 256), "counted_at": asked_at}
    unit.session.execute(of_it.values(**values))


# ------------------------------------------------------------------------------------------------ of series


def receiving_series(session: Session, most: int | None) -> list[SeriesSigns]:
    query = (
        sa.select(SeriesRow, StudyRow.study_instance_uid, database_now())
        .join(StudyRow, SeriesRow.study_id == StudyRow.id)
        .where(SeriesRow.state == SeriesState.RECEIVING)
        .order_by(SeriesRow.last_received_at, SeriesRow.id)
        .limit(most)
    )
    rows = session.execute(query).all()
    return [signs for some in _in_parts(rows) for signs in _series_signs(session, some)]


_PART = 500  # series or studies whose signs one statement asks for: each is a parameter of it


def _in_parts(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    return (rows[start : start + _PART] for start in range(0, len(rows), _PART))


def _series_signs(session: Session, rows: Sequence[sa.Row[SeriesRow, str, datetime]]) -> list[SeriesSigns]:
    now = max(now for _, _, now in rows)
    ids = [row.id for row, _, _ in rows]
    counts, arrivals = _instance_counts(session, ids), _arrivals(session, ids, now)
    announced = _announced_of_series(session, {row.series_instance_uid: study for row, study, _ in rows}, counts)
    nothing = _Announced()
    return [
        SeriesSigns(
            study_instance_uid=study,
            series_instance_uid=row.series_instance_uid,
            modality=row.modality,
            calling_ae_title=row.calling_ae_title,
            instances=counts.get(row.series_instance_uid, 0),
            idle_s=_age_s(row.last_received_at, now),
            arrivals=arrivals.get(row.id, ()),
            announced=tuple(announced.get(row.series_instance_uid, nothing).signs),
            counted=_count_signs(row, now),
            named=announced.get(row.series_instance_uid, nothing).named,
        )
        for row, study, _ in rows
    ]


def _age_s(at: datetime, now: datetime) -> float:
    """Never negative: PostgreSQL's clock may be put back."""
    return max(0.0, (now - at).total_seconds())


def _count_signs(row: SeriesRow, now: datetime) -> CountSigns | None:
    if row.counted_instances is None or row.counted_at is None:
        return None
    return CountSigns(row.counted_instances, row.counted_from, _age_s(row.counted_at, now))


def _instance_counts(session: Session, series_ids: Sequence[int]) -> dict[str, int]:
    """By Series Instance UID, of the instances in use."""
    query = (
        sa.select(SeriesRow.series_instance_uid, sa.func.count())
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(SeriesRow.id.in_(series_ids), InstanceRow.in_use)
        .group_by(SeriesRow.series_instance_uid)
    )
    return dict(session.execute(query).all())


def _arrivals(session: Session, series_ids: Sequence[int], now: datetime) -> dict[int, tuple[ArrivalSigns, ...]]:
    """By series, in the order in which the associations began to bring it."""
    query = sa.select(ArrivalRow).where(ArrivalRow.series_id.in_(series_ids)).order_by(ArrivalRow.first_at)
    rows = session.scalars(query).all()
    last_at = _last_of_any(session, {row.association for row in rows if row.ended_at is None})
    found: dict[int, list[ArrivalSigns]] = defaultdict(list)
    for row in rows:
        any_at = last_at.get(row.association)
        found[row.series_id].append(
            ArrivalSigns(
                association=row.association,
                calling_ae_title=row.calling_ae_title,
                instances=row.instances,
                idle_s=_age_s(row.last_at, now),
                ended_how=row.ended_how,
                ended_s=None if row.ended_at is None else _age_s(row.ended_at, now),
                began_s=_age_s(row.first_at, now),
                any_idle_s=None if any_at is None else _age_s(any_at, now),
            )
        )
    return {series: tuple(arrivals) for series, arrivals in found.items()}


def _last_of_any(session: Session, associations: Collection[str]) -> dict[str, datetime]:
    """When each association brought its last instance of any series."""
    if not associations:
        return {}
    query = sa.select(ArrivalRow.association, sa.func.max(ArrivalRow.last_at, type_=ArrivalRow.last_at.type))
    of_them = query.where(ArrivalRow.association.in_(associations)).group_by(ArrivalRow.association)
    return dict(session.execute(of_them).all())


@dataclass(slots=True)
class _Announced:
    """What was announced of a series or a study, while it is gathered."""

    signs: list[AnnouncedSigns] = field(default_factory=list)
    uids: list[Sequence[str]] = field(default_factory=list)  # that each final one names

    def add(self, signs: AnnouncedSigns, uids: Sequence[str]) -> None:
        self.signs.append(signs)
        if signs.is_final:
            self.uids.append(uids)

    @property
    def named(self) -> int:
        """Different instances, where several name them: what one names is in its signs."""
        return len(set().union(*self.uids)) if len(self.uids) > 1 else 0


def _announced_of_series(
    session: Session, studies: Mapping[str, str], counts: Mapping[str, int]
) -> dict[str, _Announced]:
    """By Series Instance UID; `studies` is the study of each. What is in progress counts for its whole study."""
    of_them = AnnouncedSeriesRow.series_instance_uid.in_(studies)
    in_progress = sa.and_(
        AnnouncedSeriesRow.study_instance_uid.in_(set(studies.values())),
        AnnouncementRow.state == str(AnnouncementState.IN_PROGRESS),
    )
    rows = _announced(session, sa.or_(of_them, in_progress))
    here = _here(session, [uids for _, _, series, uids in rows if 0 < len(uids) <= counts.get(series, 0)])
    found: dict[str, _Announced] = defaultdict(_Announced)
    begun: dict[str, AnnouncedSigns] = {}
    for (kind, state), study, named, uids in rows:
        if named in studies:
            missing = len(uids) - counts.get(named, 0)
            missing = missing if missing > 0 else sum(uid not in here for uid in uids)
            found[named].add(AnnouncedSigns(kind, state, len(uids), missing), uids)
        if state is AnnouncementState.IN_PROGRESS:
            begun[study] = AnnouncedSigns(kind, state, 0, 0)
    for series, study in studies.items():
        if study in begun and all(a.is_final for a in found[series].signs):
            found[series].add(begun[study], ())
    return found


_Named = tuple[tuple[AnnouncementKind, AnnouncementState], str, str, list[str]]


def _announced(session: Session, which: sa.ColumnElement[bool]) -> list[_Named]:
    """(kind, state), Study Instance UID, Series Instance UID ("": no series yet), SOP Instance UIDs."""
    query = (
        sa.select(
            AnnouncementRow.kind,
            AnnouncementRow.state,
            AnnouncedSeriesRow.study_instance_uid,
            AnnouncedSeriesRow.series_instance_uid,
            AnnouncedSeriesRow.sop_instance_uids,
        )
        .join(AnnouncementRow, AnnouncedSeriesRow.announcement_id == AnnouncementRow.id)
        .where(which)
        .order_by(AnnouncedSeriesRow.id)
    )
    return [
        ((AnnouncementKind(kind), AnnouncementState(state)), study, series, uids)
        for kind, state, study, series, uids in session.execute(query)
    ]


_PARAMETERS_MOST = 10_000  # of one statement; SQLite takes 32,766


def _here(session: Session, named: Iterable[Sequence[str]]) -> set[str]:
    """Of these SOP Instance UIDs, those that are here."""
    wanted = sorted({uid for uids in named for uid in uids})
    found: set[str] = set()
    for start in range(0, len(wanted), _PARAMETERS_MOST):
        some = InstanceRow.sop_instance_uid.in_(wanted[start : start + _PARAMETERS_MOST])
        found.update(session.scalars(sa.select(InstanceRow.sop_instance_uid).where(some, InstanceRow.in_use)))
    return found


# ------------------------------------------------------------------------------------------------ of studies


def receiving_studies(session: Session, most: int | None) -> list[StudySigns]:
    undecided = sa.exists().where(SeriesRow.study_id == StudyRow.id, SeriesRow.state.in_(_UNDECIDED))
    query = (
        sa.select(StudyRow.id, StudyRow.study_instance_uid, database_now())
        .where(StudyRow.state == StudyState.RECEIVING, ~undecided)
        .order_by(StudyRow.received_at, StudyRow.id)
        .limit(most)
    )
    rows = session.execute(query).all()
    return [signs for some in _in_parts(rows) for signs in _study_signs(session, some)]


def _study_signs(session: Session, rows: Sequence[sa.Row[int, str, datetime]]) -> list[StudySigns]:
    now = max(now for _, _, now in rows)
    ids = [study_id for study_id, _, _ in rows]
    last, counts = _senders(session, ids), _study_instances(session, ids)
    open_ones = _open_associations(session, ids)
    announced, nothing = _announced_of_studies(session, [uid for _, uid, _ in rows]), _Announced()
    return [
        StudySigns(
            study_instance_uid=uid,
            calling_ae_title=last[study_id].titles[-1],
            idle_s=_age_s(last[study_id].last_at, now),
            open_associations=open_ones.get(study_id, 0),
            announced=tuple(announced.get(uid, nothing).signs),
            instances=counts.get(study_id, _Held()).instances,
            series=counts.get(study_id, _Held()).series,
            named=announced.get(uid, nothing).named,
            senders=tuple(sorted(set(last[study_id].titles))),
        )
        for study_id, uid, _ in rows
        if study_id in last
    ]


class _Senders(NamedTuple):
    """The calling AE titles of the series of a study, that of the one that came last at the end, and when it came."""

    titles: tuple[str, ...]
    last_at: datetime


def _senders(session: Session, study_ids: Sequence[int]) -> dict[int, _Senders]:
    query = sa.select(SeriesRow.study_id, SeriesRow.calling_ae_title, SeriesRow.last_received_at)
    received = query.where(SeriesRow.study_id.in_(study_ids), SeriesRow.state != SeriesState.OWN_RESULT)
    found: dict[int, _Senders] = {}
    for study, title, last_at in session.execute(received.order_by(SeriesRow.last_received_at)):
        before = found[study].titles if study in found else ()
        found[study] = _Senders((*before, title), last_at)
    return found


class _Held(NamedTuple):
    """What is here of a study, own results left out."""

    instances: int = 0
    series: int = 0


def _study_instances(session: Session, study_ids: Sequence[int]) -> dict[int, _Held]:
    query = (
        sa.select(SeriesRow.study_id, sa.func.count(), sa.func.count(SeriesRow.id.distinct()))
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(SeriesRow.study_id.in_(study_ids), SeriesRow.state != SeriesState.OWN_RESULT, InstanceRow.in_use)
        .group_by(SeriesRow.study_id)
    )
    return {study: _Held(instances, series) for study, instances, series in session.execute(query)}


def own_series(session: Session, study_instance_uid: str) -> list[str]:
    of_study = StudyRow.study_instance_uid == study_instance_uid
    made = (
        sa.select(ResultRow.series_instance_uid)
        .join(JobRow, ResultRow.job_id == JobRow.id)
        .join(SeriesRow, JobRow.series_id == SeriesRow.id)
        .join(StudyRow, SeriesRow.study_id == StudyRow.id)
        .where(of_study)
    )
    came_back = (
        sa.select(SeriesRow.series_instance_uid)
        .join(StudyRow, SeriesRow.study_id == StudyRow.id)
        .where(of_study, SeriesRow.state == SeriesState.OWN_RESULT)
    )
    return sorted(session.scalars(made.union(came_back)))


def _open_associations(session: Session, study_ids: Sequence[int]) -> dict[int, int]:
    query = (
        sa.select(SeriesRow.study_id, sa.func.count(ArrivalRow.association.distinct()))
        .join(SeriesRow, ArrivalRow.series_id == SeriesRow.id)
        .where(SeriesRow.study_id.in_(study_ids), ArrivalRow.ended_at.is_(None))
        .group_by(SeriesRow.study_id)
    )
    return dict(session.execute(query).all())


def _announced_of_studies(session: Session, studies: Sequence[str]) -> dict[str, _Announced]:
    """By Study Instance UID, each announcement summed up."""
    named: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    said: dict[int, tuple[AnnouncementKind, AnnouncementState]] = {}
    query = (
        sa.select(AnnouncementRow.id, AnnouncementRow.kind, AnnouncementRow.state, AnnouncedSeriesRow)
        .join(AnnouncementRow, AnnouncedSeriesRow.announcement_id == AnnouncementRow.id)
        .where(AnnouncedSeriesRow.study_instance_uid.in_(studies))
    )
    for number, kind, state, series in session.execute(query):
        said[number] = (AnnouncementKind(kind), AnnouncementState(state))
        named[series.study_instance_uid][number].extend(series.sop_instance_uids)
    here = _here(session, (uids for of_study in named.values() for uids in of_study.values()))
    found: dict[str, _Announced] = defaultdict(_Announced)
    for study, of_study in named.items():
        for number, uids in sorted(of_study.items()):
            missing = sum(uid not in here for uid in uids)
            found[study].add(AnnouncedSigns(*said[number], len(uids), missing), uids)
    return found
