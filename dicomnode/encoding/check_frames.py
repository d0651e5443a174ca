"""The frames of a segmentation: each of a segment that is described, and in the place of a slice of the source."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicomnode.encoding.check_dimensions import check_indices
from dicomnode.encoding.examine_terms import wrong_terms
from dicomnode.encoding.examine_values import wrong_codes
from dicomnode.encoding.refusal import POSITION_TOLERANCE_MM, check_uid, check_uids, is_empty, refuse
from dicomnode.imaging.headers import items, numbers, text, whole
from dicomnode.imaging.volume import VolumePlan

FRAMES = "PerFrameFunctionalGroupsSequence"
Found = TypeVar("Found")
Source = tuple[str, int | None, str]  # SOP Instance UID, frame number, SOP Class UID


def check_frames(segmentation: Dataset, plan: VolumePlan, pixel_bytes: int, *, of_segments: bool = True) -> None:
    """Raises NonConformant, naming the frame. `pixel_bytes`: the length of the pixel data (PS3.5 8.1.1).

    `of_segments`: whether each frame is one segment's; in a label map each has all of a slice.
    """
    groups = items(segmentation, FRAMES)
    check_length(segmentation, len(groups), pixel_bytes)
    shared = items(segmentation, "SharedFunctionalGroupsSequence")[0]
    described = len(items(segmentation, "SegmentSequence")) if of_segments else 1
    slices = {(f.sop_instance_uid, f.number): f for f in plan.frames}
    order = {source: k for k, source in enumerate(slices)}
    many = _multi_frame_uids(plan)
    classes = {text(header, "SOPInstanceUID"): text(header, "SOPClassUID") for header in plan.headers}
    segment_in = _Once("SegmentIdentificationSequence", lambda group: segment_of(group, shared) if of_segments else 1)
    sources_in = _SourcesOf()
    position_of = _Once("PlanePositionSequence", _position)
    places: dict[tuple[int, int], None] = {}
    for number, group in enumerate(groups, 1):
        segment = segment_in(group)
        if segment is None or not 1 <= segment <= described:
            refuse(f"frame {number} is of segment {segment}, which is not described")
        source, sop_class = _source(sources_in(group), number, many)
        if source not in slices:
            refuse(
                f"frame {number} comes from instance {source[0]} frame {source[1]}, which is no slice of the source"
            )
        if sop_class != classes[source[0]]:
            refuse(f"frame {number} comes from instance {source[0]} under another SOP class than that has")
        _check_place(position_of(group), slices[source].position_mm, number)
        if (place := (segment, order[source])) in places:
            refuse(f"frame {number} repeats segment {segment} of a slice")
        places[place] = None
    check_indices(segmentation, groups, list(places))


class _Once(Generic[Found]):
    """Reads an element of frames' items; of thousands most are equal byte for byte, and are read once."""

    def __init__(self, keyword: str, read: Callable[[Dataset], Found]) -> None:
        self._tag, self._read = Tag(keyword), read
        self._known: dict[bytes, Found] = {}

    def __call__(self, group: Dataset) -> Found:
        element = group.get_item(self._tag) if self._tag in group else None
        if not isinstance(element, RawDataElement) or element.value is None:  # made, not read
            return self._read(group)
        if element.value not in self._known:
            self._known[element.value] = self._read(group)
        return self._known[element.value]


class _SourcesOf:
    """As sources_of. What differs between the slices of a series is one UID; the rest is read once."""

    _element = struct.pack("<HH2s", 0x0008, 0x1155, b"UI")  # Referenced SOP Instance UID, up to its length

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], list[Source]] = {}

    def __call__(self, group: Dataset) -> list[Source]:
        element = group.get_item("DerivationImageSequence") if "DerivationImageSequence" in group else None
        if not isinstance(element, RawDataElement) or not element.value or element.value.count(self._element) != 1:
            return sources_of(group)
        at = element.value.index(self._element) + len(self._element) + 2
        end = at + int.from_bytes(element.value[at - 2 : at], "little")
        uid = element.value[at:end].rstrip(b"\0").decode("ascii", "replace")
        rest = at, element.value[:at] + element.value[end:]
        if (known := self._known.get(rest)) is not None:
            check_uid("ReferencedSOPInstanceUID", uid)
            return [(uid, *known[0][1:])]
        found = sources_of(group)
        if [one[0] for one in found] == [uid]:  # it stands where it seems to
            self._known[rest] = found
        return found


def check_length(segmentation: Dataset, frames: int, pixel_bytes: int) -> None:
    """Frames described and pixels there are as many as NumberOfFrames says (PS3.5 8.1.1, Annex D)."""
    if (count := whole(segmentation, "NumberOfFrames")) != frames:
        refuse(f"NumberOfFrames is {count}, but {frames} frames are described")
    bits = frames * segmentation.Rows * segmentation.Columns * segmentation.BitsAllocated
    needed = (bits + 7) // 8
    if pixel_bytes != needed + needed % 2:
        refuse(f"{pixel_bytes} bytes of pixel data, {frames} frames take {needed}")


def _multi_frame_uids(plan: VolumePlan) -> frozenset[str]:
    return frozenset(text(header, "SOPInstanceUID") for header in plan.headers if FRAMES in header)


def segment_of(group: Dataset, shared: Dataset) -> int | None:
    """The number of a frame's segment, its own or the shared one."""
    identification = items(group, "SegmentIdentificationSequence") or items(shared, "SegmentIdentificationSequence")
    return whole(identification[0], "ReferencedSegmentNumber") if len(identification) == 1 else None


def sources_of(group: Dataset) -> list[Source]:
    """Of the images that a frame says it comes from (PS3.3 C.7.6.16.2.6)."""
    check_uids(group)
    derivations = items(group, "DerivationImageSequence")
    sources = [s for d in derivations for s in items(d, "SourceImageSequence")]
    for words in (w for d in derivations for w in (*wrong_codes(d), *wrong_terms(d))):
        refuse(f"of a frame's source: {words}")
    for keyword, holders in (("DerivationCodeSequence", derivations), ("PurposeOfReferenceCodeSequence", sources)):
        if any(is_empty(holder, keyword) for holder in holders):
            refuse(f"{keyword} of a frame's source is absent or empty (type 1)")
    return [
        (text(s, "ReferencedSOPInstanceUID"), whole(s, "ReferencedFrameNumber"), text(s, "ReferencedSOPClassUID"))
        for s in sources
    ]


def _source(sources: list[Source], number: int, many: frozenset[str]) -> tuple[tuple[str, int], str]:
    """((SOP Instance UID, frame), SOP Class UID) of the one that there is."""
    if len(sources) != 1:
        refuse(f"frame {number} names {len(sources)} source images, one is needed")
    uid, frame, sop_class = sources[0]
    if uid in many and frame is None:
        refuse(f"frame {number} does not say which frame of the multi-frame instance {uid} it comes from")
    return (uid, frame or 1), sop_class


def _position(group: Dataset) -> tuple[float, ...] | None:
    planes = items(group, "PlanePositionSequence")
    return numbers(planes[0], "ImagePositionPatient", 3) if len(planes) == 1 else None


def _check_place(found: tuple[float, ...] | None, expected: tuple[float, ...], number: int) -> None:
    if found is None or not np.allclose(found, expected, rtol=0, atol=POSITION_TOLERANCE_MM):
        refuse(f"frame {number} lies at {found}, its source at {expected}")
