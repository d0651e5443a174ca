"""The gate for the further forms of a segmentation: each names what it shows, and shows it where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)

from dicomnode.encoding.check import (
    REPORT_FILLED,
    REPORT_PRESENT,
    check_common,
    check_described,
    check_filled,
    check_label_map,
    check_present,
    check_segmentation,
    itself,
    received,
)
from dicomnode.encoding.check_outlines import Points, check_outlines
from dicomnode.encoding.check_whole import check_fixed, check_resolves
from dicomnode.encoding.content_items import evidence_of
from dicomnode.encoding.findings import Findings, Marks
from dicomnode.encoding.outcome import Outcome
from dicomnode.encoding.references import UsedFrame, instances_of, study_and_series
from dicomnode.encoding.refusal import refuse
from dicomnode.imaging.frames import Frame
from dicomnode.imaging.headers import items, odd_values_accepted, text, whole

_PLANE_TOLERANCE_MM = 0.01  # contours are rounded to micrometres
_STRUCTURES_FILLED = (
    "StructureSetLabel",
    "StructureSetDate",
    "StructureSetTime",
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
    "RTROIObservationsSequence",
    "FrameOfReferenceUID",
)
_GRAPHIC_FILLED = (
    "GraphicAnnotationUnits",
    "GraphicDimensions",
    "NumberOfGraphicPoints",
    "GraphicData",
    "GraphicType",
)
_PICTURE = {
    "ImageType": "DERIVED\\SECONDARY\\OVERLAY",
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}
_Drawn = dict[tuple[int, int], list[Points]]  # (segment, slice) → lines
_NO_CONTENT_DATE = ("ContentDate", "ContentTime")
_ROI_FILLED = ("ROINumber", "ReferencedFrameOfReferenceUID", "ROIName", "ROIGenerationAlgorithm")
_CONTOUR_FILLED = ("ContourGeometricType", "NumberOfContourPoints", "ContourData", "ContourImageSequence")
_DOCUMENT_FILLED = ("MIMETypeOfEncapsulatedDocument", "EncapsulatedDocument", "ConversionType", "BurnedInAnnotation")
_CAPTURE_FILLED = ("ImageType", "Rows", "Columns", "BurnedInAnnotation", "ConversionType", "PixelData")
_STATE_FILLED = (
    "ContentLabel",
    "PresentationCreationDate",
    "PresentationCreationTime",
    "ReferencedSeriesSequence",
    "DisplayedAreaSelectionSequence",
    "GraphicLayerSequence",
    "GraphicAnnotationSequence",
)


def check_structure_set(dataset: Dataset, findings: Findings) -> None:
    """Raises NonConformant naming what is wrong with an RT Structure Set."""
    with odd_values_accepted():
        check_common(dataset, findings.plan, RTStructureSetStorage, "RTSTRUCT", but=_NO_CONTENT_DATE)
        check_filled(dataset, _STRUCTURES_FILLED, "the RTSTRUCT")
        check_present(dataset, ("PositionReferenceIndicator",), "the RTSTRUCT")
        _check_frame_of_reference(dataset, findings)
        regions = [whole(roi, "ROINumber") for roi in items(dataset, "StructureSetROISequence")]
        for roi in items(dataset, "StructureSetROISequence"):
            check_filled(roi, _ROI_FILLED, "a region")
            if roi.ReferencedFrameOfReferenceUID != text(findings.plan.first, "FrameOfReferenceUID"):
                refuse("a region is in another frame of reference than the source")
        for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
            if [whole(item, "ReferencedROINumber") for item in items(dataset, keyword)] != regions:
                refuse(f"{keyword} and StructureSetROISequence name different regions")
        drawn: _Drawn = {}
        for roi in items(dataset, "ROIContourSequence"):
            _check_contours(items(roi, "ContourSequence"), whole(roi, "ReferencedROINumber") or 0, findings, drawn)
        check_outlines(findings.labels, drawn, "a contour")
        _check_named(dataset, findings)


def _check_frame_of_reference(dataset: Dataset, findings: Findings) -> None:
    """PS3.3 C.8.8.5: that of the images, and with them."""
    own = text(findings.plan.first, "FrameOfReferenceUID")
    listed = items(dataset, "ReferencedFrameOfReferenceSequence")
    if [text(one, "FrameOfReferenceUID") for one in (dataset, *listed)] != [own, own]:
        refuse("FrameOfReferenceUID differs from the source's")
    studies = [s for one in listed for s in items(one, "RTReferencedStudySequence")]
    series = [s for study in studies for s in items(study, "RTReferencedSeriesSequence")]
    images = {text(i, "ReferencedSOPInstanceUID") for s in series for i in items(s, "ContourImageSequence")}
    named = [(text(study, "ReferencedSOPInstanceUID"), text(s, "SeriesInstanceUID"))
             for study, s in zip(studies, series, strict=False)]  # fmt: skip
    if named != [study_and_series(findings.plan)] or images != instances_of(findings.plan).keys():
        refuse("ReferencedFrameOfReferenceSequence does not name the source's images alone")


def _check_contours(contours: list[Dataset], region: int, findings: Findings, drawn: _Drawn) -> None:
    slices = {(f.sop_instance_uid, f.number): k for k, f in enumerate(findings.plan.frames)}
    if not contours:
        refuse("a region has no contour")
    for contour in contours:
        check_filled(contour, _CONTOUR_FILLED, "a contour")
        image = items(contour, "ContourImageSequence")[0]
        source = (text(image, "ReferencedSOPInstanceUID"), whole(image, "ReferencedFrameNumber") or 1)
        if source not in slices:
            refuse(f"a contour lies on instance {source[0]} frame {source[1]}, which is no slice of the source")
        points = np.array(contour.ContourData, dtype=float)
        if len(points) != 3 * contour.NumberOfContourPoints:
            refuse(f"a contour has {len(points)} coordinates for {contour.NumberOfContourPoints} points")
        if text(contour, "ContourGeometricType") != "CLOSED_PLANAR":
            refuse(f"a contour is {text(contour, 'ContourGeometricType')}, not CLOSED_PLANAR")
        frame = findings.plan.frames[slices[source]]
        away_mm = np.abs((points.reshape(-1, 3) - np.array(frame.position_mm)) @ np.array(frame.normal)).max()
        if away_mm > _PLANE_TOLERANCE_MM:
            refuse(f"a contour lies {away_mm:.3f} mm away from its slice")
        drawn.setdefault((region, slices[source]), []).append(_in_pixels(points.reshape(-1, 3), frame))


def _in_pixels(points: Points, frame: Frame) -> Points:
    """(n, 3) LPS mm → (n, 2) row and column, 0 the centre of the first pixel (PS3.3 C.7.6.2.1.1)."""
    along = np.reshape(frame.orientation, (2, 3))[::-1]  # down the rows, along the columns
    found: Points = (points - np.array(frame.position_mm)) @ along.T / np.array(frame.spacing_mm)
    return found


def check_presentation_state(dataset: Dataset, findings: Marks) -> None:
    """Raises NonConformant naming what is wrong with a presentation state."""
    with odd_values_accepted():
        check_common(dataset, findings.plan, GrayscaleSoftcopyPresentationStateStorage, "PR", but=_NO_CONTENT_DATE)
        check_filled(dataset, _STATE_FILLED, "the presentation state")
        _check_references(_images_of(dataset, "ReferencedSeriesSequence"), findings)
        layers = {text(layer, "GraphicLayer") for layer in items(dataset, "GraphicLayerSequence")}
        frames: Sequence[UsedFrame] = findings.plan.frames
        slices = {(f.sop_instance_uid, f.number): k for k, f in enumerate(frames)}
        segments = {f"SEGMENT {segment.number}": segment.number for segment in findings.found}
        drawn: _Drawn = {}
        for annotation in items(dataset, "GraphicAnnotationSequence"):
            _check_references(items(annotation, "ReferencedImageSequence"), findings)
            if text(annotation, "GraphicLayer") not in layers:
                refuse(f"an outline is on the layer {text(annotation, 'GraphicLayer')}, which is not described")
            images = [_key(item) for item in items(annotation, "ReferencedImageSequence")]
            for graphic in items(annotation, "GraphicObjectSequence"):
                for k in (slices.get(image, -1) for image in images):
                    points = _checked_points(graphic, *findings.labels[k].shape)
                    drawn.setdefault((segments.get(text(annotation, "GraphicLayer"), 0), k), []).append(points)
        check_outlines(findings.labels, drawn, "an outline")
        _check_named(dataset, findings)


def _key(item: Dataset) -> tuple[str, int]:
    return text(item, "ReferencedSOPInstanceUID"), whole(item, "ReferencedFrameNumber") or 1


def _checked_points(graphic: Dataset, rows: int, columns: int) -> Points:
    """(n, 2) row and column, 0 the centre of the first pixel: PS3.3 C.10.5.1.1 counts from its corner."""
    check_filled(graphic, _GRAPHIC_FILLED, "an outline")
    if (text(graphic, "GraphicAnnotationUnits"), text(graphic, "GraphicType")) != ("PIXEL", "POLYLINE"):
        refuse("an outline is no line in pixels")
    points = np.array(graphic.GraphicData, dtype=float).reshape(-1, 2)
    if len(points) != graphic.NumberOfGraphicPoints:
        refuse(f"an outline has {len(points)} points, it says {graphic.NumberOfGraphicPoints}")
    if points.min() < 0 or points[:, 0].max() > columns or points[:, 1].max() > rows:
        refuse("an outline leaves the image")
    return points[:, ::-1] - 0.5


def _images_of(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    for series in items(dataset, keyword):
        yield from items(series, "ReferencedImageSequence")


def check_label_map_form(dataset: Dataset, findings: Findings) -> None:
    """Raises NonConformant naming what is wrong with a Label Map Segmentation."""
    check_label_map(dataset, findings.plan, findings.further)
    check_described(items(dataset, "SegmentSequence"), findings.card)


def check_full(dataset: Dataset, findings: Findings, *, pixel_bytes: int | None = None) -> None:
    """As check_segmentation, and of every segment that is found there is a frame of every slice."""
    check_segmentation(dataset, findings.plan, findings.further, pixel_bytes=pixel_bytes)
    check_described(items(dataset, "SegmentSequence"), findings.card)
    needed = len(findings.found) * len(findings.plan.frames)
    if dataset.NumberOfFrames != needed:
        refuse(f"there are {dataset.NumberOfFrames} frames; {needed} have no gap between them")


def check_secondary_capture(dataset: Dataset, findings: Marks) -> None:
    """Raises NonConformant naming what is wrong with a Secondary Capture image."""
    with odd_values_accepted():
        check_common(dataset, findings.plan, SecondaryCaptureImageStorage, "OT")
        check_filled(dataset, _CAPTURE_FILLED, "the picture")
        if text(dataset, "BurnedInAnnotation") != "YES":
            refuse("words are burned into the picture, and BurnedInAnnotation does not say so")
        check_fixed(dataset, _PICTURE, "the picture")
        needed = dataset.Rows * dataset.Columns * 3
        if len(dataset.PixelData) != needed + needed % 2:
            refuse(f"{len(dataset.PixelData)} bytes of pixel data, the picture takes {needed}")
        _check_references(items(dataset, "SourceImageSequence"), findings)
        _check_named(dataset, findings)


def check_one_page(dataset: Dataset, findings: Outcome) -> None:
    """Raises NonConformant naming what is wrong with an Encapsulated PDF."""
    with odd_values_accepted():
        check_common(dataset, findings.plan, EncapsulatedPDFStorage, "DOC")
        check_filled(dataset, _DOCUMENT_FILLED, "the document")
        check_present(dataset, ("DocumentTitle", "AcquisitionDateTime", "ConceptNameCodeSequence"), "the document")
        content = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
        if not content.startswith(b"%PDF-") or not content.rstrip().endswith(b"%%EOF"):
            refuse("the encapsulated document is no whole PDF")
        _check_references(items(dataset, "SourceInstanceSequence"), findings)
        _check_named(dataset, findings)


def check_key_objects(dataset: Dataset, findings: Marks) -> None:
    """Raises NonConformant naming what is wrong with a Key Object Selection."""
    with odd_values_accepted():
        check_common(dataset, findings.plan, KeyObjectSelectionDocumentStorage, "KO")
        kept = [keyword for keyword in REPORT_FILLED if keyword not in ("CompletionFlag", "VerificationFlag")]
        check_filled(dataset, kept, "the key object selection")
        check_present(dataset, REPORT_PRESENT[:1], "the key object selection")
        evidence = {text(item, "ReferencedSOPInstanceUID") for item in evidence_of(dataset)}
        named = [r for item in items(dataset, "ContentSequence") for r in items(item, "ReferencedSOPSequence")]
        if evidence != {text(item, "ReferencedSOPInstanceUID") for item in named}:
            refuse("the key objects are not those in the evidence (PS3.3 C.17.6.2)")
        _check_references(named, findings)
        _check_named(dataset, findings)


def _check_references(references: Iterable[Dataset], findings: Outcome) -> None:
    """To images of the source, or to the segmentation; to one at least."""
    listed = list(references)
    if not listed:
        refuse("no image of the source is named")
    known = _known(findings)
    for item in listed:
        uid = text(item, "ReferencedSOPInstanceUID")
        if known.get(uid) != text(item, "ReferencedSOPClassUID"):
            refuse(f"instance {uid} is referenced, which the source does not have under that SOP class")


def _check_named(dataset: Dataset, findings: Outcome) -> None:
    """Whatever is named anywhere; an RT Structure Set names the study as if it were an instance."""
    check_resolves(dataset, _known(findings), {study_and_series(findings.plan)[0]})


def _known(findings: Outcome) -> dict[str, str]:
    known = received((findings.plan, *findings.further.values()))
    for segmentation in findings.segmentations:
        known |= itself(segmentation)
    return known
