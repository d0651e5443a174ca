"""What keeps the queues whole beside the work: heartbeats, taking over from the dead, finding what was lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psutil
from dbos import DBOS, error
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.adapters.queue.liveness import dead_executors, runs_here
from dicomnode.adapters.queue.tickets import delivery_ticket, job_of, job_ticket, machine_of
from dicomnode.ports import EngineState, Executor

logger = logging.getLogger(__name__)

TICK_S = 1.0
BEAT_EVERY_S = 5.0
DEAD_AFTER_S = 20.0
LOST_EVERY_S = 60.0
OLD_EVERY_S = 600.0
KEEP_ENDED = timedelta(days=1)
_DELETE_AT_ONCE = 500

_PASSING = (SQLAlchemyError, error.DBOSException, psutil.Error)
_LIVE = ["ENQUEUED", "DELAYED", "PENDING"]
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Housekeeping:
    def __init__(self, state: EngineState, me: Executor) -> None:
        self._state, self._me = state, me
        self._watching_since = self._last_tick = time.monotonic()
        self._chores: list[tuple[float, Callable[[], None]]] = [
            (BEAT_EVERY_S, lambda: self._state.beat(self._me)),
            (TICK_S, self.take_over),
            (LOST_EVERY_S, self.requeue_lost),
            (OLD_EVERY_S, self.delete_old),
        ]
        self._due = [0.0 for _ in self._chores]

    def keep(self, stop: threading.Event) -> None:
        """Until told to stop; an outage of the database only interrupts it."""
        while not stop.is_set():
            try:
                self.tick()
            except _PASSING as failure:
                self._watching_since = time.monotonic()
                logger.warning("housekeeping failed, trying again: %s", type(failure).__name__)
            stop.wait(TICK_S)

    def tick(self) -> None:
        """Does the chores that are due."""
        now = time.monotonic()
        if now - self._last_tick > DEAD_AFTER_S / 2:
            self._watching_since = now  # we stood still ourselves, and saw no heartbeat meanwhile
        self._last_tick = now
        for i, (every_s, chore) in enumerate(self._chores):
            if now >= self._due[i]:
                chore()
                self._due[i] = now + every_s

    def take_over(self) -> None:
        """Queues again what dead executors held. Two processes may do so at once: a ticket moves only once."""
        held = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        suspects = {workflow.executor_id for workflow in held if workflow.executor_id} - {self._me.id}
        if not suspects:
            return
        dead = dead_executors(
            suspects,
            self._state.executors(),
            self._me,
            threshold_s=DEAD_AFTER_S,
            patient=time.monotonic() - self._watching_since > DEAD_AFTER_S,
            runs=runs_here,
        )
        if dead:
            logger.warning("taking over from %s, which died", ", ".join(sorted(dead)))
            for workflow in held:
                if workflow.executor_id in dead and (of := job_of(workflow.workflow_id)):
                    self._state.lose_job(*of)  # its place is free, whoever has room to begin it again
            DBOS._recover_pending_workflows(sorted(dead))

    def requeue_lost(self) -> None:
        """Gives open jobs and deliveries without a live ticket a new one, whatever became of the old one."""
        jobs, deliveries = self._state.open_work()  # first: what ends or moves on meanwhile is found to have
        if not jobs and not deliveries:
            return
        tickets = DBOS.list_workflows(status=_LIVE, load_input=False, load_output=False)
        machines = {"", *(p.executor.machine for p in self._state.executors() if p.age_s <= DEAD_AFTER_S)}
        live = {w.workflow_id for w in tickets if w.status == "PENDING" or machine_of(w.queue_name or "") in machines}
        for job_id, run in jobs.items():
            if job_ticket(job_id, run) not in live and self._state.requeue_job(job_id, run):
                logger.warning("job %s had lost its ticket", job_id)
        for delivery_id, run in deliveries.items():
            if delivery_ticket(delivery_id, run) not in live and self._state.requeue_delivery(delivery_id, run):
                logger.warning("delivery %s had lost its ticket", delivery_id)

    def delete_old(self) -> None:
        """Deletes tickets that ended long ago, and the heartbeats of processes long gone; DBOS keeps all."""
        before = (datetime.now(UTC) - KEEP_ENDED).isoformat()
        old = DBOS.list_workflows(
            status=_ENDED, end_time=before, limit=_DELETE_AT_ONCE, load_input=False, load_output=False
        )
        if old:
            DBOS.delete_workflows([workflow.workflow_id for workflow in old])
        for pulse in self._state.executors():
            if pulse.age_s > KEEP_ENDED.total_seconds():
                self._state.forget_executor(pulse.executor.id)
