"""Classes as a TID 1500 report (PS3.16 TID 1500 and 1501, PS3.3 A.35.13).

Of single images, first the share of the images that each class has; then a measurement group for each run of
adjacent images of one class, with references to them, the class as a qualitative evaluation and its probability.
Of a whole series one group. Where nothing is certain enough for the card the evaluation is Undetermined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.classification import Run, Share, shares
from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_output import Classification
from dicomnode.encoding.provenance import Provenance, result_uids, texts_of
from dicomnode.encoding.references import NONE, Further, UsedImages, evidence_of, instances_of, item_of
from dicomnode.encoding.seg import coded, set_creation
from dicomnode.encoding.source import identity_header
from dicomnode.encoding.sr import algorithm_identification, complete, observer, procedure_of, report_of
from dicomnode.imaging.headers import items, odd_values_accepted, text

UNDETERMINED: SrCode = codes.SCT.Undetermined
IMAGE_SHARE = SrCode("image-share", "99DICOMNODE", "Share of the images of the series")
PROBABILITY: SrCode = codes.DCM.Probability
_ONE = SrCode("1", "UCUM", "no units")
_LO_MOST = 64  # characters of a long string (PS3.5 6.2)


def encode_classes(
    found: Sequence[Run], plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset:
    """The report on what a model said of the images of a plan, or, where its card is of the series, of them all."""
    with odd_values_accepted():
        header = identity_header(plan.first, texts_of(card, made))
        uids = result_uids("SR", plan, further, card, made, _digest(found))
        content = _content(found, plan, card, made)
        report = report_of(_evidence(header, plan, further), content, uids, plan, card, made)
        if (character_set := header.get("SpecificCharacterSet")) is not None:
            report.SpecificCharacterSet = character_set
        set_creation(report, made)
        complete(report, card, made)
    return report


def spec_of(card: ModelCard) -> Classification:
    spec = card.classification
    assert spec is not None  # encode.EncodeStage.classes is for cards that have one
    return spec


def _digest(found: Sequence[Run]) -> str:
    return hashlib.sha256(repr(list(found)).encode()).hexdigest()


def _evidence(header: Dataset, plan: UsedImages, further: Further) -> list[Dataset]:
    """The series' images, each once; the first says whose they are."""
    listed = [item_of(plan, uid, sop_class) for uid, sop_class in instances_of(plan).items()]
    header.SOPInstanceUID, header.SOPClassUID = listed[0].SOPInstanceUID, listed[0].SOPClassUID
    return [header, *listed[1:], *evidence_of(further)]


def _content(found: Sequence[Run], plan: UsedImages, card: ModelCard, made: Provenance) -> sr.MeasurementReport:
    of_images = spec_of(card).of == "image"
    summary = [_share_group(share, plan, card, made) for share in shares(found)] if of_images else []
    return sr.MeasurementReport(
        observation_context=observer(card, made),
        procedure_reported=procedure_of(text(plan.first, "Modality")),
        imaging_measurements=[*summary, *(_run_group(run, plan, card, made) for run in found)],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
    )


def _share_group(
    share: Share, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    name = "undetermined" if share.number is None else spec_of(card).classes[share.number].name
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracked(plan, card, f"share {name}"),
        algorithm_id=algorithm_identification(card, made),
        measurements=[sr.Measurement(name=IMAGE_SHARE, value=share.share, unit=_ONE)],
        qualitative_evaluations=[_evaluation(share.number, card)],
    )


def _run_group(
    run: Run, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    of_images = spec_of(card).of == "image"
    words = f"images {run.first + 1}-{run.last + 1}" if of_images else "series"
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracked(plan, card, words),
        algorithm_id=algorithm_identification(card, made),
        measurements=_probabilities(run),
        qualitative_evaluations=[_evaluation(run.number, card)],
        source_images=_images(run, plan) if of_images else None,
    )


def _tracked(plan: UsedImages, card: ModelCard, what: str) -> sr.TrackingIdentifier:
    uid = deterministic_uid("tracking", text(plan.first, "SeriesInstanceUID"), card.name, what)
    return sr.TrackingIdentifier(uid=uid, identifier=f"{card.name} {what}"[:_LO_MOST])


def _evaluation(number: int | None, card: ModelCard) -> sr.QualitativeEvaluation:
    spec = spec_of(card)
    value = UNDETERMINED if number is None else coded(spec.classes[number].code)
    return sr.QualitativeEvaluation(name=coded(spec.finding), value=value)


def _probabilities(run: Run) -> list[sr.Measurement] | None:
    """That of the class; of several images their mean and the least."""
    if run.mean is None or run.least is None:
        return None
    if run.images == 1:
        return [sr.Measurement(name=PROBABILITY, value=run.mean, unit=_ONE)]
    return [
        sr.Measurement(name=PROBABILITY, value=run.mean, unit=_ONE, derivation=codes.SCT.Mean),
        sr.Measurement(name=PROBABILITY, value=run.least, unit=_ONE, derivation=codes.SCT.Minimum),
    ]


def _images(run: Run, plan: UsedImages) -> list[sr.SourceImageForMeasurementGroup]:
    """Of a file with several frames, which of them."""
    frames: dict[int, list[int]] = {}
    for frame in plan.frames[run.first : run.last + 1]:
        frames.setdefault(frame.instance, []).append(frame.number)
    return [_image(plan.headers[index], sorted(numbers)) for index, numbers in frames.items()]


def _image(header: Dataset, numbers: list[int]) -> sr.SourceImageForMeasurementGroup:
    several = bool(items(header, "PerFrameFunctionalGroupsSequence")) or "NumberOfFrames" in header
    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=text(header, "SOPClassUID"),
        referenced_sop_instance_uid=text(header, "SOPInstanceUID"),
        referenced_frame_numbers=numbers if several else None,
    )
