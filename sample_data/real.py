"""Real series for training and evaluation, when they are there. Nothing of them is kept in the repository."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from scipy import ndimage

from sample_data.canvas import Field
from sample_data.tissue import T

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Labels = npt.NDArray[np.uint8]

# TotalSegmentator's label numbers (version 2, task "total") by class of ours; see its README
_TOTAL: dict[int, tuple[int, ...]] = {
    1: tuple(range(10, 15)),
    2: (*range(25, 51), *range(69, 79), *range(91, 117)),
    4: (5,),
    5: (1,),
    6: (2, 3, 23, 24),
}
# What contrast medium may fill in it, by the phantom's tissue codes
_FILLED: dict[int, tuple[int, ...]] = {
    T.KIDNEY: (2, 3),
    T.BLOOD: (52,),
    T.VEIN: (63, 64),
    T.LIVER: (5,),
    T.SPLEEN: (1,),
    T.GUT: (6, 18, 19, 20),
}


@dataclass(frozen=True)
class RealVolume:
    """A CT in HU and, when there are any, labels; both (slice, row, column), slices from feet to head, LPS.

    `tissues` are the phantom's codes (`tissue.T`) of what contrast medium may fill, 0 elsewhere.

    `affine` is (4, 4) float64 from (slice, row, column) to LPS mm.
    """

    name: str
    hu: Field
    affine: npt.NDArray[np.float64]
    labels: Labels | None = None
    tissues: Labels | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)


def read_nifti(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """(x, y, z) float32 values and the (4, 4) RAS affine of a NIfTI-1 file with an sform."""
    content = gzip.decompress(path.read_bytes())
    shape = struct.unpack_from("<3h", content, 42)
    kind = {2: np.uint8, 4: np.int16, 16: np.float32}[struct.unpack_from("<h", content, 70)[0]]
    offset = int(struct.unpack_from("<f", content, 108)[0])
    affine = np.eye(4)
    affine[:3] = np.array(struct.unpack_from("<12f", content, 280)).reshape(3, 4)
    values = np.frombuffer(content, kind, count=int(np.prod(shape)), offset=offset)
    return values.reshape(shape, order="F").astype(np.float32), affine


def read_series(folder: Path, name: str) -> RealVolume:
    """Single-frame CT images with one orientation, ordered along their normal (PS3.3 C.7.6.2.1.1)."""
    images = [pydicom.dcmread(p) for p in sorted(folder.rglob("*.dcm"))]
    images = [d for d in images if d.get("Modality") == "CT" and "PixelSpacing" in d]
    along = np.array(images[0].ImageOrientationPatient, float)
    normal = np.cross(along[:3], along[3:])
    images.sort(key=lambda d: float(np.array(d.ImagePositionPatient, float) @ normal))
    hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in images])
    first, last = (np.array(d.ImagePositionPatient, float) for d in (images[0], images[-1]))
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / max(len(images) - 1, 1)
    affine[:3, 1] = along[3:] * float(images[0].PixelSpacing[0])
    affine[:3, 2] = along[:3] * float(images[0].PixelSpacing[1])
    affine[:3, 3] = first
    return RealVolume(name, np.maximum(hu, -1024).astype(np.float32), affine)


def total_segmentator_example() -> RealVolume:
    """TotalSegmentator's example CT with its reference labels as classes of ours."""
    folder = REAL_DATA / "nifti" / "totalsegmentator"
    hu, ras = read_nifti(folder / "example_ct_sm.nii.gz")
    numbers, _ = read_nifti(folder / "example_seg.nii.gz")
    # (x, y, z) right-anterior-superior becomes (z, y, x) left-posterior-superior by turning x and y round
    hu, numbers = (np.ascontiguousarray(a.transpose(2, 1, 0)[:, ::-1, ::-1]) for a in (hu, numbers))
    corner = ras @ (hu.shape[2] - 1, hu.shape[1] - 1, 0, 1)
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing[2], spacing[1], spacing[0]
    affine[:, 3] = -corner[0], -corner[1], corner[2], 1
    tissues = np.zeros(hu.shape, np.uint8)
    for code, labels in _FILLED.items():
        tissues[np.isin(numbers, labels)] = code
    return RealVolume("totalsegmentator-example", hu, affine, _classes(hu, numbers), tissues)


def _classes(hu: Field, numbers: npt.NDArray[np.float32]) -> Labels:
    labels = np.where(body_mask(hu), 3, 0).astype(np.uint8)
    for number, codes in _TOTAL.items():
        labels[np.isin(numbers, codes)] = number
    return labels


def body_mask(hu: Field) -> npt.NDArray[np.bool_]:
    """(slice, row, column) the largest piece above -300 HU without thin things (the couch), holes filled by slice."""
    dense = hu > -300
    opened = ndimage.binary_opening(dense, np.ones((1, 5, 5), bool))
    parts, count = ndimage.label(opened)
    if not count:
        return dense
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = ndimage.binary_dilation(parts == sizes.argmax(), np.ones((1, 3, 3), bool)) & dense
    return np.stack([_filled(s) for s in body])


def _filled(section: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Holes filled, after the sides where the field of view cuts the patient are closed."""
    rows = np.flatnonzero(section.any(axis=1))
    if not len(rows):
        return section
    closed = np.pad(section, 1)
    for edge in (closed[:, 0], closed[:, -1]):
        inner = (closed[:, 1] if edge is closed[:, 0] else closed[:, -2]).nonzero()[0]
        if len(inner):
            edge[inner[0] : inner[-1] + 1] = True
    filled: npt.NDArray[np.bool_] = ndimage.binary_fill_holes(closed)[1:-1, 1:-1]
    return filled
