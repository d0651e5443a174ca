"""What the State port does not say, on both databases: migrations, constraints, tickets."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from dicomnode.adapters import queue
from dicomnode.adapters.db.migration import alembic_config, migrate, newest_revision
from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.db.session import open_engine
from dicomnode.adapters.db.tables import Base
from dicomnode.adapters.queue import tickets
from dicomnode.domain.job import JOB_CRASHES_MOST, DeliveryState, JobState
from dicomnode.ports import Delivered, Executor, JobFailed, NotDelivered
from tests.adapters.state_material import (
    ARCHIVE,
    SERIES,
    RecordingQueue,
    finished,
    instance,
    new_job,
    routed,
    succeeded,
)


@pytest.fixture
def state(migrated_url: str) -> Iterator[SqlState]:
    with open_state(migrated_url, RecordingQueue()) as state:
        yield state


# ----------------------------------------------------------------------------------------------- migrations


def test_the_migrations_make_the_tables_that_the_code_has(database_url: str) -> None:
    """`alembic check`, with the engine's tables beside ours."""
    migrate(database_url)
    queue.migrate(database_url)
    command.check(alembic_config(database_url))


def test_the_migrations_have_one_head_and_each_can_be_gone_back(database_url: str) -> None:
    config = alembic_config(database_url)
    assert ScriptDirectory.from_config(config).get_heads() == [newest_revision()]
    migrate(database_url)
    command.downgrade(config, "base")
    engine = open_engine(database_url)
    assert set(sa.inspect(engine).get_table_names()) == {"alembic_version"}
    engine.dispose()
    migrate(database_url)


def test_the_engines_tables_are_known_to_be_up_to_date(database_url: str) -> None:
    """Without this the node is as right, and each command takes half a second longer."""
    queue.migrate(database_url)
    assert importlib.metadata.version("dbos") == tickets.KNOWN_DBOS
    assert tickets.migrations_made(database_url) == tickets.KNOWN_MIGRATIONS


def test_threads_of_a_process_may_all_make_the_tables(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in "abc"]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(migrate, urls * 2))
    for url in urls:
        command.check(alembic_config(url))


def test_an_upgrade_keeps_what_is_there(database_url: str) -> None:
    """From each revision, filled with what it can hold, to the newest: every row is there afterwards."""
    revisions = [s.revision for s in ScriptDirectory.from_config(alembic_config(database_url)).walk_revisions()][::-1]
    migrate(database_url, revisions[0])
    engine = open_engine(database_url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for name in FIRST_ROWS:
            connection.execute(sa.text(FIRST_ROWS[name]))
    before = contents(engine)
    migrate(database_url)
    migrate(database_url)
    after = contents(engine)
    engine.dispose()
    assert {table: len(rows) for table, rows in after.items()} == dict.fromkeys(FIRST_ROWS, 1)
    assert before.keys() == after.keys()
    assert all(
        tuple(now)[: len(was)] == tuple(was) for t in FIRST_ROWS for was, now in zip(before[t], after[t], strict=True)
    )
    with open_state(database_url, RecordingQueue()) as state:
        assert state.study("1.2").series[0].instances == 1
        (job,) = state.jobs()
        assert (job.state, job.deliveries[0].state) == (JobState.SUCCEEDED, DeliveryState.WAITING)
        assert state.events("1.2")[0].at.isoformat() == "2026-01-02T03:04:05+00:00"
        assert [(c.kind, c.version) for c in state.model_changes("torso-ct")] == [("activated", "1.0.0")]


def test_what_was_delivered_is_sent_after_the_upgrade(database_url: str) -> None:
    """The states of deliveries have other names since revision 0004: the constraint must not stand in the way."""
    migrate(database_url, "0003")
    engine = open_engine(database_url)
    rows = {**FIRST_ROWS, "delivery": FIRST_ROWS["delivery"].replace("'waiting'", "'delivered'")}
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        for statement in rows.values():
            connection.execute(sa.text(statement))
    engine.dispose()
    migrate(database_url)
    with open_state(database_url, RecordingQueue()) as state:
        (job,) = state.jobs()
        assert job.deliveries[0].state is DeliveryState.SENT


def test_what_a_model_was_accepted_on_is_kept_through_the_upgrade_and_back(database_url: str) -> None:
    """Until revision 0007 a version had one acceptance, of the machine that was asked last."""
    config = alembic_config(database_url)
    migrate(database_url, "0006")
    engine = open_engine(database_url)
    document = {"outcome": "passed", "at": "2026-03-01T13:00:00+01:00", "engine": "OpenVINO", "precision": "f32"}
    document |= {"device": "CPU", "server": "", "seconds": 1.0, "host": "a", "cpu": "EPYC", "cases": []}
    with writing(engine) as connection:
        connection.execute(sa.text(FIRST_ROWS["model"]))
        connection.execute(sa.text("UPDATE model SET acceptance = :it"), {"it": json.dumps(document)})
    migrate(database_url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT host, at, document FROM model_acceptance")).all()
    assert [row.host for row in rows] == ["a"]
    assert str(rows[0].at).startswith("2026-03-01 12:00:00")
    command.downgrade(config, "0006")
    with engine.connect() as connection:
        kept = connection.scalar(sa.text("SELECT acceptance FROM model"))
    engine.dispose()
    assert (json.loads(kept) if isinstance(kept, str) else kept) == document


def contents(engine: sa.Engine) -> dict[str, list[sa.Row[Any]]]:
    with engine.connect() as connection:
        return {t: list(connection.execute(sa.text(f"SELECT * FROM {t}"))) for t in FIRST_ROWS}


_AT = "'2026-01-02 03:04:05+00:00'"


def _added() -> dict[str, list[str]]:
    """Columns that later revisions brought, by table."""
    added: dict[str, list[str]] = {}
    for script in ScriptDirectory.from_config(alembic_config("sqlite://")).walk_revisions():
        for table, columns in getattr(script.module, "ADDED", {}).items():
            added.setdefault(table, []).extend(columns)
    return added


def _named(table: str, statement: str) -> str:
    """With the names of the columns that the table had first: a later one must bring its own default."""
    columns = [c.name for c in Base.metadata.tables[table].columns if c.name not in _added().get(table, ())]
    return statement.replace(" VALUES", f" ({', '.join(columns)}) VALUES", 1)


# One row of each table as revision 0001 has them, in an order that foreign keys allow
_FIRST_ROWS = {
    "study": f"INSERT INTO study VALUES (1, '1.2', 'P', 'A', '20260102', 'CT', {_AT})",
    "rule": f"INSERT INTO rule VALUES (1, 'torso', 1, '{{}}', true, {_AT})",
    "model": f"INSERT INTO model VALUES (1, 'torso-ct', '1.0.0', 'd', '/models', '{{}}', true, {_AT})",
    "destination": f"INSERT INTO destination VALUES (1, 'web', 'stow', 'http://h/', true, {_AT})",
    "series": f"INSERT INTO series VALUES (1, 1, '1.3', 'routed', 1, 'CT', '', 3, 'A', 'B', {_AT}, {_AT}, {_AT}, '')",
    "instance": f"INSERT INTO instance VALUES (1, 1, '1.4', '1.5', '1.6', 1, 'p', 9, 's', true, {_AT})",
    "job": (
        "INSERT INTO job VALUES ('j', 1, 1, 1, 1, 'succeeded', 'stat', '[\"web\"]', 1, 1, 0, '', '', '{}', '{}',"
        f" {_AT}, {_AT}, {_AT})"
    ),
    "result": f"INSERT INTO result VALUES (1, 'j', 'SEG', '1.7', '1.8', '1.9', 'p', 9, 's', {_AT})",
    "delivery": f"INSERT INTO delivery VALUES ('d', 1, 1, 'waiting', 2, 1, 'down', {_AT}, {_AT}, NULL)",
    "event": f"INSERT INTO event VALUES (1, {_AT}, 'job.made', 'made', '1.2', '1.3', 'j', '', '{{}}')",
    "executor": f"INSERT INTO executor VALUES ('e', 'h', 1, 1.5, {_AT})",
}
FIRST_ROWS = {table: _named(table, statement) for table, statement in _FIRST_ROWS.items()}


# ----------------------------------------------------------------------------------------------- constraints

FORBIDDEN = {
    "two studies with one UID": FIRST_ROWS["study"].replace("(1,", "(2,"),
    "two series with one UID": FIRST_ROWS["series"].replace("(1, 1,", "(2, 1,"),
    "two instances in use with one UID": FIRST_ROWS["instance"].replace("(1, 1,", "(2, 1,").replace("'s'", "'t'"),
    "two instances with the same bytes": FIRST_ROWS["instance"].replace("(1, 1,", "(2, 1,").replace("true", "false"),
    "one revision twice": FIRST_ROWS["rule"].replace("(1,", "(2,").replace("true", "false"),
    "two revisions in force": FIRST_ROWS["rule"].replace("(1,", "(2,").replace("'torso', 1", "'torso', 2"),
    "one version twice": FIRST_ROWS["model"].replace("(1,", "(2,").replace("true", "false"),
    "two active versions": FIRST_ROWS["model"].replace("(1,", "(2,").replace("1.0.0", "1.1.0"),
    "two shadows": "INSERT INTO model (id, name, version, digest, path, card, active, created_at, shadow)"
    " SELECT id + n, name, n, digest, path, card, false, created_at, true FROM model,"
    " (SELECT 1 AS n UNION SELECT 2 AS n) AS twice",
    "two destinations with one name": FIRST_ROWS["destination"].replace("(1,", "(2,"),
    "two results with one UID": FIRST_ROWS["result"].replace("(1, 'j'", "(2, 'j'"),
    "two deliveries of one result to one destination": FIRST_ROWS["delivery"].replace("'d'", "'e'"),
    "a state that is none": FIRST_ROWS["job"].replace("'j'", "'k'").replace("succeeded", "sleeping"),
    "a job of no series": FIRST_ROWS["job"].replace("('j', 1,", "('k', 7,"),
}


@pytest.fixture
def filled(migrated_url: str) -> Iterator[sa.Engine]:
    """A database with one row in each of the first tables."""
    engine = open_engine(migrated_url)
    with writing(engine) as connection:
        for name in FIRST_ROWS:
            connection.execute(sa.text(FIRST_ROWS[name]))
    yield engine
    engine.dispose()


def writing(engine: sa.Engine) -> Any:
    return engine.execution_options(writes=True).begin()


def test_the_database_refuses_what_must_never_be(filled: sa.Engine) -> None:
    assert [what for what, statement in FORBIDDEN.items() if takes(filled, statement)] == []


def takes(engine: sa.Engine, statement: str) -> bool:
    try:
        with writing(engine) as connection:
            connection.execute(sa.text(statement))
    except sa.exc.IntegrityError:
        return False
    return True


def test_the_database_refuses_a_second_active_job_and_takes_one_beside_ended_ones(filled: sa.Engine) -> None:
    ended = FIRST_ROWS["job"]
    with writing(filled) as connection:
        connection.execute(sa.text(ended.replace("'j'", "'k'").replace("succeeded", "queued")))
    with pytest.raises(sa.exc.IntegrityError), writing(filled) as connection:
        connection.execute(sa.text(ended.replace("'j'", "'l'").replace("succeeded", "running")))


def test_sqlite_keeps_what_it_committed_through_a_power_cut(migrated_sqlite: Any) -> None:
    """PRAGMA synchronous 2 is FULL: with the write-ahead log each commit is synced (sqlite.org/pragma.html)."""
    engine = open_engine(f"sqlite:///{migrated_sqlite}")
    with engine.connect() as connection:
        names = ("journal_mode", "synchronous", "foreign_keys")
        pragmas = {name: connection.scalar(sa.text(f"PRAGMA {name}")) for name in names}
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


# --------------------------------------------------------------------------------------------------- tickets


def test_an_old_ticket_starts_nothing_and_an_old_attempt_ends_nothing(state: SqlState) -> None:
    job_id = routed(state)
    assert state.start_job(job_id, run=2) is None
    first = state.start_job(job_id, run=1)
    second = state.start_job(job_id, run=1)  # the first one's process was taken for dead
    assert first is not None
    assert second is not None
    state.finish_job(job_id, JobFailed("x", "from the dead", retryable=True), attempt=first.attempt)
    assert state.job(job_id).state is JobState.RUNNING
    state.finish_job(job_id, JobFailed("x", "down", retryable=True), attempt=second.attempt)
    assert state.job(job_id).state is JobState.QUEUED
    assert state.start_job(job_id, run=1) is None
    assert state.start_job(job_id, run=2) is not None


def test_an_old_ticket_of_a_delivery_sends_nothing(state: SqlState) -> None:
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    delivery_id = state.job(job_id).deliveries[0].delivery_id
    work = state.start_delivery(delivery_id, run=1)
    assert work is not None
    state.finish_delivery(delivery_id, NotDelivered("down", retryable=True), attempt=work.attempt)
    state.retry_job(job_id)  # the administrator does not want to wait
    assert state.start_delivery(delivery_id, run=2) is None
    assert state.start_delivery(delivery_id, run=3) is not None
    state.finish_delivery(delivery_id, Delivered("late"), attempt=0)
    assert state.job(job_id).deliveries[0].state is DeliveryState.SENDING


def test_a_job_that_kills_its_process_again_and_again_is_given_up(state: SqlState) -> None:
    job_id = routed(state)
    for _ in range(JOB_CRASHES_MOST + 1):
        assert state.start_job(job_id) is not None
    assert state.start_job(job_id) is None
    view = state.job(job_id)
    assert (view.state, view.code) == (JobState.FAILED, "worker-died")


def test_crashes_do_not_count_as_failed_attempts(state: SqlState) -> None:
    job_id = routed(state)
    for _ in range(8):
        state.start_job(job_id)
    state.finish_job(job_id, JobFailed("engine-unavailable", "down", retryable=True))
    assert state.job(job_id).state is JobState.QUEUED


def test_lost_tickets_are_made_again_only_while_nothing_moved(state: SqlState) -> None:
    state.add_destination(ARCHIVE)
    job_id = routed(state)
    assert state.open_work() == ({job_id: 1}, {})
    assert state.requeue_job(job_id, 1)
    assert not state.requeue_job(job_id, 1)
    state.start_job(job_id)
    state.finish_job(job_id, finished())
    assert not state.requeue_job(job_id, 2)
    jobs, deliveries = state.open_work()
    assert (jobs, set(deliveries.values())) == ({}, {1})
    delivery_id = next(iter(deliveries))
    assert state.requeue_delivery(delivery_id, 1)
    assert not state.requeue_delivery(delivery_id, 1)


def test_the_same_result_again_is_not_sent_again(state: SqlState) -> None:
    state.add_destination(ARCHIVE)
    first = succeeded(state)
    for delivery in state.job(first).deliveries:
        state.start_delivery(delivery.delivery_id)
        state.finish_delivery(delivery.delivery_id, Delivered("0x0000"))
    state.record_instances([instance(4)])
    again = state.complete_series(SERIES, 0)
    assert again is not None
    (second,) = state.record_routing(again, [new_job(state)], "again", {})
    state.start_job(second)
    state.finish_job(second, finished())
    assert state.open_work() == ({}, {})
    assert {d.state for d in state.job(first).deliveries} == {DeliveryState.SENT}
    assert state.job(second).deliveries == ()
    assert f"the same results as job {first}" in state.job(second).reason


def test_removing_a_destination_cancels_what_it_was_to_get(state: SqlState) -> None:
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    state.remove_destination("archive")
    assert {d.state for d in state.job(job_id).deliveries} == {DeliveryState.CANCELLED}
    assert state.open_work() == ({}, {})


def test_cancelling_a_job_that_succeeded_cancels_its_deliveries(state: SqlState) -> None:
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    state.cancel_job(job_id)
    assert state.job(job_id).state is JobState.SUCCEEDED
    assert {d.state for d in state.job(job_id).deliveries} == {DeliveryState.CANCELLED}
    state.retry_job(job_id)
    assert {d.state for d in state.job(job_id).deliveries} == {DeliveryState.QUEUED}


def test_a_heartbeat_is_as_old_as_the_database_says(state: SqlState) -> None:
    one, two = Executor("one", "host", 1, 1.5), Executor("two", "host", 2, 2.5)
    state.beat(one)
    state.beat(two)
    state.beat(one)
    pulses = state.executors()
    assert [p.executor for p in pulses] == [one, two]
    assert all(0 <= p.age_s < 60 for p in pulses)
    state.forget_executor("one")
    assert [p.executor for p in state.executors()] == [two]


def test_the_sweep_for_quiet_series_uses_its_index(migrated_url: str) -> None:
    engine = open_engine(migrated_url)
    sqlite = engine.dialect.name == "sqlite"
    query = "SELECT id FROM series WHERE state = 'receiving' AND last_received_at <= '2026-01-01' ORDER BY 1 LIMIT 9"
    with engine.connect() as connection:
        if not sqlite:  # it would not trouble an index for an empty table
            connection.execute(sa.text("SET enable_seqscan = off"))
        plan = str(connection.execute(sa.text(f"EXPLAIN {'QUERY PLAN' if sqlite else ''} {query}")).all())
    engine.dispose()
    assert "ix_series_state_last_received_at" in plan
