"""Where a volume lies in the patient.

Index order is (slice, row, column) everywhere; coordinates are LPS millimetres (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rescale:
    """Modality units = stored × slope + intercept (PS3.3 C.11.1.1.2); HU for CT."""

    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """The grid of a volume: shape and the map from index to patient.

    `affine` is (4, 4) float64: affine @ (slice, row, column, 1) = (L, P, S, 1) in mm. Its first column is the
    step from one slice to the next, which is not along the normal when the gantry was tilted; the second
    the step down a column (from row to row), the third the step along a row.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError(f"no affine of a volume: {affine.tolist()}")
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> FloatArray:
        """(3,) distance between neighbours along (slice, row, column)."""
        spacing: FloatArray = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    @property
    def directions(self) -> FloatArray:
        """(3, 3) unit vectors, one a column, of (slice, row, column) in LPS."""
        directions: FloatArray = self.affine[:3, :3] / self.spacing_mm
        return directions

    @property
    def normal(self) -> FloatArray:
        """(3,) unit normal of the slices, on the side of increasing slice index."""
        normal: FloatArray = np.cross(self.directions[:, 2], self.directions[:, 1])
        normal /= np.linalg.norm(normal)
        return normal if normal @ self.affine[:3, 0] > 0 else -normal

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def tilt_degrees(self) -> float:
        """Angle between the step from slice to slice and the normal; 0 without gantry tilt."""
        return float(np.degrees(np.arccos(np.clip(self.directions[:, 0] @ self.normal, -1.0, 1.0))))


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the values of a volume lie and what they mean."""

    geometry: VolumeGeometry
    rescale: Rescale
