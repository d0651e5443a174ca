"""What a rule may set of a model: the parameters of its card, and those that every segmentation model takes."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.document import Node
from dicomnode.domain.model_output import Output

Value = str | int | float | bool

TYPES = ("number", "integer", "text", "boolean")
OVERLAP = "overlap"
MINIMUM_VOLUME_ML = "minimum_volume_ml"
MINIMUM_AREA_MM2 = "minimum_area_mm2"
THRESHOLD = "threshold"
SCORE_LEAST = "score_least"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TEXT_MOST = 64


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A parameter by its name, what it may be and what it is when nothing is said."""

    name: str
    type: str  # one of TYPES
    default: Value
    low: float | None = None  # the least it may be, of numbers
    high: float | None = None  # the most
    high_excluded: bool = False  # it stays below `high`
    one_of: tuple[Value, ...] = ()  # none: any of its type
    description: str = ""

    @property
    def allowed(self) -> str:
        """In words: "0 or more, below 1", "sharp, soft"; "" when its type says it all."""
        low = "" if self.low is None else f"{self.low:g} or more"
        high = "" if self.high is None else f"below {self.high:g}" if self.high_excluded else f"{self.high:g} or less"
        return ", ".join(filter(None, [low, high, *map(str, self.one_of)]))

    def check(self, value: object) -> str:
        """What is wrong with a value, or ""."""
        if complaint := _complaint_of_type(self.type, value):
            return complaint
        if self.one_of and value not in self.one_of:
            return f"{value!r} is not one of {', '.join(map(str, self.one_of))}"
        return self._complaint_of_range(value) if isinstance(value, int | float) else ""

    def _complaint_of_range(self, value: float) -> str:
        if self.low is not None and value < self.low:
            return f"{value:g} is below {self.low:g}"
        if self.high is not None and (value > self.high or (self.high_excluded and value == self.high)):
            return (
                f"{value:g} is not below {self.high:g}" if self.high_excluded else f"{value:g} is over {self.high:g}"
            )
        return ""


def _complaint_of_type(kind: str, value: object) -> str:
    if kind == "boolean":
        return "" if isinstance(value, bool) else f"{value!r} is not true or false"
    if kind == "text":
        return _complaint_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"{value!r} is not a number"
    return f"{value!r} is not a whole number" if kind == "integer" and not isinstance(value, int) else ""


def _complaint_of_text(value: object) -> str:
    if not isinstance(value, str):
        return f"{value!r} is not text (quote it if it looks like a number)"
    if len(value) > _TEXT_MOST or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        return f"{value[:_TEXT_MOST]!r} is over {_TEXT_MOST} characters or holds control characters"
    return ""


def built_in(overlap: float, output: Output, *, in_windows: bool = True) -> tuple[ParameterSpec, ...]:
    """What a model of this output takes; `overlap` is that of its card, which `in_windows` looks or not."""
    found = []
    of_images = output.boxes is not None and output.boxes.of_images
    if output.gives in ("segments", "boxes", "map") and not of_images and in_windows:
        windows = "share of a window that lies in the next one, along each axis"
        found.append(
            ParameterSpec(OVERLAP, "number", overlap, low=0.0, high=1.0, high_excluded=True, description=windows)
        )
    if output.gives == "segments" and output.of_images:
        parts = "connected parts of a segment smaller than this are left out, in mm²; 0: none"
        found.append(ParameterSpec(MINIMUM_AREA_MM2, "number", 0.0, low=0.0, description=parts))
    elif output.gives == "segments":
        islands = "connected parts of a segment smaller than this are left out, in mL; 0: none"
        found.append(ParameterSpec(MINIMUM_VOLUME_ML, "number", 0.0, low=0.0, description=islands))
    if output.masks.overlap:
        words = "a voxel is of a segment from this probability on"
        found.append(_probability(THRESHOLD, output.masks.threshold, words))
    if output.boxes is not None:
        found.append(_probability(SCORE_LEAST, output.boxes.score_least, "boxes with a lower score are left out"))
    return tuple(found)


def _probability(name: str, default: float, words: str) -> ParameterSpec:
    return ParameterSpec(name, "number", default, low=0.0, high=1.0, description=words)


# ---------------------------------------------------------------------------------------- reading and printing


def parameter_specs(node: Node, output: Output) -> tuple[ParameterSpec, ...]:
    """The card's own parameters, a mapping of names to what they are; by name, for a mapping has no order."""
    taken = {OVERLAP, MINIMUM_VOLUME_ML, *(spec.name for spec in built_in(0.0, output))}
    if again := sorted(taken & node.mapping().keys()):
        node[again[0]].fail(f"{again[0]} is there for every such model and cannot be declared again")
    return tuple(_parameter_spec(name, node[name]) for name in sorted(node.mapping()))


def _parameter_spec(name: str, node: Node) -> ParameterSpec:
    if not _NAME.fullmatch(name):
        node.fail(f"{name!r} is not allowed: lower-case letters, digits and '_', at most 32")
    node.only("type", "default", "at_least", "at_most", "one_of", "description")
    spec = ParameterSpec(
        name=name,
        type=(kind := node["type"].one_of(TYPES)),
        default=node["default"].value,  # type: ignore[arg-type]  # checked below
        low=_bound(node, "at_least", kind),
        high=_bound(node, "at_most", kind),
        one_of=tuple(n.value for n in node["one_of"].items()) if "one_of" in node else (),  # type: ignore[misc]
        description=node["description"].text(most=256) if "description" in node else "",
    )
    _check_choices(spec, node)
    if complaint := spec.check(spec.default):
        node["default"].fail(complaint)
    return spec


def _bound(node: Node, key: str, kind: str) -> float | None:
    if key not in node:
        return None
    if kind not in ("number", "integer"):
        node[key].fail(f"only a number has {key}")
    return node[key].number()


def _check_choices(spec: ParameterSpec, node: Node) -> None:
    """A text goes to the network as its place in the list: without a list it could not go there."""
    if spec.type == "text" and not spec.one_of:
        node.fail("a text needs one_of: the network is given the number of its place in that list, from 0")
    for choice, item in zip(spec.one_of, node["one_of"].items() if spec.one_of else (), strict=True):
        if complaint := _complaint_of_type(spec.type, choice):
            item.fail(complaint)


def parameters_document(specs: tuple[ParameterSpec, ...]) -> dict[str, Any]:
    """As parameter_specs reads it."""
    return {spec.name: _spec_document(spec) for spec in specs}


def _spec_document(spec: ParameterSpec) -> dict[str, Any]:
    document: dict[str, Any] = {"type": spec.type, "default": spec.default}
    if spec.low is not None:
        document["at_least"] = spec.low
    if spec.high is not None:
        document["at_most"] = spec.high
    if spec.one_of:
        document["one_of"] = list(spec.one_of)
    if spec.description:
        document["description"] = spec.description
    return document


# ------------------------------------------------------------------------------------------------------ values


def complaints(specs: Mapping[str, ParameterSpec], given: Mapping[str, object]) -> list[str]:
    """What is wrong with the parameters of a rule, one line each."""
    unknown = [f"{name} is no parameter of it; it takes {', '.join(specs)}" for name in given if name not in specs]
    wrong = [f"{name}: {words}" for name in given if name in specs and (words := specs[name].check(given[name]))]
    return unknown + wrong


def settled(specs: Mapping[str, ParameterSpec], given: Mapping[str, Value]) -> dict[str, Value]:
    """Every parameter with the value it has in a job; equal numbers come out as one, 1 and 1.0 too."""
    return {name: _canonical(spec, given.get(name, spec.default)) for name, spec in specs.items()}


def _canonical(spec: ParameterSpec, value: Value) -> Value:
    return float(value) if spec.type == "number" else value


def threshold_of(output: Output, values: Mapping[str, Value]) -> float:
    """From which probability on a voxel is of a segment; where segments exclude each other, nobody asks.

    A card of those may have a parameter of this name, of its own meaning.
    """
    return float(values.get(THRESHOLD, output.masks.threshold)) if output.masks.overlap else output.masks.threshold


def as_numbers(specs: tuple[ParameterSpec, ...], values: Mapping[str, Value]) -> list[float]:
    """What the network is given for the card's own parameters, in the order of their names."""
    return [_as_number(spec, values[spec.name]) for spec in specs]


def _as_number(spec: ParameterSpec, value: Value) -> float:
    return float(spec.one_of.index(value)) if spec.type == "text" else float(value)
