"""Compare: what two versions of a model gave, or give now, for the same series. Nothing of it is sent or recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dicomnode.domain.job import JobState
from dicomnode.domain.result import StoredResult
from dicomnode.domain.study import Series
from dicomnode.encoding.seg_masks import NOTHING, Masks, Overlap, overlap, read_masks, together
from dicomnode.errors import SeriesRefused
from dicomnode.imaging.golden import dice
from dicomnode.ports import Clock, InstanceStore, JobFilter, JobView, JobWork, ModelVersion, State
from dicomnode.ports.progress import Told, nobody
from dicomnode.stages.infer import Classified, Inference, InferStage, Pictured
from dicomnode.stages.preceding import models_before

Pair = tuple[ModelVersion, ModelVersion]
Probabilities = npt.NDArray[np.float64]
"""(image, class) float64; one row of a model that looks at a series as a whole."""
_STAGES = ("infer: before", "infer: network", "infer: after")


@dataclass(frozen=True, slots=True)
class SegmentComparison:
    name: str
    dice: float | None  # None: no mask is kept of one of them
    volumes_ml: tuple[float | None, float | None]

    @property
    def difference_ml(self) -> float | None:
        first, second = self.volumes_ml
        return None if first is None or second is None else round(second - first, 3)


@dataclass(frozen=True, slots=True)
class ClassComparison:
    """Of models that give classes: how many images have the same one, and how far the probabilities are apart."""

    images: int
    same: int
    largest_difference: float  # of one probability, of a class that both know
    differing: tuple[int, ...] = ()  # the images that have another class, counted from 1


@dataclass(frozen=True, slots=True)
class SeriesComparison:
    """What the two versions said of one series; `note` says why there is less than there might be."""

    study_instance_uid: str
    series_instance_uid: str
    segments: tuple[SegmentComparison, ...] = ()
    seconds: tuple[float, float] = (0.0, 0.0)  # before, network and after
    note: str = ""
    classes: ClassComparison | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Over all series: by segment name the lowest and median Dice; the median seconds of both versions."""

    series: int
    dice: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    images: int = 0  # of models that give classes
    same: int = 0  # of these, with the same class


class CompareStage:
    def __init__(self, state: State, store: InstanceStore, clock: Clock) -> None:
        self._state, self._store, self._clock = state, store, clock

    def stored(self, pair: Pair, most: int) -> list[SeriesComparison]:
        """Of series that both have run on, from the results that are kept; the newest series first."""
        first, second = (self._newest(model) for model in pair)
        both = [uid for uid in second if uid in first][:most]
        return [self._of_jobs(pair, first[uid], second[uid]) for uid in both]

    def _newest(self, model: ModelVersion) -> dict[str, JobView]:
        """By series, the last job of a version that succeeded."""
        which = JobFilter(states=(JobState.SUCCEEDED,), model=f"{model.name} {model.version}")
        found: dict[str, JobView] = {}
        for job in self._state.jobs(which, most=10_000):
            found.setdefault(job.series_instance_uid, job)
        return found

    def _of_jobs(self, pair: Pair, first: JobView, second: JobView) -> SeriesComparison:
        if gives_classes(pair):
            return _of_scores(pair, first, second)
        masks = [self._masks(model, job) for model, job in zip(pair, (first, second), strict=True)]
        return SeriesComparison(
            first.study_instance_uid,
            first.series_instance_uid,
            tuple(
                SegmentComparison(name, _dice(masks, name), (_measured(first, name), _measured(second, name)))
                for name in common_segments(pair)
            ),
            (seconds_in(first.timings_s), seconds_in(second.timings_s)),
            "" if all(masks) else "the masks of one of them are not here any more",
        )

    def _masks(self, model: ModelVersion, job: JobView) -> Masks | None:
        """None when a file of it is gone. A job that found nothing has an SR and no SEG."""
        kept = job.results or self._results_before(model, job)
        segs = [result for result in kept if result.kind == "SEG"]
        if not segs:
            return NOTHING if kept else None
        paths = [self._store.path(seg.path) for seg in segs]
        return together([read_masks(path) for path in paths]) if all(path.is_file() for path in paths) else None

    def _results_before(self, model: ModelVersion, job: JobView) -> Sequence[StoredResult]:
        """Of an earlier job, when this one gave the same objects again."""
        which = JobFilter(
            states=(JobState.SUCCEEDED,),
            model=f"{model.name} {model.version}",
            study_instance_uid=job.study_instance_uid,
        )
        same = [j for j in self._state.jobs(which) if j.series_instance_uid == job.series_instance_uid and j.results]
        return same[0].results if same else ()

    # ------------------------------------------------------------------------------------------------------- now

    def now(self, pair: Pair, study: str, infer: InferStage, told: Told = nobody) -> list[SeriesComparison]:
        """Both versions run on every series of a study that they take; raises InferenceError, OutOfResources.

        `told` is given a line about each series.
        """
        modalities = set(pair[0].card.input.modality) & set(pair[1].card.input.modality)
        series = [s for s in self._state.study_series(study) if s.modality in modalities]
        found = []
        for number, one in enumerate(series, 1):
            told(f"runs both on series {number} of {len(series)}")
            found.append(self._run(pair, one, infer))
        return found

    def _run(self, pair: Pair, series: Series, infer: InferStage) -> SeriesComparison:
        uids = (series.study_instance_uid, series.series_instance_uid)
        first, second = (self._work(model, series) for model in pair)
        if {pair[0].card.gives, pair[1].card.gives} - {"segments", "classification"}:
            return SeriesComparison(*uids, note="only segments and classes are compared")
        try:
            if gives_classes(pair):
                return _of_classified(pair, uids, infer.classify(first), infer.classify(second))
            if any(model.card.output.of_images for model in pair):
                return self._of_images(pair, uids, (first, second), infer)
            with infer.run(first) as one, infer.run(second) as other:
                return SeriesComparison(
                    *uids,
                    tuple(_of_labels(pair, (one, other), name) for name in common_segments(pair)),
                    (seconds_in(one.timings_s), seconds_in(other.timings_s)),
                )
        except SeriesRefused as error:
            return SeriesComparison(*uids, note=str(error))

    def _of_images(
        self, pair: Pair, uids: tuple[str, str], works: tuple[JobWork, JobWork], infer: InferStage
    ) -> SeriesComparison:
        """Both mark single images, or there is nothing to compare."""
        if not all(model.card.output.of_images for model in pair):
            return SeriesComparison(*uids, note="one of them marks single images, and the other a volume")
        with infer.on_images(works[0]) as one, infer.on_images(works[1]) as other:
            return SeriesComparison(
                *uids,
                tuple(_on_stacks(pair, (one, other), name) for name in common_segments(pair)),
                (seconds_in(one.timings_s), seconds_in(other.timings_s)),
            )

    def _work(self, model: ModelVersion, series: Series) -> JobWork:
        """As a job of the model's own name on this series had it, if there was one."""
        which = JobFilter(model=model.name, study_instance_uid=series.study_instance_uid)
        like = next((j for j in self._state.jobs(which) if j.series_instance_uid == series.series_instance_uid), None)
        return JobWork(
            job_id="",
            series=series,
            model=model,
            rule_name=like.rule.partition(" revision ")[0] if like else "compare",
            rule_revision=0,
            destinations=(),
            attempt=1,
            created_at=self._clock.now(),
            parameters=like.parameters if like else {},
            inputs={role: self._state.series(uid) for role, uid in like.inputs.items()} if like else {},
            before=models_before(model, self._state),
        )


def _of_labels(pair: Pair, found: tuple[Inference, Inference], name: str) -> SegmentComparison:
    numbers = [_number(model, name) for model in pair]
    voxel_ml = found[0].plan.geometry.voxel_volume_mm3 / 1000
    volumes = [
        round(float(inference.masks.of(number).sum()) * voxel_ml, 3)
        for inference, number in zip(found, numbers, strict=True)
    ]
    # the versions may number a segment differently
    ours, theirs = (i.masks.of(n).view("u1") for i, n in zip(found, numbers, strict=True))
    return SegmentComparison(name, dice(ours, theirs, 1), (volumes[0], volumes[1]))


def _on_stacks(pair: Pair, found: tuple[Pictured, Pictured], name: str) -> SegmentComparison:
    """Of all images together: they have no volume."""
    numbers = [_number(model, name) for model in pair]
    ours, theirs = (
        np.concatenate([masks.of(number).ravel() for masks in pictured.masks])
        for pictured, number in zip(found, numbers, strict=True)
    )
    return SegmentComparison(name, dice(ours.view("u1"), theirs.view("u1"), 1), (None, None))


# ------------------------------------------------------------------------------------------------------ classes


def gives_classes(pair: Pair) -> bool:
    return all(model.card.classification is not None for model in pair)


def _of_scores(pair: Pair, first: JobView, second: JobView) -> SeriesComparison:
    """Of jobs, which keep every image's probabilities."""
    rows = [np.array(job.details.get("probabilities", []), dtype=np.float64) for job in (first, second)]
    compared = agreement(pair, rows[0], rows[1])
    return SeriesComparison(
        first.study_instance_uid,
        first.series_instance_uid,
        classes=compared,
        seconds=(seconds_in(first.timings_s), seconds_in(second.timings_s)),
        note="" if compared else "they were not given the same images",
    )


def _of_classified(pair: Pair, uids: tuple[str, str], first: Classified, second: Classified) -> SeriesComparison:
    compared = agreement(pair, first.scores.astype(np.float64), second.scores.astype(np.float64))
    return SeriesComparison(
        *uids, classes=compared, seconds=(seconds_in(first.timings_s), seconds_in(second.timings_s))
    )


def agreement(pair: Pair, first: Probabilities, second: Probabilities) -> ClassComparison | None:
    """Of two (image, class) arrays of probabilities; None when they are not of the same images."""
    names = [_class_names(model) for model in pair]
    if not len(first) or len(first) != len(second):
        return None
    both = [name for name in names[0] if name in names[1]]
    best = zip(first.argmax(1).tolist(), second.argmax(1).tolist(), strict=True)
    differing = tuple(image for image, (a, b) in enumerate(best, 1) if names[0][a] != names[1][b])
    ours, theirs = (
        rows[:, [own.index(name) for name in both]] for rows, own in zip((first, second), names, strict=True)
    )
    largest = round(float(np.abs(ours - theirs).max(initial=0.0)), 4)
    return ClassComparison(len(first), len(first) - len(differing), largest, differing)


def _class_names(model: ModelVersion) -> list[str]:
    spec = model.card.classification
    return [one.name for one in spec.classes] if spec else []


# --------------------------------------------------------------------------------------------------------- parts


def _number(model: ModelVersion, name: str) -> int:
    return next(segment.number for segment in model.card.segments if segment.name == name)


def common_segments(pair: Pair) -> list[str]:
    """Names of segments that both have, in the first one's order."""
    theirs = {segment.name for segment in pair[1].card.segments}
    return [segment.name for segment in pair[0].card.segments if segment.name in theirs]


def _dice(masks: Sequence[Masks | None], name: str) -> float | None:
    first, second = masks
    if first is None or second is None:
        return None
    found: Overlap = overlap(first, second, name)
    return found.dice


def _measured(job: JobView, name: str) -> float | None:
    rows = job.details.get("measurements", [])
    return next((row.get("volume_ml") for row in rows if row.get("segment") == name), None)


def seconds_in(timings_s: Mapping[str, float]) -> float:
    """What the model's host took, without the wait for it."""
    return round(sum(timings_s.get(stage, 0.0) for stage in _STAGES), 3)


def summary(found: Iterable[SeriesComparison]) -> Summary:
    compared = [one for one in found if one.segments or one.classes]
    classes = [one.classes for one in compared if one.classes]
    by_name: dict[str, list[float]] = {}
    for one in compared:
        for segment in one.segments:
            if segment.dice is not None:
                by_name.setdefault(segment.name, []).append(segment.dice)
    first, second = (_median([one.seconds[n] for one in compared]) for n in (0, 1))
    return Summary(
        len(compared),
        {name: (min(d), statistics.median(d)) for name, d in by_name.items()},
        (first, second),
        sum(one.images for one in classes),
        sum(one.same for one in classes),
    )


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3) if values else 0.0
