"""What rules are asked about, kept with the series."""

from __future__ import annotations

from sqlalchemy.orm import Session

from dicomnode.adapters.db.session import Unit
from dicomnode.domain.study import Evidence, Header, Series


def study_series(session: Session, study_instance_uid: str) -> list[Series]:
    raise NotImplementedError


def study_evidence(session: Session, study_instance_uid: str) -> list[Evidence]:
    raise NotImplementedError


def prior_studies(session: Session, study_instance_uid: str, most: int) -> list[str]:
    raise NotImplementedError


def series(session: Session, series_instance_uid: str) -> Series:
    raise NotImplementedError


def series_without_facts(session: Session, most: int) -> list[Series]:
    raise NotImplementedError


def record_facts(unit: Unit, series_instance_uid: str, generation: int, facts: Header) -> None:
    raise NotImplementedError
