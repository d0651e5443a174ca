"""Random training samples: a piece of an invented or real patient, scanned by a random scanner.

Every sample depends on the seed and its index alone. Samples are in RAS order,
at the working grid's spacing, with the classes of `shown_classes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.utils.data import IterableDataset

from sample_data.anatomy import Setting, paint_patient
from sample_data.canvas import Field, Grid, Vector
from sample_data.contrast import with_contrast, with_trabeculae
from sample_data.real import Labels, RealVolume, total_segmentator_example
from sample_data.tissue import CLASSES, PHASES, T, class_map, hounsfield

SPACING_MM = 2.5
WINDOW = (96, 96, 96)  # RAS
HU_FROM = (-1000.0, 1000.0)
_CROP = (64, 88, 88)  # (z, y, x) of a training sample
_REAL_SHARE = 0.3
_BRIGHT_SHARE = 0.7  # of the samples, with contrast medium as bright as bone
_PER_PATIENT = 10


@dataclass(frozen=True)
class Sample:
    """HU float32 and classes uint8, both (z, y, x) LPS."""

    hu: Field
    classes: Labels


def shown_classes(classes: Labels) -> Labels:
    """Classes of `tissue.CLASSES` with the organs as part of the body: what the network learns."""
    return np.where(classes > CLASSES.index("body"), CLASSES.index("body"), classes).astype(np.uint8)


def training_patient(seed: int) -> Labels:
    """(z, y, x) uint8 tissue codes of a whole trunk at the working spacing, with a random part of it kept."""
    rng = np.random.default_rng([seed, 2])
    low = rng.uniform(-420, 60)
    grid = Grid((low, -190.0, -225.0), (SPACING_MM,) * 3, (112, 168, 180))
    setting = Setting(bool(rng.random() < 0.2), bool(rng.random() < 0.85), float(rng.uniform(2, 8)))
    return paint_patient(grid, seed, setting).labels


def place(rng: np.random.Generator, shape: tuple[int, ...], step: float) -> tuple[Vector, Vector]:
    """A matrix and offset for `affine_transform`: a turned, scaled crop somewhere in a volume of `shape`.

    `step` is the crop's spacing over the volume's.
    """
    a, b, c = np.radians(rng.normal(0, 1, 3) * (4, 5, 6))
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = (rx @ ry @ rz) @ np.diag(step * rng.uniform(0.85, 1.2) * rng.uniform(0.92, 1.08, 3))
    size = np.array(shape)
    reach = np.abs(matrix) @ (np.array(_CROP) / 2)
    margin = np.minimum(reach - 12, size / 2)
    centre = rng.uniform(margin, size - margin)
    offset: Vector = centre - matrix @ ((np.array(_CROP) - 1) / 2)
    return matrix, offset


def phantom_sample(rng: np.random.Generator, patient: Labels) -> Sample:
    matrix, offset = place(rng, patient.shape, 1.0)
    labels = ndimage.affine_transform(patient, matrix, offset, _CROP, order=0, cval=int(T.AIR))
    grid = Grid((0, 0, 0), (SPACING_MM,) * 3, _CROP)
    hu = hounsfield(labels, grid, str(rng.choice(list(PHASES))), rng, spread=1.5)
    hu = with_trabeculae(rng, hu, labels)
    if rng.random() < _BRIGHT_SHARE:
        hu = with_contrast(rng, hu, labels)
    return Sample(hu, shown_classes(class_map(labels)))


def real_sample(rng: np.random.Generator, volume: RealVolume) -> Sample:
    assert volume.labels is not None
    assert volume.tissues is not None
    matrix, offset = place(rng, volume.hu.shape, SPACING_MM / volume.spacing_mm[0])
    hu = ndimage.affine_transform(volume.hu, matrix, offset, _CROP, order=1, cval=-1000.0)
    classes = ndimage.affine_transform(shown_classes(volume.labels), matrix, offset, _CROP, order=0)
    if rng.random() < _BRIGHT_SHARE:
        tissues = ndimage.affine_transform(volume.tissues, matrix, offset, _CROP, order=0)
        hu = with_contrast(rng, hu, tissues)
    return Sample(hu, classes)


def scan(rng: np.random.Generator, sample: Sample, blur: bool) -> Sample:
    """The sample as a random scanner would see it: thickness, kernel, noise, streaks, field of view."""
    hu = sample.hu
    if blur:
        hu = ndimage.gaussian_filter(hu, rng.uniform(0.3, 0.75))
    hu = _thick_slices(rng, hu)
    hu = _kernel(rng, hu)
    hu = hu + _noise(rng, hu.shape)
    if rng.random() < 0.2:
        hu = hu + _streaks(rng, sample.classes)
    hu = hu * rng.uniform(0.93, 1.07) + rng.normal(0, 14)
    return _field_of_view(rng, Sample(hu.astype(np.float32), sample.classes))


def _thick_slices(rng: np.random.Generator, hu: Field) -> Field:
    """Slices 1 to 8 mm thick along z, read back at the working spacing."""
    thick = rng.choice([1.0, rng.uniform(1, 8)], p=[0.35, 0.65]) / SPACING_MM
    if thick <= 1:
        return hu
    hu = ndimage.uniform_filter1d(hu, max(1, round(thick)), axis=0)
    positions = np.arange(rng.uniform(0, thick), hu.shape[0] - 1, thick)
    if len(positions) < 3:
        return hu
    low = positions.astype(int)
    part = (positions - low)[:, None, None].astype(np.float32)
    slices = hu[low] * (1 - part) + hu[low + 1] * part
    at = np.clip((np.arange(hu.shape[0]) - positions[0]) / thick, 0, len(positions) - 1.001)
    low, part = at.astype(int), (at - at.astype(int))[:, None, None].astype(np.float32)
    read: Field = slices[low] * (1 - part) + slices[low + 1] * part
    return read


def _kernel(rng: np.random.Generator, hu: Field) -> Field:
    """A soft or an edge-enhancing kernel in the slices."""
    soft = ndimage.gaussian_filter(hu, (0, 1.0, 1.0))
    mixed: Field = hu + np.float32(rng.uniform(-0.4, 0.7)) * (hu - soft)
    return mixed


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, (0, 0.8, 0.8)) * 2.2
    return noise * np.float32(rng.exponential(16) + 2)


def _streaks(rng: np.random.Generator, classes: Labels) -> Field:
    """Photon starvation or metal: dark and bright rays through a point, worst beside it."""
    bone = np.argwhere(classes == 2)
    z, y, x = bone[rng.integers(len(bone))] if len(bone) else np.array(classes.shape) // 2
    dy, dx = np.ogrid[: classes.shape[1], : classes.shape[2]]
    angle, far = np.arctan2(dy - y, dx - x), np.hypot(dy - y, dx - x)
    rays = np.sin(angle * rng.integers(2, 14) + rng.uniform(0, 6)) * np.exp(-far / rng.uniform(8, 50))
    along = np.exp(-(((np.arange(classes.shape[0]) - z) / rng.uniform(3, 30)) ** 2))
    streaks: Field = (rng.uniform(40, 300) * along[:, None, None] * rays[None]).astype(np.float32)
    return streaks


def _field_of_view(rng: np.random.Generator, sample: Sample) -> Sample:
    """Cuts the volume as reconstructions and stacks do; what is outside reads as air and is background."""
    keep = np.ones(sample.hu.shape, bool)
    if rng.random() < 0.45:
        _slab(rng, keep)
    for axis in (1, 2):
        if rng.random() < 0.15:
            _cut(rng, keep, axis, 0.35)
    if rng.random() < 0.25:
        n = keep.shape[2]
        y, x = np.ogrid[: keep.shape[1], :n]
        keep &= (
            np.hypot(y - rng.uniform(0.2, 0.8) * n, x - rng.uniform(0.2, 0.8) * n)[None] < rng.uniform(0.45, 0.9) * n
        )
    return Sample(np.where(keep, sample.hu, np.float32(-1000)), np.where(keep, sample.classes, 0).astype(np.uint8))


def _slab(rng: np.random.Generator, keep: npt.NDArray[np.bool_]) -> None:
    """Keeps a few slices, often very few: a thin stack has little to see above and below."""
    count = int(rng.choice([rng.uniform(4, 18), rng.uniform(18, keep.shape[0])]))
    first = int(rng.integers(0, keep.shape[0] - count + 1))
    keep[:first], keep[first + count :] = False, False


def _cut(rng: np.random.Generator, keep: npt.NDArray[np.bool_], axis: int, most: float) -> None:
    count = int(rng.uniform(0, most) * keep.shape[axis])
    part = [slice(None)] * 3
    part[axis] = slice(0, count) if rng.random() < 0.5 else slice(keep.shape[axis] - count, None)
    keep[tuple(part)] = False


def to_ras(volume: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """(z, y, x) LPS to (x, y, z) RAS: a view."""
    return volume.transpose(2, 1, 0)[::-1, ::-1]


def scaled(hu: Field) -> Field:
    """HU to [0, 1], clipped, as the model's card says."""
    low, high = HU_FROM
    unit: Field = np.clip((hu - low) / (high - low), 0, 1).astype(np.float32)
    return unit


class Samples(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Endless samples from `start` on: image (1, x, y, z) float32 in [0, 1], classes (1, x, y, z) int64, RAS."""

    def __init__(self, seed: int, start: int, cache: Path) -> None:
        self.seed, self.start, self.cache = seed, start, cache

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        real = total_segmentator_example() if _real_is_there() else None
        index = self.start
        while True:
            sample = self._sample(index, real)
            image, classes = to_ras(scaled(sample.hu)), to_ras(sample.classes)
            yield torch.tensor(image.copy())[None], torch.tensor(classes.astype(np.int64))[None]
            index += 1

    def _sample(self, index: int, real: RealVolume | None) -> Sample:
        rng = np.random.default_rng([self.seed, 3, index])
        if real is not None and rng.random() < _REAL_SHARE:
            return scan(rng, real_sample(rng, real), blur=False)
        newest = index // _PER_PATIENT
        return scan(
            rng, phantom_sample(rng, self._patient(int(rng.integers(max(0, newest - 40), newest + 1)))), blur=True
        )

    def _patient(self, number: int) -> Labels:
        path = self.cache / f"patient-{self.seed}-{number}.npy"
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            np.save(path, training_patient(1000 * self.seed + number))
        patient: Labels = np.load(path, mmap_mode="r")
        return np.asarray(patient)


def _real_is_there() -> bool:
    from sample_data.real import REAL_DATA

    return (REAL_DATA / "nifti" / "totalsegmentator" / "example_ct_sm.nii.gz").exists()


__all__ = ["HU_FROM", "SPACING_MM", "WINDOW", "Sample", "Samples", "scaled", "to_ras"]
