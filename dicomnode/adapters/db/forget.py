"""Taking a study out of the database: rows first, then, by whoever asked, the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.story import FORGOTTEN, find_only_study, forgotten_at
from dicomnode.adapters.db.tables import (
    AnnouncedSeriesRow,
    AnnouncementRow,
    ArrivalRow,
    DeliveryRow,
    DestinationRow,
    EventRow,
    EvidenceRow,
    InstanceRow,
    JobRow,
    ResultRow,
    SeriesRow,
    StudyRow,
)
from dicomnode.domain.job import ACTIVE_JOB_STATES, ARRIVED_DELIVERY_STATES, OPEN_DELIVERY_STATES
from dicomnode.errors import IllegalTransition, NotFound
from dicomnode.ports import Forgotten

_NAMED_MOST = 3


def forget_study(unit: Unit, key: str) -> Forgotten:
    """Raises NotFound, Ambiguous, and IllegalTransition while something of it is still to be done.

    A study that was forgotten before is forgotten again, with nothing left to count: its files may be there yet.
    """
    unit.alone_with(StudyRow)  # whoever records images of it was before, or begins with a new study
    try:
        study = find_only_study(unit.session, key)
    except NotFound:
        if _forget_announced(unit, key) or forgotten_at(unit.session, key) is not None:
            return _nothing_of(key)
        raise
    series = _locked_series(unit.session, study)
    _refuse_while_busy(unit.session, study, series)
    forgotten = _counted(unit.session, study.study_instance_uid, [row.id for row in series])
    _delete_rows(unit.session, study, [row.id for row in series])
    _delete_announcements(unit.session, forgotten.study_instance_uid)
    _tell(unit, forgotten)
    return forgotten


def _forget_announced(unit: Unit, study_instance_uid: str) -> bool:
    """Of a study of which no image ever came, what was announced; False when nothing was."""
    of_study = AnnouncedSeriesRow.study_instance_uid == study_instance_uid
    if unit.session.scalar(sa.select(sa.func.count()).where(of_study)) == 0:
        return False
    _delete_announcements(unit.session, study_instance_uid)
    unit.session.execute(sa.delete(EventRow).where(EventRow.study_instance_uid == study_instance_uid))
    _tell(unit, _nothing_of(study_instance_uid))
    return True


def _nothing_of(study_instance_uid: str) -> Forgotten:
    return Forgotten(study_instance_uid, series=0, instances=0, jobs=0, results=0, paths=())


def _locked_series(session: Session, study: StudyRow) -> list[SeriesRow]:
    """Nobody routes them meanwhile."""
    series = sa.select(SeriesRow).where(SeriesRow.study_id == study.id).order_by(SeriesRow.series_instance_uid)
    return list(session.scalars(series.with_for_update()))


# --------------------------------------------------------------------------------------------------- whether


def _refuse_while_busy(session: Session, study: StudyRow, series: Sequence[SeriesRow]) -> None:
    ids = [row.id for row in series]
    jobs = session.scalars(_of(ids, sa.select(JobRow.id).where(JobRow.state.in_(ACTIVE_JOB_STATES)))).all()
    if jobs:
        raise IllegalTransition(
            f"study {study.study_instance_uid} has jobs that wait or run: {_named(jobs)}; "
            f"let them end, or end them first: dicomnode jobs cancel {jobs[0]}"
        )
    open_deliveries = sa.select(JobRow.id).join(ResultRow).join(DeliveryRow).distinct()
    jobs = session.scalars(_of(ids, open_deliveries.where(DeliveryRow.state.in_(OPEN_DELIVERY_STATES)))).all()
    if jobs:
        raise IllegalTransition(
            f"study {study.study_instance_uid} has results on their way, of {_named(jobs)}; "
            f"let them arrive, or stop them first: dicomnode jobs cancel {jobs[0]}"
        )
    if users := _jobs_that_need(session, {row.series_instance_uid for row in series}):
        raise IllegalTransition(
            f"jobs on another study need a series of study {study.study_instance_uid}: {_named(users)}; "
            f"let them end, or end them first: dicomnode jobs cancel {users[0]}"
        )


def _of(series_ids: Sequence[int], jobs: sa.Select[Any]) -> sa.Select[Any]:
    return jobs.where(JobRow.series_id.in_(series_ids)).order_by(JobRow.id)


def _jobs_that_need(session: Session, series_instance_uids: set[str]) -> list[str]:
    """Active jobs that have a series of the study as a further input, as a prior."""
    active = sa.select(JobRow.id, JobRow.options).where(JobRow.state.in_(ACTIVE_JOB_STATES)).order_by(JobRow.id)
    return [
        job_id
        for job_id, options in session.execute(active)
        if series_instance_uids & set((options or {}).get("inputs", {}).values())
    ]


def _named(jobs: Sequence[str]) -> str:
    more = f" and {len(jobs) - _NAMED_MOST} more" if len(jobs) > _NAMED_MOST else ""
    return ", ".join(jobs[:_NAMED_MOST]) + more


# ------------------------------------------------------------------------------------------------------ rows


def _counted(session: Session, study_instance_uid: str, series_ids: Sequence[int]) -> Forgotten:
    instances = session.scalars(sa.select(InstanceRow.path).where(InstanceRow.series_id.in_(series_ids))).all()
    jobs = session.scalar(sa.select(sa.func.count()).select_from(JobRow).where(JobRow.series_id.in_(series_ids)))
    results = session.scalars(sa.select(ResultRow.path).join(JobRow).where(JobRow.series_id.in_(series_ids))).all()
    return Forgotten(
        study_instance_uid=study_instance_uid,
        series=len(series_ids),
        instances=len(instances),
        jobs=jobs or 0,
        results=len(results),
        paths=tuple(dict.fromkeys([*instances, *results])),
        sent=_sent(session, series_ids),
    )


def _sent(session: Session, series_ids: Sequence[int]) -> dict[str, dict[str, int]]:
    """Destination → kind → how many results arrived there, where they stay."""
    delivered = (
        sa.select(DestinationRow.name, ResultRow.kind, sa.func.count(ResultRow.id.distinct()))
        .select_from(DeliveryRow)
        .join(DestinationRow)
        .join(ResultRow)
        .join(JobRow)
        .where(JobRow.series_id.in_(series_ids), DeliveryRow.state.in_(ARRIVED_DELIVERY_STATES))
        .group_by(DestinationRow.name, ResultRow.kind)
        .order_by(DestinationRow.name, ResultRow.kind)
    )
    found: dict[str, dict[str, int]] = {}
    for destination, kind, number in session.execute(delivered):
        found.setdefault(destination, {})[kind] = number
    return found


def _delete_rows(session: Session, study: StudyRow, series_ids: Sequence[int]) -> None:
    """From the leaves to the root."""
    jobs = sa.select(JobRow.id).where(JobRow.series_id.in_(series_ids))
    results = sa.select(ResultRow.id).where(ResultRow.job_id.in_(jobs))
    for statement in (
        sa.delete(DeliveryRow).where(DeliveryRow.result_id.in_(results)),
        sa.delete(ResultRow).where(ResultRow.job_id.in_(jobs)),
        sa.delete(JobRow).where(JobRow.series_id.in_(series_ids)),
        sa.delete(EvidenceRow).where(EvidenceRow.series_id.in_(series_ids)),
        sa.delete(ArrivalRow).where(ArrivalRow.series_id.in_(series_ids)),
        sa.delete(InstanceRow).where(InstanceRow.series_id.in_(series_ids)),
        sa.delete(SeriesRow).where(SeriesRow.id.in_(series_ids)),
        sa.delete(StudyRow).where(StudyRow.id == study.id),
        sa.delete(EventRow).where(EventRow.study_instance_uid == study.study_instance_uid),
    ):
        session.execute(statement, execution_options={"synchronize_session": False})
    session.expunge_all()


def _delete_announcements(session: Session, study_instance_uid: str) -> None:
    """Those that name this study alone; of one that names others too, the part about this one."""
    of_study = AnnouncedSeriesRow.study_instance_uid == study_instance_uid
    named = session.scalars(sa.select(AnnouncedSeriesRow.announcement_id).where(of_study).distinct()).all()
    session.execute(sa.delete(AnnouncedSeriesRow).where(of_study))
    still = sa.exists().where(AnnouncedSeriesRow.announcement_id == AnnouncementRow.id)
    session.execute(sa.delete(AnnouncementRow).where(AnnouncementRow.id.in_(named), ~still))


def _tell(unit: Unit, forgotten: Forgotten) -> None:
    """All that stays: that there was such a study, and how much of it."""
    counts = {
        "series": forgotten.series,
        "instances": forgotten.instances,
        "jobs": forgotten.jobs,
        "results": forgotten.results,
    }
    words = ", ".join(f"{noun} {number}" for noun, number in counts.items())
    unit.tell(
        FORGOTTEN,
        f"The study was forgotten, as the administrator asked: {words}",
        study_instance_uid=forgotten.study_instance_uid,
        detail={**counts, "sent": forgotten.sent},
    )
