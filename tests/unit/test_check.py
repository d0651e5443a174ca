"""The gate before delivery catches every way in which a good result can be broken."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode.encoding.check import check_described, check_report, check_segmentation
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.results import encode_results, warm_up
from dicomnode.errors import NonConformant
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.measure import measure
from dicomnode.imaging.volume import plan_volume
from tests.made_results import CARD, MADE, result, two_fs
from tests.made_series import classic, enhanced, pixels

Break = Callable[[Dataset], object]


def deleted(keyword: str) -> Break:
    return lambda d: d.__delattr__(keyword)


def given(keyword: str, value: object) -> Break:
    return lambda d: d.__setattr__(keyword, value)


def frame(d: Dataset, number: int = 0) -> Dataset:
    group: Dataset = d.PerFrameFunctionalGroupsSequence[number]
    return group


def source_of(d: Dataset) -> Dataset:
    source: Dataset = frame(d).DerivationImageSequence[0].SourceImageSequence[0]
    return source


def shared(d: Dataset) -> Dataset:
    group: Dataset = d.SharedFunctionalGroupsSequence[0]
    return group


def set_in(item: Callable[[Dataset], Dataset], keyword: str, value: object) -> Break:
    return lambda d: setattr(item(d), keyword, value)


def repeat_frame(d: Dataset) -> None:
    d.PerFrameFunctionalGroupsSequence[1] = d.PerFrameFunctionalGroupsSequence[0]


SEGMENTATION = [
    *[(deleted(k), k) for k in ("SOPInstanceUID", "SeriesNumber", "ManufacturerModelName", "DeviceSerialNumber")],
    *[
        (given(k, ""), k)
        for k in ("Manufacturer", "SoftwareVersions", "ContentDate", "ContentLabel", "FrameOfReferenceUID")
    ],
    *[(deleted(k), k) for k in ("PatientID", "PatientSex", "AccessionNumber", "StudyID", "ContentCreatorName")],
    (deleted("PixelData"), "PixelData"),
    (given("ContributingEquipmentSequence", []), "ContributingEquipmentSequence"),
    (given("Modality", "CT"), "modality CT"),
    (given("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "SOP class"),
    (given("SeriesInstanceUID", "not.a.uid"), "is no UID"),
    (given("SOPInstanceUID", "1." * 40 + "1"), "is no UID"),
    (lambda d: setattr(d, "SOPInstanceUID", str(d.SeriesInstanceUID)), "share a UID"),
    (lambda d: setattr(d, "SOPInstanceUID", str(source_of(d).ReferencedSOPInstanceUID)), "of a source image"),
    (lambda d: setattr(d, "SeriesInstanceUID", str(d.ReferencedSeriesSequence[0].SeriesInstanceUID)), "own series"),
    (given("StudyInstanceUID", "1.2.3"), "another study"),
    (given("PatientID", "P-2"), "PatientID differs"),
    (given("PatientName", "Somebody^Else"), "PatientName differs"),
    (given("AccessionNumber", "A-2"), "AccessionNumber differs"),
    (given("FrameOfReferenceUID", "1.2.3"), "FrameOfReferenceUID differs"),
    (given("Rows", 11), "11 × 16 pixels"),
    (
        set_in(lambda d: shared(d).PlaneOrientationSequence[0], "ImageOrientationPatient", [0, 1, 0, 1, 0, 0]),
        "differs",
    ),
    (set_in(lambda d: shared(d).PixelMeasuresSequence[0], "PixelSpacing", [0.8, 0.81]), "PixelSpacing"),
    (lambda d: shared(d).__delattr__("PixelMeasuresSequence"), "PixelSpacing None"),
    (set_in(lambda d: frame(d).PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 0]), "frame 1 lies at"),
    (lambda d: frame(d).__delattr__("PlanePositionSequence"), "frame 1 lies at None"),
    (set_in(source_of, "ReferencedSOPInstanceUID", "1.2.3"), "no slice of the source"),
    (set_in(source_of, "ReferencedFrameNumber", 2), "no slice of the source"),
    (lambda d: frame(d).__delattr__("DerivationImageSequence"), "names 0 source images"),
    (set_in(lambda d: frame(d).SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 3), "segment 3"),
    (lambda d: frame(d).__delattr__("SegmentIdentificationSequence"), "segment None"),
    (repeat_frame, "repeats segment 1"),
    (given("ReferencedSeriesSequence", [Dataset()]), "source's series alone"),
    (
        set_in(lambda d: d.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0], "ReferencedSOPClassUID", "1.2"),
        "under that SOP class",
    ),
    (given("NumberOfFrames", 4), "NumberOfFrames is 4"),
    (lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "bytes of pixel data"),
    (lambda d: setattr(d, "PixelData", d.PixelData + b"\0\0"), "bytes of pixel data"),
    (set_in(lambda d: d.SegmentSequence[1], "SegmentNumber", 3), "numbered 3"),
    (set_in(lambda d: d.SegmentSequence[1], "SegmentLabel", ""), "SegmentLabel in 1 item of SegmentSequence"),
    (lambda d: setattr(d.SegmentSequence[1], "TrackingUID", d.SegmentSequence[0].TrackingUID), "Tracking UID"),
    (
        set_in(lambda d: d.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0], "CodeValue", ""),
        "a code in SegmentedPropertyTypeCodeSequence has no value",
    ),
    (given("HighBit", 1), "HighBit is 1"),
    (given("BitsStored", 8), "8 bits are stored in 1"),
    (given("PixelRepresentation", 1), "PixelRepresentation of the segmentation"),
    (given("PhotometricInterpretation", "MONOCHROME1"), "PhotometricInterpretation of the segmentation"),
    (given("SamplesPerPixel", 3), "3 samples a pixel"),
    (given("ImageType", ["ORIGINAL", "PRIMARY"]), "ImageType of the segmentation"),
    (given("LossyImageCompression", "01"), "LossyImageCompression of the segmentation"),
    (given("LossyImageCompression", "NO"), "LossyImageCompression is 'NO', none of 00, 01"),
    (given("SegmentsOverlap", "PERHAPS"), "SegmentsOverlap is 'PERHAPS'"),
    (given("ContentTime", "half past ten"), "ContentTime is no TM"),
    (deleted("SpecificCharacterSet"), "PatientName, ReferringPhysicianName has letters beyond ASCII"),
    (given("SpecificCharacterSet", "ISO_IR 999"), "'ISO_IR 999' is not known"),
    (set_in(lambda d: d.SegmentSequence[0], "SegmentAlgorithmType", "MANUAL"), "segment 1 is MANUAL"),
    (set_in(lambda d: d.SourceImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"), "instance 1.2.3 is referenced"),
    (lambda d: d.SourceImageSequence[0].__delattr__("ReferencedSOPClassUID"), "under that SOP class"),
    (lambda d: d.ReferencedSeriesSequence[0].__delattr__("ReferencedInstanceSequence"), "5 images of the source"),
    (lambda d: d.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop(), "1 images of the source"),
    (set_in(lambda d: shared(d).PixelMeasuresSequence[0], "SpacingBetweenSlices", 5), "SpacingBetweenSlices"),
    (lambda d: shared(d).PixelMeasuresSequence[0].__delattr__("SliceThickness"), "SliceThickness"),
    (set_in(lambda d: shared(d).PixelMeasuresSequence[0], "SliceThickness", 0), "SliceThickness is no distance"),
    (lambda d: shared(d).PlaneOrientationSequence.append(Dataset()), "PlaneOrientationSequence has 2 items"),
    (lambda d: frame(d).PlanePositionSequence.append(Dataset()), "frame 1 lies at None"),
    (
        set_in(source_of, "ReferencedSOPClassUID", "1.2.840.10008.5.1.4.1.1.4"),
        "frame 1 comes from .* another SOP class",
    ),
    (
        lambda d: source_of(d).__delattr__("PurposeOfReferenceCodeSequence"),
        "PurposeOfReferenceCodeSequence of a frame",
    ),
    (
        lambda d: frame(d).DerivationImageSequence[0].__delattr__("DerivationCodeSequence"),
        "DerivationCodeSequence of",
    ),
    (set_in(source_of, "SpatialLocationsPreserved", "MAYBE"), "of a frame's source: SpatialLocationsPreserved"),
    (lambda d: frame(d).__delattr__("FrameContentSequence"), "frame 1 has 0 DimensionIndexValues, there are 2"),
    (set_in(lambda d: frame(d).FrameContentSequence[0], "DimensionIndexValues", [1, 2]), "frame 2 has the Dimension"),
    (lambda d: d.DimensionIndexSequence.append(d.DimensionIndexSequence[0]), "there are 3 dimensions"),
    (lambda d: d.ContributingEquipmentSequence[0].__delattr__("Manufacturer"), "Manufacturer in 1 item"),
    (set_in(lambda d: frame(d).FrameContentSequence[0], "DimensionIndexValues", [1, 9]), "order of the slices"),
    (set_in(lambda d: frame(d).FrameContentSequence[0], "DimensionIndexValues", [3, 1]), "order of the segments"),
    (lambda d: frame(d).FrameContentSequence.append(Dataset()), "frame 1 has 0 DimensionIndexValues"),
    (lambda d: frame(d).SegmentIdentificationSequence.append(Dataset()), "frame 1 is of segment None"),
    (lambda d: d.DimensionIndexSequence[0].__delattr__("FunctionalGroupPointer"), "no FunctionalGroupPointer"),
    (set_in(lambda d: d.DimensionIndexSequence[1], "DimensionOrganizationUID", "1.2.3"), "dimension 2 is of no org"),
    (set_in(lambda d: d.DimensionOrganizationSequence[0], "DimensionOrganizationUID", "1.2.3"), "of no organization"),
    (lambda d: d.DimensionOrganizationSequence.append(d.DimensionOrganizationSequence[0]), "have one UID"),
    (set_in(lambda d: shared(d).PixelMeasuresSequence[0], "SliceThickness", 9), "SliceThickness .* differs"),
    (given("PositionReferenceIndicator", "SN"), "PositionReferenceIndicator differs"),
    (given("SourceImageSequence", []), "SourceImageSequence has no item"),
    (
        lambda d: d.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence.append(
            d.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
        ),
        "PurposeOfReferenceCodeSequence has 2 items",
    ),
]


def broken(dataset: Dataset | None, spoil: Break) -> Dataset:
    assert dataset is not None
    spoil(dataset)
    return dataset


@pytest.mark.parametrize(("spoil", "words"), SEGMENTATION, ids=[w for _, w in SEGMENTATION])
@pytest.mark.filterwarnings("ignore:.*Invalid value for VR|.*The value length:UserWarning")
def test_a_broken_segmentation_is_refused(spoil: Break, words: str) -> None:
    plan, _, seg, _ = result()
    with pytest.raises(NonConformant, match=words):
        check_segmentation(broken(seg, spoil), plan)


def container(d: Dataset) -> Dataset:
    [found] = [c for c in d.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return found


def group(d: Dataset) -> Dataset:
    first: Dataset = container(d).ContentSequence[0]
    return first


def item(code: str, inside: Callable[[Dataset], Dataset] = group) -> Callable[[Dataset], Dataset]:
    def find(d: Dataset) -> Dataset:
        return next(c for c in inside(d).ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == code)

    return find


def without(code: str, inside: Callable[[Dataset], Dataset]) -> Break:
    def spoil(d: Dataset) -> None:
        kept = [c for c in inside(d).ContentSequence if c.ConceptNameCodeSequence[0].CodeValue != code]
        inside(d)["ContentSequence"].value.clear()
        inside(d)["ContentSequence"].value.extend(kept)

    return spoil


def top(d: Dataset) -> Dataset:
    return d


VOLUME = "118565006"

REPORT = [
    *[(deleted(k), k) for k in ("CompletionFlag", "ContentSequence", "PerformedProcedureCodeSequence", "PatientID")],
    (given("CurrentRequestedProcedureEvidenceSequence", []), "which is not in the evidence"),
    (given("PatientID", "P-2"), "PatientID differs"),
    (given("DeviceSerialNumber", ""), "DeviceSerialNumber"),
    (set_in(lambda d: d.ConceptNameCodeSequence[0], "CodeValue", "1"), "title"),
    (without("126010", top), "no Measurement Group"),
    (without("125007", container), "no Measurement Group"),
    (without("121005", top), "Observer Type"),
    (without("121058", top), "Procedure reported"),
    (without("121049", top), "Language"),
    (without("112039", group), "Tracking Identifier"),
    (without("112040", group), "Tracking Unique Identifier"),
    (without("121191", group), "neither references a segment nor"),
    (lambda d: item(VOLUME)(d).__delattr__("MeasuredValueSequence"), "without MeasuredValueSequence"),
    (lambda d: item(VOLUME)(d).MeasuredValueSequence[0].__delattr__("NumericValue"), "NumericValue is no number"),
    (
        set_in(lambda d: item(VOLUME)(d).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0], "CodeValue", ""),
        "a code in MeasurementUnitsCodeSequence has no value",
    ),
    (
        set_in(
            lambda d: item(VOLUME)(d).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0],
            "CodingSchemeDesignator",
            "SCT",
        ),
        "no UCUM code",
    ),
    (
        set_in(lambda d: item("121191")(d).ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "references instance 1.2.3, which is not in the evidence",
    ),
    (
        set_in(lambda d: item("121191")(d).ReferencedSOPSequence[0], "ReferencedSegmentNumber", 9),
        "references segment 9",
    ),
    (given("CompletionFlag", "DONE"), "CompletionFlag is 'DONE'"),
    (deleted("ContinuityOfContent"), "ContinuityOfContent"),
    (set_in(lambda d: d.ContentTemplateSequence[0], "TemplateIdentifier", "2000"), "TID 1500"),
    (lambda d: group(d).ConceptNameCodeSequence.append(Dataset()), "has no value"),
    (set_in(lambda d: group(d), "RelationshipType", "SEES"), "RelationshipType 'SEES'"),
    (
        set_in(
            lambda d: (
                d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
            ),
            "ReferencedSOPClassUID",
            "1.2.840.10008.5.1.4.1.1.4",
        ),
        "under that SOP class",
    ),
    (
        set_in(lambda d: item("121191")(d).ReferencedSOPSequence[0], "ReferencedSegmentNumber", 2),
        "another segment than it measures",
    ),
    (set_in(item("112040"), "UID", "1.2.3"), "another segment than it measures"),
    (set_in(item("121232"), "UID", "1.2.3"), "series of a segment's source"),
    (
        set_in(lambda d: d.CurrentRequestedProcedureEvidenceSequence[0], "StudyInstanceUID", "1.2.3"),
        "where it is not",
    ),
    (
        set_in(
            lambda d: d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0],
            "SeriesInstanceUID",
            "1.2.3",
        ),
        "in series 1.2.3, where it is not",
    ),
    (
        set_in(
            lambda d: d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[-1],
            "SeriesInstanceUID",
            "1.2.3",
        ),
        "in series 1.2.3, where it is not",
    ),
    (lambda d: d.ContentTemplateSequence[0].__delattr__("MappingResource"), "template is not named"),
    (
        lambda d: group(d).ContentTemplateSequence[0].__delattr__("TemplateIdentifier"),
        "names a template without TemplateIdentifier",
    ),
    (lambda d: group(d).ContentTemplateSequence.append(Dataset()), "ContentTemplateSequence has 2 items"),
    (lambda d: group(d)["ConceptNameCodeSequence"].value.clear(), "empty ConceptNameCodeSequence"),
    (
        lambda d: item("121191")(d).ReferencedSOPSequence.append(item("121191")(d).ReferencedSOPSequence[0]),
        "is a IMAGE of several objects",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), REPORT, ids=[w for _, w in REPORT])
def test_a_broken_report_is_refused(spoil: Break, words: str) -> None:
    plan, _, seg, sr = result()
    with pytest.raises(NonConformant, match=words):
        check_report(broken(sr, spoil), plan, seg)


def _renamed(d: Dataset) -> None:
    d.SegmentSequence[0].SegmentLabel = d.SegmentSequence[1].SegmentLabel


def _recoded(d: Dataset) -> None:
    d.SegmentSequence[0].SegmentedPropertyTypeCodeSequence = d.SegmentSequence[1].SegmentedPropertyTypeCodeSequence


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_renamed, "and not as the model card's"),
        (_recoded, "and not as the model card's"),
        (lambda d: d.SegmentSequence.pop(), "there are 1 segments, the model card has 2"),
    ],
)
def test_segments_are_the_model_cards(spoil: Break, words: str) -> None:
    _, _, seg, _ = result()
    assert seg is not None
    check_described(seg.SegmentSequence, CARD)
    spoil(seg)
    with pytest.raises(NonConformant, match=words):
        check_described(seg.SegmentSequence, CARD)


def test_a_report_on_a_segmentation_that_was_never_made_is_refused() -> None:
    plan, _, _, sr = result()
    with pytest.raises(NonConformant, match="which the source does not have"):
        check_report(sr, plan, None)


def test_a_report_in_the_segmentations_series_is_refused() -> None:
    plan, _, seg, sr = result()
    assert seg is not None
    sr.SeriesInstanceUID = seg.SeriesInstanceUID
    with pytest.raises(NonConformant, match="share a series"):
        check_report(sr, plan, seg)


def test_evidence_without_the_segmentation_is_refused() -> None:
    plan, _, seg, sr = result()
    [study] = sr.CurrentRequestedProcedureEvidenceSequence
    study.ReferencedSeriesSequence = [
        s for s in study.ReferencedSeriesSequence if s.SeriesInstanceUID == plan.first.SeriesInstanceUID
    ]
    with pytest.raises(NonConformant, match="which is not in the evidence"):
        check_report(sr, plan, seg)


def test_a_frame_of_a_multi_frame_source_must_be_named() -> None:
    plan, _, seg, _ = result([enhanced()])
    assert seg is not None
    del source_of(seg).ReferencedFrameNumber
    with pytest.raises(NonConformant, match="which frame of the multi-frame instance"):
        check_segmentation(seg, plan)


def reread(seg: Dataset | None) -> Dataset:
    assert seg is not None
    return dcmread(BytesIO(to_part10_bytes(seg)))


@pytest.mark.parametrize("number", [0, 3, -1])
@pytest.mark.parametrize(
    ("ending", "words"),
    [("99", "which is no slice of the source"), ("9x", "9x' is no UID")],
    ids=["stranger", "no UID"],
)
def test_in_a_file_the_source_of_every_frame_is_looked_at(number: int, ending: str, words: str) -> None:
    """As in the node, where the frames' items are bytes until somebody looks."""
    plan, _, seg, _ = result()
    assert seg is not None
    check_segmentation(reread(seg), plan)
    with odd_values_accepted():
        image = frame(seg, number).DerivationImageSequence[0].SourceImageSequence[0]
        image.ReferencedSOPInstanceUID = image.ReferencedSOPInstanceUID[:-2] + ending
        with pytest.raises(NonConformant, match=words):
            check_segmentation(reread(seg), plan)


@pytest.mark.parametrize("empty", [False, True])
def test_good_results_pass_and_come_as_files(empty: bool) -> None:
    plan = plan_volume(classic())
    labels = two_fs(plan.geometry.shape) * np.uint8(not empty)
    statistics = measure(labels, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])

    results = encode_results(labels, statistics, plan, CARD, MADE)

    assert [r.kind for r in results] == (["SR"] if empty else ["SEG", "SR"])
    for r in results:
        assert r.content[128:132] == b"DICM"
        assert r.sop_instance_uid.encode() in r.content


@pytest.mark.parametrize("lossy", [[0], [2], [1, 3]])
def test_one_slice_with_loss_marks_the_result(lossy: list[int]) -> None:
    """An archive may compress a part of a series; which one comes first must not decide (PS3.3 C.7.6.1.1.5)."""
    series = classic()
    for number in lossy:
        series[number].LossyImageCompression, series[number].LossyImageCompressionRatio = "01", 12
        series[number].LossyImageCompressionMethod = "ISO_10918_1"
    plan = plan_volume(series)
    labels = two_fs(plan.geometry.shape)
    statistics = measure(labels, pixels(plan.geometry.shape), plan.geometry, plan.rescale, [1, 2])
    segmentation, _ = encode_results(labels, statistics, plan, CARD, MADE)
    made = dcmread(BytesIO(segmentation.content))
    assert (made.LossyImageCompression, made.LossyImageCompressionRatio) == ("01", 12)


def test_warming_up_needs_no_series() -> None:
    warm_up(CARD, MADE)
