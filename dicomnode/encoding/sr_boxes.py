"""Boxes around findings as a TID 1500 report.

In a volume a finding is two measurement groups with one tracking identifier: what the slice next to its centre
shows, as an Image Region (TID 1410: a closed SCOORD polyline, the score, length and width), and the body, as a Volume
Surface (TID 1411: its six faces as SCOORD3D polygons, exact and oblique, and the depth). TID 1411 takes an image
region or a surface and not both; OHIF joins groups of one tracking UID and draws the first SCOORD in them, so that
one comes first.
On a single image a finding is a group of the first kind. A class without findings is said to be absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.domain.findings import ImageBox, VolumeBox
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.seg import coded
from dicomnode.encoding.sr import algorithm_identification, shown
from dicomnode.encoding.sr_groups import ONE, PROBABILITY, Group, absent, region_source, report_around, tracked
from dicomnode.imaging.headers import numbers, text
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.regions import central_region, faces
from dicomnode.imaging.volume import VolumePlan

MILLIMETRE = SrCode("mm", "UCUM", "millimeter")
PIXELS = SrCode("{pixels}", "UCUM", "pixels")


def encode_volume_boxes(
    found: Sequence[VolumeBox], plan: VolumePlan, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset:
    """The report on a volume."""
    groups = [group for n, box in enumerate(found, 1) for group in _in_volume(n, box, plan, card, made)]
    return _report([*groups, *_absent(found, plan, card, made)], found, plan, card, made, further)


def encode_image_boxes(
    found: Sequence[ImageBox], plan: ImagesPlan, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset:
    """The report on single images."""
    groups = [_on_image(n, box, plan, card, made) for n, box in enumerate(found, 1)]
    return _report([*groups, *_absent(found, plan, card, made)], found, plan, card, made, further)


def boxes_of(card: ModelCard) -> BoxesOutput:
    spec = card.boxes
    assert spec is not None  # encode.EncodeStage is given only cards that have them
    return spec


def _report(
    groups: Sequence[Group],
    found: Sequence[VolumeBox] | Sequence[ImageBox],
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
    further: Further,
) -> Dataset:
    digest = hashlib.sha256(repr(list(found)).encode()).hexdigest()
    return report_around(groups, digest, plan, card, made, further)


def _absent(
    found: Sequence[VolumeBox] | Sequence[ImageBox], plan: UsedImages, card: ModelCard, made: Provenance
) -> Iterator[Group]:
    """Of each class that nothing was found of."""
    there = {box.number for box in found}
    for number, one in enumerate(boxes_of(card).classes):
        if number not in there:
            yield absent(one.code, one.name, plan, card, made)


def _in_volume(
    order: int, box: VolumeBox, plan: VolumePlan, card: ModelCard, made: Provenance
) -> tuple[Group, Group]:
    one, region = boxes_of(card).classes[box.number], central_region(box, plan)
    frame = plan.frames[region.slice_index]
    tracking = tracked(plan, card, f"{one.name} {order}", repr(box))
    algorithm = algorithm_identification(card, made)
    shape = sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=region.outline,
        source_image=region_source(plan.headers[frame.instance], frame.number),
    )
    surface = sr.VolumeSurface(
        graphic_type=sr.GraphicTypeValues3D.POLYGON,
        graphic_data=faces(box),
        frame_of_reference_uid=text(plan.first, "FrameOfReferenceUID"),
        source_series=sr.SourceSeriesForSegmentation(text(plan.first, "SeriesInstanceUID")),
    )
    sides = [_size(codes.SCT.Length, region.length_mm), _size(codes.SCT.Width, region.width_mm)]
    return (
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            referenced_region=shape,
            finding_type=coded(one.code),
            algorithm_id=algorithm,
            measurements=[_score(box.score), *sides],
        ),
        sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            referenced_volume_surface=surface,
            finding_type=coded(one.code),
            algorithm_id=algorithm,
            measurements=[_size(codes.SCT.Depth, region.depth_mm)],
        ),
    )


def _on_image(order: int, box: ImageBox, plan: ImagesPlan, card: ModelCard, made: Provenance) -> Group:
    one, frame = boxes_of(card).classes[box.number], plan.frames[box.image]
    header = plan.headers[frame.instance]
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, f"{one.name} {order}", repr(box)),
        referenced_region=sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=outline(box),
            source_image=region_source(header, frame.number),
        ),
        finding_type=coded(one.code),
        algorithm_id=algorithm_identification(card, made),
        measurements=[_score(box.score), *_sides(box, header)],
    )


def outline(box: ImageBox) -> npt.NDArray[np.float64]:
    """(5, 2) float64, column and row; the last point is the first (PS3.3 C.10.5.1.2)."""
    (left, top), (right, bottom) = box.low, box.high
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])


def _sides(box: ImageBox, header: Dataset) -> list[sr.Measurement]:
    """In mm where the image says how large its pixels are in the patient (PS3.3 10.7.1.3), else in pixels.

    Imager Pixel Spacing is not that: it is measured at the detector, where everything is larger.
    """
    across, down = (high - low for low, high in zip(box.low, box.high, strict=True))
    spacing = numbers(header, "PixelSpacing", 2)
    unit = PIXELS if spacing is None else MILLIMETRE
    if spacing is not None:
        across, down = across * spacing[1], down * spacing[0]
    width, length = sorted((across, down))
    return [_size(codes.SCT.Length, length, unit), _size(codes.SCT.Width, width, unit)]


def _score(score: float) -> sr.Measurement:
    return sr.Measurement(name=PROBABILITY, value=score, unit=ONE)


def _size(name: SrCode, value: float, unit: SrCode = MILLIMETRE) -> sr.Measurement:
    return sr.Measurement(name=name, value=shown(value), unit=unit)
