"""The received past, a page at a time: what `rules replay` asks rules about.

Of the headers only what was asked for leaves the database: a header is some kilobytes, and a rule looks at a
handful of its attributes. Rows are plain columns, so that nothing gathers in the session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.evidence_json import element_of
from dicomnode.adapters.db.tables import EvidenceRow, SeriesRow, StudyRow
from dicomnode.domain.study import Evidence, Header
from dicomnode.ports import PastSeries, PastStudy

# What needs no escaping in an SQLite JSON path: all keywords, and private tags but for the odd creator
_PLAIN = re.compile(r"[A-Za-z0-9(), _./+-]+")


Place = tuple[datetime, int]  # of a study in the order of receiving, then id

Json = sa.SQLColumnExpression[Any]


def past_page(
    session: Session,
    keywords: Sequence[str],
    facts: Sequence[str],
    since: datetime | None,
    after: Place | None,
    page: int,
) -> tuple[list[PastStudy], Place | None]:
    """So many studies after that place, and the place of the last one; None when nothing comes after it."""
    studies = _studies(session, since, after, page)
    series = _series(session, [row.id for row in studies], keywords, facts) if studies else {}
    found = [
        PastStudy(row.study_instance_uid, row.accession_number, row.received_at, tuple(series.get(row.id, ())))
        for row in studies
    ]
    return found, (studies[-1].received_at, studies[-1].id) if len(studies) == page else None


def _studies(
    session: Session, since: datetime | None, after: Place | None, page: int
) -> Sequence[sa.Row[int, str, str, datetime]]:
    place = sa.tuple_(StudyRow.received_at, StudyRow.id)
    query = sa.select(
        StudyRow.id, StudyRow.study_instance_uid, StudyRow.accession_number, StudyRow.received_at
    ).order_by(StudyRow.received_at, StudyRow.id)
    if after is not None:
        query = query.where(place > sa.tuple_(*after, types=[StudyRow.received_at.type, StudyRow.id.type]))
    elif since is not None:
        query = query.where(StudyRow.received_at >= since)
    return session.execute(query.limit(page)).all()


def _series(
    session: Session, studies: Sequence[int], keywords: Sequence[str], facts: Sequence[str]
) -> dict[int, list[PastSeries]]:
    postgresql = session.get_bind().dialect.name == "postgresql"
    projected = _projected_by_postgresql if postgresql else _projected_by_sqlite
    header, tables = _header_unpacked() if postgresql else (EvidenceRow.header, _SERIES)
    query: sa.Select[*tuple[Any, ...]] = (
        sa.select(
            SeriesRow.study_id,
            SeriesRow.series_instance_uid,
            SeriesRow.description,
            SeriesRow.modality,
            SeriesRow.state,
            SeriesRow.first_received_at,
            EvidenceRow.generation,
            EvidenceRow.all_facts,
            EvidenceRow.no_image,
            projected(header, keywords).label("header"),
            projected(EvidenceRow.facts, facts).label("facts"),
        )
        .select_from(tables)
        .where(SeriesRow.study_id.in_(studies))
        .order_by(SeriesRow.study_id, SeriesRow.id)
    )
    rows = session.execute(query)
    return {
        study: [_past_series(row, tuple(keywords), tuple(facts)) for row in of_study]
        for study, of_study in groupby(rows, key=lambda row: row.study_id)
    }


def _past_series(row: sa.Row[Any], keywords: tuple[str, ...], facts: tuple[str, ...]) -> PastSeries:
    evidence = None
    if row.generation is not None:
        evidence = Evidence(
            series_instance_uid=row.series_instance_uid,
            generation=row.generation,
            header=_elements(row.header, keywords),
            facts=_elements(row.facts, facts),
            all_facts=row.all_facts,
            no_image=row.no_image,
        )
    return PastSeries(
        row.series_instance_uid, row.description, row.modality, row.state, row.first_received_at, evidence
    )


@lru_cache(maxsize=4096)
def _elements(text: str | None, names: tuple[str, ...]) -> Header:
    """What the database projected. Series of one protocol often say the same, and then share it."""
    found = json.loads(text) if text else []
    values = map(found.get, names) if isinstance(found, dict) else found
    return {name: element_of(value) for name, value in zip(names, values, strict=False) if value is not None}


# ----------------------------------------------------------------------------------------- in the database

_SERIES = sa.join(SeriesRow, EvidenceRow, EvidenceRow.series_id == SeriesRow.id, isouter=True)


def _projected_by_sqlite(column: Json, names: Sequence[str]) -> Json:
    """Of a JSON object the values of these names, as the text of an array in their order; or, where a name is odd,
    of the object."""
    if not names:
        return sa.null()
    if not all(map(_PLAIN.fullmatch, names)):
        return sa.cast(column, sa.Text())
    paths = [f'$."{name}"' for name in names]
    # of one path alone SQLite gives the value itself, of several an array
    return sa.func.json_extract(column, *paths, *paths[: 1 if len(paths) == 1 else 0], type_=sa.Text())


def _projected_by_postgresql(column: Json, names: Sequence[str]) -> Json:
    """As the text of an array in the order of the names."""
    if not names:
        return sa.null()
    return sa.cast(sa.func.jsonb_build_array(*(column.op("->")(name) for name in names)), sa.Text())


def _header_unpacked() -> tuple[Json, sa.FromClause]:
    """The header, unpacked once: PostgreSQL keeps it compressed, and would unpack it for every name (manual, TOAST).

    Joined with nothing a document is itself; OFFSET keeps the planner from putting the expression where it is used.
    """
    unpacked = EvidenceRow.header.op("||")(sa.literal_column("'{}'::jsonb")).label("header")
    once = sa.select(unpacked).correlate(EvidenceRow).offset(0).lateral("once")
    return once.c.header, _SERIES.join(once, sa.true())
