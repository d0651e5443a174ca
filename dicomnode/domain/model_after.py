"""Models that come before a model: the `after` of a card. One lets it run or not, another says where it looks.

after:                               # in this order
  - model: torso-ct                  # its active version; or torso-ct@1.0.0, or torso-ct@sha256:3f2a9c01d4e5
    use: gate                        # it runs only if
    segments: [Lungs]                # these together
    minimum_volume_ml: 500           # have so much volume; 0, the default: any voxel
  - model: slice-ct-region           # a model that gives classes
    use: gate
    class: Chest                     # this one
    at_least: 0.8                    # with such a probability, 0.5 when it is left out
    images_least: 3                  # on so many images, 1 when it is left out; of a model of single images
  - model: torso-ct
    use: crop                        # it is given only the box around
    segments: [Lungs]                # these together
    margin_mm: 20                    # and so much more on every side; 0 when it is left out
    minimum_volume_ml: 10            # less than this counts as absent
    absent: skip                     # then it does not run; or whole: it is given everything; or refuse
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.document import Node

USES = ("gate", "crop")
ABSENT = ("skip", "whole", "refuse")
STEPS_MOST = 4
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._-]{0,47})"
    r"(@(sha256:(?P<digest>[0-9a-f]{12,64})|(?P<version>[A-Za-z0-9][A-Za-z0-9.+_-]{0,31})))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """Which version of a model is meant: the active one, one by its version, or one by its digest's beginning."""

    name: str
    version: str = ""
    digest: str = ""

    @property
    def is_of_active(self) -> bool:
        return not self.version and not self.digest

    def __str__(self) -> str:
        pinned = f"sha256:{self.digest}" if self.digest else self.version
        return f"{self.name}@{pinned}" if pinned else self.name


@dataclass(frozen=True, slots=True)
class SegmentGate:
    segments: tuple[str, ...]  # by name; their volumes are added up
    minimum_volume_ml: float = 0.0  # 0: any voxel

    @property
    def words(self) -> str:
        return f"only if it finds {_in_words(self.segments, self.minimum_volume_ml)}"


@dataclass(frozen=True, slots=True)
class ClassGate:
    name: str  # of the class
    at_least: float = 0.5  # a probability
    images_least: int = 1  # how many images have it with that probability

    @property
    def words(self) -> str:
        images = f" on at least {self.images_least} images" if self.images_least > 1 else ""
        return f"only if {self.name} has a probability of at least {self.at_least:g}{images}"


@dataclass(frozen=True, slots=True)
class Crop:
    segments: tuple[str, ...]  # by name; one box around them all
    margin_mm: float = 0.0
    minimum_volume_ml: float = 0.0
    absent: str = "skip"  # one of ABSENT

    @property
    def words(self) -> str:
        found = _in_words(self.segments, self.minimum_volume_ml)
        return f"only in the box around {found}, with {self.margin_mm:g} mm on every side; without it: {self.absent}"


Use = SegmentGate | ClassGate | Crop


@dataclass(frozen=True, slots=True)
class Step:
    """A model that comes first, and what is made of what it says."""

    model: Reference
    use: Use


def _in_words(segments: tuple[str, ...], minimum_volume_ml: float) -> str:
    least = f" of at least {minimum_volume_ml:g} mL" if minimum_volume_ml else ""
    return " and ".join(segments) + least


# ----------------------------------------------------------------------------------------- reading and printing


def steps_after(node: Node, name: str, *, of_images: bool) -> tuple[Step, ...]:
    """`after` of the card of the model `name`; `of_images`: it is given single images, which have no box."""
    steps = tuple(_step(each) for each in node.items())
    if len(steps) > STEPS_MOST:
        node.fail(f"at most {STEPS_MOST} models come first")
    crops = [n for n, step in enumerate(steps) if isinstance(step.use, Crop)]
    if crops and of_images:
        node.fail(f"a model of single images is not cropped: [{crops[0]}] can only be a gate")
    if len(crops) > 1:
        node.fail("there is one crop at most: name several segments in it for one box around them all")
    for each, step in zip(node.items(), steps, strict=True):
        if step.model.name == name and step.model.is_of_active:
            each["model"].fail(f"{name} cannot come after itself")
    return steps


def _step(node: Node) -> Step:
    reference = _reference(node["model"])
    if node["use"].one_of(USES) == "crop":
        return Step(reference, _crop(node))
    return Step(reference, _class_gate(node) if "class" in node else _segment_gate(node))


def _reference(node: Node) -> Reference:
    text = node.text()
    found = _REFERENCE.fullmatch(text)
    if found is None:
        node.fail(f"{text!r} is no model: a name, NAME@VERSION or NAME@sha256: with 12 to 64 digits of its digest")
    return Reference(found["name"], found["version"] or "", found["digest"] or "")


def _segment_gate(node: Node) -> SegmentGate:
    node.only("model", "use", "segments", "minimum_volume_ml")
    if "segments" not in node:
        node.fail("segments is missing, or class: what a gate asks for")
    return SegmentGate(_segments(node["segments"]), _not_negative(node, "minimum_volume_ml"))


def _class_gate(node: Node) -> ClassGate:
    node.only("model", "use", "class", "at_least", "images_least")
    at_least = node.get("at_least", 0.5).number()
    if not 0 < at_least <= 1:
        node["at_least"].fail(f"{at_least:g} is no probability above 0")
    images = node.get("images_least", 1).number()
    if images < 1 or images != int(images):
        node["images_least"].fail(f"{images:g} is no whole number above 0")
    return ClassGate(node["class"].text(most=64), at_least, int(images))


def _crop(node: Node) -> Crop:
    node.only("model", "use", "segments", "margin_mm", "minimum_volume_ml", "absent")
    return Crop(
        _segments(node["segments"]),
        _not_negative(node, "margin_mm"),
        _not_negative(node, "minimum_volume_ml"),
        node.get("absent", "skip").one_of(ABSENT),
    )


def _segments(node: Node) -> tuple[str, ...]:
    names = tuple(each.text(most=64) for each in node.items())
    if not names or len(set(names)) < len(names):
        node.fail("one or more names of segments are needed, each once")
    return names


def _not_negative(node: Node, key: str) -> float:
    number = node.get(key, 0.0).number()
    if not 0 <= number < float("inf"):
        node[key].fail(f"{number:g} is not 0 or more")
    return number


def after_document(steps: tuple[Step, ...]) -> list[dict[str, Any]]:
    """As steps_after reads it."""
    return [{"model": str(step.model), **_use_document(step.use)} for step in steps]


def _use_document(use: Use) -> dict[str, Any]:
    match use:
        case SegmentGate():
            return {"use": "gate", "segments": list(use.segments), "minimum_volume_ml": use.minimum_volume_ml}
        case ClassGate():
            return {"use": "gate", "class": use.name, "at_least": use.at_least, "images_least": use.images_least}
        case Crop():
            return {
                "use": "crop",
                "segments": list(use.segments),
                "margin_mm": use.margin_mm,
                "minimum_volume_ml": use.minimum_volume_ml,
                "absent": use.absent,
            }
