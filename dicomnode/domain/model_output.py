"""What a model gives: the `output` of a card. One of segments, a classification, measurements, boxes and a map.

See measured_output, boxes_output and map_output for the last three.

output:
  segments:
    - {number: 1, name: Lungs, category: {...}, type: {...}, colour: [0, 151, 206]}
      # diameter: true   the longest one within a slice is reported too, with its line
    # value: 4, optional: what a bundle's own label map has for it, where that is not its number
  channels: exclusive            # optional: the background's channel first, and the highest counts; or independent:
                                 # a channel a segment and none for the background, and masks may overlap
  kind: labels                   # optional: masks (SEG BINARY); probabilities (SEG FRACTIONAL); or both
  scores: logits                 # optional: what the channels hold; or probabilities
  threshold: 0.5                 # optional, of independent channels: the default of the parameter `threshold`

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
from typing import Any, TypeVar

from dicomnode.domain.boxes_output import BoxesOutput, boxes_document, boxes_output
from dicomnode.domain.coded import ClassSpec, Code, class_document, classes, code, code_document
from dicomnode.domain.document import Node
from dicomnode.domain.map_output import MapOutput, map_document, map_output
from dicomnode.domain.measured_output import MeasuredOutput, measured_document, measured_output
from dicomnode.domain.profile import FORMS

__all__ = ["ClassSpec", "Classification", "Code", "Masks", "Output", "Segment", "output_document", "parse_output"]

_Of = TypeVar("_Of", "Classification", MeasuredOutput)
OF = ("image", "series")
SCORES = ("logits", "probabilities")
CHANNELS = ("exclusive", "independent")
KINDS = ("labels", "probabilities", "both")
GIVES = ("segments", "classification", "measurements", "boxes", "map")
# What is not made of single images, which have no place in the patient
NEVER_OF_IMAGES = {
    "RTSTRUCT": "contours need a frame of reference (PS3.3 C.8.8.5), which single images have not",
    "SEG-FULL": "single images are no stack that could have gaps",
    "MAP": "a Parametric Map needs a frame of reference (PS3.3 A.75.3), which single images have not",
}


@dataclass(frozen=True, slots=True)
class Segment:
    number: int
    name: str
    category: Code
    type: Code
    colour: tuple[int, int, int]  # RGB, 0 to 255
    diameter: bool = False  # whether its longest diameter within a slice is reported
    value: int = 0  # in the label map of a package that makes one by itself; 0: its number

    @property
    def label(self) -> int:
        return self.value or self.number


@dataclass(frozen=True, slots=True)
class Masks:
    """How the network's channels become masks, and which masks are kept."""

    channels: str = "exclusive"  # one of CHANNELS
    kind: str = "labels"  # one of KINDS
    scores: str = "logits"  # one of SCORES
    threshold: float = 0.5  # of a probability, of independent channels

    @property
    def overlap(self) -> bool:
        """Whether a voxel may be of several segments."""
        return self.channels == "independent"

    @property
    def gives_labels(self) -> bool:
        return self.kind != "probabilities"

    @property
    def gives_probabilities(self) -> bool:
        return self.kind != "labels"


@dataclass(frozen=True, slots=True)
class Classification:
    of: str  # one of OF
    finding: Code
    classes: tuple[ClassSpec, ...]
    scores: str = "logits"  # one of SCORES
    certain_from: float = 0.0  # a probability


@dataclass(frozen=True, slots=True)
class Output:
    """One of the five, and of segments how their masks are made."""

    segments: tuple[Segment, ...] = ()
    masks: Masks = Masks()
    classification: Classification | None = None
    measurements: MeasuredOutput | None = None
    boxes: BoxesOutput | None = None
    map: MapOutput | None = None
    of_images: bool = False  # of segments: on each image by itself, of a card with input.size

    @property
    def gives(self) -> str:
        """One of GIVES."""
        return next((name for name in GIVES if getattr(self, name)), "segments")

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of what the model's host answers with, as ports.inference describes them."""
        if self.gives == "segments":
            masks = self.masks
            return (
                *("LABELMAP",) * (not masks.overlap),
                *("PROBABILITIES",) * (masks.overlap or masks.gives_probabilities),
            )
        return {"boxes": ("BOXES",), "map": ("MAP",)}.get(self.gives, ("SCORES",))

    @property
    def forms(self) -> tuple[str, ...]:
        """What can be made of it beside its own kinds: a page of anything."""
        if self.gives != "segments" or not self.masks.gives_labels or self.masks.overlap:
            return ("PDF",)
        return tuple(form for form in FORMS if not self.of_images or form not in NEVER_OF_IMAGES)

    def why_not(self, kind: str) -> str:
        """Why there is no such result of it, where it is not only that the model does not give it."""
        return NEVER_OF_IMAGES.get(kind, "") if self.of_images else ""

    @property
    def result_kinds(self) -> tuple[str, ...]:
        """Of the objects that come of it, in the order in which they are made; no SEG where nothing was found."""
        if self.gives == "segments":
            return (*("SEG",) * self.masks.gives_labels, *("SEG-PROB",) * self.masks.gives_probabilities, "SR")
        return ("MAP", "SR") if self.map is not None else ("SR",)


def parse_output(node: Node, *, of_images: bool, wrong_size: Node | None = None) -> Output:
    """`of_images`: of a card with input.size, at `wrong_size`, which a map does not go with."""
    masks = ("channels", "kind", "scores", "threshold") if "segments" in node else ()
    node.only(*GIVES, *masks)
    given = [name for name in GIVES if name in node]
    if len(given) != 1:
        node.fail(f"one of {', '.join(GIVES)} is needed, and no more than one")
    (name,) = given
    if name == "map" and of_images and wrong_size is not None:
        wrong_size.fail(
            "a model of single images gives no map: a Parametric Map needs a frame of reference (PS3.3 A.75.3), "
            "which radiographs and ultrasound have not; it may give segments, a classification, measurements or boxes"
        )
    part = node[name]
    if name == "segments":
        return Output(segments=segments(part), masks=_masks(node), of_images=of_images)
    if name == "classification":
        return Output(classification=_fitting(classification(part), part, of_images))
    if name == "measurements":
        return Output(measurements=_fitting(measured_output(part), part, of_images))
    if name == "boxes":
        return Output(boxes=boxes_output(part, of_images=of_images))
    return Output(map=map_output(part))


def _fitting(found: _Of, node: Node, of_images: bool) -> _Of:
    """`of` and the presence of input.size say the same."""
    what = "a class" if isinstance(found, Classification) else "a measurement"
    if (found.of == "image") != of_images:
        node["of" if "of" in node else "values"].fail(
            f"{what} of each image needs input.size, {what} of the series none"
        )
    return found


def _masks(node: Node) -> Masks:
    found = Masks(
        channels=node.get("channels", "exclusive").one_of(CHANNELS),
        kind=node.get("kind", "labels").one_of(KINDS),
        scores=node.get("scores", "logits").one_of(SCORES),
        threshold=node.get("threshold", 0.5).number(),
    )
    if "threshold" in node and (not found.overlap or not 0 < found.threshold < 1):
        node["threshold"].fail("a threshold is of independent channels, above 0 and below 1")
    return found


def segments(node: Node) -> tuple[Segment, ...]:
    found = tuple(_segment(n) for n in node.items())
    if [s.number for s in found] != list(range(1, len(found) + 1)) or not found or len(found) > 255:
        node.fail("segments are numbered 1, 2, 3, ... without a gap (PS3.3 C.8.20.2), at most 255")
    if len({s.label for s in found}) < len(found):
        node.fail("each segment has a value of its own")
    return found


def _segment(node: Node) -> Segment:
    node.only("number", "name", "category", "type", "colour", "value", "diameter")
    colour = node["colour"].numbers(3)
    if any(not 0 <= c <= 255 or c != int(c) for c in colour):
        node["colour"].fail("a colour is three whole numbers from 0 to 255")
    return Segment(
        number=int(node["number"].number()),
        name=node["name"].text(most=64),
        category=code(node["category"]),
        type=code(node["type"]),
        colour=(int(colour[0]), int(colour[1]), int(colour[2])),
        diameter=node.get("diameter", False).boolean(),
        value=_value(node["value"]) if "value" in node else 0,
    )


def _value(node: Node) -> int:
    value = node.number()
    if value != int(value) or not 1 <= value <= 255:
        node.fail("a value is a whole number from 1 to 255")
    return int(value)


def classification(node: Node) -> Classification:
    node.only("of", "finding", "classes", "scores", "certain_from")
    certain_from = node.get("certain_from", 0.0).number()
    if not 0 <= certain_from <= 1:
        node["certain_from"].fail(f"{certain_from} is no probability")
    return Classification(
        of=node.get("of", "image").one_of(OF),
        finding=code(node["finding"]),
        classes=classes(node["classes"], 2),
        scores=node.get("scores", "logits").one_of(SCORES),
        certain_from=certain_from,
    )


def output_document(found: Output) -> dict[str, Any]:
    """As parse_output reads it."""
    if found.classification is not None:
        return {"classification": _classification_document(found.classification)}
    if found.measurements is not None:
        return {"measurements": measured_document(found.measurements)}
    if found.boxes is not None:
        return {"boxes": boxes_document(found.boxes)}
    if found.map is not None:
        return {"map": map_document(found.map)}
    return {"segments": [_segment_document(s) for s in found.segments], **_masks_document(found.masks)}


def _masks_document(masks: Masks) -> dict[str, Any]:
    """What is not as every card has it."""
    plain = Masks()
    names = ("channels", "kind", "scores", "threshold")
    return {name: getattr(masks, name) for name in names if getattr(masks, name) != getattr(plain, name)}


def _classification_document(found: Classification) -> dict[str, Any]:
    return {
        "of": found.of,
        "finding": code_document(found.finding),
        "classes": [class_document(one) for one in found.classes],
        "scores": found.scores,
        "certain_from": found.certain_from,
    }


def _segment_document(segment: Segment) -> Mapping[str, Any]:
    return {
        "number": segment.number,
        "name": segment.name,
        "category": code_document(segment.category),
        "type": code_document(segment.type),
        "colour": list(segment.colour),
        **({"diameter": True} if segment.diameter else {}),
        **({"value": segment.value} if segment.value else {}),
    }
