"""The inference engine port in memory: thresholds instead of networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dicomnode.errors import InferenceError
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ModelVersion, Rescale


class FakeEngine:
    """Segment 1 is what exceeds the first threshold, in modality units, segment 2 the second, and so on.

    `failures` are raised by the next runs, one each, before anything is computed.
    """

    def __init__(self, thresholds: Sequence[float] = (50.0,), failures: Sequence[InferenceError] = ()) -> None:
        self.thresholds = tuple(thresholds)
        self.failures = list(failures)
        self.prepared: list[ModelVersion] = []
        self.runs: list[str] = []

    @contextlib.contextmanager
    def open(self, shape: tuple[int, int, int]) -> Iterator[FakeSession]:
        yield FakeSession(self, shape)

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        self.prepared = list(models)

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        return {"engine": "thresholds", "precision": "f32", "device": "CPU", "server": "fake"}


class FakeSession:
    timings_s: Mapping[str, float] = {}

    def __init__(self, engine: FakeEngine, shape: tuple[int, int, int]) -> None:
        self._engine = engine
        self.volume: npt.NDArray[np.int16] = np.zeros(shape, dtype=np.int16)

    @contextlib.contextmanager
    def run(
        self, model: ModelVersion, geometry: VolumeGeometry, rescale: Rescale, *, timeout_s: float
    ) -> Iterator[npt.NDArray[np.uint8]]:
        self._engine.runs.append(model.name)
        if self._engine.failures:
            raise self._engine.failures.pop(0)
        values = self.volume * rescale.slope + rescale.intercept
        labels = np.zeros(self.volume.shape, dtype=np.uint8)
        for number, threshold in enumerate(self._engine.thresholds[: len(model.card.segments)], start=1):
            labels[values > threshold] = number
        yield labels
