"""In which transfer syntax a file is sent: a DIMSE peer takes one of those that it is offered, each in a context; a
DICOMweb service is posted one and says that it does not take it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from pydicom import dcmread, dcmwrite
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.encoding.part10 import META_START_BYTES, data_set_offset
from dicomnode.errors import DeliveryError
from dicomnode.imaging.headers import whole

# Native encodings that can be made from one another without touching a pixel (PS3.5 A.1, A.2, A.5)
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_CONVERTIBLE = (*_NATIVE, DeflatedExplicitVRLittleEndian)
_OF_PIXELS = (RLELossless, JPEGLSLossless)
_BYTES_AND_WORDS = (8, 16)  # bits allocated: a bit a pixel is not compressed by these (PS3.5 8.2)
_WORTH_IT_BYTES = 1 << 20  # a smaller file is sent sooner than it is deflated
# Of its size. Orthanc takes 0.17 s to inflate each MB that comes, which is as much as the rest saves at 250 Mbit/s
_WORTH_IT_SHARE = 0.1
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 14
_PIECE_BYTES = 1 << 20
_FAST = 1  # of zlib's levels: 341 MB of masks in 0.4 s where level 6 takes 0.9, and 2 MB where it makes 0.6


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What a Part 10 file says of itself (PS3.10 7.1)."""

    sop_class_uid: UID
    sop_instance_uid: UID
    transfer_syntax_uid: UID
    size_bytes: int
    bits_allocated: int | None = None  # of its pixels; not read where nobody asks
    shrinks: bool = True  # whether deflating makes it smaller, as far as samples tell; not tried where nobody asks


def read_header(file: Path, preferred: Sequence[str] = ()) -> FileHeader:
    """`preferred`: as of `proposed`. Raises DeliveryError, not retryable, when nobody can be sent the file."""
    try:
        size_bytes = file.stat().st_size
        meta = read_file_meta_info(file)
        header = FileHeader(
            UID(meta.MediaStorageSOPClassUID),
            UID(meta.MediaStorageSOPInstanceUID),
            UID(meta.TransferSyntaxUID),
            size_bytes,
            _bits_allocated(file) if any(UID(uid) in _OF_PIXELS for uid in preferred) else None,
            _shrinks(file, size_bytes) if DeflatedExplicitVRLittleEndian in preferred else True,
        )
    except (OSError, EOFError, InvalidDicomError, AttributeError) as error:
        raise DeliveryError(f"the result's file cannot be read: {error}", FailureKind.FILE) from error
    if size_bytes % 2:
        words = "the result's data set has an odd length (PS3.5 7.1.1); it was written incompletely"
        raise DeliveryError(words, FailureKind.FILE)
    return header


def _shrinks(file: Path, size_bytes: int) -> bool:
    """Masks nearly always do. Those of noise do not, and deflating them takes longer than sending them."""
    if size_bytes < _WORTH_IT_BYTES:
        return False
    left_bytes = _WORTH_IT_SHARE * _SAMPLES * _SAMPLE_BYTES
    with file.open("rb") as source:
        for n in range(_SAMPLES):
            left_bytes -= len(zlib.compress(_sample(source, size_bytes * n // _SAMPLES), _FAST))
            if left_bytes <= 0:  # the first two samples of noise say it
                return False
    return True


def _sample(source: BinaryIO, at: int) -> bytes:
    source.seek(at)
    return source.read(_SAMPLE_BYTES)


def _bits_allocated(file: Path) -> int | None:
    dataset = dcmread(file, stop_before_pixels=True, specific_tags=["BitsAllocated"])
    return whole(dataset, "BitsAllocated")


def proposed(header: FileHeader, preferred: Sequence[str] = ()) -> tuple[UID, ...]:
    """In the order of the preference; then the file's own, then those that it can be turned into without loss.

    One presentation context each: in one context the peer would choose for us (PS3.8 9.3.3.2).
    """
    own = header.transfer_syntax_uid
    if own not in _CONVERTIBLE:
        return (own,)
    wanted = [UID(uid) for uid in preferred if _is_worth(UID(uid), header)]
    return tuple(dict.fromkeys((*wanted, own, *_NATIVE)))


def posted(header: FileHeader, preferred: Sequence[str] = ()) -> tuple[UID, ...]:
    """What a DICOMweb service may be sent: the same, in that order, without implicit VR (PS3.18 8.7.3)."""
    return tuple(uid for uid in proposed(header, preferred) if uid != ImplicitVRLittleEndian)


def _is_worth(transfer_syntax_uid: UID, header: FileHeader) -> bool:
    if transfer_syntax_uid == header.transfer_syntax_uid:
        return True
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return header.size_bytes >= _WORTH_IT_BYTES and header.shrinks
    return transfer_syntax_uid not in _OF_PIXELS or header.bits_allocated in _BYTES_AND_WORDS


@contextmanager
def encoded_as(transfer_syntax_uid: UID, file: Path, header: FileHeader) -> Iterator[Path]:
    """The file itself, or a copy of it in another transfer syntax that lives as long as the `with`."""
    own = header.transfer_syntax_uid
    if transfer_syntax_uid == own:
        yield file
        return
    with TemporaryDirectory(prefix="dicomnode-") as folder:
        copy = Path(folder) / "converted.dcm"
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian and own == ExplicitVRLittleEndian:
            _deflate(file, copy)
        else:
            _encode(file, copy, transfer_syntax_uid)
        yield copy


def _encode(file: Path, copy: Path, transfer_syntax_uid: UID) -> None:
    dataset = dcmread(file)
    if transfer_syntax_uid in _OF_PIXELS:
        dataset.compress(transfer_syntax_uid, generate_instance_uid=False)
        dcmwrite(copy, dataset)
        return
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dcmwrite(copy, dataset, implicit_vr=transfer_syntax_uid.is_implicit_VR, little_endian=True)


def _deflate(file: Path, copy: Path) -> None:
    """Piece by piece (PS3.5 A.5): a segmentation of hundreds of megabytes is never whole in memory."""
    with file.open("rb") as source, copy.open("wb") as target:
        meta = read_file_meta_info(file)
        meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        target.write(b"\0" * 128 + b"DICM")
        group_2 = DicomBytesIO()
        write_file_meta_info(group_2, meta)
        target.write(group_2.getvalue())
        source.seek(data_set_offset(source.read(META_START_BYTES)))
        deflater = zlib.compressobj(_FAST, wbits=-zlib.MAX_WBITS)
        while piece := source.read(_PIECE_BYTES):
            target.write(deflater.compress(piece))
        target.write(deflater.flush())
        target.write(b"\0" * (target.tell() % 2))
