"""Golden cases: what a model package says its model must give, on any machine and engine. `golden/cases.yaml`:

cases:
  - name: trunk
    input: trunk.npz             # or a folder of DICOM files; a path in golden/
    roles: {pet: pet}            # folders of the card's further series, when input is a folder
    expected: trunk-labels.npz   # labels (slice, row, column) uint8, or scores float32
    dice_least: 0.999            # of every segment; or {Lungs: 0.999, Bone: 0.99}, the default for what is not named
    parameters: {overlap: 0.5}   # optional, as a rule would set them

A case of scores has `difference_most` (default 0.01) in place of dice_least.
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
_CASES_MOST = 100


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """Paths are relative to the golden folder."""

    name: str
    input: str
    expected: str
    dice_least: Mapping[int, float] = field(default_factory=dict)  # by segment number; all of the card's
    difference_most: float = DIFFERENCE_MOST
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


def _case(node: Node, card: ModelCard) -> GoldenCase:
    is_of_scores = card.classification is not None
    judged_by = "difference_most" if is_of_scores else "dice_least"
    node.only("name", "input", "roles", "expected", judged_by, "parameters")
    return GoldenCase(
        name=node["name"].text(most=64),
        input=_path(node["input"]),
        expected=_path(node["expected"]),
        dice_least={} if is_of_scores else _dice_least(node, card),
        difference_most=_above_zero(node.get("difference_most", DIFFERENCE_MOST)),
        roles={name: _path(node["roles"][name]) for name in node.get("roles", {}).mapping()},
        parameters=_parameters(node.get("parameters", {}), card),
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
