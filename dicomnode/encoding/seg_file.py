"""The frames of a segmentation, BINARY or FRACTIONAL, written straight into its file.

A SEG of a hundred segments has thousands of frames, and hundreds of megabytes of pixels. Frames are made as bytes
(see seg_items), and pixels while the file is written: it is never whole in memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread

from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.seg_frames import SegFrames
from dicomnode.encoding.seg_items import FrameItems, FramePlace, sequence
from dicomnode.errors import EncodingError
from dicomnode.imaging.headers import odd_values_accepted

_PIXEL_DATA = struct.Struct("<HH2sHL")  # tag, VR, reserved, length (PS3.5 7.1.2)
_LONGEST = 0xFFFFFFFE  # bytes of one element (PS3.5 7.1.1)
_FRAMES_AND_PIXELS = ("PerFrameFunctionalGroupsSequence", "PixelData")
_PIECE_PIXELS = 1 << 21  # so many at once, a byte each while they are packed


@dataclass(frozen=True, slots=True, eq=False)
class SegFile:
    """A SEG as a Part 10 file, in pieces; the masks must stay as they are until it is written.

    `header` are its attributes but for those of its frames and pixels, `frames` the segment and the slice of each.
    """

    header: Dataset
    start: bytes  # up to the element (7FE0,0010)
    masks: SegFrames
    frames: Sequence[tuple[int, int]]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self.start
        yield _PIXEL_DATA.pack(0x7FE0, 0x0010, b"OB", 0, self.pixel_bytes)
        yield from _pixels(self.masks, self.frames)
        yield b"\0" * (_pixel_bytes(self.masks, len(self.frames)) % 2)

    def as_written(self) -> Dataset:
        """The file up to its pixels, read again."""
        with odd_values_accepted():
            return dcmread(BytesIO(self.start))

    @property
    def pixel_bytes(self) -> int:
        """Of an even length (PS3.5 8.1.1)."""
        exact = _pixel_bytes(self.masks, len(self.frames))
        return exact + exact % 2

    @property
    def size_bytes(self) -> int:
        return len(self.start) + _PIXEL_DATA.size + self.pixel_bytes

    @property
    def content(self) -> bytes:
        """The whole, made anew."""
        return b"".join(self)


def seg_file(
    skeleton: Dataset, places: Sequence[FramePlace], masks: SegFrames, segments: Mapping[int, Sequence[int]]
) -> SegFile:
    """The file of a SEG; its `skeleton` has a frame, of any segment, like which all are made.

    `places`: the slices that it has, in the order of their Dimension Index Values. `segments`: the numbers of those
    that a slice has. Frames are sorted as these values say: by segment, and within it by place (PS3.3 C.7.6.17).

    Raises EncodingError when the pixels do not fit one element (PS3.5 7.1.1).
    """
    items = FrameItems(skeleton.PerFrameFunctionalGroupsSequence[0])
    templates = [items.of(place, order) for order, place in enumerate(places, 1)]
    frames = sorted((segment, order) for order, place in enumerate(places) for segment in segments[place.index])
    _check_length(_pixel_bytes(masks, len(frames)))
    groups = b"".join(templates[order].of_segment(segment) for segment, order in frames)
    header = _header(skeleton, masks, len(frames))
    start = to_part10_bytes(header) + sequence(_FRAMES_AND_PIXELS[0], groups)
    return SegFile(header, start, masks, [(segment, places[order].index) for segment, order in frames])


def file_of_frames(skeleton: Dataset, masks: SegFrames, frames: Sequence[tuple[int, int]]) -> SegFile:
    """The file of a SEG whose `skeleton` has the items of all its frames, (segment, slice), in their order.

    Raises as seg_file.
    """
    _check_length(_pixel_bytes(masks, len(frames)))
    header = _header(skeleton, masks, len(frames))
    with_frames = Dataset()
    with_frames.update(header)
    with_frames.PerFrameFunctionalGroupsSequence = skeleton.PerFrameFunctionalGroupsSequence
    return SegFile(header, to_part10_bytes(with_frames), masks, frames)


def _header(skeleton: Dataset, masks: SegFrames, frames: int) -> Dataset:
    header = Dataset()
    header.update({e.tag: e for e in skeleton if e.keyword not in _FRAMES_AND_PIXELS})
    _, header.Rows, header.Columns = masks.shape
    header.NumberOfFrames = frames
    return header


def _pixel_bytes(masks: SegFrames, frames: int) -> int:
    bits = frames * math.prod(masks.shape[1:]) * (1 if masks.is_binary else 8)
    return (bits + 7) // 8


def _check_length(pixel_bytes: int) -> None:
    if pixel_bytes > _LONGEST:
        raise EncodingError(
            f"the segmentation takes {pixel_bytes} bytes of pixels, more than a DICOM element holds ({_LONGEST}): "
            "give the model fewer segments"
        )


def _pixels(masks: SegFrames, frames: Sequence[tuple[int, int]]) -> Iterator[bytes | memoryview]:
    """One bit a pixel, the first in the lowest bit, one frame behind the other also within a byte, or a byte each.

    (PS3.5 8.1.1.)
    """
    size = math.prod(masks.shape[1:])
    unit = 8 // math.gcd(size, 8)  # frames after which a byte ends
    together = unit * max(_PIECE_PIXELS // (size * unit), 1)
    planes: npt.NDArray[np.uint8] = np.empty((together, *masks.shape[1:]), np.uint8)
    for first in range(0, len(frames), together):
        part = frames[first : first + together]
        for plane, (segment, k) in zip(planes, part, strict=False):
            plane[:] = masks.plane(segment, k)
        used = planes[: len(part)]
        yield np.packbits(used, bitorder="little").data if masks.is_binary else used.tobytes()
