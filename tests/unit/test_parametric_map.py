"""A map's values lie where the voxels lie, mean what the card says, and the check finds faults."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.encoding.anatomy import frame_anatomy
from dicomnode.encoding.check_map import check_map, check_map_report
from dicomnode.encoding.content_items import evidence_of
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.parametric_map import encode_map
from dicomnode.encoding.results import warm_up
from dicomnode.encoding.sr_map import encode_map_report
from dicomnode.errors import EncodingError, NonConformant
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.volume import plan_volume
from tests.made_outputs import MAP, values
from tests.made_results import MADE
from tests.made_series import classic
from tests.unit.test_sr import groups, number, within
from tests.unit.test_sr_boxes import SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_values_lie_where_the_voxels_lie(source: str) -> None:
    plan = plan_volume(SOURCES[source]())
    wanted = values(plan.geometry.shape)
    made = encode_map(wanted, plan, MAP, MADE)
    check_map(made, plan, MAP)
    with odd_values_accepted():
        read = dcmread(io.BytesIO(to_part10_bytes(made)))
    pixels = np.frombuffer(read.FloatPixelData, "<f4").reshape(wanted.shape)
    places = {}
    for frame, group in zip(pixels, read.PerFrameFunctionalGroupsSequence, strict=True):
        places[tuple(np.round(group.PlanePositionSequence[0].ImagePositionPatient, 3))] = frame
    assert len(places) == len(plan.frames)
    for plane, source_frame in zip(wanted, plan.frames, strict=True):
        np.testing.assert_array_equal(places[tuple(np.round(source_frame.position_mm, 3))], plane)
    measures = read.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    np.testing.assert_allclose(measures.PixelSpacing, plan.frames[0].spacing_mm, atol=1e-6)


def test_values_mean_what_the_card_says() -> None:
    plan = plan_volume(classic(5))
    made = encode_map(values(plan.geometry.shape), plan, MAP, MADE)
    (mapping,) = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "ml/(100.g.min)"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Regional Cerebral Blood Flow"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    low, high = mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped
    assert (low, high) == (values(plan.geometry.shape).min(), values(plan.geometry.shape).max())
    assert (made.Manufacturer, made.ManufacturerModelName, made.SeriesNumber) == ("dicomnode", "finder", 4004)
    assert made.ContributingEquipmentSequence[-2].ManufacturerModelName == "finder"


@pytest.mark.parametrize(("factor", "function"), [(1, None), (1e-4, "LINEAR_EXACT"), (0, "LINEAR_EXACT")])
def test_a_narrow_window_says_how_it_is_meant(factor: float, function: str | None) -> None:
    """LINEAR begins at a width of 1 (PS3.3 C.11.2.1.2.1), and a map of fractions is narrower."""
    plan = plan_volume(classic(5))
    made = encode_map(values(plan.geometry.shape) * np.float32(factor), plan, MAP, MADE)
    [window] = made.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    assert window.get("VOILUTFunction") == function
    assert (window.WindowWidth >= 1) == (function is None)


def _report(spoil: Callable[[Dataset], None] = lambda _: None) -> tuple[Any, Dataset, Dataset]:
    plan = plan_volume(classic(5))
    wanted = values(plan.geometry.shape)
    found = encode_map(wanted, plan, MAP, MADE)
    report = encode_map_report(wanted, found, plan, MAP, MADE)
    spoil(report)
    return plan, found, report


def test_the_report_of_a_map_has_its_numbers_and_refers_to_it() -> None:
    plan, found, report = _report()
    check_map_report(report, found, plan, MAP)
    [group] = groups(report)
    wanted = values(plan.geometry.shape)
    said = [number(item) for item in within(group, "Regional Cerebral Blood Flow")]
    assert [unit for _, unit in said] == ["ml/(100.g.min)"] * 3
    np.testing.assert_allclose([value for value, _ in said], [wanted.min(), wanted.mean(), wanted.max()], rtol=1e-5)
    listed = {str(item.ReferencedSOPInstanceUID) for item in evidence_of(report)}
    assert listed == {found.SOPInstanceUID, *(frame.sop_instance_uid for frame in plan.frames)}
    assert report.SeriesInstanceUID != found.SeriesInstanceUID


def _numbers(report: Dataset) -> list[Dataset]:
    return [item for item in groups(report)[0].ContentSequence if item.ValueType == "NUM"]


def _of_another_map(report: Dataset) -> None:
    [item] = [item for item in groups(report)[0].ContentSequence if item.ValueType == "IMAGE"]
    item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.99"


def _of_another_quantity(report: Dataset) -> None:
    _numbers(report)[0].ConceptNameCodeSequence[0].CodeValue = "1"


def _upside_down(report: Dataset) -> None:
    _numbers(report)[0].MeasuredValueSequence[0].NumericValue = "1e6"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_of_another_map, "which is not in the evidence"),
        (_of_another_quantity, "not of Regional Cerebral Blood Flow alone"),
        (_upside_down, "least value"),
    ],
)
def test_the_check_finds_what_is_wrong_with_the_report(spoil: Callable[[Dataset], None], words: str) -> None:
    plan, found, report = _report(spoil)
    with pytest.raises(NonConformant, match=words):
        check_map_report(report, found, plan, MAP)


def _shared(found: Dataset) -> Dataset:
    shared: Dataset = found.SharedFunctionalGroupsSequence[0]
    return shared


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: setattr(d, "ImageType", ["DERIVED", "PRIMARY"]), "ImageType of the map"),
        (lambda d: setattr(_shared(d).ParametricMapFrameTypeSequence[0], "FrameType", ["DERIVED"]), "FrameType of"),
        (lambda d: setattr(d, "BurnedInAnnotation", ""), "BurnedInAnnotation"),
        (lambda d: delattr(d, "RecognizableVisualFeatures"), "RecognizableVisualFeatures"),
        (lambda d: delattr(_shared(d).FrameVOILUTSequence[0], "WindowWidth"), "WindowWidth of the map's window"),
        (lambda d: setattr(_shared(d).PixelValueTransformationSequence[0], "RescaleType", "HU"), "RescaleType"),
        (
            lambda d: _shared(d).FrameAnatomySequence.append(_shared(d).FrameAnatomySequence[0]),
            "FrameAnatomySequence has 2 items",
        ),
        (
            lambda d: (
                _shared(d)
                .FrameAnatomySequence[0]
                .AnatomicRegionSequence.append(_shared(d).FrameAnatomySequence[0].AnatomicRegionSequence[0])
            ),
            "AnatomicRegionSequence has 2 items",
        ),
        (
            lambda d: delattr(_shared(d).FrameAnatomySequence[0].AnatomicRegionSequence[0], "CodeValue"),
            "a code in AnatomicRegionSequence has no value",
        ),
        (
            lambda d: setattr(
                _shared(d).RealWorldValueMappingSequence[0].QuantityDefinitionSequence[0], "ValueType", "TEXT"
            ),
            "quantity is no code",
        ),
    ],
)
def test_what_readers_take_a_map_for_is_looked_at(spoil: Callable[[Dataset], None], words: str) -> None:
    plan = plan_volume(classic(5))
    found = encode_map(values(plan.geometry.shape), plan, MAP, MADE)
    spoil(found)
    with pytest.raises(NonConformant, match=words):
        check_map(found, plan, MAP)


def test_the_same_map_is_the_same_object() -> None:
    plan = plan_volume(classic(5))
    first, again = (encode_map(values(plan.geometry.shape), plan, MAP, MADE) for _ in range(2))
    other = encode_map(values(plan.geometry.shape) + 1, plan, MAP, MADE)
    assert to_part10_bytes(first) == to_part10_bytes(again)
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_a_map_with_one_value_is_a_map() -> None:
    plan = plan_volume(classic(5))
    check_map(encode_map(np.full(plan.geometry.shape, 3.5, np.float32), plan, MAP, MADE), plan, MAP)


def test_what_is_no_number_is_refused() -> None:
    plan = plan_volume(classic(5))
    broken = values(plan.geometry.shape)
    broken[1, 2, 3] = np.nan
    with pytest.raises(EncodingError, match="no numbers"):
        encode_map(broken, plan, MAP, MADE)


def test_the_encoder_warms_up_with_such_a_card() -> None:
    warm_up(MAP, MADE)


def _shared(made: Dataset) -> Dataset:
    found: Dataset = made.SharedFunctionalGroupsSequence[0]
    return found


def _move(made: Dataset) -> None:
    made.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


def _other_source(made: Dataset) -> None:
    group = made.PerFrameFunctionalGroupsSequence[1].DerivationImageSequence[0].SourceImageSequence[0]
    group.ReferencedSOPInstanceUID = "2.25.9"


def _unit(made: Dataset) -> None:
    mapping = _shared(made).RealWorldValueMappingSequence[0]
    mapping.MeasurementUnitsCodeSequence[0].CodeValue = "mL"


def _quantity(made: Dataset) -> None:
    mapping = _shared(made).RealWorldValueMappingSequence[0]
    mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue = "1"


def _slope(made: Dataset) -> None:
    _shared(made).RealWorldValueMappingSequence[0].RealWorldValueSlope = 2.0


def _nan(made: Dataset) -> None:
    made.FloatPixelData = np.full(len(made.FloatPixelData) // 4, np.nan, "<f4").tobytes()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_move, "frame 2 lies at"),
        (_other_source, "no slice of the source"),
        (_unit, "unit is not"),
        (_quantity, "does not say that it is of Regional"),
        (_slope, "not its real world values"),
        (_nan, "no numbers"),
        (lambda m: setattr(m, "FloatPixelData", m.FloatPixelData[:-4]), "bytes of pixel data"),
        (lambda m: setattr(m, "Rows", 3), "3 × 16 pixels"),
        (lambda m: setattr(m, "PatientID", "P-2"), "PatientID"),
        (lambda m: delattr(m, "ContentCreatorName"), "ContentCreatorName"),
        (lambda m: delattr(m, "ContentQualification"), "ContentQualification"),
        (lambda m: delattr(_shared(m), "FrameAnatomySequence"), "FrameAnatomySequence"),
        (lambda m: setattr(_shared(m).PixelValueTransformationSequence[0], "RescaleSlope", 2), "are rescaled"),
        (lambda m: setattr(m, "PhotometricInterpretation", "MONOCHROME1"), "PhotometricInterpretation of the map"),
        (lambda m: setattr(m, "BitsAllocated", 16), "BitsAllocated of the map"),
        (lambda m: m.PerFrameFunctionalGroupsSequence.reverse(), "not in the order of the slices"),
    ],
)
def test_the_check_finds_what_is_wrong(spoil: Callable[[Dataset], None], words: str) -> None:
    plan = plan_volume(classic(5))
    made = encode_map(values(plan.geometry.shape), plan, MAP, MADE)
    spoil(made)
    with pytest.raises(NonConformant, match=words):
        check_map(made, plan, MAP)


def test_frames_lie_in_the_order_of_the_slices() -> None:
    """dcmqi, and so 3D Slicer, takes them as they come."""
    plan = plan_volume(classic(5)[::-1])
    made = encode_map(values(plan.geometry.shape), plan, MAP, MADE)
    groups = made.PerFrameFunctionalGroupsSequence
    heights = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in groups]
    assert heights == [frame.position_mm[2] for frame in plan.frames] == sorted(heights)
    assert [group.FrameContentSequence[0].DimensionIndexValues for group in groups] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("said", "code", "side"),
    [
        ({}, "85756007", "U"),
        ({"BodyPartExamined": "LIVER\\X"}, "85756007", "U"),
        ({"BodyPartExamined": "HEAD", "Laterality": "X"}, "69536005", "U"),
        ({"BodyPartExamined": "UPPER LIMB", "Laterality": "L"}, "53120007", "L"),
        ({"BodyPartExamined": "TSPINE"}, "122495006", "U"),
        ({"BodyPartExamined": "HEAD", "AnatomicRegionSequence": [("76752008", "SCT", "Breast")]}, "76752008", "U"),
        ({"BodyPartExamined": "HEAD", "AnatomicRegionSequence": [("76752008", "", "Breast")]}, "69536005", "U"),
    ],
)
def test_the_anatomy_is_the_source_s(said: dict[str, Any], code: str, side: str) -> None:
    header = Dataset()
    for keyword, found in said.items():
        setattr(header, keyword, [_code_item(*one) for one in found] if isinstance(found, list) else found)
    for source in (header, _enhanced(header)):
        anatomy = frame_anatomy(source)
        assert anatomy.AnatomicRegionSequence[0].CodeValue == code
        assert anatomy.FrameLaterality == side


def _code_item(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _enhanced(header: Dataset) -> Dataset:
    """As an enhanced image says it: of all frames."""
    found, shared, own = Dataset(), Dataset(), Dataset()
    own.AnatomicRegionSequence = header.get("AnatomicRegionSequence", [])
    own.FrameLaterality = header.get("Laterality", "U")
    found.BodyPartExamined = header.get("BodyPartExamined")
    shared.FrameAnatomySequence = [own]
    found.SharedFunctionalGroupsSequence = [shared]
    return found
