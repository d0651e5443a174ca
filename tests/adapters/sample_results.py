"""Result objects to deliver: small, whole Part 10 files with UIDs of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from dicomnode.domain.result import StoredResult

SOP_CLASSES = {"SR": Comprehensive3DSRStorage, "SEG": SegmentationStorage}


def sample_result(
    folder: Path,
    kind: str = "SR",
    *,
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
    payload_bytes: int = 0,
    study_instance_uid: str = "",
) -> tuple[Path, StoredResult]:
    """A file under `folder` and the record of it; `payload_bytes` makes it as large as wanted."""
    dataset = _dataset(kind, payload_bytes)
    if study_instance_uid:
        dataset.StudyInstanceUID = study_instance_uid
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dcmwrite(path, dataset, enforce_file_format=True)
    content = path.read_bytes()
    return path, StoredResult(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        path=path.name,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _dataset(kind: str, payload_bytes: int) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SOP_CLASSES[kind]
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = kind
    dataset.PatientID = "TEST-1"
    dataset.PatientName = "Test^Müller"
    dataset.StudyDate, dataset.StudyTime = "20260101", "120000"
    dataset.StudyID, dataset.AccessionNumber = "1", "A1"
    dataset.SeriesNumber, dataset.InstanceNumber = 900, 1
    item = Dataset()
    item.ValueType = "CONTAINER"
    item.ContinuityOfContent = "SEPARATE"
    dataset.ContentSequence = [item]
    if payload_bytes:
        dataset.EncapsulatedDocument = bytes(payload_bytes)
    return dataset
