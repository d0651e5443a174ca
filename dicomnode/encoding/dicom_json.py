"""Data sets as DICOM JSON (PS3.18 F) that every database keeps, and every viewer reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted

_SPECIFIC_CHARACTER_SET = 0x00080005
_INLINE_MOST_BYTES = 1024  # of a binary value; longer ones are bulk data where there is a place for them

Link = Callable[[str], str]


def dicom_json(data_set: Dataset, bulk: Link | None = None) -> dict[str, Any]:
    """What of it can be read. An element that cannot is left out, and nothing else with it.

    The text is Unicode, whatever it was before: Specific Character Set is left out (PS3.18 F.2.1).
    With `bulk`, long binary values are given as Bulk Data URIs (PS3.18 F.2.6): it makes one of the value's path,
    as "00420011", or "54000100/0/54001010" in the first item of a sequence.
    """
    with odd_values_accepted():
        return _json(data_set, bulk, "")


def bulk_value(data_set: Dataset, path: str) -> bytes | None:
    """The binary value at a path as `dicom_json` gives it; None where there is none."""
    *steps, last = path.split("/")
    try:
        for sequence, item in zip(steps[::2], steps[1::2], strict=True):
            data_set = data_set[int(sequence, 16)].value[int(item)]
        value = data_set[int(last, 16)].value
    except UNREADABLE:
        return None
    return value if isinstance(value, bytes) else None


def _json(data_set: Dataset, bulk: Link | None, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in list(data_set.keys()):
        try:
            element = data_set[tag]
            if tag != _SPECIFIC_CHARACTER_SET:
                found[f"{int(tag):08X}"] = _element(element, bulk, f"{path}{int(tag):08X}")
        except UNREADABLE:
            continue
    return found


def _element(element: DataElement, bulk: Link | None, path: str) -> dict[str, Any]:
    if element.VR == "SQ":
        items = [_json(item, bulk, f"{path}/{number}/") for number, item in enumerate(element.value)]
        return {"vr": "SQ", "Value": items}
    if bulk is not None and isinstance(element.value, bytes) and len(element.value) > _INLINE_MOST_BYTES:
        return {"vr": str(element.VR), "BulkDataURI": bulk(path)}
    return dict(_storable(element.to_json_dict(None, 0)))


def _storable(value: Any) -> Any:
    """Plain JSON without what a database refuses: NUL, lone surrogates, numbers that are none."""
    match value:
        case dict():
            return {key: _storable(one) for key, one in value.items()}
        case list():
            return [_storable(one) for one in value]
        case str():
            return str(value).replace("\0", "").encode("utf-8", "replace").decode()
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
