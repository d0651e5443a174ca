"""Volume and intensity of each segment, from a label map and the volume it was made on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dicomnode.imaging.diameter import Diameter, longest_diameter
from dicomnode.imaging.frames import Frame
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.imaging.masks import SegmentMasks

_BINS = 1 << 16


@dataclass(frozen=True, slots=True)
class SegmentStatistics:
    """One segment in numbers; intensities in the modality's units (HU for CT), None when there are no voxels."""

    segment_number: int
    voxels: int
    volume_ml: float
    mean: float | None
    standard_deviation: float | None  # of the population
    minimum: float | None
    maximum: float | None
    diameter: Diameter | None = None  # where the card asks for it


def measure(
    labels: npt.NDArray[np.uint8],
    volume: npt.NDArray[np.int16],
    geometry: VolumeGeometry,
    rescale: Rescale,
    segment_numbers: Iterable[int],
) -> list[SegmentStatistics]:
    """Statistics of the segments with these numbers, in their order.

    `labels` is (slice, row, column) uint8, 0 background; `volume` (slice, row, column) int16 stored values in the
    same grid. Counted in histograms of whole numbers, slice by slice: exact, and without a copy of the volume.
    """
    if labels.shape != volume.shape or labels.shape != geometry.shape:
        raise ValueError(f"labels {labels.shape}, volume {volume.shape} and geometry {geometry.shape} differ")
    numbers = list(segment_numbers)
    histograms = _histograms(labels, volume, numbers)
    return [_statistics(number, histograms[number], geometry.voxel_volume_mm3, rescale) for number in numbers]


def measure_masks(
    masks: SegmentMasks,
    volume: npt.NDArray[np.int16],
    geometry: VolumeGeometry,
    rescale: Rescale,
    segment_numbers: Iterable[int],
) -> list[SegmentStatistics]:
    """As measure; a voxel of several segments counts in each."""
    if masks.labels is not None:
        return measure(masks.labels, volume, geometry, rescale, segment_numbers)
    found = []
    for number in segment_numbers:
        (alone,) = measure(masks.of(number).view(np.uint8), volume, geometry, rescale, [1])
        found.append(replace(alone, segment_number=number))
    return found


def with_diameters(
    statistics: Iterable[SegmentStatistics],
    masks: SegmentMasks,
    frames: Sequence[Frame],
    segment_numbers: Collection[int],
) -> list[SegmentStatistics]:
    """The same, those of these segments with their longest diameter within a slice; `frames`: one a slice."""
    return [
        replace(found, diameter=longest_diameter(masks.of(found.segment_number), frames))
        if found.segment_number in segment_numbers
        else found
        for found in statistics
    ]


def _histograms(
    labels: npt.NDArray[np.uint8], volume: npt.NDArray[np.int16], numbers: list[int]
) -> dict[int, npt.NDArray[np.int64]]:
    """For each segment (65536,) int64: voxels by stored value + 32768."""
    histograms = {number: np.zeros(_BINS, dtype=np.int64) for number in numbers}
    for plane, values in zip(labels, volume, strict=True):
        box = _box_of(plane)
        if box is None:
            continue
        counts, lowest = _counts(plane[box], values[box])
        first = lowest + _BINS // 2
        for number in numbers:
            if number < len(counts):
                histograms[number][first : first + counts.shape[1]] += counts[number]
    return histograms


def _box_of(plane: npt.NDArray[np.uint8]) -> tuple[slice, slice] | None:
    """The rows and columns outside of which there is only background; None where there is nothing else."""
    if not plane.any():
        return None
    rows = np.flatnonzero(plane.any(axis=1))
    high = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(plane[high].any(axis=0))
    return high, slice(int(columns[0]), int(columns[-1]) + 1)


def _counts(labels: npt.NDArray[np.uint8], values: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int64], int]:
    """(label, value) int64: pixels of that label, 0 being background, by value above the lowest, and that."""
    lowest, labels_most = int(values.min()), int(labels.max())
    span = int(values.max()) - lowest + 1
    keys = labels.astype(np.int32)  # 256 labels of 65536 values fit
    keys *= span
    keys += values
    keys -= lowest
    return np.bincount(keys.ravel(), minlength=(labels_most + 1) * span).reshape(-1, span), lowest


def _statistics(
    number: int, histogram: npt.NDArray[np.int64], voxel_mm3: float, rescale: Rescale
) -> SegmentStatistics:
    voxels = int(histogram.sum())
    volume_ml = voxels * voxel_mm3 / 1000.0
    if not voxels:
        return SegmentStatistics(number, 0, 0.0, None, None, None, None)
    bins = np.flatnonzero(histogram)
    stored, counts = bins - _BINS // 2, histogram[bins]
    mean_stored = int((stored * counts).sum()) / voxels
    variance = float((counts * (stored - mean_stored) ** 2).sum()) / voxels
    ends = sorted(float(s) * rescale.slope + rescale.intercept for s in (stored[0], stored[-1]))
    return SegmentStatistics(
        segment_number=number,
        voxels=voxels,
        volume_ml=volume_ml,
        mean=mean_stored * rescale.slope + rescale.intercept,
        standard_deviation=abs(rescale.slope) * variance**0.5,
        minimum=ends[0],
        maximum=ends[1],
    )
