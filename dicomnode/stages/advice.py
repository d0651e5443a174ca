"""What an administrator can do about a study that is stuck, from its states alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.domain.study import SeriesState
from dicomnode.ports import DeliveryView, JobView, SeriesView, StudyView

_SERIES = {
    SeriesState.RECEIVING: "{name} is still being received; when no image comes any more and it stays so, "
    "no worker runs: dicomnode status",
    SeriesState.COMPLETE: "{name} waits to be routed; if it stays so, no worker runs: dicomnode status",
    SeriesState.NOT_ROUTED: "{name} goes nowhere, for the reason above; if it should, change a rule "
    "(dicomnode rules list, dicomnode rules add FILE): it holds from the next series on",
}
_JOBS = {
    JobState.QUEUED: "job {id} waits for a worker; if it stays so, none runs: dicomnode status",
    JobState.RUNNING: "job {id} is running; nothing to do",
    JobState.REFUSED: "job {id} cannot be done on this series ({reason}); exclude such series by a rule, "
    "or send one that is a volume",
    JobState.FAILED: "job {id} failed ({reason}); when that is mended: dicomnode jobs retry {id}",
    JobState.CANCELLED: "job {id} was cancelled ({reason}); to run it after all: dicomnode jobs retry {id}",
}
_DELIVERIES = {
    DeliveryState.QUEUED: "the {kind} waits to be sent to {destination}; if it stays so, no worker runs: "
    "dicomnode status",
    DeliveryState.WAITING: "the {kind} did not reach {destination} ({reason}); it is tried again by itself, and "
    "dicomnode destinations echo {destination} says whether it answers now",
    DeliveryState.FAILED: "the {kind} did not reach {destination} ({reason}); when that is mended: "
    "dicomnode jobs retry {id}",
    DeliveryState.CANCELLED: "sending the {kind} to {destination} was cancelled; to send it after all: "
    "dicomnode jobs retry {id}",
}
_SUPERSEDED = "superseded"  # a job ended because late images came; the next one does its work


def next_steps(study: StudyView, jobs: Sequence[JobView]) -> list[str]:
    """In words, one step each; empty when everything has arrived."""
    routed = any(series.state is SeriesState.ROUTED for series in study.series)
    steps = [step for series in study.series for step in _of_series(series, routed)]
    return list(dict.fromkeys([*steps, *(step for job in jobs for step in _of_job(job))]))


def _of_series(series: SeriesView, other_routed: bool) -> Iterator[str]:
    """Scouts and reports beside a series that was routed are no reason to do anything."""
    if series.state is SeriesState.NOT_ROUTED and other_routed:
        return
    if series.state in _SERIES:
        name = (
            f"the {series.modality or 'unknown'} series {series.description!r}" if series.description else "a series"
        )
        yield _SERIES[series.state].format(name=name)


def _of_job(job: JobView) -> Iterator[str]:
    if job.code == _SUPERSEDED:
        return
    if job.state in _JOBS:
        yield _JOBS[job.state].format(id=job.job_id, reason=job.reason or job.code)
    for delivery in job.deliveries:
        yield from _of_delivery(delivery)


def _of_delivery(delivery: DeliveryView) -> Iterator[str]:
    if delivery.state in _DELIVERIES:
        yield _DELIVERIES[delivery.state].format(
            kind=delivery.kind, destination=delivery.destination, reason=delivery.reason, id=delivery.job_id
        )
