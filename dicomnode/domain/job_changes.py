"""What an administrator may ask of a job that cannot be had in its state, and which command helps instead."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dicomnode.domain.job import JobState


class JobWish(StrEnum):
    """What is asked for; the command of that name in `dicomnode jobs`."""

    RETRY = "retry"
    CANCEL = "cancel"
    PRIORITISE = "prioritise"


_ENDED = "has no place in the queue any more; queue it again first: dicomnode jobs retry {job}"
_RERUN = "to have it done again: dicomnode studies rerun {series}"

_NO: Mapping[tuple[JobWish, JobState], str] = {
    (JobWish.RETRY, JobState.QUEUED): "is queued already; "
    "to have it run before the others: dicomnode jobs prioritise {job} stat --now",
    (JobWish.RETRY, JobState.RUNNING): "runs already (dicomnode jobs show {job}); "
    "to begin again, end it first: dicomnode jobs cancel {job}",
    (JobWish.RETRY, JobState.SUCCEEDED): f"succeeded and its results are sent; {_RERUN}",
    (JobWish.CANCEL, JobState.SUCCEEDED): "succeeded and nothing of it is still to be sent; "
    "to remove the study with its results from this node: dicomnode studies forget {study} --dry-run",
    (JobWish.CANCEL, JobState.REFUSED): "was refused and does not run: dicomnode jobs show {job}",
    (JobWish.CANCEL, JobState.FAILED): "failed and does not run; to run it again: dicomnode jobs retry {job}",
    (JobWish.CANCEL, JobState.CANCELLED): "is cancelled already; to run it after all: dicomnode jobs retry {job}",
    (JobWish.PRIORITISE, JobState.RUNNING): "runs already and waits for nothing: dicomnode jobs show {job}",
    (JobWish.PRIORITISE, JobState.SUCCEEDED): f"succeeded and waits for nothing; {_RERUN}",
    (JobWish.PRIORITISE, JobState.REFUSED): f"was refused and {_ENDED}",
    (JobWish.PRIORITISE, JobState.FAILED): f"failed and {_ENDED}",
    (JobWish.PRIORITISE, JobState.CANCELLED): f"is cancelled and {_ENDED}",
}


def can(wish: JobWish, state: JobState) -> bool:
    """Whether a job in that state can be asked for it, whatever becomes of its deliveries."""
    return (wish, state) not in _NO


def why_not(wish: JobWish, state: JobState, *, job: str, series: str, study: str) -> str:
    """Why it cannot be had, and which command helps; by the job's id and the UIDs of its series and study."""
    return f"job {job} " + _NO[wish, state].format(job=job, series=series, study=study)


def nothing_of_its_own(note: str, *, job: str, series: str) -> str:
    """Of a job that succeeded without results, as one whose came out unchanged; `note` is what was said of it."""
    said = f" ({note})" if note else ""
    return f"job {job} succeeded and has no results of its own{said}; {_RERUN.format(series=series)}"
