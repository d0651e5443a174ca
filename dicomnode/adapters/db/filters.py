"""Which jobs and studies are meant, as conditions of a query.

Studies are found from the rare side: series and jobs have an index on their state, a study on when it was received.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from dicomnode.adapters.db.tables import JobRow, ModelRow, RuleRow, SeriesRow, StudyRow
from dicomnode.domain.study import SeriesState
from dicomnode.ports import JobFilter, StudyFilter

Condition = sa.ColumnElement[bool]


class _holds(FunctionElement[bool]):
    """Whether a JSON list of texts has this one among its members."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(_holds, "postgresql")
def _postgresql_holds(element: _holds, compiler: Any, **keywords: Any) -> str:
    column, word = (compiler.process(clause, **keywords) for clause in element.clauses)
    return f"(CAST({column} AS JSONB) @> to_jsonb(CAST({word} AS TEXT)))"


@compiles(_holds, "sqlite")
def _sqlite_holds(element: _holds, compiler: Any, **keywords: Any) -> str:
    column, word = (compiler.process(clause, **keywords) for clause in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = {word})"


def job_conditions(which: JobFilter) -> list[Condition]:
    """Of the job's row alone, so that they fit any query that has it."""
    found: list[Condition] = [JobRow.state.in_(which.states)] if which.states else []
    if which.model:
        found.append(JobRow.model_id.in_(_models(which.model)))
    if which.rule:
        found.append(JobRow.rule_id.in_(sa.select(RuleRow.id).where(RuleRow.name == which.rule)))
    if which.destination:
        found.append(_holds(JobRow.destinations, sa.literal(which.destination)))
    if which.study_instance_uid:
        found.append(JobRow.series_id.in_(_series_of(which.study_instance_uid)))
    if which.since is not None:
        found.append(JobRow.created_at >= which.since)
    if which.until is not None:
        found.append(JobRow.created_at < which.until)
    return found


def _models(words: str) -> sa.Select[int]:
    """By name, or "name version"."""
    name, _, version = words.partition(" ")
    found = sa.select(ModelRow.id).where(ModelRow.name == name)
    return found.where(ModelRow.version == version.strip()) if version.strip() else found


def _series_of(study_instance_uid: str) -> sa.Select[int]:
    of_study = sa.select(SeriesRow.id).join(StudyRow, SeriesRow.study_id == StudyRow.id)
    return of_study.where(StudyRow.study_instance_uid == study_instance_uid)


def _in_states(states: Sequence[SeriesState]) -> Condition:
    """As SeriesRow.standing has them."""
    nowhere, waits = SeriesRow.state == SeriesState.NOT_ROUTED, SeriesRow.waits
    told_apart = (SeriesState.NOT_ROUTED, SeriesState.WAITING)
    wanted: list[Condition] = [SeriesRow.state.in_([state for state in states if state not in told_apart])]
    wanted += [sa.and_(nowhere, sa.not_(waits))] if SeriesState.NOT_ROUTED in states else []
    wanted += [sa.and_(nowhere, waits)] if SeriesState.WAITING in states else []
    return sa.or_(*wanted)


def study_conditions(which: StudyFilter) -> list[Condition]:
    found: list[Condition] = []
    if which.series_states:
        found.append(StudyRow.id.in_(sa.select(SeriesRow.study_id).where(_in_states(which.series_states))))
    of_jobs = job_conditions(
        JobFilter(states=which.job_states, model=which.model, rule=which.rule, destination=which.destination)
    )
    if of_jobs:
        with_one = sa.select(SeriesRow.study_id).join(JobRow, JobRow.series_id == SeriesRow.id)
        found.append(StudyRow.id.in_(with_one.where(*of_jobs)))
    if which.since is not None:
        found.append(StudyRow.received_at >= which.since)
    if which.until is not None:
        found.append(StudyRow.received_at < which.until)
    return found
