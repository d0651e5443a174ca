"""The gate in front of delivery for masks of single images: each pixel is one of the image that it names; see check.

Without a frame of reference nothing but rows, columns and the reference says where a mask lies (PS3.3 A.51.5.1), so
these are looked at, and how the image lies in the patient, which a result must not say in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    SEGMENTATION_FILLED,
    check_common,
    check_filled,
    check_labels,
    check_measurement_report,
    check_number,
    check_pixels_described,
    check_present,
    check_segments,
    check_type,
    groups_of,
    itself,
)
from dicomnode.encoding.check_dimensions import check_indices
from dicomnode.encoding.check_frames import FRAMES, check_length, segment_of, sources_of
from dicomnode.encoding.content_items import code_of, evidence_of
from dicomnode.encoding.references import NONE, UsedImages, study_and_series
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.seg_images import laterality, patient_orientation
from dicomnode.imaging.headers import items, numbers, odd_values_accepted, text, whole
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.masked_images import MaskedInstance, RegionStatistics

_PLACED = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence")
_FILLED = tuple(keyword for keyword in SEGMENTATION_FILLED if keyword != "FrameOfReferenceUID")
_TRACKED = (("112039", "DCM"), ("112040", "DCM"))
_PRESENCE, _ABSENT = ("121052", "DCM"), ("121054", "DCM")
_FRAME_REFERENCE, _SOURCE, _IMAGE = ("121214", "DCM"), ("121233", "DCM"), ("121112", "DCM")


def check_image_segmentation(
    segmentation: Dataset,
    instance: MaskedInstance,
    plan: UsedImages,
    *,
    pixel_bytes: int,
    fractional: bool = False,
) -> None:
    """Raises NonConformant naming what is wrong with the SEG of an instance; `pixel_bytes`: see check."""
    with odd_values_accepted():
        check_common(segmentation, plan, SegmentationStorage, "SEG")
        _check_image(segmentation, instance, plan)
        check_type(segmentation, fractional=fractional)
        check_pixels_described(segmentation, [instance.header], 8 if fractional else 1)
        segments = items(segmentation, "SegmentSequence")
        check_segments(segments)
        check_length(segmentation, len(items(segmentation, FRAMES)), pixel_bytes)
        _check_frames(segmentation, instance, set(range(1, len(segments) + 1)))


def check_image_label_map(segmentation: Dataset, instance: MaskedInstance, plan: UsedImages) -> None:
    """As check_image_segmentation, of a Label Map Segmentation: its segment 0 is the background (PS3.3 C.8.20.2)."""
    with odd_values_accepted():
        check_common(segmentation, plan, LABEL_MAP_SEGMENTATION_STORAGE, "SEG")
        check_filled(segmentation, ("PixelData",), "the segmentation")
        _check_image(segmentation, instance, plan)
        check_pixels_described(segmentation, [instance.header], 8)
        check_labels(segmentation)
        check_length(segmentation, len(items(segmentation, FRAMES)), len(segmentation.PixelData))
        _check_frames(segmentation, instance, None)


def _check_image(segmentation: Dataset, instance: MaskedInstance, plan: UsedImages) -> None:
    """What it shares with its image: rows and columns, sides, and no place."""
    source = instance.header
    check_filled(segmentation, _FILLED, "the segmentation")
    check_present(segmentation, ("ContentDescription", "ContentCreatorName"), "the segmentation")
    size, wanted = ((whole(d, "Rows"), whole(d, "Columns")) for d in (segmentation, source))
    if size != wanted:
        refuse(f"{size[0]} × {size[1]} pixels, its image has {wanted[0]} × {wanted[1]}")
    if "FrameOfReferenceUID" in segmentation:
        refuse("it has a FrameOfReferenceUID, and no place in it")
    if patient_orientation(segmentation) != patient_orientation(source):
        refuse("PatientOrientation differs from its image's")
    if laterality(segmentation) != laterality(source):
        refuse("ImageLaterality differs from its image's")
    series = items(segmentation, "ReferencedSeriesSequence")
    named = [r for one in series for r in items(one, "ReferencedInstanceSequence")]
    if [text(one, "SeriesInstanceUID") for one in series] != [study_and_series(plan)[1]] or len(named) != 1:
        refuse("ReferencedSeriesSequence does not name the source's series with one image")
    for item in (*named, *items(segmentation, "SourceImageSequence")):
        _check_source(item, source)


def _check_source(item: Dataset, source: Dataset) -> None:
    uid, sop_class = text(item, "ReferencedSOPInstanceUID"), text(item, "ReferencedSOPClassUID")
    if (uid, sop_class) != (text(source, "SOPInstanceUID"), text(source, "SOPClassUID")):
        refuse(f"instance {uid} is referenced under {sop_class}, which is not the image that it was made of")


def _check_frames(segmentation: Dataset, instance: MaskedInstance, described: set[int] | None) -> None:
    """Each is of a segment that is `described`, and of a frame of the image, each once; none has a place."""
    shared = items(segmentation, "SharedFunctionalGroupsSequence")[0]
    there, places = {frame.number for frame in instance.frames}, dict[tuple[int, int], None]()
    groups = items(segmentation, FRAMES)
    for number, group in enumerate(groups, 1):
        if placed := [keyword for keyword in _PLACED if keyword in group or keyword in shared]:
            refuse(f"frame {number} has a {placed[0]} without a frame of reference")
        segment = segment_of(group, shared) if described is not None else 0
        if segment is None or (described is not None and segment not in described):
            refuse(f"frame {number} is of segment {segment}, which is not described")
        frame = _source_frame(group, number, instance)
        if frame not in there:
            refuse(f"frame {number} comes from frame {frame} of its image, which has {len(there)}")
        if (segment, frame) in places:
            refuse(f"frame {number} repeats segment {segment} of a frame")
        places[segment, frame] = None
    check_indices(segmentation, groups, list(places))


def _source_frame(group: Dataset, number: int, instance: MaskedInstance) -> int:
    found = sources_of(group)
    if len(found) != 1 or found[0][0] != text(instance.header, "SOPInstanceUID"):
        refuse(f"frame {number} does not name the image that it was made of, and no other")
    _, frame, sop_class = found[0]
    if sop_class != text(instance.header, "SOPClassUID"):
        refuse(f"frame {number} comes from its image under another SOP class than that has")
    if instance.is_multi_frame and frame is None:
        refuse(f"frame {number} does not say which frame of the multi-frame image it comes from")
    return frame or 1


# ------------------------------------------------------------------------------------------------------ report


def check_image_report(
    report: Dataset,
    found: Sequence[RegionStatistics],
    plan: ImagesPlan,
    card: ModelCard,
    segmentations: Mapping[str, Dataset],
) -> None:
    """Raises NonConformant naming what is wrong with an SR of masks; `segmentations` by their image's UID.

    Of every frame it says of every segment once that it is there or that it is absent.
    """
    with odd_values_accepted():
        beside = {uid: of for one in segmentations.values() for uid, of in itself(one).items()}
        check_measurement_report(report, plan, NONE, beside)
        if any(one.SeriesInstanceUID == report.SeriesInstanceUID for one in segmentations.values()):
            refuse("the report and the segmentation share a series")
        evidence = {text(r, "ReferencedSOPInstanceUID") for r in evidence_of(report)}
        by_uid = {str(one.SOPInstanceUID): one for one in segmentations.values()}
        said = Counter(
            key
            for number, group in enumerate(groups_of(report), 1)
            if (key := _said(items(group, "ContentSequence"), number, plan, by_uid, evidence)) is not None
        )
        frames = {one.image: plan.frames[one.image] for one in found}
        wanted = Counter((frames[one.image].sop_instance_uid, frames[one.image].number) for one in found)
        if said != wanted or len(found) != len(plan.frames) * len(card.segments):
            refuse("the report does not say of every image once of each segment that it is there or absent")


def _said(
    content: list[Dataset],
    number: int,
    plan: ImagesPlan,
    segmentations: Mapping[str, Dataset],
    evidence: set[str],
) -> tuple[str, int] | None:
    """The image, and its frame, that a group says something of; None of one that draws the line of another."""
    concepts = [code_of(item) for item in content]
    if lacking := [code for code in _TRACKED if code not in concepts]:
        refuse(f"measurement group {number} has no {lacking[0]}")
    for item in content:
        if text(item, "ValueType") == "NUM" and check_number(item, number) < 0 and _is_size(item):
            refuse(f"a size in group {number} is below zero")
    reference = next((item for item in content if code_of(item) == _FRAME_REFERENCE), None)
    if reference is not None:
        return _of_region(reference, content, number, plan, segmentations, evidence)
    measured = [item for item in content if text(item, "ValueType") == "NUM"]
    if measured:
        for item in measured:
            _check_line(item, number, plan)
        return None
    absent = [code_of(i, "ConceptCodeSequence") for i in content if code_of(i) == _PRESENCE]
    images = [r for item in content if code_of(item) == _IMAGE for r in items(item, "ReferencedSOPSequence")]
    if absent != [_ABSENT] or len(images) != 1:
        refuse(f"measurement group {number} neither references a segment nor says of an image that there is none")
    return _frame_of(images[0], number, plan)


def _is_size(item: Dataset) -> bool:
    units = [code_of(one, "MeasurementUnitsCodeSequence")[0] for one in items(item, "MeasuredValueSequence")]
    return any(unit in ("mm", "mm2", "{pixels}") for unit in units)


def _of_region(
    reference: Dataset,
    content: list[Dataset],
    number: int,
    plan: ImagesPlan,
    segmentations: Mapping[str, Dataset],
    evidence: set[str],
) -> tuple[str, int]:
    """The frame that the SEG's frame is of is the image that the group names."""
    item = items(reference, "ReferencedSOPSequence")[0]
    uid = text(item, "ReferencedSOPInstanceUID")
    if (segmentation := segmentations.get(uid)) is None:
        refuse(f"measurement group {number} references {uid}, which is none of the segmentations")
    if text(item, "ReferencedSOPClassUID") != segmentation.SOPClassUID or uid not in evidence:
        refuse(f"measurement group {number} references its segmentation under another SOP class, or without evidence")
    images = [r for i in content if code_of(i) == _SOURCE for r in items(i, "ReferencedSOPSequence")]
    if len(images) != 1:
        refuse(f"measurement group {number} does not name the image that its segment is on")
    key, frame = _frame_of(images[0], number, plan), whole(item, "ReferencedFrameNumber") or 0
    groups = items(segmentation, FRAMES)
    if not 1 <= frame <= len(groups):
        refuse(f"measurement group {number} references frame {frame}, which the segmentation does not have")
    shared = items(segmentation, "SharedFunctionalGroupsSequence")[0]
    segment = segment_of(groups[frame - 1], shared)
    of_segment = [s for s in items(segmentation, "SegmentSequence") if whole(s, "SegmentNumber") == segment]
    if [text(s, "TrackingUID") for s in of_segment] != [_tracking_uid(content)]:
        refuse(f"measurement group {number} references a frame of another segment than it measures")
    if [(source, of or 1) for source, of, _ in sources_of(groups[frame - 1])] != [key]:
        refuse(f"measurement group {number} names another image than its segmentation's frame does")
    return key


def _tracking_uid(content: list[Dataset]) -> str:
    return next((text(item, "UID") for item in content if code_of(item) == _TRACKED[1]), "")


def _frame_of(item: Dataset, number: int, plan: ImagesPlan) -> tuple[str, int]:
    key = (text(item, "ReferencedSOPInstanceUID"), whole(item, "ReferencedFrameNumber") or 1)
    if key not in {(frame.sop_instance_uid, frame.number) for frame in plan.frames}:
        refuse(f"measurement group {number} is of instance {key[0]} frame {key[1]}, which is no image of the series")
    return key


def _check_line(item: Dataset, number: int, plan: ImagesPlan) -> None:
    """Two points within an image of the series (PS3.3 C.18.6)."""
    drawn = [one for one in items(item, "ContentSequence") if text(one, "ValueType") == "SCOORD"]
    points = numbers(drawn[0], "GraphicData", 4) if len(drawn) == 1 else None
    if points is None:
        refuse(f"measurement group {number} neither references a segment nor draws what it measures")
    references = [r for one in items(drawn[0], "ContentSequence") for r in items(one, "ReferencedSOPSequence")]
    if len(references) != 1:
        refuse(f"the line of group {number} is not on one image")
    uid, _ = _frame_of(references[0], number, plan)
    header = next(h for h in plan.headers if text(h, "SOPInstanceUID") == uid)
    rows, columns = whole(header, "Rows") or 0, whole(header, "Columns") or 0
    if min(points) < 0 or max(points[0::2]) > columns or max(points[1::2]) > rows:
        refuse(f"the line of group {number} leaves its image")
