"""What classifying jobs gave, as facts that rules ask for; and asking the rules again when such a job is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db.evidence_json import header_json, header_of
from dicomnode.adapters.db.receive import name_of
from dicomnode.adapters.db.rules import enabled_rules
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import EvidenceRow, JobRow, ModelRow, SeriesRow, StudyRow
from dicomnode.domain.class_facts import ClassNews, class_fact, classes_given, known_by, no_classes
from dicomnode.domain.job import ACTIVE_JOB_STATES, JobState
from dicomnode.domain.model_card import parse_model_card
from dicomnode.domain.model_output import Classification
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, classes_asked
from dicomnode.domain.study import Element, SeriesState, StudyState
from dicomnode.errors import InvalidModelPackage, InvalidRule

_ASKED = (SeriesState.ROUTED, SeriesState.NOT_ROUTED)


def class_news(session: Session, study_instance_uid: str) -> dict[str, ClassNews]:
    """By Series Instance UID: what is kept of this generation, and which models are at it."""
    query = sa.select(SeriesRow).join(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid)
    return {row.series_instance_uid: _news(session, row) for row in session.scalars(query)}


def _news(session: Session, series: SeriesRow) -> ClassNews:
    evidence = session.get(EvidenceRow, series.id)
    kept = evidence.facts if evidence is not None and evidence.generation == series.generation else {}
    facts = header_of({name: element for name, element in kept.items() if class_fact(name)})
    jobs = _jobs(session, series)
    awaited = {name for name, state in jobs if state in ACTIVE_JOB_STATES}
    for name in {name for name, _ in jobs} - awaited:
        if known_by(name) not in facts:  # its job ended before classes were kept, or is of no classifier
            facts |= no_classes(name, f"none is kept of the job of {name}")
    known = {name for name in awaited if known_by(name) in facts}
    return ClassNews(series.generation, facts, frozenset(awaited - known))


def _jobs(session: Session, series: SeriesRow) -> list[tuple[str, JobState]]:
    """Name of the model and state of what was made of the series as it is; shadows are in force nowhere."""
    query = sa.select(ModelRow.name, JobRow.state).join(JobRow, JobRow.model_id == ModelRow.id)
    of_it = query.where(JobRow.series_id == series.id, JobRow.generation == series.generation)
    return [(name, state) for name, state in session.execute(of_it.where(JobRow.shadow.is_(False)))]


def is_over(session: Session, series: SeriesRow, awaited: frozenset[str]) -> bool:
    """Whether a job that was waited for has ended since."""
    return bool(awaited) and not awaited <= _news(session, series).awaited


def kept_classes(row: EvidenceRow, generation: int) -> dict[str, Any]:
    """Of the same generation: they stay whoever writes the other facts anew."""
    same = row.generation == generation
    return {name: element for name, element in row.facts.items() if class_fact(name)} if same else {}


# ------------------------------------------------------------------------------------------------ a job's end


def job_ended(unit: Unit, job: JobRow) -> None:
    """Keeps what a classifying job gave, or that it gave nothing, and has its series put to the rules again."""
    spec = _classification(job)
    if spec is None or job.shadow:
        return
    query = sa.select(SeriesRow).where(SeriesRow.id == job.series_id).with_for_update()
    series = unit.session.scalars(query.execution_options(populate_existing=True)).one()
    if series.generation != job.generation:
        return
    unit.session.flush()
    model = job.model.name
    if _is_at_it(unit.session, series, model) and job.state is not JobState.SUCCEEDED:
        return  # another rule has it run there, too
    _keep(unit.session, series, model, _given(job, spec))
    rules = list(_rules(unit.session))
    if any(model in classes_asked(rule) for rule in rules):
        _ask_again(unit, series, model, whole=any(rule.needs_study for rule in rules))


def _classification(job: JobRow) -> Classification | None:
    if "classification" not in (job.model.card.get("output") or {}):
        return None
    try:
        return parse_model_card(job.model.card).classification
    except InvalidModelPackage:  # of a later version of the node
        return None


def _given(job: JobRow, spec: Classification) -> dict[str, Element]:
    model = job.model.name
    if job.state is JobState.SUCCEEDED:
        return classes_given(model, spec, job.details or {})
    why = f": {job.reason}" if job.reason else ""
    return no_classes(model, f"job {job.id} of {model} was {job.state}{why}".replace("was failed", "failed"))


def _is_at_it(session: Session, series: SeriesRow, model: str) -> bool:
    return (model, True) in {(name, state in ACTIVE_JOB_STATES) for name, state in _jobs(session, series)}


def _keep(session: Session, series: SeriesRow, model: str, given: dict[str, Element]) -> None:
    """In place of what the model gave before; that a job failed takes no other one's classes away."""
    row = session.get(EvidenceRow, series.id, with_for_update=True, populate_existing=True)
    if row is None or row.generation != series.generation:
        return
    before = header_of(
        {name: e for name, e in row.facts.items() if (fact := class_fact(name)) and fact.model == model}
    )
    known = known_by(model)
    if before and before[known].values and not given[known].values:
        return
    row.facts = {name: e for name, e in row.facts.items() if name not in before} | header_json(given)


def _rules(session: Session) -> Iterable[Rule]:
    for revision in enabled_rules(session):
        try:
            yield parse_rule(revision.document)
        except InvalidRule:  # routing says so
            continue


def _ask_again(unit: Unit, series: SeriesRow, model: str, whole: bool) -> None:
    """As after an administrator's rerun, but of the same generation: what was made of it is not made again.

    With rules on the whole study that is open again, too; it is locked after the series, as by everybody.
    """
    if series.state not in _ASKED:
        return  # it is put to them anyway
    series.state, series.completed_at = SeriesState.COMPLETE, None  # nobody is at its routing: the next worker is
    unit.session.flush()
    if whole:
        changed = sa.update(StudyRow).where(StudyRow.id == series.study_id, StudyRow.state != StudyState.RECEIVING)
        unit.session.execute(changed.values(state=StudyState.RECEIVING))
    unit.tell(
        "series.classified",
        f"The {name_of(series)} is put to the rules again, with what {model} said of it",
        study_instance_uid=series.study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        detail={"model": model, "generation": series.generation},
    )
