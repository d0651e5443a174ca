"""Small connected parts of a segment: what a network finds by the way, and nobody wants to look at."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# Voxels that touch at a face, an edge or a corner are one part.
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


def drop_islands(labels: npt.NDArray[np.uint8], voxel_volume_mm3: float, minimum_volume_ml: float) -> int:
    """Makes background, in place, of every connected part of a segment that is smaller; how many parts that was.

    `labels`: (slice, row, column) uint8, 0 for background. Each segment is looked at by itself.
    """
    if minimum_volume_ml <= 0:
        return 0
    least = math.ceil(minimum_volume_ml * 1000.0 / voxel_volume_mm3 - 1e-9)  # voxels
    boxes = ndimage.find_objects(labels)
    return sum(_drop(labels[box], number, least) for number, box in enumerate(boxes, 1) if box is not None)


def _drop(part: npt.NDArray[np.uint8], number: int, least: int) -> int:
    """Of one segment, in its bounding box."""
    islands, count = ndimage.label(part == number, structure=_TOUCHING)
    small = np.bincount(islands.ravel(), minlength=count + 1) < least
    small[0] = False
    part[small[islands]] = 0
    return int(small.sum())
