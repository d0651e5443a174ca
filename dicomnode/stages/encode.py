"""Encode: a label map becomes a SEG and an SR that have passed their own check and lie in the instance store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from dicomnode import __version__
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.result import StoredResult
from dicomnode.encoding.check import check_report, check_segmentation
from dicomnode.encoding.file import to_part10_bytes
from dicomnode.encoding.provenance import Predecessor, Provenance
from dicomnode.encoding.seg import encode_segmentation
from dicomnode.encoding.sr import encode_report
from dicomnode.imaging.measure import SegmentStatistics, measure
from dicomnode.ports import Clock, InstanceStore, JobWork
from dicomnode.stages.infer import Inference


@dataclass(frozen=True, slots=True)
class Encoded:
    results: tuple[StoredResult, ...]
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    note: str


class EncodeStage:
    def __init__(self, store: InstanceStore, clock: Clock, *, device_serial_number: str) -> None:
        self._store, self._clock, self._device_serial_number = store, clock, device_serial_number

    def run(self, work: JobWork, inference: Inference) -> Encoded:
        """Raises EncodingError, NonConformant, OutOfResources; what fails its check is never stored."""
        clock = self._clock.monotonic
        card, plan = work.model.card, inference.plan
        made = provenance_of(work, inference, self._device_serial_number)
        begun = clock()
        statistics = measure(
            inference.labels, inference.volume, plan.geometry, plan.rescale, [s.number for s in card.segments]
        )
        measured = clock()
        segmentation = encode_segmentation(inference.labels, plan, card, made)
        report = encode_report(statistics, plan, card, made, segmentation)
        encoded = clock()
        if segmentation is not None:
            check_segmentation(segmentation, plan)
        check_report(report, plan, segmentation)
        checked = clock()
        objects = {"SEG": segmentation, "SR": report}
        results = tuple(self._store_result(kind, made) for kind, made in objects.items() if made is not None)
        return Encoded(
            results=results,
            timings_s={
                "measure": measured - begun,
                "encode": encoded - measured,
                "check": checked - encoded,
                "store": clock() - checked,
            },
            details={"measurements": measurement_rows(statistics, card, plan.unit)},
            note="" if segmentation is not None else "nothing was found: no SEG, and the SR says so",
        )

    def _store_result(self, kind: str, dataset: Dataset) -> StoredResult:
        stored = self._store.put_result(
            to_part10_bytes(dataset),
            study=str(dataset.StudyInstanceUID),
            series=str(dataset.SeriesInstanceUID),
            instance=str(dataset.SOPInstanceUID),
        )
        return StoredResult(
            kind=kind,
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            series_instance_uid=str(dataset.SeriesInstanceUID),
            path=stored.path,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
        )


def provenance_of(work: JobWork, inference: Inference, device_serial_number: str) -> Provenance:
    """Times are the job's own, so that a job that runs again after a crash gives the same bytes."""
    engine = inference.details["engine"]
    return Provenance(
        node_version=__version__,
        device_serial_number=device_serial_number,
        model_digest=work.model.digest,
        engine=engine["engine"],
        precision=engine["precision"],
        rule_name=work.rule_name,
        rule_revision=work.rule_revision,
        created_at=work.created_at,
        job_id=work.job_id,
        predecessors=_predecessors(work),
    )


def _predecessors(work: JobWork) -> tuple[Predecessor, ...]:
    earlier = work.predecessor
    if earlier is None:
        return ()
    study = work.series.study_instance_uid
    return (Predecessor(study, earlier.series_instance_uid, earlier.sop_class_uid, earlier.sop_instance_uid),)


def measurement_rows(statistics: list[SegmentStatistics], card: ModelCard, unit: str) -> list[dict[str, Any]]:
    """What `dicomnode jobs show` prints; None where a segment is empty."""
    names = {segment.number: segment.name for segment in card.segments}
    shown_unit = "HU" if unit == "[hnsf'U]" else unit
    return [
        {
            "segment": names[found.segment_number],
            "volume_ml": round(found.volume_ml, 3),
            "mean": None if found.mean is None else round(found.mean, 2),
            "unit": shown_unit,
        }
        for found in statistics
    ]
