"""The job engine on both databases: what it runs, what it makes of bugs and losses; kill -9 costs nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOS

from dicomnode.adapters.db import deliveries
from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.queue import DbosQueue
from dicomnode.adapters.queue.engine import DbosJobEngine, answer
from dicomnode.adapters.queue.housekeeping import Housekeeping
from dicomnode.adapters.queue.liveness import this_executor
from dicomnode.adapters.queue.tickets import VERSION
from dicomnode.domain.destination import Destination, parse_dimse
from dicomnode.domain.job import JOB_CRASHES_MOST, DeliveryState, JobState, Priority
from dicomnode.ports import (
    Delivered,
    DeliveryOutcome,
    DeliveryWork,
    JobFailed,
    JobHandlers,
    JobOutcome,
    JobStopped,
    JobView,
    JobWork,
    NotDelivered,
)
from tests.adapters.state_material import ARCHIVE, STUDY, WEB, complete, finished, new_job, routed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def state(migrated_url: str) -> Iterator[SqlState]:
    with DbosQueue(migrated_url) as queue, open_state(migrated_url, queue) as state:
        state.add_destination(ARCHIVE)
        state.add_destination(WEB)
        yield state


class Handlers:
    """Handlers that do as they are told and remember what they were asked."""

    def __init__(
        self,
        perform: Callable[[JobWork], JobOutcome] = lambda work: finished(series=work.series.series_instance_uid),
        deliver: Callable[[DeliveryWork], DeliveryOutcome] = lambda work: Delivered("0x0000"),
    ) -> None:
        self._perform, self._deliver = perform, deliver
        self.performed: list[JobWork] = []
        self.delivered: list[DeliveryWork] = []

    def perform(self, work: JobWork) -> JobOutcome:
        self.performed.append(work)
        return self._perform(work)

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        self.delivered.append(work)
        return self._deliver(work)


def route(state: SqlState, count: int, destinations: tuple[str, ...] = ("archive", "web")) -> list[str]:
    return [routed(state, f"{STUDY}.{n}", destinations=destinations) for n in range(1, count + 1)]


def run(url: str, state: SqlState, handlers: JobHandlers, timeout_s: float = 60.0) -> None:
    with DbosJobEngine(url, state, handlers, stop_timeout_s=1) as engine:
        assert engine.wait_idle(timeout_s)


def kinds(state: SqlState) -> Counter[str]:
    return Counter(event.kind for event in state.events(STUDY))


# ----------------------------------------------------------------------------------------------- what it runs


def test_jobs_run_and_their_results_go_to_every_destination(migrated_url: str, state: SqlState) -> None:
    jobs, handlers = route(state, 3), Handlers()
    run(migrated_url, state, handlers)
    assert sorted(work.job_id for work in handlers.performed) == sorted(jobs)
    assert len(handlers.delivered) == 3 * 2 * 2
    assert {work.destination for work in handlers.delivered} == {ARCHIVE, WEB}
    assert_all_done(state, 3)


def test_urgent_jobs_go_first(migrated_url: str, state: SqlState) -> None:
    for n, priority in enumerate((Priority.LOW, Priority.ROUTINE, Priority.STAT, Priority.HIGH), start=1):
        series = complete(state, f"{STUDY}.{n}")
        state.record_routing(series, [replace(new_job(state, destinations=()), priority=priority)], "so", {})
    two = threading.Barrier(2)
    handlers = Handlers(lambda work: _together(two, work) if len(handlers.performed) <= 2 else _done(work))
    run(migrated_url, state, handlers)
    began = [work.series.series_instance_uid[-1] for work in handlers.performed]
    assert set(began[:2]) == {"3", "4"}, "the one that is STAT has a place beside the others"
    assert began[2:] == ["2", "1"]


def _done(work: JobWork) -> JobOutcome:
    return finished(series=work.series.series_instance_uid)


def _together(others: threading.Barrier, work: JobWork) -> JobOutcome:
    others.wait(60)
    return _done(work)


def test_what_is_routed_or_added_while_it_runs_is_done_too(migrated_url: str, state: SqlState) -> None:
    handlers = Handlers()
    with DbosJobEngine(migrated_url, state, handlers) as engine:
        state.add_destination(Destination("late", parse_dimse("LATE@192.0.2.3:104")))
        routed(state, destinations=("late",))
        assert engine.wait_idle(30)
    assert {work.destination.name for work in handlers.delivered} == {"late"}


def test_a_destination_that_hangs_holds_up_no_other(migrated_url: str, state: SqlState) -> None:
    let_go = threading.Event()

    def deliver(work: DeliveryWork) -> DeliveryOutcome:
        if work.destination == ARCHIVE:
            let_go.wait(30)
        return Delivered("0x0000")

    jobs = route(state, 4)
    handlers = Handlers(deliver=deliver)
    with DbosJobEngine(migrated_url, state, handlers, delivery_concurrency=4, per_destination=2) as engine:
        until(lambda: sum(d.state is DeliveryState.SENT for j in jobs for d in state.job(j).deliveries) == 8)
        assert all(w.destination == WEB for w in handlers.delivered if w.delivery_id in delivered(state))
        let_go.set()
        assert engine.wait_idle(30)
    assert_all_done(state, 4)


def delivered(state: SqlState) -> set[str]:
    return {d.delivery_id for j in state.jobs() for d in j.deliveries if d.state is DeliveryState.SENT}


def test_what_was_cancelled_before_its_turn_does_not_run(migrated_url: str, state: SqlState) -> None:
    first, second = route(state, 2)
    state.cancel_job(first)
    handlers = Handlers()
    run(migrated_url, state, handlers)
    assert [work.job_id for work in handlers.performed] == [second]


def test_a_job_that_is_cancelled_while_it_runs_is_told_so_and_the_next_one_begins(
    migrated_url: str, state: SqlState
) -> None:
    first, second = route(state, 2)
    reasons = []

    def perform(work: JobWork) -> JobOutcome:
        if work.job_id == second:
            return finished(series=work.series.series_instance_uid)
        state.cancel_job(first)
        assert work.halt.wait(60)
        reasons.append(work.halt.why)
        return JobStopped(work.halt.why)

    run(migrated_url, state, Handlers(perform))
    assert reasons == ["the job is cancelled"]
    assert (state.job(first).state, state.job(second).state) == (JobState.CANCELLED, JobState.SUCCEEDED)
    assert kinds(state)["job.stopped"] == 1


# -------------------------------------------------------------------------------------- failures and losses


def test_a_failure_that_may_pass_is_tried_again_later(migrated_url: str, state: SqlState) -> None:
    def perform(work: JobWork) -> JobOutcome:
        if work.attempt == 1:
            return JobFailed("engine-unavailable", "Triton is down", retryable=True)
        return finished(series=work.series.series_instance_uid)

    def deliver(work: DeliveryWork) -> DeliveryOutcome:
        return NotDelivered("refused", retryable=True) if work.attempt == 1 else Delivered("0x0000")

    route(state, 1)
    run(migrated_url, state, Handlers(perform, deliver))
    assert_all_done(state, 1)
    assert kinds(state)["job.postponed"] == 1
    assert kinds(state)["delivery.waiting"] == 4


def test_a_bug_in_a_handler_ends_its_job_and_not_the_worker(migrated_url: str, state: SqlState) -> None:
    def perform(work: JobWork) -> JobOutcome:
        if work.series.series_instance_uid.endswith(".1"):
            raise ZeroDivisionError("the patient is called Doe^John")
        return finished(series=work.series.series_instance_uid)

    bad, good = route(state, 2)
    run(migrated_url, state, Handlers(perform))
    assert (state.job(bad).state, state.job(bad).code) == (JobState.FAILED, "bug")
    assert "ZeroDivisionError in perform" in state.job(bad).reason
    assert "Doe" not in state.job(bad).reason
    assert state.job(good).state is JobState.SUCCEEDED


def test_a_delivery_retried_by_hand_is_sent_once(
    migrated_url: str, state: SqlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tickets for the attempts that were waited for come due afterwards, and do nothing."""
    monkeypatch.setattr(deliveries, "delivery_backoff_s", lambda attempts, age_s: 3600.0)
    (job_id,) = route(state, 1, destinations=("web",))
    handlers = Handlers(deliver=lambda work: NotDelivered("down", retryable=True))
    with DbosJobEngine(migrated_url, state, handlers):
        until(lambda: delivery_states(state, job_id) == [DeliveryState.WAITING] * 2)
        waited_for = [ticket.workflow_id for ticket in DBOS.list_workflows(status="DELAYED")]
        handlers._deliver = lambda work: Delivered("0x0000")
        state.retry_job(job_id)
        until(lambda: delivery_states(state, job_id) == [DeliveryState.SENT] * 2)
        for ticket in waited_for:
            DBOS.set_workflow_delay(ticket, delay_seconds=0.0)
        until(lambda: [t.status for t in DBOS.list_workflows(workflow_ids=waited_for)] == ["SUCCESS"] * 2)
    assert kinds(state)["delivery.sent"] == 2
    assert len(handlers.delivered) == 4, "each failed once and was sent once"


def delivery_states(state: SqlState, job_id: str) -> list[DeliveryState]:
    return [delivery.state for delivery in state.job(job_id).deliveries]


def test_no_ticket_is_there_without_its_rows_nor_rows_without_their_ticket(state: SqlState) -> None:
    found, new = complete(state), new_job(state)
    before = tickets(state)

    @sa.event.listens_for(state.engine, "commit")
    def refuse(connection: sa.Connection) -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        state.record_routing(found, [new], "so", {})
    sa.event.remove(state.engine, "commit", refuse)
    assert tickets(state) == before
    assert state.jobs() == []
    (job_id,) = state.record_routing(found, [new], "so", {})
    assert tickets(state) - before == {f"job-{job_id}-1"}


def tickets(state: SqlState) -> set[str]:
    schema = "" if state.engine.dialect.name == "sqlite" else "dbos."
    with state.engine.connect() as connection:
        return set(connection.scalars(sa.text(f"SELECT workflow_uuid FROM {schema}workflow_status")))


def test_open_work_whose_ticket_is_lost_gets_a_new_one(migrated_url: str, state: SqlState) -> None:
    lost, _ = route(state, 2, destinations=())
    with DbosQueue(migrated_url) as queue:
        queue.client().delete_workflows([f"job-{lost}-1"])
    with DbosJobEngine(migrated_url, state, Handlers()) as engine:
        Housekeeping(state, this_executor()).requeue_lost()
        assert engine.wait_idle(30)
    assert kinds(state)["job.requeued"] <= 1  # the engine's own housekeeping may have been first
    assert_all_done(state, 2, deliveries=0)


def test_tickets_that_ended_long_ago_are_deleted(
    migrated_url: str, state: SqlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    route(state, 2, destinations=())
    with DbosJobEngine(migrated_url, state, Handlers()) as engine:
        assert engine.wait_idle(30)
        until(lambda: not DBOS.list_workflows(status=["ENQUEUED", "PENDING"]))
        housekeeping = Housekeeping(state, this_executor())
        housekeeping.delete_old()
        assert len(tickets(state)) == 2
        monkeypatch.setattr("dicomnode.adapters.queue.housekeeping.KEEP_ENDED", timedelta(seconds=-60))
        housekeeping.delete_old()
        assert tickets(state) == set()


# ------------------------------------------------------------------------------- what it needs of DBOS's inside


def test_the_queues_hear_the_doorbell(migrated_url: str, state: SqlState) -> None:
    rung = threading.Event()

    class Bell:
        def wait(self, timeout_s: float | None) -> None:
            rung.set()
            time.sleep(0.05)

    with DbosJobEngine(migrated_url, state, Handlers()):
        dbos = engine_of_process()
        assert answer(dbos, Bell())  # type: ignore[arg-type]
        assert rung.wait(10)


def engine_of_process() -> DBOS:
    from dbos._dbos import _get_dbos_instance

    return _get_dbos_instance()


def test_tickets_carry_our_version_and_no_pickle(state: SqlState) -> None:
    route(state, 1)
    schema = "" if state.engine.dialect.name == "sqlite" else "dbos."
    with state.engine.connect() as connection:
        query = f"SELECT application_version, serialization, priority FROM {schema}workflow_status"
        assert connection.execute(sa.text(query)).all() == [(VERSION, "portable_json", 3)]


def test_a_ticket_that_is_written_anew_stands_where_its_job_stood(state: SqlState) -> None:
    """In the order that DBOS hands them out by: test_urgent_jobs_go_first sees that it does."""
    jobs = route(state, 3)
    assert state.requeue_job(jobs[1], 1)
    assert state.requeue_job(jobs[0], 1)
    schema = "" if state.engine.dialect.name == "sqlite" else "dbos."
    with state.engine.connect() as connection:
        query = f"SELECT workflow_uuid FROM {schema}workflow_status ORDER BY priority, created_at"
        order = [ticket.rpartition("-")[0] for ticket in connection.scalars(sa.text(query))]
    assert len(order) == 5, "the old ticket of a job stands there too, and starts nothing"
    assert list(dict.fromkeys(order)) == [f"job-{job}" for job in jobs]


# ------------------------------------------------------------------------------------------------- kill -9


class Workers:
    """Worker processes that a test kills and starts again."""

    def __init__(self, url: str, log: Path) -> None:
        self._url, self._log = url, log
        self.alive: list[subprocess.Popen[bytes]] = []

    def start(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.adapters.job_worker", self._url, str(self._log)]
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert worker.stdout is not None
        if wait:
            worker.stdout.readline()
        self.alive.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
        self.alive.remove(worker)


@contextmanager
def workers(url: str, log: Path, count: int) -> Iterator[Workers]:
    with ExitStack() as stack:
        crew = Workers(url, log)
        stack.callback(lambda: [crew.kill(worker) for worker in list(crew.alive)])
        for _ in range(count):
            crew.start()
        yield crew


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def assert_all_done(state: SqlState, jobs: int, deliveries: int = 4) -> None:
    """Every job succeeded and every result was delivered, each recorded once."""
    views = state.jobs(most=10_000)
    assert Counter(view.state for view in views) == {JobState.SUCCEEDED: jobs}
    assert all(len(view.deliveries) == deliveries for view in views if deliveries)
    assert {d.state for view in views for d in view.deliveries} <= {DeliveryState.SENT}
    told = kinds(state)
    assert (told["job.made"], told["job.finished"]) == (jobs, jobs)
    assert (told["delivery.made"], told["delivery.sent"]) == (jobs * deliveries, jobs * deliveries)
    finishes = Counter(e.job_id for e in state.events(STUDY) if e.kind == "job.finished")
    sent = Counter(e.delivery_id for e in state.events(STUDY) if e.kind == "delivery.sent")
    assert set((finishes + sent).values()) <= {1}


def busy(state: SqlState) -> bool:
    return any(state.open_work())


def test_a_worker_killed_at_work_loses_nothing(migrated_url: str, state: SqlState, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with workers(migrated_url, log, 1) as crew:
        route(state, 3)
        until(lambda: log.exists() and "perform" in log.read_text())
        crew.kill(crew.alive[0])
        crew.start()
        until(lambda: not busy(state))
    assert_all_done(state, 3)


def test_a_living_worker_takes_over_from_a_dead_one(migrated_url: str, state: SqlState, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with workers(migrated_url, log, 2) as crew:
        route(state, 6)
        until(lambda: log.exists() and log.read_text().count("perform") >= 2)
        crew.kill(crew.alive[0])
        until(lambda: not busy(state))
    assert_all_done(state, 6)


def test_a_job_that_kills_its_worker_each_time_is_given_up(sqlite_state: SqlState, tmp_path: Path) -> None:
    state, url, log = sqlite_state, str(sqlite_state.engine.url), tmp_path / "log"
    poison = routed(state, f"{STUDY}.666")
    for _ in range(JOB_CRASHES_MOST - 1):  # as if it had been killed so often before
        state.start_job(poison)
    with workers(url, log, 0) as crew:
        while state.job(poison).state in (JobState.QUEUED, JobState.RUNNING):
            worker = crew.start()
            until(lambda worker=worker: worker.poll() is not None or over(state.job(poison)))  # type: ignore[misc]
            crew.kill(worker)
    view = state.job(poison)
    assert (view.state, view.code) == (JobState.FAILED, "worker-died")
    assert log.read_text().count("perform") == 2


def over(view: JobView) -> bool:
    return view.state not in (JobState.QUEUED, JobState.RUNNING)


@pytest.fixture
def sqlite_state(migrated_sqlite: Path, tmp_path: Path) -> Iterator[SqlState]:
    file = tmp_path / "dicomnode.db"
    file.write_bytes(migrated_sqlite.read_bytes())
    url = f"sqlite:///{file}"
    with DbosQueue(url) as queue, open_state(url, queue) as state:
        yield state


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_workers_killed_and_stopped_at_random_lose_and_repeat_nothing(
    migrated_url: str, state: SqlState, tmp_path: Path, seed: int
) -> None:
    chance, rounds, jobs_each = random.Random(seed), 15, 8
    with workers(migrated_url, tmp_path / "log", 2) as crew:
        for round_ in range(rounds):
            for n in range(jobs_each):
                routed(state, f"{STUDY}.{round_}.{n}", destinations=("archive", "web"))
            time.sleep(chance.uniform(0.2, 2.0))
            stopped, killed = chance.sample(crew.alive, 2)
            stopped.send_signal(signal.SIGSTOP)
            crew.kill(killed)
            time.sleep(chance.uniform(0.0, 1.0))
            stopped.send_signal(signal.SIGCONT)
            crew.start(wait=False)  # it may be killed while it starts, too
        until(lambda: not busy(state), timeout_s=400)
    assert_all_done(state, rounds * jobs_each)
