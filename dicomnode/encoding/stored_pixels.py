"""The pixel data of a Part 10 file as it lies there: which frame is where, nothing decoded (PS3.5 8 and A.4)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicomnode.imaging.headers import odd_values_accepted

# Float Pixel Data, Double Float Pixel Data and Pixel Data (PS3.3 C.7.6.24, C.7.6.25, C.7.6.3)
PIXEL_TAGS = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OW", b"UN")
_NEEDED = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """Where the frames of a file are, and how they are encoded."""

    tag: int
    transfer_syntax_uid: str
    source: Path | bytes  # the value itself where the file's data set is deflated
    offset: int  # of the value
    size_bytes: int  # of the value, up to the file's end where it is encapsulated
    number_of_frames: int
    frame_bits: int
    bytes_per_sample: int
    extended_offsets: tuple[bytes, bytes] | None = None  # PS3.3 C.7.6.3.1.8

    @property
    def is_encapsulated(self) -> bool:
        return UID(self.transfer_syntax_uid).is_encapsulated

    @property
    def frame_syntax_uid(self) -> str:
        """In which transfer syntax `frame` gives it: native ones are all given little endian (PS3.18 8.7.3.3)."""
        return self.transfer_syntax_uid if self.is_encapsulated else ExplicitVRLittleEndian

    def frame(self, number: int) -> bytes:
        """The first is 1. A frame of single bits begins with its first byte, wherever it begins in the file."""
        if self.is_encapsulated:
            with self._open() as file:
                return get_frame(
                    file,
                    number - 1,
                    number_of_frames=self.number_of_frames,
                    extended_offsets=self.extended_offsets,
                )
        first, last = (number - 1) * self.frame_bits, number * self.frame_bits
        piece = self._native(first // 8, -(-last // 8))
        return piece if self.frame_bits % 8 == 0 else _bits(piece, first % 8, self.frame_bits)

    def whole(self) -> bytes:
        """The value; of what is encapsulated its items."""
        return self._native(0, self.size_bytes)

    def _native(self, begin: int, end: int) -> bytes:
        with self._open() as file:
            file.seek(begin, os.SEEK_CUR)
            piece = file.read(end - begin)
        if self.transfer_syntax_uid == ExplicitVRBigEndian and self.bytes_per_sample > 1:
            return np.frombuffer(piece, f">u{self.bytes_per_sample}").byteswap().tobytes()
        return piece

    def _open(self) -> BinaryIO:
        """At the value's first byte."""
        file: BinaryIO = BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")
        file.seek(self.offset)
        return file


def _bits(piece: bytes, first: int, count: int) -> bytes:
    """`count` bits from bit `first` on, the first in the lowest bit of a byte (PS3.5 8.1.1)."""
    bits = np.unpackbits(np.frombuffer(piece, np.uint8), bitorder="little")[first : first + count]
    return np.packbits(bits, bitorder="little").tobytes()


@lru_cache(maxsize=512)
def stored_pixels(path: Path) -> StoredPixels | None:
    """None where the file has no pixel data. Raises what pydicom does for what is no DICOM file."""
    with odd_values_accepted(), path.open("rb") as file:
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(_NEEDED))
        syntax = header.file_meta.TransferSyntaxUID
        if syntax == DeflatedExplicitVRLittleEndian:
            return _deflated(path, header)
        if (found := _value_at(file, syntax)) is None:
            return None
        tag, size = found
        offset = file.tell()
        left = path.stat().st_size - offset
        return _pixels(header, tag, path, offset, left if size == 0xFFFFFFFF else min(size, left))


def _value_at(file: BinaryIO, syntax: UID) -> tuple[int, int] | None:
    """Tag and length of the pixel data whose element begins here; the file is left at its value (PS3.5 7.1)."""
    order = "<" if syntax.is_little_endian else ">"
    head = file.read(8)
    if len(head) < 8:
        return None
    group, element, size = struct.unpack(f"{order}HHL", head)
    if (tag := group << 16 | element) not in PIXEL_TAGS:
        return None
    if not syntax.is_implicit_VR:
        size = struct.unpack(f"{order}L", file.read(4))[0] if head[4:6] in _LONG_VRS else _short(head, order)
    return tag, size


def _short(head: bytes, order: str) -> int:
    return int(struct.unpack(f"{order}H", head[6:])[0])


def _deflated(path: Path, header: Dataset) -> StoredPixels | None:
    data_set = dcmread(path)
    for tag in PIXEL_TAGS:
        if tag in data_set:
            value = data_set[tag].value
            return _pixels(header, tag, value, 0, len(value))
    return None


def _pixels(header: Dataset, tag: int, source: Path | bytes, offset: int, size_bytes: int) -> StoredPixels:
    bits = int(header.get("BitsAllocated") or 0)
    samples = int(header.get("SamplesPerPixel") or 1)
    # two chrominance samples for two pixels (PS3.3 C.7.6.3.1.2)
    samples = 2 if header.get("PhotometricInterpretation") == "YBR_FULL_422" else samples
    tables = (header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths"))
    return StoredPixels(
        tag=tag,
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        source=source,
        offset=offset,
        size_bytes=size_bytes,
        number_of_frames=int(header.get("NumberOfFrames") or 1),
        frame_bits=int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * samples * bits,
        bytes_per_sample=bits // 8,
        extended_offsets=(tables[0], tables[1]) if tables[0] and tables[1] else None,
    )
