"""What the index keeps of an instance, read from the first bytes of its data set."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.valuerep import TEXT_VR_DELIMS

from dicomnode.encoding.part10 import EXPLICIT_VR_BIG_ENDIAN, Chunk, Unreadable, data_set_offset, first_elements

_TEXT_MOST = 64  # characters of the longest VR read here, LO (PS3.5 Table 6.2-1)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")

_CHARACTER_SET = 0x00080005
_TEXTS = {
    "study_date": 0x00080020,
    "accession_number": 0x00080050,
    "modality": 0x00080060,
    "manufacturer": 0x00080070,
    "study_description": 0x00081030,
    "series_description": 0x0008103E,
    "patient_id": 0x00100020,
}
_UIDS = {
    "sop_class_uid": 0x00080016,
    "sop_instance_uid": 0x00080018,
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
}
_INTEGERS = {"series_number": 0x00200011, "instance_number": 0x00200013}
_TAGS = (_CHARACTER_SET, *_UIDS.values(), *_TEXTS.values(), *_INTEGERS.values())

# What says where in its stack an image lies. An instance in which this cannot be read is kept all the same.
_IMAGE_POSITION, _IMAGE_ORIENTATION = 0x00200032, 0x00200037
_IMAGES_IN_ACQUISITION = 0x00201002
_NUMBER_OF_FRAMES = 0x00280008
_STACK_TAGS = (_IMAGE_POSITION, _IMAGE_ORIENTATION, _IMAGES_IN_ACQUISITION, _NUMBER_OF_FRAMES)
_NUMBER_OF_SLICES = 0x00540081  # of PET; looked for nowhere else, since it lies far behind the others
_UNIT_TOLERANCE = 0.1
_FARTHEST_MM = 1e6


@dataclass(frozen=True, slots=True)
class Header:
    """What the index keeps of an instance, as the instance says it; a UID may be anything until it is checked."""

    transfer_syntax_uid: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    manufacturer: str = ""
    instance_number: int | None = None
    series_number: int | None = None
    series_description: str = ""
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_description: str = ""
    number_of_frames: int = 1
    plane: str = ""
    position_mm: float | None = None
    images_announced: int | None = None


def read_header(chunks: Sequence[Chunk], transfer_syntax_uid: str) -> Header:
    """Raises Unreadable. Text that its character set does not explain is kept with replacement characters."""
    raw = _first_of_all(chunks, transfer_syntax_uid)
    encodings = _encodings(raw.get(_CHARACTER_SET, b""))
    values: dict[str, object] = {name: _ascii(raw.get(tag, b"")) for name, tag in _UIDS.items()}
    values |= {name: _text(raw.get(tag, b""), encodings) for name, tag in _TEXTS.items()}
    values |= {name: _integer(raw.get(tag, b"")) for name, tag in _INTEGERS.items()}
    stack = _stack_values(raw, little_endian=transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN)
    return Header(transfer_syntax_uid, **values, **stack)  # type: ignore[arg-type]


def _first_of_all(chunks: Sequence[Chunk], transfer_syntax_uid: str) -> dict[int, bytes]:
    try:
        raw = dict(first_elements(chunks, transfer_syntax_uid, (*_TAGS, *_STACK_TAGS)))
        if _ascii(raw.get(_TEXTS["modality"], b"")) == "PT":
            raw.update(first_elements(chunks, transfer_syntax_uid, (_NUMBER_OF_SLICES,)))
    except Unreadable:
        return dict(first_elements(chunks, transfer_syntax_uid, _TAGS))
    return raw


def _stack_values(raw: Mapping[int, bytes], *, little_endian: bool) -> dict[str, object]:
    """Where in its stack a single-frame image lies, and how many images its header announces."""
    frames = _integer(raw.get(_NUMBER_OF_FRAMES, b"")) or 1
    slices = raw.get(_NUMBER_OF_SLICES, b"")
    announced = [_integer(raw.get(_IMAGES_IN_ACQUISITION, b"")) or 0]
    if len(slices) == 2:  # a US
        announced.append(int.from_bytes(slices, "little" if little_endian else "big"))
    values: dict[str, object] = {"number_of_frames": max(1, frames), "images_announced": max(0, *announced) or None}
    if frames <= 1:
        position, orientation = raw.get(_IMAGE_POSITION, b""), raw.get(_IMAGE_ORIENTATION, b"")
        values["plane"], values["position_mm"] = plane_and_position(_decimals(position), _decimals(orientation))
    return values


def _decimals(value: bytes) -> list[float]:
    """Empty when one of them is no number."""
    try:
        numbers = [float(part) for part in _ascii(value).split("\\")]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def plane_and_position(position: Sequence[float], orientation: Sequence[float]) -> tuple[str, float | None]:
    """Which plane an image is parallel to, by its normal, and its place along that normal in mm (PS3.3 C.7.6.2.1.1).

    The word is the normal's cosines to two decimals, so that rounding in the header makes no plane of its own.
    Without usable values it is empty.
    """
    if len(position) != 3 or len(orientation) != 6 or not all(abs(part) <= _FARTHEST_MM for part in position):
        return "", None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    if not math.isclose(length, 1.0, abs_tol=_UNIT_TOLERANCE):
        return "", None
    x, y, z = (part / length for part in normal)
    word = "/".join(f"{round(part, 2) + 0.0:.2f}" for part in (x, y, z))
    return word, x * position[0] + y * position[1] + z * position[2]


def _ascii(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")


def _integer(value: bytes) -> int | None:
    text = _ascii(value).strip()
    number = int(text) if _INTEGER.fullmatch(text) else None
    return number if number is not None and abs(number) < 1 << 31 else None


def _encodings(value: bytes) -> list[str]:
    """Python's names for the Specific Character Set (PS3.3 C.12.1.1.2); Latin 1 for what nobody knows."""
    try:
        return convert_encodings([part.strip() for part in _ascii(value).split("\\")])
    except (LookupError, ValueError, Warning):
        return ["iso8859"]


def _text(value: bytes, encodings: list[str]) -> str:
    try:
        text = decode_bytes(value, encodings, TEXT_VR_DELIMS)
    except (LookupError, ValueError, Warning):
        text = value.decode("iso8859")
    return _CONTROL.sub(" ", text).strip()[:_TEXT_MOST]


def header_of_file(path: Path) -> Header:
    """Of a file with file meta information; raises Unreadable."""
    try:
        transfer_syntax_uid = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    except InvalidDicomError as error:
        raise Unreadable(str(error)) from error
    content = path.read_bytes()
    return read_header([memoryview(content)[data_set_offset(content) :]], transfer_syntax_uid)
