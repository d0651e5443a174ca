"""A result as a DICOM file, the same bytes each time."""

from __future__ import annotations

import io

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.encoding.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.imaging.headers import odd_values_accepted


def to_part10_bytes(dataset: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """The Part 10 file (PS3.10 7.1) of a native data set; equal data sets give equal bytes."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    with odd_values_accepted():
        whole = Dataset()
        whole.update(dataset)
        whole.file_meta = meta
        whole.preamble = b"\0" * 128
        file = io.BytesIO()
        dcmwrite(file, whole, enforce_file_format=True)
    return file.getvalue()
