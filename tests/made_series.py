"""Small DICOM series with known pixels in known places, for tests of imaging and encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.headers import Instance, read_instances
from dicomnode.imaging.volume import VolumePlan

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
# 20 degrees about the first axis, then 10 about the third: oblique in every way
OBLIQUE = (0.984807753, 0.173648178, 0.0, -0.163175911, 0.925416578, 0.342020143)

_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def pixels(shape: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """(slice, row, column) int16, no two slices alike."""
    s, r, c = np.indices(shape)
    return (100 * s + 7 * r + c - 50).astype(np.int16)


def f_mask(shape: tuple[int, int, int], label: int = 1) -> npt.NDArray[np.uint8]:
    """A solid "F", (slice, row, column) uint8: no flip, turn or swap of axes of it is itself."""
    mask = np.zeros(shape, dtype=np.uint8)
    slices, rows, columns = shape
    mask[: slices - 1, 1 : rows - 1, 2:4] = label
    mask[: slices - 1, 1:3, 2 : columns - 2] = label
    mask[: slices // 2, rows // 2, 2 : columns // 2] = label
    mask[0, rows - 2, columns - 2] = label
    return mask


def positions(
    count: int,
    *,
    orientation: Sequence[float] = AXIAL,
    step_mm: float = 2.5,
    tilt_degrees: float = 0.0,
    origin: Sequence[float] = (-100.0, -80.5, 30.25),
) -> list[list[float]]:
    """Of the first pixels of `count` slices along row × column; a tilt shifts them along the columns."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = step_mm * np.cross(row, column) + step_mm * np.tan(np.radians(tilt_degrees)) * column
    return [[round(float(v), 6) for v in np.array(origin) + k * step] for k in range(count)]


def classic(
    count: int = 5,
    *,
    rows: int = 12,
    columns: int = 16,
    modality: str = "CT",
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.8, 0.8),
    step_mm: float = 2.5,
    tilt_degrees: float = 0.0,
    values: npt.NDArray[Any] | None = None,
    series: str = "a",
    **attributes: Any,
) -> list[Dataset]:
    """A series of single-frame images, in slice order; `attributes` go over what is set here."""
    values = pixels((count, rows, columns)) if values is None else values
    places = positions(count, orientation=orientation, step_mm=step_mm, tilt_degrees=tilt_degrees)
    made = []
    for k in range(count):
        d = _base(_CLASSES[modality], modality, series, f"{series}{k}")
        d.InstanceNumber = k + 1
        d.ImagePositionPatient = places[k]
        d.ImageOrientationPatient = list(orientation)
        d.PixelSpacing = list(spacing)
        d.SliceThickness = step_mm
        if modality == "CT":
            d.RescaleSlope, d.RescaleIntercept = 1, -1000
        _set_pixels(d, values[k])
        for keyword, value in attributes.items():
            setattr(d, keyword, value)
        made.append(d)
    return made


def enhanced(
    count: int = 5,
    *,
    rows: int = 12,
    columns: int = 16,
    modality: str = "CT",
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.8, 0.8),
    step_mm: float = 2.5,
    order: Sequence[int] | None = None,
    values: npt.NDArray[Any] | None = None,
    series: str = "e",
    name: str = "0",
    first: int = 0,
) -> Dataset:
    """One multi-frame instance; `order` is the slice that each frame is of; `first` slices are left to another."""
    values = pixels((count, rows, columns)) if values is None else values
    places = positions(first + count, orientation=orientation, step_mm=step_mm)[first:]
    order = range(count) if order is None else order
    d = _base(EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage, modality, series, series + name)
    d.InstanceNumber = 1
    d.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    d.NumberOfFrames = len(order)
    measures, plane, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(spacing), step_mm
    plane.ImageOrientationPatient = list(orientation)
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1000, "HU" if modality == "CT" else "US"
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [rescale]
    d.SharedFunctionalGroupsSequence = [shared]
    d.PerFrameFunctionalGroupsSequence = [_frame_groups(places[k], number) for number, k in enumerate(order, 1)]
    _set_pixels(d, values[list(order)])
    return d


def _frame_groups(place: Sequence[float], number: int) -> Dataset:
    group, position, content = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = list(place)
    content.FrameAcquisitionNumber, content.StackID, content.InStackPositionNumber = 1, "1", number
    group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
    return group


def _base(sop_class_uid: str, modality: str, series: str, instance: str) -> Dataset:
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SpecificCharacterSet = "ISO_IR 100"
    d.SOPClassUID = sop_class_uid
    d.SOPInstanceUID = deterministic_uid("test", instance)
    d.StudyInstanceUID = deterministic_uid("test study")
    d.SeriesInstanceUID = deterministic_uid("test series", series)
    d.FrameOfReferenceUID = deterministic_uid("test frame of reference")
    d.PositionReferenceIndicator = ""
    d.Modality = modality
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.PatientName, d.PatientID = "Müller^Jörg", "P-1"
    d.PatientBirthDate, d.PatientSex = "19600229", "M"
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber = "20260102", "101112", "1", "A-1"
    d.ReferringPhysicianName = "Weiß^Anna"
    d.SeriesNumber = 4
    d.Manufacturer = "Maker"
    return d


def _set_pixels(d: Dataset, values: npt.NDArray[Any]) -> None:
    *_, d.Rows, d.Columns = values.shape
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.PixelRepresentation = int(values.dtype.kind == "i")
    d.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()


def write(series: Sequence[Dataset], folder: Path, name: Callable[[int], str] = "{:03d}.dcm".format) -> list[Path]:
    """Part 10 files, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, d in enumerate(series):
        path = folder / name(k)
        d.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def read(paths: Sequence[Path]) -> tuple[VolumePlan, list[Instance], npt.NDArray[np.int16]]:
    """Planned and decoded."""
    instances = read_instances(paths)
    plan = plan_instances(instances)
    volume = np.full(plan.geometry.shape, 12345, dtype=np.int16)
    read_volume(plan, instances, volume)
    return plan, instances, volume
