"""How the invented scanner scans: one protocol a situation that real scanners send."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dicomnode.imaging.geometry import VolumeGeometry


@dataclass(frozen=True)
class Protocol:
    """One acquisition; lengths in mm, positions on the phantom's z axis (0 near T12/L1)."""

    name: str
    description: str
    body_part: str  # PS3.16 Annex L
    low_mm: float
    high_mm: float
    step_mm: float
    thickness_mm: float
    pixel_mm: float = 0.78125
    matrix: int = 512
    phase: str = "venous"
    noise_hu: float = 11.0
    sharp: float = 0.0
    kernel: str = "STANDARD"
    turn_degrees: tuple[float, float] = (0.0, 0.0)  # of the planes about x and z
    tilt_degrees: float = 0.0  # of the gantry; the couch still moves along z
    feet_last: bool = False
    padded: bool = False
    enhanced: bool = False
    localizer: bool = False

    @property
    def slices(self) -> int:
        return round((self.high_mm - self.low_mm) / self.step_mm) + 1


CHEST_ABDOMEN = Protocol("chest-abdomen", "CHEST/ABD PORTAL VENOUS 5.0", "CHESTABDOMEN", -105, 235, 5, 5, padded=True)
_ABDOMEN = replace(CHEST_ABDOMEN, body_part="ABDOMEN", low_mm=-85, high_mm=95, padded=False)
_ALL = (
    CHEST_ABDOMEN,
    Protocol("thin-chest", "CHEST THIN 1.5", "CHEST", 20, 245, 1.5, 1.5, 0.68359375, phase="none", noise_hu=24,
             sharp=0.6, kernel="LUNG"),
    replace(_ABDOMEN, name="reversed", description="ABDOMEN HEAD FIRST 5.0", feet_last=True, padded=True),
    replace(_ABDOMEN, name="oblique", description="ABDOMEN OBLIQUE 4.0", step_mm=4, thickness_mm=4,
            turn_degrees=(12.0, 7.0)),
    replace(_ABDOMEN, name="tilted", description="ABDOMEN GANTRY TILT 5.0", tilt_degrees=14.0),
    replace(_ABDOMEN, name="enhanced", description="ABDOMEN ENHANCED 5.0", enhanced=True),
    replace(_ABDOMEN, name="with-localizer", description="ABDOMEN VENOUS 5.0", localizer=True, padded=True),
)  # fmt: skip
PROTOCOLS: dict[str, Protocol] = {p.name: p for p in _ALL}


def scan_geometry(protocol: Protocol, seed: int) -> VolumeGeometry:
    """Where the scan's voxels lie: (slice, row, column) to LPS mm, slices from feet to head."""
    a, c = np.radians(protocol.turn_degrees)
    tilt = np.radians(protocol.tilt_degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a + tilt), -np.sin(a + tilt)], [0, np.sin(a + tilt), np.cos(a + tilt)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    along, down = about_z @ about_x @ np.array([1.0, 0, 0]), about_z @ about_x @ np.array([0.0, 1, 0])
    step = np.array([0.0, 0, 1]) if tilt else np.cross(along, down)
    affine, size = np.eye(4), protocol.matrix * protocol.pixel_mm
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        step * protocol.step_mm,
        down * protocol.pixel_mm,
        along * protocol.pixel_mm,
    )
    shift = np.random.default_rng([seed, 4]).uniform(-8, 8, 2)
    centre = np.array([shift[0], 15 + shift[1], protocol.low_mm])
    affine[:3, 3] = centre - (along + down) * (size - protocol.pixel_mm) / 2
    return VolumeGeometry((protocol.slices, protocol.matrix, protocol.matrix), affine)
