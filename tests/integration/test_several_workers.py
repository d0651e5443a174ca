"""Two workers on one database and one host: one line for both, and what dies or is cancelled leaves its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.queue import DbosQueue
from dicomnode.domain.job import JobState, Priority
from tests.adapters.state_material import STUDY, complete, model_card, new_job
from tests.adapters.turn_worker import LARGE

ROOT = Path(__file__).parents[2]


class Crew:
    """Two worker processes, what they began in which order, and the jobs they are given."""

    def __init__(self, url: str, state: SqlState, folder: Path, stack: ExitStack) -> None:
        self.url, self.state, self.folder, self._stack = url, state, folder, stack
        self._number = 0

    def start(self, count: int = 2, at_once: int = 1) -> None:
        command = [sys.executable, "-m", "tests.adapters.turn_worker", self.url, str(self.folder), str(at_once)]
        workers = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        for worker in workers:
            self._stack.callback(_end, worker)
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"

    def make(self, priority: Priority = Priority.ROUTINE, model: str = "torso-ct", ending: str = "") -> str:
        self._number += 1
        new = replace(new_job(self.state, destinations=()), priority=priority)
        if model != new.model.name:
            added = self.state.add_model(model_card(model), model.ljust(64, "0"), new.model.path)
            new = replace(new, model=added)
        series = complete(self.state, f"{STUDY}.{self._number}{ending}")
        (job_id,) = self.state.record_routing(series, [new], "so", {})
        return job_id

    @property
    def began(self) -> list[str]:
        return [line.split()[0] for line in self._lines()]

    def _lines(self) -> list[str]:
        file = self.folder / "began"
        return file.read_text().splitlines() if file.exists() else []

    def kill_who_runs(self, job_id: str) -> None:
        (pid,) = [int(line.split()[1]) for line in self._lines() if line.split()[0] == job_id]
        os.kill(pid, signal.SIGKILL)

    def let_go(self, *jobs: str) -> None:
        for job in jobs:
            (self.folder / f"go-{job}").touch()

    def done(self) -> bool:
        return not self.state.open_work()[0]


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


@pytest.fixture
def crew(migrated_url: str, tmp_path: Path) -> Iterator[Crew]:
    with ExitStack() as stack:
        queue = stack.enter_context(DbosQueue(migrated_url))
        yield Crew(migrated_url, stack.enter_context(open_state(migrated_url, queue)), tmp_path, stack)


def until(condition: Callable[[], object], timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_limit_has_one_line_for_all_workers_and_stat_goes_first(crew: Crew) -> None:
    """Other models' jobs run beside; what waited goes before what came later, whoever hands its ticket out."""
    first, second, third = (crew.make() for _ in range(3))
    crew.state.limit_model("torso-ct", 1)
    crew.start(at_once=2)
    until(lambda: crew.began == [first])
    other, later = crew.make(model="other"), crew.make(model="third")
    until(lambda: {other, later} <= set(crew.began))
    stat = crew.make(Priority.STAT)
    until(lambda: crew.state.job(stat).reason)
    crew.let_go(first)
    until(lambda: crew.began[3:] == [stat])
    crew.let_go(stat)
    until(lambda: crew.began[4:] == [second])
    crew.let_go(second)
    until(lambda: crew.began[5:] == [third])
    crew.let_go(third, other, later)
    until(crew.done)


def test_a_job_that_waited_for_a_limit_goes_before_those_that_came_after_it(crew: Crew) -> None:
    """Of another model, in the queue already when its turn comes; the workers are full."""
    first, second = crew.make(), crew.make()
    crew.state.limit_model("torso-ct", 1)
    crew.start(count=1, at_once=2)
    until(lambda: crew.began == [first] and crew.state.job(second).reason)
    beside, queued = crew.make(model="other"), crew.make(model="third")
    until(lambda: crew.began == [first, beside])
    crew.let_go(first)
    until(lambda: crew.began[2:] == [second])
    crew.let_go(second)
    until(lambda: crew.began[3:] == [queued])
    crew.let_go(beside, queued)
    until(crew.done)


def test_what_a_killed_worker_held_of_a_limit_goes_to_who_is_next(crew: Crew) -> None:
    first = crew.make()
    crew.state.limit_model("torso-ct", 1)
    crew.start()
    until(lambda: crew.began == [first])
    second = crew.make()
    until(lambda: crew.state.job(second).reason)
    stat = crew.make(Priority.STAT)
    until(lambda: crew.state.job(stat).reason)
    crew.kill_who_runs(first)
    until(lambda: crew.began[1:] == [stat])
    assert crew.state.job(first).state is JobState.QUEUED
    crew.let_go(stat)
    until(lambda: crew.began[2:] == [first])
    crew.let_go(first)
    until(lambda: crew.began[3:] == [second])
    crew.let_go(second)
    until(crew.done)


def test_what_stat_jobs_leave_no_place_for_is_another_workers(crew: Crew) -> None:
    """They have the places of others, too, whose tickets a full worker is not to hold."""
    crew.start(count=1)
    urgent = [crew.make(Priority.STAT) for _ in range(2)]
    until(lambda: set(crew.began) == set(urgent))
    first = crew.make()
    crew.start(count=1)
    until(lambda: crew.began[2:] == [first])
    second = crew.make()
    crew.let_go(urgent[0])
    until(lambda: crew.began[3:] == [second])
    crew.let_go(urgent[1], first, second)
    until(crew.done)


def test_memory_has_one_line_for_all_workers_and_what_dies_gives_it_back(crew: Crew) -> None:
    first = crew.make(ending=LARGE)
    crew.start()
    until(lambda: crew.began == [first])
    second = crew.make(ending=LARGE)
    until(lambda: crew.state.job(second).reason.startswith("waits for memory: needs "))
    crew.kill_who_runs(first)
    until(lambda: crew.began[1:] == [second])
    until(lambda: crew.state.job(first).state is JobState.QUEUED)
    crew.start(count=1)
    stat = crew.make(Priority.STAT, ending=LARGE)
    until(lambda: crew.state.job(stat).reason and crew.state.job(first).reason)
    third = crew.make(ending=LARGE)
    crew.state.cancel_job(third)  # while it waits
    crew.let_go(second)
    until(lambda: crew.began[2:] == [stat])
    crew.state.cancel_job(stat)  # while it computes
    until(lambda: crew.began[3:] == [first])
    crew.let_go(first)
    until(crew.done)
    states = [crew.state.job(job).state for job in (first, second, stat, third)]
    assert states == [JobState.SUCCEEDED] * 2 + [JobState.CANCELLED] * 2
