"""Single images with what a model marked on them: image by image, in numbers of their own pixels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from dicomnode.imaging.contours import outlines
from dicomnode.imaging.diameter import farthest
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.imaging.images import ImageFrame, ImagesPlan, ImageStack
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.measure import SegmentStatistics, measure_masks
from dicomnode.imaging.pixel_size import PixelSize


@dataclass(frozen=True, eq=False)
class MaskedInstance:
    """An instance with its frames in their order: most have one.

    `indices` are those of its frames in the plan; `values` (frame, row, column) int16, which `rescales`, one a frame,
    bring to what the file has after its own rescale; `masks` are (frame, row, column), too.
    """

    header: Dataset
    indices: tuple[int, ...]
    frames: tuple[ImageFrame, ...]
    values: npt.NDArray[np.int16]
    rescales: tuple[Rescale, ...]
    masks: SegmentMasks
    pixel_size: PixelSize | None

    @property
    def is_multi_frame(self) -> bool:
        return "NumberOfFrames" in self.header


@dataclass(frozen=True, slots=True)
class Line:
    """A straight one on an image: `ends` are (column, row), 0 at the outer edge of the first pixel (PS3.3 C.18.6)."""

    length: float  # mm, or pixels where nobody knows how large these are
    ends: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RegionStatistics:
    """A segment on a frame; values are those of the file after its own rescale, None without pixels."""

    image: int  # in the plan's frames
    segment_number: int
    pixels: int
    area_mm2: float | None  # None where nobody knows how large pixels are
    values: SegmentStatistics
    diameter: Line | None = None


def masked_instances(
    plan: ImagesPlan, volumes: Sequence[npt.NDArray[np.int16]], masks: Sequence[SegmentMasks]
) -> list[MaskedInstance]:
    """In the plan's order; `volumes` and `masks` are of its stacks."""
    found = [
        one
        for stack, values, marked in zip(plan.stacks, volumes, masks, strict=True)
        for one in _of_stack(plan, stack, values, marked)
    ]
    return sorted(found, key=lambda one: one.indices[0])


def _of_stack(
    plan: ImagesPlan, stack: ImageStack, values: npt.NDArray[np.int16], masks: SegmentMasks
) -> Iterator[MaskedInstance]:
    for instance, group in groupby(range(len(stack.frames)), key=lambda k: stack.frames[k].instance):
        which = list(group)
        part = slice(which[0], which[-1] + 1)
        labels = None if masks.labels is None else masks.labels[part]
        odds = None if masks.probabilities is None else masks.probabilities[:, part]
        yield MaskedInstance(
            plan.headers[instance],
            stack.indices[part],
            stack.frames[part],
            values[part],
            tuple(stack.own_rescale(k) for k in which),
            SegmentMasks(labels, odds, masks.threshold),
            stack.pixel_size,
        )


def measured(
    instances: Sequence[MaskedInstance], segment_numbers: Sequence[int], with_diameter: Collection[int]
) -> list[RegionStatistics]:
    """Of every frame every segment, in their order; `with_diameter`: of these segments the longest line, too."""
    return [
        one
        for instance in instances
        for k in range(len(instance.frames))
        for one in _of_frame(instance, k, segment_numbers, with_diameter)
    ]


def _of_frame(
    instance: MaskedInstance, k: int, numbers: Sequence[int], with_diameter: Collection[int]
) -> Iterator[RegionStatistics]:
    """Counted as a volume of one slice, whose pixels are of one square millimetre where nobody knows."""
    masks = instance.masks.plane(k)
    size = instance.pixel_size
    mm = size.mm if size is not None else (1.0, 1.0)
    geometry = VolumeGeometry(masks.shape, np.diag([1.0, *mm, 1.0]))
    for found in measure_masks(masks, instance.values[k : k + 1], geometry, instance.rescales[k], numbers):
        wanted = found.voxels and found.segment_number in with_diameter
        yield RegionStatistics(
            instance.indices[k],
            found.segment_number,
            found.voxels,
            None if size is None else found.voxels * size.mm2,
            found,
            longest_line(masks.of(found.segment_number)[0], mm) if wanted else None,
        )


def longest_line(mask: npt.NDArray[np.bool_], spacing: Sequence[float]) -> Line | None:
    """Within a connected part of a (row, column) mask, between points of its outline."""
    lines = [farthest(outline.outer, spacing) for outline in outlines(mask)]
    if not lines:
        return None
    length, ends = max(lines, key=lambda line: line[0])
    (top, left), (bottom, right) = (ends + 0.5).tolist()
    return Line(length, ((left, top), (right, bottom)))
