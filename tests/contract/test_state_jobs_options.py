"""What a rule asks of a job reaches it, it waits for its hours, and its results replace what was there before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dicomnode.adapters.db.tables import JobRow, ResultRow, SeriesRow
from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import JobState, Priority
from dicomnode.ports import QUARANTINED, JobFailed, JobFinished, NewJob, Quarantined, State
from tests.adapters.state_material import ARCHIVE, complete, finished, instance, new_job, results, routed
from tests.contract.state_bench import SERIES, STUDY, Bench, bench, kinds, state

__all__ = ["bench", "state"]

PET = f"{STUDY}.7"
HOUR = timedelta(hours=1)


def write(state: State, statement: sa.Executable) -> None:
    with state.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(statement)


def set_job(state: State, job_id: str, **values: Any) -> None:
    write(state, sa.update(JobRow).where(JobRow.id == job_id).values(**values))


def superseded(state: State) -> dict[str, str | None]:
    """SOP Instance UID → the job that took its place."""
    with state.engine.connect() as connection:  # type: ignore[attr-defined]
        return dict(connection.execute(sa.select(ResultRow.sop_instance_uid, ResultRow.superseded_by)).all())


def routed_with_pet(state: State, **options: Any) -> str:
    complete(state, PET, images=2)
    wanted: NewJob = replace(new_job(state), **{"inputs": {"pet": PET}, **options})
    (job_id,) = state.record_routing(complete(state), [wanted], "the rule says so", {})
    return job_id


def again(state: State, late: int, **options: Any) -> str:
    """A job on the series with another image, queued."""
    state.record_instances([instance(late)])
    found = state.complete_series(SERIES, 0)
    assert found is not None
    (job_id,) = state.record_routing(found, [new_job(state, **options)], "again", {})
    return job_id


def done(state: State, job_id: str, tag: str) -> str:
    assert state.start_job(job_id) is not None
    state.finish_job(job_id, finished(tag))
    return job_id


def uids(tag: str) -> set[str]:
    return {result.sop_instance_uid for result in results(tag)}


# ---------------------------------------------------------------------------------------------- starting


def test_a_job_starts_with_what_its_rule_asks_for(state: State) -> None:
    parameters = {"overlap": 0.5, "kernel": "soft", "fine": True, "rounds": 2}
    job_id = routed_with_pet(state, parameters=parameters, objects=("SEG",))
    work = state.start_job(job_id)
    assert work is not None
    assert (work.parameters, work.objects) == (parameters, ("SEG",))
    assert [i.instance_number for i in work.inputs["pet"].instances] == [1, 2]
    assert (list(work.inputs), work.inputs["pet"].series_instance_uid) == (["pet"], PET)


def profiled(state: State, *destinations: Destination) -> None:
    for destination in destinations:
        state.add_destination(destination, replace=destination.name == ARCHIVE.name)


def test_a_job_makes_the_forms_that_its_destinations_want(state: State) -> None:
    viewer = Destination("viewer", ARCHIVE.address, DeliveryOptions(profile="ohif"))
    profiled(state, replace(ARCHIVE, options=DeliveryOptions(results=("SR", "KO"))), viewer)
    job_id = routed_with_pet(state, destinations=("archive", "viewer", "nowhere"))
    work = state.start_job(job_id)
    assert work is not None
    assert work.forms == ("PDF", "KO")


def test_what_a_rule_names_is_made_and_nothing_else(state: State) -> None:
    profiled(state, replace(ARCHIVE, options=DeliveryOptions(profile="generic-pacs")))
    work = state.start_job(routed_with_pet(state, objects=("SEG", "RTSTRUCT")))
    assert work is not None
    assert work.forms == ("RTSTRUCT",)


@pytest.mark.parametrize(
    ("options", "of_rule", "sent"),
    [
        (DeliveryOptions(), (), ["SEG", "SR"]),
        (DeliveryOptions(results=("SR",)), (), ["SR"]),
        (DeliveryOptions(profile="generic-pacs"), (), []),
        (DeliveryOptions(profile="generic-pacs"), ("SEG",), ["SEG"]),
    ],
)
def test_a_destination_is_sent_what_its_profile_says_unless_the_rule_does(
    state: State, options: DeliveryOptions, of_rule: tuple[str, ...], sent: list[str]
) -> None:
    profiled(state, replace(ARCHIVE, options=options))
    job_id = routed_with_pet(state, objects=of_rule)
    state.start_job(job_id)
    state.finish_job(job_id, finished("1"))
    assert sorted(delivery.kind for delivery in state.job(job_id).deliveries) == sent


def test_a_job_of_before_there_were_options_starts_with_none(state: State) -> None:
    job_id = routed(state)
    set_job(state, job_id, options=None)
    work = state.start_job(job_id)
    assert work is not None
    assert (work.parameters, work.objects, work.inputs, work.earlier) == ({}, (), {}, ())


def test_a_job_whose_second_series_is_gone_is_refused_in_words(state: State) -> None:
    job_id = routed_with_pet(state)
    write(
        state,
        sa.update(SeriesRow).where(SeriesRow.series_instance_uid == PET).values(series_instance_uid=f"{PET}.moved"),
    )
    assert state.start_job(job_id) is None
    job = state.job(job_id)
    assert (job.state, job.code) == (JobState.REFUSED, "input-gone")
    assert job.reason == "the series in the role pet is not here any more: send it again and rerun the study"


def test_a_ticket_that_comes_too_early_waits_for_the_rest(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    set_job(state, job_id, not_before=datetime.now(UTC) + HOUR)
    assert state.start_job(job_id, 1) is None
    assert (state.job(job_id).state, state.job(job_id).attempts) == (JobState.QUEUED, 0)
    (_, (ticket, delay_s)) = bench.queue.enqueued_jobs
    assert (ticket, 3500 < delay_s <= 3600) == (job_id, True)
    set_job(state, job_id, not_before=datetime.now(UTC) - HOUR)
    assert state.start_job(job_id, 1) is None  # the first ticket is no good any more
    assert state.start_job(job_id, 2) is not None


def test_a_lost_ticket_is_made_again_for_the_time_it_had(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    set_job(state, job_id, not_before=datetime.now(UTC) + HOUR)
    assert state.requeue_job(job_id, 1)  # type: ignore[attr-defined]
    assert 3500 < bench.queue.enqueued_jobs[-1][1] <= 3600


def test_a_process_that_died_is_taken_over_whatever_the_hour(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    assert state.start_job(job_id) is not None
    set_job(state, job_id, not_before=datetime.now(UTC) + HOUR)
    assert state.start_job(job_id) is not None


def test_a_postponed_job_keeps_the_priority_it_was_given_meanwhile(state: State) -> None:
    job_id = routed(state)
    state.prioritise_job(job_id, Priority.STAT)
    assert state.start_job(job_id) is not None
    assert state.job(job_id).priority is Priority.STAT


@pytest.mark.parametrize("fails", [True, False])
def test_what_lies_in_quarantine_is_told_once_with_its_reason(state: State, fails: bool) -> None:
    job_id = routed(state)
    assert state.start_job(job_id) is not None
    aside = Quarantined("PDF", "PatientID differs", "/quarantine/j-PDF.dcm")
    whole = JobFinished(results("1"), quarantined=(aside,))
    outcome = JobFailed("non-conformant", aside.words, False, (aside,)) if fails else whole
    for _ in range(2):  # a transaction that is repeated after an outage
        state.finish_job(job_id, outcome, 1)
    (told,) = [event for event in state.events(STUDY) if event.kind == QUARANTINED]
    assert told.job_id == job_id
    assert told.detail == {"result": "PDF", "reason": "PatientID differs", "place": aside.place}
    assert told.message.endswith(f"is not sent: PatientID differs; kept in quarantine: {aside.place}")


# ------------------------------------------------------------------------------------ the same again, or not


def test_the_same_results_again_stay_the_first_jobs(state: State) -> None:
    first = done(state, routed(state), "1")
    second = again(state, 4)
    work = state.start_job(second)
    assert work is not None
    assert work.earlier == results("1")
    elsewhere = tuple(replace(r, path=f"other/{r.kind}", sha256="f" * 64, size_bytes=99) for r in results("1"))
    state.finish_job(second, JobFinished(elsewhere, note="nothing new"))
    assert state.job(first).results == results("1")
    assert state.job(second).results == ()
    assert state.job(second).reason == f"nothing new; unchanged: the same results as job {first}"
    assert superseded(state) == dict.fromkeys(uids("1"))
    assert "job.supersedes" not in kinds(state)


def test_a_file_that_was_written_anew_has_its_new_digest(state: State) -> None:
    first = done(state, routed(state), "1")
    second = again(state, 4)
    state.start_job(second)
    anew = tuple(replace(r, sha256="f" * 64, size_bytes=99) for r in results("1"))
    state.finish_job(second, JobFinished(anew))
    assert state.job(first).results == anew


def test_half_of_the_results_again_is_told_by_kind(state: State) -> None:
    first = done(state, routed(state), "1")
    second = again(state, 4)
    state.start_job(second)
    old_seg, new_sr = results("1")[0], results("2")[1]
    state.finish_job(second, JobFinished((old_seg, new_sr)))
    assert state.job(second).reason == f"unchanged: the same SEG as job {first}"
    old_sr = results("1")[1].sop_instance_uid
    assert superseded(state) == {
        old_seg.sop_instance_uid: None,
        old_sr: second,
        new_sr.sop_instance_uid: None,
    }


def test_new_results_take_the_place_of_the_old_ones(state: State) -> None:
    first = done(state, routed(state), "1")
    second = done(state, again(state, 4), "2")
    assert superseded(state) == {**dict.fromkeys(uids("1"), second), **dict.fromkeys(uids("2"))}
    assert state.job(first).superseded == dict.fromkeys(uids("1"), second)
    (told,) = [e for e in state.events(STUDY) if e.kind == "job.supersedes"]
    assert f"its results are newer than those of job {first} and supersede them" in told.message
    assert told.message.endswith("stays at its destination, since DICOM knows no replacing")


def test_a_result_of_nothing_takes_the_place_of_a_segmentation(state: State) -> None:
    done(state, routed(state), "1")
    second = again(state, 4)
    state.start_job(second)
    state.finish_job(second, JobFinished(results("2")[1:]))
    assert {uid: by for uid, by in superseded(state).items() if by} == dict.fromkeys(uids("1"), second)


def test_an_old_result_that_comes_back_is_in_force_again(state: State) -> None:
    """As when an administrator goes back to the model's version before."""
    first = done(state, routed(state), "1")
    done(state, again(state, 4, version="2.0.0"), "2")
    third = again(state, 5)
    work = state.start_job(third)
    assert work is not None
    assert set(work.predecessors) == set(results("2"))
    state.finish_job(third, finished("1"))
    assert superseded(state) == {**dict.fromkeys(uids("1")), **dict.fromkeys(uids("2"), third)}
    fourth = state.start_job(again(state, 6))
    assert fourth is not None
    assert set(fourth.predecessors) == set(results("1"))
    assert state.job(first).superseded == {}


def test_another_rules_results_stay_in_force(state: State) -> None:
    done(state, routed(state), "1")
    done(state, again(state, 4, rule="other"), "2")
    assert set(superseded(state).values()) == {None}


def test_a_job_that_a_later_one_overtook_replaces_nothing_and_sends_nothing(bench: Bench) -> None:
    """One that failed, and that somebody retries when the job of more images is done."""
    state = bench.state
    state.add_destination(ARCHIVE)
    slow = routed(state)
    state.start_job(slow)
    state.finish_job(slow, JobFailed("x", "at first", retryable=False))
    fast = done(state, again(state, 4), "2")
    tickets = len(bench.queue.enqueued_deliveries)
    state.retry_job(slow)
    done(state, slow, "1")
    assert superseded(state) == {**dict.fromkeys(uids("1"), fast), **dict.fromkeys(uids("2"))}
    assert len(bench.queue.enqueued_deliveries) == tickets
    assert "job.overtaken" in kinds(state)
