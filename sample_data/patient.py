"""One invented patient: sizes and positions, drawn by seed. Landmarks are mm; z is 0 near T12/L1."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sample_data.canvas import Field, Vector

Profile = npt.NDArray[np.float32]

# (z, half width, to the front, to the back) of the inner wall of trunk (cavity) and of the muscle around it
_CAVITY = np.array([
    [-470, 92, 60, 90], [-300, 112, 84, 98], [-200, 114, 86, 96], [-100, 124, 92, 102], [0, 132, 96, 108],
    [50, 133, 92, 110], [110, 126, 82, 108], [165, 110, 66, 98], [205, 88, 48, 84],
    [240, 58, 30, 66], [262, 30, 15, 50],
])  # fmt: skip
_MUSCLE = np.array([
    [-470, 158, 82, 112], [-380, 166, 92, 120], [-300, 160, 95, 122], [-200, 134, 95, 122], [-100, 143, 101, 126],
    [0, 152, 105, 132], [80, 156, 103, 134], [140, 172, 96, 136], [185, 196, 82, 134], [225, 186, 66, 118],
    [252, 110, 56, 100], [275, 64, 55, 86], [330, 58, 55, 78], [420, 60, 62, 80],
])  # fmt: skip


@dataclass
class Patient:
    """What varies from patient to patient; lengths in mm."""

    rng: np.random.Generator
    width: float = field(init=False)
    depth: float = field(init=False)
    fat: float = field(init=False)
    wall: float = field(init=False)
    bend: float = field(init=False)
    scoliosis: float = field(init=False)
    inspiration: float = field(init=False)
    liver: float = field(init=False)

    def __post_init__(self) -> None:
        u = self.rng.uniform
        self.width, self.depth = u(0.88, 1.14), u(0.88, 1.16)
        self.fat = float(np.clip(self.rng.gamma(2.2, 8.0), 3, 55))
        self.wall = u(0.75, 1.3)
        self.bend, self.scoliosis = u(-8, 14), u(-9, 9)
        self.inspiration, self.liver = u(-25, 25), u(0.85, 1.15)

    def cavity(self, z: Field) -> tuple[Profile, Profile, Profile]:
        """Half width, front and back of the cavity at each z, mm."""
        return self._profile(_CAVITY, z, 0.0)

    def muscle(self, z: Field) -> tuple[Profile, Profile, Profile]:
        """Half width, front and back of the outer muscle at each z, mm."""
        return self._profile(_MUSCLE, z, (self.wall - 1) * 12)

    def _profile(self, table: Vector, z: Field, more: float) -> tuple[Profile, Profile, Profile]:
        w, f, b = (np.interp(z, table[:, 0], table[:, i]).astype(np.float32) for i in (1, 2, 3))
        return w * self.width + more, f * self.depth + more, b * (0.5 + 0.5 * self.depth) + 0.5 * more

    def spine(self, z: float) -> tuple[float, float]:
        """x and y of the middle of the vertebral body at a height, mm."""
        curve = 13 * np.sin((z - 30) / 95.0) * (-60 < z < 330) - 12 * np.exp(-(((z + 130) / 75) ** 2))
        sacral = 30 * np.clip((-205 - z) / 90.0, 0, 1)
        neck = -45 * np.clip((z - 245) / 110, 0, 1)
        y = (70 + curve + sacral + neck) * (0.6 + 0.4 * self.depth) + 0.4 * self.bend
        return float(self.scoliosis * np.sin((z + 40) / 110)), float(y)

    def jitter(self, point: tuple[float, float, float], by: float = 6.0) -> tuple[float, float, float]:
        """A landmark of the mean patient moved to this one: scaled with the trunk, then shifted at random."""
        x, y, z = np.array(point) * (self.width, self.depth, 1.0) + self.rng.normal(0, by / 2, 3)
        return float(x), float(y), float(z)

    def size(self, *radii: float) -> tuple[float, ...]:
        """Radii of an organ of the mean patient with a random size."""
        scale = self.rng.uniform(0.85, 1.15)
        return tuple(float(r * scale * self.rng.uniform(0.93, 1.07)) for r in radii)
