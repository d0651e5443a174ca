"""Classes that jobs gave, kept with the evidence in the transaction of the job's end; on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.completeness import Signal, Verdict
from dicomnode.domain.study import Evidence, Series, SeriesState, StudyState
from dicomnode.ports import JobFailed, JobFinished, NewJob, State, StudyFilter
from tests.adapters.state_material import SERIES, STUDY, complete, new_job
from tests.contract.state_bench import Bench, bench, series_state, state
from tests.unit.test_class_rules import CHEST, classifier, gave

__all__ = ["bench", "state"]


def classifying(state: State, **more: Any) -> NewJob:
    """A job of a classifier, and a rule that asks for its classes."""
    model = state.add_model(classifier(), "1" * 64, Path("/models"))
    state.add_rule("chest", {"name": "chest", "when": CHEST, "model": "torso-ct"} | more)
    rule = state.add_rule("region", {"name": "region", "when": {"Modality": "CT"}, "model": "region"})
    return NewJob(rule, model, new_job(state).priority, ())


def evidence(series: Series, **more: Any) -> Evidence:
    return Evidence(series.series_instance_uid, series.generation, {}, {}, **more)


def run(state: State, job_id: str, outcome: JobFinished | JobFailed) -> None:
    assert state.start_job(job_id) is not None
    state.finish_job(job_id, outcome)


def test_the_end_of_a_classifier_has_its_series_asked_again_once(state: State) -> None:
    job = classifying(state)
    series = complete(state)
    (made,) = state.record_routing(series, [job], "a reason", {}, evidence(series))
    assert state.class_news(STUDY)[SERIES].awaited == {"region"}
    run(state, made, gave(Chest=0.25, Head=0.75))
    news = state.class_news(STUDY)[SERIES]
    assert (news.generation, news.awaited) == (series.generation, frozenset())
    assert news.facts["Class(region)"].values == ("Chest", "Head")
    assert news.facts["ClassShare(region/chest)"].values == (0.25,)
    assert [s.series_instance_uid for s in state.complete_unrouted(1000)] == [SERIES]
    again = state.complete_unrouted(1000)[0]
    assert again.generation == series.generation
    wanted = [job, new_job(state)]
    (second,) = state.record_routing(again, wanted, "with its classes", {}, evidence(again, awaited=news.awaited))
    assert second != made
    assert state.complete_unrouted(1000) == []
    assert series_state(state) is SeriesState.ROUTED
    run(state, second, JobFinished(()))  # of no classifier: nothing is asked again
    assert state.complete_unrouted(1000) == []


def test_what_is_kept_outlives_whoever_writes_the_evidence_anew_and_not_the_next_generation(state: State) -> None:
    job = classifying(state)
    series = complete(state)
    (made,) = state.record_routing(series, [job], "a reason", {}, evidence(series))
    run(state, made, gave(Chest=1.0))
    state.record_routing(series, [], "again", {}, evidence(series))
    state.record_evidence(evidence(series))
    (kept,) = state.study_evidence(STUDY)
    assert kept.facts["Class(region)"].values == ("Chest",)
    (past,) = state.past(["Modality"], ["Class(region)", "ClassShare(region/chest)"])
    assert past.series[0].evidence is not None
    assert past.series[0].evidence.facts["ClassShare(region/chest)"].values == (1.0,)
    state.rerun_study(STUDY)
    later = state.complete_unrouted()[0]
    state.record_routing(later, [], "once more", {}, evidence(later))
    assert state.class_news(STUDY)[SERIES].facts == {}


def test_a_decision_without_the_class_that_came_meanwhile_is_not_recorded(state: State) -> None:
    job = classifying(state)
    series = complete(state)
    (made,) = state.record_routing(series, [job], "a reason", {}, evidence(series))
    state.rerun_study(STUDY)
    again = state.complete_unrouted()[0]
    (made,) = state.record_routing(again, [job], "a reason", {}, evidence(again)) or [made]
    (view,) = [v for v in state.jobs() if v.state == "queued"]
    before = evidence(again, awaited=frozenset({"region"}))
    run(state, view.job_id, gave(Chest=1.0))
    assert state.record_routing(again, [new_job(state)], "too early", {}, before) == []
    assert [s.series_instance_uid for s in state.complete_unrouted(1000)] == [SERIES]
    assert state.study(STUDY).series[0].why != "too early"


def test_a_failure_is_kept_and_a_success_after_it_takes_its_place(state: State) -> None:
    job = classifying(state)
    series = complete(state)
    (made,) = state.record_routing(series, [job], "a reason", {}, evidence(series))
    run(state, made, JobFailed("x", "no memory", retryable=False))
    element = state.class_news(STUDY)[SERIES].facts["Class(region)"]
    assert (element.values, element.note) == ((), f"no class: job {made} of region failed: no memory")
    state.retry_job(made)
    run(state, made, gave(Head=1.0))
    assert state.class_news(STUDY)[SERIES].facts["Class(region)"].values == ("Head",)


@pytest.mark.parametrize("whole", [False, True])
def test_its_study_is_open_again_where_rules_look_at_studies(state: State, whole: bool) -> None:
    job = classifying(state, **({"choose": ["latest"]} if whole else {}))
    series = complete(state)
    (made,) = state.record_routing(series, [job], "a reason", {}, evidence(series))
    generation = state.complete_study(STUDY, Verdict(Signal.QUIET, "nothing came", len(series.instances)))
    assert generation is not None
    state.record_study_routing(STUDY, generation, [])
    run(state, made, gave(Chest=1.0))
    assert state.study(STUDY).state is (StudyState.RECEIVING if whole else StudyState.ROUTED)


def test_a_series_that_waits_is_told_apart(bench: Bench) -> None:
    state = bench.state
    series = complete(state)
    detail = {"rules": [{"rule": "pet", "outcome": "waits-for-study", "words": "it waits"}]}
    state.record_routing(series, [], "it waits", detail, evidence(series))
    assert series_state(state) is SeriesState.WAITING
    assert state.counts()["series"] == {"waiting": 1}
    assert [len(state.studies(StudyFilter(series_states=(s,)))) for s in SeriesState] == [0, 0, 0, 0, 1, 0]
    generation = state.complete_study(STUDY, Verdict(Signal.QUIET, "nothing came", len(series.instances)))
    assert generation is not None
    state.record_study_routing(STUDY, generation, [])
    assert series_state(state) is SeriesState.NOT_ROUTED
    assert state.counts()["series"] == {"not-routed": 1}
