"""DICOM files as bytes: the file meta information (PS3.10 7.1), and a data set's first attributes.

Nothing here decodes a whole data set: what was received stays byte for byte as it came.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydicom._uid_dict import UID_dictionary
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag

Chunk = bytes | memoryview


class Pieces(Protocol):
    """A file that is made while it is read, the same each time."""

    @property
    def size_bytes(self) -> int: ...

    def __iter__(self) -> Iterator[Chunk]: ...


Content = bytes | bytearray | Pieces

META_START_BYTES = 144  # preamble, "DICM" and the element (0002,0000), explicit VR little endian
_PIECE_BYTES = 1 << 20

IMPLEMENTATION_CLASS_UID = "2.25.185208633014690220828851397579424272167"  # this implementation (PS3.7 D.3.3.2)
IMPLEMENTATION_VERSION_NAME = "DICOMNODE_0.1"

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# PS3.5 A.5, and the JPIP ones whose data set is deflated likewise
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
# Encodings of other kinds than PS3.5's binary data sets, and real-time video (PS3.22), which C-STORE does not carry
_NOT_FOR_STORAGE = ("1.2.840.10008.1.2.6.", "1.2.840.10008.1.2.7.", "1.2.840.10008.1.20")

# JPEG XL and Deflated Image Frame, which pydicom 3.0 cannot name yet (pynetdicom teaches it when it is imported)
_NEWER = frozenset(f"1.2.840.10008.1.2.{end}" for end in ("4.110", "4.111", "4.112", "8.1"))

TRANSFER_SYNTAXES = _NEWER | frozenset(
    uid
    for uid, entry in UID_dictionary.items()
    if entry[1] == "Transfer Syntax" and not uid.startswith(_NOT_FOR_STORAGE)
)
"""Every transfer syntax of the standard in which a data set can be stored, the retired ones too."""

_HEAD_BYTES = 1 << 16  # the first attributes are nearly always in here
_INFLATED_MOST_BYTES = 1 << 22  # a deflated data set's header is read no further: it may be a bomb
# What pydicom raises on bytes that are no data set; a warning is one where warnings are errors
_UNREADABLE = (
    EOFError,
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Warning,
)


def pieces_of(content: Content) -> Iterable[Chunk]:
    return (memoryview(content),) if isinstance(content, bytes | bytearray) else content


def digest_of(content: Content) -> str:
    """SHA-256."""
    digest = hashlib.sha256()
    for piece in pieces_of(content):
        digest.update(piece)
    return digest.hexdigest()


class Unreadable(ValueError):
    """The bytes are no data set in the transfer syntax that they are said to have."""


def file_meta_information(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    calling_ae_title: str,
    called_ae_title: str,
) -> bytes:
    """Preamble, prefix and group 2 (PS3.10 Table 7.1-1) of a file received from `calling_ae_title`."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\0\1"),
            _element(0x0002, b"UI", sop_class_uid),
            _element(0x0003, b"UI", sop_instance_uid),
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0016, b"AE", calling_ae_title),  # Source
            _element(0x0017, b"AE", calling_ae_title),  # Sending
            _element(0x0018, b"AE", called_ae_title),  # Receiving
        )
    )
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements


def _element(element: int, vr: bytes, text: str) -> bytes:
    """Of group 2, explicit VR little endian, padded to even length as PS3.5 6.2 says."""
    value = text.encode("ascii", "replace")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def data_set_offset(start: bytes) -> int:
    """Where the data set begins in a file that starts so; META_START_BYTES are enough (PS3.10 7.1)."""
    return META_START_BYTES + int.from_bytes(start[META_START_BYTES - 4 : META_START_BYTES], "little")


def data_set_sha256(path: Path) -> str:
    """Digest of the data set alone: the same however and from whomever it came."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(data_set_offset(file.read(META_START_BYTES)))
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def first_elements(chunks: Sequence[Chunk], transfer_syntax_uid: str, tags: Iterable[int]) -> Mapping[int, bytes]:
    """Values, as encoded, of those of `tags` that lie at the top level of a data set; raises Unreadable.

    Reads up to the greatest of them and no further: not the pixels.
    """
    wanted = list(tags)
    for most in (_HEAD_BYTES, None):
        head, whole = _head(chunks, transfer_syntax_uid, most)
        found, stopped, error = _elements(head, transfer_syntax_uid, wanted)
        if stopped or (whole and error is None):
            return found
        if whole:
            raise Unreadable("the data set cannot be read in its transfer syntax") from error
    raise Unreadable("the data set's attributes are too many to be read")


def _head(chunks: Sequence[Chunk], transfer_syntax_uid: str, most: int | None) -> tuple[bytes, bool]:
    """The first `most` bytes, inflated, and whether that is all there is."""
    if transfer_syntax_uid in _DEFLATED:
        return _inflated(chunks, most or _INFLATED_MOST_BYTES)
    size = sum(map(len, chunks))
    return _joined(chunks, size if most is None else most), most is None or size <= most


def _joined(chunks: Sequence[Chunk], most: int) -> bytes:
    head = bytearray()
    for chunk in chunks:
        head += chunk[: most - len(head)]
        if len(head) == most:
            break
    return bytes(head)


def _inflated(chunks: Sequence[Chunk], most: int) -> tuple[bytes, bool]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    head = bytearray()
    try:
        for chunk in chunks:
            head += inflater.decompress(chunk, most - len(head))
            if len(head) == most:
                return bytes(head), False
    except zlib.error as error:
        raise Unreadable("the data set is not deflated as its transfer syntax says") from error
    return bytes(head), True


def _elements(
    head: bytes, transfer_syntax_uid: str, tags: list[int]
) -> tuple[dict[int, bytes], bool, Exception | None]:
    """What was found, whether an attribute beyond the last of `tags` was met, and what went wrong."""
    last = max(tags)
    beyond: list[int] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if int(tag) > last:
            beyond.append(tag)
        return bool(beyond)

    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    little = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    found: dict[int, bytes] = {}
    try:
        for element in data_element_generator(
            io.BytesIO(head), implicit, little, stop_when=stop, specific_tags=list(tags)
        ):
            if isinstance(element, RawDataElement):
                found[int(element.tag)] = element.value or b""
    except _UNREADABLE as error:
        return found, False, error
    return found, bool(beyond), None
