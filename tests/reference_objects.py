"""Segmentations and reports of other makers (../shared/data/seg_sr): what they say to us, and to their makers.

Their makers' programs are dcmqi's and highdicom, of whom most of these objects are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread

from dicomnode.encoding.check import groups_of
from dicomnode.encoding.content_items import code_of
from dicomnode.imaging.headers import items, odd_values_accepted, text, whole
from tests import dcmqi_readers
from tests.dcmqi_readers import Volume
from tests.round_trip import Planes, frames_in_patient

# File below seg_sr → what it is
SEGMENTATIONS: Mapping[str, str] = {
    "dcmqi-24x38x3/seg/label.seg": "dcmqi, BINARY, 38 × 24 pixels",
    "dcmqi-liver/seg/liver.dcm": "dcmqi, BINARY, a liver",
    "dcmqi-liver/seg/partial_overlaps.dcm": "dcmqi, BINARY, overlapping",
    "dcmqi-sr-example/seg.dcm": "dcmqi, BINARY, of PET",
    "highdicom/seg_image_ct_binary.dcm": "highdicom, BINARY",
    "highdicom/seg_image_ct_binary_overlap.dcm": "highdicom, BINARY, overlapping",
    "highdicom/seg_image_ct_true_fractional.dcm": "highdicom, FRACTIONAL",
    "qin-headneck-0139-seg/mask/mask.dcm": "Iowa2DICOM, BINARY, head and neck",
}
REPORTS: Mapping[str, str] = {
    "dcmqi-liver/sr/dcmqi/result.dcm": "dcmqi, Enhanced SR",
    "dcmqi-liver/sr/rsna2018_dataset1/sr-tid1500-ct-liver-example.dcm": "dcmqi of an older version, Enhanced SR",
    "dcmqi-sr-example/sr.dcm": "dcmqi, Comprehensive SR",
    "qin-headneck-0139-sr/Measurements_User2_SemiAuto_Trial2.dcm": "Iowa2DICOM, Comprehensive SR",
}
_Said = tuple[str, int | None, list[tuple[str, str, float]]]


def voxels_alike(file: Path, folder: Path) -> dict[str, tuple[int, int]]:
    """Reader → (segments, voxels) that lie for it where they do for us; fails where one lies elsewhere."""
    with odd_values_accepted():
        dataset = dcmread(file)
        ours = frames_in_patient(dataset)
    described = [whole(segment, "SegmentNumber") for segment in items(dataset, "SegmentSequence")]
    fractional = text(dataset, "SegmentationType") == "FRACTIONAL"
    found = {}
    for reader, theirs in (("dcmqi", _by_dcmqi(file, folder, fractional)), ("highdicom", _by_highdicom(file))):
        assert sorted(theirs) == described, f"{reader} finds other segments"
        for number, volume in theirs.items():
            placed = in_grid_of(volume, ours.get(number, []))
            np.testing.assert_array_equal(placed, volume.values, f"{reader}, segment {number}")
        found[reader] = (len(theirs), sum(int(np.count_nonzero(v.values)) for v in theirs.values()))
    return found


def _by_dcmqi(file: Path, folder: Path, fractional: bool) -> dict[int, Volume]:
    return {
        number: Volume(volume.values if fractional else volume.values == number, volume.affine, {})
        for volume in dcmqi_readers.segmentation(file, folder)
        for number in volume.segments
    }


def _by_highdicom(file: Path) -> dict[int, Volume]:
    with odd_values_accepted():
        segmentation = hd.seg.segread(file)
        found = segmentation.get_volume(rescale_fractional=False)
    numbers = list(segmentation.segment_numbers)
    return {number: Volume(found.array[..., n], found.affine, {}) for n, number in enumerate(numbers)}


def in_grid_of(volume: Volume, frames: Planes) -> npt.NDArray[Any]:
    """Our frames' values (slice, row, column) at the voxels of a volume of another reader; each has to lie on one."""
    found = np.zeros(volume.values.shape, int)
    inverse = np.linalg.inv(volume.affine)
    for affine, plane in frames:
        where = np.argwhere(plane > 0)
        places = np.column_stack([where @ affine[:, :2].T + affine[:, 2], np.ones(len(where))])
        index = places @ inverse[:3].T
        whole_index = np.rint(index).astype(int)
        np.testing.assert_allclose(index, whole_index, atol=0.01)
        found[tuple(whole_index.T)] = plane[tuple(where.T)]
    return found


def measurements_alike(file: Path, folder: Path) -> int:
    """How many measurements say the same to us and to dcmqi: of what, how much, in which unit, of which segment."""
    with odd_values_accepted():
        ours = [_said(group) for group in groups_of(dcmread(file))]
    theirs = [
        (
            group["TrackingUniqueIdentifier"],
            group.get("ReferencedSegment"),
            [
                (m["quantity"]["CodeValue"], m["units"]["CodeValue"], float(m["value"]))
                for m in group["measurementItems"]
            ],
        )
        for group in dcmqi_readers.report(file, folder)["Measurements"]
    ]
    assert ours == theirs
    return sum(len(measured) for _, _, measured in ours)


def _said(group: Dataset) -> _Said:
    """(Tracking UID, segment, (code, unit, value) of each number) of a measurement group of TID 1500."""
    content = items(group, "ContentSequence")
    tracking = next(str(item.UID) for item in content if code_of(item) == ("112040", "DCM"))
    references = [r for item in content for r in items(item, "ReferencedSOPSequence")]
    segment = next((whole(r, "ReferencedSegmentNumber") for r in references if "ReferencedSegmentNumber" in r), None)
    measured = [
        (
            code_of(item)[0],
            code_of(item.MeasuredValueSequence[0], "MeasurementUnitsCodeSequence")[0],
            float(item.MeasuredValueSequence[0].NumericValue),
        )
        for item in content
        if text(item, "ValueType") == "NUM"
    ]
    return tracking, segment, measured
