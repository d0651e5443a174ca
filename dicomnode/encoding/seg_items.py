"""Items of a segmentation's Per-Frame Functional Groups Sequence as bytes: those of all frames, made from one's.

Frames differ in the image that they are of, their place, their position among the others and their segment. As data
sets thousands of them take seconds to make and to write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import DSdecimal

_SHORT = struct.Struct("<HH2sH")  # tag, VR, length (PS3.5 7.1.2)
_LONG = struct.Struct("<HH2sHL")  # tag, VR, reserved, length
_ITEM = struct.Struct("<HHL")  # (PS3.5 7.5.1)
# Dimension Index Values of two numbers and Referenced Segment Number, up to their first byte (PS3.5 7.1.2)
_OF_THE_SEGMENT = (b"\x20\x00\x57\x91UL\x08\x00", b"\x62\x00\x0b\x00US\x02\x00")

_Part = tuple[int, "bytes | list[list[_Part]]"]  # tag, and the element or its sequence's items


@dataclass(frozen=True, slots=True)
class FramePlace:
    """A slice of the source: the image that it is, and where that lies."""

    index: int  # of the slice
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # of a multi-frame image
    position: Sequence[DSdecimal]  # Image Position (Patient), LPS mm


@dataclass(frozen=True, slots=True)
class FrameItem:
    """An item, and where the number of its segment stands in it."""

    item: bytes
    places: tuple[
        int, ...
    ]  # of that number, of a byte: in the Dimension Index Values, in the Referenced Segment Number

    def of_segment(self, number: int) -> bytes:
        item = bytearray(self.item)
        for place in self.places:
            item[place] = number
        return bytes(item)


class FrameItems:
    """Makes items like the one it is given."""

    def __init__(self, group: Dataset) -> None:
        self._parts = _parts(group)

    def of(self, place: FramePlace, position: int) -> FrameItem:
        """Of a frame there, the `position`-th of its segment from 1 on (PS3.3 C.7.6.17); of no segment yet."""
        frame_number = "" if place.frame_number is None else str(place.frame_number)
        frame = _text("ReferencedFrameNumber", b"IS", frame_number, b" ") if frame_number else b""
        changed = {
            _tag("ReferencedSOPClassUID"): _text("ReferencedSOPClassUID", b"UI", place.sop_class_uid, b"\0"),
            # whose tag comes next: the template may be of an image that has no frames, or the other way round
            _tag("ReferencedSOPInstanceUID"): (
                _text("ReferencedSOPInstanceUID", b"UI", place.sop_instance_uid, b"\0") + frame
            ),
            _tag("ReferencedFrameNumber"): b"",
            _tag("ImagePositionPatient"): _text(
                "ImagePositionPatient", b"DS", "\\".join(map(str, place.position)), b" "
            ),
            _tag("DimensionIndexValues"): _element("DimensionIndexValues", b"UL", struct.pack("<LL", 0, position)),
        }
        item = _item(_joined(self._parts, changed))
        ends = ((item.rfind(element), len(element)) for element in _OF_THE_SEGMENT)
        return FrameItem(item, tuple(at + length for at, length in ends if at >= 0))


def sequence(keyword: str, items: bytes) -> bytes:
    """A sequence's element, of items with their heads."""
    return _sequence(_tag(keyword), items)


def _parts(dataset: Dataset) -> list[_Part]:
    return [(int(e.tag), list(map(_parts, e.value)) if e.VR == "SQ" else _alone(dataset, e.tag)) for e in dataset]


def _alone(dataset: Dataset, tag: int) -> bytes:
    alone = Dataset()
    alone[tag] = dataset[tag]
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, alone)
    return file.getvalue()


def _joined(parts: Iterable[_Part], changed: Mapping[int, bytes]) -> bytes:
    return b"".join(
        changed.get(tag, part)
        if isinstance(part, bytes)
        else _sequence(tag, b"".join(_item(_joined(item, changed)) for item in part))
        for tag, part in parts
    )


def _item(content: bytes) -> bytes:
    return _ITEM.pack(0xFFFE, 0xE000, len(content)) + content


def _sequence(tag: int, items: bytes) -> bytes:
    return _LONG.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0, len(items)) + items


def _text(keyword: str, vr: bytes, value: str, padding: bytes) -> bytes:
    """Of even length (PS3.5 6.2)."""
    content = value.encode("ascii")
    return _element(keyword, vr, content + padding * (len(content) % 2))


def _element(keyword: str, vr: bytes, value: bytes) -> bytes:
    tag = _tag(keyword)
    return _SHORT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None, keyword
    return int(found)
