"""What a model gives: the `output` of a card. Segments, or a class for each image or for the whole series.

output:
  segments:
    - {number: 1, name: Lungs, category: {...}, type: {...}, colour: [0, 151, 206]}
    # value: 4, optional: what a bundle's own label map has for it, where that is not its number

output:
  classification:
    of: image                    # each image by itself, or series: the whole volume at once
    finding: {value: "363698007", scheme: SCT, meaning: Finding Site}   # the concept that a class is a value of
    classes:                     # in the order of the network's scores
      - {name: Head, code: {value: "69536005", scheme: SCT, meaning: Head}}
    scores: logits               # or probabilities, which add up to 1
    certain_from: 0.5            # optional: below this probability nothing is said of an image
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.document import Node

OF = ("image", "series")
SCORES = ("logits", "probabilities")
_CLASSES_LEAST, _CLASSES_MOST = 2, 255


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Segment:
    number: int
    name: str
    category: Code
    type: Code
    colour: tuple[int, int, int]  # RGB, 0 to 255
    value: int = 0  # in the label map of a package that makes one by itself; 0: its number

    @property
    def label(self) -> int:
        return self.value or self.number


@dataclass(frozen=True, slots=True)
class ClassSpec:
    name: str
    code: Code


@dataclass(frozen=True, slots=True)
class Classification:
    of: str  # one of OF
    finding: Code
    classes: tuple[ClassSpec, ...]
    scores: str = "logits"  # one of SCORES
    certain_from: float = 0.0  # a probability


def segments(node: Node) -> tuple[Segment, ...]:
    found = tuple(_segment(n) for n in node.items())
    if [s.number for s in found] != list(range(1, len(found) + 1)) or not found or len(found) > 255:
        node.fail("segments are numbered 1, 2, 3, ... without a gap (PS3.3 C.8.20.2), at most 255")
    if len({s.label for s in found}) < len(found):
        node.fail("each segment has a value of its own")
    return found


def _segment(node: Node) -> Segment:
    node.only("number", "name", "category", "type", "colour", "value")
    colour = node["colour"].numbers(3)
    if any(not 0 <= c <= 255 or c != int(c) for c in colour):
        node["colour"].fail("a colour is three whole numbers from 0 to 255")
    return Segment(
        number=int(node["number"].number()),
        name=node["name"].text(most=64),
        category=code(node["category"]),
        type=code(node["type"]),
        colour=(int(colour[0]), int(colour[1]), int(colour[2])),
        value=_value(node["value"]) if "value" in node else 0,
    )


def _value(node: Node) -> int:
    value = node.number()
    if value != int(value) or not 1 <= value <= 255:
        node.fail("a value is a whole number from 1 to 255")
    return int(value)


def classification(node: Node) -> Classification:
    node.only("of", "finding", "classes", "scores", "certain_from")
    classes = tuple(_class(n) for n in node["classes"].items())
    names = {one.name for one in classes}
    if not _CLASSES_LEAST <= len(classes) <= _CLASSES_MOST or len(names) < len(classes):
        node["classes"].fail(f"{_CLASSES_LEAST} to {_CLASSES_MOST} classes are needed, each with a name of its own")
    certain_from = node.get("certain_from", 0.0).number()
    if not 0 <= certain_from <= 1:
        node["certain_from"].fail(f"{certain_from} is no probability")
    return Classification(
        of=node.get("of", "image").one_of(OF),
        finding=code(node["finding"]),
        classes=classes,
        scores=node.get("scores", "logits").one_of(SCORES),
        certain_from=certain_from,
    )


def _class(node: Node) -> ClassSpec:
    node.only("name", "code")
    return ClassSpec(node["name"].text(most=64), code(node["code"]))


def code(node: Node) -> Code:
    node.only("value", "scheme", "meaning")
    return Code(node["value"].text(most=16), node["scheme"].text(most=16), node["meaning"].text(most=64))


def output_document(found: tuple[Segment, ...], classes: Classification | None) -> dict[str, Any]:
    """As `segments` and `classification` read it."""
    document: dict[str, Any] = {}
    if found:
        document["segments"] = [_segment_document(s) for s in found]
    if classes is not None:
        document["classification"] = {
            "of": classes.of,
            "finding": _code_document(classes.finding),
            "classes": [{"name": c.name, "code": _code_document(c.code)} for c in classes.classes],
            "scores": classes.scores,
            "certain_from": classes.certain_from,
        }
    return document


def _segment_document(segment: Segment) -> Mapping[str, Any]:
    return {
        "number": segment.number,
        "name": segment.name,
        "category": _code_document(segment.category),
        "type": _code_document(segment.type),
        "colour": list(segment.colour),
        **({"value": segment.value} if segment.value else {}),
    }


def _code_document(found: Code) -> dict[str, str]:
    return {"value": found.value, "scheme": found.scheme, "meaning": found.meaning}
