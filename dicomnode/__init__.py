"""dicomnode: DICOM studies in, segmentations and reports back in the PACS."""

__version__ = "0.1.0"
