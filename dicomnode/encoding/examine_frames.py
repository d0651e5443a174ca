"""What can be wrong in the frames of a segmentation or a parametric map, seen by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from pydicom import Dataset

from dicomnode.encoding.check_frames import FRAMES
from dicomnode.encoding.examine_values import is_encapsulated
from dicomnode.imaging.frames import number_of_frames
from dicomnode.imaging.headers import items, numbers, text, value, whole

_BITS = {"BINARY": (1,), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}  # PS3.3 C.8.20.2
_SHOWN = 3


def wrong_segments(dataset: Dataset) -> Iterator[str]:
    """Of a segmentation: its type, its segments, and the segment of each frame (PS3.3 C.8.20)."""
    kind, bits = text(dataset, "SegmentationType"), whole(dataset, "BitsAllocated")
    if kind not in _BITS:
        yield f"SegmentationType {kind!r} is none of {', '.join(_BITS)}"
        return
    if bits not in _BITS[kind]:
        yield f"{bits} bits a pixel do not go with a segmentation of type {kind}"
    if kind == "FRACTIONAL" and text(dataset, "SegmentationFractionalType") not in ("PROBABILITY", "OCCUPANCY"):
        yield "SegmentationFractionalType is neither PROBABILITY nor OCCUPANCY"
    found = [whole(segment, "SegmentNumber") for segment in items(dataset, "SegmentSequence")]
    if kind != "LABELMAP" and found != list(range(1, len(found) + 1)):
        yield f"segments are numbered {_listed(found)}, not 1, 2, … (PS3.3 C.8.20.4)"
    if len(set(found)) < len(found):
        yield "two segments have the same number"
    yield from _undescribed_pixels(dataset, set(found)) if kind == "LABELMAP" else _wrong_frames(dataset, set(found))


def _wrong_frames(dataset: Dataset, described: set[int | None]) -> Iterator[str]:
    unknown: Counter[int | None] = Counter()
    shared = (items(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for group in items(dataset, FRAMES):
        macros = items(group, "SegmentIdentificationSequence") or items(shared, "SegmentIdentificationSequence")
        segment = whole(macros[0], "ReferencedSegmentNumber") if macros else None
        if segment is None or segment not in described:
            unknown[segment] += 1
    for segment, count in unknown.items():
        yield f"{count} frames are of segment {segment}, which is not described"


def _undescribed_pixels(dataset: Dataset, described: set[int | None]) -> Iterator[str]:
    pixels = dataset.get("PixelData")
    if not isinstance(pixels, bytes) or is_encapsulated(dataset):
        return
    kind = "<u2" if whole(dataset, "BitsAllocated") == 16 else "u1"
    seen = np.unique(np.frombuffer(pixels[: len(pixels) // 2 * 2], kind))
    padding = whole(dataset, "PixelPaddingValue")
    if unknown := [int(number) for number in seen if number not in described | {padding}]:
        yield f"pixels are of segment {_listed(unknown)}, not described"


def wrong_groups(dataset: Dataset) -> Iterator[str]:
    """The functional groups: one a frame, each with its place and its indices (PS3.3 C.7.6.16, C.7.6.17)."""
    groups, frames = items(dataset, FRAMES), number_of_frames(dataset)
    if len(groups) != frames:
        yield f"NumberOfFrames is {frames}, but {len(groups)} frames are described"
    shared = (items(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    indices = len(items(dataset, "DimensionIndexSequence"))
    lacks: dict[str, list[int]] = {}
    for number, group in enumerate(groups, 1):
        for lack in _lacks(group, shared, indices, placed=_is_placed(dataset)):
            lacks.setdefault(lack, []).append(number)
    for lack, where in lacks.items():
        yield f"frame {_listed(where)} {lack}"


def _is_placed(dataset: Dataset) -> bool:
    """In a patient; slides are placed otherwise, and projections have no place (PS3.3 C.8.20.3)."""
    return "FrameOfReferenceUID" in dataset and "TotalPixelMatrixColumns" not in dataset


def _lacks(group: Dataset, shared: Dataset, indices: int, *, placed: bool) -> Iterator[str]:
    content = items(group, "FrameContentSequence")
    values = value(content[0], "DimensionIndexValues", []) if content else []
    count = len(values) if hasattr(values, "__len__") else 1
    if count != indices:
        yield f"has {count} DimensionIndexValues, there are {indices} dimensions"
    if not placed:
        return
    for macro, keyword, size in (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    ):
        found = items(group, macro) or items(shared, macro)
        if not found or numbers(found[0], keyword, size) is None:
            yield f"has no valid {keyword}"


def _listed(found: list[int] | list[int | None]) -> str:
    shown = ", ".join(map(str, found[:_SHOWN]))
    return shown if len(found) <= _SHOWN else f"{shown} and {len(found) - _SHOWN} more"
