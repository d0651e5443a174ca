"""Numbers in a report: their codes, units, finding sites and images; what is none is said; the check finds faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from pydicom import Dataset

from dicomnode.encoding.check_measured import check_measured
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.results import warm_up
from dicomnode.encoding.sr_measured import encode_measured
from dicomnode.errors import NonConformant
from dicomnode.imaging.box import Box
from dicomnode.imaging.images import plan_images
from dicomnode.imaging.volume import plan_volume
from tests.made_outputs import MEASURED, MEASURED_IMAGES, radiographs
from tests.made_results import MADE
from tests.made_series import classic
from tests.unit.test_sr import groups, name, number, within
from tests.unit.test_sr_classes import images_of, read


def made(row: list[float]) -> tuple[Any, Dataset]:
    plan = plan_volume(classic(4))
    return plan, encode_measured([row], plan, MEASURED, MADE)


def test_each_finding_site_has_a_group() -> None:
    plan, report = made([112.5, 3.25])
    check_measured(report, plan, MEASURED)
    coronary, other = groups(read(report))
    assert [i.ConceptCodeSequence[0].CodeMeaning for i in within(coronary, "Finding Site")] == ["Coronary artery"]
    assert [number(i) for i in within(coronary, "Calcium score")] == [(112.5, "1")]
    assert list(within(other, "Finding Site")) == []
    assert [number(i) for i in within(other, "Volume")] == [(3.25, "mL")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (10001.0, "Value out of range"),
        (-0.5, "Value out of range"),
        (math.nan, "Not a number"),
        (math.inf, "Positive Infinity"),
        (-math.inf, "Negative Infinity"),
    ],
)
def test_what_is_no_measurement_is_said_and_not_shown(value: float, words: str) -> None:
    plan, report = made([value, 1.0])
    check_measured(report, plan, MEASURED)
    (item,) = within(groups(read(report))[0], "Calcium score")
    assert len(item.MeasuredValueSequence) == 0
    assert item.NumericValueQualifierCodeSequence[0].CodeMeaning == words


def test_numbers_of_images_name_their_image() -> None:
    plan = plan_images(radiographs(3))
    report = encode_measured([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], plan, MEASURED_IMAGES, MADE)
    check_measured(report, plan, MEASURED_IMAGES)
    found = groups(read(report))
    uids = [f.sop_instance_uid for f in plan.frames]
    assert [images_of(group) for group in found] == [[uid] for uid in uids for _ in range(2)]
    assert [number(next(within(group, "Volume")))[0] for group in found[::2]] == [1.0, 3.0, 5.0]


def test_numbers_of_a_series_name_all_its_images() -> None:
    plan, report = made([1.5, 2.5])
    for group in groups(report):
        listed = [r for item in group.ContentSequence for r in item.get("ReferencedSOPSequence", [])]
        named = [str(reference.ReferencedSOPInstanceUID) for reference in listed]
        assert named == [frame.sop_instance_uid for frame in plan.frames]


def test_numbers_of_a_region_have_its_surface() -> None:
    """In each group, as a class of a region has it."""
    plan, box = plan_volume(classic(4)), Box((1, 2, 3), (3, 7, 5))
    report = encode_measured([[1.5, 2.5]], plan, MEASURED, MADE, region=box)
    check_measured(report, plan, MEASURED, region=box)
    for group in groups(report):
        kinds = [i.ValueType for i in group.ContentSequence]
        assert (kinds.count("SCOORD3D"), kinds.count("IMAGE")) == (6, 0)
    with pytest.raises(NonConformant, match="images are not in 2 measurement groups"):
        check_measured(report, plan, MEASURED)
    with pytest.raises(NonConformant, match="which region"):
        check_measured(made([1.5, 2.5])[1], plan, MEASURED, region=box)


def test_the_same_numbers_are_the_same_object() -> None:
    (_, first), (_, again), (_, other) = made([1.0, 2.0]), made([1.0, 2.0]), made([1.0, 2.5])
    assert to_part10_bytes(first) == to_part10_bytes(again)
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_the_encoder_warms_up_with_such_a_card() -> None:
    warm_up(MEASURED, MADE)
    warm_up(MEASURED_IMAGES, MADE)


def _drop(report: Dataset, what: str) -> None:
    group = groups(report)[0]
    group.ContentSequence = [item for item in group.ContentSequence if name(item) != what]


def _item(report: Dataset) -> Dataset:
    found: Dataset = next(within(groups(report)[0], "Calcium score"))
    return found


def _set(report: Dataset, value: str) -> None:
    _item(report).MeasuredValueSequence[0].NumericValue = value


def _unit(report: Dataset) -> None:
    _item(report).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "mL"


def _no_value(report: Dataset) -> None:
    _item(report).MeasuredValueSequence = []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: _drop(r, "Tracking Identifier"), "112039"),
        (lambda r: _drop(r, "Calcium score"), "other measurements"),
        (lambda r: _drop(r, "Finding Site"), "other measurements"),
        (lambda r: _set(r, "20000"), "does not allow"),
        (_unit, "is in mL"),
        (_no_value, "neither a value nor a reason"),
        (lambda r: setattr(r, "PatientID", "P-2"), "PatientID"),
    ],
)
def test_the_check_finds_what_is_wrong(spoil: Callable[[Dataset], None], words: str) -> None:
    plan, report = made([112.5, 3.25])
    spoil(report)
    with pytest.raises(NonConformant, match=words):
        check_measured(report, plan, MEASURED)
