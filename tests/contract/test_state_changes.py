"""What an administrator asks for: tried without a trace, and refused where it is not clear."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from dicomnode.adapters.db.tables import Base
from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.errors import Ambiguous, DicomNodeError, IllegalTransition, NotFound
from dicomnode.ports import Delivered, JobFailed, NotDelivered, State
from tests.adapters.state_material import ARCHIVE, SERIES, STUDY, instance, routed, succeeded
from tests.contract.state_bench import OTHER, Bench, bench, state

__all__ = ["bench", "state"]


def content(state: State) -> dict[str, list[Any]]:
    """Every row of every table."""
    with state.engine.connect() as connection:  # type: ignore[attr-defined]
        return {
            name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for name, table in Base.metadata.tables.items()
        }


def failed(state: State, series: str = SERIES) -> str:
    job_id = routed(state, series)
    state.start_job(job_id)
    state.finish_job(job_id, JobFailed("model-failed", "it broke", retryable=False))
    return job_id


def refusal(change: Callable[[], object]) -> str:
    with pytest.raises(DicomNodeError) as caught:
        change()
    return f"{caught.value.code}: {caught.value}"


# ----------------------------------------------------------------------------------------------------- tried


def test_what_is_only_tried_answers_and_leaves_no_trace(bench: Bench) -> None:
    state = bench.state
    broken, waiting = failed(state), routed(state, OTHER)
    before, tickets = content(state), list(bench.queue.enqueued_jobs)
    retried = state.retry_job(broken, dry_run=True)
    assert (retried.before.state, retried.after.state) == (JobState.FAILED, JobState.QUEUED)
    cancelled = state.cancel_job(waiting, dry_run=True)
    assert (cancelled.before.state, cancelled.after.state) == (JobState.QUEUED, JobState.CANCELLED)
    put = state.prioritise_job(waiting, Priority.STAT, dry_run=True)
    assert (put.before.priority, put.after.priority) == (Priority.ROUTINE, Priority.STAT)
    assert set(state.rerun_study(STUDY, dry_run=True)) == {SERIES, OTHER}
    assert (content(state), bench.queue.enqueued_jobs) == (before, tickets)
    assert state.retry_job(broken).after.state is JobState.QUEUED
    assert len(bench.queue.enqueued_jobs) == len(tickets) + 1


def test_a_study_is_only_tried_to_be_forgotten(state: State) -> None:
    failed(state)
    before = content(state)
    tried = state.forget_study("A-23", dry_run=True)
    assert content(state) == before
    assert state.forget_study("A-23") == tried


def test_deliveries_are_tried_too(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    seg, sr = state.job(job_id).deliveries
    for delivery, outcome in ((seg, Delivered("0x0000")), (sr, NotDelivered("no", retryable=False))):
        state.start_delivery(delivery.delivery_id)
        state.finish_delivery(delivery.delivery_id, outcome)
    before, tickets = content(state), list(bench.queue.enqueued_deliveries)
    change = state.retry_job(job_id, dry_run=True)
    assert [d.state for d in change.before.deliveries] == [DeliveryState.SENT, DeliveryState.FAILED]
    assert [d.state for d in change.after.deliveries] == [DeliveryState.SENT, DeliveryState.QUEUED]
    assert (content(state), bench.queue.enqueued_deliveries) == (before, tickets)
    done = state.retry_job(job_id).after.deliveries  # but for when it began, by the clock of the database
    assert [replace(d, since=None) for d in done] == [replace(d, since=None) for d in change.after.deliveries]


def test_what_is_tried_fails_as_it_would(state: State) -> None:
    queued, running, cancelled = routed(state), routed(state, OTHER), routed(state, f"{STUDY}.3")
    state.start_job(running)
    state.cancel_job(cancelled)
    for change in (
        lambda **how: state.retry_job(queued, **how),
        lambda **how: state.retry_job(running, **how),
        lambda **how: state.cancel_job(cancelled, **how),
        lambda **how: state.prioritise_job(running, Priority.STAT, **how),
        lambda **how: state.prioritise_job(cancelled, Priority.STAT, **how),
        lambda **how: state.forget_study(STUDY, **how),
        lambda **how: state.rerun_study("nobody", **how),
    ):
        assert refusal(lambda change=change: change(dry_run=True)) == refusal(change)


# ------------------------------------------------------------------------------------------------ not clear


def test_of_several_studies_none_is_done_again_or_forgotten(state: State) -> None:
    for n in (1, 2, 3):
        state.record_instances([instance(1, f"7.{n}.1", study_instance_uid=f"7.{n}", accession_number=f"A-{n}")])
        time.sleep(0.002)  # SQLite's clock counts milliseconds
    before = content(state)
    for change in (state.forget_study, state.rerun_study, state.only_study):
        with pytest.raises(Ambiguous, match="3 studies have 'P-17'") as caught:
            change("P-17")
        assert [line.split()[0] for line in str(caught.value).splitlines()[1:]] == ["7.3", "7.2", "7.1"]
        assert "7.3  2026-01-02  CT thorax" in str(caught.value)
        assert caught.value.exit_code == 1
    assert content(state) == before
    assert [study.study_instance_uid for study in state.studies_named("P-17")] == ["7.3", "7.2", "7.1"]
    assert [study.study_instance_uid for study in state.studies_named("7.2.1")] == ["7.2"]
    assert state.only_study("A-2") == state.only_study("7.2") == state.study("7.2.1")
    assert state.forget_study("A-2").study_instance_uid == "7.2"


def test_an_accession_number_that_is_another_patients_id_is_not_clear(state: State) -> None:
    state.record_instances([instance(1, "7.1.1", study_instance_uid="7.1", accession_number="4711")])
    state.record_instances([instance(1, "7.2.1", study_instance_uid="7.2", patient_id="4711")])
    with pytest.raises(Ambiguous):
        state.forget_study("4711")
    with pytest.raises(NotFound, match="dicomnode studies list"):
        state.studies_named("")


def test_jobs_that_begin_alike_are_listed(state: State) -> None:
    ids = [routed(state, f"{STUDY}.{n}") for n in range(1, 20)]
    shared = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)
    with pytest.raises(Ambiguous) as caught:
        state.cancel_job(shared)
    listed = {line.split()[0] for line in str(caught.value).splitlines()[1:]}
    assert listed == {i for i in ids if i.startswith(shared)}
    with pytest.raises(NotFound, match="dicomnode jobs list"):
        state.job("zzzz")


# ----------------------------------------------------------------------------------------------------- done


def test_a_priority_that_a_job_has_already_changes_nothing(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    before, tickets = content(state), list(bench.queue.enqueued_jobs)
    for now in (False, True):
        change = state.prioritise_job(job_id, Priority.ROUTINE, now=now)
        assert change.before == change.after
    assert (content(state), bench.queue.enqueued_jobs) == (before, tickets)
    assert state.start_job(job_id, 1) is not None, "its ticket is the one it had"


def test_a_job_that_ended_says_which_command_helps(state: State) -> None:
    state.add_destination(ARCHIVE)
    done, broken = succeeded(state), failed(state, OTHER)
    for delivery in state.job(done).deliveries:
        state.start_delivery(delivery.delivery_id)
    with pytest.raises(IllegalTransition, match=f"on their way: dicomnode jobs show {done}"):
        state.retry_job(done)
    for delivery in state.job(done).deliveries:
        state.finish_delivery(delivery.delivery_id, Delivered("0x0000"))
    assert f"dicomnode studies rerun {SERIES}" in refusal(lambda: state.retry_job(done))
    assert f"dicomnode studies forget {STUDY} --dry-run" in refusal(lambda: state.cancel_job(done))
    assert f"dicomnode studies rerun {SERIES}" in refusal(lambda: state.prioritise_job(done, Priority.STAT))
    assert f"dicomnode jobs retry {broken}" in refusal(lambda: state.cancel_job(broken))
    assert f"dicomnode jobs retry {broken}" in refusal(lambda: state.prioritise_job(broken, Priority.STAT))
