"""Between the scanner's grid and the model's grid, and back.

The meaning is MONAI's: Orientation, Spacing (bilinear, border), and their inverse with nearest neighbours. The
directions of the volume are kept, so that every axis can be resampled on its own: interpolation becomes a few
small matrix products, and the way back three lists of indices. Sample positions are computed by the same
arithmetic as MONAI's, since ties at .5 are the rule rather than the exception (5 mm slices, 2 mm grid) and a tie
that falls the other way moves a label by a slice.

A volume taken with gantry tilt is straightened in the same pass: each slice is sampled where it lies, shifted in
its plane (`Straight`), and the labels go back by the same shift.

Axes of the model's grid are named by letters as MONAI and NIfTI use them: RAS means that the index grows towards
right, anterior and superior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.data.utils import AFFINE_TOL, compute_shape_offset, zoom_affine
from monai.networks.utils import to_norm_affine

from dicomnode.imaging.geometry import FloatArray, VolumeGeometry

IndexArray = npt.NDArray[np.int64]

# A shear is straightened from this in-plane displacement between the first and the last slice, in voxels, on:
# less is the rounding of direction cosines written with six digits.
SHEAR_LEAST_VOXELS = 0.25
# Target slices resampled at once: bounds the working memory at a few slices' worth of float32.
_BLOCK = 8
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
    for i, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        positions[axis] = forward[i] if sign > 0 else shape[i] - 1 - forward[i]
        index = np.rint(np.clip(backward[i], 0, target_shape[i] - 1)).astype(np.int64)
        nearest[axis] = index if sign > 0 else np.ascontiguousarray(index[::-1])
    return ModelGrid(
        source_shape=geometry.shape,
        order=order,
        positions=(positions[0], positions[1], positions[2]),
        nearest=(nearest[0], nearest[1], nearest[2]),
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
class _Taps:
    """Linear interpolation along one axis: value[low] × (1 - weight) + value[high] × weight."""

    low: torch.Tensor  # int64
    high: torch.Tensor  # int64
    weight: torch.Tensor  # float32
    outside: torch.Tensor  # bool: beyond the volume, by more than half a voxel

    @property
    def exact(self) -> bool:
        return not bool(self.weight.any())

    def to(self, device: torch.device) -> _Taps:
        return _Taps(self.low.to(device), self.high.to(device), self.weight.to(device), self.outside.to(device))


def _taps(positions: FloatArray, count: int) -> _Taps:
    inside = np.clip(positions, 0, count - 1)  # the border is repeated
    low = np.floor(inside).astype(np.int64)
    return _Taps(
        torch.from_numpy(low),
        torch.from_numpy(np.minimum(low + 1, count - 1)),
        torch.from_numpy((inside - low).astype(np.float32)),
        torch.from_numpy((positions < -0.5) | (positions > count - 0.5)),
    )


def to_model(volume: torch.Tensor, grid: ModelGrid, intensity: Intensity) -> torch.Tensor:
    """The volume in the model's grid.

    `volume`: (slice, row, column) int16, stored values. The result: float32 along the model's axes, a view whose
    memory lies in the source's axis order. Working memory beside the result: a few slices.
    """
    slices = _taps(grid.positions[0], grid.source_shape[0]).to(volume.device)
    out = torch.empty([len(p) for p in grid.positions], dtype=torch.float32, device=volume.device)
    planes = _Planes(volume, grid, intensity.outside)
    for block in _blocks(len(out)):
        needed, position = torch.unique(torch.cat([slices.low[block], slices.high[block]]), return_inverse=True)
        sampled = planes.sample(needed)
        low, high = position.chunk(2)
        torch.lerp(sampled[low], sampled[high], slices.weight[block].view(-1, 1, 1), out=out[block])
        out[block].mul_(intensity.gain).add_(intensity.offset)
        if intensity.clip is not None:
            out[block].clamp_(*intensity.clip)
    return out.permute(grid.order)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


class _Planes:
    """Slices of the source, resampled within their plane."""

    def __init__(self, volume: torch.Tensor, grid: ModelGrid, outside: float) -> None:
        self._volume, self._grid, self._outside = volume, grid, outside
        self._upright = None if grid.shift is not None else self._axes(np.zeros(2))

    def _axes(self, shift: FloatArray) -> tuple[_Taps, _Taps]:
        rows, columns = (
            _taps(self._grid.positions[axis] - shift[axis - 1], self._grid.source_shape[axis]).to(self._volume.device)
            for axis in (1, 2)
        )
        return rows, columns

    def sample(self, slices: torch.Tensor) -> torch.Tensor:
        """(slices, model rows, model columns) float32, stored values."""
        if self._upright is not None:
            return _interpolated(self._volume[slices], *self._upright)
        return torch.cat([self._sheared(int(index)) for index in slices])

    def _sheared(self, index: int) -> torch.Tensor:
        assert self._grid.shift is not None
        rows, columns = self._axes(self._grid.shift[index])
        plane = _interpolated(self._volume[index : index + 1], rows, columns)
        return plane.masked_fill_(rows.outside[:, None] | columns.outside[None, :], self._outside)


def _interpolated(planes: torch.Tensor, rows: _Taps, columns: _Taps) -> torch.Tensor:
    """(n, row, column) int16 → (n, model rows, model columns) float32."""
    sampled = planes.index_select(1, rows.low).float()
    if not rows.exact:
        sampled = torch.lerp(sampled, planes.index_select(1, rows.high).float(), rows.weight.view(1, -1, 1))
    if columns.exact:
        return sampled.index_select(2, columns.low)
    # as one matrix product: gathering along the fastest axis costs several times as much
    return torch.matmul(sampled, _matrix(columns, planes.shape[2]))


def _matrix(taps: _Taps, count: int) -> torch.Tensor:
    """(count, samples) float32 with two entries a column."""
    matrix = torch.zeros(count, len(taps.low), device=taps.low.device)
    samples = torch.arange(len(taps.low), device=taps.low.device)
    matrix[taps.low, samples] += 1 - taps.weight
    matrix[taps.high, samples] += taps.weight
    return matrix


# --------------------------------------------------------------------------------------------------- back


def to_source(labels: torch.Tensor, grid: ModelGrid, out: torch.Tensor) -> None:
    """Labels along the model's axes, uint8, to the source's grid: `out` (slice, row, column) uint8, by nearest."""
    a, b, c = (grid.order.index(axis) for axis in range(3))
    labels = labels.permute(a, b, c)
    if grid.shift is None:
        _upright_back(labels, grid, out)
    else:
        _sheared_back(labels, grid, out)


def _upright_back(labels: torch.Tensor, grid: ModelGrid, out: torch.Tensor) -> None:
    slices, rows, columns = (torch.from_numpy(n).to(labels.device) for n in grid.nearest)
    last, plane = -1, torch.empty(0)
    for index, nearest in enumerate(slices.tolist()):
        if nearest != last:  # neighbours share a slice of the model's grid where that is coarser
            last, plane = nearest, labels[nearest].index_select(1, columns).index_select(0, rows)
        out[index] = plane


def _sheared_back(labels: torch.Tensor, grid: ModelGrid, out: torch.Tensor) -> None:
    assert grid.shift is not None
    for index, nearest in enumerate(grid.nearest[0].tolist()):
        rows, columns = (
            torch.from_numpy(_nearest(grid.positions[axis], np.arange(n) + grid.shift[index, axis - 1]))
            for axis, n in ((1, grid.source_shape[1]), (2, grid.source_shape[2]))
        )
        plane = labels[nearest].index_select(1, columns.to(labels.device))
        out[index] = plane.index_select(0, rows.to(labels.device))


def _nearest(positions: FloatArray, wanted: FloatArray) -> IndexArray:
    """Index of the position nearest to each wanted one; positions are evenly spaced, up or down."""
    if len(positions) == 1:
        return np.zeros(len(wanted), dtype=np.int64)
    index = (wanted - positions[0]) / (positions[1] - positions[0])
    nearest: IndexArray = np.rint(np.clip(index, 0, len(positions) - 1)).astype(np.int64)
    return nearest
