"""Between the scanner's grid and the model's grid, and back.

The meaning is MONAI's: Orientation, Spacing (bilinear, border), and their inverse with nearest neighbours. The
directions of the volume are kept, so that every axis can be resampled on its own: two takes and a blend an axis,
and the way back three lists of indices. Sample positions are computed by the same
arithmetic as MONAI's, since ties at .5 are the rule rather than the exception (5 mm slices, 2 mm grid) and a tie
that falls the other way moves a label by a slice.

A volume taken with gantry tilt is straightened in the same pass: each slice is sampled where it lies, shifted in
its plane (`Straight`), and the labels go back by the same shift.

Axes of the model's grid are named by letters as MONAI and NIfTI use them: RAS means that the index grows towards
right, anterior and superior.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.data.utils import AFFINE_TOL, compute_shape_offset, zoom_affine
from monai.networks.utils import to_norm_affine

from dicomnode.imaging.geometry import FloatArray, VolumeGeometry

IndexArray = npt.NDArray[np.int64]
FloatPlane = npt.NDArray[np.float32]
FloatVolume = npt.NDArray[np.float32]

# A shear is straightened from this in-plane displacement between the first and the last slice, in voxels, on:
# less is the rounding of direction cosines written with six digits.
SHEAR_LEAST_VOXELS = 0.25
_RAS_AXIS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Straight:
    """A grid without shear that holds every voxel of a sheared one.

    Voxel (slice, row, column) of the sheared volume lies at (slice, row + shift[slice, 0], column +
    shift[slice, 1]) of `geometry`.
    """

    geometry: VolumeGeometry
    shift: FloatArray
    """(slices, 2) float64, voxels along (row, column)."""


@dataclass(frozen=True, eq=False)
class ModelGrid:
    """Where each sample of the model's grid lies in the source volume, axis by axis, and the way back.

    Everything here is in the source's axis order (slice, row, column); `order` leads to the model's axes.
    """

    source_shape: tuple[int, int, int]
    order: tuple[int, int, int]
    """Model axis i runs along source axis order[i]."""
    positions: tuple[FloatArray, FloatArray, FloatArray]
    """Per source axis: for each model index the (fractional) index in the straightened source."""
    nearest: tuple[IndexArray, IndexArray, IndexArray]
    """Per source axis: for each index of the source the nearest model index; without shear."""
    back: tuple[FloatArray, FloatArray, FloatArray]
    """Per source axis: for each index of the source the (fractional) model index; without shear."""
    shift: FloatArray | None
    """As in Straight; None without shear."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the model's volume, along the model's axes."""
        a, b, c = (len(self.positions[axis]) for axis in self.order)
        return a, b, c


@dataclass(frozen=True)
class Intensity:
    """stored × gain + offset, then clipped; `outside` is the stored value where a tilted volume has none."""

    gain: float
    offset: float
    clip: tuple[float, float] | None
    outside: float


def straighten(geometry: VolumeGeometry) -> Straight | None:
    """The upright grid of a volume whose slices are shifted against each other; None when they are not."""
    slices, rows, columns = geometry.shape
    step, plane = geometry.affine[:3, 0], geometry.affine[:3, 1:3]
    per_slice = np.linalg.lstsq(plane, step, rcond=None)[0]  # voxels (row, column) that a slice is shifted by
    if np.abs(per_slice).max() * (slices - 1) < SHEAR_LEAST_VOXELS:
        return None
    shift = np.arange(slices)[:, None] * per_slice
    first = shift.min(axis=0)
    shift = shift - first
    more = np.ceil(shift.max(axis=0) - 1e-9).astype(int)
    affine = geometry.affine.copy()
    affine[:3, 0] = step - plane @ per_slice
    affine[:3, 3] += plane @ first
    shape = (slices, rows + int(more[0]), columns + int(more[1]))
    return Straight(VolumeGeometry(shape, affine), shift)


def model_grid(geometry: VolumeGeometry, orientation: str, spacing_mm: tuple[float, float, float]) -> ModelGrid:
    """The grid with these axes and this spacing over the volume; `spacing_mm` along the model's axes."""
    straight = straighten(geometry)
    upright = straight.geometry if straight else geometry
    order, signs = oriented_axes(upright, orientation)
    shape = tuple(upright.shape[axis] for axis in order)
    affine = _oriented(upright, order, signs)
    target_shape, target_affine = _spaced(affine, shape, np.asarray(spacing_mm, dtype=np.float64))
    forward = _positions(affine, target_affine, shape, target_shape)
    backward = _positions(target_affine, affine, target_shape, shape)
    positions: list[FloatArray] = [np.empty(0)] * 3
    nearest: list[IndexArray] = [np.empty(0, np.int64)] * 3
    back: list[FloatArray] = [np.empty(0)] * 3
    for i, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        positions[axis] = forward[i] if sign > 0 else shape[i] - 1 - forward[i]
        index = np.rint(np.clip(backward[i], 0, target_shape[i] - 1)).astype(np.int64)
        nearest[axis] = index if sign > 0 else np.ascontiguousarray(index[::-1])
        back[axis] = backward[i] if sign > 0 else backward[i][::-1]
    return ModelGrid(
        source_shape=geometry.shape,
        order=order,
        positions=(positions[0], positions[1], positions[2]),
        nearest=(nearest[0], nearest[1], nearest[2]),
        back=(back[0], back[1], back[2]),
        shift=straight.shift if straight else None,
    )


def oriented_axes(geometry: VolumeGeometry, orientation: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """For each letter the source axis (0 slice, 1 row, 2 column) closest to it, and +1 or -1 for its sense.

    The closest pure rotation decides, the axis that is most clearly along a patient axis first.
    """
    left, _, right = np.linalg.svd((_LPS_TO_RAS @ geometry.affine)[:3, :3] / geometry.spacing_mm)
    rotation = left @ right
    along = np.abs(rotation)  # (patient axis, source axis)
    found: dict[int, int] = {}
    for axis in np.argsort(-along.max(axis=0), kind="stable"):
        free = [patient for patient in range(3) if patient not in found]
        found[max(free, key=lambda patient: along[patient, axis])] = int(axis)
    wanted = [_RAS_AXIS[letter] for letter in orientation]
    a, b, c = (found[patient] for patient, _ in wanted)
    signs = [sense if rotation[patient, found[patient]] > 0 else -sense for patient, sense in wanted]
    return (a, b, c), (signs[0], signs[1], signs[2])


def _oriented(geometry: VolumeGeometry, order: tuple[int, ...], signs: tuple[int, ...]) -> FloatArray:
    """(4, 4) float64: index along the model's axes, still at the source's spacing, to RAS mm."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for i, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        turn[2 - axis, i] = sign
        if sign < 0:
            turn[2 - axis, 3] = geometry.shape[axis] - 1
    ras: FloatArray = (_LPS_TO_RAS @ geometry.affine)[:, [2, 1, 0, 3]]
    oriented: FloatArray = ras @ turn
    return oriented


def _spaced(affine: FloatArray, shape: tuple[int, ...], spacing_mm: FloatArray) -> tuple[tuple[int, ...], FloatArray]:
    """Shape and RAS affine after resampling; a spacing that is right to a micrometre or so stays as it is."""
    have = np.linalg.norm(affine[:3, :3], axis=0)
    target = zoom_affine(affine, np.where(np.abs(have - spacing_mm) <= AFFINE_TOL, have, spacing_mm), diagonal=False)
    target_shape, origin = compute_shape_offset(shape, affine, target)
    target[:3, 3] = origin[:3]
    return tuple(int(n) for n in target_shape), affine @ np.linalg.solve(affine, target)


def _positions(
    source: FloatArray, target: FloatArray, source_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> list[FloatArray]:
    """Per axis, the source index of each target index, by the arithmetic of affine_grid and grid_sample."""
    transform = np.linalg.solve(source, target)
    if source_shape == target_shape and (
        np.allclose(source, target, atol=AFFINE_TOL) or np.allclose(transform, np.eye(4), atol=AFFINE_TOL)
    ):
        return [np.arange(n, dtype=np.float64) for n in target_shape]
    theta = to_norm_affine(torch.from_numpy(transform)[None], source_shape, target_shape, align_corners=False)[0]
    theta = theta[[2, 1, 0]][:, [2, 1, 0, 3]]
    return [_line(theta, axis, source_shape, target_shape) for axis in range(3)]


def _line(theta: torch.Tensor, axis: int, source_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> FloatArray:
    """One axis of the sampling grid, through the first voxel; theta (3, 4) in torch's reversed axis order."""
    count = target_shape[axis]
    points = torch.ones(1, count, 4, dtype=torch.float64)
    for other, n in enumerate(target_shape):
        points[0, :, 2 - other] = -(n - 1) / n
    points[0, :, 2 - axis] = torch.linspace(-1, 1, count, dtype=torch.float64) * (count - 1) / count
    normal = points.bmm(theta.T[None])[0, :, 2 - axis]
    line: FloatArray = (((normal + 1) * source_shape[axis] - 1) / 2).numpy()
    return line


# ------------------------------------------------------------------------------------------------ forward


@dataclass(frozen=True, eq=False)
class Taps:
    """Linear interpolation along one axis: value[low] + (value[high] - value[low]) × weight."""

    low: IndexArray
    high: IndexArray
    weight: npt.NDArray[np.float32]
    outside: npt.NDArray[np.bool_]
    """Beyond the volume, by more than half a voxel."""

    def blend(self, values: FloatPlane, axis: int) -> FloatPlane:
        """A plane with this axis resampled."""
        low = values.take(self.low, axis=axis, mode="clip")
        if not self.weight.any():
            return low
        result = values.take(self.high, axis=axis, mode="clip")
        result -= low
        result *= self.weight[:, None] if axis == 0 else self.weight
        result += low
        return result


def taps(positions: FloatArray, count: int) -> Taps:
    inside = np.clip(positions, 0, count - 1)  # the border is repeated
    low = np.floor(inside).astype(np.int64)
    return Taps(
        low,
        np.minimum(low + 1, count - 1),
        (inside - low).astype(np.float32),
        (positions < -0.5) | (positions > count - 0.5),
    )


def to_model(volume: npt.NDArray[np.int16], grid: ModelGrid, intensity: Intensity, threads: int = 1) -> FloatVolume:
    """The volume in the model's grid.

    `volume`: (slice, row, column) int16, stored values. The result: float32 along the model's axes, a view whose
    memory lies in the source's axis order. Plane by plane, which a core's cache holds; working memory beside the
    result: a few planes a thread.
    """
    out = np.empty([len(p) for p in grid.positions], dtype=np.float32)
    slices = taps(grid.positions[0], grid.source_shape[0])

    def fill(part: range) -> None:
        planes = _Planes(volume, grid, intensity.outside)
        for index in part:
            _blend_slices(planes, slices, index, out[index])
            scale(out[index], intensity)

    in_parts(fill, len(out), threads)
    return out.transpose(grid.order)


def _blend_slices(planes: _Planes, slices: Taps, index: int, out: FloatPlane) -> None:
    low, weight = planes[int(slices.low[index])], slices.weight[index]
    if weight == 0:
        out[...] = low
        return
    np.subtract(planes[int(slices.high[index])], low, out=out)
    out *= weight
    out += low


def scale(plane: FloatPlane | FloatVolume, intensity: Intensity) -> None:
    """In place: stored values to what the network sees."""
    plane *= np.float32(intensity.gain)
    plane += np.float32(intensity.offset)
    if intensity.clip is not None:
        np.clip(plane, *intensity.clip, out=plane)


def in_parts(work: Callable[[range], None], count: int, threads: int) -> None:
    """Splits range(count) among threads, in neighbouring pieces; numpy works without the interpreter's lock."""
    bounds = np.linspace(0, count, min(threads, count) + 1).astype(int)
    parts = [range(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
    if len(parts) == 1:
        work(parts[0])
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        _all(pool.map(work, parts))


def _all(results: Iterable[None]) -> None:
    """Waits for all and raises what one of them raised."""
    for _ in results:
        pass


class _Planes:
    """Slices of the source by index, resampled within their plane; neighbours of the last asked for are kept."""

    def __init__(self, volume: npt.NDArray[np.int16], grid: ModelGrid, outside: float) -> None:
        self._volume, self._grid, self._outside = volume, grid, outside
        self._upright = None if grid.shift is not None else self._axes(np.zeros(2))
        self._kept: dict[int, FloatPlane] = {}

    def __getitem__(self, index: int) -> FloatPlane:
        if index not in self._kept:
            self._kept = {i: plane for i, plane in self._kept.items() if abs(i - index) == 1}
            self._kept[index] = self._sampled(index)
        return self._kept[index]

    def _sampled(self, index: int) -> FloatPlane:
        """(model rows, model columns) float32, stored values."""
        rows, columns = self._upright or self._axes(self._shift(index))
        plane = columns.blend(rows.blend(self._volume[index].astype(np.float32), 0), 1)
        if self._upright is None:
            plane[rows.outside] = self._outside
            plane[:, columns.outside] = self._outside
        return plane

    def _shift(self, index: int) -> FloatArray:
        assert self._grid.shift is not None
        shift: FloatArray = self._grid.shift[index]
        return shift

    def _axes(self, shift: FloatArray) -> tuple[Taps, Taps]:
        rows, columns = (
            taps(self._grid.positions[axis] - shift[axis - 1], self._grid.source_shape[axis]) for axis in (1, 2)
        )
        return rows, columns


# --------------------------------------------------------------------------------------------------- back


def to_source(labels: npt.NDArray[np.uint8], grid: ModelGrid, out: npt.NDArray[np.uint8], threads: int = 1) -> None:
    """Labels along the model's axes, uint8, to the source's grid: `out` (slice, row, column) uint8, by nearest."""
    a, b, c = (grid.order.index(axis) for axis in range(3))
    source_order = np.ascontiguousarray(labels.transpose(a, b, c))
    in_parts(lambda part: _restore(source_order, grid, out, part), len(out), threads)


def _restore(labels: npt.NDArray[np.uint8], grid: ModelGrid, out: npt.NDArray[np.uint8], part: range) -> None:
    last = -1
    for index in part:
        nearest = int(grid.nearest[0][index])
        if nearest == last and grid.shift is None:
            out[index] = out[index - 1]  # neighbours share a slice of the model's grid where that is coarser
            continue
        rows, columns = nearest_in_plane(grid, index)
        labels[nearest].take(columns, axis=1, mode="clip").take(rows, axis=0, out=out[index], mode="clip")
        last = nearest


def nearest_in_plane(grid: ModelGrid, index: int) -> tuple[IndexArray, IndexArray]:
    """For each row and column of a source slice the nearest of the model's grid."""
    if grid.shift is None:
        return grid.nearest[1], grid.nearest[2]
    rows, columns = (
        _nearest(grid.positions[axis], np.arange(grid.source_shape[axis]) + grid.shift[index, axis - 1])
        for axis in (1, 2)
    )
    return rows, columns


def _nearest(positions: FloatArray, wanted: FloatArray) -> IndexArray:
    """Index of the position nearest to each wanted one; positions are evenly spaced, up or down."""
    if len(positions) == 1:
        return np.zeros(len(wanted), dtype=np.int64)
    index = (wanted - positions[0]) / (positions[1] - positions[0])
    nearest: IndexArray = np.rint(np.clip(index, 0, len(positions) - 1)).astype(np.int64)
    return nearest
