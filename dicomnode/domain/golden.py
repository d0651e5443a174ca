"""Golden cases: what a model package says its model must give, on any machine and engine. `golden/cases.yaml`:

cases:
  - name: trunk
    input: trunk.npz             # or a folder of DICOM files; a path in golden/
    roles: {pet: pet}            # folders of the card's further series, when input is a folder
    expected: trunk-labels.npz   # the arrays that EXPECTED names
    dice_least: 0.999            # of every segment; or {Lungs: 0.999, Bone: 0.99}, the default for what is not named
    parameters: {overlap: 0.5}   # optional, as a rule would set them

What is not masks has other tolerances in place of dice_least: see TOLERANCES. Every difference is the largest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dicomnode.domain.document import Node
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_parameter import complaints
from dicomnode.domain.rules import Parameter
from dicomnode.errors import InvalidModelPackage

GOLDEN_FOLDER, CASES_FILE = "golden", "cases.yaml"
DICE_LEAST, DIFFERENCE_MOST = 0.999, 0.01
RELATIVE_MOST, MM_MOST = 0.001, 1.0
# By what a card gives: names of tolerances and their defaults. A probability's and a score's difference; that of a
# number or of a map's voxel as a share of the range of what is expected; that of a corner of a box in mm or pixels
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "segments": {},
    "classification": {"difference_most": DIFFERENCE_MOST},
    "measurements": {"relative_most": RELATIVE_MOST},
    "map": {"relative_most": RELATIVE_MOST},
    "boxes": {"difference_most": DIFFERENCE_MOST, "corner_most": MM_MOST},
}
# labels (slice, row, column) uint8; masks, of segments that may overlap, (segment, slice, row, column) uint8, 0 or 1;
# scores (image, class) float32; values (image, value) float32; map (slice, row, column) float32; boxes (n, 14)
# float32: centre, LPS mm, three half sides as LPS vectors, score and class; of images (n, 7): image, column, row,
# column, row, score and class
EXPECTED = {
    "classification": "scores",
    "measurements": "values",
    "map": "map",
    "boxes": "boxes",
}
_CASES_MOST = 100


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """Paths are relative to the golden folder."""

    name: str
    input: str
    expected: str
    dice_least: Mapping[int, float] = field(default_factory=dict)  # by segment number; all of the card's
    difference_most: float = DIFFERENCE_MOST
    relative_most: float = RELATIVE_MOST
    corner_most: float = MM_MOST
    roles: Mapping[str, str] = field(default_factory=dict)  # role → folder
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def parse_golden_cases(document: object, card: ModelCard) -> tuple[GoldenCase, ...]:
    """Raises InvalidModelPackage with the path of what is wrong."""
    root = Node(document, f"{GOLDEN_FOLDER}/{CASES_FILE}", InvalidModelPackage)
    root.only("cases")
    cases = tuple(_case(node, card) for node in root["cases"].items())
    if not 0 < len(cases) <= _CASES_MOST or len({case.name for case in cases}) < len(cases):
        root["cases"].fail(f"1 to {_CASES_MOST} cases are needed, each with a name of its own")
    return cases


def expected_array(card: ModelCard) -> str:
    """The name of the array that a case of this card expects."""
    return EXPECTED.get(card.gives, "masks" if card.masks.overlap else "labels")


def _case(node: Node, card: ModelCard) -> GoldenCase:
    has_masks, tolerances = card.gives == "segments", TOLERANCES[card.gives]
    node.only("name", "input", "roles", "expected", *("dice_least",) * has_masks, *tolerances, "parameters")
    return GoldenCase(
        name=node["name"].text(most=64),
        input=_path(node["input"]),
        expected=_path(node["expected"]),
        dice_least=_dice_least(node, card) if has_masks else {},
        roles={name: _path(node["roles"][name]) for name in node.get("roles", {}).mapping()},
        parameters=_parameters(node.get("parameters", {}), card),
        **{name: _above_zero(node.get(name, default)) for name, default in tolerances.items()},
    )


def _path(node: Node) -> str:
    text = node.text()
    if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
        node.fail(f"{text!r} leaves the package")
    return text


def _dice_least(node: Node, card: ModelCard) -> dict[int, float]:
    given = node.get("dice_least", DICE_LEAST)
    if not isinstance(given.value, Mapping):
        least = _share(given)
        return {segment.number: least for segment in card.segments}
    given.only(*(segment.name for segment in card.segments))
    return {segment.number: _share(given.get(segment.name, DICE_LEAST)) for segment in card.segments}


def _share(node: Node) -> float:
    number = node.number()
    if not 0 < number <= 1:
        node.fail(f"{number} is not above 0 and at most 1")
    return number


def _above_zero(node: Node) -> float:
    if (number := node.number()) <= 0:
        node.fail(f"{number} is not above zero")
    return number


def _parameters(node: Node, card: ModelCard) -> dict[str, Parameter]:
    given = {name: value for name, value in node.mapping().items() if isinstance(value, str | int | float | bool)}
    wrong = complaints(card.parameters, given)
    if wrong or len(given) < len(node.mapping()):
        node.fail("; ".join(wrong) or "parameters are texts, numbers, true or false")
    return given
