"""A State for tests: the real one on SQLite in memory, with a clock that stands still and a queue that remembers.

What a real State enqueues is listed in `enqueued_jobs` and `enqueued_deliveries`.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import StaticPool

from dicomnode.adapters.db.repositories import SqlState
from dicomnode.adapters.db.session import set_up_sqlite_transactions
from dicomnode.adapters.db.tables import Base
from tests.adapters.state_material import RecordingQueue


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) -> None:
        self._start, self._passed = start, 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        self._passed += seconds


@cache
def _empty() -> sqlite3.Connection:
    """A database with all tables: to copy it takes less than to make them again."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    Base.metadata.create_all(sa.create_engine("sqlite://", poolclass=StaticPool, creator=lambda: connection))
    return connection


def _in_turn(lock: threading.RLock, method: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return method(*args, **kwargs)

    return called


class FakeState(SqlState):
    """There is one connection, so that threads take turns."""

    def __init__(self, clock: Any = None) -> None:
        self.clock = clock or FakeClock()
        self.queue = RecordingQueue()
        engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", self._tell_the_time)
        set_up_sqlite_transactions(engine)
        super().__init__(engine, self.queue)
        with closing(engine.raw_connection()) as connection:
            _empty().backup(cast(sqlite3.Connection, connection.driver_connection))
        lock = threading.RLock()
        self._read, self._write = _in_turn(lock, self._read), _in_turn(lock, self._write)

    def _tell_the_time(self, connection: Any, record: object) -> None:
        """The database's clock is the test's; see columns.database_now."""
        connection.create_function("strftime", 2, lambda *_: self.clock.now().strftime("%Y-%m-%d %H:%M:%S.%f"))

    @property
    def enqueued_jobs(self) -> list[tuple[str, float]]:
        return self.queue.enqueued_jobs

    @property
    def enqueued_deliveries(self) -> list[tuple[str, float]]:
        return self.queue.enqueued_deliveries
