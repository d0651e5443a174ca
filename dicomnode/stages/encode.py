"""Encode: a label map becomes a SEG and an SR that have passed their own check and lie in the instance store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dicomnode import __version__
from dicomnode.domain.classification import Run, class_name, runs, shares
from dicomnode.domain.model_card import Classification, ModelCard
from dicomnode.domain.result import StoredResult
from dicomnode.encoding.findings import Findings, reference
from dicomnode.encoding.forms import encode_form
from dicomnode.encoding.provenance import Preceding, Predecessor, Provenance
from dicomnode.encoding.results import (
    EncodedResult,
    encode_class_results,
    encode_results,
    encode_skipped_results,
    warm_up,
)
from dicomnode.encoding.sr_classes import spec_of
from dicomnode.errors import EncodingError
from dicomnode.imaging.measure import SegmentStatistics, measure
from dicomnode.ports import Clock, InstanceStore, JobWork, ModelVersion
from dicomnode.stages.infer import Classified, Inference


@dataclass(frozen=True, slots=True)
class Encoded:
    results: tuple[StoredResult, ...]
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    note: str


class EncodeStage:
    def __init__(self, store: InstanceStore, clock: Clock, *, device_serial_number: str) -> None:
        self._store, self._clock, self._device_serial_number = store, clock, device_serial_number

    def warm_up(self, model: ModelVersion) -> None:
        """Once, before the first study: what the encoder reads when it is first used then costs no study time."""
        warm_up(model.card, _provenance_of_nothing(model))

    def run(self, work: JobWork, inference: Inference) -> Encoded:
        """Raises EncodingError, NonConformant, OutOfResources; what fails its check is never stored."""
        if inference.lead.skipped:
            return self._skipped(work, inference)
        clock = self._clock.monotonic
        card, plan = work.model.card, inference.plan
        begun = clock()
        statistics = measure(
            inference.labels, inference.volume, plan.geometry, plan.rescale, [s.number for s in card.segments]
        )
        measured = clock()
        made = provenance_of(work, inference, self._device_serial_number)
        results = encode_results(inference.labels, statistics, plan, card, made, inference.further)
        forms, missing = encode_forms(work, inference, statistics, made, results)
        encoded = clock()
        stored = tuple(self._kept(result, work) or self._stored(result, work) for result in (*results, *forms))
        return Encoded(
            results=stored,
            timings_s={"measure": measured - begun, "encode": encoded - measured, "store": clock() - encoded},
            details={"measurements": measurement_rows(statistics, card, plan.unit)},
            note="; ".join([*notes_on(work, [result.kind for result in results]), *missing]),
        )

    def classes(self, work: JobWork, found: Classified) -> Encoded:
        """As run, of a model that gives classes."""
        if found.lead.skipped:
            return self._skipped(work, found)
        clock, card, spec = self._clock.monotonic, work.model.card, spec_of(work.model.card)
        begun = clock()
        probabilities: list[list[float]] = found.scores.astype(float).tolist()
        series = runs(probabilities, spec)
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_class_results(series, found.plan, card, made, found.further)
        encoded = clock()
        stored = tuple(self._kept(result, work) or self._stored(result, work) for result in results)
        return Encoded(
            results=stored,
            timings_s={"encode": encoded - begun, "store": clock() - encoded},
            details=class_rows(series, spec, probabilities),
            note="; ".join(class_notes(work, series)),
        )

    def _skipped(self, work: JobWork, found: Inference | Classified) -> Encoded:
        """Of a model that one before it kept from running: an SR that says so, and why."""
        clock, why = self._clock.monotonic, found.lead.skipped
        begun = clock()
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_skipped_results(why, found.plan, work.model.card, made, found.further)
        encoded = clock()
        stored = tuple(self._kept(result, work) or self._stored(result, work) for result in results)
        return Encoded(
            results=stored,
            timings_s={"encode": encoded - begun, "store": clock() - encoded},
            details={"skipped": why},
            note=f"skipped, nothing was looked for, and the SR says so: {why}",
        )

    def _kept(self, result: EncodedResult, work: JobWork) -> StoredResult | None:
        """The same object as an earlier job gave: its file may have been sent, and is not written again."""
        for earlier in work.earlier:
            if earlier.sop_instance_uid == result.sop_instance_uid and self._store.path(earlier.path).is_file():
                return earlier
        return None

    def _stored(self, result: EncodedResult, work: JobWork) -> StoredResult:
        study, series = work.series.study_instance_uid, result.series_instance_uid
        file = self._store.put_result(result.content, study=study, series=series, instance=result.sop_instance_uid)
        return StoredResult(
            kind=result.kind,
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            series_instance_uid=result.series_instance_uid,
            path=file.path,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )


def encode_forms(
    work: JobWork,
    inference: Inference,
    statistics: Sequence[SegmentStatistics],
    made: Provenance,
    results: Sequence[EncodedResult],
) -> tuple[list[EncodedResult], list[str]]:
    """The further forms that destinations want, and why some are not there: none of them stops the others."""
    plan, card = inference.plan, work.model.card
    forms, missing = [form for form in work.forms if form in card.output.forms], []
    if not forms:
        return [], []
    segmentation = next((reference(result, plan) for result in results if result.kind == "SEG"), None)
    findings = Findings(
        inference.labels, inference.volume, statistics, plan, card, made, segmentation, inference.further
    )
    encoded = []
    for form in forms:
        try:
            encoded += encode_form(findings, form)
        except EncodingError as error:
            missing.append(f"no {form}: {error}")
    return encoded, missing


def notes_on(work: JobWork, kinds: Sequence[str]) -> list[str]:
    """What is to be said of the kinds of results that there are, and of those that the rule wants sent."""
    notes = [] if any(kind.startswith("SEG") for kind in kinds) else ["nothing was found: no SEG, and the SR says so"]
    gives = (*work.model.card.output.result_kinds, *work.model.card.output.forms)
    if never := [kind for kind in work.objects if kind not in gives]:
        notes.append(f"the rule wants {' and '.join(never)}, which {work.model.name} does not give")
    return notes


def class_rows(found: Sequence[Run], spec: Classification, probabilities: list[list[float]]) -> dict[str, Any]:
    """What `dicomnode jobs show` prints: the share of each class, and the runs of images; images count from 1."""
    return {
        "classes": [
            {"class": class_name(share.number, spec), "images": share.images, "share": share.share}
            for share in shares(found)
        ],
        "runs": [
            {
                "images": f"{run.first + 1}-{run.last + 1}",
                "class": class_name(run.number, spec),
                "probability": run.mean,
                "least": run.least,
            }
            for run in found
        ],
        "probabilities": [[round(p, 4) for p in row] for row in probabilities],
    }


def class_notes(work: JobWork, found: Sequence[Run]) -> list[str]:
    """What is to be said of images that nothing is said of, and of what the rule wants sent in vain."""
    unsaid = sum(run.images for run in found if run.number is None)
    total = sum(run.images for run in found)
    notes = []
    if unsaid:
        what = f"{unsaid} of {total} images" if spec_of(work.model.card).of == "image" else "the series"
        notes.append(f"no class is certain enough of {what}, and the SR says so")
    if never := [kind for kind in work.objects if kind != "SR"]:
        notes.append(f"the rule wants {' and '.join(never)}, which {work.model.name} does not give")
    return notes


def provenance_of(work: JobWork, inference: Inference | Classified, device_serial_number: str) -> Provenance:
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
        parameters=inference.parameters,
        before=_before(inference),
    )


def _before(inference: Inference | Classified) -> tuple[Preceding, ...]:
    described = inference.details.get("before", [])
    return tuple(
        Preceding(
            name=first.model.name,
            version=first.model.version,
            manufacturer=first.model.card.manufacturer,
            family=first.model.card.family,
            digest=first.model.digest,
            engine=said["engine"],
            precision=said["precision"],
            asked=said["asked"],
            said=said["said"],
        )
        for first, said in zip(inference.lead.firsts, described, strict=True)
    )


def _provenance_of_nothing(model: ModelVersion) -> Provenance:
    return Provenance(__version__, "none", model.digest, "none", "none", "none", 1, datetime(2000, 1, 1, tzinfo=UTC))


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
