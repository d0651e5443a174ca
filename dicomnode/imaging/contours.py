"""Outlines of masks: half way between the pixels inside and those outside, so that the mask can be had back."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import contourpy
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # (point, 2): row and column, in pixels, whole numbers at their centres

# Polygons as (point, 2) columns and rows, and of each where its outer line and its holes begin, and the end
_OuterOffset = tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.uint32]]]

_AROUND = 1  # pixels of background, for a mask that reaches the border
_LEAST = 3  # points of a polygon
_BRIDGES_TRIED = 256


@dataclass(frozen=True, eq=False)
class Outline:
    """A connected region: the line around it, and one around each hole; not closed by a repeated point."""

    outer: Points
    holes: tuple[Points, ...] = ()


def outlines(mask: npt.NDArray[np.bool_]) -> list[Outline]:
    """Of a (row, column) mask; a pixel is inside of an outline when its centre is."""
    if not mask.any():
        return []
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.float32), _AROUND)
    generator = contourpy.contour_generator(z=part, fill_type=contourpy.FillType.OuterOffset)
    polygons, offsets = cast(_OuterOffset, generator.filled(0.5, 2.0))
    origin = np.array([left - _AROUND, top - _AROUND], dtype=np.float64)
    return [
        _outline([points[a:b] + origin for a, b in itertools.pairwise(offset.tolist())])
        for points, offset in zip(polygons, offsets, strict=True)
    ]


def _outline(lines: list[npt.NDArray[np.float64]]) -> Outline:
    """From closed lines of (column, row), the outer one first."""
    outer, *holes = (_corners(line[:-1, ::-1]) for line in lines)
    return Outline(outer, tuple(holes))


def _corners(points: Points) -> Points:
    """Without the points that lie on the straight line between their neighbours."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    kept = points[np.abs(turns) > 1e-9]
    return kept if len(kept) >= _LEAST else points


def with_keyholes(outline: Outline) -> Points:
    """One line, (point, 2), that goes to each hole and back on the same way (PS3.3 C.8.8.6.3)."""
    line = outline.outer
    for hole in sorted(outline.holes, key=lambda points: float(points[:, 1].min())):
        here, there = _bridge(line, hole)
        around = np.roll(hole, -there, axis=0)
        line = np.concatenate([line[: here + 1], around, around[:1], line[here:]])
    return line


def _bridge(line: Points, hole: Points) -> tuple[int, int]:
    """Near points of both; a way over a pixel's centre would leave it to the reader whether that is inside."""
    distances = ((line[:, None] - hole[None]) ** 2).sum(-1)
    nearest = np.argsort(distances, axis=None, kind="stable")[:_BRIDGES_TRIED]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(nearest, distances.shape), strict=True)]
    return next((pair for pair in pairs if not _meets_a_centre(line[pair[0]], hole[pair[1]])), pairs[0])


def _meets_a_centre(one: Points, other: Points) -> bool:
    """Of two points that lie half way between centres, (row, column) each."""
    start, end = (np.rint(2 * point).astype(int) for point in (one, other))
    steps = math.gcd(*np.abs(end - start).tolist()) or 1
    between = start + np.outer(np.arange(steps + 1), (end - start) // steps)
    return bool((between % 2 == 0).all(axis=1).any())
