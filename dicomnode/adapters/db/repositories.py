"""The State port on SQLAlchemy: each method is one transaction over the functions of the modules beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from dicomnode.adapters.db import administration, deliveries, executors, jobs, receive, routing, story
from dicomnode.adapters.db.session import Transactions, Unit, WorkQueue, open_engine
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import JobState
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.study import ReceivedInstance, Recorded, Series
from dicomnode.ports import (
    DeliveryOutcome,
    DeliveryWork,
    Event,
    Executor,
    JobOutcome,
    JobView,
    JobWork,
    ModelVersion,
    NewJob,
    Pulse,
    RuleRevision,
    StudyView,
)


class SqlState:
    """The node's business state in SQLite or PostgreSQL. Thread-safe; several processes may have one each."""

    def __init__(self, engine: sa.Engine, queue: WorkQueue) -> None:
        self.engine = engine
        self._transactions = Transactions(engine, queue)
        self._read, self._write = self._transactions.read, self._transactions.write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    # receive
    def record_instances(self, instances: Sequence[ReceivedInstance]) -> list[Recorded]:
        return self._write(receive.record_instances, instances)

    def record_event(self, event: Event) -> None:
        self._write(_record_event, event)

    # complete
    def quiet_series(self, quiet_period_s: float, most: int = 100) -> list[str]:
        return self._read(receive.quiet_series, quiet_period_s, most)

    def complete_series(self, series_instance_uid: str, quiet_period_s: float) -> Series | None:
        return self._write(receive.complete_series, series_instance_uid, quiet_period_s)

    def complete_unrouted(self) -> list[Series]:
        return self._read(receive.complete_unrouted)

    # route
    def enabled_rules(self) -> list[RuleRevision]:
        return self._read(administration.enabled_rules)

    def active_model(self, name: str) -> ModelVersion | None:
        return self._read(administration.active_model, name)

    def record_routing(
        self, series: Series, jobs: Sequence[NewJob], why: str, detail: Mapping[str, Any]
    ) -> list[str]:
        return self._write(routing.record_routing, series, jobs, why, detail)

    # infer, encode
    def start_job(self, job_id: str, run: int | None = None) -> JobWork | None:
        return self._write(jobs.start_job, job_id, run)

    def finish_job(self, job_id: str, outcome: JobOutcome, attempt: int | None = None) -> None:
        self._write(jobs.finish_job, job_id, outcome, attempt)

    # deliver
    def start_delivery(self, delivery_id: str, run: int | None = None) -> DeliveryWork | None:
        return self._write(deliveries.start_delivery, delivery_id, run)

    def finish_delivery(self, delivery_id: str, outcome: DeliveryOutcome, attempt: int | None = None) -> None:
        self._write(deliveries.finish_delivery, delivery_id, outcome, attempt)

    # administration
    def add_rule(self, name: str, document: Mapping[str, Any]) -> RuleRevision:
        return self._write(administration.add_rule, name, document)

    def remove_rule(self, name: str) -> None:
        self._write(administration.remove_rule, name)

    def rules(self) -> list[RuleRevision]:
        return self._read(administration.rules)

    def add_model(self, card: ModelCard, digest: str, path: Path) -> ModelVersion:
        return self._write(administration.add_model, card, digest, path)

    def models(self) -> list[ModelVersion]:
        return self._read(administration.models)

    def add_destination(self, destination: Destination) -> None:
        self._write(administration.add_destination, destination)

    def remove_destination(self, name: str) -> None:
        self._write(administration.remove_destination, name)

    def destinations(self) -> list[Destination]:
        return self._read(administration.destinations)

    def jobs(self, *, state: JobState | None = None, most: int = 100) -> list[JobView]:
        return self._read(story.jobs, state, most)

    def job(self, job_id: str) -> JobView:
        return self._read(lambda session: story.job_view(administration.find_job(session, job_id)))

    def retry_job(self, job_id: str) -> None:
        self._write(administration.retry_job, job_id)

    def cancel_job(self, job_id: str) -> None:
        self._write(administration.cancel_job, job_id)

    def studies(self, most: int = 100) -> list[StudyView]:
        return self._read(story.studies, most)

    def study(self, key: str) -> StudyView:
        return self._read(story.study, key)

    def events(self, study_instance_uid: str) -> list[Event]:
        return self._read(story.events, study_instance_uid)

    def last_event_number(self) -> int:
        return self._read(story.last_event_number)

    def events_after(self, number: int, most: int = 200) -> list[tuple[int, Event]]:
        return self._read(story.events_after, number, most)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        return self._read(story.counts)

    # for the job engine
    def open_work(self) -> tuple[dict[str, int], dict[str, int]]:
        """Jobs and deliveries that wait or run, each with the number of its ticket in the queue."""
        return self._read(story.open_work)

    def requeue_job(self, job_id: str, run: int) -> bool:
        return self._write(jobs.requeue_job, job_id, run)

    def requeue_delivery(self, delivery_id: str, run: int) -> bool:
        return self._write(deliveries.requeue_delivery, delivery_id, run)

    def beat(self, executor: Executor) -> None:
        """The executor's heartbeat, by the database's clock."""
        self._write(executors.beat, executor)

    def forget_executor(self, executor_id: str) -> None:
        self._write(executors.forget, executor_id)

    def executors(self) -> list[Pulse]:
        """Every process that runs jobs, or did, and how long its heartbeat is ago."""
        return self._read(executors.pulses)


def _record_event(unit: Unit, event: Event) -> None:
    unit.tell(
        event.kind,
        event.message,
        study_instance_uid=event.study_instance_uid,
        series_instance_uid=event.series_instance_uid,
        job_id=event.job_id,
        delivery_id=event.delivery_id,
        detail=dict(event.detail),
    )


def open_state(url: str, queue: WorkQueue) -> SqlState:
    """The state in the database at `url`, an SQLAlchemy URL; its tables must be there (see migrate)."""
    return SqlState(open_engine(url), queue)
