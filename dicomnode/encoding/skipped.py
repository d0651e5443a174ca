"""A report that nothing was looked for, and why: what a composed model gives where one before it said no.

TID 1500 and 1501 (PS3.16): a measurement group for each finding that would have been looked for, with the coded
answer that it was not evaluated and the reason as a comment. No segmentation: that nothing was found would be untrue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.coded import Code
from dicomnode.domain.model_card import ClassSpec, ModelCard, Segment
from dicomnode.encoding.provenance import Provenance, tracking
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.seg import coded
from dicomnode.encoding.sr import algorithm_identification
from dicomnode.encoding.sr_groups import report_around, tracked
from dicomnode.imaging.headers import odd_values_accepted, text

# SNOMED CT 373121007, "Not Evaluated" in PS3.16 CID 3703
NOT_EVALUATED: SrCode = codes.SCT.NotEvaluated
COMMENT: SrCode = codes.DCM.Comment


def encode_skipped(why: str, plan: UsedImages, card: ModelCard, made: Provenance, further: Further = NONE) -> Dataset:
    """The report on the images of a plan that a model was not run on."""
    with odd_values_accepted():
        groups = _groups(why, plan, card, made)
    digest = hashlib.sha256(f"skipped {why}".encode()).hexdigest()
    return report_around(groups, digest, plan, card, made, further)


def _groups(
    why: str, plan: UsedImages, card: ModelCard, made: Provenance
) -> Sequence[sr.MeasurementsAndQualitativeEvaluations]:
    groups = [_asked(*asked, plan, card, made) for asked in _questions(card)]
    groups += [_of_class(one, plan, card, made) for one in (card.boxes.classes if card.boxes else ())]
    groups += [_of_segment(segment, plan, card, made) for segment in card.segments]
    return [_commented(group, why) for group in groups]


def _questions(card: ModelCard) -> Iterator[tuple[str, list[Code], Code | None]]:
    """What a model answers with a value: for each group its words, the concepts, and the finding site."""
    if card.classification is not None:
        yield "not evaluated", [card.classification.finding], None
    if card.map is not None:
        yield f"{card.map.name} not evaluated", [card.map.quantity], None
    values = card.measurements.values if card.measurements else ()
    for site in dict.fromkeys(value.finding_site for value in values):
        words = f"{site.meaning if site else 'measurements'} not evaluated"
        yield words, [value.code for value in values if value.finding_site == site], site


def _asked(
    words: str, concepts: Sequence[Code], site: Code | None, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, words),
        finding_sites=[sr.FindingSite(coded(site))] if site else None,
        algorithm_id=algorithm_identification(card, made),
        qualitative_evaluations=[sr.QualitativeEvaluation(coded(each), NOT_EVALUATED) for each in concepts],
    )


def _of_class(
    one: ClassSpec, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    """Of boxes, in the group in which a report says that there are none."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, one.name, "absent"),
        finding_type=coded(one.code),
        algorithm_id=algorithm_identification(card, made),
        qualitative_evaluations=[sr.QualitativeEvaluation(name=codes.DCM.PresenceOfProperty, value=NOT_EVALUATED)],
    )


def _of_segment(
    segment: Segment, plan: UsedImages, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    identifier, uid = tracking(text(plan.first, "SeriesInstanceUID"), card, segment.number)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier=identifier),
        finding_type=coded(segment.type),
        finding_category=coded(segment.category),
        algorithm_id=algorithm_identification(card, made),
        qualitative_evaluations=[sr.QualitativeEvaluation(name=codes.DCM.PresenceOfProperty, value=NOT_EVALUATED)],
    )


def _commented(group: sr.MeasurementsAndQualitativeEvaluations, why: str) -> sr.MeasurementsAndQualitativeEvaluations:
    """With a qualitative evaluation as text (PS3.16 TID 1501, row 14)."""
    contains = sr.RelationshipTypeValues.CONTAINS
    comment = sr.TextContentItem(name=COMMENT, value=why, relationship_type=contains)
    group[0].ContentSequence.append(comment)
    return group
