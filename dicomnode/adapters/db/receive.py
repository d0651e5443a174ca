"""Indexing what arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dicomnode.adapters.db.columns import storable
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import ArrivalRow, InstanceRow, ResultRow, SeriesRow, StudyRow
from dicomnode.domain.study import ReceivedInstance, Recorded, Series, SeriesState, StoredInstance, StudyState

# What this node writes into Manufacturer (0008,0070), and the modalities of its results.
_OWN_MANUFACTURER = "dicomnode"
_OWN_MODALITIES = frozenset({"SEG", "SR", "OT"})  # OT: parametric maps


@dataclass(slots=True)
class _Known:
    """What the database holds of the instances of one call, while it grows."""

    series: dict[str, SeriesRow]
    digests: dict[str, set[str]] = field(default_factory=dict)  # SOP Instance UID → sha256 of each file
    own_instances: set[str] = field(default_factory=set)
    own_series: set[str] = field(default_factory=set)


def record_instances(unit: Unit, instances: Sequence[ReceivedInstance]) -> list[Recorded]:
    if not instances:
        return []
    now = unit.now()
    studies = _studies(unit, instances, now)
    known = _Known(_series(unit, instances, studies, now))
    _recall(unit.session, instances, known)
    recorded = [_record(unit, instance, known, now) for instance in instances]
    _record_arrivals(unit.session, instances, recorded, known, now)
    new = {i.series_instance_uid for i, what in zip(instances, recorded, strict=True) if what is Recorded.NEW}
    _reopen_studies(unit.session, {known.series[uid].study_id for uid in new})
    return recorded


def _record_arrivals(
    session: Session,
    instances: Sequence[ReceivedInstance],
    recorded: Sequence[Recorded],
    known: _Known,
    now: datetime,
) -> None:
    """What each association brought of each series; a repeat shows that its sender is still at it."""
    brought: dict[tuple[str, str], list[ReceivedInstance]] = {}
    for instance, what in zip(instances, recorded, strict=True):
        if instance.association and what is not Recorded.OWN_RESULT:
            brought.setdefault((instance.series_instance_uid, instance.association), []).append(instance)
    if not brought:
        return
    values = [
        {
            "series_id": known.series[series].id,
            "association": association,
            "calling_ae_title": storable(of[0].calling_ae_title, 16),
            "instances": len(of),
            "first_at": now,
            "last_at": now,
            "ended_how": "",
        }
        for (series, association), of in sorted(brought.items())
    ]
    insert = _insert(session)(ArrivalRow).values(values)
    grown = {"instances": ArrivalRow.instances + insert.excluded.instances, "last_at": insert.excluded.last_at}
    session.execute(insert.on_conflict_do_update(index_elements=["series_id", "association"], set_=grown))


def _reopen_studies(session: Session, study_ids: set[int]) -> None:
    """A new image opens its study; images that only repeat, and own results, do not.

    Locked, after the series as everywhere, also when it is open: else complete_study might not see these images.
    """
    if study_ids:
        of_them = StudyRow.id.in_(study_ids)
        session.scalars(
            sa.select(StudyRow.id).where(of_them).order_by(StudyRow.id).with_for_update(key_share=True)
        ).all()
        open_again = sa.update(StudyRow).where(of_them, StudyRow.state != StudyState.RECEIVING)
        session.execute(open_again.values(state=StudyState.RECEIVING))


def verdict(instance: ReceivedInstance, digests: set[str], own: bool) -> Recorded:
    """What an instance is, given the digests of the files that have its SOP Instance UID already."""
    if own or (instance.manufacturer == _OWN_MANUFACTURER and instance.modality in _OWN_MODALITIES):
        return Recorded.OWN_RESULT
    if not digests:
        return Recorded.NEW
    return Recorded.DUPLICATE if instance.sha256 in digests else Recorded.CONFLICT


def _record(unit: Unit, instance: ReceivedInstance, known: _Known, now: datetime) -> Recorded:
    digests = known.digests.setdefault(instance.sop_instance_uid, set())
    own = instance.sop_instance_uid in known.own_instances or instance.series_instance_uid in known.own_series
    recorded = verdict(instance, digests, own)
    series = known.series[instance.series_instance_uid]
    if instance.sha256 not in digests:
        unit.session.add(_row(instance, series.id, in_use=not digests, now=now))
        digests.add(instance.sha256)
        _tell_conflict(unit, instance, recorded)
    _touch(unit, series, instance, recorded, now)
    return recorded


def _touch(unit: Unit, series: SeriesRow, instance: ReceivedInstance, recorded: Recorded, now: datetime) -> None:
    """A new image keeps its series open, or opens it again; a repeat only shows that its sender is still at it."""
    if recorded is Recorded.NEW and series.state is not SeriesState.RECEIVING:
        late = series.state is not SeriesState.OWN_RESULT
        series.state = SeriesState.RECEIVING
        if late:
            _tell(unit, "series.reopened", "More instances came after the series was complete", instance)
    if recorded is not Recorded.CONFLICT and series.state in (SeriesState.RECEIVING, SeriesState.OWN_RESULT):
        series.last_received_at = now


def _tell_conflict(unit: Unit, instance: ReceivedInstance, recorded: Recorded) -> None:
    if recorded is Recorded.CONFLICT:
        words = "An instance came again under the same SOP Instance UID with other content; the first stays in use"
        detail = {"sop_instance_uid": instance.sop_instance_uid, "path": instance.path}
        _tell(unit, "instance.conflict", words, instance, detail=detail)


def _tell(unit: Unit, kind: str, message: str, instance: ReceivedInstance, **more: Any) -> None:
    unit.tell(
        kind,
        message,
        study_instance_uid=instance.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        **more,
    )


def _studies(unit: Unit, instances: Sequence[ReceivedInstance], now: datetime) -> dict[str, int]:
    """Study Instance UID → id, the missing ones made."""
    first = _first_of_each((i.study_instance_uid, i) for i in instances)
    made = _insert_missing(
        unit.session, StudyRow, "study_instance_uid", [_study_values(i, now) for i in first.values()]
    )
    for instance in (i for uid, i in first.items() if uid in made):
        words = f"First instance of the study, from {instance.calling_ae_title} to {instance.called_ae_title}"
        _tell(unit, "study.received", words, instance, detail={"calling_ae_title": instance.calling_ae_title})
    query = sa.select(StudyRow.study_instance_uid, StudyRow.id).where(StudyRow.study_instance_uid.in_(first))
    return dict(unit.session.execute(query).all())


def _series(
    unit: Unit, instances: Sequence[ReceivedInstance], studies: Mapping[str, int], now: datetime
) -> dict[str, SeriesRow]:
    """Series Instance UID → row, locked, the missing ones made.

    A Series Instance UID stays in the study it was first seen in, whatever study later images name.
    """
    first = _first_of_each((i.series_instance_uid, i) for i in instances)
    values = [_series_values(i, studies[i.study_instance_uid], now) for i in first.values()]
    made = _insert_missing(unit.session, SeriesRow, "series_instance_uid", values)
    query = sa.select(SeriesRow).where(SeriesRow.series_instance_uid.in_(first))
    rows = unit.session.scalars(query.order_by(SeriesRow.series_instance_uid).with_for_update())
    found = {row.series_instance_uid: row for row in rows}
    for uid in made:
        if _is_own(unit.session, first[uid]):
            found[uid].state = SeriesState.OWN_RESULT
    return found


def _is_own(session: Session, instance: ReceivedInstance) -> bool:
    same = sa.or_(
        ResultRow.sop_instance_uid == instance.sop_instance_uid,
        ResultRow.series_instance_uid == instance.series_instance_uid,
    )
    own = session.scalar(sa.select(sa.exists().where(same))) or False
    return verdict(instance, set(), own) is Recorded.OWN_RESULT


def _recall(session: Session, instances: Sequence[ReceivedInstance], known: _Known) -> None:
    uids = {i.sop_instance_uid for i in instances}
    query = sa.select(InstanceRow.sop_instance_uid, InstanceRow.sha256)
    for uid, digest in session.execute(query.where(InstanceRow.sop_instance_uid.in_(uids))):
        known.digests.setdefault(uid, set()).add(digest)
    same = sa.or_(ResultRow.sop_instance_uid.in_(uids), ResultRow.series_instance_uid.in_(known.series))
    for uid, series in session.execute(
        sa.select(ResultRow.sop_instance_uid, ResultRow.series_instance_uid).where(same)
    ):
        known.own_instances.add(uid)
        known.own_series.add(series)


def _first_of_each(pairs: Iterable[tuple[str, ReceivedInstance]]) -> dict[str, ReceivedInstance]:
    """By key, sorted: every process locks rows in the same order."""
    first: dict[str, ReceivedInstance] = {}
    for key, instance in pairs:
        first.setdefault(key, instance)
    return dict(sorted(first.items()))


def _insert_missing(
    session: Session, table: type[StudyRow] | type[SeriesRow], key: str, values: list[dict[str, Any]]
) -> set[str]:
    """Inserts those whose key is not there yet; the keys that were inserted."""
    statement = _insert(session)(table).values(values).on_conflict_do_nothing(index_elements=[key])
    return set(session.scalars(statement.returning(getattr(table, key))))


def _insert(session: Session) -> Callable[[Any], Any]:
    """The dialect's own INSERT, which knows what to do on a conflict."""
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert


def _study_values(instance: ReceivedInstance, now: datetime) -> dict[str, Any]:
    return {
        "study_instance_uid": instance.study_instance_uid,
        "patient_id": storable(instance.patient_id, 64),
        "accession_number": storable(instance.accession_number, 64),
        "study_date": storable(instance.study_date, 32),
        "description": storable(instance.study_description, 256),
        "received_at": now,
        # until an image comes that is not this node's own result
        "state": StudyState.ROUTED,
        "generation": 0,
    }


def _series_values(instance: ReceivedInstance, study_id: int, now: datetime) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "series_instance_uid": instance.series_instance_uid,
        "state": SeriesState.RECEIVING,
        "generation": 0,
        "modality": storable(instance.modality, 16),
        "description": storable(instance.series_description, 256),
        "series_number": instance.series_number,
        "calling_ae_title": storable(instance.calling_ae_title, 16),
        "called_ae_title": storable(instance.called_ae_title, 16),
        "first_received_at": now,
        "last_received_at": now,
        "why": "",
    }


def _row(instance: ReceivedInstance, series_id: int, *, in_use: bool, now: datetime) -> InstanceRow:
    return InstanceRow(
        series_id=series_id,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        instance_number=instance.instance_number,
        path=instance.path,
        size_bytes=instance.size_bytes,
        sha256=instance.sha256,
        in_use=in_use,
        received_at=now,
        number_of_frames=instance.number_of_frames,
        plane=instance.plane,
        position_mm=instance.position_mm,
        images_announced=instance.images_announced,
    )


def locked_series(unit: Unit, series_instance_uid: str) -> SeriesRow | None:
    query = sa.select(SeriesRow).where(SeriesRow.series_instance_uid == series_instance_uid).with_for_update()
    return unit.session.scalars(query).one_or_none()


def load_series(session: Session, row: SeriesRow) -> Series:
    """With the instances in use, in the order of instance number, then UID."""
    query = sa.select(
        InstanceRow.sop_instance_uid,
        InstanceRow.sop_class_uid,
        InstanceRow.transfer_syntax_uid,
        InstanceRow.path,
        InstanceRow.instance_number,
    ).where(InstanceRow.series_id == row.id, InstanceRow.in_use)
    order = (InstanceRow.instance_number.is_(None), InstanceRow.instance_number, InstanceRow.sop_instance_uid)
    instances = tuple(StoredInstance(*values) for values in session.execute(query.order_by(*order)))
    return Series(
        study_instance_uid=row.study.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        calling_ae_title=row.calling_ae_title,
        called_ae_title=row.called_ae_title,
        instances=instances,
        generation=row.generation,
        received_at=row.last_received_at,
    )


def name_of(row: SeriesRow) -> str:
    """How the story names a series: by modality and number, never by free text."""
    number = "" if row.series_number is None else f" {row.series_number}"
    return f"{row.modality or 'unknown'} series{number}"
