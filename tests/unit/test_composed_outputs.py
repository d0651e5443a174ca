"""Composed models that give and ask for numbers, boxes, maps, probabilities and masks that overlap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest

from dicomnode.domain.composition import faults
from dicomnode.domain.findings import VolumeBox
from dicomnode.domain.model_after import BoxGate, Crop, Limits, MapGate, NumberGate
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.box import Box, around
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ModelVersion
from tests.composed_cards import CROP, GATE, card, version
from tests.made_results import CARD
from tests.made_series import OBLIQUE
from tests.output_cards import FLOW, NODULE, SCORE, VOLUME, document, segment
from tests.unit.test_composed_job import BONE, SHAPE, asked, done, masks, values, words_in
from tests.unit.test_two_series import Bench

BRIGHTNESS = {**SCORE, "name": "Brightness", "range": [-2000, 10000]}
NUMBERS: Mapping[str, Any] = {"measurements": {"of": "series", "values": [BRIGHTNESS, VOLUME | {"name": "Less"}]}}
PER_IMAGE: Mapping[str, Any] = {"measurements": {**NUMBERS["measurements"], "of": "image"}}
BOXES: Mapping[str, Any] = {"boxes": {"classes": [NODULE], "unit": "voxels"}}
ON_IMAGES: Mapping[str, Any] = {"boxes": {"classes": [NODULE], "order": "xyxy"}}
MAP: Mapping[str, Any] = {"map": FLOW}
OVERLAP: Mapping[str, Any] = {"segments": [segment(1), segment(2)], "channels": "independent"}
PROBABILITIES: Mapping[str, Any] = {"segments": [segment(1), segment(2)], "kind": "probabilities"}

BY_NUMBER = {"model": "first", "use": "gate", "measurement": "Brightness", "at_least": -600}
BY_BOXES = {"model": "first", "use": "gate", "boxes": ["Nodule"], "at_least": 0.8}
BY_MAP = {"model": "first", "use": "gate", "map": "Perfusion", "at_least": -600, "minimum_volume_ml": 0.01}


def first(output: Mapping[str, Any], *, of_images: bool = False) -> dict[str, ModelVersion]:
    """A model of that output, as `before` of a job has it."""
    unlimited = {"intensity": {"from": [-1000, 1000], "to": [0, 1], "clip": True}}
    return {"first": version(parse_model_card(document("first", output, of_images=of_images, input=unlimited)), 21)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def said(bench: Bench, step: Mapping[str, Any], output: Mapping[str, Any], *, of_images: bool = False) -> str:
    """What a first model said to a step, or why its gate was closed."""
    outcome = done(bench.perform(asked(bench, card(step), before=first(output, of_images=of_images))))
    assert [r.kind for r in outcome.results] == (["SR"] if "skipped" in outcome.details else ["SEG", "SR"])
    return str(outcome.details.get("skipped") or f"open: {outcome.details['before'][0]['said']}")


# ----------------------------------------------------------------------------------------------------- what leads


def test_a_number_of_the_series_gates(bench: Bench) -> None:
    assert said(bench, BY_NUMBER, NUMBERS) == "open: first 1.0.0 gives a Brightness of -500"
    closed = said(bench, {**BY_NUMBER, "at_least": 0}, NUMBERS)
    assert closed == "first 1.0.0 gives a Brightness of -500, and at least 0 is needed"
    within = {**BY_NUMBER, "measurement": "Less", "at_least": -520, "at_most": -505}
    assert said(bench, within, NUMBERS) == "open: first 1.0.0 gives a Less of -510 mL"
    closed = said(bench, {**within, "at_most": -515}, NUMBERS)
    assert closed.endswith("and at least -520 and at most -515 mL is needed")


def test_what_is_no_measurement_opens_nothing(bench: Bench) -> None:
    beyond = {"measurements": {"of": "series", "values": [{**BRIGHTNESS, "range": [0, 10]}]}}
    assert said(bench, BY_NUMBER, beyond) == "first 1.0.0 gives no Brightness, and at least -600 is needed"


def test_numbers_of_images_are_counted(bench: Bench) -> None:
    """Two of the six slices have bone in them."""
    words = "first 1.0.0 gives Brightness of at least -600 on 2 of 6 images"
    assert said(bench, {**BY_NUMBER, "images_least": 2}, PER_IMAGE, of_images=True) == f"open: {words}"
    closed = said(bench, {**BY_NUMBER, "images_least": 3}, PER_IMAGE, of_images=True)
    assert closed == f"{words}, and 3 are needed"


@pytest.mark.parametrize(("output", "of_images", "count"), [(BOXES, False, "1 box"), (ON_IMAGES, True, "6 boxes")])
def test_boxes_gate(bench: Bench, output: Mapping[str, Any], *, of_images: bool, count: str) -> None:
    words = f"first 1.0.0 found {count} of Nodule with a score of at least 0.8"
    assert said(bench, BY_BOXES, output, of_images=of_images) == f"open: {words}"
    closed = said(bench, {**BY_BOXES, "boxes_least": 7}, output, of_images=of_images)
    assert closed == f"{words}, and 7 are needed"
    assert said(bench, {**BY_BOXES, "at_least": 0.95}, output, of_images=of_images).startswith("first 1.0.0 found 0 ")


def test_a_map_gates_by_where_it_is_high_or_low(bench: Bench) -> None:
    bone_ml = 2 * 4 * 6 * 0.8 * 0.8 * 2.5 / 1000
    assert said(bench, BY_MAP, MAP) == f"open: first 1.0.0 found {bone_ml:.1f} mL of Perfusion of at least -600"
    assert said(bench, {**BY_MAP, "at_least": 0}, MAP) == "first 1.0.0 found no Perfusion of at least 0"
    low = {"model": "first", "use": "gate", "map": "Perfusion", "at_most": -900, "minimum_volume_ml": 50}
    assert said(bench, low, MAP).endswith("mL of Perfusion of at most -900, and 50 mL are needed")


@pytest.mark.parametrize("output", [OVERLAP, PROBABILITIES])
def test_masks_that_overlap_and_probabilities_gate_and_crop(bench: Bench, output: Mapping[str, Any]) -> None:
    gate = {"model": "first", "use": "gate", "segments": ["Class 2"], "minimum_volume_ml": 0.01}
    assert said(bench, gate, output).startswith("open: first 1.0.0 found ")
    crop = {"model": "first", "use": "crop", "segments": ["Class 2"]}
    assert said(bench, crop, output).endswith("mL of Class 2: the box around it has 2 × 4 × 6 of 6 × 12 × 16 voxels")


@pytest.mark.parametrize(
    ("step", "output", "box"),
    [
        ({"model": "first", "use": "crop", "map": "Perfusion", "at_least": -600}, MAP, BONE),
        # of what is brighter than lung: the upper half of all slices and a voxel in the last corner
        ({"model": "first", "use": "crop", "boxes": ["Nodule"]}, BOXES, (slice(0, 6), slice(0, 12), slice(0, 16))),
    ],
)
def test_a_map_and_boxes_crop(bench: Bench, step: Mapping[str, Any], output: Mapping[str, Any], box: Any) -> None:
    outcome = done(bench.perform(asked(bench, card(step), before=first(output))))
    shape = " × ".join(str(each.stop - each.start) for each in box)
    assert f"the box around it has {shape} of 6 × 12 × 16 voxels" in outcome.details["before"][0]["said"]
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[box] = np.where(values()[box] > 400, 2, values()[box] > 200)
    np.testing.assert_array_equal(masks(bench.files(outcome)["SEG"]), expected)


def test_boxes_crop_only_to_those_that_are_sure_enough(bench: Bench) -> None:
    crop = {"model": "first", "use": "crop", "boxes": ["Nodule"], "at_least": 0.95}
    closed = said(bench, crop, BOXES)
    assert closed.endswith("found 0 boxes of Nodule with a score of at least 0.95, and 1 are needed")
    assert said(bench, {**crop, "absent": "whole"}, BOXES).endswith("; the whole series is looked at")


def test_the_voxels_of_boxes_in_a_volume_at_an_angle() -> None:
    across, down = np.reshape(OBLIQUE, (2, 3))
    affine = np.eye(4)
    affine[:3] = np.stack([2.5 * np.cross(across, down), 0.8 * down, 0.8 * across, [-100.0, -80.5, 30.25]], 1)
    geometry = VolumeGeometry((10, 20, 30), affine)
    sides = tuple(tuple((affine[:3, axis] * half).tolist()) for axis, half in enumerate((1.5, 2.5, 3.5)))
    at = (affine[:3, :3] @ [4, 7, 11] + affine[:3, 3]).tolist()
    one = VolumeBox(0, 0.9, tuple(at), sides)  # type: ignore[arg-type]
    assert around([one], geometry) == Box((3, 5, 8), (6, 10, 15))
    corner = VolumeBox(0, 0.9, tuple(affine[:3, 3].tolist()), sides)  # type: ignore[arg-type]
    assert around([corner], geometry) == Box((0, 0, 0), (2, 3, 4))
    assert around([one, corner], geometry) == Box((0, 0, 0), (6, 10, 15))
    beyond = VolumeBox(0, 0.9, tuple((affine[:3, :3] @ [40, 7, 11] + affine[:3, 3]).tolist()), sides)  # type: ignore[arg-type]
    assert around([beyond], geometry) is None


# ---------------------------------------------------------------------------------------------------- what follows


@pytest.mark.parametrize(
    ("output", "of_images", "concepts"),
    [
        (NUMBERS, False, {"Calcium score", "Volume"}),
        (PER_IMAGE, True, {"Calcium score", "Volume"}),
        (BOXES, False, {"Presence of property"}),
        (ON_IMAGES, True, {"Presence of property"}),
        (MAP, False, {"Regional Cerebral Blood Flow"}),
        (OVERLAP, False, {"Presence of property"}),
        (PROBABILITIES, False, {"Presence of property"}),
    ],
)
def test_behind_a_closed_gate_every_kind_of_model_reports_that_it_did_not_look(
    bench: Bench, output: Mapping[str, Any], *, of_images: bool, concepts: set[str]
) -> None:
    gate = {**GATE, "minimum_volume_ml": 500}
    made = document("later", output, of_images=of_images, after=[gate])
    outcome = done(bench.perform(asked(bench, parse_model_card(made))))
    assert [r.kind for r in outcome.results] == ["SR"]
    assert bench.engine.runs == ["torso-ct"]
    report = hd.sr.srread(bench.store.path(outcome.results[0].path))
    groups = report.content.get_image_measurement_groups()
    answers = {e.name.meaning: e.value.meaning for g in groups for e in g.get_qualitative_evaluations()}
    assert {name for name, answer in answers.items() if answer == "Not Evaluated"} == concepts
    assert words_in(report).count(outcome.details["skipped"]) == len(groups)


@pytest.mark.parametrize(
    ("output", "of_images", "kinds"),
    [(NUMBERS, False, ["SR"]), (BOXES, False, ["SR"]), (MAP, False, ["MAP", "SR"]), (OVERLAP, False, ["SEG", "SR"])],
)
def test_behind_an_open_gate_every_kind_of_model_runs(
    bench: Bench, output: Mapping[str, Any], *, of_images: bool, kinds: list[str]
) -> None:
    made = document("later", output, of_images=of_images, after=[GATE, {**CROP, "margin_mm": 0}])
    outcome = done(bench.perform(asked(bench, parse_model_card(made))))
    assert [r.kind for r in outcome.results] == kinds
    assert bench.engine.runs == ["torso-ct", "later"]


# ------------------------------------------------------------------------------------------------- card, registry


def test_what_a_card_says() -> None:
    crop = {**BY_BOXES, "use": "crop", "margin_mm": 5, "absent": "whole"}
    read = card(BY_NUMBER, {**BY_MAP, "at_most": 20}, crop)
    assert [step.use for step in read.after] == [
        NumberGate("Brightness", Limits(-600.0)),
        MapGate("Perfusion", Limits(-600.0, 20.0), 0.01),
        Crop(BoxGate(("Nodule",), 0.8), 5.0, "whole"),
    ]
    assert parse_model_card(card_document(read)) == read
    assert [step.use.words for step in read.after] == [
        "only if Brightness is at least -600",
        "only if it finds Perfusion of at least -600 and at most 20 in 0.01 mL",
        "only in the box around 1 or more boxes of Nodule with a score of at least 0.8, with 5 mm on every side; "
        "without it: whole",
    ]


@pytest.mark.parametrize(
    ("step", "path", "words"),
    [
        ({"model": "first", "use": "gate", "measurement": "B"}, "after[0]", "at_least or at_most is needed"),
        ({**BY_NUMBER, "at_most": -700}, "after[0].at_most", "nothing is at least -600 and at most -700"),
        ({**BY_NUMBER, "use": "crop"}, "after[0].use", "a measurement lies nowhere: it can gate, and not crop"),
        ({**BY_NUMBER, "boxes": ["Nodule"]}, "after[0]", "and only one: what is asked of first"),
        ({**BY_BOXES, "at_least": 1.5}, "after[0].at_least", "no score from 0 to 1"),
        ({**BY_BOXES, "boxes_least": 0}, "after[0].boxes_least", "no whole number above 0"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(step: Mapping[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidModelPackage) as refused:
        card(step)
    assert refused.value.path == f"model.yaml.{path}"
    assert words in refused.value.message


def test_segments_of_single_images_neither_lead_nor_follow() -> None:
    output = {"segments": [segment(1)]}
    with pytest.raises(
        InvalidModelPackage, match=r"after: a model that gives segments of single images has no others"
    ):
        parse_model_card(document("later", output, of_images=True, after=[GATE]))
    step = {**GATE, "model": "first", "segments": ["Class 1"]}
    found = [why for _, why in faults(version(card(step), 9), list(first(output, of_images=True).values()))]
    assert any("gives segments of single images, and a volume's are needed" in why for why in found)


@pytest.mark.parametrize(
    ("step", "output", "of_images", "path", "words"),
    [
        (BY_NUMBER, BOXES, False, "measurement", "has no measurement Brightness; it has: boxes"),
        ({**BY_NUMBER, "measurement": "Age"}, NUMBERS, False, "measurement", "Age; it has: Brightness, Less"),
        ({**BY_NUMBER, "images_least": 2}, NUMBERS, False, "images_least", "gives one number for the whole series"),
        (BY_BOXES, MAP, False, "boxes", "has no boxes of Nodule; it has: a map"),
        ({**BY_BOXES, "use": "crop"}, ON_IMAGES, True, "use", "gives boxes on single images"),
        ({**BY_MAP, "map": "Diffusion"}, MAP, False, "map", "has no map Diffusion; it has: Perfusion"),
        ({**GATE, "model": "first"}, NUMBERS, False, "segments", "has no segment Lungs; it has: measurements"),
    ],
)
def test_what_the_first_does_not_give_is_said(
    step: Mapping[str, Any], output: Mapping[str, Any], *, of_images: bool, path: str, words: str
) -> None:
    ((where, why),) = faults(version(card(step, base=CARD), 9), list(first(output, of_images=of_images).values()))
    assert where == f"after[0].{path}"
    assert words in why
