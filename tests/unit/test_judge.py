"""Golden cases and engines are judged by what a model gives: numbers, boxes, maps, masks that overlap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from dicomnode.adapters.golden_cases import read_golden_cases
from dicomnode.domain.acceptance import AcceptanceOutcome
from dicomnode.domain.golden import GoldenCase, expected_array
from dicomnode.domain.model_card import parse_model_card
from dicomnode.ports import ModelVersion
from dicomnode.stages.accept import AcceptStage
from dicomnode.stages.judge import judged, likeness
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeClock
from tests.made_outputs import BOXES, BOXES_IMAGES, MAP, MEASURED, MEASURED_IMAGES, OVERLAP
from tests.output_cards import output_document

CASE = GoldenCase("one", "one.npz", "expected.npz", dice_least={1: 0.9, 2: 0.9})
BOX = [10.0, 20, 30, 0, 0, 5, 0, 4, 0, 3, 0, 0, 0.9, 0]


def f4(rows: Any) -> npt.NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def test_numbers_may_differ_by_a_share_of_themselves() -> None:
    right = judged(MEASURED, CASE, f4([[100.05, 2.0]]), f4([[100.0, 2.0]]))
    assert (right.passed, right.shown_figures) == (True, "largest difference of a number 0.0005")
    wrong = judged(MEASURED, CASE, f4([[101.0, 2.0]]), f4([[100.0, 2.0]]))
    assert (wrong.passed, wrong.words) == (False, "a number differs by 0.0100, 0.001 is allowed")
    assert not judged(MEASURED, CASE, f4([[np.nan, 2.0]]), f4([[100.0, 2.0]])).passed
    assert judged(MEASURED, CASE, f4([[np.nan, 2.0]]), f4([[np.nan, 2.0]])).passed
    assert not judged(MEASURED, CASE, f4([[1.0]]), f4([[1.0, 2.0]])).passed


def test_numbers_of_images_are_compared_column_by_column() -> None:
    expected = f4([[1000.0, 0.1], [2000.0, 0.2]])
    assert judged(MEASURED_IMAGES, CASE, expected + f4([0.5, 0.0]), expected).passed
    assert not judged(MEASURED_IMAGES, CASE, expected + f4([0.0, 0.001]), expected).passed


def test_a_map_may_differ_by_a_share_of_its_range() -> None:
    expected = np.linspace(0, 100, 60, dtype=np.float32).reshape(3, 4, 5)
    assert judged(MAP, CASE, expected + np.float32(0.05), expected).passed
    assert not judged(MAP, replace(CASE, relative_most=0.0001), expected + np.float32(0.05), expected).passed


def test_boxes_are_found_by_where_they_are() -> None:
    other = [*BOX]
    other[0], other[12] = 80.0, 0.7
    expected = f4([BOX, other])
    assert judged(BOXES, CASE, f4([other, BOX]), expected).passed  # in another order
    moved = f4([other, [11.5, *BOX[1:]]])
    assert judged(BOXES, CASE, moved, expected).words == "a corner differs by 1.5000, 1 is allowed"
    assert judged(BOXES, replace(CASE, corner_most=2.0), moved, expected).passed
    unsure = f4([other, [*BOX[:12], 0.8, 0]])
    assert "a score differs by 0.1000" in judged(BOXES, CASE, unsure, expected).words
    assert not judged(BOXES, CASE, f4([other, [*BOX[:13], 1]]), expected).passed
    assert "what is expected is (2, 14)" in judged(BOXES, CASE, f4([BOX]), expected).words
    assert judged(BOXES, CASE, f4([]).reshape(0, 14), f4([]).reshape(0, 14)).passed
    on_image = f4([[0, 1, 2, 3, 4, 0.5, 0]])
    assert judged(BOXES_IMAGES, CASE, on_image, on_image).passed
    assert not judged(BOXES_IMAGES, CASE, on_image + f4([0, 2, 0, 0, 0, 0, 0]), on_image).passed


def test_masks_that_overlap_are_judged_each_by_itself() -> None:
    expected = np.zeros((2, 2, 10, 10), np.uint8)
    expected[0, 0], expected[1] = 1, 1
    found = expected.copy()
    found[1, 0, :5] = 0
    outcome = judged(OVERLAP, CASE, found, expected)
    assert (outcome.passed, outcome.words) == (False, "Dice of Class 2 is 0.8571, 0.9 is needed")


def test_an_engine_is_as_good_as_its_answers() -> None:
    assert likeness(MEASURED, [f4([[1.0, 2.0]])], [f4([[1.0, 2.0]])]) == (0.0, "")
    most, wrong = likeness(MEASURED, [f4([[1.1, 2.0]])], [f4([[1.0, 2.0]])])
    assert (most > 0.001, wrong) == (True, "a number differs by 0.1000 from the reference's; 0.001 is allowed")
    assert likeness(BOXES, [f4([BOX, BOX])], [f4([BOX])]) == (
        1.0,
        "it gives another number of boxes than the reference",
    )


@pytest.mark.parametrize("name", ["numbers", "boxes", "boxes-on-images", "map", "overlap", "both"])
def test_cases_are_run_as_jobs_are(name: str, tmp_path: Path) -> None:
    """What the fake engine gives for a volume is what the package expects; then it is not."""
    card = parse_model_card(output_document(name))
    model = ModelVersion(1, name, "1.0.0", "ab", tmp_path, card, active=True)
    volume = np.full((4, 8, 9), -100, np.int16)
    volume[1:3, 2:5, 3:7], volume[2, 3, 4] = 100, 150
    (tmp_path / "golden").mkdir()
    np.savez(tmp_path / "golden" / "in.npz", volume=volume, affine=np.diag([2.0, 1, 1, 1]))
    cases = {"cases": [{"name": "one", "input": "in.npz", "expected": "out.npz"}]}
    (tmp_path / "golden" / "cases.yaml").write_text(yaml.safe_dump(cases))
    np.savez(tmp_path / "golden" / "out.npz", **{expected_array(card): np.zeros(1)})
    (case,) = read_golden_cases(tmp_path, card)
    stage = AcceptStage(FakeEngine((53.5, 133.5)), FakeClock(), 60.0)
    answer = stage.run_case(model, case).answer
    np.savez(tmp_path / "golden" / "out.npz", **{expected_array(card): answer})
    accepted = stage.accept(model, [case])
    assert accepted.outcome is AcceptanceOutcome.PASSED, accepted.words
    np.savez(tmp_path / "golden" / "out.npz", **{expected_array(card): np.zeros_like(answer)})
    assert stage.accept(model, [case]).outcome is AcceptanceOutcome.FAILED
