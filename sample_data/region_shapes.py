"""Invented sections of heads and limbs, which the phantom's trunk has not: HU, (row, column) float32.

Rows go to the back and columns to the left, as in an axial CT. Shapes are ellipses under a random warp; sizes, HU
and what is in a section are rough textbook values, drawn wide: the network has to learn what sections have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
SIDE = 160  # pixels


@dataclass(frozen=True)
class Section:
    """An empty section: where its pixels are, mm from its middle, under a warp."""

    rng: np.random.Generator
    x: Image
    y: Image
    hu: Image

    def ellipse(self, x: float, y: float, a: float, b: float, turn: float = 0.0, power: float = 2.0) -> Mask:
        """The pixels within half axes `a` and `b`, mm."""
        c, s = np.cos(turn), np.sin(turn)
        u, v = (self.x - x) * c + (self.y - y) * s, -(self.x - x) * s + (self.y - y) * c
        inside: Mask = np.abs(u / a) ** power + np.abs(v / b) ** power < 1
        return inside

    def fill(self, mask: Mask, hu: float, texture: float = 0.0) -> None:
        self.hu[mask] = hu
        if texture:
            grain = ndimage.gaussian_filter(self.rng.standard_normal(self.hu.shape), 1.2) * 3.5 * texture
            self.hu[mask] += grain[mask].astype(np.float32)


def section(rng: np.random.Generator, pixel_mm: float) -> Section:
    steps = (np.arange(SIDE) - SIDE / 2 + 0.5) * pixel_mm
    y, x = np.meshgrid(steps, steps, indexing="ij")
    warps = [ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 14) for _ in range(2)]
    bend = rng.uniform(1, 5)
    x, y = (axis + bend * warp / warp.std() for axis, warp in zip((x, y), warps, strict=True))
    return Section(rng, x.astype(np.float32), y.astype(np.float32), np.full((SIDE, SIDE), -1000, np.float32))


# -------------------------------------------------------------------------------------------------------- heads


def head(rng: np.random.Generator) -> Image:
    """A section at a random level, from the vertex down to the upper jaw."""
    s = section(rng, rng.uniform(1.25, 2.0))
    level = rng.uniform(0, 1)  # 0 the vertex, 1 the jaw
    size = min(1.0, 0.35 + 2.2 * level) * rng.uniform(0.9, 1.1)
    wide, long = 74 * size, 92 * size
    s.fill(s.ellipse(0, 0, wide + rng.uniform(4, 9), long + rng.uniform(4, 9)), rng.uniform(-90, 40), 15)
    bone = rng.uniform(3, 8) if level > 0.15 else rng.uniform(6, 16)
    s.fill(s.ellipse(0, 0, wide, long, power=2.2), rng.uniform(600, 1500), 90)
    s.fill(s.ellipse(0, 0, wide - bone, long - bone, power=2.2), rng.uniform(26, 42), 5)
    if level < 0.62:
        _brain(s, wide - bone, long - bone, level)
    else:
        _base(s, wide, long, level)
    _rest(s, wide, long)
    return s.hu


def _brain(s: Section, wide: float, long: float, level: float) -> None:
    rng = s.rng
    cortex = s.ellipse(0, 0, wide, long) & ~s.ellipse(0, 0, wide * 0.84, long * 0.86)
    s.fill(cortex, rng.uniform(20, 36), 9)
    s.fill(s.ellipse(0, 0, rng.uniform(1, 2), long * 0.9) & s.ellipse(0, 0, wide, long), rng.uniform(5, 60))
    if level > 0.3:
        for side in (-1, 1):
            a, b = rng.uniform(3, 10), rng.uniform(12, 28)
            s.fill(s.ellipse(side * rng.uniform(8, 16), rng.uniform(-8, 14), a, b, side * 0.3), rng.uniform(2, 12))
    if rng.random() < 0.3:
        s.fill(s.ellipse(rng.uniform(-30, 30), rng.uniform(-40, 40), *rng.uniform(4, 16, 2)), rng.uniform(0, 70), 4)


def _base(s: Section, wide: float, long: float, level: float) -> None:
    """Orbits, sinuses, petrous bones, jaw; muscles of the nape below."""
    rng = s.rng
    s.fill(s.ellipse(0, -long * 0.2, wide * 0.85, long * 0.75), rng.uniform(20, 60), 12)
    for side in (-1, 1):
        s.fill(s.ellipse(side * wide * 0.45, long * 0.2, wide * 0.35, 12, side * 0.6), rng.uniform(500, 1300), 200)
        if level < 0.85:
            s.fill(s.ellipse(side * 32, -long * 0.72, 19, 20), rng.uniform(-90, 30), 15)
            s.fill(s.ellipse(side * 32, -long * 0.78, 12, 12), rng.uniform(5, 30))
        s.fill(s.ellipse(side * rng.uniform(18, 34), -long * 0.45, *rng.uniform(7, 16, 2)), rng.uniform(-1000, 30))
        s.fill(s.ellipse(side * wide * 0.72, long * 0.25, 8, 11), rng.uniform(-800, 700), 250)
    s.fill(s.ellipse(0, -long * 0.5, rng.uniform(5, 12), rng.uniform(14, 30)), rng.uniform(-1000, -300), 200)
    if level > 0.8:
        arch = s.ellipse(0, -long * 0.5, 30, 40) & ~s.ellipse(0, -long * 0.45, 22, 32) & (s.y < -long * 0.4)
        s.fill(arch, rng.uniform(600, 1800), 300)
    s.fill(s.ellipse(0, long * 0.4, rng.uniform(14, 30), rng.uniform(10, 24)), rng.uniform(300, 1100), 150)
    s.fill(s.ellipse(0, long * 0.42, 11, 11), rng.uniform(20, 40))
    if rng.random() < 0.5:
        s.fill(s.ellipse(0, long * 0.7, wide * 0.7, long * 0.2), rng.uniform(40, 65), 20)


def _rest(s: Section, wide: float, long: float) -> None:
    """What the head lies in."""
    if s.rng.random() < 0.7:
        gap = s.rng.uniform(14, 24)
        shell = s.ellipse(0, 0, wide + gap + 3, long + gap + 3) & ~s.ellipse(0, 0, wide + gap, long + gap)
        s.fill(shell & (s.y > s.rng.uniform(-30, 60)), s.rng.uniform(-200, 300))


# -------------------------------------------------------------------------------------------------------- limbs


def limb(rng: np.random.Generator) -> Image:
    """One limb or two: shafts and joints of arms and legs."""
    two = rng.random() < 0.5
    radius = rng.uniform(28, 95)
    s = section(rng, rng.uniform(1.1, 1.6) * (2.6 if two else 2.0) * radius / 80)
    middles = [-radius * rng.uniform(1.1, 1.35), radius * rng.uniform(1.1, 1.35)] if two else [rng.uniform(-15, 15)]
    is_joint, bones = rng.random() < 0.35, 1 if radius > 60 else int(rng.integers(1, 3))
    high = rng.uniform(-20, 20)
    for side, x in zip((-1, 1), middles, strict=False):
        _one_limb(s, x, high, radius * rng.uniform(0.93, 1.07), side, is_joint, bones)
    if rng.random() < 0.6:
        table = (s.y > radius + high + 8) & (s.y < radius + high + 8 + rng.uniform(2, 14))
        s.fill(table, rng.uniform(-900, -100))
    return s.hu


def _one_limb(s: Section, x: float, y: float, radius: float, side: int, is_joint: bool, bones: int) -> None:
    rng = s.rng
    a, b, fat = radius * rng.uniform(0.85, 1.1), radius, rng.uniform(2, 0.35 * radius)
    s.fill(s.ellipse(x, y, a, b), rng.uniform(-10, 40))
    s.fill(s.ellipse(x, y, a - 2, b - 2), rng.uniform(-115, -85), 8)
    muscle = s.ellipse(x, y, max(a - fat, 8), max(b - fat, 8))
    s.fill(muscle, rng.uniform(35, 75), 12)
    seams = ndimage.gaussian_filter(rng.standard_normal(s.hu.shape), 5)
    s.fill(muscle & (np.abs(seams / seams.std()) < rng.uniform(0.02, 0.12)), -80, 10)
    share = rng.uniform(0.42, 0.66) if is_joint else rng.uniform(0.16, 0.3)
    first = max(radius * share / bones**0.5, 5.0)
    off = 0.0 if bones == 1 else first * rng.uniform(1.05, 1.4)
    _bone(s, x - side * off * 0.6, y + rng.uniform(-8, 8), first, is_joint)
    if bones == 2:
        _bone(s, x + side * off, y + rng.uniform(-4, 14), first * rng.uniform(0.35, 0.9), is_joint)
    for _ in range(int(rng.integers(1, 4))):
        turn = rng.uniform(0, 6.3)
        place = (x + radius * 0.45 * np.cos(turn), y + radius * 0.45 * np.sin(turn))
        s.fill(s.ellipse(*place, *rng.uniform(2, 4.5, 2)) & muscle, rng.uniform(30, 250))


def _bone(s: Section, x: float, y: float, radius: float, is_joint: bool) -> None:
    rng = s.rng
    a, b, turn = radius * rng.uniform(0.75, 1.25), radius * rng.uniform(0.75, 1.25), rng.uniform(0, 3.1)
    cortex = 1.5 if is_joint else max(radius * rng.uniform(0.2, 0.45), 2)
    s.fill(s.ellipse(x, y, a, b, turn, 2.4), rng.uniform(700, 1600), 80)
    inner = s.ellipse(x, y, max(a - cortex, 0.5), max(b - cortex, 0.5), turn, 2.4)
    s.fill(inner, rng.uniform(120, 450) if is_joint else rng.uniform(-90, 120), 60)
