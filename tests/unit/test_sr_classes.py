"""The report of classes says of which images and how probable, or that nothing is certain; its check finds faults."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.domain.classification import Run, decided, runs, shares
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.encoding.check_classes import check_classes
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Predecessor
from dicomnode.encoding.results import encode_class_results, warm_up
from dicomnode.encoding.sr_classes import encode_classes, spec_of
from dicomnode.errors import NonConformant
from dicomnode.imaging.box import Box
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.images import ImagesPlan, plan_images
from dicomnode.imaging.volume import plan_volume
from tests.class_models import document
from tests.made_results import MADE
from tests.made_series import classic, enhanced
from tests.unit.test_seg import SOURCES
from tests.unit.test_sr import groups, name, number, within

HEAD, CHEST, UNSURE = [0.9, 0.06, 0.04], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25]


def card(of: str = "image") -> ModelCard:
    return parse_model_card(document("regions", of=of, certain_from=0.5))


def spec() -> Any:
    return card().classification


def made(scores: Sequence[Sequence[float]], series: Sequence[Dataset] | None = None) -> tuple[ImagesPlan, Dataset]:
    plan = plan_images(classic(len(scores)) if series is None else list(series))
    return plan, encode_classes(runs(scores, spec()), plan, card(), MADE)


def read(report: Dataset) -> Dataset:
    with odd_values_accepted():
        return dcmread(io.BytesIO(to_part10_bytes(report)))


def said(group: Dataset) -> str:
    [evaluation] = within(group, "Finding Site")
    return str(evaluation.ConceptCodeSequence[0].CodeMeaning)


def probabilities(group: Dataset) -> list[tuple[str, float]]:
    """(class, probability) in their order."""
    return [
        (str(m.ConceptCodeSequence[0].CodeMeaning), number(p)[0])
        for p in within(group, "Probability")
        for m in p.ContentSequence
        if name(m) == "Finding Site"
    ]


def images_of(group: Dataset) -> list[str]:
    return [
        str(r.ReferencedSOPInstanceUID)
        for item in group.ContentSequence
        for r in item.get("ReferencedSOPSequence", [])
    ]


def test_adjacent_images_of_a_class_are_one_run() -> None:
    scores = [HEAD, [0.8, 0.1, 0.1], CHEST, UNSURE, UNSURE, HEAD]
    found = runs(scores, spec())
    assert [(r.first, r.last, r.number) for r in found] == [(0, 1, 0), (2, 2, 1), (3, 4, None), (5, 5, 0)]
    assert (found[0].mean, found[0].least, found[2].mean) == (0.85, 0.8, None)
    assert [(s.number, s.images, s.share) for s in shares(found)] == [(0, 3, 0.5), (1, 1, 0.1667), (None, 2, 0.3333)]


def test_a_probability_at_the_threshold_is_certain() -> None:
    assert decided([0.5, 0.3, 0.2], spec()) == 0
    assert decided([0.49, 0.31, 0.2], spec()) is None
    assert decided([0.4, 0.4, 0.2], replace(spec(), certain_from=0.0)) == 0


def test_each_run_names_its_images_its_class_and_its_probability() -> None:
    plan, report = made([HEAD, HEAD, CHEST, UNSURE])
    uids = [f.sop_instance_uid for f in plan.frames]
    *summary, heads, chest, unsure = groups(read(report))
    assert [(said(g), number(next(within(g, "Share of the images of the series")))) for g in summary] == [
        ("Head", (0.5, "1")),
        ("Chest", (0.25, "1")),
        ("Undetermined", (0.25, "1")),
    ]
    assert [(said(g), images_of(g)) for g in (heads, chest, unsure)] == [
        ("Head", uids[:2]),
        ("Chest", uids[2:3]),
        ("Undetermined", uids[3:]),
    ]
    assert probabilities(heads) == [("Head", 0.9), ("Head", 0.9), ("Chest", 0.06), ("Abdomen", 0.04)]
    assert probabilities(chest) == [("Chest", 0.7), ("Head", 0.2), ("Abdomen", 0.1)]
    assert probabilities(unsure) == [("Head", 0.4), ("Chest", 0.35), ("Abdomen", 0.25)]


def test_of_many_classes_the_most_probable_have_a_probability() -> None:
    codes = [{"value": f"c{n}", "scheme": "99T", "meaning": f"Class {n}"} for n in range(50)]
    classes = [{"name": code["meaning"], "code": code} for code in codes]
    of_many = parse_model_card(document("regions", certain_from=0.0, classes=classes))
    row = [n / 1225 for n in range(50)]  # the last is the most probable
    report = encode_classes(runs([row], spec_of(of_many)), plan_images(classic(1)), of_many, MADE)
    named = [name for name, _ in probabilities(groups(report)[-1])]
    assert named == ["Class 49", *(f"Class {n}" for n in range(29, 49))]


def test_frames_of_one_file_are_named_by_number() -> None:
    _, report = made([HEAD, CHEST, CHEST, HEAD], [enhanced(4)])
    runs_ = groups(read(report))[2:]
    assert [[r.get("ReferencedFrameNumber") for i in g.ContentSequence for r in i.get("ReferencedSOPSequence", [])]
            for g in runs_] == [[1], [[2, 3]], [4]]  # fmt: skip
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 1


def test_a_whole_series_has_one_group() -> None:
    plan = plan_volume(classic(4))
    found = runs([HEAD], card("series").classification)  # type: ignore[arg-type]
    report = encode_classes(found, plan, card("series"), MADE)
    check_classes(report, plan, card("series"))
    [group] = groups(read(report))
    assert (said(group), images_of(group)) == ("Head", [f.sop_instance_uid for f in plan.frames])
    assert probabilities(group) == [("Head", 0.9), ("Chest", 0.06), ("Abdomen", 0.04)]
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 4


@pytest.mark.parametrize("frames", [1, 4])
def test_of_all_frames_of_a_file_none_is_named(frames: int) -> None:
    """Referenced Frame Number is there where a reference is not to all of them (PS3.3 table 10-3)."""
    plan, report = made([HEAD] * frames, [enhanced(frames)])
    run = groups(read(report))[-1]
    assert images_of(run) == [plan.frames[0].sop_instance_uid]
    assert "Referenced Frame Number" not in str(run)
    check_classes(report, plan, card())


@pytest.mark.parametrize("source", SOURCES)
def test_a_class_of_a_region_has_its_surface(source: str) -> None:
    """The outer edges of the voxels that were looked at."""
    plan, box = plan_volume(SOURCES[source]()), Box((1, 2, 3), (3, 7, 5))
    found = runs([HEAD], spec_of(card("series")))
    (result,) = encode_class_results(found, plan, card("series"), MADE, region=box)
    [group] = groups(dcmread(io.BytesIO(result.content)))
    faces = [np.array(i.GraphicData).reshape(-1, 3) for i in group.ContentSequence if "GraphicData" in i]
    index = (np.vstack(faces) - plan.geometry.affine[:3, 3]) @ np.linalg.inv(plan.geometry.affine[:3, :3]).T
    assert len(faces) == 6
    np.testing.assert_allclose(index.min(0), np.array(box.start) - 0.5, atol=0.01)
    np.testing.assert_allclose(index.max(0), np.array(box.stop) - 0.5, atol=0.01)
    assert said(group) == "Head"
    whole = encode_class_results(found, plan, card("series"), MADE)[0]
    assert result.sop_instance_uid != whole.sop_instance_uid


def test_a_region_elsewhere_or_none_is_refused() -> None:
    plan, series, box = plan_volume(classic(4)), card("series"), Box((1, 2, 3), (3, 7, 5))
    found = runs([HEAD], spec_of(series))
    with pytest.raises(NonConformant, match="which region"):
        check_classes(encode_classes(found, plan, series, MADE), plan, series, region=box)
    report = encode_classes(found, plan, series, MADE, region=Box((1, 2, 3), (30, 70, 50)))
    with pytest.raises(NonConformant, match="leaves the source"):
        check_classes(report, plan, series, region=box)


def test_tracking_is_of_the_thing_and_not_of_the_run() -> None:
    """The same for another version, rule and job; another for another series and for other images."""
    plan, first = made([HEAD, CHEST])
    later, elsewhere = replace(MADE, job_id="j-9", rule_name="other"), classic(2)
    for header in elsewhere:
        header.SeriesInstanceUID = "2.25.77"
    again = tracked_by(encode_classes(runs([HEAD, HEAD], spec()), plan, replace(card(), version="2.0.0"), later))
    before, other = tracked_by(first), tracked_by(made([HEAD, CHEST], elsewhere)[1])
    assert again["regions share Head"] == before["regions share Head"]
    assert set(other) == set(before)
    assert not set(other.values()) & set(before.values())
    assert len(set(before.values())) == 4


def tracked_by(report: Dataset) -> dict[str, str]:
    """Tracking Identifier → Unique Identifier."""
    return {
        str(next(within(group, "Tracking Identifier")).TextValue): str(
            next(within(group, "Tracking Unique Identifier")).UID
        )
        for group in groups(read(report))
    }


def test_the_same_result_is_the_same_object() -> None:
    _, first = made([HEAD, CHEST])
    _, noise = made([[0.900001, 0.06, 0.039999], CHEST])
    _, other = made([HEAD, HEAD])
    assert to_part10_bytes(first) == to_part10_bytes(noise)
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_an_earlier_report_is_superseded() -> None:
    plan, earlier = made([HEAD, CHEST])
    before = Predecessor(
        earlier.StudyInstanceUID, earlier.SeriesInstanceUID, earlier.SOPClassUID, earlier.SOPInstanceUID
    )
    report = encode_classes(runs([HEAD, HEAD], spec()), plan, card(), replace(MADE, predecessors=(before,)))
    [study] = report.PredecessorDocumentsSequence
    [item] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == earlier.SOPInstanceUID


def test_the_encoder_warms_up_with_such_a_card() -> None:
    warm_up(card(), MADE)
    warm_up(card("series"), MADE)


def _group(report: Dataset, number: int) -> Dataset:
    found: Dataset = groups(report)[number]
    return found


def _drop(report: Dataset, what: str) -> None:
    group = _group(report, -1)
    group.ContentSequence = [item for item in group.ContentSequence if name(item) != what]


def _reference(report: Dataset) -> Dataset:
    return next(r for i in _group(report, -1).ContentSequence for r in i.get("ReferencedSOPSequence", []))


def _other_class(report: Dataset) -> None:
    next(within(_group(report, -1), "Finding Site")).ConceptCodeSequence[0].CodeValue = "1"


def _too_probable(report: Dataset) -> None:
    next(within(_group(report, -1), "Probability")).MeasuredValueSequence[0].NumericValue = "1.5"


def _other_image(report: Dataset) -> None:
    _reference(report).ReferencedSOPInstanceUID = "2.25.99"


def _other_patient(report: Dataset) -> None:
    report.PatientID = "P-2"


def _no_evidence(report: Dataset) -> None:
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence = series.ReferencedSOPSequence[1:]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: _drop(r, "Finding Site"), "does not say one class"),
        (lambda r: _drop(r, "Tracking Identifier"), "112039"),
        (_other_class, "does not say one class"),
        (_too_probable, "1.5"),
        (_other_image, "which is not in the evidence"),
        (_other_patient, "PatientID"),
        (_no_evidence, "evidence"),
    ],
)
def test_the_check_finds_what_is_wrong(spoil: Callable[[Dataset], None], words: str) -> None:
    plan, report = made([HEAD, HEAD, CHEST])
    check_classes(report, plan, card())
    spoil(report)
    with pytest.raises(NonConformant, match=words):
        check_classes(report, plan, card())


def test_a_run_counts_its_images() -> None:
    assert Run(2, 5, 0, 0.9, 0.8).images == 4
