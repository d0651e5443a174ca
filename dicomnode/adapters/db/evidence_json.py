"""Headers and facts as JSON that both databases keep: {"Modality": ["CS", ["CT"]], …}.

An element is [VR, [values…]] or [VR, [values…], note]; an item of a sequence is a header again. What is kept is
bounded, since senders decide what comes: text to its first characters, sequences to their first items. What was
left out is said in the element's note, which rules show.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dicomnode.adapters.db.columns import storable
from dicomnode.domain.study import Element, Header

CHARACTERS_MOST = 1024
# Of a whole header as JSON. Few take a tenth of it; functional groups of many frames (PS3.3 C.7.6.16) take more.
BYTES_MOST = 131_072
_ITEMS_MOST = (64, 8, 1, 0)  # of a sequence: the first that keeps a header within BYTES_MOST
_ATTRIBUTES_MOST = 2000
_TEXT_CUT = f"only its first {CHARACTERS_MOST} characters are kept"
_FLOATS = frozenset({"DS", "FL", "FD"})


def header_json(header: Header) -> dict[str, Any]:
    """A header, or facts, without what makes it too large."""
    document: dict[str, Any] = {}
    for items_most in _ITEMS_MOST:
        document = _header_json(header, items_most)
        if len(json.dumps(document)) <= BYTES_MOST:
            return document
    return _largest_left_out(document)


def header_of(document: Mapping[str, Any]) -> dict[str, Element]:
    return {name: element_of(element) for name, element in document.items()}


def element_json(element: Element, items_most: int = _ITEMS_MOST[0]) -> list[Any]:
    kept = element.values if element.vr != "SQ" else element.values[:items_most]
    values = [_value_json(value, items_most) for value in kept]
    note = "; ".join(filter(None, [storable(element.note, CHARACTERS_MOST), _left_out(element, items_most)]))
    return [element.vr, values, note] if note else [element.vr, values]


def element_of(document: list[Any]) -> Element:
    vr, values, *note = document
    return Element(vr, tuple(_value_of(vr, value) for value in values), *note)


def _header_json(header: Header, items_most: int) -> dict[str, Any]:
    names = list(header)[:_ATTRIBUTES_MOST]
    return {storable(name): element_json(header[name], items_most) for name in names}


def _value_json(value: object, items_most: int) -> Any:
    if isinstance(value, Mapping):
        return _header_json(value, items_most)
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return storable(str(value), CHARACTERS_MOST)  # JSON has no NaN; as text it compares as badly


def _left_out(element: Element, items_most: int) -> str:
    if element.vr == "SQ":
        count = len(element.values)
        return f"only {items_most} of its {count} items are kept" if count > items_most else ""
    return _TEXT_CUT if any(isinstance(v, str) and len(v) > CHARACTERS_MOST for v in element.values) else ""


def _largest_left_out(document: dict[str, Any]) -> dict[str, Any]:
    """The elements that make it too large, whatever they are, keep their VR only."""
    sizes = {name: len(json.dumps(element)) for name, element in document.items()}
    total = len(json.dumps(document))
    for name in sorted(sizes, key=lambda n: -sizes[n]):
        if total <= BYTES_MOST:
            break
        document[name] = [document[name][0], [], f"not kept: it is of {sizes[name]} bytes"]
        total -= sizes[name]
    return document


def _value_of(vr: str, value: Any) -> object:
    if isinstance(value, dict):
        return header_of(value)
    # PostgreSQL keeps 1e20 as the whole number it is
    return float(value) if vr in _FLOATS and type(value) is int and abs(value) >= 10**15 else value
