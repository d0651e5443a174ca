"""What the frames of a segmentation hold: masks, one bit a pixel, or probabilities, a byte each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicomnode.imaging.masks import SegmentMasks

LabelMap = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
_FEW = 16  # segments, up to which comparing with each is faster than counting


class SegFrames(Protocol):
    """Planes by segment and slice, in the grid of the source."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slice, row, column)."""

    @property
    def is_binary(self) -> bool:
        """Whether a pixel is in a segment or not (PS3.3 C.8.20.2.3); else it has 0 to 255."""

    @property
    def highest(self) -> int:
        """No segment has a higher number."""

    def segments_in(self, index: int) -> list[int]:
        """Numbers of the segments that have anything in a slice, in their order."""

    def plane(self, segment: int, index: int) -> Plane:
        """(row, column) of a segment in a slice."""

    def digest(self) -> str:
        """Of all that it holds: other content, another digest."""


@dataclass(frozen=True, eq=False)
class LabelFrames:
    """Of a label map, (slice, row, column) uint8, 0 for background."""

    labels: LabelMap
    is_binary = True

    @property
    def shape(self) -> tuple[int, int, int]:
        slices, rows, columns = self.labels.shape
        return slices, rows, columns

    @cached_property
    def highest(self) -> int:
        return int(self.labels.max(initial=0))

    def segments_in(self, index: int) -> list[int]:
        plane = self.labels[index]
        if self.highest <= _FEW:
            return [number for number in range(1, self.highest + 1) if (plane == number).any()]
        found: list[int] = np.flatnonzero(np.bincount(plane.ravel()))[int(plane.min() == 0) :].tolist()
        return found

    def plane(self, segment: int, index: int) -> Plane:
        plane: npt.NDArray[np.bool_] = self.labels[index] == segment
        return plane

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.labels).data).hexdigest()


@dataclass(frozen=True, eq=False)
class ProbabilityFrames:
    """Of probabilities, (segment, slice, row, column) uint8: where they are `least` or more; with 0, as they are."""

    probabilities: npt.NDArray[np.uint8]
    least: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        _, slices, rows, columns = self.probabilities.shape
        return slices, rows, columns

    @property
    def is_binary(self) -> bool:
        return self.least > 0

    @property
    def highest(self) -> int:
        return len(self.probabilities)

    def segments_in(self, index: int) -> list[int]:
        return [number for number in range(1, self.highest + 1) if self.plane(number, index).any()]

    def plane(self, segment: int, index: int) -> Plane:
        plane: npt.NDArray[np.uint8] = self.probabilities[segment - 1, index]
        return np.greater_equal(plane, self.least) if self.is_binary else plane

    def digest(self) -> str:
        if not self.is_binary:
            return hashlib.sha256(np.ascontiguousarray(self.probabilities).data).hexdigest()
        digest = hashlib.sha256()
        for one in self.probabilities:
            for plane in one:
                digest.update(np.packbits(plane >= self.least).data)
        return digest.hexdigest()


def frames_of_masks(masks: SegmentMasks) -> SegFrames:
    """For a SEG BINARY."""
    if masks.labels is not None:
        return LabelFrames(masks.labels)
    assert masks.probabilities is not None
    return ProbabilityFrames(masks.probabilities, masks.least)
