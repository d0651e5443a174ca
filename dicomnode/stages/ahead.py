"""Ahead of its time: while a series settles that is most likely complete, what its jobs will need is done already.

While its images still come, their headers are read.

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
_IMAGES_LEAST, _SHARE_LEAST = 20, 6  # so many images have come, and a sixth of all, since headers were last read


class Ahead:
    """Works in one thread of its own, on one series at a time, and not while `is_busy`: jobs come first."""

    def __init__(
        self, state: State, route: RouteStage, infer: InferStage, clock: Clock, is_busy: Callable[[], bool]
    ) -> None:
        self._state, self._route, self._infer, self._clock, self._is_busy = state, route, infer, clock, is_busy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._doing: Future[None] | None = None
        self._reading: Future[None] | None = None
        self._begun: dict[str, int] = {}  # Series Instance UID → instances, the newest last
        self._read: dict[str, int] = {}  # as _begun, of those whose headers were read

    def expect(self, series_instance_uid: str, instances: int) -> None:
        """The series will most likely be complete with so many instances; returns at once, repeats are harmless."""
        if self._begun.get(series_instance_uid) == instances or not _is_over(self._doing):
            return
        _remember(self._begun, series_instance_uid, instances)
        self._doing = self._thread.submit(self._work_on, series_instance_uid, instances)

    def arriving(self, series_instance_uid: str, instances: int) -> None:
        """So many are there and more will come; returns at once, repeats are harmless."""
        news = instances - self._read.get(series_instance_uid, 0)
        if news < max(_IMAGES_LEAST, instances // _SHARE_LEAST) or not _is_over(self._reading):
            return
        _remember(self._read, series_instance_uid, instances)
        self._reading = self._thread.submit(self._read_headers, series_instance_uid)

    def wait(self) -> None:
        """Until what is under way is done, for tests."""
        for doing in (self._reading, self._doing):
            if doing is not None:
                doing.result()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work_on(self, series_instance_uid: str, instances: int) -> None:
        try:
            series = self._state.series(series_instance_uid)
            if len(series.instances) != instances or self._is_busy():
                return
            for job in self._jobs(series):
                self._infer.ahead(self._work(job, series))
        except (DicomNodeError, OSError, MemoryError) as error:
            # the job will meet it too, if it is ever made, and say so
            log.info("series %s: nothing was done ahead: %s", series_instance_uid, error)

    def _read_headers(self, series_instance_uid: str) -> None:
        try:
            series = self._state.series(series_instance_uid)
            if not self._is_busy() and self._jobs(series):
                self._infer.read_ahead(series)
        except (DicomNodeError, OSError, MemoryError) as error:
            log.info("series %s: its headers were not read ahead: %s", series_instance_uid, error)

    def _jobs(self, series: Series) -> list[NewJob]:
        """That it would get at once, as it is."""
        jobs = self._route.decide(series).jobs
        return [job for job in jobs if not job.schedule and not job.inputs and not job.shadow]

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


def _is_over(doing: Future[None] | None) -> bool:
    return doing is None or doing.done()


def _remember(instances: dict[str, int], series_instance_uid: str, count: int) -> None:
    instances[series_instance_uid] = count
    if len(instances) > _REMEMBERED_MOST:
        del instances[next(iter(instances))]
