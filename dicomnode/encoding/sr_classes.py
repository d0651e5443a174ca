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
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_output import Classification
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.seg import coded
from dicomnode.encoding.sr import algorithm_identification
from dicomnode.encoding.sr_groups import ONE, PROBABILITY, report_around, source_image, tracked

UNDETERMINED: SrCode = codes.SCT.Undetermined
IMAGE_SHARE = SrCode("image-share", "99DICOMNODE", "Share of the images of the series")


def encode_classes(
    found: Sequence[Run], plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE
) -> Dataset:
    """The report on what a model said of the images of a plan, or, where its card is of the series, of them all."""
    of_images = spec_of(card).of == "image"
    summary = [_share_group(share, plan, card, made) for share in shares(found)] if of_images else []
    groups = [*summary, *(_run_group(run, plan, card, made) for run in found)]
    return report_around(groups, _digest(found), plan, card, made, further)


def spec_of(card: ModelCard) -> Classification:
    spec = card.classification
    assert spec is not None  # encode.EncodeStage.classes is for cards that have one
    return spec


def _digest(found: Sequence[Run]) -> str:
    return hashlib.sha256(repr(list(found)).encode()).hexdigest()


def _share_group(
    share: Share, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    name = "undetermined" if share.number is None else spec_of(card).classes[share.number].name
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, f"share {name}"),
        algorithm_id=algorithm_identification(card, made),
        measurements=[sr.Measurement(name=IMAGE_SHARE, value=share.share, unit=ONE)],
        qualitative_evaluations=[_evaluation(share.number, card)],
    )


def _run_group(
    run: Run, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    of_images = spec_of(card).of == "image"
    words = f"images {run.first + 1}-{run.last + 1}" if of_images else "series"
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, words),
        algorithm_id=algorithm_identification(card, made),
        measurements=_probabilities(run),
        qualitative_evaluations=[_evaluation(run.number, card)],
        source_images=_images(run, plan) if of_images else None,
    )


def _evaluation(number: int | None, card: ModelCard) -> sr.QualitativeEvaluation:
    spec = spec_of(card)
    value = UNDETERMINED if number is None else coded(spec.classes[number].code)
    return sr.QualitativeEvaluation(name=coded(spec.finding), value=value)


def _probabilities(run: Run) -> list[sr.Measurement] | None:
    """That of the class; of several images their mean and the least."""
    if run.mean is None or run.least is None:
        return None
    if run.images == 1:
        return [sr.Measurement(name=PROBABILITY, value=run.mean, unit=ONE)]
    return [
        sr.Measurement(name=PROBABILITY, value=run.mean, unit=ONE, derivation=codes.SCT.Mean),
        sr.Measurement(name=PROBABILITY, value=run.least, unit=ONE, derivation=codes.SCT.Minimum),
    ]


def _images(run: Run, plan: UsedImages) -> list[sr.SourceImageForMeasurementGroup]:
    """Of a file with several frames, which of them."""
    frames: dict[int, list[int]] = {}
    for frame in plan.frames[run.first : run.last + 1]:
        frames.setdefault(frame.instance, []).append(frame.number)
    return [source_image(plan.headers[index], sorted(numbers)) for index, numbers in frames.items()]
