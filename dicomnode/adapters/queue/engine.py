"""The job engine on DBOS: tickets become calls of the handlers, whatever dies in between.

A job's row is its own checkpoint: start and end are one transaction each, fenced by the number of the attempt.
A run that was cut off is run again whole, which is harmless (results have deterministic UIDs), and one that ended
is not run again, since its row says so. So workflows need no steps of their own, and DBOS gives what is hard: a
durable queue in our database with priorities, delays and limits, and the taking over of what a dead process held.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from dbos import DBOS
from sqlalchemy.exc import InterfaceError, OperationalError

from dicomnode.adapters.queue.at_work import AtWork
from dicomnode.adapters.queue.doorbell import Doorbell, watcher_of
from dicomnode.adapters.queue.housekeeping import Housekeeping
from dicomnode.adapters.queue.liveness import this_executor
from dicomnode.adapters.queue.places import take_what_there_is_room_for
from dicomnode.adapters.queue.tickets import (
    APPLICATION,
    DELIVER,
    DELIVERIES,
    PERFORM_JOB,
    VERSION,
    DbosQueue,
    portable_serializer,
    queue_of,
)
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.errors import trace_of
from dicomnode.ports import (
    Admission,
    Admitted,
    EngineState,
    JobFailed,
    JobHandlers,
    JobOutcome,
    JobWork,
    NotDelivered,
    Running,
)
from dicomnode.stages.admission import InTurn

logger = logging.getLogger(__name__)

W = TypeVar("W")
R = TypeVar("R")

POLL_S = 0.5  # only when the doorbell failed; see doorbell.py
# How often DBOS hands a ticket out before it gives it up. Our own count of crashes, in the job's row, is lower and
# says so in the job's state; this is the net below it.
RECOVERIES_MOST = 100
# After a call ended DBOS counts it as running for a moment more: then the next one may start.
_SLOT_FREE_S = 0.03
_JOIN_S = 5.0
_RETRY_FIRST_S, _RETRY_MOST_S = 0.1, 5.0
_OWN_POLL_S = 5.0  # as POLL_S, of the queues of one machine, which are empty nearly always


_UNASKED = Admitted(may_begin=True)


class DbosJobEngine:
    """Runs jobs and deliveries in threads of this process while entered. One at a time per process (DBOS's rule).

    `job_concurrency` and `delivery_concurrency` are per process, and kept in the database: give every worker the
    same. A job that is STAT has one place more, so that it need not wait for others to end; `admission` says when a
    job that was handed out may really begin. Of the deliveries at most `per_destination` of one destination run in
    one process, so that one that hangs leaves room for the others.
    """

    def __init__(
        self,
        url: str,
        state: EngineState,
        handlers: JobHandlers,
        *,
        job_concurrency: int = 1,
        admission: Admission | None = None,
        delivery_concurrency: int = 8,
        per_destination: int = 2,
        stop_timeout_s: int = 10,
    ) -> None:
        self._url, self._state, self._handlers = url, state, handlers
        self._jobs, self._deliveries, self._per_destination = job_concurrency, delivery_concurrency, per_destination
        self._admission = admission or InTurn(job_concurrency)
        self._stop_timeout_s = stop_timeout_s
        self._executor = this_executor()
        self._at_work = AtWork(state)
        self._doorbell = Doorbell()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._active = 0
        self._active_lock = threading.Lock()

    @property
    def active(self) -> int:
        """Handlers that run now; after leaving, those that did not end in time, whose threads hold the process."""
        return self._active

    def __enter__(self) -> Self:
        quiet_dbos()
        self._state.beat(self._executor)
        self._register_queues()
        self._register_workflows()
        dbos = DBOS(config=self._config())
        DBOS.listen_queues([*self._job_queues(), DELIVERIES])
        DBOS.launch()
        answer(dbos, self._doorbell)
        at_once = {name: most for name, (most, _) in self._job_queues().items()}
        take_what_there_is_room_for(dbos, at_once, self._admission)
        housekeeping = Housekeeping(self._state, self._executor)
        self._threads = [
            threading.Thread(target=watcher_of(self._url, self._doorbell).watch, args=(self._stopping,), daemon=True),
            threading.Thread(target=housekeeping.keep, args=(self._stopping,), daemon=True),
            threading.Thread(target=self._at_work.watch, args=(self._stopping,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._admission.close()
        for thread in self._threads:
            thread.join(timeout=_JOIN_S)  # during an outage of the database DBOS waits for it without end
        self._doorbell.ring()
        DBOS.destroy(
            destroy_registry=True, workflow_completion_timeout_sec=self._stop_timeout_s if self._active else 0
        )
        if not self._active:
            self._state.forget_executor(self._executor.id)

    def wait_idle(self, timeout_s: float) -> bool:
        """Deliveries that wait for their next attempt count as work."""
        end = time.monotonic() + timeout_s
        while any(self._state.open_work()):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def _config(self) -> Any:
        return {
            "name": APPLICATION,
            "system_database_url": self._url,
            "application_version": VERSION,
            "executor_id": self._executor.id,
            "serializer": portable_serializer(),
            "max_executor_threads": 4 * self._jobs + self._deliveries + 5,
            "sys_db_pool_size": 4 * self._jobs + self._deliveries + 5,
            "log_level": "WARNING",
            "enable_otlp": False,
        }

    def _register_queues(self) -> None:
        with DbosQueue(self._url) as queue:
            client = queue.client()
            for name, (at_once, poll_s) in self._job_queues().items():
                client.register_queue(name, worker_concurrency=at_once, polling_interval_sec=poll_s)
            client.register_queue(
                DELIVERIES,
                worker_concurrency=self._deliveries,
                partition_worker_concurrency=min(self._per_destination, self._deliveries),
                polling_interval_sec=POLL_S,
            )

    def _job_queues(self) -> dict[str, tuple[int, float]]:
        """What this process takes jobs from: how many tickets at once, and how often it looks."""
        own = self._executor.machine
        return {
            queue_of(machine, urgent=urgent): (self._jobs + urgent, _OWN_POLL_S if machine else POLL_S)
            for machine in ("", own)
            for urgent in (False, True)
        }

    def _register_workflows(self) -> None:
        """DBOS marks the functions it is given, which methods do not allow."""

        def perform_job(job_id: str, run: int) -> None:
            self._perform_job(job_id, run)

        def deliver(delivery_id: str, run: int) -> None:
            self._deliver(delivery_id, run)

        DBOS.workflow(name=PERFORM_JOB, max_recovery_attempts=RECOVERIES_MOST)(perform_job)
        DBOS.workflow(name=DELIVER, max_recovery_attempts=RECOVERIES_MOST)(deliver)

    def _perform_job(self, job_id: str, run: int) -> None:
        waiting = self._surely(lambda: self._state.waiting_job(job_id, run))
        if waiting is None:
            self._begin_job(job_id, run)  # which says what became of it
        else:
            self._surely(lambda: self._in_its_turn(waiting, job_id, run))
        self._doorbell.ring_later(_SLOT_FREE_S)

    def _in_its_turn(self, waiting: JobWork, job_id: str, run: int) -> None:
        def hold(reason: str) -> bool:
            return self._surely(lambda: self._state.hold_job(job_id, run, reason))

        with self._admission.admitted(waiting, hold) as admitted:
            if admitted.may_begin or admitted.outcome is not None:
                self._begin_job(job_id, run, admitted)
            elif admitted.elsewhere:
                left = (admitted.elsewhere, admitted.machine, admitted.again_s)
                self._surely(lambda: self._state.leave_job(job_id, run, *left))
            elif self._stopping.is_set():
                self._surely(lambda: self._state.requeue_job(job_id, run, "its worker stopped while it waited"))

    def _begin_job(self, job_id: str, run: int, admitted: Admitted = _UNASKED) -> None:
        work = self._surely(lambda: self._state.start_job(job_id, run))
        if work is None:
            return
        outcome = admitted.outcome or self._outcome(work, job_id, run)
        self._surely(lambda: self._state.finish_job(job_id, outcome, work.attempt))
        self._doorbell.ring()  # its results are to be delivered
        self._admission.ended(work, outcome)

    def _outcome(self, work: JobWork, job_id: str, run: int) -> JobOutcome:
        with self._at_work.on(Running(job_id, run, work.attempt), work.halt):
            outcome = self._call(self._handlers.perform, work)
        return JobFailed("bug", _internal(outcome), retryable=False) if isinstance(outcome, Exception) else outcome

    def _deliver(self, delivery_id: str, run: int) -> None:
        work = self._surely(lambda: self._state.start_delivery(delivery_id, run))
        if work is not None:
            outcome = self._call(self._handlers.deliver, work)
            if isinstance(outcome, Exception):
                outcome = NotDelivered(_internal(outcome), retryable=True, failure=FailureKind.INTERNAL)
            self._surely(lambda: self._state.finish_delivery(delivery_id, outcome, work.attempt))
        self._doorbell.ring_later(_SLOT_FREE_S)

    def _call(self, handler: Callable[[W], R], work: W) -> R | Exception:
        """The job loop: a handler's bug ends its job, never the worker."""
        with self._active_lock:
            self._active += 1
        try:
            return handler(work)
        except Exception as error:  # noqa: BLE001
            logger.error("a handler raised %s", trace_of(error))
            logger.debug("it said: %s", error)
            return error
        finally:
            with self._active_lock:
                self._active -= 1

    def _surely(self, transaction: Callable[[], R]) -> R:
        """Outlasts an outage of the database; each transaction is harmless to repeat."""
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                return transaction()
            except (OperationalError, InterfaceError) as error:
                logger.warning("the database is away, trying again in %.1f s: %s", delay_s, type(error).__name__)
                if self._stopping.wait(delay_s):
                    raise
                delay_s = min(2 * delay_s, _RETRY_MOST_S)


def _internal(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error: {type(error).__name__} in {frame.name}, line {frame.lineno}; the worker's log has more"


def quiet_dbos() -> None:
    """DBOS reports its own doings at INFO, each ticket among them."""
    logging.getLogger("dbos").setLevel(logging.WARNING)


def answer(dbos: DBOS, doorbell: Doorbell) -> bool:
    """Lets the queues' threads wait on the doorbell instead of on the clock alone; False if it cannot.

    They wait on the event that stops them. DBOS offers no hook, so its `wait` is replaced; test_job_engine
    checks that this still works, and without it the queues poll every POLL_S.
    """
    for thread in dbos._background_threads:
        if getattr(getattr(thread, "_target", None), "__name__", "") == "queue_thread":
            stop: threading.Event = thread._args[0]  # type: ignore[attr-defined]

            def wait(timeout: float | None = None, stop: threading.Event = stop) -> bool:
                if not stop.is_set():
                    doorbell.wait(timeout)
                return stop.is_set()

            stop.wait = wait  # type: ignore[method-assign]
            return True
    logger.warning("the queues do not hear the doorbell: jobs start up to %.1f s late", POLL_S)
    return False
