"""Masks of segments, which may overlap, whichever way a model gave them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.imaging.islands import drop_islands

Mask = npt.NDArray[np.bool_]
LabelMap = npt.NDArray[np.uint8]
FULL = 255  # of a probability of 1


@dataclass(frozen=True, eq=False)
class SegmentMasks:
    """In the grid of the main series; arrays are those of the engine's session, and valid as long as they are.

    `labels`: (slice, row, column) uint8, 0 for background; None where segments may overlap. `probabilities`:
    (segment, slice, row, column) uint8, 255 for 1; None where the model gives none. Without labels, a segment's mask
    is where its probability is `threshold` or more, as far as 1/255 tells them apart.
    """

    labels: LabelMap | None
    probabilities: LabelMap | None = None
    threshold: float = 0.5

    @classmethod
    def of_answers(cls, answers: Mapping[str, npt.NDArray[Any]], threshold: float) -> SegmentMasks:
        """Of what ports.inference.InferenceSession.ask gives."""
        return cls(answers.get("LABELMAP"), answers.get("PROBABILITIES"), threshold)

    @property
    def shape(self) -> tuple[int, int, int]:
        slices, rows, columns = self._array.shape[-3:]
        return slices, rows, columns

    @property
    def _array(self) -> LabelMap:
        found = self.labels if self.labels is not None else self.probabilities
        assert found is not None  # domain.model_output.Output.arrays
        return found

    @property
    def least(self) -> int:
        """The least of 0 to 255 that stands for a probability of `threshold` or more."""
        return max(1, math.ceil(self.threshold * FULL - 1e-9))

    def of(self, number: int) -> Mask:
        """(slice, row, column), a new array, of the segment with this number."""
        if self.labels is not None:
            return np.equal(self.labels, number)
        assert self.probabilities is not None
        mask: Mask = self.probabilities[number - 1] >= self.least
        return mask

    def plane(self, k: int) -> SegmentMasks:
        """Those of one slice, or of one image."""
        labels = None if self.labels is None else self.labels[k : k + 1]
        odds = None if self.probabilities is None else self.probabilities[:, k : k + 1]
        return SegmentMasks(labels, odds, self.threshold)

    @property
    def is_empty(self) -> bool:
        if self.labels is not None:
            return not self.labels.any()
        assert self.probabilities is not None
        return not any(bool((one >= self.least).any()) for one in self.probabilities)


def drop_small_parts(masks: SegmentMasks, voxel_volume_mm3: float, minimum_volume_ml: float) -> None:
    """In place: parts of a segment that are smaller become background, and their probability 0."""
    if minimum_volume_ml <= 0:
        return
    if masks.labels is None:
        assert masks.probabilities is not None
        for one in masks.probabilities:
            mask = (one >= masks.least).view(np.uint8)
            _drop(one, mask, voxel_volume_mm3, minimum_volume_ml)
        return
    before = None if masks.probabilities is None else masks.labels.copy()
    drop_islands(masks.labels, voxel_volume_mm3, minimum_volume_ml)
    if before is not None and masks.probabilities is not None:
        for number, one in enumerate(masks.probabilities, 1):
            one[(before == number) & (masks.labels != number)] = 0


def _drop(probability: LabelMap, mask: LabelMap, voxel_volume_mm3: float, minimum_volume_ml: float) -> None:
    before = mask.copy()
    if drop_islands(mask, voxel_volume_mm3, minimum_volume_ml):
        probability[before != mask] = 0
