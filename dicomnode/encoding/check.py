"""The gate in front of delivery: a result that this refuses never leaves the node.

It checks what a PACS or a viewer stumbles over and what would harm: another patient's result, a mask in the wrong
place. tests/integration checks the same objects with dciodvfy, which knows the whole standard.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check_frames import FRAMES, check_frames
from dicomnode.encoding.check_whole import check_fixed, check_resolves, check_whole
from dicomnode.encoding.content_items import code_of, evidence_of
from dicomnode.encoding.references import NONE, Further, UsedImages, instances_of, study_and_series
from dicomnode.encoding.refusal import POSITION_TOLERANCE_MM, check_uids, is_empty, refuse
from dicomnode.encoding.source import IDENTITY, checked_identity, is_lossy
from dicomnode.imaging.headers import items, numbers, odd_values_accepted, text, value, whole
from dicomnode.imaging.masks import FULL
from dicomnode.imaging.volume import VolumePlan

_COSINE_TOLERANCE = 1e-4
_LINE_COORDINATES = 6  # of two points
LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"  # pydicom 3.0 cannot name it

_FILLED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ContentDate",
    "ContentTime",
    "ContributingEquipmentSequence",
)
SEGMENTATION_FILLED = (
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "SegmentationType",
    "ContentLabel",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "SegmentSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence",
    "LossyImageCompression",
)
_SEGMENTATION_PRESENT = ("ContentDescription", "ContentCreatorName", "PositionReferenceIndicator")
_SEGMENT_FILLED = (
    "SegmentNumber",
    "SegmentLabel",
    "SegmentAlgorithmType",
    "SegmentAlgorithmName",
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
    "RecommendedDisplayCIELabValue",
    "TrackingID",
    "TrackingUID",
)
_BACKGROUND_FILLED = _SEGMENT_FILLED[:6]
REPORT_FILLED = (
    "CompletionFlag",
    "VerificationFlag",
    "ValueType",
    "ContinuityOfContent",
    "ConceptNameCodeSequence",
    "ContentSequence",
    "CurrentRequestedProcedureEvidenceSequence",
)
REPORT_PRESENT = ("ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence")


def check_segmentation(
    segmentation: Dataset,
    plan: VolumePlan,
    further: Further = NONE,
    *,
    pixel_bytes: int | None = None,
    fractional: bool = False,
) -> None:
    """Raises NonConformant naming what is wrong with a SEG of the plan's series, made with further ones or not.

    `pixel_bytes`: the length of its pixel data, when the data set was read up to that. `fractional`: whether
    it is of probabilities.
    """
    with odd_values_accepted():
        check_common(segmentation, plan, SegmentationStorage, "SEG")
        check_filled(segmentation, SEGMENTATION_FILLED, "the segmentation")
        if pixel_bytes is None:
            check_filled(segmentation, ("PixelData",), "the segmentation")
        check_present(segmentation, _SEGMENTATION_PRESENT, "the segmentation")
        check_type(segmentation, fractional=fractional)
        check_pixels_described(segmentation, plan.headers, 8 if fractional else 1)
        check_segments(items(segmentation, "SegmentSequence"))
        check_grid(segmentation, plan)
        check_series_references(segmentation, plan, further)
        check_frames(segmentation, plan, len(segmentation.PixelData) if pixel_bytes is None else pixel_bytes)


def check_label_map(segmentation: Dataset, plan: VolumePlan, further: Further = NONE) -> None:
    """As check_segmentation, of a Label Map Segmentation: its segment 0 is the background (PS3.3 C.8.20.2)."""
    with odd_values_accepted():
        check_common(segmentation, plan, LABEL_MAP_SEGMENTATION_STORAGE, "SEG")
        check_filled(segmentation, (*SEGMENTATION_FILLED, "PixelData"), "the segmentation")
        check_present(segmentation, _SEGMENTATION_PRESENT, "the segmentation")
        check_pixels_described(segmentation, plan.headers, 8)
        check_labels(segmentation)
        check_grid(segmentation, plan)
        check_series_references(segmentation, plan, further)
        check_frames(segmentation, plan, len(segmentation.PixelData), of_segments=False)


def check_report(
    report: Dataset,
    plan: VolumePlan,
    segmentation: Dataset | None,
    further: Further = NONE,
    beside: Sequence[Dataset] = (),
) -> None:
    """Raises NonConformant naming what is wrong with an SR on the plan's series and on its SEG, if there is one.

    `beside`: further results that the report lists.
    """
    with odd_values_accepted():
        made = [*([] if segmentation is None else [segmentation]), *beside]
        check_measurement_report(report, plan, further, {uid: of for one in made for uid, of in itself(one).items()})
        check_listed(
            report, {str(m.SOPInstanceUID): (str(m.StudyInstanceUID), str(m.SeriesInstanceUID)) for m in made}
        )
        if segmentation is not None and segmentation.SeriesInstanceUID == report.SeriesInstanceUID:
            refuse("the report and the segmentation share a series")
        _check_content(report, segmentation)


def _check_source_series(report: Dataset, known: Collection[str]) -> None:
    """The series that a measurement group says its segment was made of (PS3.16 TID 1411) is one that was received."""
    for container in items(report, "ContentSequence"):
        for group in items(container, "ContentSequence"):
            for item in items(group, "ContentSequence"):
                if code_of(item) == ("121232", "DCM") and text(item, "UID") not in known:
                    refuse(f"{text(item, 'UID')} is named as the series of a segment's source, and is not")


def itself(made: Dataset) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of a result that another one may name."""
    return {str(made.SOPInstanceUID): str(made.SOPClassUID)}


def check_measurement_report(
    report: Dataset, plan: UsedImages, further: Further, beside: Mapping[str, str] = MappingProxyType({})
) -> None:
    """What every report on a plan's images has to have: modules, title (PS3.16 TID 1500), evidence.

    `beside`: SOP Instance UID → SOP Class UID of what it may name that are no source images.
    """
    check_common(report, plan, Comprehensive3DSRStorage, "SR")
    check_filled(report, REPORT_FILLED, "the report")
    check_present(report, REPORT_PRESENT, "the report")
    if [text(item, "TemplateIdentifier") for item in items(report, "ContentTemplateSequence")] != ["1500"]:
        refuse("the report does not say that it follows TID 1500 (PS3.16)")
    if code_of(report) != ("126000", "DCM"):
        refuse(f"the report's title is {code_of(report)}, not (126000, DCM, Imaging Measurement Report)")
    check_evidence(report, (plan, *further.values()))
    _check_source_series(report, {study_and_series(one)[1] for one in (plan, *further.values())})
    check_resolves(report, {**received((plan, *further.values())), **beside})


# ------------------------------------------------------------------------------------------------- common


def check_common(
    dataset: Dataset, plan: UsedImages, sop_class_uid: str, modality: str, but: Collection[str] = ()
) -> None:
    """What every result has to have, `but` for what its kind does not know, and whose it is."""
    check_filled(dataset, [keyword for keyword in _FILLED if keyword not in but], f"the {modality}")
    check_present(dataset, IDENTITY, f"the {modality}")
    if dataset.SOPClassUID != sop_class_uid or dataset.Modality != modality:
        refuse(f"SOP class {dataset.SOPClassUID} and modality {dataset.Modality}, where a {modality} was to be made")
    _check_uids(dataset)
    _check_identity(dataset, plan)
    sources = {text(header, "SOPInstanceUID") for header in plan.headers}
    if dataset.SOPInstanceUID in sources:
        refuse("the result has the SOP Instance UID of a source image")
    if dataset.SeriesInstanceUID == text(plan.first, "SeriesInstanceUID"):
        refuse("the result is in the source's own series")
    check_whole(dataset)


def check_filled(dataset: Dataset, keywords: Iterable[str], where: str) -> None:
    """Type 1 attributes (PS3.5 7.4.1)."""
    for keyword in keywords:
        if is_empty(dataset, keyword):
            refuse(f"{keyword} of {where} is absent or empty (type 1)")


def check_present(dataset: Dataset, keywords: Iterable[str], where: str) -> None:
    """Type 2 attributes (PS3.5 7.4.3)."""
    for keyword in keywords:
        if keyword not in dataset:
            refuse(f"{keyword} of {where} is absent (type 2)")


def _check_uids(dataset: Dataset) -> None:
    check_uids(dataset, but=FRAMES)
    own = [str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.StudyInstanceUID)]
    if len(set(own)) < len(own):
        refuse("study, series and instance share a UID")


def _check_identity(dataset: Dataset, plan: UsedImages) -> None:
    """The patient and the study are the source's; values are not named, they are a patient's."""
    if dataset.StudyInstanceUID != text(plan.first, "StudyInstanceUID"):
        refuse("the result is in another study than its source")
    for keyword in IDENTITY:
        if str(value(dataset, keyword, "")).strip() != str(checked_identity(plan.first, keyword)).strip():
            refuse(f"{keyword} differs from the source's")


# ------------------------------------------------------------------------------------------- segmentation


def check_type(segmentation: Dataset, *, fractional: bool) -> None:
    """What a pixel means (PS3.3 C.8.20.2.3)."""
    found = tuple(text(segmentation, k) for k in ("SegmentationType", "SegmentationFractionalType"))
    if found != (("FRACTIONAL", "PROBABILITY") if fractional else ("BINARY", "")):
        refuse(f"the segmentation's type is {' '.join(found)}")
    if whole(segmentation, "BitsAllocated") != (8 if fractional else 1):
        refuse(f"{segmentation.BitsAllocated} bits a pixel do not go with a segmentation of this type")
    if fractional and whole(segmentation, "MaximumFractionalValue") != FULL:
        refuse("the segmentation does not say that 255 stands for a probability of 1")


def check_pixels_described(dataset: Dataset, sources: Iterable[Dataset], bits: int) -> None:
    """What readers take the pixels for (PS3.3 C.8.20.2, C.7.6.3), and that loss in the source is not forgotten."""
    wanted = {
        "ImageType": "DERIVED\\PRIMARY",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "LossyImageCompression": "01" if any(map(is_lossy, sources)) else "00",
    }
    check_fixed(dataset, wanted, "the segmentation")


def check_labels(segmentation: Dataset) -> None:
    """Of a label map: what its pixels say, and that 0 is the background, which nobody draws (PS3.3 C.8.20.2)."""
    kind, bits = text(segmentation, "SegmentationType"), whole(segmentation, "BitsAllocated")
    if (kind, bits) != ("LABELMAP", 8):
        refuse(f"the segmentation's type is {kind} of {bits} bits a pixel")
    background, *segments = items(segmentation, "SegmentSequence")
    if whole(background, "SegmentNumber") != 0:
        refuse("the first segment of the label map is not the background, 0")
    check_filled(background, _BACKGROUND_FILLED, "the background")
    if whole(segmentation, "PixelPaddingValue") != 0:
        refuse("PixelPaddingValue is not 0, the background's: readers hide the pixels that have it")
    check_segments(segments)
    if (highest := int(np.frombuffer(segmentation.PixelData, np.uint8).max())) > len(segments):
        refuse(f"a pixel is of segment {highest}, which is not described")


def check_described(segments: Sequence[Dataset], card: ModelCard) -> None:
    """Raises NonConformant where a segment, in order, is not the card's: a liver must not be called a kidney.

    The background of a label map is none of the card's.
    """
    described = [segment for segment in segments if whole(segment, "SegmentNumber") != 0]
    if len(described) != len(card.segments):
        refuse(f"there are {len(described)} segments, the model card has {len(card.segments)}")
    for segment, spec in zip(described, card.segments, strict=True):
        said = (
            text(segment, "SegmentLabel"),
            code_of(segment, "SegmentedPropertyCategoryCodeSequence"),
            code_of(segment, "SegmentedPropertyTypeCodeSequence"),
        )
        if said != (spec.name, (spec.category.value, spec.category.scheme), (spec.type.value, spec.type.scheme)):
            refuse(f"segment {spec.number} is described as {said[0]}, and not as the model card's {spec.name}")


def check_segments(segments: list[Dataset]) -> None:
    """Numbered from 1 on without a gap, coded, each with a tracking UID of its own."""
    for number, segment in enumerate(segments, 1):
        check_filled(segment, _SEGMENT_FILLED, f"segment {number}")
        if segment.SegmentNumber != number:
            refuse(f"segment {number} in order is numbered {segment.SegmentNumber} (PS3.3 C.8.20.4)")
        if segment.SegmentAlgorithmType != "AUTOMATIC":
            refuse(f"segment {number} is {segment.SegmentAlgorithmType}, and not of a model")
        for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
            if "" in code_of(segment, keyword):
                refuse(f"{keyword} of segment {number} has no code")
    if len({segment.TrackingUID for segment in segments}) < len(segments):
        refuse("two segments share a Tracking UID")


def check_grid(segmentation: Dataset, plan: VolumePlan) -> None:
    """What all frames share: matrix, orientation, spacing, frame of reference."""
    _, rows, columns = plan.geometry.shape
    if (segmentation.Rows, segmentation.Columns) != (rows, columns):
        refuse(f"{segmentation.Rows} × {segmentation.Columns} pixels, the source has {rows} × {columns}")
    if segmentation.FrameOfReferenceUID != text(plan.first, "FrameOfReferenceUID"):
        refuse("FrameOfReferenceUID differs from the source's")
    if text(segmentation, "PositionReferenceIndicator") != text(plan.first, "PositionReferenceIndicator"):
        refuse("PositionReferenceIndicator differs from the source's")
    shared = items(segmentation, "SharedFunctionalGroupsSequence")[0]
    first = plan.frames[0]
    for group, keyword, expected, tolerance in (
        ("PlaneOrientationSequence", "ImageOrientationPatient", first.orientation, _COSINE_TOLERANCE),
        ("PixelMeasuresSequence", "PixelSpacing", first.spacing_mm, POSITION_TOLERANCE_MM),
    ):
        macros = items(shared, group)
        found = numbers(macros[0], keyword, len(expected)) if macros else None
        if found is None or not np.allclose(found, expected, rtol=0, atol=tolerance):
            refuse(f"{keyword} {found} differs from the source's {expected}")
    _check_step(items(shared, "PixelMeasuresSequence")[0], plan)


def _check_step(measures: Dataset, plan: VolumePlan) -> None:
    """Slices as thick and as far apart as they lie: dcmqi and others take it from here, not from the positions."""
    step_mm = abs(float(plan.geometry.affine[:3, 0] @ plan.geometry.normal))
    thickness_mm = plan.frames[0].thickness_mm or step_mm
    for keyword, wanted in (("SpacingBetweenSlices", step_mm), ("SliceThickness", thickness_mm)):
        found = numbers(measures, keyword, 1)
        if found is None or not math.isclose(found[0], wanted, abs_tol=POSITION_TOLERANCE_MM):
            refuse(f"{keyword} {found} differs from the source's {wanted}")


def check_series_references(segmentation: Dataset, plan: VolumePlan, further: Further) -> None:
    """Common Instance Reference (PS3.3 C.12.2): the series it was made from, and nothing that is not in them."""
    plans = (plan, *further.values())
    listed = {study_and_series(plan)[0]: items(segmentation, "ReferencedSeriesSequence")}
    for study in items(segmentation, "StudiesContainingOtherReferencedInstancesSequence"):
        listed[text(study, "StudyInstanceUID")] = items(study, "ReferencedSeriesSequence")
    found = [(study, text(series, "SeriesInstanceUID")) for study, each in listed.items() for series in each]
    if sorted(found) != sorted(map(study_and_series, plans)):
        refuse("ReferencedSeriesSequence and its like do not name the source's series alone")
    named = [i for each in listed.values() for s in each for i in items(s, "ReferencedInstanceSequence")]
    known = received(plans)
    if absent := instances_of(plan).keys() - {text(item, "ReferencedSOPInstanceUID") for item in named}:
        refuse(f"{len(absent)} images of the source are not in ReferencedSeriesSequence (PS3.3 C.12.2)")
    check_resolves(segmentation, known)


def received(plans: Iterable[UsedImages]) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of the images."""
    return {text(h, "SOPInstanceUID"): text(h, "SOPClassUID") for plan in plans for h in plan.headers}


# ------------------------------------------------------------------------------------------------- report


def _check_content(report: Dataset, segmentation: Dataset | None) -> None:
    groups = groups_of(report)
    evidence = {text(r, "ReferencedSOPInstanceUID") for r in evidence_of(report)}
    for number, group in enumerate(groups, 1):
        _check_group(group, number, segmentation, evidence)


def groups_of(report: Dataset) -> list[Dataset]:
    """The measurement groups (PS3.16 TID 1501) of a report that says what TID 1500 wants of it."""
    containers = [c for c in items(report, "ContentSequence") if code_of(c) == ("126010", "DCM")]
    groups = [g for c in containers for g in items(c, "ContentSequence") if code_of(g) == ("125007", "DCM")]
    if not groups:
        refuse("the report has no Measurement Group (125007, DCM) under Imaging Measurements (126010, DCM)")
    concepts = {code_of(item) for item in items(report, "ContentSequence")}
    for code, meaning in (("121005", "Observer Type"), ("121058", "Procedure reported"), ("121049", "Language")):
        if (code, "DCM") not in concepts:
            refuse(f"the report does not state {meaning} ({code}, DCM)")
    return groups


def check_evidence(report: Dataset, plans: Iterable[UsedImages]) -> None:
    """Every image that was looked at is named, also where nothing was found in it (PS3.3 C.17.2)."""
    listed = {
        text(item, "ReferencedSOPInstanceUID")
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for item in evidence_of(report, keyword)
    }
    for plan in plans:
        if absent := instances_of(plan).keys() - listed:
            refuse(f"{len(absent)} images of series {study_and_series(plan)[1]} are not in the report's evidence")
        check_listed(report, dict.fromkeys(instances_of(plan), study_and_series(plan)))


def check_listed(report: Dataset, places: Mapping[str, tuple[str, str]]) -> None:
    """Raises NonConformant where the evidence has an instance under another study or series than `places` has."""
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in items(report, keyword):
            for series in items(study, "ReferencedSeriesSequence"):
                place = text(study, "StudyInstanceUID"), text(series, "SeriesInstanceUID")
                named = [text(r, "ReferencedSOPInstanceUID") for r in items(series, "ReferencedSOPSequence")]
                if strayed := [uid for uid in named if places.get(uid, place) != place]:
                    refuse(f"the evidence has instance {strayed[0]} in series {place[1]}, where it is not")


def _check_group(group: Dataset, number: int, segmentation: Dataset | None, evidence: set[str]) -> None:
    content = {code_of(item): item for item in items(group, "ContentSequence")}
    for code, meaning in (("112039", "Tracking Identifier"), ("112040", "Tracking Unique Identifier")):
        if (code, "DCM") not in content:
            refuse(f"measurement group {number} has no {meaning} ({code}, DCM)")
    measured = [item for item in items(group, "ContentSequence") if text(item, "ValueType") == "NUM"]
    for item in measured:
        check_number(item, number)
    reference = content.get(("121191", "DCM"))
    if reference is None:
        if measured and all(_is_drawn(item) for item in measured):
            return
        if measured or code_of(content.get(("121052", "DCM"), Dataset()), "ConceptCodeSequence") != ("121054", "DCM"):
            refuse(f"measurement group {number} neither references a segment nor says that there is none")
        return
    _check_segment_reference(reference, number, segmentation, evidence)
    assert segmentation is not None  # or it was refused
    segment = whole(items(reference, "ReferencedSOPSequence")[0], "ReferencedSegmentNumber")
    described = [s for s in items(segmentation, "SegmentSequence") if whole(s, "SegmentNumber") == segment]
    if [text(s, "TrackingUID") for s in described] != [text(content["112040", "DCM"], "UID")]:
        refuse(f"measurement group {number} references another segment than it measures")


def _is_drawn(measurement: Dataset) -> bool:
    """Whether it says which line it is the length of."""
    inferred = (item for item in items(measurement, "ContentSequence") if text(item, "ValueType") == "SCOORD3D")
    return any(len(value(item, "GraphicData", ())) == _LINE_COORDINATES for item in inferred)


def check_number(item: Dataset, number: int) -> float:
    """The value of a measurement in a group of this number."""
    measured = items(item, "MeasuredValueSequence")
    found = numbers(measured[0], "NumericValue", 1) if measured else None
    if found is None or not math.isfinite(found[0]):
        refuse(f"a measurement in group {number} has no value")
    unit = code_of(measured[0], "MeasurementUnitsCodeSequence")
    if unit[0] == "" or unit[1] != "UCUM":
        refuse(f"a measurement in group {number} has the unit {unit}, which is no UCUM code")
    return found[0]


def _check_segment_reference(item: Dataset, number: int, segmentation: Dataset | None, evidence: set[str]) -> None:
    references = items(item, "ReferencedSOPSequence")
    if segmentation is None or not references:
        refuse(f"measurement group {number} references a segmentation that does not exist")
    uid = text(references[0], "ReferencedSOPInstanceUID")
    if uid != segmentation.SOPInstanceUID or text(references[0], "ReferencedSOPClassUID") != segmentation.SOPClassUID:
        refuse(f"measurement group {number} references {uid}, which is not the segmentation")
    segment = whole(references[0], "ReferencedSegmentNumber")
    if segment not in {whole(s, "SegmentNumber") for s in items(segmentation, "SegmentSequence")}:
        refuse(f"measurement group {number} references segment {segment}, which the segmentation does not have")
    if uid not in evidence:
        refuse("the segmentation is not in CurrentRequestedProcedureEvidenceSequence")
