"""The frames of a segmentation, BINARY or FRACTIONAL, written straight into its file.

A SEG of a hundred segments has thousands of frames. As data sets they take seconds and gigabytes to make; as bytes
they differ in the numbers of their segment alone from the first frame of the same slice, which highdicom made.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.seg_frames import SegFrames
from dicomnode.errors import EncodingError

_SEQUENCE = struct.Struct("<HH2sHL")  # tag, VR, reserved, length (PS3.5 7.1.2)
_ITEM = struct.Struct("<HHL")  # (PS3.5 7.5.1)
# Dimension Index Values of two numbers and Referenced Segment Number, up to their first byte (PS3.5 7.1.2)
_OF_THE_SEGMENT = (b"\x20\x00\x57\x91UL\x08\x00", b"\x62\x00\x0b\x00US\x02\x00")
_LONGEST = 0xFFFFFFFE  # bytes of one element (PS3.5 7.1.1)
_FRAMES_AND_PIXELS = ("PerFrameFunctionalGroupsSequence", "PixelData")


@dataclass(frozen=True, slots=True)
class SegFile:
    """A SEG: its attributes but for those of its frames and pixels, and the whole as a Part 10 file."""

    header: Dataset
    content: bytearray
    pixels_at: int  # where the element (7FE0,0010) begins

    def attributes(self) -> BytesIO:
        """The file up to its pixels."""
        return BytesIO(memoryview(self.content)[: self.pixels_at])

    @property
    def pixel_bytes(self) -> int:
        return len(self.content) - self.pixels_at - _SEQUENCE.size


def seg_file(
    skeleton: Dataset, slices: Sequence[int], masks: SegFrames, segments: Mapping[int, Sequence[int]]
) -> SegFile:
    """The file of a SEG whose `skeleton` has a frame, of any segment, for each of these slices of the masks.

    `segments`: the numbers of those that a slice has. Frames are sorted as their Dimension Index Values say: by
    segment, and within it as those of the skeleton (PS3.3 C.7.6.17).

    Raises EncodingError when the pixels do not fit one element (PS3.5 7.1.1).
    """
    templates = [_Template.of(item) for item in skeleton.PerFrameFunctionalGroupsSequence]
    frames = sorted((segment, order) for order, k in enumerate(slices) for segment in segments[k])
    header = _header(skeleton, masks, len(frames))
    groups = b"".join(templates[order].of_segment(segment) for segment, order in frames)
    start = b"".join((to_part10_bytes(header), _SEQUENCE.pack(0x5200, 0x9230, b"SQ", 0, len(groups)), groups))
    bits = len(frames) * math.prod(masks.shape[1:]) * (1 if masks.is_binary else 8)
    content = _with_room(start, (bits + 7) // 8)
    pixels = np.frombuffer(content, np.uint8)[len(start) + _SEQUENCE.size :]
    fill = _pack if masks.is_binary else _fill
    fill(masks, [(segment, slices[order]) for segment, order in frames], pixels)
    return SegFile(header, content, len(start))


def _header(skeleton: Dataset, masks: SegFrames, frames: int) -> Dataset:
    header = Dataset()
    header.update({e.tag: e for e in skeleton if e.keyword not in _FRAMES_AND_PIXELS})
    _, header.Rows, header.Columns = masks.shape
    header.NumberOfFrames = frames
    return header


def _with_room(start: bytes, pixel_bytes: int) -> bytearray:
    """`start`, the pixels' element of an even length, and zeros for them."""
    pixel_bytes += pixel_bytes % 2
    if pixel_bytes > _LONGEST:
        raise EncodingError(
            f"the segmentation takes {pixel_bytes} bytes of pixels, more than a DICOM element holds ({_LONGEST}): "
            "give the model fewer segments"
        )
    content = bytearray(len(start) + _SEQUENCE.size + pixel_bytes)
    content[: len(start)] = start
    _SEQUENCE.pack_into(content, len(start), 0x7FE0, 0x0010, b"OB", 0, pixel_bytes)
    return content


def _pack(masks: SegFrames, frames: Sequence[tuple[int, int]], packed: npt.NDArray[np.uint8]) -> None:
    """One bit a pixel, the first in the lowest bit, one frame behind the other also within a byte (PS3.5 8.1.1)."""
    size = math.prod(masks.shape[1:])
    together = 8 // math.gcd(size, 8)  # frames after which a byte ends
    for first in range(0, len(frames), together):
        planes = [masks.plane(segment, k) for segment, k in frames[first : first + together]]
        bits = np.packbits(planes, bitorder="little")
        packed[first * size // 8 :][: len(bits)] = bits


def _fill(masks: SegFrames, frames: Sequence[tuple[int, int]], pixels: npt.NDArray[np.uint8]) -> None:
    """A byte a pixel."""
    size = math.prod(masks.shape[1:])
    for number, (segment, k) in enumerate(frames):
        pixels[number * size :][:size] = masks.plane(segment, k).ravel()


@dataclass(frozen=True, slots=True)
class _Template:
    """An item of the Per-Frame Functional Groups Sequence, and where the number of its segment stands in it."""

    item: bytes
    places: list[int]  # of that number, of a byte: in the Dimension Index Values, in the Referenced Segment Number

    @classmethod
    def of(cls, group: Dataset) -> _Template:
        item = _item(group)
        ends = ((item.rfind(element), len(element)) for element in _OF_THE_SEGMENT)
        return cls(item, [at + length for at, length in ends if at >= 0])

    def of_segment(self, number: int) -> bytes:
        item = bytearray(self.item)
        for place in self.places:
            item[place] = number
        return bytes(item)


def _item(group: Dataset) -> bytes:
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, group)
    content = file.getvalue()
    return _ITEM.pack(0xFFFE, 0xE000, len(content)) + content
