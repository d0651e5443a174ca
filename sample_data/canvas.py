"""A voxel canvas in patient space on which anatomy is painted, shape by shape.

Coordinates are patient millimetres, x to the left, y to the back, z to the head (LPS, PS3.3 C.7.6.2.1.1).
Arrays are indexed (z, y, x), so that a canvas is also (slice, row, column) of an axial CT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Point = Sequence[float] | Vector  # x, y, z in mm
Shape = Callable[[Field, Field, Field], Mask]


@dataclass(frozen=True)
class Grid:
    """An axis-parallel grid: `origin_mm` of voxel (0, 0, 0) and `spacing_mm`, both in (z, y, x) order."""

    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    def axis(self, index: int) -> Field:
        """(n,) float32 positions along one axis, mm."""
        steps = np.arange(self.shape[index], dtype=np.float32)
        return (self.origin_mm[index] + self.spacing_mm[index] * steps).astype(np.float32)

    def window(self, low_mm: Vector, high_mm: Vector) -> tuple[slice, slice, slice]:
        """The index box that holds a box in mm (z, y, x), clipped to the grid."""
        low = np.floor((low_mm - self.origin_mm) / self.spacing_mm).astype(int)
        high = np.ceil((high_mm - self.origin_mm) / self.spacing_mm).astype(int) + 1
        z, y, x = (slice(max(lo, 0), max(hi, 0)) for lo, hi in zip(low, high, strict=True))
        return z, y, x


def smooth_noise(rng: np.random.Generator, grid: Grid, period_mm: float) -> Field:
    """(z, y, x) float32 random field, mean 0 and sd about 1, that varies over `period_mm`."""
    coarse = [int(np.ceil(n * s / period_mm)) + 3 for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    field = rng.standard_normal(coarse).astype(np.float32)
    for axis, (count, step) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        field = _stretch(field, axis, count, step / period_mm)
    return field * np.float32(1.5)


def _stretch(field: Field, axis: int, count: int, step: float) -> Field:
    """Linear interpolation of one axis at 0, step, 2 step, ... of its index, eased at the knots."""
    position = np.arange(count) * step
    index = position.astype(int)
    part = position - index
    weight = np.zeros((count, field.shape[axis]), np.float32)
    eased = part * part * (3 - 2 * part)
    weight[np.arange(count), index] = 1 - eased
    weight[np.arange(count), index + 1] += eased
    moved = np.moveaxis(field, axis, -1)
    return np.ascontiguousarray(np.moveaxis(moved @ weight.T, -1, axis))


class Canvas:
    """Labels and the warped coordinates at which shapes are asked whether they hold a voxel.

    `labels` is (z, y, x) uint8 tissue codes; `x`, `y`, `z` are (z, y, x) float32, mm.
    """

    def __init__(self, grid: Grid, rng: np.random.Generator, warp_mm: float) -> None:
        self.grid = grid
        self.labels = np.zeros(grid.shape, np.uint8)
        z, y, x = np.meshgrid(grid.axis(0), grid.axis(1), grid.axis(2), indexing="ij", sparse=True)
        warps = [smooth_noise(rng, grid, period) * np.float32(warp_mm / 1.5) for period in (90.0, 70.0, 70.0)]
        self.z: Field = (z + np.clip(warps[0], -9, 9)).astype(np.float32)
        self.y: Field = (y + np.clip(warps[1], -9, 9)).astype(np.float32)
        self.x: Field = (x + np.clip(warps[2], -9, 9)).astype(np.float32)

    def paint(
        self, code: int, low: Sequence[float], high: Sequence[float], shape: Shape, over: Sequence[int] = ()
    ) -> None:
        """Gives `code` to the voxels of the box `low`..`high` (x, y, z, mm) in `shape`, on tissues `over`."""
        box = self.grid.window(np.array(low[::-1]) - 10.0, np.array(high[::-1]) + 10.0)
        labels = self.labels[box]
        if not labels.size:
            return
        mask = shape(self.x[box], self.y[box], self.z[box])
        if over:
            mask &= np.isin(labels, over)
        labels[mask] = code

    def ellipsoid(
        self,
        code: int,
        centre: Sequence[float],
        radii: Sequence[float],
        over: Sequence[int] = (),
        turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
        power: float = 2.0,
        clip: Shape | None = None,
    ) -> None:
        """An ellipsoid (x, y, z, mm), turned by degrees about x, y, z; `power` above 2 makes it boxier."""
        axes = _rotation(turn)
        c, r = np.asarray(centre, np.float64), np.asarray(radii, np.float64)
        reach = np.sqrt(((axes * r) ** 2).sum(1)) if power <= 2 else np.abs(axes) @ r

        def inside(x: Field, y: Field, z: Field) -> Mask:
            local = [axes[0, i] * (x - c[0]) + axes[1, i] * (y - c[1]) + axes[2, i] * (z - c[2]) for i in range(3)]
            mask: Mask = sum(np.abs(p / r[i]) ** power for i, p in enumerate(local)) < 1
            return mask & clip(x, y, z) if clip else mask

        self.paint(code, list(c - reach), list(c + reach), inside, over)

    def tube(
        self,
        code: int,
        points: Sequence[Point],
        radius: float,
        over: Sequence[int] = (),
        end_radius: float | None = None,
    ) -> None:
        """A chain of round-ended cylinders through `points` (x, y, z, mm), tapering to `end_radius`."""
        path = np.asarray(points, np.float64)
        radii = np.linspace(radius, radius if end_radius is None else end_radius, len(path))
        for start, stop, r in zip(path[:-1], path[1:], radii[:-1], strict=True):
            self.paint(
                code,
                list(np.minimum(start, stop) - r),
                list(np.maximum(start, stop) + r),
                _capsule(start, stop, float(r)),
                over,
            )


def _capsule(start: Vector, stop: Vector, radius: float) -> Shape:
    along = stop - start
    length2 = max(float(along @ along), 1e-6)

    def inside(x: Field, y: Field, z: Field) -> Mask:
        dx, dy, dz = x - start[0], y - start[1], z - start[2]
        t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / length2, 0, 1)
        mask: Mask = (dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2 < radius**2
        return mask

    return inside


def _rotation(turn: tuple[float, float, float]) -> Vector:
    """(3, 3) columns are the local axes after turning about x, then y, then z, in degrees."""
    a, b, c = np.radians(turn)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned: Vector = rz @ ry @ rx
    return turned
