"""Contrast medium as bright as bone, for training samples: what shape and place can tell from bone, and HU cannot.

The phases of `tissue.PHASES` are the middles of a scanner's day; here are its extremes. HU are rough textbook values.
Arrays are (z, y, x) at the working spacing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sample_data.canvas import Field, Grid, Mask, smooth_noise
from sample_data.tissue import T

_STEP_MM = 2.5
_LUMEN = (T.GUT, T.FLUID, T.ORAL_CONTRAST)
_BLOOD = (T.BLOOD, T.VEIN, T.HEART)
_ORGANS = (T.VISCERAL_FAT, T.LIVER, T.LIVER_VESSEL, T.LESION, T.SPLEEN, T.KIDNEY, T.KIDNEY_SINUS)
_CAVITY = (*_LUMEN, *_BLOOD, *_ORGANS)


def with_contrast(rng: np.random.Generator, hu: Field, tissues: npt.NDArray[np.uint8]) -> Field:
    """HU with medium in some of the kidneys, the vessels, the bowel, and in blobs that are nothing in particular."""
    added = np.zeros_like(hu)
    for fill, share in ((_kidneys, 0.75), (_vessels, 0.7), (_bowel, 0.65), (_blobs, 0.5)):
        if rng.random() < share:
            fill(rng, added, tissues)
    # a lumen may hold gas that the tissue codes of a real scan do not tell
    added[hu < -250] = 0
    bright: Field = hu + ndimage.gaussian_filter(added, rng.uniform(0.3, 0.6))
    return bright


def with_trabeculae(rng: np.random.Generator, hu: Field, tissues: npt.NDArray[np.uint8]) -> Field:
    """HU with a texture of voxel size in the marrow, as spongy bone has it."""
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.6) * 3
    textured: Field = hu + np.where(tissues == T.MARROW, np.float32(rng.uniform(5, 70)) * grain, 0).astype(np.float32)
    return textured


def _noise(rng: np.random.Generator, shape: tuple[int, ...], period_mm: float) -> Field:
    z, y, x = shape
    return smooth_noise(rng, Grid((0, 0, 0), (_STEP_MM,) * 3, (z, y, x)), period_mm)


def _kidneys(rng: np.random.Generator, added: Field, tissues: npt.NDArray[np.uint8]) -> None:
    """A bright cortex, pyramids that are darker or as bright, and now and then urine of up to 1000 HU."""
    kidney = np.isin(tissues, (T.KIDNEY, T.KIDNEY_SINUS))
    if not kidney.any():
        return
    depth = ndimage.distance_transform_edt(kidney) * _STEP_MM
    grain = _noise(rng, added.shape, rng.uniform(8, 16))
    cortex = rng.uniform(80, 290)
    pyramids = kidney & (depth > rng.uniform(4, 8)) & (grain > rng.uniform(-0.6, 0.6))
    added[kidney & (tissues == T.KIDNEY)] += cortex
    added[pyramids] = cortex * rng.uniform(0.3, 1.3)
    if rng.random() < 0.5:
        urine = (tissues == T.KIDNEY_SINUS) | (kidney & (depth > rng.uniform(10, 16)) & (grain < 0))
        added[urine] = rng.uniform(150, 1000)


def _vessels(rng: np.random.Generator, added: Field, tissues: npt.NDArray[np.uint8]) -> None:
    """Arteries and chambers, veins and heart muscle, each at its own strength and not quite mixed."""
    artery, vein = rng.uniform(80, 400), rng.uniform(40, 320)
    strengths = {T.BLOOD: artery, T.LUNG_VESSEL: artery * rng.uniform(0.4, 1.0), T.HEART: rng.uniform(20, 130)}
    strengths |= {T.VEIN: vein, T.LIVER_VESSEL: vein * rng.uniform(0.4, 0.8), T.SPLEEN: rng.uniform(20, 130)}
    mixing = 1 + rng.uniform(0, 0.25) * _noise(rng, added.shape, 25.0)
    for code, strength in strengths.items():
        here = tissues == code
        added[here] += strength * mixing[here]


def _bowel(rng: np.random.Generator, added: Field, tissues: npt.NDArray[np.uint8]) -> None:
    """Clots of oral contrast in stretches of the bowel, the bladder and whatever else holds fluid."""
    lumen = ndimage.binary_erosion(np.isin(tissues, _LUMEN))
    filled = lumen & (_noise(rng, added.shape, rng.uniform(35, 70)) > rng.uniform(-0.7, 1.0))
    clots = 1 + rng.uniform(0, 0.6) * _noise(rng, added.shape, rng.uniform(6, 14))
    added[filled] = (rng.uniform(150, 800) * np.clip(clots, 0, None))[filled]


def _blobs(rng: np.random.Generator, added: Field, tissues: npt.NDArray[np.uint8]) -> None:
    """Solid, hollow or grainy ellipsoids inside the chest and the belly."""
    cavity = np.isin(tissues, _CAVITY)
    places = np.argwhere(cavity)
    for _ in range(rng.integers(1, 6) if len(places) else 0):
        reach = _ellipsoid(rng, places[rng.integers(len(places))], added.shape)
        value = np.full(added.shape, rng.uniform(120, 650), np.float32)
        kind = rng.integers(3)
        if kind == 1:
            value[reach < rng.uniform(0.3, 0.7)] *= rng.uniform(0, 0.6)
        elif kind == 2:
            value *= np.clip(1 + 0.6 * _noise(rng, added.shape, 8.0), 0, None)
        inside: Mask = cavity & (reach < 1)
        added[inside] = value[inside]


def _ellipsoid(rng: np.random.Generator, centre: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Field:
    """(z, y, x) float32: 0 at the centre, 1 on the surface of an ellipsoid of 4 to 30 mm in radius."""
    radii = np.exp(rng.uniform(np.log(4), np.log(24))) * rng.uniform(0.7, 1.3, 3) / _STEP_MM
    axes = [((np.arange(n) - c) / r) ** 2 for n, c, r in zip(shape, centre, radii, strict=True)]
    reach: Field = (axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]).astype(np.float32)
    return reach
