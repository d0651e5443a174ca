"""A box of voxels: around what a model found, with a margin, and the grid that such a part of a volume has.

Index order is (slice, row, column), frames LPS mm (PS3.3 C.7.6.2.1.1), as in geometry.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dicomnode.domain.findings import VolumeBox
from dicomnode.imaging.geometry import VolumeGeometry

# Of a voxel: direction cosines are written with some six digits
_ROUNDING = 1e-4

Triple = tuple[int, int, int]
Voxel = TypeVar("Voxel", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Box:
    """Voxels from `start` to before `stop`, along (slice, row, column)."""

    start: Triple
    stop: Triple

    def __post_init__(self) -> None:
        if any(not 0 <= first < end for first, end in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"no box of voxels: from {self.start} to {self.stop}")

    @property
    def shape(self) -> Triple:
        slices, rows, columns = (end - first for first, end in zip(self.start, self.stop, strict=True))
        return slices, rows, columns

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index a volume with: a view of the part."""
        of_slices, of_rows, of_columns = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return of_slices, of_rows, of_columns

    def is_whole_slices_of(self, shape: Triple) -> bool:
        """Whether its voxels lie one after the other in a volume of this shape, in C order."""
        return self.start[1:] == (0, 0) and self.stop[1:] == shape[1:]


@dataclass(frozen=True, slots=True)
class Found:
    """Where labels are in a label map, and how many voxels have them; no box where none has."""

    voxels: int
    box: Box | None


def found(labels: npt.NDArray[np.uint8], numbers: Collection[int]) -> Found:
    """Of these labels together, in a (slice, row, column) uint8 label map; slice by slice, without a copy of it."""
    wanted = np.zeros(256, dtype=bool)
    wanted[list(numbers)] = True
    _, rows, columns = labels.shape
    in_rows, in_columns = np.zeros(rows, dtype=bool), np.zeros(columns, dtype=bool)
    voxels, slices = 0, []
    for k, plane in enumerate(labels):
        mask = wanted[plane]
        if count := int(np.count_nonzero(mask)):
            voxels += count
            slices.append(k)
            in_rows |= mask.any(1)
            in_columns |= mask.any(0)
    if not slices:
        return Found(0, None)
    (row, last_row), (column, last_column) = (
        np.flatnonzero(each)[[0, -1]].tolist() for each in (in_rows, in_columns)
    )
    return Found(voxels, Box((slices[0], row, column), (slices[-1] + 1, last_row + 1, last_column + 1)))


def found_of(mask: npt.NDArray[np.bool_]) -> Found:
    """As found, of a (slice, row, column) mask."""
    return found(mask.view(np.uint8), [1])


def around(boxes: Sequence[VolumeBox], geometry: VolumeGeometry) -> Box | None:
    """The voxels that these touch, in one box; None where they touch none of the volume, or there are none."""
    if not boxes:
        return None
    signs = np.array(list(itertools.product((-1, 1), repeat=3)), dtype=np.float64)
    corners = np.concatenate([np.array(box.centre_mm) + signs @ np.array(box.halves_mm) for box in boxes])
    indices = np.linalg.solve(geometry.affine[:3, :3], (corners - geometry.affine[:3, 3]).T).T
    low = np.maximum(np.floor(indices.min(0) + 0.5 + _ROUNDING), 0).astype(int).tolist()
    high = np.minimum(np.ceil(indices.max(0) + 0.5 - _ROUNDING), geometry.shape).astype(int).tolist()
    if any(first >= end for first, end in zip(low, high, strict=True)):
        return None
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def with_margin(box: Box, margin_mm: float, geometry: VolumeGeometry) -> Box:
    """The box with every voxel whose centre lies within the margin of one in it, as far as the volume goes.

    What counts is how far apart the planes of an index are, along their normal: in a volume with gantry tilt less
    than a step from slice to slice.
    """
    between_mm = 1.0 / np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1)
    more = [int(voxels) for voxels in np.ceil(margin_mm / between_mm - _ROUNDING)]
    start = tuple(max(first - n, 0) for first, n in zip(box.start, more, strict=True))
    stop = tuple(min(end + n, size) for end, n, size in zip(box.stop, more, geometry.shape, strict=True))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def geometry_of_part(geometry: VolumeGeometry, box: Box) -> VolumeGeometry:
    """The grid of a box of a volume: its first voxel lies where it lies in the whole."""
    affine = geometry.affine.copy()
    affine[:3, 3] += geometry.affine[:3, :3] @ np.array(box.start, dtype=np.float64)
    return VolumeGeometry(box.shape, affine)


def put_back(part: npt.NDArray[Voxel], box: Box, shape: Triple) -> npt.NDArray[Voxel]:
    """A label map, or a map, of the box as one of the whole volume: (..., slice, row, column), 0 outside the box."""
    whole = np.zeros((*part.shape[:-3], *shape), dtype=part.dtype)
    whole[..., *box.slices] = part
    return whole
