"""The longest straight line across a segment within a slice: what a radiologist measures with a ruler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

from dicomnode.imaging.contours import Points, outlines
from dicomnode.imaging.frames import Frame

Point = tuple[float, float, float]  # LPS mm


@dataclass(frozen=True, slots=True)
class Diameter:
    """Between two points of the segment's outline, which lies half way between pixels inside and outside."""

    length_mm: float
    ends: tuple[Point, Point]
    slice_index: int


def longest_diameter(mask: npt.NDArray[np.bool_], frames: Sequence[Frame]) -> Diameter | None:
    """Of a (slice, row, column) mask on these frames, one a slice; None when it is empty.

    Slices are looked at by the size of what is in them, until none can hold a longer line.
    """
    best: Diameter | None = None
    reach = {k: _reach_mm(mask[k], frames[k]) for k in range(len(mask)) if mask[k].any()}
    for k in sorted(reach, key=lambda index: -reach[index]):
        if best is not None and reach[k] <= best.length_mm:
            break
        for outline in outlines(mask[k]):
            found = _across(outline.outer, frames[k], k)
            if best is None or found.length_mm > best.length_mm:
                best = found
    return best


def _reach_mm(plane: npt.NDArray[np.bool_], frame: Frame) -> float:
    """No line in the plane's mask is longer: its bounding box from corner to corner."""
    extent = [np.ptp(np.flatnonzero(plane.any(axis))) + 1 for axis in (1, 0)]
    return float(np.hypot(extent[0] * frame.spacing_mm[0], extent[1] * frame.spacing_mm[1]))


def _across(points: Points, frame: Frame, slice_index: int) -> Diameter:
    length_mm, ends = farthest(points, frame.spacing_mm)
    first, second = (tuple(in_patient(end[None], frame)[0].tolist()) for end in ends)
    return Diameter(length_mm, (first, second), slice_index)


def farthest(points: Points, spacing: Sequence[float]) -> tuple[float, Points]:
    """The two points, (row, column), that lie farthest apart, and how far: both are corners of the convex hull."""
    corners = points[ConvexHull(points).vertices]
    scaled = corners * np.array(spacing)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    one, other = np.unravel_index(int(distances.argmax()), distances.shape)
    return float(distances.max()), corners[[one, other]]


def in_patient(points: Points, frame: Frame) -> npt.NDArray[np.float64]:
    """(point, 3) LPS mm of (point, 2) rows and columns of a frame (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    rows, columns = points[:, :1] * frame.spacing_mm[0], points[:, 1:] * frame.spacing_mm[1]
    placed: npt.NDArray[np.float64] = np.array(frame.position_mm) + columns * along_row + rows * along_column
    return placed
