"""All that a job's label map becomes: encoded, checked, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_report, check_segmentation
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.seg import LabelMap, encode_segmentation
from dicomnode.encoding.sr import encode_report
from dicomnode.imaging.measure import SegmentStatistics
from dicomnode.imaging.volume import VolumePlan


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """A result that passed its check; `content` is the Part 10 file."""

    kind: str  # "SEG" or "SR"
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes


def encode_results(
    labels: LabelMap, statistics: Sequence[SegmentStatistics], plan: VolumePlan, card: ModelCard, made: Provenance
) -> tuple[EncodedResult, ...]:
    """SEG (none for an empty mask) and SR of a label map, (slice, row, column) uint8 in the plan's grid.

    `statistics` is what imaging.measure.measure gave for the card's segments. Raises NonConformant.
    """
    segmentation = encode_segmentation(labels, plan, card, made)
    report = encode_report(statistics, plan, card, made, segmentation)
    results = []
    if segmentation is not None:
        check_segmentation(segmentation, plan)
        results.append(_encoded("SEG", segmentation))
    check_report(report, plan, segmentation)
    return (*results, _encoded("SR", report))


def _encoded(kind: str, dataset: Dataset) -> EncodedResult:
    return EncodedResult(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        content=to_part10_bytes(dataset),
    )
