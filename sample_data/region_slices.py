"""Axial CT sections by region of the body, invented and real, for the sample classifier; HU (row, column) int16.

Invented trunks are the phantom's; heads and limbs are region_shapes'. Real ones are split by patient: those of one
fold are trained on, and those of the other tell how good that is. Levels where a region goes over into the next one
are in no fold and in no training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from torch.nn.functional import interpolate

from dicomnode.imaging.classify import centred, fitting
from sample_data.anatomy import Setting, paint_patient
from sample_data.canvas import Grid
from sample_data.real import REAL_DATA, RealVolume, read_series, total_segmentator_example
from sample_data.region_shapes import SIDE, head, limb
from sample_data.tissue import PHASES, T, hounsfield

REGIONS = ("Head", "Chest", "Abdomen", "Pelvis", "Extremity")
HEAD, CHEST, ABDOMEN, PELVIS, EXTREMITY = range(5)
_SPACING_MM = (8.0, 3.0, 3.0)
_LUNGS = (T.LUNG, T.LUNG_VESSEL)
_ORGANS = (T.LIVER, T.LIVER_VESSEL, T.LESION, T.SPLEEN, T.KIDNEY, T.GUT, T.FLUID, T.GAS, T.ORAL_CONTRAST)
_CREST_MM = (-165.0, -195.0)  # on the phantom's axis: all above is abdomen, all below pelvis
_TOP_MM, _BOTTOM_MM = 235.0, -400.0
_LUNG_SHARE = (0.35, 0.6)  # of lungs and organs: less is abdomen, more is chest


@dataclass(frozen=True)
class Sections:
    """(section, row, column) int16 HU of SIDE × SIDE pixels, with the region and the patient of each."""

    hu: npt.NDArray[np.int16]
    regions: npt.NDArray[np.int64]
    patients: tuple[str, ...]


def as_square(images: npt.NDArray[np.generic]) -> npt.NDArray[np.int16]:
    """(section, row, column) HU of any size, fitted into SIDE × SIDE as the node fits images into a card's size."""
    tensor = torch.from_numpy(np.asarray(images, dtype=np.float32))[:, None]
    size = (SIDE, SIDE)
    fitted = interpolate(
        tensor, fitting(images.shape[1:], size), mode="bilinear", antialias=True, align_corners=False
    )
    return centred(fitted, size, -1000.0)[:, 0].round().clamp(-1024, 3071).numpy().astype(np.int16)


# --------------------------------------------------------------------------------------------------- invented


def invented(seed: int, patients: int) -> Sections:
    """Of so many trunks, and about as many sections of heads and of limbs as they give of the chest."""
    parts = [_trunk(1000 * seed + number) for number in range(patients)]
    hu, regions = [hu for hu, _ in parts], [regions for _, regions in parts]
    chests = sum(int((r == CHEST).sum()) for r in regions)
    for region, paint, count in ((HEAD, head, chests), (EXTREMITY, limb, chests)):
        rng = np.random.default_rng([seed, 11, region])
        hu.append(np.stack([np.rint(paint(rng)).clip(-1024, 3071).astype(np.int16) for _ in range(count)]))
        regions.append(np.full(count, region, np.int64))
    total = sum(len(r) for r in regions)
    return Sections(np.concatenate(hu), np.concatenate(regions), ("invented",) * total)


def _trunk(seed: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    rng = np.random.default_rng([seed, 12])
    low = _BOTTOM_MM + rng.uniform(0, _SPACING_MM[0])
    grid = Grid((low, -190.0, -225.0), _SPACING_MM, (80, 140, 150))
    setting = Setting(bool(rng.random() < 0.25), bool(rng.random() < 0.85), float(rng.uniform(2, 8)))
    labels = paint_patient(grid, seed, setting).labels
    hu = hounsfield(labels, grid, str(rng.choice(list(PHASES))), rng, spread=1.5)
    regions = np.array([_region(plane, z) for plane, z in zip(labels, grid.axis(0), strict=True)])
    kept = regions >= 0
    return as_square(hu[kept]), regions[kept]


def _region(plane: npt.NDArray[np.uint8], z_mm: float) -> int:
    """Of a section of the phantom's tissue codes; -1 where one region goes over into another."""
    if z_mm < _CREST_MM[1]:
        return PELVIS
    lungs, organs = (int(np.isin(plane, codes).sum()) for codes in (_LUNGS, _ORGANS))
    share = lungs / max(lungs + organs, 1)
    if z_mm > _TOP_MM or z_mm < _CREST_MM[0] or _LUNG_SHARE[0] <= share <= _LUNG_SHARE[1]:
        return -1
    return CHEST if share > _LUNG_SHARE[1] else ABDOMEN


# ------------------------------------------------------------------------------------------------------- real


@dataclass(frozen=True)
class RealPatient:
    """`sections` gives (section, row, column) HU, from feet to head, with a region each, -1 where it is none."""

    name: str
    fold: str  # "a" or "b"
    sections: Callable[[], tuple[npt.NDArray[np.generic], list[int]]]


def _volume(
    read: Callable[[], RealVolume], *parts: tuple[int, int]
) -> Callable[[], tuple[npt.NDArray[np.generic], list[int]]]:
    """`parts`: region and how many sections of it, from the feet on."""

    def sections() -> tuple[npt.NDArray[np.generic], list[int]]:
        hu = read().hu
        regions = [region for region, count in parts for _ in range(count)]
        return hu, (regions + [regions[-1]] * len(hu))[: len(hu)]

    return sections


def _series(folder: str) -> Callable[[], RealVolume]:
    return lambda: read_series(REAL_DATA / folder, folder)


def _frames() -> tuple[npt.NDArray[np.generic], list[int]]:
    """An enhanced perfusion CT of the head without its skull."""
    dataset = pydicom.dcmread(next((REAL_DATA / "enhanced/ect-2frame").glob("*.dcm")))
    return dataset.pixel_array.astype(np.float32) - 1024, [HEAD, HEAD]


# What is where was read off the images; in -1 the dome of the liver lies between the lungs
PATIENTS = (
    RealPatient("head-tilted", "a", _volume(_series("ct/ge-head-tilt18-variable-spacing"), (HEAD, 28))),
    RealPatient("lidc-0002", "a", _volume(_series("ct/lidc-0002-part"), (CHEST, 12))),
    RealPatient("totalsegmentator", "a", _volume(total_segmentator_example, (ABDOMEN, 25), (-1, 5))),
    RealPatient("crlm-1004", "b", _volume(_series("ct/crlm-1004"), (ABDOMEN, 29), (-1, 6), (CHEST, 6))),
    RealPatient("nysbu-A002304", "b", _volume(_series("ct/nysbu-A002304-mixed-planes/A002304/axial"), (CHEST, 2))),
    RealPatient("dcmqi-liver", "b", _volume(_series("seg_sr/dcmqi-liver/ct-3slice"), (ABDOMEN, 3))),
    RealPatient("perfusion", "b", _frames),
)


def real(fold: str) -> Sections:
    """The real sections of a fold; none where the data is not there."""
    patients = [p for p in PATIENTS if p.fold == fold] if is_there() else []
    hu, regions, names = [np.zeros((0, SIDE, SIDE), np.int16)], [np.zeros(0, np.int64)], []
    for patient in patients:
        images, found = patient.sections()
        kept = np.array(found) >= 0
        hu.append(as_square(images[kept]))
        regions.append(np.array(found, np.int64)[kept])
        names += [patient.name] * int(kept.sum())
    return Sections(np.concatenate(hu), np.concatenate(regions), tuple(names))


def is_there() -> bool:
    return (Path(REAL_DATA) / "ct" / "crlm-1004").is_dir()
