"""All that a job's label map becomes: encoded, checked, as files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from dicomnode.domain.classification import Run, runs
from dicomnode.domain.findings import ImageBox, VolumeBox
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_described, check_report, check_segmentation
from dicomnode.encoding.check_boxes import check_boxes
from dicomnode.encoding.check_classes import check_classes
from dicomnode.encoding.check_map import check_map, check_map_report
from dicomnode.encoding.check_measured import check_measured
from dicomnode.encoding.check_skipped import check_skipped
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.parametric_map import FloatMap, encode_map
from dicomnode.encoding.part10 import Content, pieces_of
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.refusal import kept_when_refused
from dicomnode.encoding.seg import encode_masks
from dicomnode.encoding.seg_file import SegFile
from dicomnode.encoding.seg_frames import LabelMap, ProbabilityFrames, SegFrames, frames_of_masks
from dicomnode.encoding.skipped import encode_skipped
from dicomnode.encoding.sr import encode_report
from dicomnode.encoding.sr_boxes import encode_image_boxes, encode_volume_boxes
from dicomnode.encoding.sr_classes import encode_classes
from dicomnode.encoding.sr_map import encode_map_report
from dicomnode.encoding.sr_measured import encode_measured
from dicomnode.imaging.box import Box
from dicomnode.imaging.headers import items
from dicomnode.imaging.images import ImagesPlan, plan_images
from dicomnode.imaging.masks import SegmentMasks
from dicomnode.imaging.measure import SegmentStatistics, measure_masks
from dicomnode.imaging.volume import VolumePlan, plan_volume


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """A result that passed its check; `file` is the Part 10 file, as it is or as it is made while it is written."""

    kind: str  # one of domain.model_output.Output.result_kinds
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    file: Content

    @property
    def content(self) -> bytes:
        """The whole file."""
        return b"".join(pieces_of(self.file))


def encode_results(
    masks: LabelMap | SegmentMasks,
    statistics: Sequence[SegmentStatistics],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
) -> tuple[EncodedResult, ...]:
    """SEGs of masks in the plan's grid, as the card wants them, and an SR; where nothing was found the SR alone.

    `masks`: or a label map, (slice, row, column) uint8. `statistics` is what imaging.measure.measure_masks gave for
    the card's segments; `further`, the series that the model was given beside the plan's. Raises NonConformant.
    """
    masks = SegmentMasks(masks) if isinstance(masks, np.ndarray) else masks
    files = {} if masks.is_empty else _segmentations(masks, plan, card, made, further)
    headers = [file.header for file in files.values()]
    segmentation = headers[0] if headers else None
    report = encode_report(statistics, plan, card, made, segmentation, further, headers[1:])
    for kind, file in files.items():
        as_written = file.as_written()
        with kept_when_refused(kind, partial(getattr, file, "content")):
            check_segmentation(as_written, plan, further, pixel_bytes=file.pixel_bytes, fractional=kind == "SEG-PROB")
            check_described(items(as_written, "SegmentSequence"), card)
    with _gate("SR", report):
        check_report(report, plan, segmentation, further, headers[1:])
    return (*(encoded(kind, file.header, file) for kind, file in files.items()), encoded("SR", report))


def _segmentations(
    masks: SegmentMasks, plan: VolumePlan, card: ModelCard, made: Provenance, further: Further
) -> dict[str, SegFile]:
    """By kind; the first is what the SR refers to."""
    frames: dict[str, SegFrames] = {}
    if card.masks.gives_labels:
        frames["SEG"] = frames_of_masks(masks)
    if card.masks.gives_probabilities and masks.probabilities is not None:
        frames["SEG-PROB"] = ProbabilityFrames(masks.probabilities)
    made_of = {kind: encode_masks(each, plan, card, made, further) for kind, each in frames.items()}
    return {kind: file for kind, file in made_of.items() if file is not None}


def _gate(kind: str, dataset: Dataset) -> AbstractContextManager[None]:
    return kept_when_refused(kind, lambda: to_part10_bytes(dataset))


def encoded(kind: str, dataset: Dataset, file: Content = b"") -> EncodedResult:
    """Of an object that passed its check; `file`, where there is one already."""
    return EncodedResult(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        file=file or to_part10_bytes(dataset),
    )


def encode_class_results(
    found: Sequence[Run],
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
    region: Box | None = None,
) -> tuple[EncodedResult, ...]:
    """The SR of a model that gives classes, and was shown the region, if there is one; raises NonConformant."""
    report = encode_classes(found, plan, card, made, further, region)
    with _gate("SR", report):
        check_classes(report, plan, card, further, region)
    return (encoded("SR", report),)


def encode_skipped_results(
    why: str, plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE
) -> tuple[EncodedResult, ...]:
    """The SR of a composed model that was not run on a series; raises NonConformant."""
    report = encode_skipped(why, plan, card, made, further)
    with _gate("SR", report):
        check_skipped(report, plan, further)
    return (encoded("SR", report),)


def encode_measured_results(
    rows: Sequence[Sequence[float]],
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
    region: Box | None = None,
) -> tuple[EncodedResult, ...]:
    """The SR of a model that gives numbers, and was shown the region, if there is one; raises NonConformant."""
    report = encode_measured(rows, plan, card, made, further, region)
    with _gate("SR", report):
        check_measured(report, plan, card, further, region)
    return (encoded("SR", report),)


def encode_box_results(
    found: Sequence[VolumeBox] | Sequence[ImageBox],
    plan: VolumePlan | ImagesPlan,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
) -> tuple[EncodedResult, ...]:
    """The SR of a model that gives boxes: in the volume of a VolumePlan, on the images of the other; as above."""
    if isinstance(plan, VolumePlan):
        report = encode_volume_boxes([b for b in found if isinstance(b, VolumeBox)], plan, card, made, further)
    else:
        report = encode_image_boxes([b for b in found if isinstance(b, ImageBox)], plan, card, made, further)
    with _gate("SR", report):
        check_boxes(report, plan, card, further)
    return (encoded("SR", report),)


def encode_map_results(
    values: FloatMap, plan: VolumePlan, card: ModelCard, made: Provenance, further: Further = NONE
) -> tuple[EncodedResult, ...]:
    """The parametric map, (slice, row, column) float32, and its SR; raises NonConformant, EncodingError."""
    found = encode_map(values, plan, card, made, further)
    with _gate("MAP", found):
        check_map(found, plan, card, further)
    report = encode_map_report(values, found, plan, card, made, further)
    with _gate("SR", report):
        check_map_report(report, found, plan, card, further)
    return (encoded("MAP", found), encoded("SR", report))


def warm_up(card: ModelCard, made: Provenance) -> None:
    """Encodes a made-up result and drops it: highdicom's tables are read then, and not in the first study's time."""
    plan = plan_volume([_made_up_header(k) for k in range(3)])
    if card.classification is not None:
        encode_class_results(
            runs([[1.0] * len(card.classification.classes)] * 3, card.classification), plan, card, made
        )
        return
    shape = plan.geometry.shape
    if card.measurements is not None:
        rows = [[0.0] * len(card.measurements.values)] * (3 if card.measurements.of == "image" else 1)
        encode_measured_results(rows, plan, card, made)
    elif card.boxes is not None and card.boxes.of_images:
        images = plan_images([_made_up_header(0)])
        encode_box_results([ImageBox(0, 1.0, 0, (1.0, 1.0), (2.0, 2.0))], images, card, made)
    elif card.boxes is not None:
        halves = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
        encode_box_results([VolumeBox(0, 1.0, (4.0, 4.0, 1.0), halves)], plan, card, made)
    elif card.map is not None:
        encode_map_results(np.zeros(shape, np.float32), plan, card, made)
    elif not card.output.of_images:
        masks = SegmentMasks(np.ones(shape, np.uint8), np.full((len(card.segments), *shape), 255, np.uint8))
        values, numbers = np.zeros(shape, np.int16), [segment.number for segment in card.segments]
        statistics = measure_masks(masks, values, plan.geometry, plan.rescale, numbers)
        encode_results(masks, statistics, plan, card, made)


def _made_up_header(k: int) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, f"2.25.3.{k}", "CT"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "2.25.1", "2.25.2", "2.25.4"
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.Rows, header.Columns = [1, 1], 8, 8
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    return header
