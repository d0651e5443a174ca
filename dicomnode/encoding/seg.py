"""A label map as a DICOM Segmentation (PS3.3 A.51): BINARY, coded, coloured, in the source's own planes."""

from __future__ import annotations

import hashlib

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.model_card import Code, ModelCard, Segment
from dicomnode.encoding.provenance import (
    MANUFACTURER,
    Provenance,
    algorithm,
    contributing_equipment,
    local,
    result_series_number,
    result_uids,
    series_description,
    software_versions,
    texts_of,
    tracking,
)
from dicomnode.encoding.references import NONE, Further, add_references
from dicomnode.encoding.source import SourceFrames, source_frames, source_series_number
from dicomnode.imaging.headers import odd_values_accepted, text
from dicomnode.imaging.volume import VolumePlan

LabelMap = npt.NDArray[np.uint8]


def encode_segmentation(
    labels: LabelMap, plan: VolumePlan, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset | None:
    """The SEG of a label map, (slice, row, column) uint8 in the plan's grid, 0 background; None when it is empty.

    Frames without voxels are left out; every segment of the card is described, so that a segment's number always
    means the same.
    """
    if labels.shape != plan.geometry.shape or labels.dtype != np.uint8:
        raise ValueError(f"a label map of {plan.geometry.shape} uint8 is needed, not {labels.shape} {labels.dtype}")
    if not labels.any():
        return None
    with odd_values_accepted():
        sources = source_frames(plan, texts_of(card, made))
        content = hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()
        uids = result_uids("SEG", plan, further, card, made, content)
        segmentation = _segmentation(labels, sources, uids, plan, card, made)
        sources.mend(segmentation)
        add_references(segmentation, plan, further)
        sources.set_character_set(segmentation)
        segmentation.setdefault("ContentCreatorName", None)  # type 2 (PS3.3 10.9), which highdicom leaves out
        _make_repeatable(segmentation, made)
    return segmentation


def _segmentation(
    labels: LabelMap,
    sources: SourceFrames,
    uids: tuple[str, str],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
) -> Dataset:
    moment = local(made.created_at)
    segmentation: Dataset = hd.seg.Segmentation(
        source_images=list(sources.headers),
        pixel_array=labels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(s, plan, card, made) for s in card.segments],
        series_instance_uid=uids[0],
        series_number=result_series_number(source_series_number(plan), "SEG"),
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=card.name,
        software_versions=software_versions(card, made),  # type: ignore[arg-type]  # any number of them
        device_serial_number=made.device_serial_number,
        content_label="SEGMENTATION",
        content_description=series_description(card, "segmentation"),
        series_description=series_description(card, "SEG"),
        omit_empty_frames=True,
        contributing_equipment=contributing_equipment(card, made),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=None,
        content_date=moment.date(),
        content_time=moment.time(),
        series_date=moment.date(),
        series_time=moment.time(),
    )
    return segmentation


def _description(segment: Segment, plan: VolumePlan, card: ModelCard, made: Provenance) -> SegmentDescription:
    identifier, uid = tracking(text(plan.first, "SeriesInstanceUID"), card, segment.number)
    return SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name,
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(card, made),
        tracking_uid=uid,
        tracking_id=identifier,
        display_color=hd.color.CIELabColor.from_rgb(*segment.colour),
    )


def coded(code: Code) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _make_repeatable(segmentation: Dataset, made: Provenance) -> None:
    """What highdicom takes from the clock or draws at random, taken from the provenance and the UID instead."""
    set_creation(segmentation, made)
    organization = deterministic_uid("dimension organization", str(segmentation.SOPInstanceUID))
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization


def set_creation(dataset: Dataset, made: Provenance) -> None:
    moment = local(made.created_at)
    dataset.InstanceCreationDate = moment.strftime("%Y%m%d")
    dataset.InstanceCreationTime = moment.strftime("%H%M%S.%f")
    library = dataset.ContributingEquipmentSequence[-1]  # highdicom names itself last
    library.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
