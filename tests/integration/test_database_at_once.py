"""Several processes at one database at the same moment."""

from __future__ import annotations

import itertools
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command

from dicomnode.adapters import queue
from dicomnode.adapters.db import session
from dicomnode.adapters.db.migration import alembic_config, migrate
from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.domain.study import Recorded
from tests.adapters.state_material import (
    SERIES,
    STUDY,
    RecordingQueue,
    complete,
    instance,
    model_card,
    new_job,
)
from tests.integration.test_database import state

__all__ = ["state"]

PROCESSES = 3
_barrier: Any = None


def _take_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


Together = Callable[[Callable[[str, int], Any], str], list[Any]]


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Gives what `function(url, number)` gives in several processes that begin at one moment."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES, timeout=60)
    with ProcessPoolExecutor(PROCESSES, context, _take_barrier, (barrier,)) as pool:
        yield lambda function, url: list(pool.map(function, [url] * PROCESSES, range(PROCESSES), timeout=120))


def _complete_and_route(url: str, number: int) -> tuple[bool, int]:
    with open_state(url, RecordingQueue()) as state:
        _barrier.wait()
        found = state.complete_series(SERIES, 0)
        _barrier.wait()
        (unrouted,) = state.complete_unrouted()
        new = new_job(state)
        _barrier.wait()
        return found is not None, len(state.record_routing(unrouted, [new], "so", {}))


def test_of_several_processes_one_completes_a_series_and_one_routes_it(
    migrated_url: str, state: SqlState, together: Together
) -> None:
    state.record_instances([instance(n) for n in range(5)])
    new_job(state)
    won = together(_complete_and_route, migrated_url)
    assert sum(completed for completed, _ in won) == 1
    assert sum(jobs for _, jobs in won) == 1
    assert len(state.jobs()) == 1


def _receive(url: str, number: int) -> list[Recorded]:
    """Each process gets images of its own and images that the others get too, in an order of its own."""
    series = [f"{STUDY}.{n}" for n in range(3)]
    images = [instance(100 * number + n, series[n % 3]) for n in range(60)]
    images += [instance(1000 + n, series[n % 3]) for n in range(30)][:: 1 if number % 2 else -1]
    with open_state(url, RecordingQueue()) as state:
        _barrier.wait()
        return [r for i in range(0, len(images), 7) for r in state.record_instances(images[i : i + 7])]


def test_several_receivers_of_one_study_lose_and_double_nothing(
    migrated_url: str, state: SqlState, together: Together
) -> None:
    recorded = [r for each in together(_receive, migrated_url) for r in each]
    assert recorded.count(Recorded.NEW) == PROCESSES * 60 + 30
    assert recorded.count(Recorded.DUPLICATE) == (PROCESSES - 1) * 30
    assert state.counts()["instances"] == {"all": PROCESSES * 60 + 30}
    assert [e.kind for e in state.events(STUDY)].count("study.received") == 1
    assert sum(s.instances for s in state.study(STUDY).series) == PROCESSES * 60 + 30


def _migrate(url: str, number: int) -> None:
    _barrier.wait()
    migrate(url)
    queue.migrate(url)


def test_several_processes_may_migrate_at_once(database_url: str, together: Together) -> None:
    together(_migrate, database_url)
    command.check(alembic_config(database_url))


def _change_rules(url: str, number: int) -> None:
    with open_state(url, RecordingQueue()) as state:
        _barrier.wait()
        for n in range(10):
            state.add_rule("torso", {"by": number, "n": n})


def test_several_administrators_make_revisions_one_after_the_other(
    migrated_url: str, state: SqlState, together: Together
) -> None:
    state.add_rule("torso", {})
    together(_change_rules, migrated_url)
    assert [r.revision for r in state.rules()] == [1 + PROCESSES * 10]
    complete(state)


def _activate(url: str, number: int) -> None:
    with open_state(url, RecordingQueue()) as state:
        _barrier.wait()
        for n in range(6):
            state.activate_model("torso-ct", f"{(number + n) % PROCESSES}.0")


def test_of_several_administrators_the_last_one_activates(
    migrated_url: str, state: SqlState, together: Together
) -> None:
    """One version is active whatever they do at once, and it is the one that the history ends with."""
    for number in range(PROCESSES):
        state.add_model(model_card(version=f"{number}.0"), f"{number}" * 64, Path("/models"), activate=number == 0)
    together(_activate, migrated_url)
    (active,) = [model.version for model in state.models() if model.active]
    changes = state.model_changes("torso-ct")
    assert changes[-1].version == active
    assert all(a.version != b.version for a, b in itertools.pairwise(changes))


def test_a_journal_that_another_process_is_changing_is_waited_for() -> None:
    """SQLite refuses that change at once, whatever the timeout for locks."""
    asked: list[str] = []

    class Connection:
        def execute(self, statement: str) -> None:
            asked.append(statement)
            if statement.startswith("PRAGMA journal_mode") and len(asked) < 6:
                raise sqlite3.OperationalError("database is locked")

    session._set_up_sqlite(Connection(), None)
    assert asked.count("PRAGMA journal_mode = WAL") == 5
