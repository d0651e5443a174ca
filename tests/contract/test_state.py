"""What every State does with what comes and goes, tried on SQLite, on PostgreSQL and on the fake."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.job import JOB_ATTEMPTS_MOST, DeliveryState, JobState, Priority
from dicomnode.domain.study import Recorded, SeriesState
from dicomnode.ports import Delivered, JobFailed, JobRefused, NotDelivered, State
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
    results,
    routed,
    succeeded,
)
from tests.contract.state_bench import OTHER, Bench, bench, kinds, series_state, state

__all__ = ["bench", "state"]


# -------------------------------------------------------------------------------------------------- receive


def test_an_instance_is_new_once_then_a_duplicate_and_with_other_bytes_a_conflict(state: State) -> None:
    first, other = instance(1), instance(1, sha256="f" * 64, path="beside")
    assert state.record_instances([first, first, other]) == [Recorded.NEW, Recorded.DUPLICATE, Recorded.CONFLICT]
    assert state.record_instances([other, first]) == [Recorded.DUPLICATE, Recorded.DUPLICATE]
    found = state.complete_series(SERIES, 0)
    assert found is not None
    assert [i.path for i in found.instances] == [first.path]
    assert "instance.conflict" in kinds(state)


def test_recording_nothing_is_harmless(state: State) -> None:
    assert state.record_instances([]) == []


def test_a_late_image_opens_a_series_again_and_a_repeat_does_not(state: State) -> None:
    state.record_routing(complete(state), [], "no rule", {})
    assert state.record_instances([instance(1)]) == [Recorded.DUPLICATE]
    assert series_state(state) is SeriesState.NOT_ROUTED
    state.record_instances([instance(1, sha256="f" * 64)])
    assert series_state(state) is SeriesState.NOT_ROUTED
    assert state.record_instances([instance(4)]) == [Recorded.NEW]
    assert series_state(state) is SeriesState.RECEIVING
    again = state.complete_series(SERIES, 0)
    assert again is not None
    assert (again.generation, len(again.instances)) == (2, 4)


def test_own_results_are_known_by_uid_by_series_and_by_maker_and_never_completed(state: State) -> None:
    state.add_destination(ARCHIVE)
    succeeded(state)
    seg = results()[0]
    back = {"series": seg.series_instance_uid, "modality": "SEG"}
    recorded = state.record_instances(
        [
            instance(1, **back, sop_instance_uid=seg.sop_instance_uid),
            instance(2, **back),
            instance(3, OTHER, modality="SR", manufacturer="dicomnode"),
            instance(4, f"{STUDY}.5", modality="SR", manufacturer="ACME"),
        ]
    )
    assert recorded == [Recorded.OWN_RESULT, Recorded.OWN_RESULT, Recorded.OWN_RESULT, Recorded.NEW]
    assert series_state(state, seg.series_instance_uid) is SeriesState.OWN_RESULT
    assert series_state(state, OTHER) is SeriesState.OWN_RESULT
    assert state.quiet_series(0) == [f"{STUDY}.5"]
    assert state.complete_series(OTHER, 0) is None


def test_text_that_no_database_takes_is_mended(state: State) -> None:
    state.record_instances([instance(1, patient_id="P\0" + "x" * 100, study_description="\udce4" + "d" * 400)])
    assert state.study(STUDY).study_instance_uid == STUDY


# ------------------------------------------------------------------------------------------------- complete


def test_a_series_is_quiet_after_its_quiet_period_and_complete_once(state: State) -> None:
    state.record_instances([instance(2), instance(1), instance(3, instance_number=None)])
    assert state.quiet_series(3600) == []
    assert state.complete_series(SERIES, 3600) is None
    assert state.quiet_series(0) == [SERIES]
    found = state.complete_series(SERIES, 0)
    assert found is not None
    assert [i.sop_instance_uid for i in found.instances] == [f"{SERIES}.{n}" for n in (1, 2, 3)]
    assert (found.modality, found.calling_ae_title, found.called_ae_title) == ("CT", "SCANNER", "NODE")
    assert found.generation == 1
    assert state.complete_series(SERIES, 0) is None
    assert state.quiet_series(0) == []
    assert state.complete_unrouted() == [found]


def test_the_longest_quiet_series_come_first_and_no_more_than_asked(state: State) -> None:
    uids = [f"{STUDY}.{n}" for n in (7, 5, 6)]
    for uid in uids:
        state.record_instances([instance(1, uid)])
        time.sleep(0.002)  # SQLite's clock counts milliseconds
    assert state.quiet_series(0) == uids
    assert state.quiet_series(0, most=2) == uids[:2]


def test_an_unknown_series_is_not_completed(state: State) -> None:
    assert state.complete_series("1.2.3", 0) is None


# ---------------------------------------------------------------------------------------------------- route


def test_routing_makes_a_job_and_puts_it_into_the_queue(bench: Bench) -> None:
    state = bench.state
    found = complete(state)
    new = new_job(state, destinations=("archive", "web"))
    (job_id,) = state.record_routing(found, [new], "torso matched", {"rules": ["torso"]})
    assert bench.queue.enqueued_jobs == [(job_id, 0.0)]
    assert series_state(state) is SeriesState.ROUTED
    assert state.complete_unrouted() == []
    view = state.job(job_id)
    assert (view.state, view.priority, view.attempts) == (JobState.QUEUED, Priority.ROUTINE, 0)
    assert (view.model, view.rule) == ("torso-ct 1.0.0", "torso revision 1")
    assert (view.study_instance_uid, view.series_instance_uid) == (STUDY, SERIES)


def test_what_no_rule_wants_says_why(bench: Bench) -> None:
    state = bench.state
    assert state.record_routing(complete(state), [], "no rule wants MR", {}) == []
    assert series_state(state) is SeriesState.NOT_ROUTED
    assert state.study(STUDY).series[0].why == "no rule wants MR"
    assert "no rule wants MR" in state.events(STUDY)[-1].message
    assert bench.queue.enqueued_jobs == []


def test_a_series_is_routed_once(state: State) -> None:
    found, new = complete(state), new_job(state)
    assert len(state.record_routing(found, [new], "first", {})) == 1
    assert state.record_routing(found, [new], "second", {}) == []
    assert len(state.jobs()) == 1


def test_a_routing_that_late_images_overtook_counts_for_nothing(state: State) -> None:
    found, new = complete(state), new_job(state)
    state.record_instances([instance(9)])
    assert state.record_routing(found, [new], "too late", {}) == []
    again = state.complete_series(SERIES, 0)
    assert again is not None
    assert state.record_routing(found, [new], "too late", {}) == []
    assert len(state.record_routing(again, [new], "in time", {})) == 1


def test_the_same_decision_twice_makes_one_job(state: State) -> None:
    found, new = complete(state), new_job(state)
    assert len(state.record_routing(found, [new, new, replace(new, priority=Priority.STAT)], "twice", {})) == 1


@pytest.mark.parametrize("running", [False, True])
def test_late_images_supersede_the_job_of_the_part(state: State, running: bool) -> None:
    state.add_destination(ARCHIVE)
    old = routed(state)
    work = state.start_job(old) if running else None
    state.record_instances([instance(4)])
    again = state.complete_series(SERIES, 0)
    assert again is not None
    (new,) = state.record_routing(again, [new_job(state)], "all of it", {})
    assert (state.job(old).state, state.job(old).code) == (JobState.CANCELLED, "superseded")
    if work is not None:
        state.finish_job(old, finished())
    assert state.job(old).results == ()
    work = state.start_job(new)
    assert work is not None
    assert len(work.series.instances) == 4


# -------------------------------------------------------------------------------------------- infer, encode


def test_a_job_starts_with_all_it_needs(state: State) -> None:
    job_id = routed(state, destinations=("archive", "web"))
    work = state.start_job(job_id)
    assert work is not None
    assert (work.job_id, work.attempt, work.destinations) == (job_id, 1, ("archive", "web"))
    assert (work.rule_name, work.rule_revision, work.predecessors) == ("torso", 1, ())
    assert work.model.card == model_card()
    assert work.model.path == Path("/models/torso-ct")
    assert [i.instance_number for i in work.series.instances] == [1, 2, 3]
    assert state.job(job_id).state is JobState.RUNNING
    assert state.job(job_id).started_at is not None


def test_a_job_whose_process_died_starts_again(state: State) -> None:
    job_id = routed(state)
    state.start_job(job_id)
    work = state.start_job(job_id)
    assert work is not None
    assert work.attempt == 2


def test_no_job_starts_that_is_over_or_not_there(state: State) -> None:
    job_id = succeeded(state)
    assert state.start_job(job_id) is None
    assert state.start_job("feedfacefeedface") is None


def test_a_finished_job_has_its_results_and_deliveries_to_each_destination(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    state.add_destination(WEB)
    job_id = routed(state, destinations=("archive", "web"))
    state.start_job(job_id)
    outcome = finished(timings_s={"infer": 1.5}, details={"volume_ml": {"Lungs": 4000}}, note="all well")
    state.finish_job(job_id, outcome)
    view = state.job(job_id)
    assert (view.state, view.results, view.reason) == (JobState.SUCCEEDED, results(), "all well")
    assert (view.timings_s, view.details) == ({"infer": 1.5}, {"volume_ml": {"Lungs": 4000}})
    sent = {(d.destination, d.kind) for d in view.deliveries}
    assert sent == {("archive", "SEG"), ("archive", "SR"), ("web", "SEG"), ("web", "SR")}
    assert {d.state for d in view.deliveries} == {DeliveryState.QUEUED}
    assert sorted(bench.queue.enqueued_deliveries) == sorted((d.delivery_id, 0.0) for d in view.deliveries)


def test_a_job_finishes_once(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    state.finish_job(job_id, finished("2"))
    state.finish_job(job_id, JobFailed("x", "too late", retryable=True))
    assert state.job(job_id).state is JobState.SUCCEEDED
    assert state.job(job_id).results == results()
    assert len(bench.queue.enqueued_deliveries) == 2


def test_a_destination_that_was_removed_gets_nothing(state: State) -> None:
    job_id = succeeded(state, destinations=("nowhere",))
    assert state.job(job_id).deliveries == ()
    assert state.job(job_id).state is JobState.SUCCEEDED


def test_a_reason_that_no_database_takes_is_kept_without_what_it_refuses(state: State) -> None:
    job_id = routed(state)
    state.start_job(job_id)
    state.finish_job(job_id, JobFailed("model-failed", "layer\0 \udce4" + "x" * 5000, retryable=False))
    assert state.job(job_id).state is JobState.FAILED
    assert "layer" in state.job(job_id).reason


def test_a_refused_job_names_its_reason_and_stays(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    state.start_job(job_id)
    state.finish_job(job_id, JobRefused("gantry-tilt", "the gantry was tilted by 12°"))
    view = state.job(job_id)
    assert (view.state, view.code, view.reason) == (JobState.REFUSED, "gantry-tilt", "the gantry was tilted by 12°")
    assert len(bench.queue.enqueued_jobs) == 1
    assert "the gantry was tilted by 12°" in state.events(STUDY)[-1].message


def test_a_failure_that_may_pass_postpones_a_job_until_its_last_attempt(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    for attempt in range(1, JOB_ATTEMPTS_MOST + 1):
        work = state.start_job(job_id)
        assert work is not None
        assert work.attempt == attempt
        state.finish_job(job_id, JobFailed("engine-unavailable", "Triton is down", retryable=True))
    assert [delay for _, delay in bench.queue.enqueued_jobs] == [0.0, 2.0, 4.0, 8.0, 16.0]
    view = state.job(job_id)
    assert (view.state, view.code, view.attempts) == (JobState.FAILED, "engine-unavailable", JOB_ATTEMPTS_MOST)


def test_a_failure_that_will_not_pass_ends_a_job(bench: Bench) -> None:
    job_id = routed(bench.state)
    bench.state.start_job(job_id)
    bench.state.finish_job(job_id, JobFailed("model-failed", "no such layer", retryable=False))
    assert bench.state.job(job_id).state is JobState.FAILED
    assert len(bench.queue.enqueued_jobs) == 1


def test_a_new_run_knows_the_result_before_it(state: State) -> None:
    succeeded(state)
    state.record_instances([instance(4)])
    again = state.complete_series(SERIES, 0)
    assert again is not None
    new = new_job(state, version="1.1.0")
    (job_id, other) = state.record_routing(again, [new, new_job(state, rule="other", version="1.1.0")], "again", {})
    work, unrelated = state.start_job(job_id), state.start_job(other)
    assert work is not None
    assert unrelated is not None
    assert set(work.predecessors) == set(results())
    assert unrelated.predecessors == ()


# -------------------------------------------------------------------------------------------------- deliver


def first_delivery(state: State) -> str:
    state.add_destination(ARCHIVE)
    return state.job(succeeded(state)).deliveries[0].delivery_id


def test_a_delivery_starts_with_all_it_needs_and_ends(state: State) -> None:
    delivery_id = first_delivery(state)
    work = state.start_delivery(delivery_id)
    assert work is not None
    assert (work.delivery_id, work.destination, work.attempt) == (delivery_id, ARCHIVE, 1)
    assert work.result in results()
    state.finish_delivery(delivery_id, Delivered("0x0000 Success"))
    (view,) = (d for d in state.jobs()[0].deliveries if d.delivery_id == delivery_id)
    assert (view.state, view.reason, view.attempts) == (DeliveryState.SENT, "0x0000 Success", 1)
    assert view.delivered_at is not None
    assert state.start_delivery(delivery_id) is None
    state.finish_delivery(delivery_id, NotDelivered("too late", retryable=True))
    assert state.jobs()[0].deliveries[0].state is DeliveryState.SENT


def test_a_delivery_that_fails_waits_and_is_tried_again_more_rarely(bench: Bench) -> None:
    state = bench.state
    delivery_id = first_delivery(state)
    for _ in range(3):
        assert state.start_delivery(delivery_id) is not None
        state.finish_delivery(delivery_id, NotDelivered("connection refused", retryable=True))
    view = state.jobs()[0].deliveries[0]
    assert (view.state, view.reason, view.attempts) == (DeliveryState.WAITING, "connection refused", 3)
    assert view.next_attempt_at is not None
    delays = [delay for id, delay in bench.queue.enqueued_deliveries if id == delivery_id]
    assert delays == [0.0, 2.0, 4.0, 8.0]


def test_a_delivery_that_is_refused_has_failed(state: State) -> None:
    delivery_id = first_delivery(state)
    state.start_delivery(delivery_id)
    state.finish_delivery(delivery_id, NotDelivered("0x0122 SOP class not supported", retryable=False))
    assert state.jobs()[0].deliveries[0].state is DeliveryState.FAILED
    assert "SOP class not supported" in state.events(STUDY)[-1].message


def test_an_unknown_delivery_does_not_start(state: State) -> None:
    assert state.start_delivery("feedfacefeedface") is None
