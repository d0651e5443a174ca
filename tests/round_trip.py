"""Every kind of segmentation of a series, and what each reader of it finds where in the patient.

Readers: highdicom, dcmqi's programs, and the node's own reading of frames. Of structure sets, which neither of the
two others reads, contours are filled by the even-odd rule.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread

from dicomnode.encoding.findings import Findings
from dicomnode.encoding.forms import encode_form
from dicomnode.encoding.results import encode_map_results, encode_results
from dicomnode.errors import CannotDecode
from dicomnode.imaging.decode import plan_instances, read_volume
from dicomnode.imaging.frames import frames_of
from dicomnode.imaging.headers import items, odd_values_accepted, read_instances, whole
from dicomnode.imaging.measure import measure, measure_masks
from dicomnode.imaging.volume import VolumePlan
from tests import dcmqi_readers
from tests.dcmqi_readers import Volume, onto
from tests.made_outputs import BOTH, MAP, OVERLAP, exclusive, overlapping, values
from tests.made_results import CARD, MADE, two_fs

Array = npt.NDArray[Any]
Planes = list[tuple[npt.NDArray[np.float64], Array]]  # ((row, column, 1) to LPS mm, pixels) of frames

# Folder of ../shared/data → what it is
SERIES: Mapping[str, str] = {
    "ct/crlm-1004": "CT, abdomen",
    "ct/lidc-0002-part": "CT, chest",
    "seg_sr/dcmqi-liver/ct-3slice": "CT, three slices",
    "seg_sr/dcmqi-24x38x3/image": "CT, 38 × 24 pixels",
    "multi/sts_002/ct/image": "CT, 143 × 161 pixels",
    "mr/qin-prostate-adc/pm-example-dcm.zip": "MR, oblique",
    "mr/t1-j2k-multifragment": "MR, sagittal, JPEG 2000",
    "multi/sts_002/mr_t1/image": "MR, 90 × 115 pixels",
    "multi/sts_002/pet/image": "PET, 27 × 30 pixels",
    "broken/dcmjs": "Enhanced MR, sagittal, a VR of a wrong length",
    "seg_sr/dcmqi-24x38x3/multiframe": "Legacy Converted Enhanced CT",
}
KINDS = ("SEG", "SEG-FULL", "SEG-LABELMAP", "SEG overlapping", "SEG-PROB", "MAP", "RTSTRUCT")
_NOT_IMAGES = frozenset({"LICENSE", "README.md"})
_TILT_LEAST = 0.05  # degrees; less is rounding


@dataclass(frozen=True, eq=False)
class Made:
    """`content`, the file; `wanted`, (segment, slice, row, column) in the plan's grid of what it was made from."""

    kind: str
    content: bytes
    wanted: Array


def series(place: Path, scratch: Path) -> tuple[VolumePlan, npt.NDArray[np.int16]]:
    """(plan, stored values) of the images in a folder, or in a ZIP."""
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as archive:
            archive.extractall(scratch)
        place = scratch
    instances = []
    for file in sorted(p for p in place.rglob("*") if p.is_file() and p.name not in _NOT_IMAGES):
        with suppress(CannotDecode):
            instances += read_instances([file])
    plan = plan_instances(instances)
    stored = np.empty(plan.geometry.shape, np.int16)
    read_volume(plan, instances, stored)
    return plan, stored


# ------------------------------------------------------------------------------------------------------------ making


def made(plan: VolumePlan, stored: npt.NDArray[np.int16]) -> Iterator[Made]:
    """Every kind of `KINDS`, of masks that are an F in three dimensions: all that passed the gate."""
    shape = plan.geometry.shape
    labels = two_fs(shape)
    each = np.stack([labels == 1, labels == 2])
    statistics = measure(labels, stored, plan.geometry, plan.rescale, [1, 2])
    seg, _ = encode_results(labels, statistics, plan, CARD, MADE)
    yield Made("SEG", bytes(seg.content), each)
    with odd_values_accepted():
        header = dcmread(io.BytesIO(seg.content), stop_before_pixels=True)
    findings = Findings(labels, stored, statistics, plan, CARD, MADE, header)
    for kind in ("SEG-FULL", "SEG-LABELMAP", "RTSTRUCT"):
        (one,) = encode_form(findings, kind)
        yield Made(kind, bytes(one.content), each)
    masks = overlapping(shape)
    yield Made("SEG overlapping", _of_masks(masks, "SEG", plan, OVERLAP), np.stack([masks.of(1), masks.of(2)]))
    masks = exclusive(shape)
    assert masks.probabilities is not None
    yield Made("SEG-PROB", _of_masks(masks, "SEG-PROB", plan, BOTH), masks.probabilities)
    numbers = values(shape)
    (one, _) = encode_map_results(numbers, plan, MAP, replace(MADE, model_digest="cd" * 32))
    yield Made("MAP", bytes(one.content), numbers[np.newaxis])


def _of_masks(masks: Any, kind: str, plan: VolumePlan, card: Any) -> bytes:
    statistics = measure_masks(masks, np.zeros(plan.geometry.shape, np.int16), plan.geometry, plan.rescale, [1, 2])
    return next(bytes(r.content) for r in encode_results(masks, statistics, plan, card, MADE) if r.kind == kind)


# ----------------------------------------------------------------------------------------------------------- readers


def by_highdicom(one: Made, plan: VolumePlan, folder: Path) -> Array | None:
    if one.kind == "RTSTRUCT":
        return None
    file = io.BytesIO(one.content)
    with odd_values_accepted():
        if one.kind == "MAP":
            values_found = hd.imread(file).get_volume(apply_real_world_transform=True, dtype=np.float32)
            return _onto(values_found.array[np.newaxis], values_found.affine, plan)
        found = hd.seg.segread(file).get_volume(segment_numbers=[1, 2], rescale_fractional=False)
    return _onto(np.moveaxis(found.array, -1, 0), found.affine, plan)


def by_dcmqi(one: Made, plan: VolumePlan, folder: Path) -> Array | None:
    """None of what it has no program for, and of slices that are shifted against each other."""
    if one.kind == "RTSTRUCT" or abs(plan.geometry.tilt_degrees) > _TILT_LEAST:
        return None
    file = folder / "object.dcm"
    file.write_bytes(one.content)
    if one.kind == "MAP":
        volume, _ = dcmqi_readers.parametric_map(file, folder / "read")
        return _onto(volume.values[np.newaxis], volume.affine, plan)
    found = np.zeros((2, *plan.geometry.shape), np.uint8)
    for volume in dcmqi_readers.segmentation(file, folder / "read"):
        there = onto(volume, plan.geometry.affine, plan.geometry.shape)
        for number in volume.segments:  # of probabilities each has a volume of its own
            found[number - 1] = there if one.kind == "SEG-PROB" else there == number
    return found


def by_the_node(one: Made, plan: VolumePlan, folder: Path) -> Array:
    with odd_values_accepted():
        dataset = dcmread(io.BytesIO(one.content))
        if one.kind == "RTSTRUCT":
            return filled_contours(dataset, plan)
        found = {segment: _stacked(planes, plan) for segment, planes in frames_in_patient(dataset).items()}
    if one.kind == "MAP":
        return found[None][np.newaxis]
    if None in found:
        return np.stack([found[None] == number for number in (1, 2)])
    return np.stack([found[number] for number in (1, 2)])


def _stacked(planes: Planes, plan: VolumePlan) -> Array:
    """(slice, row, column); fails where two planes are of one slice."""
    found = np.zeros(plan.geometry.shape, planes[0][1].dtype)
    for affine, pixels in planes:
        there = onto(Volume(pixels[np.newaxis], _of_slice(affine), {}), plan.geometry.affine, plan.geometry.shape)
        assert not ((found != 0) & (there != 0)).any()
        found[there != 0] = there[there != 0]
    return found


READERS: Mapping[str, Callable[[Made, VolumePlan, Path], Array | None]] = {
    "highdicom": by_highdicom,
    "dcmqi": by_dcmqi,
    "the node": by_the_node,
}


def _onto(each: Array, affine: npt.NDArray[np.float64], plan: VolumePlan) -> Array:
    return np.stack([onto(Volume(one, affine, {}), plan.geometry.affine, plan.geometry.shape) for one in each])


def _of_slice(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(slice, row, column, 1) to LPS mm of one plane by itself."""
    whole_affine = np.eye(4)
    whole_affine[:3, 1:] = affine
    whole_affine[:3, 0] = np.cross(affine[:, 1], affine[:, 0])
    return whole_affine


def frames_in_patient(dataset: Dataset) -> dict[int | None, Planes]:
    """Segment, None of a label map or a map → its frames, where imaging.frames puts them."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    found: dict[int | None, Planes] = {}
    planes = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    groups = dataset.PerFrameFunctionalGroupsSequence
    for frame, group, pixels in zip(frames_of([dataset], [0]), groups, planes, strict=True):
        named = items(group, "SegmentIdentificationSequence") or items(shared, "SegmentIdentificationSequence")
        number = whole(named[0], "ReferencedSegmentNumber") if named else None
        along = np.array(frame.orientation).reshape(2, 3)
        affine = np.column_stack(
            [along[1] * frame.spacing_mm[0], along[0] * frame.spacing_mm[1], np.array(frame.position_mm)]
        )
        found.setdefault(number, []).append((affine, pixels))
    return found


def filled_contours(dataset: Dataset, plan: VolumePlan) -> Array:
    """(region, slice, row, column): voxels whose centre an odd number of a slice's contours go round."""
    found = np.zeros((len(dataset.ROIContourSequence), *plan.geometry.shape), np.uint8)
    inverse = np.linalg.inv(plan.geometry.affine)
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            index = points @ inverse[:3, :3].T + inverse[:3, 3]
            k = round(float(index[:, 0].mean()))
            found[roi.ReferencedROINumber - 1, k] ^= _inside(index[:, 1:], plan.geometry.shape[1:])
    return found


def _inside(polygon: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(row, column) 1 where a ray along the row from a pixel's centre crosses the polygon an odd number of times."""
    crossings = np.zeros((shape[0], shape[1] + 1), np.uint8)
    for (row_a, column_a), (row_b, column_b) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        low, high = sorted((row_a, row_b))
        for row in range(max(0, int(np.ceil(low))), min(shape[0], int(np.ceil(high)))):
            column = column_a + (row - row_a) * (column_b - column_a) / (row_b - row_a)
            crossings[row, min(max(int(np.ceil(column)), 0), shape[1])] ^= 1
    return np.bitwise_xor.accumulate(crossings[:, :-1], axis=1)
