"""Numbers that a network gave as a TID 1500 report: a measurement group (TID 1501) for each image and finding site.

A number that is none, or that the card says cannot be, is not shown: its measurement has no value and a Numeric Value
Qualifier (PS3.3 C.18.1, PS3.16 CID 42) that says why.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.measured_output import MeasuredOutput, MeasuredValue
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.provenance import Provenance
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.seg import coded
from dicomnode.encoding.sr import algorithm_identification
from dicomnode.encoding.sr_groups import Group, SeriesParts, report_around, series_group, source_images, tracked
from dicomnode.imaging.box import Box

Rows = Sequence[Sequence[float]]


def encode_measured(
    rows: Rows,
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
    further: Further = NONE,
    region: Box | None = None,
) -> Dataset:
    """The report of (image, value), in the order of the plan's frames; one row of a whole series.

    `region`: the voxels of the plan's grid that the model was shown, where it was not the whole series.
    """
    digest = hashlib.sha256(repr(([list(row) for row in rows], region)).encode()).hexdigest()
    groups = [group for number, row in enumerate(rows) for group in _groups(number, row, plan, card, made, region)]
    report = report_around(groups, digest, plan, card, made, further)
    _empty_qualified(report)
    return report


def measured_of(card: ModelCard) -> MeasuredOutput:
    spec = card.measurements
    assert spec is not None  # encode.EncodeStage is given only cards that have them
    return spec


def _groups(
    number: int, row: Sequence[float], plan: UsedImages, card: ModelCard, made: Provenance, region: Box | None
) -> Iterator[Group]:
    """Of an image, or of the series: those of one finding site together."""
    spec = measured_of(card)
    sites = list(dict.fromkeys(value.finding_site for value in spec.values))
    for site in sites:
        of_image = f"image {number + 1} " if spec.of == "image" else ""
        parts = SeriesParts(
            tracking_identifier=tracked(plan, card, f"{of_image}{site.meaning if site else 'measurements'}"),
            algorithm_id=algorithm_identification(card, made),
            finding_sites=[sr.FindingSite(coded(site))] if site else None,
            measurements=[
                _measurement(v, f) for v, f in zip(spec.values, row, strict=True) if v.finding_site == site
            ],
            qualitative_evaluations=None,
        )
        if spec.of == "image":
            images = source_images(plan, number, number)
            yield sr.MeasurementsAndQualitativeEvaluations(**parts, source_images=images)
        else:
            yield series_group(plan, region, parts)


def _measurement(spec: MeasuredValue, value: float) -> sr.Measurement:
    unit = SrCode(spec.unit, "UCUM", "no units" if spec.unit == "1" else spec.unit)
    if spec.is_one(value):
        return sr.Measurement(name=coded(spec.code), value=value, unit=unit)
    return sr.Measurement(name=coded(spec.code), value=0.0, unit=unit, qualifier=qualifier_of(value))


def _empty_qualified(item: Dataset) -> None:
    """Takes the values out of what is qualified: the sequence is type 2, and highdicom reads no document without."""
    for part in item.get("ContentSequence", []):
        if "NumericValueQualifierCodeSequence" in part:
            part.MeasuredValueSequence = []
        _empty_qualified(part)


def qualifier_of(value: float) -> SrCode:
    """Why a number is no measurement (PS3.16 CID 42)."""
    found: SrCode = codes.DCM.ValueOutOfRange
    if math.isnan(value):
        found = codes.DCM.NotANumber
    elif math.isinf(value):
        found = codes.DCM.PositiveInfinity if value > 0 else codes.DCM.NegativeInfinity
    return found
