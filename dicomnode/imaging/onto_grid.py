"""A further volume, of another series, on the grid on which the network sees the main one.

Each sample of the model's grid has a place in the patient (LPS mm); the further volume is read there, by trilinear
interpolation, in one step: not onto the main volume's grid first, which would smooth it twice. Up to half a voxel
beyond the further volume's outermost centres its border is repeated; farther out it has no voxel, and the sample is
as dark as the role's intensities begin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicomnode.imaging.geometry import FloatArray, VolumeGeometry
from dicomnode.imaging.resample import FloatVolume, Intensity, ModelGrid, in_parts, scale, straighten, to_model

# Below this displacement over the whole grid, in voxels of the further volume, an axis is taken as along another:
# direction cosines are written with six digits.
_ALONG_VOXELS = 1e-3


def further_to_model(
    volume: npt.NDArray[np.int16],
    geometry: VolumeGeometry,
    main: VolumeGeometry,
    grid: ModelGrid,
    intensity: Intensity,
    threads: int = 1,
) -> FloatVolume:
    """`volume`, (slice, row, column) int16 stored values with `geometry`, on `grid`, which is that of `main`.

    The result: float32 along the model's axes, scaled and clipped as `intensity` says.
    """
    across = np.linalg.solve(geometry.affine, patient_affine(main, grid))
    shape = _shape(grid)
    axes = _matching_axes(across, shape)
    if axes is None:
        return _oblique(volume, across, shape, intensity, threads).transpose(grid.order)
    return _straight(volume.transpose(axes), across[list(axes)], grid, intensity, threads)


def patient_affine(main: VolumeGeometry, grid: ModelGrid) -> FloatArray:
    """(4, 4) float64: index of the model's grid, in the main volume's axis order (slice, row, column), to LPS mm."""
    straight = straighten(main)
    step = np.eye(4)
    for axis, positions in enumerate(grid.positions):
        step[axis, 3] = positions[0]
        step[axis, axis] = (positions[-1] - positions[0]) / max(len(positions) - 1, 1) or 1.0
    affine: FloatArray = (straight.geometry if straight else main).affine @ step
    return affine


def _shape(grid: ModelGrid) -> tuple[int, int, int]:
    """Of the model's grid in the main volume's axis order."""
    a, b, c = (len(positions) for positions in grid.positions)
    return a, b, c


def _matching_axes(across: FloatArray, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """For each axis of the grid the further volume's axis along it; None when they are at an angle."""
    reach = np.abs(across[:3, :3]) * np.maximum(np.array(shape) - 1, 1)  # (further axis, grid axis) in voxels
    axes = reach.argmax(axis=0)
    if sorted(axes) != [0, 1, 2]:
        return None
    reach[axes, range(3)] = 0.0
    return (int(axes[0]), int(axes[1]), int(axes[2])) if reach.max() < _ALONG_VOXELS else None


def _straight(
    volume: npt.NDArray[np.int16], across: FloatArray, grid: ModelGrid, intensity: Intensity, threads: int
) -> FloatVolume:
    """Axis by axis; volume and rows of `across` are in the grid's axis order."""
    lines = [across[axis, axis] * np.arange(n) + across[axis, 3] for axis, n in enumerate(_shape(grid))]
    a, b, c = volume.shape
    own = replace(grid, source_shape=(a, b, c), positions=(lines[0], lines[1], lines[2]), shift=None)
    result = to_model(volume, own, intensity, threads)
    dark = _dark(intensity)
    for axis, (line, count) in enumerate(zip(lines, volume.shape, strict=True)):
        np.moveaxis(result, grid.order.index(axis), 0)[_beyond(line, count)] = dark
    return result


def _oblique(
    volume: npt.NDArray[np.int16],
    across: FloatArray,
    shape: tuple[int, int, int],
    intensity: Intensity,
    threads: int,
) -> FloatVolume:
    """(slice, row, column) of the grid float32; plane by plane."""
    out = np.empty(shape, dtype=np.float32)
    dark = _dark(intensity)
    rows, columns = np.arange(shape[1])[:, None], np.arange(shape[2])

    def fill(part: range) -> None:
        for index in part:
            first = across[:3, 0] * index + across[:3, 3]
            ndimage.affine_transform(
                volume, across[:3, :3], first, (1, *shape[1:]), out[index][None], order=1, mode="nearest"
            )
            scale(out[index], intensity)
            for axis, count in enumerate(volume.shape):
                place = first[axis] + across[axis, 1] * rows + across[axis, 2] * columns
                out[index][_beyond(place, count)] = dark

    in_parts(fill, len(out), threads)
    return out


def _beyond(place: FloatArray, count: int) -> npt.NDArray[np.bool_]:
    """Where an axis of `count` voxels has none; rounding noise at the border is inside."""
    return (place < -0.5 - 1e-6) | (place > count - 0.5 + 1e-6)


def _dark(intensity: Intensity) -> np.float32:
    """What a sample without a voxel is, after the intensity mapping."""
    one = np.full((1, 1), intensity.outside, dtype=np.float32)
    scale(one, intensity)
    return np.float32(one[0, 0])
