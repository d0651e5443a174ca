"""The report says volume and mean of each segment, and says so when there is nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Predecessor
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.measure import measure
from tests.made_results import CARD, result
from tests.made_series import classic, enhanced, pixels


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


def test_each_segment_has_its_volume_and_mean() -> None:
    plan, labels, seg, sr = result()
    report = written(sr)
    assert seg is not None
    statistics = measure(labels, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])

    assert len(groups(report)) == 2
    for group, s, segment in zip(groups(report), statistics, CARD.segments, strict=True):
        [volume], [mean] = within(group, "Volume"), within(group, "Attenuation Coefficient")
        assert number(volume) == (pytest.approx(s.volume_ml, rel=1e-5), "mL")
        assert number(mean) == (pytest.approx(s.mean, rel=1e-5), "[hnsf'U]")
        assert next(within(mean, "Derivation")).ConceptCodeSequence[0].CodeMeaning == "Mean"
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
    [mean] = within(groups(written(sr))[0], quantity)
    assert number(mean)[1] == unit
