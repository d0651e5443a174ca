"""Cards of measurements, boxes, maps and masks that overlap: read, written, refused by path, shown to people."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from dicomnode.domain.golden import expected_array, parse_golden_cases
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.domain.model_card_text import card_markdown
from dicomnode.errors import InvalidModelPackage
from tests.output_cards import CYST, FLOW, NODULE, SCORE, VOLUME, document, segment

MEASURED = {"measurements": {"values": [SCORE, VOLUME]}}
OF_IMAGES = {"measurements": {"of": "image", "values": [VOLUME]}}
BOXES = {"boxes": {"classes": [NODULE, CYST], "unit": "mm", "non_maximum_suppression": 0.3, "most": 20}}
BOXES_OF_IMAGES = {"boxes": {"classes": [NODULE], "order": "yxyx", "scores": "logits", "score_least": 0.25}}
MAP = {"map": {**FLOW, "range": [0, 200]}}
OVERLAPPING = {"segments": [segment(1), segment(2)], "channels": "independent", "threshold": 0.4}
BOTH = {"segments": [segment(1), segment(2)], "kind": "both", "scores": "probabilities"}


def made(output: dict[str, Any], *, of_images: bool = False) -> dict[str, Any]:
    return document("some", output, of_images=of_images)


@pytest.mark.parametrize(
    ("output", "of_images", "gives", "kinds", "takes"),
    [
        (MEASURED, False, "measurements", ("SR",), []),
        (OF_IMAGES, True, "measurements", ("SR",), []),
        (BOXES, False, "boxes", ("SR",), ["overlap", "score_least"]),
        (BOXES_OF_IMAGES, True, "boxes", ("SR",), ["score_least"]),
        (MAP, False, "map", ("MAP", "SR"), ["overlap"]),
        (OVERLAPPING, False, "segments", ("SEG", "SR"), ["overlap", "minimum_volume_ml", "threshold"]),
        (BOTH, False, "segments", ("SEG", "SEG-PROB", "SR"), ["overlap", "minimum_volume_ml"]),
        ({**BOTH, "kind": "probabilities"}, False, "segments", ("SEG-PROB", "SR"), ["overlap", "minimum_volume_ml"]),
    ],
)
def test_a_card_survives_being_written_and_read(
    output: dict[str, Any], of_images: bool, gives: str, kinds: tuple[str, ...], takes: list[str]
) -> None:
    card = parse_model_card(made(output, of_images=of_images))
    assert parse_model_card(yaml.safe_load(yaml.safe_dump(card_document(card)))) == card
    assert (card.gives, card.output.result_kinds, list(card.parameters)) == (gives, kinds, takes)
    assert hash(card) == hash(parse_model_card(card_document(card)))
    assert "## Gives" in card_markdown(card, [], None, [])


def test_the_defaults_are_those_of_most_networks() -> None:
    card = parse_model_card(made({"boxes": {"classes": [NODULE]}}))
    assert card.boxes is not None
    assert (card.boxes.unit, card.boxes.edges, card.boxes.non_maximum_suppression) == ("voxels", False, None)
    assert card.parameters["score_least"].default == 0.5
    of_images = parse_model_card(made(BOXES_OF_IMAGES, of_images=True)).boxes
    assert of_images is not None
    assert of_images.edges
    plain = parse_model_card(made({"segments": [segment(1)]}))
    assert (plain.masks.overlap, plain.masks.gives_labels, plain.masks.gives_probabilities) == (False, True, False)
    assert card_document(plain)["output"].keys() == {"segments"}


@pytest.mark.parametrize(
    ("output", "of_images", "path", "value", "words"),
    [
        (MEASURED, False, "output.boxes", BOXES["boxes"], "output: one of segments"),
        (MEASURED, False, "output", {}, "output: one of segments"),
        (MEASURED, True, "output.measurements.of", "series", "measurements.of: a measurement of each image needs"),
        (OF_IMAGES, False, "output.measurements.of", "image", "measurements.of: a measurement of each image needs"),
        (MEASURED, False, "output.measurements.values.0.unit", "milli litre", "unit: 'milli litre' is no UCUM code"),
        (MEASURED, False, "output.measurements.values.0.range", [5, 5], "range: 5.0 is not below 5.0"),
        (MEASURED, False, "output.measurements.values.1.name", "Agatston score", "values: 1 to 255 values"),
        (MEASURED, False, "output.measurements.values.0.site", {}, "unknown: site"),
        (BOXES, False, "output.boxes.classes", [], "classes: 1 to 255 classes"),
        (BOXES, False, "output.boxes.order", "xyxy", "unknown: order"),
        (BOXES, False, "output.boxes.most", 0, "most: 0 is no whole number from 1 to 1000"),
        (BOXES, False, "output.boxes.non_maximum_suppression", 1.5, "suppression: 1.5 is not from 0 to 1"),
        (BOXES_OF_IMAGES, True, "output.boxes.unit", "mm", "unknown: unit"),
        (BOXES, False, "parameters", {"score_least": {"type": "number", "default": 1}}, "score_least is there"),
        (MAP, False, "output.map.unit", "", "unit: "),
        (MAP, False, "output.map.range", [200, 0], "range: 200.0 is not below 0.0"),
        (MAP, True, "output.map.name", "x", "input.size: a model of single images gives"),
        (OVERLAPPING, False, "output.threshold", 1, "threshold: a threshold is of independent channels"),
        (OVERLAPPING, False, "parameters", {"threshold": {"type": "number", "default": 1}}, "threshold is there"),
        (BOTH, False, "output.threshold", 0.5, "threshold: a threshold is of independent channels"),
        (BOTH, False, "output.kind", "fractional", "kind: 'fractional' is not one of"),
        (BOTH, False, "network.format", "nnunet", "output: a nnunet gives segments as its own chain"),
        (MAP, False, "network.format", "monai-bundle", "output: a monai-bundle gives segments"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(
    output: dict[str, Any], of_images: bool, path: str, value: object, words: str
) -> None:
    card = copy.deepcopy(made(output, of_images=of_images))
    *parents, last = path.split(".")
    place: Any = card
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    with pytest.raises(InvalidModelPackage) as raised:
        parse_model_card(card)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            MEASURED,
            ["Agatston score", "Calcium score (112058, DCM)", "Coronary artery (41801008, SCT)", "0 to 10000"],
        ),
        (BOXES, ["Nodule (27925004, SCT)", "0.5 or more", "at most 0.3 within a class"]),
        (MAP, ["Perfusion", "ml/(100.g.min)", "0 to 200"]),
        (OVERLAPPING, ["may overlap others", "threshold"]),
        (BOTH, ["overlaps no other; and probabilities"]),
    ],
)
def test_people_can_read_what_it_gives(output: dict[str, Any], words: list[str]) -> None:
    text = card_markdown(parse_model_card(made(output)), [], None, [])
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("output", "name", "tolerance", "others"),
    [
        (MEASURED, "values", "relative_most", ["dice_least", "difference_most"]),
        (BOXES, "boxes", "corner_most", ["dice_least", "relative_most"]),
        (MAP, "map", "relative_most", ["dice_least", "difference_most"]),
        (OVERLAPPING, "masks", "dice_least", ["relative_most", "difference_most"]),
    ],
)
def test_golden_cases_have_the_tolerances_of_what_is_given(
    output: dict[str, Any], name: str, tolerance: str, others: list[str]
) -> None:
    card = parse_model_card(made(output))
    case = {"name": "one", "input": "one.npz", "expected": "expected.npz", tolerance: 0.25}
    (parsed,) = parse_golden_cases({"cases": [case]}, card)
    assert (expected_array(card), getattr(parsed, tolerance)) in ((name, 0.25), (name, {1: 0.25, 2: 0.25}))
    for other in others:
        with pytest.raises(InvalidModelPackage, match=f"unknown: {other}"):
            parse_golden_cases({"cases": [{**case, other: 0.5}]}, card)
