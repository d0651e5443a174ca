"""The queues, and putting tickets into them.

A ticket is a DBOS workflow that carries a job's or a delivery's id and the number of its run; all else is in our
tables. It is written in the transaction of the rows it is for, so that neither is ever there without the other.
"""

from __future__ import annotations

import threading
from datetime import datetime
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.domain.job import Priority

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions

APPLICATION = "dicomnode"
# Work is run only by processes of the version it was enqueued for. Never derive it from the code, as DBOS would:
# each upgrade would strand what is queued, in silence. Change workflows under DBOS.patch, or leave this alone.
VERSION = "1"
JOBS = "jobs"
STAT_JOBS = "stat-jobs"  # a queue of their own: tickets that wait for room hold no place that these need
DELIVERIES = "deliveries"
PERFORM_JOB = "perform_job"
DELIVER = "deliver"
# PostgreSQL's NOTIFY channel that says that there is something to do now
CHANNEL = "dicomnode_work"
# So many migrations this DBOS has; of another one it is asked, which takes most of a second
KNOWN_DBOS, KNOWN_MIGRATIONS = "3.4.0", 125


def job_ticket(job_id: str, run: int) -> str:
    return f"job-{job_id}-{run}"


def job_of(ticket: str) -> tuple[str, int] | None:
    """The job and the run that a ticket is for; None: it is a delivery's."""
    kind, _, rest = ticket.partition("-")
    job_id, _, run = rest.rpartition("-")
    return (job_id, int(run)) if kind == "job" else None


def queue_of(machine: str, *, urgent: bool) -> str:
    """Of a machine: what its workers alone take, since others may not run it."""
    queue = STAT_JOBS if urgent else JOBS
    return f"{queue}@{machine}" if machine else queue


def is_urgent(queue: str) -> bool:
    """Whether it is for STAT jobs."""
    return queue.partition("@")[0] == STAT_JOBS


def machine_of(queue: str) -> str:
    """The machine that a queue is of; "": every worker takes from it."""
    return queue.partition("@")[2]


def delivery_ticket(delivery_id: str, run: int) -> str:
    return f"delivery-{delivery_id}-{run}"


class DbosQueue:
    """The WorkQueue of the database adapter, on DBOS. Threads may share one.

    DBOS takes most of a second to import: the commands that enqueue nothing do without.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._client: DBOSClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.destroy()
                self._client = None

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
        options: EnqueueOptions = {
            "workflow_name": PERFORM_JOB,
            "queue_name": queue_of(machine, urgent=priority == Priority.STAT.rank),
            "workflow_id": job_ticket(job_id, run),
            "priority": priority,
        }
        self._add(session, options, job_id, run, delay_s)
        _stand_since(session, job_ticket(job_id, run), since)

    def add_delivery(
        self, session: Session, delivery_id: str, run: int, *, destination: str, priority: int, delay_s: float
    ) -> None:
        options: EnqueueOptions = {
            "workflow_name": DELIVER,
            "queue_name": DELIVERIES,
            "workflow_id": delivery_ticket(delivery_id, run),
            "queue_partition_key": destination,
            "priority": priority,
        }
        self._add(session, options, delivery_id, run, delay_s)

    def _add(self, session: Session, options: EnqueueOptions, subject_id: str, run: int, delay_s: float) -> None:
        options["app_version"] = VERSION
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        self.client().enqueue_in_transaction(session, options, subject_id, run)
        if delay_s <= 0 and session.get_bind().dialect.name == "postgresql":
            session.execute(sa.text(f"NOTIFY {CHANNEL}"))

    def client(self) -> DBOSClient:
        with self._lock:
            if self._client is None:
                self._client = _client(self._url)
            return self._client


def _stand_since(session: Session, ticket: str, since: datetime) -> None:
    """A ticket stands where its job does, by the database's clock, however late it is written.

    DBOS hands tickets out by priority and then by this column, which it has no option for.
    """
    schema = "dbos" if session.get_bind().dialect.name == "postgresql" else None
    tickets = sa.table("workflow_status", sa.column("workflow_uuid"), sa.column("created_at"), schema=schema)
    moved = sa.update(tickets).where(tickets.c.workflow_uuid == ticket)
    session.execute(moved.values(created_at=int(since.timestamp() * 1000)))


def _client(url: str) -> DBOSClient:
    from dbos import DBOSClient

    return DBOSClient(
        system_database_url=url, serializer=portable_serializer(), application_name=APPLICATION, lazy=True
    )


def portable_serializer() -> Any:
    """JSON; DBOS's default is pickle, which runs what it reads."""
    from dbos import DBOSPortableJSONSerializer

    return DBOSPortableJSONSerializer()


def migrate(url: str) -> None:
    """Makes or upgrades the engine's own tables; harmless when they are up to date."""
    if version("dbos") == KNOWN_DBOS and migrations_made(url) == KNOWN_MIGRATIONS:
        return  # each command asks
    from dbos import DBOS

    DBOS.migrate(url)


def migrations_made(url: str) -> int | None:
    """How many of DBOS's there were; None where there were none."""
    engine = sa.create_engine(url, hide_parameters=True)
    schema = None if engine.dialect.name == "sqlite" else "dbos"
    made = sa.table("dbos_migrations", sa.column("version", sa.Integer), schema=schema)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table(made.name, schema):
                return None
            return connection.scalar(sa.select(made.c.version))
    finally:
        engine.dispose()
