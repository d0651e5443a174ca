"""All that a job's label map becomes: encoded, checked, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from dicomnode.domain.classification import Run, runs
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_report, check_segmentation
from dicomnode.encoding.check_classes import check_classes
from dicomnode.encoding.check_skipped import check_skipped
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.seg_file import LabelMap
from dicomnode.encoding.skipped import encode_skipped
from dicomnode.encoding.sr import encode_report
from dicomnode.encoding.sr_classes import encode_classes
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.imaging.measure import SegmentStatistics, measure
from dicomnode.imaging.volume import VolumePlan, plan_volume

# What a segmentation model gives; no SEG where nothing was found.
KINDS = ("SEG", "SR")


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """A result that passed its check; `content` is the Part 10 file."""

    kind: str  # "SEG" or "SR"
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes | bytearray


def encode_results(
    labels: LabelMap,
    statistics: Sequence[SegmentStatistics],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
) -> tuple[EncodedResult, ...]:
    """SEG (none for an empty mask) and SR of a label map, (slice, row, column) uint8 in the plan's grid.

    `statistics` is what imaging.measure.measure gave for the card's segments; `further`, the series that the model
    was given beside the plan's. Raises NonConformant.
    """
    file = encode_segmentation(labels, plan, card, made, further)
    segmentation = None if file is None else file.header
    report = encode_report(statistics, plan, card, made, segmentation, further)
    results = []
    if file is not None:
        with odd_values_accepted():
            as_written = dcmread(file.attributes())
        check_segmentation(as_written, plan, further, pixel_bytes=file.pixel_bytes)
        results.append(_encoded("SEG", file.header, file.content))
    check_report(report, plan, segmentation, further)
    return (*results, _encoded("SR", report))


def _encoded(kind: str, dataset: Dataset, content: bytes | bytearray = b"") -> EncodedResult:
    return EncodedResult(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        content=content or to_part10_bytes(dataset),
    )


def encode_class_results(
    found: Sequence[Run], plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE
) -> tuple[EncodedResult, ...]:
    """The SR of a model that gives classes; raises NonConformant."""
    report = encode_classes(found, plan, card, made, further)
    check_classes(report, plan, card, further)
    return (_encoded("SR", report),)


def encode_skipped_results(
    why: str, plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE
) -> tuple[EncodedResult, ...]:
    """The SR of a composed model that was not run on a series; raises NonConformant."""
    report = encode_skipped(why, plan, card, made, further)
    check_skipped(report, plan, further)
    return (_encoded("SR", report),)


def warm_up(card: ModelCard, made: Provenance) -> None:
    """Encodes a made-up result and drops it: highdicom's tables are read then, and not in the first study's time."""
    plan = plan_volume([_made_up_header(k) for k in range(3)])
    if card.classification is not None:
        encode_class_results(
            runs([[1.0] * len(card.classification.classes)] * 3, card.classification), plan, card, made
        )
        return
    labels = np.ones(plan.geometry.shape, dtype=np.uint8)
    values = np.zeros(plan.geometry.shape, dtype=np.int16)
    numbers = [segment.number for segment in card.segments]
    encode_results(labels, measure(labels, values, plan.geometry, plan.rescale, numbers), plan, card, made)


def _made_up_header(k: int) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, f"2.25.3.{k}", "CT"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = "2.25.1", "2.25.2", "2.25.4"
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.Rows, header.Columns = [1, 1], 8, 8
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    return header
