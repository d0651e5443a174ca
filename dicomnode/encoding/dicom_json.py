"""Data sets as DICOM JSON (PS3.18 F) that every database keeps."""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted

_SPECIFIC_CHARACTER_SET = 0x00080005


def dicom_json(data_set: Dataset) -> dict[str, Any]:
    """What of it can be read. An element that cannot is left out, and nothing else with it.

    The text is Unicode, whatever it was before: Specific Character Set is left out (PS3.18 F.2.1).
    """
    with odd_values_accepted():
        return _json(data_set)


def _json(data_set: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in list(data_set.keys()):
        try:
            element = data_set[tag]
            if tag != _SPECIFIC_CHARACTER_SET:
                found[f"{int(tag):08X}"] = _element(element)
        except UNREADABLE:
            continue
    return found


def _element(element: DataElement) -> dict[str, Any]:
    if element.VR == "SQ":
        return {"vr": "SQ", "Value": [_json(item) for item in element.value]}
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
