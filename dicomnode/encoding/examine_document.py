"""What can be wrong in a structured report or a key object selection, seen by itself (PS3.3 C.17)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydicom import Dataset

from dicomnode.encoding.content_items import code_of, evidence_of
from dicomnode.encoding.refusal import is_empty
from dicomnode.imaging.headers import items, numbers, text, value

_RELATIONS = frozenset(
    [
        "CONTAINS",
        "HAS OBS CONTEXT",
        "HAS ACQ CONTEXT",
        "HAS CONCEPT MOD",
        "HAS PROPERTIES",
        "INFERRED FROM",
        "SELECTED FROM",
    ]
)
# Value type → the attribute that holds its value (PS3.3 C.17.3.2.3 to C.18); all are type 1
_VALUES = {
    "TEXT": "TextValue",
    "CODE": "ConceptCodeSequence",
    "DATETIME": "DateTime",
    "DATE": "Date",
    "TIME": "Time",
    "UIDREF": "UID",
    "PNAME": "PersonName",
    "CONTAINER": "ContinuityOfContent",
    "SCOORD": "GraphicData",
    "SCOORD3D": "GraphicData",
    "TCOORD": "TemporalRangeType",
    "IMAGE": "ReferencedSOPSequence",
    "COMPOSITE": "ReferencedSOPSequence",
    "WAVEFORM": "ReferencedSOPSequence",
    "NUM": "",  # type 2
    "TABLE": "",
}
_NAMED = frozenset(["TEXT", "NUM", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME"])
_TEMPLATE = ("MappingResource", "TemplateIdentifier")  # type 1 (PS3.3 C.18.8)
_ONE_OBJECT = frozenset(["IMAGE", "COMPOSITE", "WAVEFORM"])  # PS3.3 C.18.3 to C.18.5
_AXES = {"SCOORD": 2, "SCOORD3D": 3}
# Each with its points where their number is fixed (PS3.3 C.18.6.1.2, C.18.9.1.2)
_GRAPHICS = {
    2: {"POINT": 1, "MULTIPOINT": 0, "POLYLINE": 0, "CIRCLE": 2, "ELLIPSE": 4},
    3: {"POINT": 1, "MULTIPOINT": 0, "POLYLINE": 0, "POLYGON": 0, "ELLIPSE": 4, "ELLIPSOID": 6},
}
_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
_DEEPEST = 100


def wrong_content(dataset: Dataset) -> Iterator[str]:
    """Items of the content tree without their value, name or relation, and references that the evidence lacks."""
    if text(dataset, "ValueType") != "CONTAINER":
        yield f"the document's root is a {text(dataset, 'ValueType') or 'nothing'}, not a CONTAINER (PS3.3 C.17.3)"
    if is_empty(dataset, "ConceptNameCodeSequence"):
        yield "the document has no title (ConceptNameCodeSequence of its root)"
    listed = {
        text(item, "ReferencedSOPInstanceUID") for keyword in _EVIDENCE for item in evidence_of(dataset, keyword)
    }
    if any(is_empty(t, keyword) for t in items(dataset, "ContentTemplateSequence") for keyword in _TEMPLATE):
        yield "the document's template is not named (ContentTemplateSequence of its root)"
    for place, item in _tree(dataset, "1"):
        yield from (f"content item {place} {what}" for what in _wrong_item(item, listed))


def wrong_key_objects(dataset: Dataset) -> Iterator[str]:
    """The objects named are those in the evidence, and no others (PS3.3 C.17.6.2)."""
    evidence = {text(item, "ReferencedSOPInstanceUID") for item in evidence_of(dataset)}
    named = {
        text(reference, "ReferencedSOPInstanceUID")
        for _, item in _tree(dataset, "1")
        for reference in items(item, "ReferencedSOPSequence")
    }
    if evidence - named:
        yield f"{len(evidence - named)} objects are in the evidence, but not among the key objects (PS3.3 C.17.6.2)"


def _tree(item: Dataset, place: str, depth: int = 0) -> Iterator[tuple[str, Dataset]]:
    """Below an item, each with its place as 1.2.1 (PS3.3 C.17.3.2.5)."""
    for number, child in enumerate(items(item, "ContentSequence") if depth < _DEEPEST else [], 1):
        yield f"{place}.{number}", child
        yield from _tree(child, f"{place}.{number}", depth + 1)


def _wrong_item(item: Dataset, listed: set[str]) -> Iterator[str]:
    if (relation := text(item, "RelationshipType")) not in _RELATIONS:
        yield f"has the RelationshipType {relation!r}, which there is not"
    if "ReferencedContentItemIdentifier" in item:
        return  # by reference: the item itself stands elsewhere
    kind = text(item, "ValueType")
    if kind not in _VALUES:
        yield f"has the ValueType {kind!r}, which there is not"
        return
    if _VALUES[kind] and is_empty(item, _VALUES[kind]):
        yield f"is a {kind} without {_VALUES[kind]}"
    if kind in _NAMED and is_empty(item, "ConceptNameCodeSequence"):
        yield f"is a {kind} without a concept name"
    if "ConceptNameCodeSequence" in item and is_empty(item, "ConceptNameCodeSequence"):
        yield "has an empty ConceptNameCodeSequence"
    for template in items(item, "ContentTemplateSequence"):
        if lacking := [keyword for keyword in _TEMPLATE if is_empty(template, keyword)]:
            yield f"names a template without {lacking[0]}"
    if kind in _ONE_OBJECT and len(items(item, "ReferencedSOPSequence")) > 1:
        yield f"is a {kind} of several objects"
    if kind == "NUM":
        yield from _wrong_number(item)
    if kind in _AXES:
        yield from _wrong_points(item, _AXES[kind])
    for reference in items(item, "ReferencedSOPSequence"):
        if (uid := text(reference, "ReferencedSOPInstanceUID")) not in listed:
            yield f"references instance {uid}, which is not in the evidence (PS3.3 C.17.2)"


def _wrong_number(item: Dataset) -> Iterator[str]:
    """A number in a unit, or none at all, which is allowed (PS3.3 C.18.1)."""
    if "MeasuredValueSequence" not in item:
        yield "is a NUM without MeasuredValueSequence (type 2)"
    for measured in items(item, "MeasuredValueSequence"):
        found = numbers(measured, "NumericValue", 1)
        if found is None or not math.isfinite(found[0]):
            yield "is a NUM whose NumericValue is no number"
        if "FloatingPointValue" in measured and is_empty(measured, "FloatingPointValue"):
            yield "is a NUM with an empty FloatingPointValue"
        if "" in code_of(measured, "MeasurementUnitsCodeSequence"):
            yield "is a NUM without a unit"


def _wrong_points(item: Dataset, axes: int) -> Iterator[str]:
    found = value(item, "GraphicData", [])
    count = len(found) if hasattr(found, "__len__") else 1
    if count % axes:
        yield f"has {count} coordinates, which are no points of {axes}"
    if is_empty(item, "GraphicType"):
        yield "has no GraphicType"
    elif (graphic := text(item, "GraphicType")) not in _GRAPHICS[axes]:
        yield f"has the GraphicType {graphic!r}, which there is not among points of {axes} coordinates"
    elif (points := _GRAPHICS[axes][graphic]) and count != points * axes:
        yield f"is a {graphic} of {count / axes:g} points, {points} are needed"
    if axes == 3 and is_empty(item, "ReferencedFrameOfReferenceUID"):
        yield "has no ReferencedFrameOfReferenceUID"
    if axes == 2 and not any(items(child, "ReferencedSOPSequence") for child in items(item, "ContentSequence")):
        yield "is a SCOORD that is selected from no image"
