"""Several jobs at once on both databases: how many, which first, and what those that wait are told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from dbos import DBOS

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.queue import DbosQueue
from dicomnode.adapters.queue.engine import DbosJobEngine
from dicomnode.adapters.queue.housekeeping import Housekeeping
from dicomnode.adapters.queue.liveness import this_executor
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome
from dicomnode.domain.admission import Extent
from dicomnode.domain.job import JobState, Priority
from dicomnode.ports import Admitted, Delivered, DeliveryOutcome, DeliveryWork, JobOutcome, JobWork
from dicomnode.stages import accepted_here
from dicomnode.stages.accepted_here import AcceptedHere, OnlyAccepted
from dicomnode.stages.admission import InTurn
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_machine import FakeMachine
from tests.adapters.state_material import STUDY, complete, finished, model_card, new_job

LARGE, HUGE = Extent(100_000_000), Extent(20_000_000_000)


@pytest.fixture
def state(migrated_url: str) -> Iterator[SqlState]:
    with DbosQueue(migrated_url) as queue, open_state(migrated_url, queue) as state:
        yield state


class Held:
    """Handlers whose jobs run until they are let go, and that remember in which order they began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._go: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def perform(self, work: JobWork) -> JobOutcome:
        with self._lock:
            self.began.append(work.job_id)
            event = self._go.setdefault(work.job_id, threading.Event())
        assert event.wait(120)
        return finished(series=work.series.series_instance_uid)

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        return Delivered("0x0000")

    def let_go(self, *jobs: str) -> None:
        with self._lock:
            for job in jobs:
                self._go.setdefault(job, threading.Event()).set()


def make(state: SqlState, number: int, priority: Priority = Priority.ROUTINE, model: str = "torso-ct") -> str:
    new = replace(new_job(state, destinations=()), priority=priority)
    if model != new.model.name:
        new = replace(new, model=state.add_model(model_card(model), model.ljust(64, "0"), new.model.path))
    (job_id,) = state.record_routing(complete(state, f"{STUDY}.{number}"), [new], "so", {})
    return job_id


def until(condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def waits(state: SqlState, *jobs: str) -> str:
    """The first of the jobs that is told why it waits: which of those that come together is first is open."""
    until(lambda: any(state.job(job).reason for job in jobs))
    return next(job for job in jobs if state.job(job).reason)


def stories(state: SqlState) -> list[str]:
    return [event.message.partition(": ")[2] for event in state.events(STUDY)]


def test_as_many_jobs_run_at_once_as_are_allowed(migrated_url: str, state: SqlState) -> None:
    jobs, handlers = [make(state, n) for n in range(1, 5)], Held()
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=3) as engine:
        until(lambda: len(handlers.began) == 3)
        assert sum(state.job(job).state is JobState.RUNNING for job in jobs) == 3
        handlers.let_go(*jobs)
        assert engine.wait_idle(90)
    assert {state.job(job).state for job in jobs} == {JobState.SUCCEEDED}


def test_a_stat_job_begins_while_routine_jobs_run_and_wait(migrated_url: str, state: SqlState) -> None:
    routine, handlers = [make(state, n) for n in range(1, 5)], Held()
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2) as engine:
        until(lambda: len(handlers.began) == 2)
        stat = make(state, 9, Priority.STAT)
        until(lambda: handlers.began[2:] == [stat])
        handlers.let_go(stat, *routine)
        assert engine.wait_idle(90)


def test_a_job_that_becomes_stat_while_it_waits_begins_at_once(migrated_url: str, state: SqlState) -> None:
    jobs, handlers = [make(state, n) for n in range(1, 4)], Held()
    with DbosJobEngine(migrated_url, state, handlers) as engine:
        until(lambda: len(handlers.began) == 1)
        (first,) = handlers.began  # of those that are handed out together either may be
        second, third = [job for job in jobs if job != first]
        state.prioritise_job(third, Priority.STAT)
        until(lambda: handlers.began == [first, third])
        handlers.let_go(first, second, third)
        assert engine.wait_idle(90)
    assert handlers.began == [first, third, second]


def test_a_job_waits_for_memory_in_words_and_begins_when_there_is_some(migrated_url: str, state: SqlState) -> None:
    (first, second), handlers = [make(state, n) for n in range(1, 3)], Held()
    turns = InTurn(2, FakeMachine(8e9, 1e9), lambda work: (LARGE,), look_every_s=0.05)
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2, admission=turns) as engine:
        waiting = state.job(waits(state, first, second))
        assert waiting.state is JobState.QUEUED
        assert waiting.reason.startswith("waits for memory: needs 0.9 GB, 0.1 GB free")
        assert waiting.job_id not in handlers.began
        handlers.let_go(first, second)
        assert engine.wait_idle(90)
    ended = state.job(waiting.job_id)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, "")
    told = [words for words in stories(state) if words.startswith("waits")]
    assert len(told) == 1, "it is told once, however often it was looked at"


def test_a_model_that_loads_for_long_keeps_no_place_from_others(
    migrated_url: str, state: SqlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_here, "PATIENCE_S", 0.1)
    clock, handlers = SystemClock(), Held()
    untried = Acceptance(AcceptanceOutcome.NONE, clock.now(), host="ai-1")
    here = AcceptedHere(state, FakeEngine(), lambda model, before: untried, "ai-1", clock)
    slow = [make(state, n, model="slow") for n in range(1, 4)]
    other = make(state, 9)
    model = state.model_version("slow", "1.0.0")
    assert model is not None
    here.begins(model)
    handlers.let_go(*slow, other)
    with DbosJobEngine(migrated_url, state, handlers, admission=OnlyAccepted(here, InTurn(1))) as engine:
        until(lambda: state.job(other).state is JobState.SUCCEEDED)
        assert handlers.began == [other]
        waits(state, *slow)
        here.ends(model)
        assert engine.wait_idle(90)
    assert {state.job(job).state for job in slow} == {JobState.SUCCEEDED}
    assert "waits: slow 1.0.0 is being loaded at ai-1" in stories(state)


def test_a_job_that_never_fits_fails_and_says_so(migrated_url: str, state: SqlState) -> None:
    job, handlers = make(state, 1), Held()
    turns = InTurn(2, FakeMachine(8e9, 1e9), lambda work: (HUGE,))
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2, admission=turns) as engine:
        assert engine.wait_idle(90)
    failed = state.job(job)
    assert (failed.state, failed.code, handlers.began) == (JobState.FAILED, "too-large", [])
    assert "this machine has 8.0 GB in all: run it on a larger host" in failed.reason


def test_what_is_cancelled_while_it_waits_for_memory_does_not_run(migrated_url: str, state: SqlState) -> None:
    jobs, handlers = [make(state, n) for n in range(1, 4)], Held()
    turns = InTurn(2, FakeMachine(8e9, 1e9), lambda work: (LARGE,), look_every_s=0.05)
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2, admission=turns) as engine:
        waiting = waits(state, *jobs[:2])
        state.cancel_job(waiting)
        until(lambda: bool(state.job(jobs[2]).reason))
        handlers.let_go(*jobs)
        assert engine.wait_idle(90)
    assert sorted(handlers.began) == sorted(set(jobs) - {waiting})


def test_a_job_that_waits_when_its_worker_stops_is_done_by_the_next(migrated_url: str, state: SqlState) -> None:
    (first, second), handlers = [make(state, n) for n in range(1, 3)], Held()
    turns = InTurn(2, FakeMachine(8e9, 1e9), lambda work: (LARGE,), look_every_s=0.05)
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2, admission=turns, stop_timeout_s=5) as engine:
        waiting = waits(state, first, second)
        engine._stopping.set()
        turns.close()
        handlers.let_go(first, second)
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2) as engine:
        assert engine.wait_idle(55), "without waiting a minute for what finds lost tickets"
    assert {state.job(job).state for job in (first, second)} == {JobState.SUCCEEDED}
    assert "its worker stopped while it waited" in stories(state)
    assert handlers.began[1] == waiting


class NotHere:
    """ports.Admission of a worker that leaves each job once to the workers of a machine."""

    def __init__(self, machine: str) -> None:
        self._machine, self.left = machine, list[str]()

    @contextmanager
    def admitted(self, work: JobWork, hold: Callable[[str], bool]) -> Iterator[Admitted]:
        first = work.job_id not in self.left
        self.left.append(work.job_id)
        yield Admitted(False, elsewhere="waits for it", machine=self._machine) if first else Admitted(True)

    def ended(self, work: JobWork, outcome: JobOutcome) -> None:
        pass

    def places(self, *, urgent: bool) -> int:
        return 1

    def close(self) -> None:
        pass


@pytest.mark.parametrize("priority", [Priority.ROUTINE, Priority.STAT])
def test_a_job_that_is_left_to_a_machine_is_taken_by_its_workers(
    migrated_url: str, state: SqlState, priority: Priority
) -> None:
    job, handlers, here = make(state, 1, priority), Held(), NotHere(this_executor().machine)
    handlers.let_go(job)
    with DbosJobEngine(migrated_url, state, handlers, admission=here) as engine:
        assert engine.wait_idle(90)
    assert (here.left, handlers.began) == ([job, job], [job])


def test_a_job_that_is_left_to_a_machine_whose_workers_are_gone_comes_back(
    migrated_url: str, state: SqlState
) -> None:
    job, handlers, here = make(state, 1), Held(), NotHere("gone")
    handlers.let_go(job)
    with DbosJobEngine(migrated_url, state, handlers, admission=here) as engine:
        until(lambda: state.job(job).code == "elsewhere")
        Housekeeping(state, this_executor()).requeue_lost()
        assert engine.wait_idle(55), "without waiting a minute for what finds lost tickets"
    assert (here.left, handlers.began) == ([job, job], [job])


@dataclass
class Asked(InTurn):
    """`asked`: how often for places, by whether they were for STAT jobs."""

    asked: Counter[bool] = field(default_factory=Counter)

    def places(self, *, urgent: bool) -> int:
        self.asked[urgent] += 1
        return super().places(urgent=urgent)


def test_queues_ask_for_places_and_what_they_take_beside_comes_back(migrated_url: str, state: SqlState) -> None:
    """places.py replaces a private part of DBOS. What is given back is another ticket of the same job."""
    jobs, handlers, turns = [make(state, n) for n in range(1, 5)], Held(), Asked(1)
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=3, admission=turns) as engine:
        until(lambda: len(handlers.began) == 1)
        turns.asked.clear()
        until(lambda: turns.asked[False] > 2 and turns.asked[True] > 2)
        until(lambda: len(DBOS.list_workflows(status="PENDING")) == 1)
        waiting = [job for job in jobs if job not in handlers.began]
        before = [state.open_work()[0][job] for job in waiting]
        until(lambda: turns.asked[False] > 6)
        assert [state.open_work()[0][job] for job in waiting] == before, "no ticket goes round"
        handlers.let_go(*jobs)
        assert engine.wait_idle(90)
    assert {state.job(job).state for job in jobs} == {JobState.SUCCEEDED}


def test_a_model_runs_as_often_at_once_as_its_limit_says(migrated_url: str, state: SqlState) -> None:
    limited, handlers = [make(state, n) for n in range(1, 4)], Held()
    state.limit_model("torso-ct", 1)
    other = make(state, 9, model="other")
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=2) as engine:
        until(lambda: other in handlers.began and len(handlers.began) == 2)
        waiting = waits(state, *limited)
        assert state.job(waiting).reason.startswith("waits: of the model torso-ct 1 may run at once, and 1 do")
        handlers.let_go(other)
        for count in range(1, 4):
            until(lambda count=count: len(ran(handlers, limited)) == count)  # type: ignore[misc]
            time.sleep(0.1)
            assert len(ran(handlers, limited)) == count
            handlers.let_go(ran(handlers, limited)[-1])
        assert engine.wait_idle(90)


def ran(handlers: Held, jobs: list[str]) -> list[str]:
    return [job for job in handlers.began if job in jobs]


def test_a_limit_that_is_taken_away_lets_those_begin_that_waited_for_it(migrated_url: str, state: SqlState) -> None:
    limited, handlers = [make(state, n) for n in range(1, 4)], Held()
    state.limit_model("torso-ct", 1)
    with DbosJobEngine(migrated_url, state, handlers, job_concurrency=3) as engine:
        until(lambda: sum(bool(state.job(job).reason) for job in limited) == 2)
        state.limit_model("torso-ct", None)
        until(lambda: len(handlers.began) == 3)
        handlers.let_go(*limited)
        assert engine.wait_idle(90)
