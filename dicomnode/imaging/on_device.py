"""Between the scanner's grid and the model's grid on the device that runs the network: a GPU.

The same positions and the same arithmetic as in `resample` and `restore`, as torch operations on whole blocks of
slices: the stored values go to the device once, and of what is made of them the label map alone comes back. On a CPU
the plane by plane way of those modules is faster, and these agree with it value for value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dicomnode.imaging.resample import IndexArray, Intensity, ModelGrid, Taps, nearest_in_plane, taps
from dicomnode.imaging.restore import in_plane

# Slices at a time: a block of 512 × 512 in float32 is 64 MiB, and three of them are held.
BLOCK = 64


def to_model(volume: torch.Tensor, grid: ModelGrid, intensity: Intensity) -> torch.Tensor:
    """(slice, row, column) int16 stored values → float32 along the model's axes, both on one device."""
    out = torch.empty([len(p) for p in grid.positions], dtype=torch.float32, device=volume.device)
    slices = taps(grid.positions[0], grid.source_shape[0])
    for first in range(0, len(out), BLOCK):
        part = slice(first, min(first + BLOCK, len(out)))
        begin, end = int(slices.low[part].min()), int(slices.high[part].max()) + 1
        planes = _sampled(volume[begin:end], begin, grid, intensity.outside)
        out[part] = _blended(planes, _some(slices, part, begin), 0)
    scale(out, intensity)
    return out.permute(grid.order)


def _sampled(volume: torch.Tensor, begin: int, grid: ModelGrid, outside: float) -> torch.Tensor:
    """Slices of the source, `begin` the number of the first, resampled within their planes; float32 stored values."""
    if grid.shift is None:
        return _in_plane(volume, *(taps(grid.positions[axis], grid.source_shape[axis]) for axis in (1, 2)))
    planes = []
    for number, plane in enumerate(volume, begin):
        rows, columns = (
            taps(grid.positions[axis] - grid.shift[number, axis - 1], grid.source_shape[axis]) for axis in (1, 2)
        )
        sampled = _in_plane(plane[None], rows, columns)
        sampled[:, _mask(rows, volume)] = outside
        sampled[:, :, _mask(columns, volume)] = outside
        planes.append(sampled)
    return torch.cat(planes)


def _in_plane(planes: torch.Tensor, rows: Taps, columns: Taps) -> torch.Tensor:
    return _blended(_blended(planes.to(torch.float32), rows, 1), columns, 2)


def _mask(axis: Taps, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(axis.outside).to(like.device)


def _some(line: Taps, part: slice, begin: int = 0) -> Taps:
    """Of an axis of which `begin` values are left out."""
    return Taps(line.low[part] - begin, line.high[part] - begin, line.weight[part], line.outside[part])


def _blended(values: torch.Tensor, line: Taps, axis: int) -> torch.Tensor:
    """value[low] + (value[high] - value[low]) × weight along an axis, each step rounded as numpy rounds it."""
    result = values.index_select(axis, _index(line.low, values))
    if not line.weight.any():
        return result
    weight = torch.from_numpy(line.weight).to(values.device)
    between = values.index_select(axis, _index(line.high, values)).sub_(result)
    between.mul_(weight.reshape([-1 if i == axis else 1 for i in range(values.ndim)]))
    return between.add_(result)


def _index(numbers: IndexArray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(like.device)


def scale(values: torch.Tensor, intensity: Intensity) -> None:
    """In place: stored values to what the network sees."""
    values.mul_(float(np.float32(intensity.gain))).add_(float(np.float32(intensity.offset)))
    if intensity.clip is not None:
        values.clamp_(*intensity.clip)


# --------------------------------------------------------------------------------------------------- back


def to_source(labels: torch.Tensor, grid: ModelGrid) -> torch.Tensor:
    """Labels along the model's axes → (slice, row, column) uint8 in the source's grid, by nearest."""
    planes = labels.permute(_source_order(grid)).index_select(0, _index(grid.nearest[0], labels))
    if grid.shift is None:
        rows, columns = nearest_in_plane(grid, 0)
        return planes.index_select(1, _index(rows, labels)).index_select(2, _index(columns, labels))
    out = torch.empty(grid.source_shape, dtype=torch.uint8, device=labels.device)
    for number, plane in enumerate(planes):
        rows, columns = nearest_in_plane(grid, number)
        out[number] = plane.index_select(0, _index(rows, labels)).index_select(1, _index(columns, labels))
    return out


def restored(scores: torch.Tensor, grid: ModelGrid, *, softmax: bool) -> torch.Tensor:
    """Scores (1, classes, model axes) float32 → (slice, row, column) uint8: as restore.restore_scores."""
    values = torch.softmax(scores[0], 0) if softmax else scores[0]
    order = _source_order(grid)
    volumes = values.permute(0, *(1 + axis for axis in order))
    out = torch.empty(grid.source_shape, dtype=torch.uint8, device=scores.device)
    for part, planes in _source_planes(volumes, grid):
        # of two, the second is the higher one where their difference is above zero
        out[part] = (planes[0] > 0 if len(planes) == 1 else planes.argmax(0)).to(torch.uint8)
    return out


def _source_planes(volumes: torch.Tensor, grid: ModelGrid) -> Iterator[tuple[slice, torch.Tensor]]:
    """(classes, model slices, rows, columns) → the same at some slices of the source at a time."""
    if len(volumes) == 2:
        volumes = volumes[1:] - volumes[:1]
    slices = taps(grid.back[0], len(grid.positions[0]))
    step = 1 if grid.shift is not None else max(BLOCK // len(volumes), 1)
    for first in range(0, grid.source_shape[0], step):
        part = slice(first, min(first + step, grid.source_shape[0]))
        rows, columns = in_plane(grid, first)
        planes = _blended(_blended(volumes, _some(slices, part), 1), rows, 2)
        yield part, _blended(planes, columns, 3)


def _source_order(grid: ModelGrid) -> tuple[int, int, int]:
    a, b, c = (grid.order.index(axis) for axis in range(3))
    return a, b, c
