"""Engines and transactions.

SQLite: write-ahead log, every commit synced to disk, foreign keys on; a writer takes the write lock when it
begins, since a reader that becomes a writer half-way can only fail (SQLITE_BUSY, whatever the timeout).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from dicomnode.adapters.db.columns import database_now
from dicomnode.adapters.db.tables import EventRow

P = ParamSpec("P")
R = TypeVar("R")

_BUSY_TIMEOUT_MS = 30_000
_CONNECT_TIMEOUT_S = 10
_TRIES = 6
_JOURNAL_TRIES, _JOURNAL_PAUSE_S = 200, 0.05
# PostgreSQL: deadlock_detected, serialization_failure, and unique_violation, which here means that another process
# was first: the second try sees its rows and decides with them (its manual, appendix A).
_TRY_AGAIN_SQLSTATES = frozenset({"40P01", "40001", "23505"})


class WorkQueue(Protocol):
    """Puts tickets into the job engine's queues in the transaction that the session has open."""

    def add_job(
        self,
        session: Session,
        job_id: str,
        run: int,
        *,
        priority: int,
        since: datetime,
        machine: str,
        delay_s: float,
    ) -> None:
        """Of one priority the older goes first, by `since`; of a machine: for its workers alone."""

    def add_delivery(
        self, session: Session, delivery_id: str, run: int, *, destination: str, priority: int, delay_s: float
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Unit:
    """One transaction: its session, the queue, and the story it adds to."""

    session: Session
    queue: WorkQueue

    def now(self) -> datetime:
        """The database's clock, UTC."""
        return cast(datetime, self.session.scalar(sa.select(database_now())))

    def tell(self, kind: str, message: str, **about: Any) -> None:
        """Adds a line to the story; it stands or falls with this transaction."""
        self.session.add(EventRow(at=self.now(), kind=kind, message=message, **about))

    def alone_with(self, table: type[DeclarativeBase]) -> None:
        """Keeps other writers out of a table of few rows; on SQLite a writer is alone as it is."""
        if self.session.get_bind().dialect.name == "postgresql":
            self.session.execute(sa.text(f"LOCK TABLE {table.__tablename__} IN SHARE ROW EXCLUSIVE MODE"))


def open_engine(url: str) -> sa.Engine:
    """An engine whose every connection is set up as the module says; its errors name no values of patients."""
    parts = sa.make_url(url)
    if parts.get_backend_name() != "sqlite":
        # a host that takes the connection and says nothing would hold a command for ever; the URL may say otherwise
        patience = {} if "connect_timeout" in parts.query else {"connect_timeout": _CONNECT_TIMEOUT_S}
        return sa.create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=patience)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000}, hide_parameters=True)
    set_up_sqlite_transactions(engine)
    return engine


def set_up_sqlite_transactions(engine: sa.Engine) -> None:
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _set_up_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # or sqlite3 begins transactions by itself, late and deferred
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _journal_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _journal_ahead(connection: Any) -> None:
    """Write-ahead logging. The change to it, once a database, is refused at once while another process is at it."""
    for last in (*[False] * (_JOURNAL_TRIES - 1), True):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if last or "locked" not in str(error):
                raise
            time.sleep(_JOURNAL_PAUSE_S)


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Transactions:
    """Runs functions of a Unit, each in a transaction of its own."""

    def __init__(self, engine: sa.Engine, queue: WorkQueue) -> None:
        self._session = sessionmaker(engine, expire_on_commit=False)
        self._queue = queue

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._session() as session, session.begin():
            yield session

    def read(self, function: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        with self.reading() as session:
            return function(session, *args, **kwargs)

    def write(self, function: Callable[Concatenate[Unit, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Commits what `function` did, or nothing; runs it again when the database says that may help."""
        return self._tried(self._writing, function, *args, **kwargs)

    def rehearse(self, function: Callable[Concatenate[Unit, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Answers and raises as `write` would, and nothing of it stays."""
        return self._tried(self._rehearsing, function, *args, **kwargs)

    def _tried(
        self,
        transaction: Callable[[], AbstractContextManager[Unit]],
        function: Callable[Concatenate[Unit, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        for attempt in range(1, _TRIES + 1):
            try:
                with transaction() as unit:
                    return function(unit, *args, **kwargs)
            except DBAPIError as error:
                if attempt == _TRIES or not may_try_again(error):
                    raise
                time.sleep(0.01 * 2**attempt)
        raise AssertionError("unreachable")

    @contextmanager
    def _writing(self) -> Iterator[Unit]:
        with self._session() as session, session.begin():
            session.connection(execution_options={"writes": True})
            yield Unit(session, self._queue)

    @contextmanager
    def _rehearsing(self) -> Iterator[Unit]:
        with self._session() as session:  # whose end without a commit is a rollback
            session.connection(execution_options={"writes": True})
            yield Unit(session, _NoQueue())


class _NoQueue:
    """Takes tickets and gives them to nobody."""

    def add_job(
        self,
        session: Session,
        job_id: str,
        run: int,
        *,
        priority: int,
        since: datetime,
        machine: str,
        delay_s: float,
    ) -> None:
        pass

    def add_delivery(
        self, session: Session, delivery_id: str, run: int, *, destination: str, priority: int, delay_s: float
    ) -> None:
        pass


def may_try_again(error: DBAPIError) -> bool:
    """Whether the transaction lost against another one and nothing else is wrong."""
    return getattr(error.orig, "sqlstate", None) in _TRY_AGAIN_SQLSTATES or "database is locked" in str(error.orig)
