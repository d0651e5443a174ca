"""The inference engine port in memory: thresholds instead of networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_output import Classification
from dicomnode.domain.model_parameter import settled
from dicomnode.domain.rules import Parameter
from dicomnode.errors import InferenceError
from dicomnode.imaging.box import Box
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.imaging.islands import drop_islands
from dicomnode.ports import InferenceRequest, ModelVersion

Shape = tuple[int, int, int]


class FakeEngine:
    """Segment 1 is what exceeds the first threshold, in modality units, segment 2 the second, and so on.

    With further series, it is so only where each of them exceeds the middle of its role's range.
    `failures` are raised by the next runs, one each, before anything is computed.
    """

    def __init__(self, thresholds: Sequence[float] = (50.0,), failures: Sequence[InferenceError] = ()) -> None:
        self.thresholds = tuple(thresholds)
        self.failures = list(failures)
        self.prepared: list[ModelVersion] = []
        self.runs: list[str] = []
        self.parameters: list[Mapping[str, Parameter]] = []  # of the runs

    @contextlib.contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[FakeSession]:
        yield FakeSession(self, shape, further)

    def load(self, model: ModelVersion) -> None:
        """There is nothing to load."""

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        self.prepared = list(models)

    def taken(self, model: ModelVersion) -> Mapping[str, float]:
        return {"host_bytes": 1e6} if model.name in self.runs else {}

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        return {"engine": "thresholds", "precision": "f32", "device": "CPU", "server": "fake"}

    def close(self) -> None:
        """Nothing is held."""


class FakeSession:
    timings_s: Mapping[str, float] = {}

    def __init__(self, engine: FakeEngine, shape: Shape, further: Sequence[Shape]) -> None:
        self._engine = engine
        self.volume: npt.NDArray[np.int16] = np.zeros(shape, dtype=np.int16)
        self.further: Sequence[npt.NDArray[np.int16]] = [np.zeros(each, dtype=np.int16) for each in further]

    def freeze(self) -> None:
        for volume in (self.volume, *self.further):
            volume.flags.writeable = False

    @contextlib.contextmanager
    def ask(self, request: InferenceRequest) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """Masks, classes and boxes by the thresholds; numbers are the highest and ten less, a map the values."""
        card, geometry, thresholds = request.model.card, request.geometry, self._engine.thresholds
        parameters = settled(card.parameters, request.parameters)
        self._engine.runs.append(request.model.name)
        self._engine.parameters.append(parameters)
        if self._engine.failures:
            raise self._engine.failures.pop(0)
        stored = (self.volume, *self.further)[request.which][request.images]
        values = stored * request.rescale.slope + request.rescale.intercept
        if card.classification is not None:
            yield {"SCORES": _classes(card.classification, values, thresholds)}
            return
        answers = fake_answers(card, values, geometry, thresholds, parameters)
        if card.output.arrays == ("LABELMAP",) and geometry is not None and not card.output.of_images:
            labels = answers["LABELMAP"]
            further = self.further[: len(card.roles)]
            for role, volume, placement in zip(card.roles, further, request.further, strict=True):
                labels[_elsewhere(volume, placement, geometry) <= sum(role.intensity_from) / 2] = 0
            drop_islands(labels, geometry.voxel_volume_mm3, float(parameters["minimum_volume_ml"]))
        yield answers

    @contextlib.contextmanager
    def part(self, box: Box) -> Iterator[FakeSession]:
        part = FakeSession(self._engine, (0, 0, 0), ())
        part.volume, part.further = self.volume[box.slices], self.further
        yield part


def _classes(
    spec: Classification, values: npt.NDArray[np.float64], thresholds: Sequence[float]
) -> npt.NDArray[np.float32]:
    """As many thresholds as the mean of an image exceeds is its class: 0.9 for that, the rest for the others."""
    means = values.mean((1, 2)) if spec.of == "image" else values.mean(keepdims=True).reshape(1)
    found = (means[:, None] > np.array(thresholds)).sum(1)
    scores = np.full((len(found), len(spec.classes)), 0.1 / (len(spec.classes) - 1), dtype=np.float32)
    scores[np.arange(len(found)), np.minimum(found, len(spec.classes) - 1)] = 0.9
    return scores


def fake_answers(
    card: ModelCard,
    values: npt.NDArray[np.float64],
    geometry: VolumeGeometry | None,
    thresholds: Sequence[float],
    parameters: Mapping[str, Parameter],
) -> Mapping[str, npt.NDArray[Any]]:
    """`values`: (slice or image, row, column) in modality units."""
    if card.gives == "map":
        return {"MAP": values.astype(np.float32)}
    if card.measurements is not None:
        each = values if card.measurements.of == "image" else values.reshape(1, 1, -1)
        rows = [[one.max(), one.max() - 10.0][: len(card.measurements.values)] for one in each]
        return {"SCORES": np.array(rows, dtype=np.float32)}
    if card.gives == "boxes":
        return {"BOXES": _boxes(values, geometry, thresholds[0], float(parameters["score_least"]))}
    above = [values > threshold for threshold in thresholds[: len(card.segments)]]
    found = {"PROBABILITIES": np.stack([np.where(one, 255, 25) for one in above]).astype(np.uint8)}
    labels = np.zeros(values.shape, dtype=np.uint8)
    for number, one in enumerate(above, 1):
        labels[one] = number
    answers = found if card.masks.overlap else {"LABELMAP": labels, **found}
    return {name: answers[name] for name in card.output.arrays}


def _boxes(
    values: npt.NDArray[np.float64], geometry: VolumeGeometry | None, threshold: float, score_least: float
) -> npt.NDArray[np.float32]:
    """One with a score of 0.9 about what is above a threshold, in the volume or in each image."""
    if geometry is not None:
        bright = np.argwhere(values > threshold)
        if not len(bright) or score_least > 0.9:
            return np.zeros((0, 14), np.float32)
        low, high = bright.min(0), bright.max(0)
        centre = geometry.affine[:3, :3] @ ((low + high) / 2) + geometry.affine[:3, 3]
        halves = geometry.affine[:3, :3] * (high - low + 1) / 2
        return np.array([[*centre, *halves.T.ravel(), 0.9, 0]], np.float32)
    found = [(number, np.argwhere(image > threshold)) for number, image in enumerate(values)]
    rows = (
        [[number, *(b.min(0)[::-1]), *(b.max(0)[::-1] + 1), 0.9, 0] for number, b in found if len(b)]
        if score_least <= 0.9
        else []
    )
    return np.array(rows, np.float32).reshape(-1, 7)


def _elsewhere(volume: npt.NDArray[np.int16], placement: Placement, main: VolumeGeometry) -> npt.NDArray[np.float64]:
    """A further volume in modality units at the main volume's voxels; 0 where it has none."""
    across = np.linalg.solve(placement.geometry.affine, main.affine)
    index = np.indices(main.shape).reshape(3, -1)
    places = (across[:3, :3] @ index + across[:3, 3:]).reshape(3, *main.shape)
    values = volume * placement.rescale.slope + placement.rescale.intercept
    read = ndimage.map_coordinates(values, places, order=1, mode="nearest")
    count = np.array(volume.shape)[:, None, None, None]
    read[((places < -0.5) | (places > count - 0.5)).any(0)] = 0
    return np.asarray(read)
