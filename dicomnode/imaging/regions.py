"""A box in the patient as the faces of a body, and as what a slice of the source shows of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from dicomnode.domain.findings import VolumeBox
from dicomnode.imaging.box import Box
from dicomnode.imaging.geometry import FloatArray, VolumeGeometry
from dicomnode.imaging.volume import VolumePlan

_PIXEL_DIGITS, _MM_DIGITS = 2, 3


@dataclass(frozen=True, eq=False)
class Region:
    """A closed line on a slice of a plan, and how long the box's sides are, seen from there."""

    slice_index: int
    outline: FloatArray
    """(5, 2) float64: column, row, in pixels from the outer edge of the first; the last is the first point."""
    length_mm: float  # of the longer side in the slice
    width_mm: float  # of the other
    depth_mm: float  # across the slices


def faces(box: VolumeBox) -> list[FloatArray]:
    """Six closed polygons, (5, 3) float64, LPS mm; the last point is the first."""
    centre, halves = np.array(box.centre_mm), np.array(box.halves_mm)
    return [_face(centre, halves, axis, side) for axis, side in itertools.product(range(3), (-1, 1))]


def faces_of_voxels(region: Box, geometry: VolumeGeometry) -> list[FloatArray]:
    """As faces, of the voxels of a grid, to their outer edges.

    Centre and sides are rounded, and not the corners: those of a face then stay in one plane.
    """
    first, end = np.array(region.start), np.array(region.stop)
    centre = geometry.affine[:3, :3] @ ((first + end - 1) / 2) + geometry.affine[:3, 3]
    halves = (geometry.affine[:3, :3] * ((end - first) / 2)).T
    sides = itertools.product(range(3), (-1, 1))
    return [_face(centre.round(_MM_DIGITS), halves.round(_MM_DIGITS), axis, side) for axis, side in sides]


_AROUND = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))


def _face(centre: FloatArray, halves: FloatArray, axis: int, side: int) -> FloatArray:
    first, second = (halves[other] for other in range(3) if other != axis)
    middle = centre + side * halves[axis]
    return np.array([middle + a * first + b * second for a, b in _AROUND]).round(_MM_DIGITS)


def central_region(box: VolumeBox, plan: VolumePlan) -> Region:
    """On the slice next to the box's centre: the rectangle that the box has there.

    Of a box that lies along the slices, as those of a model do; of another that of the two axes most along them.
    """
    centre, halves = np.array(box.centre_mm), np.array(box.halves_mm)
    across = int(np.abs(halves @ plan.geometry.normal / np.linalg.norm(halves, axis=1)).argmax())
    first, second = (halves[axis] for axis in range(3) if axis != across)
    index = np.linalg.solve(plan.geometry.affine, np.array([*centre, 1.0]))[0]
    k = int(np.clip(np.rint(index), 0, len(plan.frames) - 1))
    corners = np.array([centre + a * first + b * second for a, b in _AROUND])
    width, length = sorted(2 * float(np.linalg.norm(side)) for side in (first, second))
    depth = 2 * float(np.linalg.norm(halves[across]))
    return Region(k, _on_slice(corners, plan, k), length, width, depth)


def _on_slice(points: FloatArray, plan: VolumePlan, k: int) -> FloatArray:
    """LPS mm → (column, row) on a slice, from the outer edge of its first pixel, inside it; (n, 2) float64."""
    frame, (_, rows, columns) = plan.frames[k], plan.geometry.shape
    off = points - np.array(frame.position_mm)
    down, along = frame.spacing_mm  # between rows, between columns (PS3.3 10.7.1.3)
    places = np.column_stack(
        [off @ np.array(frame.orientation[:3]) / along, off @ np.array(frame.orientation[3:]) / down]
    )
    inside: FloatArray = np.clip(places + 0.5, 0.0, [columns, rows]).round(_PIXEL_DIGITS)
    return inside
