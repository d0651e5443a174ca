"""What jobs wait for besides their turn: room on their host, and their model's limit."""

from __future__ import annotations

import dataclasses

import pytest

from dicomnode.domain.job import JOB_CRASHES_MOST, JobState, Priority
from dicomnode.errors import NotFound
from dicomnode.ports import JobFailed, State
from tests.adapters.state_material import STUDY, complete, finished, model_card, new_job, routed
from tests.contract.state_bench import Bench, bench, kinds, state

__all__ = ["bench", "state"]


def urgent(state: State, number: int, priority: Priority) -> str:
    new = dataclasses.replace(new_job(state), priority=priority)
    (job_id,) = state.record_routing(complete(state, f"{STUDY}.{number}"), [new], "so", {})
    return job_id


def test_what_will_be_started_is_known_before(state: State) -> None:
    job = routed(state)
    waiting = state.waiting_job(job, 1)  # type: ignore[attr-defined]
    assert state.job(job).state is JobState.QUEUED
    assert state.waiting_job(job, 2) is None  # type: ignore[attr-defined]
    started = state.start_job(job, 1)
    assert started == dataclasses.replace(waiting, attempt=1)
    assert started is not None
    assert started.priority is Priority.ROUTINE


def test_a_job_that_is_held_says_why_and_tells_it_once(state: State) -> None:
    job = routed(state)
    for free in ("2.0", "1.9"):
        assert state.hold_job(job, 1, f"waits for memory: needs 3.1 GB, {free} GB free")  # type: ignore[attr-defined]
    held = state.job(job)
    assert (held.state, held.reason) == (JobState.QUEUED, "waits for memory: needs 3.1 GB, 1.9 GB free")
    assert kinds(state).count("job.waits") == 1
    assert state.start_job(job, 1) is not None
    assert state.job(job).reason == ""


def test_a_job_that_waits_no_more_is_not_held(state: State) -> None:
    job = routed(state)
    state.prioritise_job(job, Priority.STAT)
    assert not state.hold_job(job, 1, "waits")  # type: ignore[attr-defined]
    assert state.hold_job(job, 2, "waits")  # type: ignore[attr-defined]
    state.cancel_job(job)
    assert not state.hold_job(job, 2, "waits")  # type: ignore[attr-defined]


def test_a_job_that_another_machine_is_to_run_gets_a_ticket_of_that_machine(bench: Bench) -> None:
    state = bench.state
    job = routed(state)
    for run in (1, 2):
        assert state.leave_job(job, run, "waits for b", "b")  # type: ignore[attr-defined]
    left = state.job(job)
    assert (left.state, left.code, left.reason) == (JobState.QUEUED, "elsewhere", "waits for b")
    assert kinds(state).count("job.waits") == 1
    assert (bench.queue.enqueued_jobs[-2:], bench.queue.machines[-2:]) == ([(job, 0.0)] * 2, ["b"] * 2)
    assert not state.leave_job(job, 1, "waits for b", "b")  # type: ignore[attr-defined]
    assert state.start_job(job, 3) is not None
    assert (state.job(job).code, state.job(job).reason) == ("", "")


def test_a_job_that_its_worker_has_no_place_for_gets_a_ticket_of_all(bench: Bench) -> None:
    state = bench.state
    job = routed(state)
    for run in (1, 2):
        assert state.leave_job(job, run, "waits for a place", "")  # type: ignore[attr-defined]
    left = state.job(job)
    assert (left.state, left.code, left.reason) == (JobState.QUEUED, "room", "waits for a place")
    assert kinds(state).count("job.waits") == 1
    assert (bench.queue.enqueued_jobs[-2:], bench.queue.machines[-2:]) == ([(job, 0.0)] * 2, [""] * 2)
    assert state.leave_job(job, 3, "waits for its model", "", 2.0)  # type: ignore[attr-defined]
    assert bench.queue.enqueued_jobs[-1] == (job, 2.0)
    state.cancel_job(job)
    assert not state.leave_job(job, 4, "waits for a place", "")  # type: ignore[attr-defined]


def test_a_limit_is_of_all_versions_and_is_set_shown_and_taken_away(state: State) -> None:
    routed(state)
    assert state.model_limits() == {}
    assert state.limit_model("torso-ct", 2, dry_run=True) is None
    assert state.model_limits() == {}
    assert state.limit_model("torso-ct", 2) is None
    assert state.limit_model("torso-ct", 0) == 2
    assert state.model_limits() == {"torso-ct": 0}
    assert state.limit_model("torso-ct", None) == 0
    assert state.model_limits() == {}
    with pytest.raises(NotFound, match="there is no model lung; those there are: dicomnode models list"):
        state.limit_model("lung", 1)


def test_a_job_beyond_the_limit_waits_without_a_ticket_until_one_ends(bench: Bench) -> None:
    state = bench.state
    first = routed(state, f"{STUDY}.1")
    second = routed(state, f"{STUDY}.2", rule="again", version="1.1.0")
    state.limit_model("torso-ct", 1)
    work = state.start_job(first, 1)
    assert work is not None
    assert state.start_job(second, 1) is None
    held = state.job(second)
    assert (held.state, held.code) == (JobState.QUEUED, "model-limit")
    assert held.reason == "waits: of the model torso-ct 1 may run at once, and 1 do"
    assert not state.requeue_job(second, 1), "it is not lost"  # type: ignore[attr-defined]
    before = len(bench.queue.enqueued_jobs)
    state.finish_job(first, finished(series=f"{STUDY}.1"), work.attempt)
    assert bench.queue.enqueued_jobs[before:] == [(second, 0.0)]
    assert state.start_job(second, 1) is None, "it has a newer ticket"
    assert state.start_job(second, 2) is not None


@pytest.mark.parametrize("how", ["cancelled", "postponed"])
def test_whatever_ends_a_job_lets_the_next_begin(bench: Bench, how: str) -> None:
    state = bench.state
    first, second = routed(state, f"{STUDY}.1"), routed(state, f"{STUDY}.2")
    state.limit_model("torso-ct", 1)
    work = state.start_job(first, 1)
    assert work is not None
    assert state.start_job(second, 1) is None
    if how == "cancelled":
        state.cancel_job(first)
    else:
        state.finish_job(first, JobFailed("engine-unavailable", "away", retryable=True), work.attempt)
    assert (second, 0.0) in bench.queue.enqueued_jobs[2:]


def test_of_those_that_wait_the_most_urgent_is_next(bench: Bench) -> None:
    state = bench.state
    first = routed(state, f"{STUDY}.1")
    state.limit_model("torso-ct", 1)
    work = state.start_job(first, 1)
    assert work is not None
    waiting = [urgent(state, n, p) for n, p in enumerate((Priority.LOW, Priority.ROUTINE, Priority.STAT), 2)]
    assert [state.start_job(job, 1) for job in waiting] == [None, None, None]
    before = len(bench.queue.enqueued_jobs)
    state.finish_job(first, finished(series=f"{STUDY}.1"), work.attempt)
    assert bench.queue.enqueued_jobs[before:][0] == (waiting[2], 0.0)


def test_a_free_place_is_of_who_came_first_whichever_worker_asks(bench: Bench) -> None:
    """As two workers do, of which the one with the later job is quicker."""
    state = bench.state
    first, second, third = (routed(state, f"{STUDY}.{n}") for n in (1, 2, 3))
    state.limit_model("torso-ct", 1)
    assert state.start_job(second, 1) is None
    words = "waits: of the model torso-ct 1 may run at once, and 1 do or come first"
    assert state.job(second).reason == words
    work = state.start_job(first, 1)
    assert work is not None
    before = len(bench.queue.enqueued_jobs)
    state.finish_job(first, finished(series=f"{STUDY}.1"), work.attempt)
    assert bench.queue.enqueued_jobs[before:] == [(second, 0.0)]
    assert state.start_job(third, 1) is None, "it asks before the one whose turn it is"
    stat = urgent(state, 4, Priority.STAT)
    assert state.start_job(stat, 1) is not None
    assert state.start_job(second, 2) is None
    assert state.job(second).reason == "waits: of the model torso-ct 1 may run at once, and 1 do"


@pytest.mark.parametrize("how", ["postponed", "elsewhere", "lower", "cancelled"])
def test_who_cannot_begin_now_keeps_nobody_from_a_free_place(bench: Bench, how: str) -> None:
    state = bench.state
    first, second = routed(state, f"{STUDY}.1"), routed(state, f"{STUDY}.2")
    state.limit_model("torso-ct", 1)
    assert state.start_job(second, 1) is None
    work = state.start_job(first, 1) if how == "postponed" else None
    before = len(bench.queue.enqueued_jobs)
    if work is not None:
        state.finish_job(first, JobFailed("engine-unavailable", "away", retryable=True), work.attempt)
    elif how == "elsewhere":
        state.leave_job(first, 1, "waits for b", "b")  # type: ignore[attr-defined]
    elif how == "lower":
        state.prioritise_job(first, Priority.LOW)
    else:
        state.cancel_job(first)
    assert (second, 0.0) in bench.queue.enqueued_jobs[before:]
    assert state.start_job(second, 2) is not None


def test_what_a_dead_worker_kept_of_a_limit_is_free_at_once_and_its_job_stands_in_line_again(bench: Bench) -> None:
    state = bench.state
    first, second = routed(state, f"{STUDY}.1"), routed(state, f"{STUDY}.2")
    state.limit_model("torso-ct", 1)
    work = state.start_job(first, 1)
    assert work is not None
    assert state.start_job(second, 1) is None
    stat = urgent(state, 3, Priority.STAT)
    assert state.start_job(stat, 1) is None
    lose = state.lose_job  # type: ignore[attr-defined]
    assert not lose(second, 1), "it does not run"
    before = len(bench.queue.enqueued_jobs)
    assert lose(first, 1)
    assert not lose(first, 1), "another worker was quicker"
    assert bench.queue.enqueued_jobs[before:] == [(first, 0.0), (stat, 0.0)]
    state.finish_job(first, finished(series=f"{STUDY}.1"), work.attempt)  # it was not dead after all
    assert state.job(first).state is JobState.QUEUED
    assert state.start_job(first, 2) is None
    assert state.start_job(stat, 2) is not None
    assert kinds(state).count("job.lost") == 1


def test_a_job_that_is_lost_too_often_is_given_up(state: State) -> None:
    job = routed(state)
    for run in range(1, JOB_CRASHES_MOST + 2):
        assert state.start_job(job, run) is not None
        assert state.lose_job(job, run)  # type: ignore[attr-defined]
    assert (state.job(job).state, state.job(job).code) == (JobState.FAILED, "worker-died")


def test_a_higher_limit_lets_as_many_begin(bench: Bench) -> None:
    state = bench.state
    jobs = [routed(state, f"{STUDY}.{n}") for n in range(1, 5)]
    state.limit_model("torso-ct", 1)
    assert [state.start_job(job, 1) is None for job in jobs] == [False, True, True, True]
    before = len(bench.queue.enqueued_jobs)
    state.limit_model("torso-ct", 3)
    assert [job for job, _ in bench.queue.enqueued_jobs[before:]] == jobs[1:3]
    state.limit_model("torso-ct", 0)
    assert [job for job, _ in bench.queue.enqueued_jobs[before:]] == jobs[1:]


def test_the_card_may_say_the_limit_and_the_administrator_another(state: State) -> None:
    card = model_card("single")
    card = dataclasses.replace(card, network=dataclasses.replace(card.network, at_once=1))
    model = state.add_model(card, "s" * 64, new_job(state).model.path)
    jobs = []
    for number in (1, 2):
        new = dataclasses.replace(new_job(state), model=model)
        jobs += state.record_routing(complete(state, f"{STUDY}.{number}"), [new], "so", {})
    assert state.start_job(jobs[0], 1) is not None
    assert state.start_job(jobs[1], 1) is None
    state.limit_model("single", 0)
    assert state.start_job(jobs[1], 2) is not None


def composed(state: State, number: int, name: str = "nodules") -> str:
    """A job of a model that runs after torso-ct, on a series of its own."""
    first = new_job(state)
    later = state.add_model(model_card(name), name[0] * 64, first.model.path)
    new = dataclasses.replace(first, model=later, before={"torso-ct": first.model})
    (job_id,) = state.record_routing(complete(state, f"{STUDY}.{number}"), [new], "so", {})
    return job_id


def test_what_runs_before_another_model_counts_for_its_own_limit(bench: Bench) -> None:
    state = bench.state
    first, own, second = composed(state, 2), routed(state, f"{STUDY}.1"), composed(state, 3)
    state.limit_model("torso-ct", 1)
    work = state.start_job(first, 1)
    assert work is not None
    assert [state.start_job(own, 1), state.start_job(second, 1)] == [None, None]
    assert state.job(own).reason == "waits: of the model torso-ct 1 may run at once, and 1 do"
    words = "waits: of the model torso-ct, which comes first, 1 may run at once, and 1 do"
    assert state.job(second).reason == words
    before = len(bench.queue.enqueued_jobs)
    state.finish_job(first, finished(series=f"{STUDY}.2"), work.attempt)
    assert [job for job, _ in bench.queue.enqueued_jobs[before:]] == [own]
    assert state.start_job(own, 2) is not None
    state.cancel_job(own)
    assert bench.queue.enqueued_jobs[-1] == (second, 0.0)


def test_a_job_that_two_limits_keep_back_keeps_nobody_else_waiting(bench: Bench) -> None:
    """Of torso-ct one may run once more, but what waits longest for that needs nodules too, which is at its limit."""
    state = bench.state
    runs, both, own = composed(state, 1), composed(state, 2), routed(state, f"{STUDY}.3")
    state.limit_model("torso-ct", 1)
    state.limit_model("nodules", 1)
    assert state.start_job(runs, 1) is not None
    assert [state.start_job(both, 1), state.start_job(own, 1)] == [None, None]
    before = len(bench.queue.enqueued_jobs)
    state.limit_model("torso-ct", 2)
    assert [job for job, _ in bench.queue.enqueued_jobs[before:]] == [own]
    state.limit_model("torso-ct", 0)
    state.cancel_job(runs)
    assert [job for job, _ in bench.queue.enqueued_jobs[before:]] == [own, both]


def test_a_job_whose_process_died_begins_again_whatever_the_limit(state: State) -> None:
    job = routed(state)
    state.limit_model("torso-ct", 1)
    assert state.start_job(job, 1) is not None
    assert state.start_job(job, 1) is not None


def test_what_a_version_took_is_kept_for_each_machine_and_engine(state: State) -> None:
    model = new_job(state).model
    keep = state.record_peak  # type: ignore[attr-defined]
    for host, engine, size in (("a", "onnx fp32", 1e9), ("b", "onnx fp32", 2e9), ("a", "onnx fp32", 3e9)):
        keep(model.digest, host, engine, {"host_bytes": size}, 5_000_000_000)
    found = [state.peak(model.digest, host, "onnx fp32") for host in ("a", "b", "c")]  # type: ignore[attr-defined]
    assert found == [({"host_bytes": 3e9}, 5_000_000_000), ({"host_bytes": 2e9}, 5_000_000_000), None]
    keep("f" * 64, "a", "onnx fp32", {"host_bytes": 1.0}, 1)  # of a version that is not there any more
    assert state.peak("f" * 64, "a", "onnx fp32") is None  # type: ignore[attr-defined]
