"""What every State does when an administrator puts a job first, has a study done again, or has it forgotten."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db import administration
from dicomnode.adapters.db.tables import (
    AnnouncedSeriesRow,
    AnnouncementRow,
    Base,
    EvidenceRow,
    JobRow,
    SeriesRow,
    StudyRow,
)
from dicomnode.domain.announcement import AnnouncedSeries, Announcement, AnnouncementKind, AnnouncementState
from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.domain.study import SeriesState, StudyState
from dicomnode.errors import IllegalTransition, NotFound
from dicomnode.ports import Delivered, State
from tests.adapters.fake_state import FakeClock, FakeState
from tests.adapters.state_material import (
    ARCHIVE,
    SERIES,
    STUDY,
    complete,
    finished,
    instance,
    new_job,
    routed,
    succeeded,
)
from tests.contract.state_bench import OTHER, Bench, bench, kinds, series_state, state

__all__ = ["bench", "state"]


def write(state: State, statement: sa.Executable) -> None:
    with state.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(statement)


def rows(state: State, table: type[Base]) -> int:
    with state.engine.connect() as connection:  # type: ignore[attr-defined]
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)))


def until(state: State, job_id: str, moment: datetime | None) -> None:
    write(state, sa.update(JobRow).where(JobRow.id == job_id).values(not_before=moment))


def database_time(state: State) -> datetime:
    return state.events(STUDY)[-1].at


# ------------------------------------------------------------------------------------------------ prioritise


def test_a_queued_job_gets_a_new_ticket_with_the_new_priority(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    state.prioritise_job(job_id[:12], Priority.STAT)
    assert state.job(job_id).priority is Priority.STAT
    assert bench.queue.enqueued_jobs == [(job_id, 0.0), (job_id, 0.0)]
    assert state.start_job(job_id, 1) is None, "the old ticket starts nothing"
    assert state.start_job(job_id, 2) is not None
    told = state.events(STUDY)[-2]
    assert (told.kind, told.job_id) == ("job.prioritised", job_id)
    assert "priority stat by the administrator, before routine" in told.message


def test_it_still_waits_for_its_schedule_unless_it_is_to_run_now(bench: Bench) -> None:
    state = bench.state
    job_id = routed(state)
    evening = database_time(state) + timedelta(hours=3)
    until(state, job_id, evening)
    state.prioritise_job(job_id, Priority.HIGH)
    (_, delay_s) = bench.queue.enqueued_jobs[-1]
    assert 3 * 3600 - 60 < delay_s <= 3 * 3600
    assert state.job(job_id).not_before == evening
    state.prioritise_job(job_id, Priority.HIGH, now=True)
    assert bench.queue.enqueued_jobs[-1] == (job_id, 0.0)
    assert state.job(job_id).not_before is None
    assert "does not wait for its schedule" in state.events(STUDY)[-1].message


def test_a_schedule_that_has_begun_delays_nothing(bench: Bench) -> None:
    job_id = routed(bench.state)
    until(bench.state, job_id, datetime(2020, 1, 1, tzinfo=UTC))
    bench.state.prioritise_job(job_id, Priority.LOW)
    assert bench.queue.enqueued_jobs[-1] == (job_id, 0.0)


def test_only_what_waits_can_be_put_first(state: State) -> None:
    job_id = routed(state)
    state.start_job(job_id)
    with pytest.raises(IllegalTransition, match=f"runs already.*dicomnode jobs show {job_id}"):
        state.prioritise_job(job_id, Priority.STAT)
    with pytest.raises(NotFound):
        state.prioritise_job("zzz", Priority.STAT)
    assert state.job(job_id).priority is Priority.ROUTINE


# ----------------------------------------------------------------------------------------------------- rerun


def test_a_job_whose_results_arrived_is_not_retried_but_its_series_may_be_rerun(state: State) -> None:
    state.add_destination(ARCHIVE)
    job_id = arrived(state)
    with pytest.raises(IllegalTransition, match=f"dicomnode studies rerun {SERIES}"):
        state.retry_job(job_id)
    assert state.rerun_study(SERIES) == [SERIES]


def test_a_study_is_routed_again_by_the_rules_in_force(bench: Bench) -> None:
    state = bench.state
    old = succeeded(state)
    found = complete(state, OTHER)
    state.record_routing(found, [], "no rule", {})
    assert state.rerun_study("A-23") == [SERIES, OTHER]
    waiting = {series.series_instance_uid: series for series in state.complete_unrouted()}
    assert waiting.keys() == {SERIES, OTHER}
    assert {series.generation for series in waiting.values()} == {2}
    assert state.study(STUDY).state is StudyState.RECEIVING
    assert kinds(state).count("series.rerun") == 2
    (new,) = state.record_routing(waiting[SERIES], [new_job(state)], "again", {})
    assert new != old
    assert state.job(old).state is JobState.SUCCEEDED


def test_of_one_series_alone(state: State) -> None:
    succeeded(state)
    state.record_routing(complete(state, OTHER), [], "no rule", {})
    assert state.rerun_study(OTHER) == [OTHER]
    assert series_state(state) is SeriesState.ROUTED
    assert series_state(state, OTHER) is SeriesState.COMPLETE


def test_a_job_that_still_runs_ends_when_the_new_routing_is_recorded(state: State) -> None:
    old = routed(state)
    work = state.start_job(old)
    assert work is not None
    state.rerun_study(STUDY)
    assert state.job(old).state is JobState.RUNNING
    (again,) = state.complete_unrouted()
    (new,) = state.record_routing(again, [new_job(state)], "again", {})
    assert (state.job(old).state, state.job(old).code) == (JobState.CANCELLED, "superseded")
    state.finish_job(old, finished())
    assert state.job(old).results == ()
    assert state.start_job(new) is not None


def test_what_is_still_received_or_came_from_this_node_is_left_out(state: State) -> None:
    state.record_instances([instance(1)])
    own = instance(1, OTHER, manufacturer="dicomnode", modality="SEG")
    state.record_instances([own])
    assert state.rerun_study(STUDY) == []
    assert "series.rerun" not in kinds(state)
    assert series_state(state) is SeriesState.RECEIVING
    assert series_state(state, OTHER) is SeriesState.OWN_RESULT
    with pytest.raises(NotFound):
        state.rerun_study("nobody")


def test_rerunning_twice_before_it_is_routed_is_rerunning_once(state: State) -> None:
    routed(state)
    assert state.rerun_study(STUDY) == [SERIES]
    assert state.rerun_study(STUDY) == []
    assert [series.generation for series in state.complete_unrouted()] == [2]


# ---------------------------------------------------------------------------------------------------- forget

KEPT = {"rule", "model", "model_change", "destination", "event", "executor", "source", "alembic_version"}


def arrived(state: State, series: str = SERIES) -> str:
    """A job whose results are in the archive."""
    job_id = succeeded(state, series)
    for delivery in state.job(job_id).deliveries:
        state.start_delivery(delivery.delivery_id)
        state.finish_delivery(delivery.delivery_id, Delivered("0x0000"))
    return job_id


def with_everything(state: State) -> None:
    """Rows of the study in every table that can have some."""
    state.add_destination(ARCHIVE)
    arrived(state)
    with state.engine.connect() as connection:  # type: ignore[attr-defined]
        series_id = connection.scalar(sa.select(SeriesRow.id))
    if not rows(state, EvidenceRow):
        values: dict[str, Any] = {"generation": 1, "header": {}, "facts": {}, "all_facts": False, "no_image": ""}
        write(state, sa.insert(EvidenceRow).values(series_id=series_id, **values))
    announce(state, 1, "1.9.1", [STUDY])


def announce(state: State, number: int, uid: str, studies: list[str]) -> None:
    at = database_time(state)
    write(
        state,
        sa.insert(AnnouncementRow).values(
            id=number,
            kind="mpps",
            sop_instance_uid=uid,
            calling_ae_title="CT",
            state="completed",
            document={},
            received_at=at,
            changed_at=at,
        ),
    )
    for n, study in enumerate(studies):
        ids = {"id": 10 * number + n, "announcement_id": number, "sop_instance_uids": []}
        write(
            state,
            sa.insert(AnnouncedSeriesRow).values(study_instance_uid=study, series_instance_uid=f"{study}.{n}", **ids),
        )


def test_nothing_of_a_forgotten_study_stays_but_that_there_was_one(state: State) -> None:
    with_everything(state)
    forgotten = state.forget_study("P-17")
    assert (forgotten.study_instance_uid, forgotten.series, forgotten.instances) == (STUDY, 1, 3)
    assert (forgotten.jobs, forgotten.results) == (1, 2)
    assert set(forgotten.paths) == {f"{SERIES}/{n}.dcm" for n in (1, 2, 3)} | {"1/SEG", "1/SR"}
    left = {name: table for name, table in Base.metadata.tables.items() if name not in KEPT}
    with state.engine.connect() as connection:  # type: ignore[attr-defined]
        counts = {name: connection.scalar(sa.select(sa.func.count()).select_from(t)) for name, t in left.items()}
    assert set(counts.values()) == {0}, counts
    (event,) = state.events(STUDY)
    assert event.kind == "study.forgotten"
    sent = {"archive": {"SEG": 1, "SR": 1}}
    assert forgotten.sent == sent
    assert event.detail == {"series": 1, "instances": 3, "jobs": 1, "results": 2, "sent": sent}
    for secret in ("P-17", "A-23", "CT thorax"):
        assert secret not in str(event)
    with pytest.raises(NotFound, match=f"study {STUDY} was forgotten on 20"):
        state.study(STUDY)
    for key in (SERIES, "P-17", "A-23"):
        with pytest.raises(NotFound, match="no study has"):
            state.study(key)


def test_other_studies_stay_whole(state: State) -> None:
    with_everything(state)
    other = [instance(n, "7.1.1", study_instance_uid="7.1", patient_id="P-18") for n in (1, 2)]
    state.record_instances(other)
    announce(state, 2, "1.9.2", [STUDY, "7.1"])
    before, told = state.study("7.1"), state.events("7.1")
    state.forget_study(STUDY)
    assert state.study("7.1") == before
    assert state.events("7.1") == told
    assert (rows(state, AnnouncementRow), rows(state, AnnouncedSeriesRow)) == (1, 1)
    assert state.counts()["instances"] == {"all": 2}


def test_it_is_refused_while_a_job_waits_or_runs(state: State) -> None:
    job_id = routed(state)
    for _ in range(2):
        with pytest.raises(IllegalTransition, match=f"dicomnode jobs cancel {job_id}"):
            state.forget_study(STUDY)
        state.start_job(job_id)
    assert state.study(STUDY).series
    state.cancel_job(job_id)
    assert state.forget_study(STUDY).jobs == 1
    state.finish_job(job_id, finished())
    assert state.start_job(job_id) is None


def test_it_is_refused_while_a_result_is_on_its_way(state: State) -> None:
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    with pytest.raises(IllegalTransition, match=f"on their way.*jobs cancel {job_id}"):
        state.forget_study(STUDY)
    state.cancel_job(job_id)
    assert {d.state for d in state.job(job_id).deliveries} == {DeliveryState.CANCELLED}
    assert state.forget_study(STUDY).results == 2


def test_it_is_refused_while_a_job_on_another_study_needs_a_series_of_it(state: State) -> None:
    complete(state)
    state.record_instances([instance(1, "7.1.1", study_instance_uid="7.1")])
    found = state.complete_series("7.1.1", 0)
    assert found is not None
    (job_id,) = state.record_routing(found, [replace(new_job(state), inputs={"prior": SERIES})], "so", {})
    write(state, sa.update(JobRow).values(options={"inputs": {"prior": SERIES}}))
    with pytest.raises(IllegalTransition, match=f"another study.*{job_id}"):
        state.forget_study(STUDY)
    state.cancel_job(job_id)
    state.forget_study(STUDY)
    assert state.study("7.1").series


def test_forgetting_again_counts_nothing_and_a_stranger_is_not_found(state: State) -> None:
    arrived(state)
    state.forget_study(STUDY)
    again = state.forget_study(STUDY)
    assert (again.study_instance_uid, again.instances, again.paths) == (STUDY, 0, ())
    assert kinds(state) == ["study.forgotten"]
    for key in ("7.7", "", "nobody"):
        with pytest.raises(NotFound):
            state.forget_study(key)


def test_a_study_that_comes_again_is_a_new_one(state: State) -> None:
    arrived(state)
    state.forget_study(STUDY)
    job_id = succeeded(state)
    assert state.job(job_id).results
    assert state.study(STUDY).series[0].state is SeriesState.ROUTED


def test_images_that_come_while_it_is_forgotten_are_a_new_study(state: State) -> None:
    """Whoever is first: nothing fails, and what is there in the end is whole."""
    came = threading.Event()

    def receive(series: str) -> None:
        for number in range(1, 40):
            state.record_instances([instance(number, series), instance(number + 100, series)])

    def forget() -> None:
        while not came.is_set():
            with contextlib.suppress(NotFound):
                state.forget_study(STUDY)

    with ThreadPoolExecutor(3) as pool:
        forgetting = pool.submit(forget)
        receiving = [pool.submit(receive, series) for series in (SERIES, OTHER)]
        wait(receiving)
        came.set()
    for done in (*receiving, forgetting):
        done.result()
    state.record_instances([instance(500)])
    assert state.counts()["instances"]["all"] == sum(series.instances for series in state.study(STUDY).series)
    assert len(state.forget_study(STUDY).paths) > 0
    assert state.counts()["instances"] == {"all": 0}


def announced(study: str, sop_instance_uid: str) -> Announcement:
    document = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^John"}]}}
    named = (AnnouncedSeries(study, f"{study}.1", (f"{study}.1.1",)),)
    return Announcement(
        AnnouncementKind.MPPS, sop_instance_uid, "CT1", AnnouncementState.IN_PROGRESS, named, document
    )


def test_what_was_announced_of_a_study_that_never_came_is_forgotten(state: State) -> None:
    state.record_announcement(announced("7.7", "9.1"))
    assert state.forget_study("7.7").series == 0
    assert state.announcement("9.1") is None
    assert [event.kind for event in state.events("7.7")] == ["study.forgotten"]
    with pytest.raises(NotFound):
        state.forget_study("7.8")


def test_announcements_that_nothing_came_of_are_dropped_in_time() -> None:
    clock = FakeClock()
    state = FakeState(clock)
    state.record_announcement(announced("7.7", "9.1"))
    state.record_announcement(announced(STUDY, "9.2"))
    state.record_instances([instance(1)])
    clock.advance(29 * 86400.0)
    state.record_announcement(announced("7.8", "9.3"))
    assert state.announcement("9.1") is not None
    clock.advance(2 * 86400.0)
    state.record_announcement(announced("7.9", "9.4"))
    assert state.announcement("9.1") is None
    assert state.announcement("9.2") is not None, "images of it came"
    assert state.announcement("9.3") is not None, "it may come yet"


def test_a_rerun_sets_the_study_back_whatever_was_read_of_it_before(state: State) -> None:
    """Another process routes the study between the reading of it and the locking of its series."""
    routed(state)
    read = administration.find_only_study

    def then_routed(session: Session, key: str) -> StudyRow:
        study = read(session, key)
        assert study.state is StudyState.RECEIVING
        session.execute(sa.update(StudyRow).values(state=StudyState.ROUTED), execution_options=_UNSEEN)
        return study

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(administration, "find_only_study", then_routed)
        state.rerun_study(STUDY)
    assert state.study(STUDY).state is StudyState.RECEIVING


_UNSEEN = {"synchronize_session": False}


def test_open_work_is_found_by_its_indexes() -> None:
    """On SQLite a partial index serves only who asks in its own words."""
    asked: list[str] = []
    state = FakeState()
    sa.event.listen(state.engine, "before_cursor_execute", lambda c, cur, sql, p, ctx, m: asked.append(sql))
    state.open_work()
    with state.engine.connect() as connection:
        plans = [
            " ".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
            for sql in asked
            if sql.startswith("SELECT delivery")
        ]
    assert len(plans) == 1
    assert "ix_delivery_open" in plans[0]
