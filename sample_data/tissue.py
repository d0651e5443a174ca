"""Tissues of the phantom: their codes, what they look like on CT, and the class each belongs to."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sample_data.canvas import Field, Grid, smooth_noise


class T(IntEnum):
    """Tissue codes on the canvas."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    LUNG = 4
    LUNG_VESSEL = 5
    AIRWAY = 6
    CORTEX = 7
    MARROW = 8
    CARTILAGE = 9
    CANAL = 10
    BLOOD = 11
    VEIN = 12
    HEART = 13
    LIVER = 14
    LIVER_VESSEL = 15
    SPLEEN = 16
    KIDNEY = 17
    KIDNEY_SINUS = 18
    GUT = 19
    GAS = 20
    ORAL_CONTRAST = 21
    FLUID = 22
    TABLE = 23
    PAD = 24
    METAL = 25
    CALCIUM = 26
    LESION = 27
    AIRWAY_WALL = 28
    VISCERAL_FAT = 29


CLASSES = ("background", "lungs", "bone", "body", "liver", "spleen", "kidneys")
_CLASS_OF = {
    1: (T.LUNG, T.LUNG_VESSEL),
    2: (T.CORTEX, T.MARROW),
    4: (T.LIVER, T.LIVER_VESSEL, T.LESION),
    5: (T.SPLEEN,),
    6: (T.KIDNEY, T.KIDNEY_SINUS),
    0: (T.AIR, T.TABLE, T.PAD),
}

# HU at 120 kVp: the middle and the half range over patients, before contrast
_HU: dict[T, tuple[float, float]] = {
    T.AIR: (-1000, 5),
    T.SKIN: (20, 25),
    T.FAT: (-100, 12),
    T.VISCERAL_FAT: (-98, 15),
    T.MUSCLE: (55, 12),
    T.LUNG: (-830, 70),
    T.LUNG_VESSEL: (30, 20),
    T.AIRWAY: (-990, 10),
    T.AIRWAY_WALL: (20, 30),
    T.CORTEX: (800, 350),
    T.MARROW: (180, 110),
    T.CARTILAGE: (95, 30),
    T.CANAL: (35, 12),
    T.BLOOD: (42, 6),
    T.VEIN: (42, 6),
    T.HEART: (45, 8),
    T.LIVER: (58, 16),
    T.LIVER_VESSEL: (42, 6),
    T.LESION: (40, 20),
    T.SPLEEN: (50, 6),
    T.KIDNEY: (34, 6),
    T.KIDNEY_SINUS: (-40, 40),
    T.GUT: (30, 20),
    T.GAS: (-960, 40),
    T.ORAL_CONTRAST: (350, 300),
    T.FLUID: (8, 8),
    T.TABLE: (-150, 250),
    T.PAD: (-930, 40),
    T.METAL: (2600, 500),
    T.CALCIUM: (700, 300),
}

# Enhancement in HU by contrast phase (rough middles of published ranges)
PHASES: dict[str, dict[T, float]] = {
    "none": {},
    "arterial": {T.BLOOD: 290, T.VEIN: 50, T.HEART: 150, T.LUNG_VESSEL: 180, T.LIVER: 12, T.LIVER_VESSEL: 30,
                 T.SPLEEN: 70, T.KIDNEY: 130, T.MUSCLE: 5, T.GUT: 40, T.MARROW: 10},
    "venous": {T.BLOOD: 110, T.VEIN: 110, T.HEART: 85, T.LUNG_VESSEL: 90, T.LIVER: 52, T.LIVER_VESSEL: 115,
               T.SPLEEN: 70, T.KIDNEY: 150, T.MUSCLE: 12, T.GUT: 50, T.MARROW: 20, T.LESION: 15},
    "late": {T.BLOOD: 60, T.VEIN: 60, T.HEART: 50, T.LUNG_VESSEL: 50, T.LIVER: 35, T.LIVER_VESSEL: 55,
             T.SPLEEN: 40, T.KIDNEY: 110, T.KIDNEY_SINUS: 350, T.MUSCLE: 10, T.GUT: 30, T.MARROW: 10, T.LESION: 10},
}  # fmt: skip


def class_map(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(z, y, x) uint8 classes, numbered as CLASSES, of (z, y, x) tissue codes."""
    table = np.full(256, 3, np.uint8)
    for number, codes in _CLASS_OF.items():
        table[list(codes)] = number
    return table[labels]


def hounsfield(
    labels: npt.NDArray[np.uint8], grid: Grid, phase: str, rng: np.random.Generator, spread: float = 1.0
) -> Field:
    """(z, y, x) float32 HU of (z, y, x) tissue codes in one patient: tissue values, contrast, and texture."""
    table = np.zeros(256, np.float32)
    strength = rng.uniform(1 - 0.35 * spread, 1 + 0.35 * spread)
    for code, (middle, half) in _HU.items():
        table[code] = middle + spread * half * rng.uniform(-1, 1) + strength * PHASES[phase].get(code, 0.0)
    hu = table[labels]
    sd = np.full(256, 6.0, np.float32)
    sd[[T.LUNG, T.MARROW, T.CORTEX, T.GUT, T.MUSCLE]] = 45, 60, 120, 25, 12
    sd[[T.AIR, T.TABLE, T.PAD, T.AIRWAY, T.GAS]] = 0
    sd[[T.FAT, T.VISCERAL_FAT]] = 10, 16
    hu += sd[labels] * (0.7 * smooth_noise(rng, grid, 9.0) + 0.5 * smooth_noise(rng, grid, 45.0))
    return hu
