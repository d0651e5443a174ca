"""What two SEGs of the node on one series say of each other: voxels by segment, and those that both have.

Of BINARY segmentations (PS3.3 C.8.20.2.3) whose frames lie on the same planes, as two results of one series do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset

from dicomnode.errors import EncodingError

Plane = tuple[float, ...]  # Image Position (Patient), LPS mm, to a hundredth


@dataclass(frozen=True, slots=True)
class Overlap:
    """Voxels that the first, the second and both give to a segment of that name."""

    first: int
    second: int
    both: int

    @property
    def dice(self) -> float:
        """1 where neither has any."""
        total = self.first + self.second
        return 2 * self.both / total if total else 1.0


@dataclass(frozen=True, eq=False)
class Masks:
    """The frames of a SEG: pixels (frame, row, column) uint8, 0 or 1, and where each of them belongs."""

    pixels: npt.NDArray[np.uint8]
    names: Mapping[int, str]  # segment number → label
    frames: Mapping[tuple[int, Plane], int]  # segment number and plane → frame

    def of(self, name: str) -> dict[Plane, int]:
        return {plane: frame for (number, plane), frame in self.frames.items() if self.names[number] == name}


NOTHING = Masks(np.zeros((0, 0, 0), np.uint8), {}, {})


def read_masks(path: Path) -> Masks:
    """Raises EncodingError when the file is no SEG that can be read."""
    try:
        dataset = pydicom.dcmread(path)
        names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in dataset.SegmentSequence}
        pixels = dataset.pixel_array
        shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
        frames = {_place(item): n for n, item in enumerate(dataset.PerFrameFunctionalGroupsSequence)}
    except (OSError, AttributeError, KeyError, ValueError, pydicom.errors.InvalidDicomError) as error:
        raise EncodingError(f"{path.name} is no segmentation that can be read: {error}") from error
    return Masks(pixels.reshape(shape), names, frames)


def _place(frame: Dataset) -> tuple[int, Plane]:
    number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    position = frame.PlanePositionSequence[0].ImagePositionPatient
    return int(number), tuple(round(float(value), 2) for value in position)


def overlap(first: Masks, second: Masks, name: str) -> Overlap:
    """Plane by plane, so that no more than the two files' frames are in memory."""
    ours, theirs = first.of(name), second.of(name)
    both = sum(
        int(np.count_nonzero(first.pixels[ours[plane]] & second.pixels[theirs[plane]]))
        for plane in ours.keys() & theirs.keys()
    )
    return Overlap(_voxels(first, ours), _voxels(second, theirs), both)


def _voxels(masks: Masks, frames: Mapping[Plane, int]) -> int:
    return sum(int(np.count_nonzero(masks.pixels[frame])) for frame in frames.values())
