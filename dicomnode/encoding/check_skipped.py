"""The gate in front of delivery for reports that nothing was looked for; see check."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.encoding.check import check_measurement_report, groups_of
from dicomnode.encoding.content_items import code_of
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.skipped import COMMENT, NOT_EVALUATED
from dicomnode.imaging.headers import items, odd_values_accepted, text

_TRACKED = (("112039", "DCM"), ("112040", "DCM"))


def check_skipped(report: Dataset, plan: UsedImages, further: Further = NONE) -> None:
    """Raises NonConformant naming what is wrong with an SR on images that a model was not run on."""
    with odd_values_accepted():
        check_measurement_report(report, plan, further)
        for number, group in enumerate(groups_of(report), 1):
            _check_group(items(group, "ContentSequence"), number)


def _check_group(content: list[Dataset], number: int) -> None:
    """It says that there is no answer and why, and measures nothing."""
    if absent := [code for code in _TRACKED if code not in {code_of(item) for item in content}]:
        refuse(f"measurement group {number} has no {absent[0]}")
    answers = [code_of(item, "ConceptCodeSequence") for item in content if text(item, "ValueType") == "CODE"]
    if (NOT_EVALUATED.value, NOT_EVALUATED.scheme_designator) not in answers:
        refuse(f"measurement group {number} does not say that nothing was evaluated")
    comments = [item for item in content if code_of(item) == (COMMENT.value, COMMENT.scheme_designator)]
    if not any(text(item, "TextValue") for item in comments):
        refuse(f"measurement group {number} does not say why nothing was evaluated")
    if any(text(item, "ValueType") == "NUM" for item in content):
        refuse(f"measurement group {number} measures what was not evaluated")
