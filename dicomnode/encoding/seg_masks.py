"""What two SEGs of the node on one series say of each other: voxels by segment, and those that both have.

Of BINARY segmentations (PS3.3 C.8.20.2.3) whose frames lie on the same planes, as two results of one series do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset

from dicomnode.errors import EncodingError

# Image Position (Patient), LPS mm, to a hundredth; of a single image its SOP Instance UID and frame number
Plane = tuple[float, ...] | tuple[str, int]


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
    """The frames of SEGs: (row, column) uint8, 0 or 1, by segment number and plane."""

    names: Mapping[int, str]  # segment number → label
    frames: Mapping[tuple[int, Plane], npt.NDArray[np.uint8]]

    def of(self, name: str) -> dict[Plane, npt.NDArray[np.uint8]]:
        return {plane: frame for (number, plane), frame in self.frames.items() if self.names[number] == name}


NOTHING = Masks({}, {})


def read_masks(path: Path) -> Masks:
    """Raises EncodingError when the file is no SEG that can be read."""
    try:
        dataset = pydicom.dcmread(path)
        names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in dataset.SegmentSequence}
        pixels = dataset.pixel_array
        shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
        shared = dataset.SharedFunctionalGroupsSequence[0]
        places = [_place(item, shared) for item in dataset.PerFrameFunctionalGroupsSequence]
    except (OSError, AttributeError, KeyError, ValueError, pydicom.errors.InvalidDicomError) as error:
        raise EncodingError(f"{path.name} is no segmentation that can be read: {error}") from error
    return Masks(names, dict(zip(places, pixels.reshape(shape), strict=True)))


def together(masks: Sequence[Masks]) -> Masks:
    """Those of one model on one series: single images have a SEG each."""
    return Masks(
        {number: name for one in masks for number, name in one.names.items()},
        {place: frame for one in masks for place, frame in one.frames.items()},
    )


def _place(frame: Dataset, shared: Dataset) -> tuple[int, Plane]:
    """Where there is no place in the patient, the image and its frame."""
    identification = frame if "SegmentIdentificationSequence" in frame else shared
    number = int(identification.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    if "PlanePositionSequence" in frame:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        return number, tuple(round(float(value), 2) for value in position)
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    return number, (str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber", 1)))


def overlap(first: Masks, second: Masks, name: str) -> Overlap:
    """Plane by plane, so that no more than the files' frames are in memory."""
    ours, theirs = first.of(name), second.of(name)
    both = sum(int(np.count_nonzero(ours[plane] & theirs[plane])) for plane in ours.keys() & theirs.keys())
    return Overlap(_voxels(ours), _voxels(theirs), both)


def _voxels(frames: Mapping[Plane, npt.NDArray[np.uint8]]) -> int:
    return sum(int(np.count_nonzero(frame)) for frame in frames.values())
