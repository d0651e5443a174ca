"""What can be wrong in any object: UIDs, codes, and pixels that are fewer or more than its frames take."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.encaps import parse_fragments
from pydicom.uid import UID

from dicomnode.domain.identifiers import is_uid
from dicomnode.encoding.refusal import is_empty
from dicomnode.imaging.frames import number_of_frames
from dicomnode.imaging.headers import UNREADABLE, items, text, whole

_CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}  # bits a pixel (PS3.3 C.7.6.24, C.7.6.25)
_SHOWN = 3


def wrong_uids(dataset: Dataset) -> Iterator[str]:
    """Every UID is one (PS3.5 9); study, series and instance have one each."""
    found = [
        f"{element.keyword or element.tag} {str(uid)!r} is no UID"
        for element in elements(dataset)
        if element.VR == "UI"
        for uid in ([element.value] if isinstance(element.value, str) else element.value or [])
        if not is_uid(str(uid))
    ]
    yield from _first(found)
    own = [text(dataset, keyword) for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    filled = [uid for uid in own if uid]
    if len(set(filled)) < len(filled):
        yield "study, series and instance share a UID"
    meta = getattr(dataset, "file_meta", None) or Dataset()
    for keyword, own_keyword in (
        ("MediaStorageSOPInstanceUID", "SOPInstanceUID"),
        ("MediaStorageSOPClassUID", "SOPClassUID"),
    ):
        if text(meta, keyword) not in ("", text(dataset, own_keyword)):
            yield f"{own_keyword} is not the {keyword} of the file meta information (PS3.10 7.1)"


def wrong_codes(dataset: Dataset, but: str = "") -> Iterator[str]:
    """Every code has a value, a scheme and a meaning (PS3.3 8.8)."""
    found: dict[str, None] = {}
    for element in elements(dataset, but):
        if element.VR != "SQ" or not element.keyword.endswith(("CodeSequence", "AnatomicRegionSequence")):
            continue
        for item in element.value:
            found.update(dict.fromkeys(f"a code in {element.keyword} {lack}" for lack in _lacks(item)))
    yield from _first(list(found))


def _lacks(code: Dataset) -> Iterator[str]:
    if all(is_empty(code, keyword) for keyword in _CODE_VALUES):
        yield "has no value"
    if is_empty(code, "CodingSchemeDesignator") and is_empty(code, "URNCodeValue"):
        yield "has no coding scheme"
    if is_empty(code, "CodeMeaning"):
        yield "has no meaning"


def wrong_pixels(dataset: Dataset) -> Iterator[str]:
    """As many as Rows, Columns, frames and bits say (PS3.5 8.1.1, A.4); nothing of objects without."""
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    frames, samples = number_of_frames(dataset), whole(dataset, "SamplesPerPixel") or 1
    if rows is None or columns is None:
        return
    for keyword, bits in {"PixelData": whole(dataset, "BitsAllocated"), **_FLOATS}.items():
        pixels = dataset.get(keyword)
        if not isinstance(pixels, bytes) or bits is None:
            continue
        if is_encapsulated(dataset):
            yield from _wrong_fragments(pixels, frames)
            continue
        needed = (rows * columns * frames * samples * bits + 7) // 8
        if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
            needed = needed * 2 // 3  # PS3.3 C.7.6.3.1.2
        if len(pixels) != needed + needed % 2:
            yield f"{len(pixels)} bytes of {keyword}, {frames} frames of {rows} × {columns} take {needed}"
    if not any(keyword in dataset for keyword in ("PixelData", *_FLOATS)):
        yield "there are Rows and Columns, but no pixels"


def is_encapsulated(dataset: Dataset) -> bool:
    """Whether its pixels are compressed frame by frame (PS3.5 A.4)."""
    syntax = text(getattr(dataset, "file_meta", None) or Dataset(), "TransferSyntaxUID")
    try:
        return bool(syntax) and UID(syntax).is_encapsulated
    except ValueError:  # a private one
        return False


def _wrong_fragments(pixels: bytes, frames: int) -> Iterator[str]:
    try:
        count, _ = parse_fragments(pixels)
    except UNREADABLE as error:
        yield f"the fragments of PixelData cannot be read: {error}"
        return
    count -= 1  # the first is the offset table (PS3.5 A.4)
    if count < frames:
        yield f"{frames} frames in {count} fragments of PixelData: some are not there"


def elements(dataset: Dataset, but: str = "") -> Iterator[DataElement]:
    """At any depth, but for the sequence of that keyword."""
    for element in dataset:
        if but and element.keyword == but:
            continue
        yield element
        if element.VR == "SQ":
            for item in items(dataset, element.keyword) if element.keyword else []:
                yield from elements(item)


def _first(found: list[str]) -> Iterator[str]:
    """So many, and how many more of the kind there are."""
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        yield f"{len(found) - _SHOWN} more such as the last one"
