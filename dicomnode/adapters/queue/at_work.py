"""What this process is at, watched for what was taken back: a cancelled job is to stop, and not to end unread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from dicomnode.domain.halt import Halt
from dicomnode.ports import EngineState, Running

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5  # one short query, and only while a job runs


class AtWork:
    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._lock, self._some = threading.Lock(), threading.Event()
        self._running: dict[Running, Halt] = {}

    @contextmanager
    def on(self, job: Running, halt: Halt) -> Iterator[None]:
        """Inside the block `halt` is said when the job is this process's no more."""
        with self._lock:
            self._running[job] = halt
            self._some.set()
        try:
            yield
        finally:
            with self._lock:
                del self._running[job]
                if not self._running:
                    self._some.clear()

    def watch(self, stop: threading.Event) -> None:
        """Until told to stop; an outage of the database only interrupts it."""
        while not stop.wait(LOOK_EVERY_S):
            if self._some.wait(LOOK_EVERY_S):
                self._look()

    def _look(self) -> None:
        with self._lock:
            running = dict(self._running)
        try:
            taken_back = self._state.taken_back(tuple(running))
        except SQLAlchemyError as error:
            logger.debug("the database is away: %s", type(error).__name__)
            return
        for job, why in taken_back.items():
            if not running[job].is_said:
                logger.info("job %s is stopped: %s", job.job_id, why)
                running[job].say(why)
