"""Jobs of models that give numbers, boxes, a map, and masks that overlap: from received files to stored objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import parse_model_card
from dicomnode.ports import JobFinished
from tests.made_outputs import radiographs
from tests.made_series import classic
from tests.output_cards import CYST, FLOW, NODULE, SCORE, VOLUME, document, segment
from tests.unit.test_sr import groups, number, within
from tests.unit.test_two_series import Bench, work_on

SEGMENTS = [segment(1), segment(2)]
# The fake engine's thresholds are -800 and -600 HU; slice s of a made series has values about 100 s - 1000 HU


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def done(
    bench: Bench, output: dict[str, Any], series: list[Dataset] | None = None, *, of_images: bool = False, **how: Any
) -> JobFinished:
    card = parse_model_card(document("finder", output, of_images=of_images))
    work = work_on(bench, card, **how)
    if series is not None:
        work = replace(work, series=bench.series(series, "own"))
    outcome = bench.perform(work)
    assert isinstance(outcome, JobFinished), outcome
    return outcome


def kinds(outcome: JobFinished) -> list[str]:
    return [result.kind for result in outcome.results]


def test_numbers_of_a_series(bench: Bench) -> None:
    outcome = done(bench, {"measurements": {"values": [VOLUME, SCORE]}})
    assert kinds(outcome) == ["SR"]
    brightness, score = outcome.details["numbers"]
    assert (brightness["measurement"], brightness["unit"]) == ("Brightness", "mL")
    assert score["value"] is None  # below zero, which the card does not allow
    assert outcome.note == "1 number is no measurement (Agatston score), and the SR says so"


def test_numbers_of_images_that_make_no_volume(bench: Bench) -> None:
    output = {"measurements": {"of": "image", "values": [VOLUME]}}
    outcome = done(bench, output, radiographs(3), of_images=True)
    assert [row["image"] for row in outcome.details["numbers"]] == [1, 2, 3]
    assert len(groups(bench.files(outcome)["SR"])) == 3


def test_boxes_in_a_volume(bench: Bench) -> None:
    outcome = done(bench, {"boxes": {"classes": [NODULE, CYST]}})
    assert kinds(outcome) == ["SR"]
    (row,) = outcome.details["boxes"]
    assert (row["finding"], row["score"], row["depth_mm"] > 0, outcome.note) == ("Nodule", 0.9, True, "")
    said = groups(bench.files(outcome)["SR"])
    assert [next(within(g, "Finding")).ConceptCodeSequence[0].CodeMeaning for g in said] == [
        "Nodule",
        "Nodule",
        "Cyst",
    ]


def test_no_box_is_sure_enough_for_the_rule(bench: Bench) -> None:
    outcome = done(bench, {"boxes": {"classes": [NODULE]}}, parameters={"score_least": 0.95})
    assert outcome.note == "nothing was found, and the SR says so"
    assert outcome.details["boxes"] == []
    (group,) = groups(bench.files(outcome)["SR"])
    assert next(within(group, "Presence of property")).ConceptCodeSequence[0].CodeMeaning == "Absent"


def test_boxes_on_images_of_several_sizes(bench: Bench) -> None:
    series = radiographs(2)
    other = classic(1, rows=8, columns=8, series="b", SeriesInstanceUID=series[0].SeriesInstanceUID, InstanceNumber=9)
    del other[0].ImagePositionPatient
    for d in series:
        d.RescaleIntercept = -700
    outcome = done(bench, {"boxes": {"classes": [NODULE]}}, [*series, *other], of_images=True)
    assert [row["image"] for row in outcome.details["boxes"]] == [1, 2]
    assert kinds(outcome) == ["SR"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"measurements": {"values": [VOLUME, SCORE]}}, [b"Brightness", b"mL"]),
        ({"boxes": {"classes": [NODULE, CYST]}}, [b"Nodule", b"Not found: Cyst", b"depth \\(mm\\)"]),
        ({"map": FLOW}, [b"Perfusion", b"highest", b"100.g.min"]),
    ],
)
def test_who_shows_no_reports_gets_a_page(bench: Bench, output: dict[str, Any], words: list[bytes]) -> None:
    outcome = done(bench, output, forms=("SC", "PDF"))
    assert kinds(outcome)[-1] == "PDF"
    assert "SC" not in kinds(outcome)
    page = bench.files(outcome)["PDF"].EncapsulatedDocument
    assert [word for word in [*words, b"AI result, not for primary diagnosis"] if word not in page] == []


def test_a_page_has_numbers_as_the_report_has_them(bench: Bench) -> None:
    outcome = done(bench, {"measurements": {"values": [VOLUME, SCORE]}}, forms=("PDF",))
    brightness, score = outcome.details["numbers"]
    page = bench.files(outcome)["PDF"].EncapsulatedDocument
    assert f"({brightness['value']:.10g})".encode() in page
    assert score["value"] is None
    assert b"(\\227)" in page  # a dash (WinAnsiEncoding) for what is no measurement


def test_a_page_says_that_there_are_no_boxes(bench: Bench) -> None:
    outcome = done(bench, {"boxes": {"classes": [NODULE]}}, parameters={"score_least": 0.95}, forms=("PDF",))
    assert b"Not found: Nodule" in bench.files(outcome)["PDF"].EncapsulatedDocument


def test_a_map(bench: Bench) -> None:
    outcome = done(bench, {"map": FLOW})
    assert kinds(outcome) == ["MAP", "SR"]
    row = outcome.details["map"]
    assert (row["map"], row["unit"], row["least"] < row["mean"] < row["highest"]) == (
        "Perfusion",
        "ml/(100.g.min)",
        True,
    )
    made = bench.files(outcome)["MAP"]
    pixels = np.frombuffer(made.FloatPixelData, "<f4")
    assert (pixels.min(), pixels.max()) == (row["least"], row["highest"])
    report = bench.files(outcome)["SR"]
    [group] = groups(report)
    assert [number(item) for item in within(group, "Regional Cerebral Blood Flow")] == [
        (row[name], "ml/(100.g.min)") for name in ("least", "mean", "highest")
    ]
    [reference] = [r for item in group.ContentSequence for r in item.get("ReferencedSOPSequence", [])]
    assert reference.ReferencedSOPInstanceUID == made.SOPInstanceUID


def test_masks_that_overlap_are_measured_each_by_itself(bench: Bench) -> None:
    outcome = done(bench, {"segments": SEGMENTS, "channels": "independent"})
    assert kinds(outcome) == ["SEG", "SR"]
    first, second = outcome.details["measurements"]
    assert first["volume_ml"] > second["volume_ml"] > 0
    frames = {
        g.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for g in bench.files(outcome)["SEG"].PerFrameFunctionalGroupsSequence
    }
    assert frames == {1, 2}


def test_probabilities_beside_masks(bench: Bench) -> None:
    outcome = done(bench, {"segments": SEGMENTS, "kind": "both"}, objects=("SEG-PROB", "MAP"))
    assert kinds(outcome) == ["SEG", "SEG-PROB", "SR"]
    assert outcome.note == "the rule wants MAP, which finder does not give"


@pytest.mark.parametrize(
    ("output", "of_images"),
    [
        ({"measurements": {"values": [VOLUME]}}, False),
        ({"boxes": {"classes": [NODULE]}}, False),
        ({"boxes": {"classes": [NODULE]}}, True),
        ({"map": FLOW}, False),
        ({"segments": SEGMENTS, "kind": "both"}, False),
    ],
)
def test_the_same_job_again_gives_the_same_objects(bench: Bench, output: dict[str, Any], of_images: bool) -> None:
    first = done(bench, output, of_images=of_images).results
    assert done(bench, output, of_images=of_images, earlier=first).results == first
