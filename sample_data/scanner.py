"""Scans an invented patient: tissues to HU on the scanner's grid, with its blur, noise and field of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicomnode.imaging.geometry import VolumeGeometry
from sample_data.anatomy import Setting, paint_patient
from sample_data.canvas import Field, Grid
from sample_data.protocols import Protocol, scan_geometry
from sample_data.tissue import T, class_map, hounsfield

CANVAS_MM = 2.0
_REACH_MM = ((-190.0, 245.0), (-250.0, 250.0))  # y and x of all there is to see


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan and the truth about it.

    `hu` is (slice, row, column) int16, HU; `classes` (slice, row, column) uint8, numbered as tissue.CLASSES,
    0 outside the circular field of view; `seen` (row, column) bool, that field of view.
    """

    hu: npt.NDArray[np.int16]
    classes: npt.NDArray[np.uint8]
    seen: npt.NDArray[np.bool_]
    geometry: VolumeGeometry

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        z, y, x = self.geometry.spacing_mm
        return float(z), float(y), float(x)


def make_scan(protocol: Protocol, seed: int, canvas_mm: float = CANVAS_MM) -> Scan:
    """The scan of the patient of this seed by this protocol; equal arguments give equal arrays.

    `canvas_mm`: how finely the patient is painted; coarser is faster.
    """
    geometry = scan_geometry(protocol, seed)
    canvas = paint_patient(_canvas_grid(geometry, canvas_mm), seed, Setting())
    rng = np.random.default_rng([seed, 5])
    hu = hounsfield(canvas.labels, canvas.grid, protocol.phase, rng, spread=0.7)
    hu = _partial_volume(hu, protocol.thickness_mm / canvas_mm)
    seen = field_of_view(protocol)
    classes = _sample(class_map(canvas.labels), canvas.grid, geometry, 0, 0) * seen
    scan = _sample(hu, canvas.grid, geometry, 1, -1000.0)
    scan += _noise(geometry.shape, protocol, rng)
    np.clip(scan, -1024, 3071, out=scan)
    scan[:, ~seen] = -1024
    return Scan(np.rint(scan).astype(np.int16), classes.astype(np.uint8), seen, geometry)


def field_of_view(protocol: Protocol) -> npt.NDArray[np.bool_]:
    """(row, column) bool: the circle that is reconstructed when what lies outside is padded, else everything."""
    if not protocol.padded:
        return np.ones((protocol.matrix, protocol.matrix), bool)
    half = (protocol.matrix - 1) / 2
    row, column = np.ogrid[: protocol.matrix, : protocol.matrix]
    return np.hypot(row - half, column - half) <= protocol.matrix / 2


def _canvas_grid(geometry: VolumeGeometry, step_mm: float) -> Grid:
    """A grid that holds the heights of the scan, and all of the patient and couch across."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape], indexing="ij")).reshape(3, -1)
    heights = (geometry.affine[:3, :3] @ corners)[2] + geometry.affine[2, 3]
    spans = [(heights.min() - 8, heights.max() + 8), *_REACH_MM]
    count = [int(np.ceil((high - low) / step_mm)) + 1 for low, high in spans]
    origin = (float(spans[0][0]), spans[1][0], spans[2][0])
    return Grid(origin, (step_mm,) * 3, (count[0], count[1], count[2]))


def _partial_volume(hu: Field, thickness: float) -> Field:
    """The in-plane spread of the scanner, and the slice's thickness along z, in voxels of the canvas."""
    spread: Field = ndimage.gaussian_filter(hu, (0.5, 0.6, 0.6), truncate=3)
    through = round(thickness)
    return ndimage.uniform_filter1d(spread, through, axis=0) if through > 1 else spread


def _sample(
    volume: npt.NDArray[np.generic], grid: Grid, geometry: VolumeGeometry, order: int, outside: float
) -> Field:
    """A canvas (z, y, x) read on the scanner's (slice, row, column)."""
    flip = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])  # LPS (x, y, z) to (z, y, x)
    spacing = np.array(grid.spacing_mm)
    matrix = (flip @ geometry.affine[:3, :3]) / spacing[:, None]
    offset = (flip @ geometry.affine[:3, 3] - grid.origin_mm) / spacing
    straight = np.allclose(matrix, np.diag(np.diag(matrix)))
    sampled: Field = ndimage.affine_transform(
        volume, np.diag(matrix) if straight else matrix, offset, geometry.shape, order=order, cval=outside,
        prefilter=False,
    )  # fmt: skip
    return sampled


def _noise(shape: tuple[int, int, int], protocol: Protocol, rng: np.random.Generator) -> Field:
    """(slice, row, column) float32 quantum noise with the grain of the kernel, HU."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    soft = ndimage.gaussian_filter(noise, (0, 0.9, 0.9), truncate=3)
    noise *= np.float32(protocol.sharp)
    noise += soft * np.float32(3.0 * (1 - 0.5 * protocol.sharp))
    noise *= np.float32(protocol.noise_hu / noise[0].std())
    return noise


__all__ = ["Scan", "T", "make_scan"]
