"""From a DICOM file to the header that rules look at: attributes by keyword, values as JSON has them.

Bulk data stays on disk, broken values stay text, and no value makes reading fail: what a scanner sent
wrong in one attribute must not hide the others.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from dicomnode.domain.rules import Vocabulary
from dicomnode.domain.study import Element, Header
from dicomnode.domain.values import printable
from dicomnode.errors import CannotDecode
from dicomnode.imaging.headers import UNREADABLE, in_words, is_of_the_file, odd_values_accepted

SEQUENCE_DEPTH_MOST = 6
SEQUENCE_ITEMS_MOST = 64  # per-frame groups have thousands of items, and the first say what the rest say
VALUES_MOST = 1024
UNKNOWN_BYTES_MOST = 1024

_KEYWORDS = tuple((tag, keyword) for keyword, tag in keyword_dict.items() if keyword)
_BULK = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "OB or OW"})
_NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_LONG_TEXT = frozenset({"ST", "LT", "UT", "UR"})  # PS3.5 6.2: these hold one value, backslash included


@cache
def keyword_vrs() -> Vocabulary:
    """Every keyword of the standard's dictionary (PS3.6) with its VR."""
    vrs = {keyword: dictionary_VR(tag) for tag, keyword in _KEYWORDS}
    return {keyword: vr for keyword, vr in vrs.items() if vr != "NONE"}  # the delimiters of items


@cache
def single_valued_keywords() -> frozenset[str]:
    """Keywords of the attributes that hold one value at most (value multiplicity 1, PS3.6)."""
    return frozenset(keyword for tag, keyword in _KEYWORDS if dictionary_VM(tag) == "1")


def read_header(path: Path) -> Header:
    """Of a Part 10 file, its pixel data left on disk; raises CannotDecode when no header can be read.

    Raises OSError when that may pass; see headers.is_of_the_file.
    """
    with odd_values_accepted():
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            return {**header_of(dataset.file_meta), **header_of(dataset)}
        except InvalidDicomError as error:
            raise CannotDecode(f"{path.name} is no DICOM Part 10 file") from error
        except OSError as error:
            if not is_of_the_file(error, path):
                raise
            raise CannotDecode(f"the header of {path.name} cannot be read: {error.strerror or error}") from error
        except UNREADABLE as error:
            raise CannotDecode(f"the header of {path.name} cannot be read: {printable(in_words(error))}") from error


def header_of(dataset: Dataset, depth: int = 0) -> Header:
    """Of a data set in memory. Empty attributes have no values, bulk data and group lengths are left out."""
    encodings = _encodings(dataset)
    header: dict[str, Element] = {}
    for tag in dataset.keys():  # noqa: SIM118 - a Dataset iterates over converted values, which may fail
        name = _name(dataset, tag)
        element = _element(dataset, tag, encodings, depth) if name else None
        if element is not None:
            header[name] = element
    return header


def _name(dataset: Dataset, tag: BaseTag) -> str:
    """The keyword, or "(gggg,ee,CREATOR)" for a private attribute (PS3.5 7.8); "" when it has neither."""
    if not tag.is_private:
        return "" if tag.element == 0 else keyword_for_tag(tag)
    if tag.is_private_creator or tag.element < 0x1000:
        return ""
    try:
        creator = str(dataset[tag.group, tag.element >> 8].value).strip(" \0")
    except UNREADABLE:
        return ""
    return f"({tag.group:04x},{tag.element & 0xFF:02x},{creator})" if creator else ""


def _element(dataset: Dataset, tag: BaseTag, encodings: list[str], depth: int) -> Element | None:
    raw = dataset.get_item(tag)
    try:
        return _converted(dataset[tag], depth)
    except UNREADABLE:
        return _as_it_lies(raw, encodings) if isinstance(raw, RawDataElement) else None


def _converted(element: DataElement, depth: int) -> Element | None:
    vr = str(element.VR)
    if vr in _BULK:
        return None
    if vr == "SQ":
        return _sequence(element, depth)
    if vr == "UN":
        return _unknown(element.value)
    value = element.value
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    return Element(vr, tuple(_plain(vr, v) for v in values[:VALUES_MOST] if not _is_empty(v)))


def _sequence(element: DataElement, depth: int) -> Element | None:
    if depth >= SEQUENCE_DEPTH_MOST:
        return None
    return Element("SQ", tuple(header_of(item, depth + 1) for item in list(element.value)[:SEQUENCE_ITEMS_MOST]))


def _unknown(value: object) -> Element | None:
    """Private attributes in Implicit VR have no VR; short readable ones are taken as text."""
    if not isinstance(value, bytes) or len(value) > UNKNOWN_BYTES_MOST:
        return None
    try:
        text = value.decode("ascii").rstrip(" \0")
    except UnicodeDecodeError:
        return None
    return Element("UN", _split(text)) if not text or text.isprintable() else None


def _plain(vr: str, value: object) -> object:
    if isinstance(value, PersonName):
        return str(value).rstrip("=")
    if isinstance(value, BaseTag) or (vr == "AT" and isinstance(value, int)):
        return f"{int(value):08X}"
    if vr in _NUMBERS:
        return int(value) if isinstance(value, int) else _number(value)
    return value.decode("latin-1") if isinstance(value, bytes) else str(value).strip(" \0")


def _is_empty(value: object) -> bool:
    return value is None or str(value).strip(" \0") == ""


def _as_it_lies(raw: RawDataElement, encodings: list[str]) -> Element | None:
    """The text of a value that is not what its VR says, numbers where some can be read; binary ones are empty."""
    vr = raw.VR or _vr_of(raw.tag)
    if vr in _NUMBERS - {"DS", "IS"} or vr == "AT":
        return Element(vr, ())
    if vr in _BULK or vr == "SQ" or not isinstance(raw.value, bytes) or len(raw.value) > UNKNOWN_BYTES_MOST:
        return None
    try:
        text = decode_bytes(raw.value, encodings, set())
    except UNREADABLE:
        text = raw.value.decode("latin-1")
    parts = (text.strip(" \0"),) if vr in _LONG_TEXT else _split(text)
    return Element(vr, tuple(_number(p) if vr in _NUMBERS else p for p in parts if p))


def _vr_of(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (p.strip(" \0") for p in text.split("\\")) if part)[:VALUES_MOST]


def _number(value: Any) -> object:
    try:
        return float(value)
    except ValueError:
        return str(value).strip(" \0")


def _encodings(dataset: Dataset) -> list[str]:
    """Of Specific Character Set (PS3.3 C.12.1.1.2), the default repertoire when it makes no sense."""
    try:
        return convert_encodings(dataset.get("SpecificCharacterSet", "ISO_IR 6"))
    except UNREADABLE:
        return ["iso8859"]
