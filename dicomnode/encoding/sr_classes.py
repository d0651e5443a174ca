"""Classes as a TID 1500 report (PS3.16 TID 1500, 1501 and 1411, PS3.3 A.35.13).

Of single images, first the share of the images that each class has; then a measurement group for each run of
adjacent images of one class, with references to them. Of a whole series one group: with references to all its images,
or, where a model before this one said where to look, with that region as a surface in the patient. The class is a
qualitative evaluation; a probability is of the class that modifies its concept, the evaluation's own first. Where
nothing is certain enough for the card the evaluation is Undetermined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

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
from dicomnode.encoding.sr_groups import (
    ONE,
    PROBABILITY,
    Group,
    SeriesParts,
    report_around,
    series_group,
    source_images,
    tracked,
)
from dicomnode.imaging.box import Box

UNDETERMINED: SrCode = codes.SCT.Undetermined
IMAGE_SHARE = SrCode("image-share", "99DICOMNODE", "Share of the images of the series")
CLASSES_MOST = 20  # whose probabilities a group has


def encode_classes(
    found: Sequence[Run],
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
    region: Box | None = None,
) -> Dataset:
    """The report on what a model said of the images of a plan, or, where its card is of the series, of them all.

    `region`: the voxels of the plan's grid that it was shown, where it was not the whole series.
    """
    of_images = spec_of(card).of == "image"
    summary = [_share_group(share, plan, card, made) for share in shares(found)] if of_images else []
    groups = [*summary, *(_run_group(run, plan, card, made, region) for run in found)]
    return report_around(groups, _digest(found, region), plan, card, made, further)


def spec_of(card: ModelCard) -> Classification:
    spec = card.classification
    assert spec is not None  # encode.EncodeStage.classes is for cards that have one
    return spec


def _digest(found: Sequence[Run], region: Box | None) -> str:
    return hashlib.sha256(repr((list(found), region)).encode()).hexdigest()


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


def _run_group(run: Run, plan: UsedImages, card: ModelCard, made: Provenance, region: Box | None) -> Group:
    of_images = spec_of(card).of == "image"
    words = f"images {run.first + 1}-{run.last + 1}" if of_images else "series"
    parts = SeriesParts(
        tracking_identifier=tracked(plan, card, words),
        algorithm_id=algorithm_identification(card, made),
        finding_sites=None,
        measurements=list(_probabilities(run, card)) or None,
        qualitative_evaluations=[_evaluation(run.number, card)],
    )
    if not of_images:
        return series_group(plan, region, parts)
    images = source_images(plan, run.first, run.last)
    return sr.MeasurementsAndQualitativeEvaluations(**parts, source_images=images)


def _evaluation(number: int | None, card: ModelCard) -> sr.QualitativeEvaluation:
    spec = spec_of(card)
    value = UNDETERMINED if number is None else coded(spec.classes[number].code)
    return sr.QualitativeEvaluation(name=coded(spec.finding), value=value)


def _probabilities(run: Run, card: ModelCard) -> Iterator[sr.Measurement]:
    """That of the class; of several images their mean and the least. Then the other classes' (means)."""
    mean = codes.SCT.Mean if run.images > 1 else None
    if run.number is not None and run.mean is not None and run.least is not None:
        yield _probability(run.mean, run.number, card, mean)
        if run.images > 1:
            yield _probability(run.least, run.number, card, codes.SCT.Minimum)
    for number in _shown(run):
        yield _probability(run.means[number], number, card, mean)


def _shown(run: Run) -> list[int]:
    """The other classes; of many, the most probable. In the card's order."""
    others = (number for number in range(len(run.means)) if number != run.number)
    return sorted(sorted(others, key=lambda number: -run.means[number])[:CLASSES_MOST])


def _probability(value: float, number: int, card: ModelCard, derivation: SrCode | None) -> sr.Measurement:
    """Of a class, which the concept modifier names (TID 300, which may be extended)."""
    spec = spec_of(card)
    measurement = sr.Measurement(name=PROBABILITY, value=value, unit=ONE, derivation=derivation)
    modifier = sr.CodeContentItem(
        name=coded(spec.finding),
        value=coded(spec.classes[number].code),
        relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    item = measurement[0]
    item.ContentSequence = sr.ContentSequence([*item.get("ContentSequence", []), modifier])
    return measurement
