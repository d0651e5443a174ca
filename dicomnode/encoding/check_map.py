"""The gate in front of delivery for parametric maps; see check."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import (
    check_common,
    check_filled,
    check_grid,
    check_measurement_report,
    check_number,
    check_present,
    check_series_references,
    groups_of,
    itself,
)
from dicomnode.encoding.check_frames import FRAMES, check_frames
from dicomnode.encoding.check_whole import check_fixed
from dicomnode.encoding.content_items import code_of, evidence_of
from dicomnode.encoding.parametric_map import map_of
from dicomnode.encoding.references import NONE, Further
from dicomnode.encoding.refusal import refuse
from dicomnode.imaging.headers import items, numbers, odd_values_accepted, text, whole
from dicomnode.imaging.volume import VolumePlan

_FILLED = (
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "ContentLabel",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence",
    "FloatPixelData",
    "PresentationLUTShape",
    "LossyImageCompression",
    "ContentQualification",
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
)
_KIND = "DERIVED\\PRIMARY\\VOLUME\\QUANTITY"
_FIXED = {
    "ImageType": _KIND,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 32,
    "PresentationLUTShape": "IDENTITY",
}
_SHARED = ("FrameAnatomySequence", "FrameVOILUTSequence", "ParametricMapFrameTypeSequence")
_VALUES = (
    "DoubleFloatRealWorldValueFirstValueMapped",
    "DoubleFloatRealWorldValueLastValueMapped",
    "LUTLabel",
    "LUTExplanation",
)
_PRESENT = ("ContentDescription", "ContentCreatorName", "PositionReferenceIndicator")


def check_map(found: Dataset, plan: VolumePlan, card: ModelCard, further: Further = NONE) -> None:
    """Raises NonConformant naming what is wrong with a map of the plan's series."""
    with odd_values_accepted():
        check_common(found, plan, ParametricMapStorage, "OT")
        check_filled(found, _FILLED, "the map")
        check_present(found, _PRESENT, "the map")
        check_fixed(found, _FIXED, "the map")
        check_grid(found, plan)
        check_series_references(found, plan, further)
        _check_meaning(items(found, "SharedFunctionalGroupsSequence")[0], card)
        _check_slices(found, plan)


def check_map_report(
    report: Dataset, found: Dataset, plan: VolumePlan, card: ModelCard, further: Further = NONE
) -> None:
    """Raises NonConformant naming what is wrong with an SR on a map: numbers of the card's quantity, of this map."""
    with odd_values_accepted():
        check_measurement_report(report, plan, further, itself(found))
        spec, groups = map_of(card), groups_of(report)
        content = [item for group in groups for item in items(group, "ContentSequence")]
        measured = [item for item in content if text(item, "ValueType") == "NUM"]
        if len(groups) != 1 or {code_of(item) for item in measured} != {(spec.quantity.value, spec.quantity.scheme)}:
            refuse(f"the report is not of {spec.quantity.meaning} alone")
        values = [check_number(item, 1) for item in measured]
        if values != sorted(values):
            refuse(f"the map's least value, mean and highest value are {values}")
        named = {
            text(r, "ReferencedSOPInstanceUID") for item in content for r in items(item, "ReferencedSOPSequence")
        }
        listed = {text(item, "ReferencedSOPInstanceUID") for item in evidence_of(report)}
        if named != {text(found, "SOPInstanceUID")} or not named <= listed:
            refuse("the report does not refer to the map, or does not have it in its evidence")


def _check_meaning(shared: Dataset, card: ModelCard) -> None:
    """Real World Value Mapping (PS3.3 C.7.6.16.2.11): the card's quantity in its unit, and values as they are."""
    spec, mappings = map_of(card), items(shared, "RealWorldValueMappingSequence")
    check_filled(shared, _SHARED, "the map's frames")
    check_fixed(items(shared, "ParametricMapFrameTypeSequence")[0], {"FrameType": _KIND}, "the map's frames")
    check_filled(items(shared, "FrameVOILUTSequence")[0], ("WindowCenter", "WindowWidth"), "the map's window")
    (stored,) = items(shared, "PixelValueTransformationSequence") or [Dataset()]
    if (numbers(stored, "RescaleSlope", 1), numbers(stored, "RescaleIntercept", 1)) != ((1.0,), (0.0,)):
        refuse("the map's stored values are rescaled")
    check_fixed(stored, {"RescaleType": "US"}, "the map's frames")
    if len(mappings) != 1:
        refuse(f"the map has {len(mappings)} real world value mappings, one is needed")
    (mapping,) = mappings
    check_filled(mapping, _VALUES, "the map's meaning")
    if code_of(mapping, "MeasurementUnitsCodeSequence") != (spec.unit, "UCUM"):
        refuse(f"the map's unit is not {spec.unit}")
    quantities = items(mapping, "QuantityDefinitionSequence")
    if not quantities or text(quantities[0], "ValueType") != "CODE":
        refuse("the map's quantity is no code")
    if code_of(quantities[0], "ConceptCodeSequence") != (spec.quantity.value, spec.quantity.scheme):
        refuse(f"the map does not say that it is of {spec.quantity.meaning}")
    if (mapping.get("RealWorldValueSlope"), mapping.get("RealWorldValueIntercept")) != (1, 0):
        refuse("the map's stored values are not its real world values")


def _check_slices(found: Dataset, plan: VolumePlan) -> None:
    """A frame for each slice, in their order, where the slice lies (PS3.3 C.7.6.24); and values that are numbers."""
    if (frames := whole(found, "NumberOfFrames")) != len(plan.frames):
        refuse(f"there are {frames} frames, the source has {len(plan.frames)} slices")
    check_frames(found, plan, len(found.FloatPixelData), of_segments=False)
    if not np.isfinite(np.frombuffer(found.FloatPixelData, "<f4")).all():
        refuse("the map has values that are no numbers")
    heights_mm = [_height_mm(group, plan) for group in items(found, FRAMES)]
    if heights_mm != sorted(heights_mm):
        refuse("frames are not in the order of the slices: some readers take them as they come")


def _height_mm(group: Dataset, plan: VolumePlan) -> float:
    place = items(group, "PlanePositionSequence")[0].ImagePositionPatient
    return float(np.array(plan.frames[0].normal) @ np.array(place, dtype=float))
