"""What every State does for administrators, tried on SQLite, on PostgreSQL and on the fake."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dicomnode.domain.destination import Destination, parse_dimse
from dicomnode.domain.job import JobState
from dicomnode.errors import AlreadyActive, AlreadyExists, IllegalTransition, NotFound, UsageError
from dicomnode.ports import Delivered, Event, JobFailed, JobFilter, JobStopped, Running, State
from tests.adapters.state_material import (
    ARCHIVE,
    SERIES,
    STUDY,
    WEB,
    complete,
    finished,
    instance,
    model_card,
    new_job,
    routed,
    succeeded,
)
from tests.contract.state_bench import OTHER, Bench, bench, kinds, state

__all__ = ["bench", "state"]


# -------------------------------------------------------------------------------------------- administration


def test_a_changed_rule_is_a_new_revision_and_an_equal_one_is_not(state: State) -> None:
    first = state.add_rule("torso", {"when": {"Modality": "CT"}})
    assert state.add_rule("torso", {"when": {"Modality": "CT"}}) == first
    second = state.add_rule("torso", {"when": {"Modality": "MR"}})
    assert (first.revision, second.revision) == (1, 2)
    assert second.id != first.id
    state.add_rule("abdomen", {})
    assert [(r.name, r.revision) for r in state.rules()] == [("abdomen", 1), ("torso", 2)]
    assert state.rules()[1].document == {"when": {"Modality": "MR"}}
    state.remove_rule("torso")
    assert [r.name for r in state.rules()] == ["abdomen"]
    with pytest.raises(NotFound, match="torso"):
        state.remove_rule("torso")


def test_a_rule_that_is_not_enabled_is_listed_and_not_asked(state: State) -> None:
    state.add_rule("on", {"enabled": True})
    state.add_rule("off", {"enabled": False})
    assert [r.name for r in state.enabled_rules()] == ["on"]
    assert [r.name for r in state.rules()] == ["off", "on"]


def test_one_version_of_a_model_is_active_and_a_version_is_immutable(state: State) -> None:
    first = state.add_model(model_card(version="1.0.0"), "a" * 64, Path("/models/1"))
    second = state.add_model(model_card(version="2.0.0"), "b" * 64, Path("/models/2"))
    state.add_model(model_card("other"), "c" * 64, Path("/models/3"))
    assert [(m.name, m.version, m.active) for m in state.models()] == [
        ("other", "1.0.0", True),
        ("torso-ct", "1.0.0", False),
        ("torso-ct", "2.0.0", True),
    ]
    assert state.active_model("torso-ct") == second
    assert state.add_model(model_card(version="1.0.0"), "a" * 64, Path("/models/1")).id == first.id
    active = state.active_model("torso-ct")
    assert active is not None
    assert active.version == "1.0.0"
    assert state.active_model("nothing") is None
    with pytest.raises(AlreadyExists, match=r"torso-ct 1\.0\.0"):
        state.add_model(model_card(version="1.0.0"), "d" * 64, Path("/models/4"))


def test_destinations_come_and_go(state: State) -> None:
    state.add_destination(WEB)
    state.add_destination(ARCHIVE)
    assert state.destinations() == [ARCHIVE, WEB]
    with pytest.raises(AlreadyExists, match="archive"):
        state.add_destination(Destination("archive", parse_dimse("OTHER@192.0.2.9:104")))
    state.remove_destination("archive")
    assert state.destinations() == [WEB]
    with pytest.raises(NotFound, match="archive"):
        state.remove_destination("archive")
    moved = Destination("archive", parse_dimse("OTHER@192.0.2.9:104"))
    state.add_destination(moved)
    assert state.destinations() == [moved, WEB]


def test_jobs_are_listed_newest_first_by_state_and_no_more_than_asked(state: State) -> None:
    ids = []
    for n in (1, 2, 3):
        ids.append(routed(state, f"{STUDY}.{n}"))
        time.sleep(0.002)  # SQLite's clock counts milliseconds
    state.cancel_job(ids[1])
    assert [j.job_id for j in state.jobs()] == ids[::-1]
    assert [j.job_id for j in state.jobs(JobFilter(states=(JobState.QUEUED,)))] == [ids[2], ids[0]]
    assert [j.job_id for j in state.jobs(most=1)] == [ids[2]]


def test_a_job_is_found_by_the_beginning_of_its_id(state: State) -> None:
    ids = [routed(state, f"{STUDY}.{n}") for n in range(1, 20)]
    assert state.job(ids[0]).job_id == ids[0]
    beginning = next(ids[0][:n] for n in range(1, 17) if sum(i.startswith(ids[0][:n]) for i in ids) == 1)
    assert state.job(beginning).job_id == ids[0]
    with pytest.raises(NotFound):
        state.job("zzzz")
    shared = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)
    with pytest.raises(UsageError, match="begin"):
        state.job(shared)


def test_a_cancelled_job_does_not_start_and_what_it_gives_is_not_used(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    waiting, running = routed(state), routed(state, OTHER)
    state.start_job(running)
    state.cancel_job(waiting)
    state.cancel_job(running)
    assert state.start_job(waiting) is None
    state.finish_job(running, finished(series=OTHER))
    assert {j.state for j in state.jobs()} == {JobState.CANCELLED}
    assert state.job(running).results == ()
    assert bench.queue.enqueued_deliveries == []
    with pytest.raises(IllegalTransition, match=f"cancelled already.*dicomnode jobs retry {running}"):
        state.cancel_job(running)


def test_what_a_process_does_is_taken_back_once_it_is_not_its_any_more(bench: Bench) -> None:
    state = bench.state
    one, other = routed(state), routed(state, OTHER)
    work = state.start_job(one)
    assert work is not None
    state.start_job(other)
    mine, another = Running(one, 1, 1), Running(other, 1, 1)
    assert state.taken_back([mine, another]) == {}
    state.cancel_job(one)
    assert state.taken_back([mine, another]) == {mine: "the job is cancelled"}
    state.retry_job(one)  # the same attempt as before, of another ticket
    state.start_job(one)
    gone = Running("feedfacefeedface", 1, 1)
    assert state.taken_back([mine, gone]) == {mine: "the job was begun again", gone: "the job is not there any more"}
    assert state.taken_back([Running(one, 2, 1)]) == {}
    assert state.taken_back([]) == {}


def test_the_story_says_whether_a_cancelled_job_was_stopped_or_ended_by_itself(state: State) -> None:
    for job_id, outcome in ((routed(state), JobStopped("cancelled")), (routed(state, OTHER), finished())):
        state.start_job(job_id)
        state.cancel_job(job_id)
        state.finish_job(job_id, outcome, 1)
        assert state.job(job_id).state is JobState.CANCELLED
    told = [event.kind for event in state.events(STUDY)]
    assert (told.count("job.stopped"), told.count("job.discarded")) == (1, 1)


def test_what_was_stopped_for_another_beginning_leaves_that_one_alone(state: State) -> None:
    job_id = routed(state)
    state.start_job(job_id)
    state.finish_job(job_id, JobStopped("begun again"), 1)
    assert state.job(job_id).state is JobState.RUNNING


def test_a_failed_job_can_be_queued_again_as_if_new(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    state.start_job(job_id)
    state.finish_job(job_id, JobFailed("model-failed", "no", retryable=False))
    state.retry_job(job_id)
    assert bench.queue.enqueued_jobs == [(job_id, 0.0), (job_id, 0.0)]
    view = state.job(job_id)
    assert (view.state, view.code, view.reason, view.attempts) == (JobState.QUEUED, "", "", 0)
    with pytest.raises(IllegalTransition, match=f"queued already.*dicomnode jobs prioritise {job_id}"):
        state.retry_job(job_id)


def test_a_job_is_not_queued_again_beside_one_that_does_the_same(state: State) -> None:
    old = routed(state)
    state.cancel_job(old)
    state.record_instances([instance(4)])
    again = state.complete_series(SERIES, 0)
    assert again is not None
    assert state.record_routing(again, [new_job(state)], "again", {})
    with pytest.raises(AlreadyActive):
        state.retry_job(old)


def test_a_study_is_found_by_uid_series_accession_number_and_patient(state: State) -> None:
    state.record_instances([instance(1), instance(2, OTHER)])
    view = state.study(STUDY)
    assert (view.patient_id, view.accession_number, view.study_date) == ("P-17", "A-23", "20260102")
    assert view.description == "CT thorax"
    assert [(s.series_instance_uid, s.instances) for s in view.series] == [(SERIES, 1), (OTHER, 1)]
    assert view.series[0].calling_ae_title == "SCANNER"
    for key in (SERIES, OTHER, "A-23", "P-17"):
        assert state.study(key) == view
    for key in ("nobody", ""):
        with pytest.raises(NotFound):
            state.study(key)


def test_of_several_studies_of_a_patient_the_newest_is_found_and_listed_first(state: State) -> None:
    for n in (1, 2, 3):
        state.record_instances([instance(1, f"7.{n}.1", study_instance_uid=f"7.{n}")])
        time.sleep(0.002)
    assert state.study("P-17").study_instance_uid == "7.3"
    assert [s.study_instance_uid for s in state.studies()] == ["7.3", "7.2", "7.1"]
    assert [s.study_instance_uid for s in state.studies(most=1)] == ["7.3"]


def test_the_story_is_told_in_order(state: State) -> None:
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    for delivery in state.job(job_id).deliveries:
        state.start_delivery(delivery.delivery_id)
        state.finish_delivery(delivery.delivery_id, Delivered("0x0000"))
    told = kinds(state)
    assert [k for k in told if k.startswith(("series.", "job."))][:4] == [
        "series.complete",
        "series.routed",
        "job.made",
        "job.started",
    ]
    events = state.events(STUDY)
    assert [e.at for e in events] == sorted(e.at for e in events)
    assert all(e.at.tzinfo is not None for e in events)
    assert {e.job_id for e in events if e.kind.startswith("job.")} == {job_id}


def test_an_event_of_ones_own_is_told_and_numbered(state: State) -> None:
    before = state.last_event_number()
    complete(state)
    event = Event(state.events(STUDY)[-1].at, "series.routing-failed", "no", STUDY, SERIES, detail={"a": 1})
    state.record_event(event)
    told = state.events(STUDY)[-1]
    assert (told.kind, told.message, told.detail) == ("series.routing-failed", "no", {"a": 1})
    numbered = state.events_after(before)
    assert [e for _, e in numbered] == state.events(STUDY)
    assert [n for n, _ in numbered] == sorted({n for n, _ in numbered})
    assert state.last_event_number() == numbered[-1][0]
    assert state.events_after(numbered[0][0], most=1) == numbered[1:2]


def test_no_line_of_the_story_holds_what_identifies_the_patient(state: State) -> None:
    state.record_instances([instance(1, patient_id="SECRET", series_description="SECRET", accession_number="SECRET")])
    state.complete_series(SERIES, 0)
    assert not any("SECRET" in e.message for e in state.events(STUDY))


def test_everything_is_counted(state: State) -> None:
    state.add_destination(ARCHIVE)
    succeeded(state)
    routed(state, OTHER)
    counts = state.counts()
    assert counts["studies"] == {"all": 1}
    assert counts["instances"] == {"all": 6}
    assert counts["series"] == {"routed": 2}
    assert counts["jobs"] == {"succeeded": 1, "queued": 1}
    assert counts["deliveries"] == {"queued": 2}
