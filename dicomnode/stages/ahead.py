"""Ahead of its time: while a series settles that is most likely complete, what its jobs will need is done already.

Nothing is recorded or sent before the series is complete. If more images come the work was for nothing, and the
job begins anew: it asks for the volumes of other files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from dicomnode.domain.study import Series
from dicomnode.errors import DicomNodeError
from dicomnode.ports import Clock, JobWork, NewJob, State
from dicomnode.stages.infer import InferStage
from dicomnode.stages.route import RouteStage

log = logging.getLogger(__name__)
_REMEMBERED_MOST = 256


class Ahead:
    """Works in one thread of its own, on one series at a time, and not while `is_busy`: jobs come first."""

    def __init__(
        self, state: State, route: RouteStage, infer: InferStage, clock: Clock, is_busy: Callable[[], bool]
    ) -> None:
        self._state, self._route, self._infer, self._clock, self._is_busy = state, route, infer, clock, is_busy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._doing: Future[None] | None = None
        self._begun: dict[str, int] = {}  # Series Instance UID → instances, the newest last

    def expect(self, series_instance_uid: str, instances: int) -> None:
        """The series will most likely be complete with so many instances; returns at once, repeats are harmless."""
        if self._begun.get(series_instance_uid) == instances or (self._doing and not self._doing.done()):
            return
        self._begun[series_instance_uid] = instances
        if len(self._begun) > _REMEMBERED_MOST:
            del self._begun[next(iter(self._begun))]
        self._doing = self._thread.submit(self._work_on, series_instance_uid, instances)

    def wait(self) -> None:
        """Until what is under way is done, for tests."""
        if self._doing is not None:
            self._doing.result()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work_on(self, series_instance_uid: str, instances: int) -> None:
        try:
            series = self._state.series(series_instance_uid)
            if len(series.instances) != instances or self._is_busy():
                return
            for job in self._route.decide(series).jobs:
                if not job.schedule and not job.inputs and not job.shadow:
                    self._infer.ahead(self._work(job, series))
        except (DicomNodeError, OSError, MemoryError) as error:
            # the job will meet it too, if it is ever made, and say so
            log.info("series %s: nothing was done ahead: %s", series_instance_uid, error)

    def _work(self, job: NewJob, series: Series) -> JobWork:
        return JobWork(
            job_id="",
            series=series,
            model=job.model,
            rule_name=job.rule.name,
            rule_revision=job.rule.revision,
            destinations=(),
            attempt=1,
            created_at=self._clock.now(),
            parameters=job.parameters,
            before=job.before,
        )
