"""Masks as a DICOM Segmentation (PS3.3 A.51): coded, coloured, in the source's own planes.

BINARY of label maps and of masks that overlap, FRACTIONAL of probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
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
    set_equipment,
    software_versions,
    texts_of,
    tracking,
)
from dicomnode.encoding.references import NONE, Further, UsedImages, add_references, list_images
from dicomnode.encoding.seg_file import SegFile, seg_file
from dicomnode.encoding.seg_frames import LabelFrames, LabelMap, SegFrames
from dicomnode.encoding.source import SourceFrames, source_frames, source_series_number
from dicomnode.imaging.headers import odd_values_accepted, text
from dicomnode.imaging.masks import FULL
from dicomnode.imaging.volume import VolumePlan

_TYPES = {"SEG-PROB": SegmentationTypeValues.FRACTIONAL, "SEG-LABELMAP": SegmentationTypeValues.LABELMAP}
_SKELETON_SHAPE = (1, 8)  # rows and columns of the frames that highdicom is given: their pixels are not used


def encode_segmentation(
    labels: LabelMap, plan: VolumePlan, card: ModelCard, made: Provenance, further: Further = NONE
) -> SegFile | None:
    """The SEG of a label map, (slice, row, column) uint8 in the plan's grid, 0 background; None when it is empty.

    Frames without voxels are left out; every segment of the card is described, so that a segment's number always
    means the same. Raises EncodingError when it does not fit a file.
    """
    if labels.shape != plan.geometry.shape or labels.dtype != np.uint8:
        raise ValueError(f"a label map of {plan.geometry.shape} uint8 is needed, not {labels.shape} {labels.dtype}")
    return encode_masks(LabelFrames(labels), plan, card, made, further)


def encode_masks(
    masks: SegFrames,
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
    *,
    every_frame: bool = False,
) -> SegFile | None:
    """As encode_segmentation; of probabilities a SEG FRACTIONAL (PS3.3 C.8.20.2.3), 255 for 1.

    `every_frame`: of a segment that is found in one slice, frames of the others too, for readers that need a stack.
    """
    if masks.shape != plan.geometry.shape:
        raise ValueError(f"masks of {plan.geometry.shape} are needed, not {masks.shape}")
    if masks.highest > len(card.segments):
        raise ValueError(f"masks of the {len(card.segments)} segments are needed, not of {masks.highest}")
    found = ((k, masks.segments_in(k)) for k in range(masks.shape[0]))
    segments = {k: numbers for k, numbers in found if numbers}
    if not segments:
        return None
    kind = "SEG" if masks.is_binary else "SEG-PROB"
    if every_frame:
        kind = "SEG-FULL"
        segments = dict.fromkeys(range(masks.shape[0]), sorted({n for numbers in segments.values() for n in numbers}))
    with odd_values_accepted():
        sources = source_frames(plan, texts_of(card, made))
        uids = result_uids(kind, plan, further, card, made, masks.digest())
        used = list(segments)
        ends = sources.of(sorted({used[0], used[-1]}))
        skeleton, order = skeleton_of(range(len(ends.headers)), kind, ends, uids, plan, card, made, further)
        places = [sources.place(k) for k in (used if order == sorted(order) else reversed(used))]
        return seg_file(skeleton, places, masks, segments)


def skeleton_of(
    used: Sequence[int],
    kind: str,
    sources: SourceFrames,
    uids: tuple[str, str],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
    further: Further,
) -> tuple[Dataset, list[int]]:
    """A SEG with one small frame for each of the used slices, and of which slice each is."""
    subject = text(plan.first, "SeriesInstanceUID")
    skeleton = small_segmentation(used, kind, sources.headers, uids, plan, subject, card, made)
    slices = _slices(skeleton, sources)
    sources.mend(skeleton)
    list_images(skeleton, plan)
    add_references(skeleton, plan, further)
    sources.set_character_set(skeleton)
    make_repeatable(skeleton, card, made)
    return skeleton, slices


def small_segmentation(
    used: Sequence[int],
    kind: str,
    headers: Sequence[Dataset],
    uids: tuple[str, str],
    plan: UsedImages,
    subject_uid: str,
    card: ModelCard,
    made: Provenance,
) -> Dataset:
    """As highdicom makes it of one small frame for each of the used headers; `subject_uid`: see tracking."""
    moment = local(made.created_at)
    for header in headers:
        header.Rows, header.Columns = _SKELETON_SHAPE
    small = np.zeros((len(headers), *_SKELETON_SHAPE), np.uint8)
    small[used] = 1
    skeleton: Dataset = hd.seg.Segmentation(
        source_images=list(headers),
        pixel_array=small,
        segmentation_type=_TYPES.get(kind, SegmentationTypeValues.BINARY),
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=FULL,
        segment_descriptions=[_description(s, subject_uid, card, made) for s in card.segments],
        series_instance_uid=uids[0],
        series_number=result_series_number(source_series_number(plan), kind),
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=card.name,
        software_versions=software_versions(card, made),  # type: ignore[arg-type]  # any number of them
        device_serial_number=made.device_serial_number,
        content_label="SEGMENTATION",
        content_description=series_description(card, "segmentation"),
        series_description=series_description(card, kind),
        omit_empty_frames=True,
        contributing_equipment=contributing_equipment(card, made, plan, kind, uids[0]),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=None,
        content_date=moment.date(),
        content_time=moment.time(),
        series_date=moment.date(),
        series_time=moment.time(),
    )
    skeleton.setdefault("ContentCreatorName", None)  # type 2 (PS3.3 10.9), which highdicom leaves out
    return skeleton


def _slices(skeleton: Dataset, sources: SourceFrames) -> list[int]:
    """Of which slice each frame is: highdicom sorts them by their positions."""
    slices = {str(header.SOPInstanceUID): k for k, header in enumerate(sources.headers)}
    return [
        slices[str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)]
        for group in skeleton.PerFrameFunctionalGroupsSequence
    ]


def _description(segment: Segment, subject_uid: str, card: ModelCard, made: Provenance) -> SegmentDescription:
    identifier, uid = tracking(subject_uid, card, segment.number)
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


def make_repeatable(segmentation: Dataset, card: ModelCard, made: Provenance) -> None:
    """What highdicom takes from the clock or draws at random, taken from the provenance and the UID instead."""
    set_creation(segmentation, card, made)
    organization = deterministic_uid("dimension organization", str(segmentation.SOPInstanceUID))
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization


def set_creation(dataset: Dataset, card: ModelCard, made: Provenance) -> None:
    """Equipment and the moment of creation, which highdicom leaves out, takes from the source or from the clock."""
    set_equipment(dataset, card, made)
    moment = local(made.created_at)
    dataset.InstanceCreationDate = moment.strftime("%Y%m%d")
    dataset.InstanceCreationTime = moment.strftime("%H%M%S.%f")
    library = dataset.ContributingEquipmentSequence[-1]  # highdicom names itself last
    library.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
