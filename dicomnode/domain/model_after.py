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
  - model: calcium                   # a model that gives numbers
    use: gate
    measurement: Agatston score      # this one
    at_least: 100                    # in the unit of its card; or at_most, or both
    images_least: 1                  # as above
  - model: nodules                   # a model that gives boxes
    use: gate
    boxes: [Nodule]                  # of these classes together
    at_least: 0.6                    # with such a score; 0, the default: every box that it gives
    boxes_least: 2                   # so many; 1 when it is left out
  - model: perfusion                 # a model that gives a map
    use: gate
    map: Perfusion
    at_most: 20                      # where it is so low; or at_least, or both
    minimum_volume_ml: 5             # in so much volume; 0, the default: any voxel
  - model: torso-ct
    use: crop                        # it is given only the box around
    segments: [Lungs]                # these together; or boxes, or a map, with what a gate may say of them
    margin_mm: 20                    # and so much more on every side; 0 when it is left out
    minimum_volume_ml: 10            # less than this counts as absent
    absent: skip                     # then it does not run; or whole: it is given everything; or refuse
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
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
    def what(self) -> str:
        least = f" of at least {self.minimum_volume_ml:g} mL" if self.minimum_volume_ml else ""
        return " and ".join(self.segments) + least

    @property
    def words(self) -> str:
        return f"only if it finds {self.what}"


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
class Limits:
    """Between what a number has to lie; None: no end on that side."""

    at_least: float | None = None
    at_most: float | None = None

    @property
    def words(self) -> str:
        ends = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)

    def hold(self, value: float) -> bool:
        low, high = self.at_least, self.at_most
        return (low is None or value >= low) and (high is None or value <= high)


@dataclass(frozen=True, slots=True)
class NumberGate:
    name: str  # of the measurement
    limits: Limits
    images_least: int = 1  # how many images have such a number

    @property
    def words(self) -> str:
        images = f" on at least {self.images_least} images" if self.images_least > 1 else ""
        return f"only if {self.name} is {self.limits.words}{images}"


@dataclass(frozen=True, slots=True)
class BoxGate:
    classes: tuple[str, ...]  # by name; their boxes are counted together
    at_least: float = 0.0  # a score
    boxes_least: int = 1

    @property
    def what(self) -> str:
        score = f" with a score of at least {self.at_least:g}" if self.at_least else ""
        return f"{self.boxes_least} or more boxes of {' and '.join(self.classes)}{score}"

    @property
    def words(self) -> str:
        return f"only if it finds {self.what}"


@dataclass(frozen=True, slots=True)
class MapGate:
    name: str  # of the map
    limits: Limits
    minimum_volume_ml: float = 0.0  # 0: any voxel

    @property
    def what(self) -> str:
        least = f" in {self.minimum_volume_ml:g} mL" if self.minimum_volume_ml else ""
        return f"{self.name} of {self.limits.words}{least}"

    @property
    def words(self) -> str:
        return f"only if it finds {self.what}"


Place = SegmentGate | BoxGate | MapGate
"""What lies somewhere in the volume."""


@dataclass(frozen=True, slots=True)
class Crop:
    around: Place
    margin_mm: float = 0.0
    absent: str = "skip"  # one of ABSENT

    @property
    def words(self) -> str:
        margin = f"with {self.margin_mm:g} mm on every side; without it: {self.absent}"
        return f"only in the box around {self.around.what}, {margin}"


Use = SegmentGate | ClassGate | NumberGate | BoxGate | MapGate | Crop


@dataclass(frozen=True, slots=True)
class Step:
    """A model that comes first, and what is made of what it says."""

    model: Reference
    use: Use


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
    reference, use = _reference(node["model"]), node["use"].one_of(USES)
    asked = [kind for kind in _READ if kind in node]
    if len(asked) != 1:
        node.fail(f"one of {', '.join(_READ)} is needed, and only one: what is asked of {reference}")
    kind = asked[0]
    if use == "gate":
        return Step(reference, _READ[kind](node, ()))
    around = _READ[kind](node, ("margin_mm", "absent"))
    if not isinstance(around, Place):
        node["use"].fail(f"a {kind} lies nowhere: it can gate, and not crop")
    return Step(
        reference,
        Crop(around, _not_negative(node, "margin_mm"), node.get("absent", "skip").one_of(ABSENT)),
    )


def _reference(node: Node) -> Reference:
    text = node.text()
    found = _REFERENCE.fullmatch(text)
    if found is None:
        node.fail(f"{text!r} is no model: a name, NAME@VERSION or NAME@sha256: with 12 to 64 digits of its digest")
    return Reference(found["name"], found["version"] or "", found["digest"] or "")


def _segment_gate(node: Node, more: Sequence[str]) -> SegmentGate:
    node.only("model", "use", "segments", "minimum_volume_ml", *more)
    return SegmentGate(_names(node["segments"]), _not_negative(node, "minimum_volume_ml"))


def _class_gate(node: Node, more: Sequence[str]) -> ClassGate:
    node.only("model", "use", "class", "at_least", "images_least", *more)
    at_least = node.get("at_least", 0.5).number()
    if not 0 < at_least <= 1:
        node["at_least"].fail(f"{at_least:g} is no probability above 0")
    return ClassGate(node["class"].text(most=64), at_least, _count(node, "images_least"))


def _number_gate(node: Node, more: Sequence[str]) -> NumberGate:
    node.only("model", "use", "measurement", "at_least", "at_most", "images_least", *more)
    return NumberGate(node["measurement"].text(most=64), _limits(node), _count(node, "images_least"))


def _box_gate(node: Node, more: Sequence[str]) -> BoxGate:
    node.only("model", "use", "boxes", "at_least", "boxes_least", *more)
    at_least = node.get("at_least", 0.0).number()
    if not 0 <= at_least <= 1:
        node["at_least"].fail(f"{at_least:g} is no score from 0 to 1")
    return BoxGate(_names(node["boxes"]), at_least, _count(node, "boxes_least"))


def _map_gate(node: Node, more: Sequence[str]) -> MapGate:
    node.only("model", "use", "map", "at_least", "at_most", "minimum_volume_ml", *more)
    return MapGate(node["map"].text(most=64), _limits(node), _not_negative(node, "minimum_volume_ml"))


_READ: Mapping[str, Callable[[Node, Sequence[str]], SegmentGate | ClassGate | NumberGate | BoxGate | MapGate]] = {
    "segments": _segment_gate,
    "class": _class_gate,
    "measurement": _number_gate,
    "boxes": _box_gate,
    "map": _map_gate,
}


def _limits(node: Node) -> Limits:
    ends = {key: node[key].number() for key in ("at_least", "at_most") if key in node}
    if not ends or not all(math.isfinite(end) for end in ends.values()):
        node.fail("at_least or at_most is needed, or both: numbers")
    limits = Limits(**ends)
    if limits.at_least is not None and not limits.hold(limits.at_least):
        node["at_most"].fail(f"nothing is {limits.words}")
    return limits


def _count(node: Node, key: str) -> int:
    number = node.get(key, 1).number()
    if number < 1 or number != int(number):
        node[key].fail(f"{number:g} is no whole number above 0")
    return int(number)


def _names(node: Node) -> tuple[str, ...]:
    names = tuple(each.text(most=64) for each in node.items())
    if not names or len(set(names)) < len(names):
        node.fail("one or more names are needed, each once")
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
    if isinstance(use, Crop):
        what = {**_asked(use.around), "margin_mm": use.margin_mm, "absent": use.absent}
        return {"use": "crop", **what}
    return {"use": "gate", **_asked(use)}


def _asked(use: SegmentGate | ClassGate | NumberGate | BoxGate | MapGate) -> dict[str, Any]:
    match use:
        case SegmentGate():
            return {"segments": list(use.segments), "minimum_volume_ml": use.minimum_volume_ml}
        case ClassGate():
            return {"class": use.name, "at_least": use.at_least, "images_least": use.images_least}
        case NumberGate():
            return {"measurement": use.name, **_ends(use.limits), "images_least": use.images_least}
        case BoxGate():
            return {"boxes": list(use.classes), "at_least": use.at_least, "boxes_least": use.boxes_least}
        case MapGate():
            return {"map": use.name, **_ends(use.limits), "minimum_volume_ml": use.minimum_volume_ml}


def _ends(limits: Limits) -> dict[str, float]:
    ends = {"at_least": limits.at_least, "at_most": limits.at_most}
    return {key: end for key, end in ends.items() if end is not None}
