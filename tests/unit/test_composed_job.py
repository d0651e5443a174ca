"""A job of a composed model: from the received files to what is stored, over a fake engine of thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.errors import EngineUnavailable
from dicomnode.ports import JobFailed, JobFinished, JobOutcome, JobWork, ModelVersion
from tests.class_models import document as classifier_document
from tests.composed_cards import BY_CLASS, CROP, GATE, card, classifier, version, with_after
from tests.made_results import CARD
from tests.made_series import OBLIQUE, classic
from tests.unit.test_two_series import Bench, refusal, work_on

# Of torso-ct (and of what is made like it): Lungs above -800 HU, Bone above -600, by the fake engine's thresholds
TORSO, REGIONS = version(CARD, 11), version(classifier(), 12)
SHAPE = (6, 12, 16)
BONE = (slice(2, 4), slice(3, 7), slice(5, 11))
BEFORE: Mapping[str, ModelVersion] = {"torso-ct": TORSO, "regions": REGIONS}


def values() -> npt.NDArray[np.int16]:
    """(slice, row, column) int16, HU + 1000: air, lung in the upper half, a piece of bone and a voxel far from it."""
    stored = np.zeros(SHAPE, dtype=np.int16)
    stored[:, :6] = 300
    stored[BONE] = 500
    stored[5, 11, 15] = 300
    return stored


def labels() -> npt.NDArray[np.uint8]:
    """As torso-ct sees it."""
    found = (values() > 200).astype(np.uint8)
    found[values() > 400] = 2
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def asked(bench: Bench, model: ModelCard, series: list[Dataset] | None = None, **more: Any) -> JobWork:
    found = bench.series(classic(6, values=values()) if series is None else series, "made")
    work = work_on(bench, model, **{"before": BEFORE, **more})
    return replace(work, series=found, model=replace(work.model, id=99, digest="99" * 32))


def done(outcome: JobOutcome) -> JobFinished:
    assert isinstance(outcome, JobFinished), outcome
    return outcome


def masks(seg: Dataset) -> npt.NDArray[np.uint8]:
    """The label map of a SEG, (slice, row, column) uint8."""
    found = np.zeros(SHAPE, dtype=np.uint8)
    pixels = seg.pixel_array.reshape(-1, *SHAPE[1:])
    sources = [str(i.ReferencedSOPInstanceUID) for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    for group, plane in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[sources.index(str(source))][plane > 0] = number
    return found


def words_in(report: Dataset) -> list[str]:
    """All text values and meanings of codes of a report's measurement groups."""
    found = []
    for item in _walk(report):
        found += [str(item.TextValue)] if "TextValue" in item else []
        found += [str(c.CodeMeaning) for c in item.get("ConceptCodeSequence", [])]
    return found


def _walk(item: Dataset) -> list[Dataset]:
    return [each for child in item.get("ContentSequence", []) for each in (child, *_walk(child))]


# ----------------------------------------------------------------------------------------------------------- gate


def test_behind_an_open_gate_it_is_as_without_one(bench: Bench) -> None:
    outcome = done(bench.perform(asked(bench, card(GATE))))
    assert [r.kind for r in outcome.results] == ["SEG", "SR"]
    np.testing.assert_array_equal(masks(bench.files(outcome)["SEG"]), labels())
    assert bench.engine.runs == ["torso-ct", "nodules"]
    (first,) = outcome.details["before"]
    assert (first["model"], first["digest"]) == ("torso-ct 1.0.0", "0b" * 32)
    assert first["said"] == f"torso-ct 1.0.0 found {_ml(labels() == 1):.1f} mL of Lungs"
    assert "models before" in outcome.timings_s


def _ml(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.sum()) * 0.8 * 0.8 * 2.5 / 1000


def test_behind_a_closed_gate_nothing_is_looked_for_and_the_report_says_why(bench: Bench) -> None:
    outcome = done(bench.perform(asked(bench, card({**GATE, "minimum_volume_ml": 500}))))
    why = f"torso-ct 1.0.0 found {_ml(labels() == 1):.1f} mL of Lungs, and 500 mL are needed"
    assert outcome.details["skipped"] == why
    assert outcome.note == f"skipped, nothing was looked for, and the SR says so: {why}"
    assert bench.engine.runs == ["torso-ct"]
    files = bench.files(outcome)
    assert list(files) == ["SR"]
    words = words_in(files["SR"])
    assert words.count("Not Evaluated") == len(CARD.segments)
    assert words.count(why) == len(CARD.segments)
    assert "Absent" not in words
    assert "measurements" not in outcome.details


def test_a_segment_that_is_not_there_closes_the_gate(bench: Bench) -> None:
    air = classic(6, values=np.zeros(SHAPE, dtype=np.int16))
    outcome = done(bench.perform(asked(bench, card({**GATE, "minimum_volume_ml": 0}), air)))
    assert outcome.details["skipped"] == "torso-ct 1.0.0 found no Lungs"


def test_gates_are_asked_in_their_order_until_one_is_closed(bench: Bench) -> None:
    steps = [GATE, {**GATE, "minimum_volume_ml": 500}, CROP]
    outcome = done(bench.perform(asked(bench, card(*steps))))
    assert [one["asked"].split(" ")[0] for one in outcome.details["before"]] == ["only", "only"]
    assert bench.engine.runs == ["torso-ct"], "asked once, however many steps name it"


# ----------------------------------------------------------------------------------------------------------- crop


@pytest.mark.parametrize("reversed_order", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 20.0])
def test_a_cropped_model_sees_the_box_alone_and_its_labels_lie_where_they_lay(
    bench: Bench, reversed_order: bool, tilt: float
) -> None:
    series = classic(6, values=values(), orientation=OBLIQUE, tilt_degrees=tilt)
    work = asked(bench, card({**CROP, "margin_mm": 1.6}), series[::-1] if reversed_order else series)
    outcome = done(bench.perform(work))
    expected = np.zeros_like(labels())
    seen = (slice(1, 5), slice(1, 9), slice(3, 13))
    expected[seen] = labels()[seen]
    found = masks(bench.files(outcome)["SEG"])
    if tilt:  # rows and columns of slices that are shifted: at least the margin
        assert (found[seen] == labels()[seen]).all()
        assert not found[0].any()
    else:
        np.testing.assert_array_equal(found, expected)
    assert found[5, 11, 15] == 0, "what lies outside was not looked at"


def test_where_there_is_nothing_to_crop_to_the_card_says_what_follows(bench: Bench) -> None:
    little = {**CROP, "minimum_volume_ml": 400}
    why = f"torso-ct 1.0.0 found {_ml(labels() == 2):.1f} mL of Bone, and 400 mL are needed"
    assert done(bench.perform(asked(bench, card(little)))).details["skipped"] == why
    assert why in refusal(bench.perform(asked(bench, card({**little, "absent": "refuse"}))))
    whole = done(bench.perform(asked(bench, card({**little, "absent": "whole"}))))
    np.testing.assert_array_equal(masks(bench.files(whole)["SEG"]), labels())
    assert whole.details["before"][0]["said"] == f"{why}; the whole series is looked at"


# ----------------------------------------------------------------------------------------------------- provenance


def test_results_name_every_model_that_took_part(bench: Bench) -> None:
    files = bench.files(bench.perform(asked(bench, card(CROP))))
    for segment in files["SEG"].SegmentSequence:
        own, first = segment.SegmentationAlgorithmIdentificationSequence
        assert (own.AlgorithmName, first.AlgorithmName) == ("nodules", "torso-ct")
        assert "0b" * 32 in first.AlgorithmParameters
        assert f"after 1=torso-ct 1.0.0, digest {'0b' * 32}" in own.AlgorithmParameters.replace("': '", "=")
    for dataset in files.values():
        machines = {e.get("ManufacturerModelName"): e for e in dataset.ContributingEquipmentSequence}
        assert machines["torso-ct"].DeviceSerialNumber == "0b" * 32
        assert machines["torso-ct"].SoftwareVersions == "1.0.0"
        assert "the box around it has" in machines["torso-ct"].ContributionDescription
    assert any("after 1: torso-ct 1.0.0, digest" in words for words in words_in(files["SR"]))


def test_another_first_model_gives_other_objects_and_the_same_one_the_same(bench: Bench) -> None:
    def uids(**more: Any) -> list[str]:
        return [r.sop_instance_uid for r in done(bench.perform(asked(bench, card(GATE), **more))).results]

    changed = {"torso-ct": replace(TORSO, id=13, digest="cd" * 32)}
    assert uids() == uids()
    assert not set(uids()) & set(uids(before=changed))
    skips = card({**GATE, "minimum_volume_ml": 500})
    first, again = (done(bench.perform(asked(bench, skips))).results for _ in range(2))
    assert first == again


# --------------------------------------------------------------------------------------------- asked once, failures


def test_the_first_models_own_job_on_the_series_costs_nothing_more(bench: Bench) -> None:
    bench.perform(_own_job(bench))
    bench.perform(asked(bench, card(GATE, CROP)))
    assert bench.engine.runs == ["torso-ct", "nodules"]
    outcome = done(bench.perform(_own_job(bench)))
    assert outcome.details["inferred_before"]
    assert bench.engine.runs == ["torso-ct", "nodules"]


def _own_job(bench: Bench) -> JobWork:
    return replace(asked(bench, CARD), model=TORSO, before={})


def test_a_failure_of_the_first_is_the_jobs_in_words(bench: Bench) -> None:
    bench.engine.failures = [EngineUnavailable("Triton does not answer")]
    outcome = bench.perform(asked(bench, card(GATE)))
    assert outcome == JobFailed(
        "engine-unavailable", "torso-ct 1.0.0, which comes first: Triton does not answer", True
    )


def test_what_the_first_model_cannot_take_is_refused_in_its_name(bench: Bench) -> None:
    demanding = replace(TORSO, card=card(name="torso-ct", input={**_input(), "minimum_extent_mm": [0, 0, 250]}))
    words = refusal(bench.perform(asked(bench, card(GATE), before={"torso-ct": demanding})))
    assert words == "the model torso-ct needs 250 mm along S, this series has 15 mm"
    assert "runs after torso-ct, which was not there" in refusal(bench.perform(asked(bench, card(GATE), before={})))


def _input() -> Mapping[str, Any]:
    return {"modality": ["CT"], "spacing_mm": [3, 3, 3], "intensity": {"from": [-1000, 1000]}}


def test_one_after_the_other_after_the_other(bench: Bench) -> None:
    heart = version(card({**CROP, "margin_mm": 0.0}, name="heart"), 14)
    vessels = card({"model": "heart", "use": "crop", "segments": ["Bone"]}, name="vessels")
    outcome = done(bench.perform(asked(bench, vessels, before={**BEFORE, "heart": heart})))
    assert [one["model"] for one in outcome.details["before"]] == ["torso-ct 1.0.0", "heart 1.0.0"]
    only_bone = np.where(labels() == 2, 2, 0)
    np.testing.assert_array_equal(masks(bench.files(outcome)["SEG"]), only_bone)
    closed = version(card({**GATE, "minimum_volume_ml": 500}, name="heart"), 15)
    outcome = done(bench.perform(asked(bench, vessels, before={**BEFORE, "heart": closed})))
    assert outcome.details["skipped"].startswith("heart 1.0.0 did not look: torso-ct 1.0.0 found")


# -------------------------------------------------------------------------------------------------------- classes


def test_a_classifier_of_images_gates_a_model_of_volumes(bench: Bench) -> None:
    series = classic(6)  # slice s has a mean of 100 s - 1004 HU: three of Head, two of Chest, one of Abdomen
    outcome = done(bench.perform(asked(bench, card({**BY_CLASS, "images_least": 2}), series)))
    assert outcome.details["before"][0]["said"] == "regions 1.0.0 sees Chest on 2 of 6 images"
    assert [r.kind for r in outcome.results] == ["SEG", "SR"]
    outcome = done(bench.perform(asked(bench, card({**BY_CLASS, "images_least": 3}), series)))
    why = "regions 1.0.0 sees Chest on 2 of 6 images, and 3 with a probability of at least 0.8 are needed"
    assert outcome.details["skipped"] == why
    assert bench.engine.runs == ["regions", "nodules"]
    own = replace(asked(bench, REGIONS.card, series), model=REGIONS, before={})
    report = done(bench.perform(own))
    assert [row["images"] for row in report.details["classes"]] == [3, 2, 1]
    assert bench.engine.runs == ["regions", "nodules"], "its own job on the same images is answered already"


def test_a_class_of_the_series_gates_too(bench: Bench) -> None:
    by_series = version(parse_model_card({**classifier_document("regions", of="series"), "version": "2"}), 16)
    series, gate = classic(6), {**BY_CLASS, "class": "Head"}
    outcome = done(bench.perform(asked(bench, card(gate), series, before={"regions": by_series})))
    assert outcome.details["skipped"] == "regions 2 gives Head a probability of 0.05, and 0.8 is needed"
    outcome = done(bench.perform(asked(bench, card(BY_CLASS), series, before={"regions": by_series})))
    assert outcome.details["before"][0]["said"] == "regions 2 gives Chest a probability of 0.90"


def test_images_are_classified_behind_a_gate_in_the_volume_that_is_decoded_already(bench: Bench) -> None:
    gated = parse_model_card(with_after(GATE, base=classifier(), name="findings"))
    outcome = done(bench.perform(asked(bench, gated)))
    assert sum(row["images"] for row in outcome.details["classes"]) == 6
    assert bench.engine.runs == ["torso-ct", "findings"]
    closed = parse_model_card(with_after({**GATE, "minimum_volume_ml": 500}, base=classifier(), name="findings"))
    outcome = done(bench.perform(asked(bench, closed)))
    assert "classes" not in outcome.details
    words = words_in(bench.files(outcome)["SR"])
    assert (words.count("Not Evaluated"), words.count(outcome.details["skipped"])) == (1, 1)


def test_a_series_is_classified_by_its_box_alone(bench: Bench) -> None:
    whole = parse_model_card({**classifier_document("density", of="series"), "name": "density"})
    cropped = parse_model_card(with_after({**CROP, "margin_mm": 0.0}, base=whole, name="density"))
    assert _class_of(bench, whole) == "Head"  # -850 HU or so
    assert _class_of(bench, cropped) == "Abdomen"  # bone alone, -500 HU


def _class_of(bench: Bench, model: ModelCard) -> str:
    (run,) = done(bench.perform(asked(bench, model))).details["runs"]
    return str(run["class"])


def test_the_report_is_read_back_whole(bench: Bench, tmp_path: Path) -> None:
    outcome = done(bench.perform(asked(bench, card({**GATE, "minimum_volume_ml": 500}))))
    report = hd.sr.srread(bench.store.path(outcome.results[0].path))
    groups = report.content.get_image_measurement_groups()
    assert [group.finding_type.meaning for group in groups] == ["Lung", "Bone"]
    evaluations = [e for group in groups for e in group.get_qualitative_evaluations()]
    assert [e.value.meaning for e in evaluations if e.name.value == "121052"] == ["Not Evaluated"] * 2
    assert not [m for group in groups for m in group.get_measurements()]
    assert pydicom.dcmread(bench.store.path(outcome.results[0].path)).Modality == "SR"
