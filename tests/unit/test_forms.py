"""The further forms of a segmentation: each says what the label map says, and a broken one is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from highdicom.sr import CodedConcept
from matplotlib.path import Path
from pydicom import Dataset, dcmread

from dicomnode.encoding.content_items import evidence_of
from dicomnode.encoding.findings import Findings
from dicomnode.encoding.forms import FORMS, encode_form
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.errors import EncodingError, NonConformant
from dicomnode.imaging.measure import measure
from dicomnode.imaging.volume import plan_volume
from tests.made_results import CARD, MADE, two_fs
from tests.made_series import classic, pixels
from tests.unit.test_seg import SOURCES


def findings(series: list[Dataset] | None = None, empty: bool = False) -> Findings:
    plan = plan_volume(classic() if series is None else series)
    labels, volume = two_fs(plan.geometry.shape), pixels(plan.geometry.shape)
    labels *= np.uint8(not empty)
    file = encode_segmentation(labels, plan, CARD, MADE)
    statistics = measure(labels, volume, plan.geometry, plan.rescale, [1, 2])
    return Findings(labels, volume, statistics, plan, CARD, MADE, file.header if file else None)


def made(kind: str, of: Findings | None = None) -> list[Dataset]:
    """As files say it."""
    return [dcmread(io.BytesIO(result.content)) for result in encode_form(of or findings(), kind)]


@pytest.mark.parametrize("name", SOURCES)
def test_contours_enclose_the_voxels_where_they_lie(name: str) -> None:
    of = findings(SOURCES[name]())
    [structures] = made("RTSTRUCT", of)
    geometry = of.plan.geometry
    to_index = np.linalg.inv(geometry.affine)
    labels = np.zeros(geometry.shape, np.uint8)
    centres = np.stack(np.indices(geometry.shape[1:]), -1).reshape(-1, 2)
    for roi in structures.ROIContourSequence:
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            k = round(float(index[0, 0]))
            np.testing.assert_allclose(index[:, 0], k, atol=0.01)
            line = np.vstack([index[:, 1:], index[:1, 1:]])
            inside = Path(line, closed=True).contains_points(centres).reshape(geometry.shape[1:])
            labels[k][inside] = roi.ReferencedROINumber
    np.testing.assert_array_equal(labels, of.labels)
    assert [roi.ROIName for roi in structures.StructureSetROISequence] == ["Lungs", "Bone"]


@pytest.mark.parametrize("name", SOURCES)
def test_outlines_lie_on_the_images_that_a_state_names(name: str) -> None:
    of = findings(SOURCES[name]())
    [state] = made("GSPS", of)
    slices = {(f.sop_instance_uid, f.number): k for k, f in enumerate(of.plan.frames)}
    labels = np.zeros_like(of.labels)
    centres = np.stack(np.indices(of.labels.shape[1:]), -1).reshape(-1, 2)[:, ::-1] + 0.5
    for annotation in state.GraphicAnnotationSequence:
        [image] = annotation.ReferencedImageSequence
        k = slices[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber", 1)]
        for graphic in annotation.GraphicObjectSequence:
            line = np.array(graphic.GraphicData).reshape(-1, 2)
            inside = Path(line, closed=True).contains_points(centres).reshape(labels.shape[1:])
            labels[k][inside] = int(annotation.GraphicLayer.split()[1])
    np.testing.assert_array_equal(labels, of.labels)
    assert state.RescaleIntercept == of.plan.frames[0].rescale.intercept


@pytest.mark.parametrize("kind", ["SEG-LABELMAP", "SEG-FULL"])
@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"tilted"}))
def test_other_segmentations_hold_the_same_label_map(name: str, kind: str) -> None:
    of = findings(SOURCES[name]())
    [dataset] = made(kind, of)
    volume = hd.seg.Segmentation.from_dataset(dataset, copy=False).get_volume(combine_segments=True)
    to_ours = np.linalg.inv(of.plan.geometry.affine) @ volume.affine
    indices = np.indices(volume.array.shape).reshape(3, -1)
    ours = np.rint(to_ours[:3, :3] @ indices + to_ours[:3, 3:]).astype(int)
    np.testing.assert_array_equal(of.labels[tuple(ours)], volume.array.ravel())
    assert np.count_nonzero(volume.array) == np.count_nonzero(of.labels)


def test_pictures_show_every_slice_with_a_segment_and_warn() -> None:
    of = findings()
    images = made("SC", of)
    assert len(images) == len(of.slices)
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert [image.InstanceNumber for image in images] == [1, 2, 3, 4]
    for image, k in zip(images, of.slices, strict=True):
        assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == of.plan.frames[k].sop_instance_uid
        assert (image.BurnedInAnnotation, image.Modality) == ("YES", "OT")
        colours = {tuple(c) for c in image.pixel_array.reshape(-1, 3).tolist()}
        assert CARD.segments[0].colour in colours
    assert images[0].PatientOrientation == ["L", "P"]


def test_a_page_shows_key_slices_and_numbers() -> None:
    [document] = made("PDF")
    content = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Subtype /Image") == 2
    assert document.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert b"Patient: M" in content
    assert b"Study: 20260102" in content


def test_key_objects_are_the_largest_slices_and_the_segmentation() -> None:
    of = findings()
    [selection] = made("KO", of)
    named = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in selection.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    ]
    keys = sorted(set(of.key_slices.values()))
    assert of.segmentation is not None
    assert named == [*(of.plan.frames[k].sop_instance_uid for k in keys), str(of.segmentation.SOPInstanceUID)]


def test_each_job_of_a_study_has_key_objects_of_its_own() -> None:
    """Two models on a series, and one of them on another series of the study."""
    first, other = findings(), findings(classic(series="other", SeriesNumber=7))
    jobs = [first, replace(first, card=replace(CARD, name="second-model")), other]
    selections = [made("KO", of)[0] for of in jobs]
    assert {s.StudyInstanceUID for s in selections} == {first.plan.first.StudyInstanceUID}
    assert len({s.SeriesInstanceUID for s in selections}) == len({s.SOPInstanceUID for s in selections}) == 3
    assert [(s.SeriesNumber, s.InstanceNumber, s.SeriesDescription) for s in selections] == [
        (4011, 1, "torso-ct 1.0.0 KO"),
        (4011, 1, "second-model 1.0.0 KO"),
        (7011, 1, "torso-ct 1.0.0 KO"),
    ]
    for of, selection in zip(jobs, selections, strict=True):
        assert selection.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
        words = [i.TextValue for i in selection.ContentSequence if i.ValueType == "TEXT" and "slice" in i.TextValue]
        assert words[0].startswith(f"{of.card.name} 1.0.0: Lungs largest in slice ")
        assert of.segmentation is not None
        sources = {frame.sop_instance_uid for frame in of.plan.frames}
        evidence = {str(r.ReferencedSOPInstanceUID) for r in evidence_of(selection)}
        assert evidence - sources == {of.segmentation.SOPInstanceUID}
        assert evidence & sources


@pytest.mark.parametrize("kind", FORMS)
def test_the_same_findings_are_the_same_objects_byte_for_byte(kind: str) -> None:
    first, again = ([result.content for result in encode_form(findings(), kind)] for _ in range(2))
    assert first == again


@pytest.mark.parametrize("kind", FORMS)
def test_another_model_makes_other_objects(kind: str) -> None:
    other = replace(findings(), made=replace(MADE, model_digest="cd" * 32))
    assert {d.SOPInstanceUID for d in made(kind)}.isdisjoint(d.SOPInstanceUID for d in made(kind, other))


def test_images_of_several_rescales_have_no_one_state() -> None:
    series = classic(modality="PT", Units="BQML")
    for k, image in enumerate(series):
        image.RescaleSlope = 1 + k / 8
    with pytest.raises(EncodingError, match="differ in their rescale"):
        made("GSPS", findings(series))


def _first(dataset: Dataset, *keywords: str) -> Dataset:
    for keyword in keywords:
        dataset = dataset[keyword].value[0]
    return dataset


def put(keyword: str, value: Any, *path: str) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(_first(dataset, *path), keyword, value)


def moved(dataset: Dataset) -> None:
    contour = _first(dataset, "ROIContourSequence", "ContourSequence")
    contour.ContourData = [float(v) + 1 for v in contour.ContourData]


def shifted(dataset: Dataset) -> None:
    """By a pixel within its slice."""
    contour = _first(dataset, "ROIContourSequence", "ContourSequence")
    contour.ContourData = [float(v) + (0.8 if n % 3 == 0 else 0) for n, v in enumerate(contour.ContourData)]


def flipped(dataset: Dataset) -> None:
    """Left and right, within the image."""
    for annotation in dataset.GraphicAnnotationSequence:
        for graphic in annotation.GraphicObjectSequence:
            graphic.GraphicData = [16 - v if n % 2 == 0 else v for n, v in enumerate(graphic.GraphicData)]


def without_evidence(dataset: Dataset) -> None:
    del _first(dataset, "CurrentRequestedProcedureEvidenceSequence").ReferencedSeriesSequence[-1]


ROI, OUTLINE = ("ROIContourSequence", "ContourSequence"), ("GraphicAnnotationSequence", "GraphicObjectSequence")
BROKEN: list[tuple[str, Callable[[Dataset], None], str]] = [
    *((kind, put("PatientID", "P-2"), "PatientID differs") for kind in FORMS),
    *((kind, put("StudyInstanceUID", "1.2.3"), "another study") for kind in FORMS),
    *((kind, put("Manufacturer", ""), "Manufacturer") for kind in FORMS),
    (
        "RTSTRUCT",
        put("ReferencedFrameOfReferenceUID", "1.2", "StructureSetROISequence"),
        "another frame of reference",
    ),
    ("RTSTRUCT", put("ROINumber", 9, "StructureSetROISequence"), "different regions"),
    ("RTSTRUCT", put("ContourSequence", [], "ROIContourSequence"), "no contour"),
    ("RTSTRUCT", put("ReferencedSOPInstanceUID", "1.2", *ROI, "ContourImageSequence"), "no slice of the source"),
    ("RTSTRUCT", put("NumberOfContourPoints", 3, *ROI), "coordinates for 3 points"),
    ("RTSTRUCT", moved, "away from its slice"),
    ("GSPS", put("GraphicLayer", "OTHER", "GraphicAnnotationSequence"), "not described"),
    ("GSPS", put("GraphicData", [0.0, 0.0, 999.0, 1.0, 0.0, 0.0], *OUTLINE), "points"),
    ("GSPS", put("NumberOfGraphicPoints", 1, *OUTLINE), "points"),
    (
        "GSPS",
        put("ReferencedSOPInstanceUID", "1.2", "GraphicAnnotationSequence", "ReferencedImageSequence"),
        "does not have",
    ),
    ("SC", put("BurnedInAnnotation", "NO"), "BurnedInAnnotation"),
    ("SC", put("Rows", 7), "bytes of pixel data"),
    ("SC", lambda d: d.__delattr__("SourceImageSequence"), "no image of the source"),
    ("SC", put("SourceImageSequence", []), "SourceImageSequence has no item"),
    ("PDF", put("EncapsulatedDocument", b"%PDF-1.4 cut"), "no whole PDF"),
    ("PDF", put("ReferencedSOPInstanceUID", "1.2", "SourceInstanceSequence"), "does not have"),
    ("SEG-LABELMAP", put("SegmentationType", "BINARY"), "type is BINARY"),
    ("SEG-LABELMAP", put("SegmentNumber", 1, "SegmentSequence"), "not the background"),
    ("SEG-LABELMAP", put("NumberOfFrames", 3), "NumberOfFrames is 3"),
    ("SEG-LABELMAP", put("PixelPaddingValue", 1), "PixelPaddingValue is not 0"),
    ("SEG-LABELMAP", put("SegmentAlgorithmName", "", "SegmentSequence"), "SegmentAlgorithmName of the background"),
    ("SEG-LABELMAP", lambda d: setattr(d.SegmentSequence[1], "SegmentLabel", "Else"), "described as Else"),
    ("SEG-FULL", put("SegmentLabel", "Else", "SegmentSequence"), "described as Else"),
    ("SEG-FULL", put("NumberOfFrames", 3), "NumberOfFrames is 3"),
    ("RTSTRUCT", shifted, "not where the segment is"),
    ("RTSTRUCT", lambda d: d.ROIContourSequence[0].ContourSequence.pop(), "a contour of segment 1 in slice"),
    ("RTSTRUCT", put("ContourGeometricType", "POINT", *ROI), "a contour is POINT"),
    ("RTSTRUCT", put("FrameOfReferenceUID", "1.2"), "FrameOfReferenceUID differs"),
    ("RTSTRUCT", put("ReferencedFrameOfReferenceSequence", []), "ReferencedFrameOfReferenceSequence"),
    ("RTSTRUCT", lambda d: d.__delattr__("PositionReferenceIndicator"), "PositionReferenceIndicator"),
    ("RTSTRUCT", put("ROIGenerationAlgorithm", "GUESSED", "StructureSetROISequence"), "ROIGenerationAlgorithm"),
    ("GSPS", put("GraphicData", [1.0, 1.0, 3.0, 1.0, 3.0, 3.0], *OUTLINE), "points"),
    ("GSPS", flipped, "not where the segment is"),
    ("GSPS", put("GraphicAnnotationUnits", "DISPLAY", *OUTLINE), "no line in pixels"),
    ("GSPS", lambda d: d.GraphicAnnotationSequence.pop(), "an outline of segment"),
    ("SC", put("PhotometricInterpretation", "MONOCHROME2"), "samples a pixel"),
    ("SC", put("PlanarConfiguration", 1), "PlanarConfiguration of the picture"),
    ("SC", put("ImageType", ["ORIGINAL", "PRIMARY"]), "ImageType of the picture"),
    ("SC", put("BitsStored", 7), "HighBit is 7"),
    ("PDF", put("MIMETypeOfEncapsulatedDocument", "text/plain"), "application/pdf"),
    ("SEG-LABELMAP", put("BitsStored", 7), "HighBit is 7"),
    ("SEG-LABELMAP", put("PhotometricInterpretation", "MONOCHROME1"), "PhotometricInterpretation of"),
    (
        "KO",
        put(
            "ReferencedSOPClassUID",
            "1.2",
            "CurrentRequestedProcedureEvidenceSequence",
            "ReferencedSeriesSequence",
            "ReferencedSOPSequence",
        ),
        "under that SOP class",
    ),
    ("KO", without_evidence, "which is not in the evidence"),
]


@pytest.mark.parametrize(("kind", "spoil", "words"), BROKEN, ids=[f"{kind} {words}" for kind, _, words in BROKEN])
def test_a_broken_form_is_refused(kind: str, spoil: Callable[[Dataset], None], words: str) -> None:
    of = findings()
    [dataset, *_] = made(kind, of)
    spoil(dataset)
    with pytest.raises(NonConformant, match=words):
        FORMS[kind].check(dataset, of)


def test_of_nothing_there_is_a_page_that_says_so() -> None:
    nothing = findings(empty=True)
    assert {kind for kind in FORMS if encode_form(nothing, kind)} == {"PDF"}
    assert b"Nothing was found" in made("PDF", nothing)[0].EncapsulatedDocument
    assert b"Nothing was found" not in made("PDF")[0].EncapsulatedDocument


def test_codes_name_the_regions() -> None:
    [structures] = made("RTSTRUCT")
    [code] = structures.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence
    assert CodedConcept.from_dataset(code).value == "39607008"
