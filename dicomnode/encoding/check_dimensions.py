"""The dimensions of a multi-frame result: what they are, and that each frame stands where it belongs in them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement

from dicomnode.encoding.refusal import is_empty, refuse
from dicomnode.imaging.headers import items, text, value

_FILLED = ("DimensionIndexPointer", "FunctionalGroupPointer", "DimensionOrganizationUID")


def check_dimensions(dataset: Dataset) -> None:
    """Raises NonConformant where a dimension does not say what it is of, or for whom (PS3.3 C.7.6.17)."""
    organizations = [text(o, "DimensionOrganizationUID") for o in items(dataset, "DimensionOrganizationSequence")]
    if len(set(organizations)) < len(organizations):
        refuse("two items of DimensionOrganizationSequence have one UID")
    for number, dimension in enumerate(items(dataset, "DimensionIndexSequence"), 1):
        if lacking := [keyword for keyword in _FILLED if is_empty(dimension, keyword)]:
            refuse(f"dimension {number} has no {lacking[0]}")
        if text(dimension, "DimensionOrganizationUID") not in organizations:
            refuse(f"dimension {number} is of no organization that there is")


def check_indices(dataset: Dataset, groups: Sequence[Dataset], places: Sequence[tuple[int, int]]) -> None:
    """Raises NonConformant where an index is not that of the frame's segment, or of its slice (PS3.3 C.7.6.17).

    `places`: of each frame the number of its segment, and of its slice or frame in the source. Readers sort by the
    indices and take frames with one index for frames of one place.
    """
    indices_of, seen = _IndicesOf(), dict[tuple[int, ...], tuple[int, int]]()
    dimensions = items(dataset, "DimensionIndexSequence")
    for number, (group, place) in enumerate(zip(groups, places, strict=True), 1):
        indices = indices_of(group)
        if len(indices) != len(dimensions):
            refuse(f"frame {number} has {len(indices)} DimensionIndexValues, there are {len(dimensions)} dimensions")
        if indices in seen:
            refuse(f"frame {number} has the DimensionIndexValues of another")
        seen[indices] = place
    for axis, dimension in enumerate(dimensions):
        of_segments = value(dimension, "DimensionIndexPointer") == tag_for_keyword("ReferencedSegmentNumber")
        if not _in_order({(place[0 if of_segments else 1], indices[axis]) for indices, place in seen.items()}):
            what = "segments" if of_segments else "slices"
            refuse(f"DimensionIndexValues of dimension {axis + 1} are not in the order of the {what}")


def _in_order(pairs: set[tuple[int, int]]) -> bool:
    """(number, index): whether each has one of its own, and they rise together, or one falls."""
    numbers, indices = zip(*sorted(pairs), strict=True) if pairs else ((), ())
    return len(set(numbers)) == len(pairs) and list(indices) in (
        sorted(set(indices)),
        sorted(set(indices), reverse=True),
    )


class _IndicesOf:
    """Dimension Index Values of frames, which are different in each: read as bytes where they stand alone."""

    _element = struct.pack("<HH2s", 0x0020, 0x9157, b"UL")

    def __call__(self, group: Dataset) -> tuple[int, ...]:
        element = group.get_item("FrameContentSequence") if "FrameContentSequence" in group else None
        if not isinstance(element, RawDataElement) or not element.value or element.value.count(self._element) != 1:
            return _indices(group)
        at = element.value.index(self._element) + len(self._element) + 2
        length = int.from_bytes(element.value[at - 2 : at], "little")
        return struct.unpack_from(f"<{length // 4}L", element.value, at)


def _indices(group: Dataset) -> tuple[int, ...]:
    content = items(group, "FrameContentSequence")
    found: Any = value(content[0], "DimensionIndexValues") if len(content) == 1 else None
    if found is None:
        return ()
    return tuple(int(index) for index in (found if hasattr(found, "__iter__") else [found]))
