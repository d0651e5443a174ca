"""What rules are asked about, kept with the series."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.classes import kept_classes
from dicomnode.adapters.db.evidence_json import header_json, header_of
from dicomnode.adapters.db.receive import load_series, locked_series
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import EvidenceRow, SeriesRow, StudyRow
from dicomnode.domain.class_facts import is_of_classes
from dicomnode.domain.study import Evidence, Header, Series, SeriesState
from dicomnode.errors import NotFound

_ROUTED = (SeriesState.ROUTED, SeriesState.NOT_ROUTED)  # rules were asked: neither still received nor own results


def study_series(session: Session, study_instance_uid: str) -> list[Series]:
    query = sa.select(SeriesRow).join(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid)
    rows = session.scalars(query.where(SeriesRow.state.in_(_ROUTED)).order_by(SeriesRow.series_instance_uid))
    return [load_series(session, row) for row in rows.all()]


def study_evidence(session: Session, study_instance_uid: str) -> list[Evidence]:
    query = (
        sa.select(EvidenceRow, SeriesRow.series_instance_uid)
        .join(SeriesRow, EvidenceRow.series_id == SeriesRow.id)
        .join(StudyRow, SeriesRow.study_id == StudyRow.id)
        .where(StudyRow.study_instance_uid == study_instance_uid, SeriesRow.state.in_(_ROUTED))
        .order_by(SeriesRow.series_instance_uid)
    )
    return [evidence_of(row, uid) for row, uid in session.execute(query)]


def evidence_of(row: EvidenceRow, series_instance_uid: str) -> Evidence:
    header, facts = header_of(row.header), header_of(row.facts)
    return Evidence(series_instance_uid, row.generation, header, facts, row.all_facts, row.no_image)


def prior_studies(session: Session, study_instance_uid: str, most: int) -> list[str]:
    """Of one day, those received before; a study without a date has no priors and is none."""
    this = session.scalar(sa.select(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid))
    if this is None or not this.patient_id or not this.study_date:
        return []
    earlier_day = StudyRow.study_date < this.study_date
    same_day = sa.and_(StudyRow.study_date == this.study_date, StudyRow.received_at < this.received_at)
    query = (
        sa.select(StudyRow.study_instance_uid)
        .where(StudyRow.patient_id == this.patient_id, StudyRow.study_date != "", sa.or_(earlier_day, same_day))
        .order_by(StudyRow.study_date.desc(), StudyRow.received_at.desc(), StudyRow.id.desc())
        .limit(most)
    )
    return list(session.scalars(query))


def series(session: Session, series_instance_uid: str) -> Series:
    row = session.scalar(sa.select(SeriesRow).where(SeriesRow.series_instance_uid == series_instance_uid))
    if row is None:
        raise NotFound(f"there is no series {series_instance_uid}")
    return load_series(session, row)


def series_without_facts(session: Session, most: int, without_any: bool = True) -> list[Series]:
    """Those without any evidence when nothing else is left: to find that there is none reads every series."""
    routed = sa.select(SeriesRow).where(SeriesRow.state.in_(_ROUTED)).order_by(SeriesRow.id.desc()).limit(most)
    lacking = routed.where(SeriesRow.id.in_(sa.select(EvidenceRow.series_id).where(sa.text("NOT all_facts"))))
    without = routed.where(~sa.exists().where(EvidenceRow.series_id == SeriesRow.id))
    rows = session.scalars(lacking).all() or (session.scalars(without).all() if without_any else [])
    return [load_series(session, row) for row in rows]


def record_evidence(unit: Unit, evidence: Evidence) -> None:
    row = locked_series(unit, evidence.series_instance_uid)
    if row is not None and row.generation == evidence.generation:
        keep(unit, row, evidence)


def keep(unit: Unit, series_row: SeriesRow, evidence: Evidence) -> None:
    """In place of what is kept, but for the classes that a job gave; the series' row is locked."""
    row = unit.session.get(EvidenceRow, series_row.id)
    if row is None:
        row = EvidenceRow(series_id=series_row.id)
        unit.session.add(row)
    classes = kept_classes(row, evidence.generation) if row.generation is not None else {}
    own = {name: element for name, element in evidence.facts.items() if not is_of_classes(name)}
    row.generation, row.all_facts, row.no_image = evidence.generation, evidence.all_facts, evidence.no_image
    row.header, row.facts = header_json(evidence.header), header_json(own) | classes


def record_facts(unit: Unit, series_instance_uid: str, generation: int, facts: Header) -> None:
    series_row = locked_series(unit, series_instance_uid)
    row = unit.session.get(EvidenceRow, series_row.id) if series_row is not None else None
    if row is None or series_row is None or not row.generation == series_row.generation == generation:
        return
    row.facts, row.all_facts = {**row.facts, **header_json(facts)}, True
