"""What the State keeps of a routing: evidence, jobs of a whole study, priors; on both databases."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from dicomnode.domain.completeness import Signal, Verdict
from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.domain.rules import Window
from dicomnode.domain.schedule import NODE_ZONE
from dicomnode.domain.study import Element, Evidence, Series, SeriesState, StudyState
from dicomnode.errors import NotFound
from dicomnode.ports import Delivered, JobFailed, NewJob, SeriesRouting, State
from tests.adapters.state_material import ARCHIVE, SERIES, STUDY, complete, finished, instance, new_job
from tests.contract.state_bench import OTHER, Bench, bench, kinds, series_state, state

__all__ = ["bench", "state"]

HEADER = {
    "Modality": Element("CS", ("CT",)),
    "SliceThickness": Element("DS", (5.0, 1e20)),
    "PatientName": Element("PN", ("Dоe^Jöhn",)),
    "SeriesDescription": Element("LO", ("a\0b\ud800c",)),
    "(0019,10,GEMS_ACQU_01)": Element("UN", ("7",)),
    "RequestAttributesSequence": Element(
        "SQ", ({"RequestedProcedureDescription": Element("LO", ("Thorax",)), "Empty": Element("LO", ())}, {})
    ),
}
KEPT = HEADER | {"SeriesDescription": Element("LO", ("ab?c",))}
FACTS = {
    "NumberOfInstances": Element("IS", (3,)),
    "IsAVolume": Element("FLAG", (False,), "gap: 1 slice is missing"),
    "AgeInYears": Element("DS", (), "no PatientAge"),
}


def evidence(series: Series, **changes: Any) -> Evidence:
    return replace(Evidence(series.series_instance_uid, series.generation, HEADER, FACTS), **changes)


def routed(state: State, series: str = SERIES, *jobs: NewJob, images: int = 3, **changes: Any) -> Series:
    """A series that was found complete and routed, with evidence."""
    found = complete(state, series, images)
    state.record_routing(found, jobs, "a reason", {}, evidence(found, **changes))
    return found


def study_complete(state: State, instances: int) -> int:
    generation = state.complete_study(STUDY, Verdict(Signal.QUIET, "nothing came", instances))
    assert generation is not None
    return generation


def routing(series: Series, *jobs: NewJob, why: str = "another reason", settled: Sequence[str] = ("torso",)) -> Any:
    return SeriesRouting(series, jobs, why, {"rules": []}, frozenset(settled))


def states(state: State) -> dict[str, tuple[JobState, str]]:
    return {job.job_id: (job.state, job.code) for job in state.jobs()}


# -------------------------------------------------------------------------------------------------- evidence


def test_evidence_comes_back_as_it_was_given(state: State) -> None:
    series = routed(state)
    (found,) = state.study_evidence(STUDY)
    assert found == Evidence(SERIES, series.generation, KEPT, FACTS)
    assert state.study_evidence("1.2.3") == []


def test_evidence_of_what_has_no_image_keeps_the_reason(state: State) -> None:
    routed(state, no_image="the series holds no image to work on: it is SR")
    assert state.study_evidence(STUDY)[0].no_image == "the series holds no image to work on: it is SR"


def test_evidence_is_of_the_series_as_it_is_now(state: State) -> None:
    routed(state)
    again = routed(state, images=4, header={"Modality": Element("CS", ("MR",))})
    (found,) = state.study_evidence(STUDY)
    assert (found.generation, found.header) == (again.generation, {"Modality": Element("CS", ("MR",))})
    assert again.generation == 2


def test_while_images_come_there_is_no_evidence_to_ask(state: State) -> None:
    routed(state)
    state.record_instances([instance(9)])
    assert state.study_evidence(STUDY) == []
    assert state.study_series(STUDY) == []
    assert state.series_without_facts() == []


def test_facts_of_all_headers_are_added(state: State) -> None:
    series = routed(state)
    assert [s.series_instance_uid for s in state.series_without_facts()] == [SERIES]
    volume = {"IsAVolume": Element("FLAG", (True,)), "Orientation": Element("CS", ("axial",))}
    state.record_facts(SERIES, series.generation, volume)
    (found,) = state.study_evidence(STUDY)
    assert (found.facts, found.all_facts) == (FACTS | volume, True)
    assert state.series_without_facts() == []


def test_facts_of_fewer_images_are_not_added(state: State) -> None:
    series = routed(state)
    routed(state, images=4)
    state.record_facts(SERIES, series.generation, {"IsAVolume": Element("FLAG", (True,))})
    state.record_evidence(evidence(series, all_facts=True))
    state.record_facts("1.2.3", 1, {})
    (found,) = state.study_evidence(STUDY)
    assert (found.facts, found.all_facts) == (FACTS, False)


def test_series_without_evidence_come_after_those_that_lack_facts_and_the_newest_first(state: State) -> None:
    for uid in (SERIES, OTHER, f"{STUDY}.3"):
        state.record_routing(complete(state, uid), [], "as it was once done", {})
    assert [s.series_instance_uid for s in state.series_without_facts(2)] == [f"{STUDY}.3", OTHER]
    assert state.series_without_facts(2, without_any=False) == []
    lacking = state.series(OTHER)
    state.record_evidence(evidence(lacking))
    assert [s.series_instance_uid for s in state.series_without_facts()] == [OTHER]
    assert [s.series_instance_uid for s in state.series_without_facts(without_any=False)] == [OTHER]
    state.record_evidence(evidence(lacking, all_facts=True))
    assert [s.series_instance_uid for s in state.series_without_facts()] == [f"{STUDY}.3", SERIES]


def test_a_series_comes_with_its_instances_and_when_the_last_one_came(state: State) -> None:
    routed(state)
    found = state.series(SERIES)
    assert (len(found.instances), found.generation, found.modality) == (3, 1, "CT")
    assert found.received_at is not None
    assert abs(found.received_at - datetime.now(UTC)) < timedelta(minutes=5)
    with pytest.raises(NotFound, match=r"no series 1\.2\.3"):
        state.series("1.2.3")


def test_the_series_of_a_study_are_those_that_rules_were_asked_about(state: State) -> None:
    routed(state)
    routed(state, OTHER)
    state.record_instances(
        [instance(1, f"{STUDY}.3"), instance(1, f"{STUDY}.4", modality="SEG", manufacturer="dicomnode")]
    )
    assert [s.series_instance_uid for s in state.study_series(STUDY)] == [SERIES, OTHER]


# ---------------------------------------------------------------------------------------------------- priors


def test_priors_are_earlier_studies_of_the_patient_the_newest_first(state: State) -> None:
    def received(uid: str, date: str, patient: str = "P") -> None:
        state.record_instances([instance(1, f"{uid}.1", study_instance_uid=uid, study_date=date, patient_id=patient)])

    for uid, date in (
        ("9.1", "20240101"),
        ("9.2", "20250601"),
        ("9.3", "20260102"),
        ("9.4", ""),
        ("9.5", "20240601"),
    ):
        received(uid, date)
    received("9.6", "20240101", "Q")
    received("9.7", "20251231")
    received("9.8", "20251231")
    received("9.9", "20240101", "")
    assert state.prior_studies("9.3") == ["9.8", "9.7", "9.2", "9.5", "9.1"]
    assert state.prior_studies("9.8", 2) == ["9.7", "9.2"]
    assert state.prior_studies("9.7", 2) == ["9.2", "9.5"]  # of the same day, but it came later
    assert [state.prior_studies(uid) for uid in ("9.1", "9.4", "9.6", "9.9", "1.2.3")] == [[], [], [], [], []]


# ------------------------------------------------------------------------------------------- a study's jobs


def test_a_study_is_routed_once(bench: Bench) -> None:
    state = bench.state
    series = routed(state)
    generation = study_complete(state, 3)
    assert series_state(state) is SeriesState.NOT_ROUTED
    (job_id,) = state.record_study_routing(STUDY, generation, [routing(series, new_job(state))])
    assert bench.queue.enqueued_jobs == [(job_id, 0.0)]
    assert series_state(state) is SeriesState.ROUTED
    assert state.study(STUDY).series[0].why == "another reason"
    assert state.record_study_routing(STUDY, generation, [routing(series, new_job(state))]) == []
    assert state.complete_unrouted_studies() == []
    told = kinds(state)
    assert told[told.index("study.complete") :] == ["study.complete", "series.routed", "job.made", "study.routed"]
    assert state.study(STUDY).state is StudyState.ROUTED


def test_a_study_of_another_generation_or_one_that_is_still_received_is_not_routed(state: State) -> None:
    series = routed(state)
    generation = study_complete(state, 3)
    jobs = [routing(series, new_job(state))]
    assert state.record_study_routing(STUDY, generation + 1, jobs) == []
    assert state.record_study_routing("1.2.3", 1, jobs) == []
    state.record_instances([instance(9)])
    assert state.record_study_routing(STUDY, generation, jobs) == []
    assert state.jobs() == []


def test_without_a_word_a_study_is_routed_without_an_event(state: State) -> None:
    routed(state)
    before = kinds(state)
    assert state.record_study_routing(STUDY, study_complete(state, 3), []) == []
    assert kinds(state) == [*before, "study.complete"]


def test_a_job_with_other_options_takes_the_place_of_the_one_that_waits(state: State) -> None:
    series, partner = routed(state), routed(state, OTHER)
    job = replace(new_job(state), inputs={"pet": OTHER}, parameters={"overlap": 0.5}, objects=("SEG",))
    (first,) = state.record_study_routing(STUDY, study_complete(state, 6), [routing(series, job)])
    view = state.job(first)
    assert (view.inputs, view.parameters) == ({"pet": OTHER}, {"overlap": 0.5})
    state.record_instances([instance(1, f"{STUDY}.3")])
    third = state.complete_series(f"{STUDY}.3", 0)
    assert third is not None
    state.record_routing(third, [], "a reason", {})
    changed = replace(job, inputs={"pet": f"{STUDY}.3"})
    (second,) = state.record_study_routing(STUDY, study_complete(state, 7), [routing(series, changed)])
    assert states(state) == {first: (JobState.CANCELLED, "superseded"), second: (JobState.QUEUED, "")}
    assert partner.generation == 1


@pytest.mark.parametrize("ended", ["queued", "running", "cancelled", "failed"])
def test_the_same_job_is_not_made_again_whatever_became_of_it(state: State, ended: str) -> None:
    series = routed(state)
    (job_id,) = state.record_study_routing(STUDY, study_complete(state, 3), [routing(series, new_job(state))])
    _end(state, job_id, ended)
    routed(state, OTHER)
    again = routing(series, new_job(state))
    assert state.record_study_routing(STUDY, study_complete(state, 6), [again]) == []
    assert [str(s) for s, _ in states(state).values()] == [ended]


def _end(state: State, job_id: str, ended: str) -> None:
    if ended in ("running", "failed"):
        assert state.start_job(job_id) is not None
    if ended == "failed":
        state.finish_job(job_id, JobFailed("no", "no", retryable=False))
    if ended == "cancelled":
        state.cancel_job(job_id)


def test_more_images_of_an_input_make_the_job_again(state: State) -> None:
    series = routed(state)
    routed(state, OTHER)
    job = replace(new_job(state), inputs={"pet": OTHER})
    (first,) = state.record_study_routing(STUDY, study_complete(state, 6), [routing(series, job)])
    assert state.start_job(first) is not None
    routed(state, OTHER, images=4)
    (second,) = state.record_study_routing(STUDY, study_complete(state, 7), [routing(series, job)])
    assert states(state) == {first: (JobState.CANCELLED, "superseded"), second: (JobState.QUEUED, "")}


def test_a_choice_that_changed_withdraws_the_job_of_the_other_series(state: State) -> None:
    series, other = routed(state), routed(state, OTHER)
    job = new_job(state)
    (first,) = state.record_study_routing(STUDY, study_complete(state, 6), [routing(series, job), routing(other)])
    routed(state, f"{STUDY}.3")
    changed = [routing(series, why="not chosen any more"), routing(other, job)]
    (second,) = state.record_study_routing(STUDY, study_complete(state, 9), changed)
    assert states(state) == {first: (JobState.CANCELLED, "superseded"), second: (JobState.QUEUED, "")}
    assert series_state(state, SERIES) is SeriesState.NOT_ROUTED
    assert series_state(state, OTHER) is SeriesState.ROUTED
    routed(state, f"{STUDY}.3", images=4)
    (third,) = state.record_study_routing(STUDY, study_complete(state, 10), [routing(series, job), routing(other)])
    assert states(state)[third] == (JobState.QUEUED, "")  # one that was withdrawn may come back


def test_a_choice_that_changed_keeps_back_the_results_of_the_other_series(state: State) -> None:
    """Until it changes back."""
    state.add_destination(ARCHIVE)
    one, job = routed(state), new_job(state)
    (done,) = state.record_study_routing(STUDY, study_complete(state, 3), [routing(one, job)])
    assert state.start_job(done) is not None
    state.finish_job(done, finished())
    first, second = state.job(done).deliveries
    assert state.start_delivery(first.delivery_id) is not None
    state.finish_delivery(first.delivery_id, Delivered("Success"))
    other = routed(state, OTHER)
    state.record_study_routing(STUDY, study_complete(state, 6), [routing(one), routing(other, job)])
    assert [d.state for d in state.job(done).deliveries] == [DeliveryState.SENT, DeliveryState.CANCELLED]
    told = [event for event in state.events(STUDY) if event.kind == "job.unwanted"]
    assert [event.job_id for event in told] == [done]
    assert "1 that waited to be sent stay here; what was sent before stays at archive" in told[0].message
    third = routed(state, f"{STUDY}.3")
    state.record_study_routing(STUDY, study_complete(state, 9), [routing(one), routing(other, job), routing(third)])
    assert len([event for event in state.events(STUDY) if event.kind == "job.unwanted"]) == 1, "told once"
    fourth = routed(state, f"{STUDY}.4")
    state.record_study_routing(STUDY, study_complete(state, 12), [routing(one, job), routing(other), routing(fourth)])
    assert [d.state for d in state.job(done).deliveries] == [DeliveryState.SENT, DeliveryState.QUEUED]
    assert second.delivery_id in {d.delivery_id for d in state.job(done).deliveries}


def test_jobs_of_rules_that_had_no_part_in_it_stay(state: State) -> None:
    early = new_job(state, rule="early")
    series = routed(state, SERIES, early)
    (job_id,) = states(state)
    state.record_study_routing(STUDY, study_complete(state, 3), [routing(series, new_job(state))])
    assert states(state)[job_id] == (JobState.QUEUED, "")
    assert len(states(state)) == 2


def test_the_same_words_are_told_once(state: State) -> None:
    series = routed(state)
    state.record_study_routing(STUDY, study_complete(state, 3), [routing(series)])
    routed(state, OTHER)
    state.record_study_routing(STUDY, study_complete(state, 6), [routing(series)])
    of = [e.kind for e in state.events(STUDY) if e.series_instance_uid == SERIES and "routed" in e.kind]
    assert of == ["series.not-routed", "series.not-routed"]


def test_a_series_that_grew_meanwhile_gets_no_job(state: State) -> None:
    """Its study was completed again since, by another process: what was decided of fewer images is not used."""
    series = routed(state)
    routed(state, images=4)
    assert state.record_study_routing(STUDY, study_complete(state, 4), [routing(series, new_job(state))]) == []


def test_a_job_waits_for_its_hours(bench: Bench) -> None:
    clock = datetime.now(NODE_ZONE)
    start, end = (time((clock.hour + hours) % 24) for hours in (3, 5))
    series = complete(bench.state)
    job = replace(new_job(bench.state), schedule=(Window(start, end),))
    (job_id,) = bench.state.record_routing(series, [job], "a reason", {}, evidence(series))
    ((queued, delay_s),) = bench.queue.enqueued_jobs
    assert queued == job_id
    assert 3600 < delay_s < 5 * 3600
    not_before = bench.state.job(job_id).not_before
    assert not_before is not None
    assert not_before.astimezone(NODE_ZONE).time() == start
    (made,) = [e for e in bench.state.events(STUDY) if e.kind == "job.made"]
    assert f"{start:%H:%M} on" in made.message


def test_two_processes_that_route_the_same_study_make_one_job(state: State) -> None:
    series = routed(state)
    generation, job = study_complete(state, 3), new_job(state)
    made: list[str] = []

    def route() -> None:
        made.extend(state.record_study_routing(STUDY, generation, [routing(series, job)]))

    threads = [threading.Thread(target=route) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1
    assert [job.job_id for job in state.jobs()] == made
