"""Infer: a series becomes a volume, and the volume a label map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.errors import SeriesRefused
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import read_instances
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import Clock, InferenceEngine, InstanceStore, JobWork, ModelVersion


@dataclass(frozen=True, slots=True)
class Inference:
    """What a model said of a volume; the arrays are valid while InferStage.run is entered."""

    plan: VolumePlan
    volume: npt.NDArray[np.int16]  # (slice, row, column) int16, stored values; real = plan.rescale of them
    labels: npt.NDArray[np.uint8]  # (slice, row, column) uint8 on the same grid, 0 for background
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]


class InferStage:
    def __init__(self, store: InstanceStore, engine: InferenceEngine, clock: Clock, timeout_s: float) -> None:
        self._store, self._engine, self._clock, self._timeout_s = store, engine, clock, timeout_s

    @contextmanager
    def run(self, work: JobWork) -> Iterator[Inference]:
        """Raises SeriesRefused (NotAVolume, CannotDecode), InferenceError, OutOfResources."""
        check_modality(work.series.modality, work.model)
        clock = self._clock.monotonic
        begun = clock()
        instances = read_instances([self._store.path(i.path) for i in work.series.instances])
        plan = plan_instances(instances)
        check_extent(plan, work.model)
        with self._engine.open(plan.geometry.shape) as session:
            planned = clock()
            read_volume(plan, instances, session.volume)
            decoded = clock()
            with session.run(work.model, plan.geometry, plan.rescale, timeout_s=self._timeout_s) as labels:
                timings = {"plan": planned - begun, "decode": decoded - planned, "infer": clock() - decoded}
                timings |= {f"infer: {part}": seconds for part, seconds in session.timings_s.items()}
                details = {"engine": dict(self._engine.describe(work.model)), "notes": list(plan.notes)}
                yield Inference(plan, session.volume, labels, timings, details)


def check_modality(modality: str, model: ModelVersion) -> None:
    """A rule may match more than its model was made for."""
    wanted = model.card.input.modality
    if modality not in wanted:
        raise SeriesRefused(
            f"the model {model.name} takes {' or '.join(wanted)}, this series is {modality or 'nothing'}"
        )


def check_extent(plan: VolumePlan, model: ModelVersion) -> None:
    """A field of view too small for the model would give masks that mean nothing."""
    extent_mm = plan.geometry.spacing_mm * np.array(plan.geometry.shape)
    needed_mm = np.array(model.card.input.minimum_extent_mm)
    # the card's are along patient axes, in the order of its orientation; the largest component decides
    along = np.abs(plan.geometry.directions).argmax(axis=0)
    axis = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    for letter, needed in zip(model.card.input.orientation, needed_mm, strict=True):
        have = extent_mm[along == axis[letter]].max(initial=0.0)
        if have < needed:
            raise SeriesRefused(
                f"the model {model.name} needs {needed:.0f} mm along {letter}, this series has {have:.0f} mm"
            )
