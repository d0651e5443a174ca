"""Scores in the model's grid back to the scanner's grid, and the label with the highest score there.

The meaning is MONAI's Invertd(nearest_interp=False) and argmax after it: bilinear, border repeated. Slice by slice of
the source, so that what a class needs beside its scores is one plane, where MONAI keeps every class of the volume.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.imaging.geometry import FloatArray
from dicomnode.imaging.resample import FloatPlane, FloatVolume, ModelGrid, Taps, in_parts, taps


def restore_scores(
    scores: torch.Tensor, grid: ModelGrid, out: torch.Tensor, *, softmax: bool, threads: int = 1
) -> None:
    """Scores (1, classes, model axes) float32 → `out`, (slice, row, column) uint8: the first of the highest.

    With `softmax` the probabilities are interpolated, else the scores as they are. `scores` is overwritten: with many
    classes there is no room for it twice.
    """
    with torch.inference_mode():
        for plane in scores.unbind(2) if softmax else ():
            plane.copy_(torch.softmax(plane, 1))
    # of two, the second is the higher one where their difference is above zero
    values = scores[:, 1:] - scores[:, :1] if scores.shape[1] == 2 else scores
    a, b, c = (grid.order.index(axis) for axis in range(3))
    classes = [np.ascontiguousarray(one.transpose(a, b, c)) for one in values[0].cpu().numpy()]
    labels: npt.NDArray[np.uint8] = out.numpy()
    in_parts(lambda part: _restore(classes, grid, labels, part), len(labels), threads)


def _restore(classes: list[FloatVolume], grid: ModelGrid, out: npt.NDArray[np.uint8], part: range) -> None:
    slices = taps(grid.back[0], len(grid.positions[0]))
    upright = None if grid.shift is not None else in_plane(grid, 0)
    for index in part:
        rows, columns = upright or in_plane(grid, index)
        planes = (columns.blend(rows.blend(between(one, slices, index), 0), 1) for one in classes)
        if len(classes) == 1:
            np.greater(next(planes), 0, out=out[index], casting="unsafe")
        else:
            _highest(planes, out[index])


def _highest(planes: Iterator[FloatPlane], out: npt.NDArray[np.uint8]) -> None:
    """The number of the plane with the highest value, voxel by voxel; the first of equals."""
    best = next(planes)
    out[...] = 0
    for number, plane in enumerate(planes, 1):
        higher = plane > best
        out[higher] = number
        best[higher] = plane[higher]


def between(volume: FloatVolume, slices: Taps, index: int) -> FloatPlane:
    """The model's plane at a source slice, as a new array."""
    low, weight = volume[slices.low[index]], slices.weight[index]
    plane: FloatPlane = (volume[slices.high[index]] - low) * weight
    plane += low
    return plane


def in_plane(grid: ModelGrid, index: int) -> tuple[Taps, Taps]:
    """Rows and columns of a source slice in the model's grid."""
    rows, columns = (taps(_back(grid, axis, index), len(grid.positions[axis])) for axis in (1, 2))
    return rows, columns


def _back(grid: ModelGrid, axis: int, index: int) -> FloatArray:
    """For each row or column of a source slice its (fractional) index in the model's grid."""
    if grid.shift is None:
        return grid.back[axis]
    positions = grid.positions[axis]  # of the straightened volume; evenly spaced, up or down
    if len(positions) == 1:
        return np.zeros(grid.source_shape[axis])
    wanted: FloatArray = np.arange(grid.source_shape[axis]) + grid.shift[index, axis - 1]
    back: FloatArray = (wanted - positions[0]) / (positions[1] - positions[0])
    return back
