"""Single images without a place in the patient, as radiography and ultrasound send them, and marks on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from tests.made_series import classic

CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
}


def f_plane(shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """A solid "F" of segment 1, (row, column) uint8, with a dot of segment 2: no flip or turn of it is itself."""
    rows, columns = shape
    plane = np.zeros((rows, columns), dtype=np.uint8)
    plane[rows // 8 : rows * 7 // 8, columns // 4 : columns // 4 + max(columns // 10, 1)] = 1
    plane[rows // 8 : rows // 8 + max(rows // 10, 1), columns // 4 : columns * 3 // 4] = 1
    plane[rows // 2 : rows // 2 + max(rows // 12, 1), columns // 4 : columns // 2] = 1
    plane[rows * 3 // 4 : rows * 3 // 4 + max(rows // 20, 1), columns * 3 // 4 : columns * 5 // 6] = 2
    return plane


def planes(shape: tuple[int, int, int], *, high: int = 3000, low: int = 200) -> npt.NDArray[np.uint16]:
    """(image, row, column): darker and brighter where the F's segments are, with a gradient so that none is alike."""
    marked = f_plane(shape[1:])
    every = np.zeros(shape, dtype=np.uint16)
    every += (np.indices(shape).sum(0) % 50).astype(np.uint16)
    return (every + np.array([low, high // 2, high], dtype=np.uint16)[marked]).astype(np.uint16)


def image(
    number: int = 1, shape: tuple[int, int] = (43, 29), *, modality: str = "DX", series: str = "x", **attributes: Any
) -> Dataset:
    """A single-frame image of 12 bits; `attributes` go over what is set here, None takes one out."""
    (d,) = classic(1, rows=shape[0], columns=shape[1], series=series, values=planes((1, *shape)).astype(np.int16))
    del d.ImagePositionPatient, d.ImageOrientationPatient, d.FrameOfReferenceUID, d.SliceThickness
    del d.RescaleSlope, d.RescaleIntercept, d.PixelSpacing
    d.Modality, d.SOPClassUID, d.InstanceNumber = modality, CLASSES[modality], number
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    d.SOPInstanceUID = f"{d.SOPInstanceUID}.{number}"
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    d.PixelRepresentation, d.BitsStored, d.HighBit = 0, 12, 11
    d.PatientOrientation, d.ImagerPixelSpacing = ["L", "F"], [0.2, 0.1]
    return _with(d, attributes)


def cine(frames: int = 3, shape: tuple[int, int] = (21, 35), **attributes: Any) -> Dataset:
    """A grey multi-frame ultrasound."""
    d = image(shape=shape, modality="US", ImagerPixelSpacing=None, PatientOrientation=None)
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    d.NumberOfFrames = frames
    d.PixelData = planes((frames, *shape)).astype("<u2").tobytes()
    return _with(d, attributes)


def coloured(number: int = 1, shape: tuple[int, int] = (43, 29), **attributes: Any) -> Dataset:
    """An ultrasound in RGB of 8 bits, as bright where the F is as `image` in 250 steps; red alone beside it."""
    d = image(number, shape, modality="US", ImagerPixelSpacing=None, PatientOrientation=None)
    grey = np.array([20, 120, 240], dtype=np.uint8)[f_plane(shape)]
    d.PixelData = np.stack([grey, np.where(grey > 20, grey, 0), np.where(grey > 20, grey, 0)], -1).tobytes()
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "RGB", 0
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit = 7
    return _with(d, attributes)


def _with(d: Dataset, attributes: dict[str, Any]) -> Dataset:
    for keyword, value in attributes.items():
        if value is None:
            d.pop(keyword, None)
        else:
            setattr(d, keyword, value)
    return d


def ultrasound_region(across_cm: float = 0.03, down_cm: float = 0.02) -> Dataset:
    """The one region of an image of tissue (PS3.3 C.8.5.5)."""
    region = Dataset()
    region.RegionSpatialFormat = 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = across_cm, down_cm
    return region
