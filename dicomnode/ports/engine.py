"""Who runs jobs and deliveries, durably."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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

    @property
    def machine(self) -> str:
        """The host's name alone."""
        return self.host.partition("/")[0]


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

    def waiting_job(self, job_id: str, run: int) -> JobWork | None:
        """What start_job would give, and nothing is begun: so that it is known what the job will need."""

    def hold_job(self, job_id: str, run: int, reason: str) -> bool:
        """Says of a job why it waits; False when it does not any more: it was cancelled or has a newer ticket."""

    def requeue_job(self, job_id: str, run: int, why: str = "the queue had lost it") -> bool:
        """A new ticket for a job whose ticket `run` was lost or given back; False if things went on meanwhile."""

    def peak(self, digest: str, host: str, engine: str) -> tuple[Mapping[str, float], int] | None:
        """What a version took of memory when it ran last there, and of a main series of how many voxels."""

    def record_peak(self, digest: str, host: str, engine: str, memory: Mapping[str, float], voxels: int) -> None:
        """In place of an earlier one of that version, machine and engine."""

    def leave_job(self, job_id: str, run: int, reason: str, machine: str, again_s: float = 0.0) -> bool:
        """A new ticket for the workers of that machine alone, "": for whoever has a place; as hold_job.

        Nobody takes it before `again_s` seconds are over.
        """

    def lose_job(self, job_id: str, run: int) -> bool:
        """Its process died while it ran: it is queued again, and what it kept of a limit is free at once."""

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


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whether a job may begin now. If not: it does not wait any more, or it ended so without having begun, or
    another worker is to run it, and why: one of a machine that is named, or any, this one too in `again_s` seconds.
    """

    may_begin: bool
    outcome: JobOutcome | None = None
    elsewhere: str = ""
    machine: str = ""
    again_s: float = 0.0


class Admission(Protocol):
    """Lets jobs begin when there is room for them: the more urgent ones first."""

    def admitted(self, work: JobWork, hold: Callable[[str], bool]) -> AbstractContextManager[Admitted]:
        """Waits for room, and keeps it inside the `with`.

        `hold` is told why it waits, now and then; when it says False, or after close(), the job is not waited for.
        """

    def ended(self, work: JobWork, outcome: JobOutcome) -> None:
        """What a job that was admitted took in the end is worth knowing for the next."""

    def places(self, *, urgent: bool) -> int:
        """For how many jobs more there would be a place if they came now."""

    def close(self) -> None:
        """Who waits goes, and nobody is admitted any more."""


class JobEngine(AbstractContextManager["JobEngine"], Protocol):
    """Runs queued jobs and deliveries durably while entered; what a dead process left is taken over."""

    def wait_idle(self, timeout_s: float) -> bool:
        """True once nothing is queued or running, for demos and tests."""
