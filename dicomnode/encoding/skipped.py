"""A report that nothing was looked for, and why: what a composed model gives where one before it said no.

TID 1500 and 1501 (PS3.16): a measurement group for each finding that would have been looked for, with the coded
answer that it was not evaluated and the reason as a comment. No segmentation: that nothing was found would be untrue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.model_card import ModelCard, Segment
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
    spec = card.classification
    if spec is not None:
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracked(plan, card, "not evaluated"),
            algorithm_id=algorithm_identification(card, made),
            qualitative_evaluations=[sr.QualitativeEvaluation(name=coded(spec.finding), value=NOT_EVALUATED)],
        )
        return [_commented(group, why)]
    return [_commented(_of_segment(segment, plan, card, made), why) for segment in card.segments]


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
