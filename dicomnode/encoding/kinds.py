"""The SOP class of each kind of result."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicomnode.encoding.check import LABEL_MAP_SEGMENTATION_STORAGE

SOP_CLASSES: Mapping[str, str] = {
    "SEG": SegmentationStorage,
    "SEG-PROB": SegmentationStorage,
    "MAP": ParametricMapStorage,
    "SR": Comprehensive3DSRStorage,
    "SEG-LABELMAP": LABEL_MAP_SEGMENTATION_STORAGE,
    "SEG-FULL": SegmentationStorage,
    "RTSTRUCT": RTStructureSetStorage,
    "GSPS": GrayscaleSoftcopyPresentationStateStorage,
    "SC": SecondaryCaptureImageStorage,
    "PDF": EncapsulatedPDFStorage,
    "KO": KeyObjectSelectionDocumentStorage,
}
