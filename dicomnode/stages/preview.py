"""What a preview of a job shows: the images that its model saw, and what the job gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomnode.ports import InstanceStore, JobView, State


@dataclass(frozen=True, slots=True)
class Shown:
    """A file of the instance store that may be read, and no other."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    path: Path


def shown_of(state: State, store: InstanceStore, job: JobView) -> list[Shown]:
    """The series that the job looked at, in their order, then its results; each instance once.

    Files that are not there any more are left out. Raises NotFound for a series that was forgotten.
    """
    found = {one.sop_instance_uid: one for one in _all(state, store, job)}
    return [one for one in found.values() if one.path.is_file()]


def _all(state: State, store: InstanceStore, job: JobView) -> Iterator[Shown]:
    for uid in dict.fromkeys((job.series_instance_uid, *job.inputs.values())):
        series = state.series(uid)
        for instance in series.instances:
            place = store.path(instance.path)
            yield Shown(series.study_instance_uid, uid, instance.sop_instance_uid, place)
    for result in job.results:
        place = store.path(result.path)
        yield Shown(job.study_instance_uid, result.series_instance_uid, result.sop_instance_uid, place)
