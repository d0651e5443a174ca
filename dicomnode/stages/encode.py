"""Encode: what a model said becomes DICOM objects that have passed their own check and lie in the instance store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dicomnode import __version__
from dicomnode.domain.classification import runs
from dicomnode.domain.findings import ImageBox, VolumeBox, image_boxes, volume_boxes
from dicomnode.domain.measured_output import rounded
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.result import StoredResult
from dicomnode.encoding.findings import Findings, reference
from dicomnode.encoding.forms import encode_form
from dicomnode.encoding.image_findings import ImageFindings
from dicomnode.encoding.outcome import Outcome, Row, Statements
from dicomnode.encoding.parametric_map import map_of
from dicomnode.encoding.provenance import Preceding, Predecessor, Provenance
from dicomnode.encoding.results import (
    EncodedResult,
    encode_box_results,
    encode_class_results,
    encode_map_results,
    encode_measured_results,
    encode_results,
    encode_skipped_results,
    warm_up,
)
from dicomnode.encoding.results_of_images import encode_image_results
from dicomnode.encoding.sr_boxes import boxes_of
from dicomnode.encoding.sr_classes import spec_of
from dicomnode.encoding.sr_measured import measured_of
from dicomnode.errors import EncodingError, NonConformant
from dicomnode.imaging.masked_images import masked_instances, measured
from dicomnode.imaging.measure import SegmentStatistics, measure_masks, with_diameters
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import Clock, InstanceStore, JobWork, ModelVersion, Quarantine, Quarantined
from dicomnode.stages.infer import Classified, Inference, Pictured
from dicomnode.stages.set_aside import set_aside
from dicomnode.stages.told import (
    box_rows,
    class_notes,
    class_rows,
    impossible,
    map_row,
    measurement_rows,
    not_found,
    notes_on,
    number_notes,
    number_rows,
    pixel_notes,
    region_rows,
    unwanted,
)


@dataclass(frozen=True, slots=True)
class Encoded:
    results: tuple[StoredResult, ...]
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    note: str
    quarantined: tuple[Quarantined, ...] = ()


class EncodeStage:
    def __init__(
        self,
        store: InstanceStore,
        clock: Clock,
        *,
        device_serial_number: str,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._store, self._clock, self._device_serial_number = store, clock, device_serial_number
        self._quarantine = quarantine

    def set_aside(self, work: JobWork, error: NonConformant) -> Quarantined:
        return set_aside(self._quarantine, work, error)

    def warm_up(self, model: ModelVersion) -> None:
        """Once, before the first study: what the encoder reads when it is first used then costs no study time."""
        warm_up(model.card, _provenance_of_nothing(model))

    def run(self, work: JobWork, inference: Inference) -> Encoded:
        """Of masks, a map, or boxes in a volume.

        Raises EncodingError, NonConformant, OutOfResources; what fails its check is never stored.
        """
        if inference.lead.skipped:
            return self._skipped(work, inference)
        if work.model.card.map is not None:
            return self._map(work, inference)
        if work.model.card.boxes is not None:
            return self._boxes(work, inference, volume_boxes(inference.answers["BOXES"].tolist()))
        clock = self._clock.monotonic
        card, plan, masks = work.model.card, inference.plan, inference.masks
        begun = clock()
        numbers = [s.number for s in card.segments]
        statistics = measure_masks(masks, inference.volume, plan.geometry, plan.rescale, numbers)
        statistics = with_diameters(statistics, masks, plan.frames, {s.number for s in card.segments if s.diameter})
        counted = clock()
        made = provenance_of(work, inference, self._device_serial_number)
        results = encode_results(masks, statistics, plan, card, made, inference.further)
        rows = measurement_rows(statistics, card, plan.unit)
        findings = findings_of(inference, statistics, card, made, results)
        forms, missing, aside = encode_forms(
            work, findings or _statements(inference, card, made, [rows]), self._quarantine
        )
        details = {"measurements": rows}
        notes = [*notes_on(work, [result.kind for result in results]), *missing, *(one.words for one in aside)]
        kept = self._kept_all(work, [*results, *forms], counted, details, notes)
        return replace(kept, timings_s={"measure": counted - begun, **kept.timings_s}, quarantined=tuple(aside))

    def on_images(self, work: JobWork, found: Pictured) -> Encoded:
        """As run, of masks of single images; of those that are the slices of a volume, of that volume."""
        if found.as_volume is not None:
            return self.run(work, _as_inference(found, found.as_volume))
        card, begun = work.model.card, self._clock.monotonic()
        instances = masked_instances(found.plan, found.volumes, found.masks)
        wanted = {s.number for s in card.segments if s.diameter}
        statistics = measured(instances, [s.number for s in card.segments], wanted)
        counted = self._clock.monotonic()
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_image_results(instances, statistics, found.plan, card, made)
        details = {"measurements": region_rows(statistics, card, found.plan.unit)}
        segmentations = [reference(result, found.plan) for result in results if result.kind == "SEG"]
        findings = ImageFindings(instances, statistics, found.plan, card, made, segmentations)
        forms, missing, aside = encode_forms(work, findings, self._quarantine)
        notes = [
            *notes_on(work, [result.kind for result in results]),
            *pixel_notes(found.plan),
            *missing,
            *impossible(work),
        ]
        notes += [one.words for one in aside]
        kept = self._kept_all(work, [*results, *forms], counted, details, notes)
        return replace(kept, timings_s={"measure": counted - begun, **kept.timings_s}, quarantined=tuple(aside))

    def few(self, work: JobWork, found: Classified) -> Encoded:
        """As run, of classes, of numbers, or of boxes on single images."""
        if found.lead.skipped:
            return self._skipped(work, found)
        if work.model.card.boxes is not None:
            return self._boxes(work, found, image_boxes(found.scores.tolist()))
        if work.model.card.measurements is not None:
            return self._numbers(work, found)
        card, spec, begun = work.model.card, spec_of(work.model.card), self._clock.monotonic()
        probabilities: list[list[float]] = found.scores.astype(float).tolist()
        series = runs(probabilities, spec)
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_class_results(series, found.plan, card, made, found.further, found.lead.region)
        details = class_rows(series, spec, probabilities)
        said = _statements(found, card, made, [details["classes"], details["runs"]])
        return self._with_page(work, said, results, begun, details, class_notes(work, series))

    def _numbers(self, work: JobWork, found: Classified) -> Encoded:
        card, spec, begun = work.model.card, measured_of(work.model.card), self._clock.monotonic()
        rows = rounded(found.scores.astype(float).tolist())
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_measured_results(rows, found.plan, card, made, found.further, found.lead.region)
        notes = [*number_notes(rows, spec), *unwanted(work)]
        details = {"numbers": number_rows(rows, spec)}
        said = _statements(found, card, made, [details["numbers"]])
        return self._with_page(work, said, results, begun, details, notes)

    def _boxes(
        self,
        work: JobWork,
        found: Inference | Classified,
        boxes: Sequence[VolumeBox] | Sequence[ImageBox],
    ) -> Encoded:
        card, begun = work.model.card, self._clock.monotonic()
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_box_results(boxes, found.plan, card, made, found.further)
        notes = [*([] if boxes else ["nothing was found, and the SR says so"]), *unwanted(work)]
        details = {"boxes": box_rows(boxes, found.plan, boxes_of(card))}
        said = _statements(found, card, made, [details["boxes"]], not_found(boxes, boxes_of(card)))
        return self._with_page(work, said, results, begun, details, notes)

    def _map(self, work: JobWork, inference: Inference) -> Encoded:
        card, begun, values = work.model.card, self._clock.monotonic(), inference.answers["MAP"]
        made = provenance_of(work, inference, self._device_serial_number)
        results = encode_map_results(values, inference.plan, card, made, inference.further)
        details = {"map": map_row(values, map_of(card))}
        said = _statements(inference, card, made, [[details["map"]]])
        return self._with_page(work, said, results, begun, details, unwanted(work))

    def _with_page(
        self,
        work: JobWork,
        said: Statements,
        results: Sequence[EncodedResult],
        begun: float,
        details: Mapping[str, Any],
        notes: Sequence[str],
    ) -> Encoded:
        """For those who show neither reports nor maps."""
        pages, missing, aside = encode_forms(work, said, self._quarantine)
        notes = [*notes, *missing, *(one.words for one in aside)]
        kept = self._kept_all(work, [*results, *pages], begun, details, notes)
        return replace(kept, quarantined=tuple(aside))

    def _kept_all(
        self,
        work: JobWork,
        results: Sequence[EncodedResult],
        begun: float,
        details: Mapping[str, Any],
        notes: Sequence[str],
    ) -> Encoded:
        """In the store, with what there is to be said; encoding was `begun` at that moment."""
        encoded = self._clock.monotonic()
        stored = tuple(self._kept(result, work) or self._stored(result, work) for result in results)
        timings_s = {"encode": encoded - begun, "store": self._clock.monotonic() - encoded}
        return Encoded(stored, timings_s, details, "; ".join(notes))

    def _skipped(self, work: JobWork, found: Inference | Classified) -> Encoded:
        """Of a model that one before it kept from running: an SR that says so, and why."""
        begun, why = self._clock.monotonic(), found.lead.skipped
        made = provenance_of(work, found, self._device_serial_number)
        results = encode_skipped_results(why, found.plan, work.model.card, made, found.further)
        notes = [f"skipped, nothing was looked for, and the SR says so: {why}"]
        said = _statements(found, work.model.card, made, [], [f"Not evaluated: {why}"])
        return self._with_page(work, said, results, begun, {"skipped": why}, notes)

    def _kept(self, result: EncodedResult, work: JobWork) -> StoredResult | None:
        """The same object as an earlier job gave: its file may have been sent, and is not written again."""
        for earlier in work.earlier:
            if earlier.sop_instance_uid == result.sop_instance_uid and self._store.path(earlier.path).is_file():
                return earlier
        return None

    def _stored(self, result: EncodedResult, work: JobWork) -> StoredResult:
        study, series = work.series.study_instance_uid, result.series_instance_uid
        file = self._store.put_result(result.file, study=study, series=series, instance=result.sop_instance_uid)
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
    work: JobWork, findings: Outcome, quarantine: Quarantine | None = None
) -> tuple[list[EncodedResult], list[str], list[Quarantined]]:
    """The further forms that destinations want, and why some are not there: none of them stops the others."""
    encoded: list[EncodedResult] = []
    missing: list[str] = []
    aside: list[Quarantined] = []
    for form in (form for form in work.forms if form in work.model.card.output.forms):
        try:
            encoded += encode_form(findings, form)
        except NonConformant as error:
            aside.append(set_aside(quarantine, work, error))
        except EncodingError as error:
            missing.append(f"no {form}: {error}")
    return encoded, missing, aside


def findings_of(
    inference: Inference,
    statistics: Sequence[SegmentStatistics],
    card: ModelCard,
    made: Provenance,
    results: Sequence[EncodedResult],
) -> Findings | None:
    """What further forms are made of; None where the model gives no label map, and there is a page alone."""
    plan, labels = inference.plan, inference.answers.get("LABELMAP")
    if labels is None:
        return None
    segmentation = next((reference(result, plan) for result in results if result.kind == "SEG"), None)
    return Findings(labels, inference.volume, statistics, plan, card, made, segmentation, inference.further)


def _statements(
    found: Inference | Classified,
    card: ModelCard,
    made: Provenance,
    tables: Sequence[Sequence[Row]],
    words: Sequence[str] = (),
) -> Statements:
    return Statements(tables, words, found.plan, card, made, found.further)


def _as_inference(found: Pictured, plan: VolumePlan) -> Inference:
    """Of the images of one stack, which are the volume's slices in its order."""
    return Inference(
        plan,
        found.volumes[0],
        found.answers[0],
        found.timings_s,
        found.details,
        parameters=found.parameters,
        threshold=found.threshold,
    )


def provenance_of(
    work: JobWork, inference: Inference | Classified | Pictured, device_serial_number: str
) -> Provenance:
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


def _before(inference: Inference | Classified | Pictured) -> tuple[Preceding, ...]:
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
    study = work.series.study_instance_uid
    return tuple(
        Predecessor(study, r.series_instance_uid, r.sop_class_uid, r.sop_instance_uid, r.kind)
        for r in work.predecessors
    )
