"""The gate in front of delivery for reports of a network's own numbers; see check."""

from __future__ import annotations

from collections import Counter

from pydicom import Dataset

from dicomnode.domain.coded import Code
from dicomnode.domain.measured_output import MeasuredValue
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_measurement_report, check_number, groups_of
from dicomnode.encoding.check_classes import check_images, check_region
from dicomnode.encoding.content_items import code_of
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.sr_measured import measured_of
from dicomnode.imaging.box import Box
from dicomnode.imaging.headers import items, odd_values_accepted, text
from dicomnode.imaging.volume import VolumePlan

_SITE = ("363698007", "SCT")  # Finding Site
_TRACKED = (("112039", "DCM"), ("112040", "DCM"))


def check_measured(
    report: Dataset, plan: UsedImages, card: ModelCard, further: Further = NONE, region: Box | None = None
) -> None:
    """Raises NonConformant naming what is wrong with an SR of a network's numbers."""
    with odd_values_accepted():
        check_measurement_report(report, plan, further)
        spec = measured_of(card)
        groups = groups_of(report)
        named = [_check_group(group, number, card) for number, group in enumerate(groups, 1)]
        if region is not None and isinstance(plan, VolumePlan):
            check_region(groups, plan)
            return
        sites = len({one.finding_site for one in spec.values})
        check_images([item for each in named for item in each], plan, sites)


def _check_group(group: Dataset, number: int, card: ModelCard) -> list[Dataset]:
    """The images that a group is about."""
    content = items(group, "ContentSequence")
    codes = [code_of(item) for item in content]
    if lacking := [code for code in _TRACKED if code not in codes]:
        refuse(f"measurement group {number} has no {lacking[0]}")
    site = next((code_of(i, "ConceptCodeSequence") for i in content if code_of(i) == _SITE), None)
    wanted = [one for one in measured_of(card).values if _pair(one.finding_site) == site]
    found = [item for item in content if text(item, "ValueType") == "NUM"]
    if Counter(code_of(item) for item in found) != Counter(_pair(one.code) for one in wanted):
        refuse(f"measurement group {number} has other measurements than the card's of this finding site")
    for item, one in zip(found, wanted, strict=True):
        _check_value(item, one, number)
    return [reference for item in content for reference in items(item, "ReferencedSOPSequence")]


def _pair(code: Code | None) -> tuple[str, str] | None:
    return None if code is None else (code.value, code.scheme)


def _check_value(item: Dataset, spec: MeasuredValue, number: int) -> None:
    """A number that the card allows, in its unit; or none, and why."""
    if not items(item, "MeasuredValueSequence"):
        if "" in code_of(item, "NumericValueQualifierCodeSequence"):
            refuse(f"{spec.name} in group {number} has neither a value nor a reason why not")
        return
    found = check_number(item, number)
    unit = code_of(items(item, "MeasuredValueSequence")[0], "MeasurementUnitsCodeSequence")
    if unit != (spec.unit, "UCUM"):
        refuse(f"{spec.name} in group {number} is in {unit[0]}, not in {spec.unit}")
    if not spec.is_one(found):
        refuse(f"{spec.name} in group {number} is {found:g}, which the card does not allow ({spec.allowed})")
