"""Masks of single images as a TID 1500 report (PS3.16, PS3.3 A.35.13): area and values of each segment on each image.

A segment on an image is a planar measurement group (TID 1410) that refers to its frame in the SEG and to the image;
its longest line, where the card asks for it, a group of its own under the same tracking UID, with the line on the
image (SCOORD). Of an image without a segment the report says that it is absent there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.provenance import Provenance, tracking
from dicomnode.encoding.references import NONE
from dicomnode.encoding.seg import coded
from dicomnode.encoding.seg_file import SegFile
from dicomnode.encoding.seg_images import frame_number
from dicomnode.encoding.sr import algorithm_identification, of_values, shown
from dicomnode.encoding.sr_boxes import MILLIMETRE, PIXELS
from dicomnode.encoding.sr_groups import Group, region_source, report_around, source_image, source_reference
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.masked_images import Line, RegionStatistics

SQUARE_MILLIMETRE = SrCode("mm2", "UCUM", "square millimeter")
# As of voxels: no more is known than that it is what the rescale gives (PS3.16 8.2: 99 marks a private scheme)
_PIXEL_VALUE = SrCode("pixel-value", "99DICOMNODE", "Pixel value after rescale")
_LUMINANCE = SrCode("luminance", "99DICOMNODE", "Luminance of a colour image")

Segmentations = Mapping[str, SegFile]
"""By the SOP Instance UID of the image that it is of."""


def encode_image_report(
    found: Sequence[RegionStatistics],
    plan: ImagesPlan,
    card: ModelCard,
    made: Provenance,
    segmentations: Segmentations,
) -> Dataset:
    """`found`: of every frame of the plan every segment."""
    results = [segmentation.header for segmentation in segmentations.values()]
    digest = hashlib.sha256(f"{[str(r.SOPInstanceUID) for r in results]} {list(found)}".encode()).hexdigest()
    groups = [group for one in found for group in _groups(one, plan, card, made, segmentations)]
    return report_around(groups, digest, plan, card, made, NONE, results)


def _groups(
    found: RegionStatistics, plan: ImagesPlan, card: ModelCard, made: Provenance, segmentations: Segmentations
) -> list[Group]:
    segmentation = segmentations.get(plan.frames[found.image].sop_instance_uid)
    if segmentation is None or not found.pixels:
        return [_absent(found, plan, card, made)]
    region = _region(found, plan, card, made, segmentation)
    return [region, *([_line(found, found.diameter, plan, card, made)] if found.diameter is not None else [])]


def _tracked(found: RegionStatistics, plan: ImagesPlan, card: ModelCard) -> sr.TrackingIdentifier:
    identifier, uid = tracking(plan.frames[found.image].sop_instance_uid, card, found.segment_number)
    return sr.TrackingIdentifier(uid=uid, identifier=identifier)


def _absent(found: RegionStatistics, plan: ImagesPlan, card: ModelCard, made: Provenance) -> Group:
    segment, frame = card.segments[found.segment_number - 1], plan.frames[found.image]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracked(found, plan, card),
        finding_type=coded(segment.type),
        finding_category=coded(segment.category),
        algorithm_id=algorithm_identification(card, made),
        qualitative_evaluations=[sr.QualitativeEvaluation(name=codes.DCM.PresenceOfProperty, value=codes.DCM.Absent)],
        source_images=[source_image(plan.headers[frame.instance], [frame.number])],
    )


def _region(
    found: RegionStatistics, plan: ImagesPlan, card: ModelCard, made: Provenance, segmentation: SegFile
) -> Group:
    segment = card.segments[found.segment_number - 1]
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracked(found, plan, card),
        referenced_segment=_frame_reference(found, plan, segmentation),
        finding_type=coded(segment.type),
        finding_category=coded(segment.category),
        algorithm_id=algorithm_identification(card, made),
        measurements=[_area(found), *of_values(found.values, plan, _LUMINANCE if plan.colour else _PIXEL_VALUE)],
    )


def _frame_reference(
    found: RegionStatistics, plan: ImagesPlan, segmentation: SegFile
) -> sr.ReferencedSegmentationFrame:
    """By the number of the frame, which is of one segment: the segment's must not be there then (PS3.3 10.3)."""
    header, frame = segmentation.header, plan.frames[found.image]
    reference = sr.ReferencedSegmentationFrame(
        sop_class_uid=header.SOPClassUID,
        sop_instance_uid=header.SOPInstanceUID,
        frame_number=frame_number(segmentation, found.segment_number, frame.number - 1),
        segment_number=found.segment_number,
        source_image=sr.SourceImageForSegmentation(*source_reference(plan.headers[frame.instance], [frame.number])),
    )
    del reference[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
    return reference


def _area(found: RegionStatistics) -> sr.Measurement:
    """In pixels where nobody knows how large these are in the patient."""
    if found.area_mm2 is None:
        return sr.Measurement(name=codes.SCT.Area, value=found.pixels, unit=PIXELS)
    return sr.Measurement(name=codes.SCT.Area, value=shown(found.area_mm2), unit=SQUARE_MILLIMETRE)


def _line(found: RegionStatistics, line: Line, plan: ImagesPlan, card: ModelCard, made: Provenance) -> Group:
    """Of the same finding: a group that refers to a segment has no room for coordinates (TID 1410, TID 1501)."""
    segment, frame = card.segments[found.segment_number - 1], plan.frames[found.image]
    drawn = sr.CoordinatesForMeasurement(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(line.ends),
        source_image=region_source(plan.headers[frame.instance], frame.number),
    )
    measurement = sr.Measurement(
        name=codes.SCT.LongAxis,
        value=shown(line.length),
        unit=PIXELS if found.area_mm2 is None else MILLIMETRE,
        referenced_coordinates=[drawn],
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracked(found, plan, card),
        finding_type=coded(segment.type),
        finding_category=coded(segment.category),
        algorithm_id=algorithm_identification(card, made),
        measurements=[measurement],
    )
