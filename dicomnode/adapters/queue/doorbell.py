"""Wakes the queues' threads when there is work, so that they need not poll the database often.

DBOS polls each queue. At 50 ms that took 11 % of a core doing nothing and still lost 50 ms a job. With the
doorbell the queues poll twice a second, and a job starts some 40 ms after the commit that made it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time

import psycopg
import sqlalchemy as sa

from dicomnode.adapters.queue.tickets import CHANNEL

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.02
_LISTEN_S = 1.0
_RECONNECT_S = 2.0
# DBOS counts a ticket that it took only when its thread has begun. A queue that looks again at once, which on SQLite
# its own commit makes it do, takes one too many: that goes back to the queue, which costs a ticket (places.py).
_BETWEEN_LOOKS_S = 0.05


class Doorbell:
    """A bell that each thread hears once per ring, also when it was busy while it rang."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0
        self._heard = threading.local()

    def ring(self) -> None:
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def ring_later(self, delay_s: float) -> None:
        timer = threading.Timer(delay_s, self.ring)
        timer.daemon = True
        timer.start()

    def wait(self, timeout_s: float | None) -> None:
        """Until it rings, or rang since this thread last waited, or the time is over; a moment in any case."""
        heard = getattr(self._heard, "rings", 0)
        time.sleep(min(_BETWEEN_LOOKS_S, timeout_s or _BETWEEN_LOOKS_S))
        with self._condition:
            self._condition.wait_for(lambda: self._rings != heard, timeout_s)
            self._heard.rings = self._rings


class SqliteWatcher:
    """Rings when another connection committed and tickets wait: `PRAGMA data_version` costs microseconds."""

    def __init__(self, path: str, doorbell: Doorbell) -> None:
        self._path, self._doorbell = path, doorbell

    def watch(self, stop: threading.Event) -> None:
        with contextlib.closing(sqlite3.connect(self._path, timeout=5.0, isolation_level=None)) as connection:
            seen = None
            while not stop.wait(_LOOK_EVERY_S):
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != seen and self._waiting(connection):
                    self._doorbell.ring()
                seen = version

    def _waiting(self, connection: sqlite3.Connection) -> bool:
        try:
            query = "SELECT 1 FROM workflow_status WHERE status = 'ENQUEUED' LIMIT 1"
            return connection.execute(query).fetchone() is not None
        except sqlite3.OperationalError:
            return True  # busy: the queues look for themselves


class PostgresqlWatcher:
    """Rings when a transaction that enqueued committed (NOTIFY is delivered at commit)."""

    def __init__(self, url: sa.URL, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)

    def watch(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._listen(stop)
            except psycopg.Error as error:
                logger.warning("lost the database's notifications, polling instead: %s", type(error).__name__)
                stop.wait(_RECONNECT_S)

    def _listen(self, stop: threading.Event) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            while not stop.is_set():
                for _ in connection.notifies(timeout=_LISTEN_S, stop_after=1):
                    self._doorbell.ring()


def watcher_of(url: str, doorbell: Doorbell) -> SqliteWatcher | PostgresqlWatcher:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteWatcher(parsed.database or "", doorbell)
    return PostgresqlWatcher(parsed, doorbell)
