"""Writes scans as DICOM files with the headers a scanner gives them (PS3.3 A.3, A.38)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from dicomnode.domain.identifiers import deterministic_uid
from sample_data.protocols import Protocol
from sample_data.scanner import Scan

PADDING = -2000
INTERCEPT = -1024


@dataclass(frozen=True)
class StudyUids:
    """The UIDs of a study, the same each time for a protocol and seed."""

    protocol: str
    seed: int

    def uid(self, *parts: str) -> str:
        return deterministic_uid("sample_data", self.protocol, str(self.seed), *parts)

    @property
    def study(self) -> str:
        return self.uid("study")


def new_instance(uids: StudyUids, series: str, number: int, sop_class: str) -> Dataset:
    """Patient, study, equipment and SOP common; the file meta information."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), UID(uids.uid(series, str(number)))
    _patient_and_study(ds, uids)
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids.uid(series), uids.uid("frame of reference")
    ds.Modality, ds.PositionReferenceIndicator, ds.PatientPosition = "CT", "", "HFS"
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.StudyDate
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.Manufacturer, ds.ManufacturerModelName = "dicomnode", "sample_data phantom CT"
    ds.DeviceSerialNumber, ds.SoftwareVersions, ds.InstitutionName = "0001", "1.0", "SAMPLE HOSPITAL"
    ds.InstanceNumber = number
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _patient_and_study(ds: Dataset, uids: StudyUids) -> None:
    ds.PatientName, ds.PatientID = "DICOMNODE^SAMPLE", f"SAMPLE{uids.seed:04d}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600229", "O", "065Y"
    ds.StudyInstanceUID, ds.StudyDate, ds.StudyTime = uids.study, f"202511{uids.seed % 28 + 1:02d}", "101000"
    ds.StudyID, ds.AccessionNumber = str(uids.seed), f"S{uids.seed:06d}"
    ds.ReferringPhysicianName, ds.StudyDescription = "", "CT SAMPLE"


def axial_images(scan: Scan, protocol: Protocol, uids: StudyUids) -> list[Dataset]:
    """One CT Image a slice, in acquisition order (instance numbers 1, 2, ...)."""
    order = range(len(scan.hu))
    return [
        _axial(scan, protocol, uids, i, n + 1) for n, i in enumerate(reversed(order) if protocol.feet_last else order)
    ]


def _axial(scan: Scan, protocol: Protocol, uids: StudyUids, index: int, number: int) -> Dataset:
    ds = new_instance(uids, "axial", number, CTImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.SeriesDescription = 2, 1, protocol.description
    _plane(ds, scan, index)
    ds.SliceThickness, ds.SliceLocation = _ds(protocol.thickness_mm), ds.ImagePositionPatient[2]
    ds.GantryDetectorTilt = _ds(protocol.tilt_degrees)
    _technique(ds, protocol)
    stored = scan.hu[index] - np.int16(INTERCEPT)
    if protocol.padded:
        stored[~scan.seen] = PADDING
        ds.PixelPaddingValue = PADDING
    set_pixels(ds, stored)
    return ds


def _plane(ds: Dataset, scan: Scan, index: int) -> None:
    """Image Plane Module (PS3.3 C.7.6.2)."""
    affine = scan.geometry.affine
    row, column = scan.spacing_mm[1], scan.spacing_mm[2]
    ds.PixelSpacing = [_ds(row), _ds(column)]
    ds.ImageOrientationPatient = [_ds(v) for v in (*(affine[:3, 2] / column), *(affine[:3, 1] / row))]
    ds.ImagePositionPatient = [_ds(v) for v in affine[:3, 3] + index * affine[:3, 0]]


def _technique(ds: Dataset, protocol: Protocol) -> None:
    """CT Image and Contrast/Bolus Modules (PS3.3 C.8.2.1, C.7.6.4)."""
    ds.BodyPartExamined, ds.ProtocolName = protocol.body_part, protocol.name.upper()
    ds.KVP, ds.ExposureTime, ds.XRayTubeCurrent, ds.Exposure = "120", 600, 250, 150
    ds.ScanOptions, ds.ConvolutionKernel, ds.FilterType = "HELICAL MODE", protocol.kernel, "BODY FILTER"
    ds.ReconstructionDiameter, ds.DataCollectionDiameter = _ds(protocol.matrix * protocol.pixel_mm), "500"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = ("-600", "1500") if protocol.kernel == "LUNG" else ("40", "400")
    if protocol.phase != "none":
        ds.ContrastBolusAgent, ds.ContrastBolusRoute = "IODINATED CONTRAST", "IV"


def set_pixels(ds: Dataset, stored: npt.NDArray[np.int16]) -> None:
    """Image Pixel Module (PS3.3 C.7.6.3) from (row, column) or (frame, row, column) int16."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelData = np.ascontiguousarray(stored, "<i2").tobytes()
    ds["PixelData"].VR = "OW"


def localizer(scan: Scan, protocol: Protocol, uids: StudyUids) -> Dataset:
    """A frontal scout: the mean along the rays from front to back."""
    ds = new_instance(uids, "localizer", 1, CTImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.SeriesDescription = 1, 1, "SCOUT"
    affine = scan.geometry.affine
    top = affine[:3, 3] + (len(scan.hu) - 1) * affine[:3, 0]
    ds.PixelSpacing = [_ds(scan.spacing_mm[0]), _ds(scan.spacing_mm[2])]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    ds.ImagePositionPatient = [_ds(top[0]), _ds(top[1] + 200), _ds(top[2])]
    ds.SliceThickness = ""
    _technique(ds, protocol)
    del ds.RescaleType
    projection = np.clip(scan.hu, -1000, 2000).mean(axis=1)[::-1] + 700
    set_pixels(ds, (projection - INTERCEPT).astype(np.int16))
    return ds


def save(ds: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2, VR DS)."""
    return f"{round(float(value), 6) + 0.0:.10g}"
