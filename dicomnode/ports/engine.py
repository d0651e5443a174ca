"""Who runs jobs and deliveries, durably."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dicomnode.ports.state import State
from dicomnode.ports.work import DeliveryOutcome, DeliveryWork, JobOutcome, JobWork


@dataclass(frozen=True, slots=True)
class Executor:
    """A process that runs jobs, by an id of its own and by what its host can tell it by."""

    id: str
    host: str  # host, boot and pid namespace: a pid means something only there
    pid: int
    pid_started: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Running:
    """A job as a process began it; another number of the ticket or of the attempt is another beginning."""

    job_id: str
    run: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Pulse:
    executor: Executor
    age_s: float  # since its last heartbeat, by the database's clock


class EngineState(State, Protocol):
    """What the job engine needs of the state beyond what the stages do."""

    def open_work(self) -> tuple[dict[str, int], dict[str, int]]:
        """Jobs and deliveries that wait or run: id → number of its ticket in the queue."""

    def taken_back(self, running: Collection[Running]) -> dict[Running, str]:
        """Of what a process does those jobs that are not its any more (cancelled, gone, another's), and why."""

    def requeue_job(self, job_id: str, run: int) -> bool:
        """A new ticket for a job whose ticket `run` was lost; False if things went on meanwhile."""

    def requeue_delivery(self, delivery_id: str, run: int) -> bool:
        """As requeue_job."""

    def beat(self, executor: Executor) -> None:
        """The executor's heartbeat."""

    def forget_executor(self, executor_id: str) -> None: ...

    def executors(self) -> list[Pulse]: ...


class JobHandlers(Protocol):
    """What the job engine calls; both report by return value and raise nothing but bugs."""

    def perform(self, work: JobWork) -> JobOutcome: ...

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome: ...


class JobEngine(AbstractContextManager["JobEngine"], Protocol):
    """Runs queued jobs and deliveries durably while entered; what a dead process left is taken over."""

    def wait_idle(self, timeout_s: float) -> bool:
        """True once nothing is queued or running, for demos and tests."""
