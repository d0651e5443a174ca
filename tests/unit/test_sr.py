"""The report says volume and mean of each segment, and says so when there is nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.encoding.check import check_report
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Predecessor
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.sr import encode_report
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.measure import measure, with_diameters
from dicomnode.imaging.volume import plan_volume
from tests.made_results import CARD, MADE, result, two_fs
from tests.made_series import OBLIQUE, classic, enhanced, pixels


def written(dataset: Dataset) -> Dataset:
    with odd_values_accepted():
        return dcmread(io.BytesIO(to_part10_bytes(dataset)))


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def within(item: Dataset, *names: str) -> Iterator[Dataset]:
    """Content items down the path of concept names."""
    for child in item.get("ContentSequence", []):
        if name(child) == names[0]:
            if len(names) == 1:
                yield child
            else:
                yield from within(child, *names[1:])


def groups(report: Dataset) -> list[Dataset]:
    return list(within(report, "Imaging Measurements", "Measurement Group"))


def number(item: Dataset) -> tuple[float, str]:
    [measured] = item.MeasuredValueSequence
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


DERIVATIONS = ["Mean", "Minimum", "Maximum", "Standard Deviation"]


def test_a_diameter_is_reported_with_its_line_where_the_card_asks() -> None:
    card = replace(
        CARD, output=replace(CARD.output, segments=(replace(CARD.segments[0], diameter=True), CARD.segments[1]))
    )
    plan = plan_volume(classic(orientation=OBLIQUE, spacing=(0.7, 0.9)))
    labels = two_fs(plan.geometry.shape)
    masks = SegmentMasks(labels)
    numbers = measure(labels, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])
    statistics = with_diameters(numbers, masks, plan.frames, {1})
    file = encode_segmentation(labels, plan, card, MADE)
    assert file is not None
    report = encode_report(statistics, plan, card, MADE, file.header)
    check_report(report, plan, file.header)
    first, second, drawn = groups(written(report))
    [axis] = within(drawn, "Long axis")
    assert (
        next(within(drawn, "Tracking Identifier")).TextValue == next(within(first, "Tracking Identifier")).TextValue
    )
    [line] = [item for item in axis.ContentSequence if item.ValueType == "SCOORD3D"]
    ends = np.array(line.GraphicData).reshape(2, 3)
    assert number(axis) == (pytest.approx(np.linalg.norm(ends[1] - ends[0]), rel=1e-4), "mm")
    index = np.linalg.inv(plan.geometry.affine) @ np.vstack([ends.T, [1, 1]])
    assert len(set(np.rint(index[0]).astype(int))) == 1  # both ends in one slice
    assert not list(within(second, "Long axis"))


def test_each_segment_has_its_volume_and_mean() -> None:
    plan, labels, seg, sr = result()
    report = written(sr)
    assert seg is not None
    statistics = measure(labels, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])

    assert len(groups(report)) == 2
    for group, s, segment in zip(groups(report), statistics, CARD.segments, strict=True):
        [volume], voxels = within(group, "Volume"), list(within(group, "Attenuation Coefficient"))
        mean, least, most, spread = voxels
        assert number(volume) == (pytest.approx(s.volume_ml, rel=1e-5), "mL")
        assert number(mean) == (pytest.approx(s.mean, rel=1e-5), "[hnsf'U]")
        assert [next(within(v, "Derivation")).ConceptCodeSequence[0].CodeMeaning for v in voxels] == DERIVATIONS
        assert [number(v)[0] for v in (least, most)] == [s.minimum, s.maximum]
        assert number(spread)[0] == pytest.approx(s.standard_deviation, rel=1e-5)
        assert next(within(group, "Finding")).ConceptCodeSequence[0].CodeValue == segment.type.value
        [reference] = within(group, "Referenced Segment")
        assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSOPSequence[0].ReferencedSegmentNumber == segment.number
        assert next(within(group, "Algorithm Name")).TextValue == "torso-ct"
        assert plan.first.SeriesInstanceUID == next(within(group, "Source Series for Segmentation")).UID


def test_findings_are_tracked_under_the_same_names_in_both() -> None:
    _, _, seg, sr = result()
    assert seg is not None
    tracked = [
        (next(within(g, "Tracking Identifier")).TextValue, next(within(g, "Tracking Unique Identifier")).UID)
        for g in groups(written(sr))
    ]
    assert tracked == [(s.TrackingID, s.TrackingUID) for s in seg.SegmentSequence]


def test_an_empty_mask_is_reported_as_absence() -> None:
    _, _, seg, sr = result(labels=np.zeros((5, 12, 16), np.uint8))

    assert seg is None
    assert len(groups(written(sr))) == 2
    for group in groups(written(sr)):
        assert next(within(group, "Presence of property")).ConceptCodeSequence[0].CodeMeaning == "Absent"
        assert not list(within(group, "Volume"))


def test_one_absent_segment_beside_a_present_one() -> None:
    labels = np.zeros((5, 12, 16), np.uint8)
    labels[2, 3:5, 4] = 2
    _, _, _, sr = result(labels=labels)
    absent, present = groups(written(sr))

    assert next(within(absent, "Presence of property")).ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert number(next(within(present, "Volume")))[0] == pytest.approx(2 * 0.8 * 0.8 * 2.5 / 1000)


def test_it_says_who_observed_what_in_which_language() -> None:
    _, _, _, sr = result()
    report = written(sr)
    assert next(within(report, "Observer Type")).ConceptCodeSequence[0].CodeMeaning == "Device"
    assert next(within(report, "Device Observer Name")).TextValue == "DICOMNODE"
    assert next(within(report, "Procedure reported")).ConceptCodeSequence[0].CodeValue == "25045-6"
    assert (
        next(within(report, "Language of Content Item and Descendants")).ConceptCodeSequence[0].CodeValue == "en-US"
    )
    assert (report.SeriesNumber, report.SeriesDescription) == (4002, "torso-ct 1.0.0 SR")
    assert (report.Manufacturer, report.ManufacturerModelName, report.DeviceSerialNumber) == (
        "dicomnode",
        "torso-ct",
        "DICOMNODE",
    )
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


def test_the_evidence_is_the_segmentation_and_the_source() -> None:
    plan, _, seg, sr = result([enhanced()])
    assert seg is not None
    [study] = written(sr).CurrentRequestedProcedureEvidenceSequence
    named = {
        (s.SeriesInstanceUID, r.ReferencedSOPClassUID, r.ReferencedSOPInstanceUID)
        for s in study.ReferencedSeriesSequence
        for r in s.ReferencedSOPSequence
    }
    assert named == {
        (seg.SeriesInstanceUID, seg.SOPClassUID, seg.SOPInstanceUID),
        (plan.first.SeriesInstanceUID, plan.first.SOPClassUID, plan.first.SOPInstanceUID),
    }
    count = sum(len(s.ReferencedSOPSequence) for s in study.ReferencedSeriesSequence)
    assert count == 2


@pytest.mark.parametrize("empty", [False, True])
def test_the_same_result_is_the_same_object_byte_for_byte(empty: bool) -> None:
    labels = np.zeros((5, 12, 16), np.uint8) if empty else None
    assert to_part10_bytes(result(labels=labels)[3]) == to_part10_bytes(result(labels=labels)[3])


def predecessor(report: Dataset) -> Predecessor:
    uids = (report.StudyInstanceUID, report.SeriesInstanceUID, report.SOPClassUID, report.SOPInstanceUID)
    return Predecessor(*map(str, uids))


def test_a_report_that_supersedes_another_names_it() -> None:
    before = result(labels=np.zeros((5, 12, 16), np.uint8))[3]
    [study] = written(result(predecessors=(predecessor(before),))[3]).PredecessorDocumentsSequence
    named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == before.SOPInstanceUID


def test_a_report_never_supersedes_itself() -> None:
    before = result()[3]
    again = written(result(predecessors=(predecessor(before),))[3])
    assert again.SOPInstanceUID == before.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in again


@pytest.mark.parametrize(
    ("modality", "attributes", "quantity", "unit"),
    [
        ("CT", {"RescaleType": "US"}, "Voxel value after rescale", "1"),
        ("MR", {}, "MR signal intensity", "1"),
        ("MR", {"ImageType": ["DERIVED", "SECONDARY", "ADC"]}, "Voxel value after rescale", "1"),
        ("PT", {"Units": "GML"}, "Standardized Uptake Value", "g/ml"),
        ("PT", {"Units": "BQML"}, "Nuclear Medicine Tomographic Activity", "Bq/ml"),
    ],
)
def test_the_mean_is_of_what_the_modality_measures(
    modality: str, attributes: dict[str, object], quantity: str, unit: str
) -> None:
    _, _, _, sr = result(classic(modality=modality, **attributes))
    found = list(within(groups(written(sr))[0], quantity))
    assert [next(within(item, "Derivation")).ConceptCodeSequence[0].CodeMeaning for item in found] == DERIVATIONS
    assert {number(item)[1] for item in found} == {unit}
