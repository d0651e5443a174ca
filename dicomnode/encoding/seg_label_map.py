"""Other ways to write a label map as a segmentation: as it is (PS3.3 A.51, LABELMAP), or as a stack without gaps."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from dicomnode.encoding.findings import Findings
from dicomnode.encoding.seg import encode_masks, skeleton_of
from dicomnode.encoding.seg_file import SegFile
from dicomnode.encoding.seg_frames import LabelFrames
from dicomnode.imaging.headers import odd_values_accepted

KIND = "SEG-LABELMAP"


def encode_label_map(findings: Findings) -> Dataset:
    """One frame for each slice that has a segment, a byte a pixel: its segment's number, or 0."""
    plan, labels = findings.plan, findings.labels
    with odd_values_accepted():
        uids = findings.uids(KIND)
        segmentation, slices = skeleton_of(
            findings.slices,
            KIND,
            findings.sources(),
            uids,
            plan,
            findings.card,
            findings.made,
            findings.further,
        )
        _, segmentation.Rows, segmentation.Columns = labels.shape
        pixels = np.concatenate([labels[k].ravel() for k in slices]).tobytes()
        segmentation.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return segmentation


def encode_full(findings: Findings) -> SegFile:
    """BINARY, with the empty frames too of each segment that was found."""
    file = encode_masks(
        LabelFrames(findings.labels), findings.plan, findings.card, findings.made, findings.further, every_frame=True
    )
    assert file is not None  # forms are made of what was found
    return file
