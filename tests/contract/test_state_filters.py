"""Which jobs and studies a filter means, on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from dicomnode.domain.job import JobState
from dicomnode.domain.study import SeriesState
from dicomnode.ports import JobFilter, State, StudyFilter
from tests.adapters.state_material import SERIES, STUDY, finished, instance, new_job
from tests.contract.state_bench import bench, state

__all__ = ["bench", "state"]

FAR = datetime(2400, 1, 1).astimezone()


def received(state: State, study: str, series: str = "1", images: int = 1) -> str:
    uid = f"{study}.{series}"
    state.record_instances([instance(n, uid, study_instance_uid=study) for n in range(1, images + 1)])
    return uid


def job_on(state: State, study: str, **options: Any) -> str:
    uid = received(state, study)
    found = state.complete_series(uid, 0)
    assert found is not None
    (job_id,) = state.record_routing(found, [new_job(state, **options)], "so", {})
    time.sleep(0.002)  # SQLite's clock counts milliseconds
    return job_id


@pytest.fixture
def jobs(state: State) -> dict[str, str]:
    """Study → its job: of several rules, versions, destinations and states."""
    made = {
        "7.1": job_on(state, "7.1"),
        "7.2": job_on(state, "7.2", rule="other", destinations=("archive", "web")),
        "7.3": job_on(state, "7.3", version="2.0.0", destinations=("WEB",)),
        "7.4": job_on(state, "7.4", destinations=()),
    }
    state.start_job(made["7.2"])
    state.start_job(made["7.3"])
    state.finish_job(made["7.3"], finished("3", "7.3.1"))
    received(state, "7.5")
    return made


BY_JOBS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["7.1", "7.2", "7.3", "7.4"]),
    ({"states": (JobState.QUEUED,)}, ["7.1", "7.4"]),
    ({"states": (JobState.QUEUED, JobState.RUNNING)}, ["7.1", "7.2", "7.4"]),
    ({"states": (JobState.FAILED,)}, []),
    ({"model": "torso-ct"}, ["7.1", "7.2", "7.3", "7.4"]),
    ({"model": "torso-ct 2.0.0"}, ["7.3"]),
    ({"model": "torso"}, []),
    ({"rule": "other"}, ["7.2"]),
    ({"rule": "nothing"}, []),
    ({"destination": "archive"}, ["7.1", "7.2"]),
    ({"destination": "web"}, ["7.2"]),
    ({"destination": "WEB"}, ["7.3"]),
    ({"destination": "arch"}, []),
    ({"destination": "archive", "states": (JobState.RUNNING,)}, ["7.2"]),
    ({"destination": "archive", "states": (JobState.SUCCEEDED,)}, []),
]


def test_jobs_of_a_filter_newest_first(state: State, jobs: dict[str, str]) -> None:
    for which, studies in BY_JOBS:
        found = [job.job_id for job in state.jobs(JobFilter(**which))]
        assert found == [jobs[study] for study in reversed(studies)], which


def test_studies_that_have_one_such_job(state: State, jobs: dict[str, str]) -> None:
    for which, studies in BY_JOBS[1:]:
        asked = {("job_states" if name == "states" else name): value for name, value in which.items()}
        found = state.studies(StudyFilter(**asked))
        assert [study.study_instance_uid for study in found] == studies[::-1], which


def test_jobs_of_one_study(state: State, jobs: dict[str, str]) -> None:
    assert [j.job_id for j in state.jobs(JobFilter(study_instance_uid="7.2"))] == [jobs["7.2"]]
    assert state.jobs(JobFilter(study_instance_uid="7.5")) == []
    assert state.jobs(JobFilter(study_instance_uid="7")) == []


def test_studies_by_the_states_of_their_series(state: State, jobs: dict[str, str]) -> None:
    def found(*states: SeriesState) -> list[str]:
        return [s.study_instance_uid for s in state.studies(StudyFilter(series_states=states))]

    assert found(SeriesState.RECEIVING) == ["7.5"]
    assert found(SeriesState.ROUTED) == ["7.4", "7.3", "7.2", "7.1"]
    assert found(SeriesState.ROUTED, SeriesState.RECEIVING) == ["7.5", "7.4", "7.3", "7.2", "7.1"]
    assert found(SeriesState.NOT_ROUTED) == []


def test_a_study_with_two_series_that_match_is_listed_once(state: State) -> None:
    received(state, "8.1", "1")
    received(state, "8.1", "2")
    assert len(state.studies(StudyFilter(series_states=(SeriesState.RECEIVING,)))) == 1


def test_the_conditions_on_jobs_are_met_by_one_job(state: State, jobs: dict[str, str]) -> None:
    found = state.complete_series(received(state, "7.1", "2"), 0)
    assert found is not None
    (second,) = state.record_routing(found, [new_job(state, rule="other")], "so", {})
    state.start_job(second)
    both = StudyFilter(rule="torso", job_states=(JobState.RUNNING,))
    assert [s.study_instance_uid for s in state.studies(both)] == []


def test_from_a_time_on_and_before_a_time(state: State, jobs: dict[str, str]) -> None:
    every = state.jobs()
    second = every[2].created_at
    assert [j.job_id for j in state.jobs(JobFilter(since=second))] == [j.job_id for j in every[:3]]
    assert [j.job_id for j in state.jobs(JobFilter(until=second))] == [every[3].job_id]
    assert state.jobs(JobFilter(since=FAR)) == []
    studies = state.studies()
    third = studies[2].received_at
    after = state.studies(StudyFilter(since=third, until=studies[0].received_at))
    assert after == [s for s in studies if third <= s.received_at < studies[0].received_at]
    assert after
    assert state.studies(StudyFilter(until=studies[-1].received_at)) == []
    assert state.studies(StudyFilter(since=FAR - timedelta(days=1))) == []


def test_no_more_than_asked_and_those_the_newest(state: State, jobs: dict[str, str]) -> None:
    assert [j.job_id for j in state.jobs(JobFilter(destination="archive"), most=1)] == [jobs["7.2"]]
    assert [s.study_instance_uid for s in state.studies(StudyFilter(destination="archive"), most=1)] == ["7.2"]


def test_a_view_of_a_study_says_whether_it_waits(state: State) -> None:
    state.record_instances([instance(1)])
    (view,) = state.studies()
    assert (view.study_instance_uid, view.series[0].series_instance_uid) == (STUDY, SERIES)
    assert view.state == state.study(STUDY).state
