"""The gate in front of delivery for reports of classes; see check."""

from __future__ import annotations

from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_measurement_report, check_number, groups_of
from dicomnode.encoding.content_items import code_of
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.sr_classes import UNDETERMINED, spec_of
from dicomnode.imaging.headers import items, odd_values_accepted, text, value

_TRACKED = (("112039", "DCM"), ("112040", "DCM"))


def check_classes(report: Dataset, plan: UsedImages, card: ModelCard, further: Further = NONE) -> None:
    """Raises NonConformant naming what is wrong with an SR on the classes of the plan's images."""
    with odd_values_accepted():
        check_measurement_report(report, plan, further)
        named = [_check_group(group, number, card) for number, group in enumerate(groups_of(report), 1)]
        if spec_of(card).of == "image":
            _check_images([item for each in named for item in each], plan)


def _check_group(group: Dataset, number: int, card: ModelCard) -> list[Dataset]:
    """The images that a group is about."""
    spec, content = spec_of(card), items(group, "ContentSequence")
    if absent := [code for code in _TRACKED if code not in {code_of(item) for item in content}]:
        refuse(f"measurement group {number} has no {absent[0]}")
    finding = (spec.finding.value, spec.finding.scheme)
    known = {(one.code.value, one.code.scheme) for one in spec.classes}
    known.add((UNDETERMINED.value, UNDETERMINED.scheme_designator))
    evaluations = [item for item in content if code_of(item) == finding]
    if len(evaluations) != 1 or code_of(evaluations[0], "ConceptCodeSequence") not in known:
        refuse(f"measurement group {number} does not say one class of the card's for {spec.finding.meaning}")
    for item in content:
        if text(item, "ValueType") == "NUM" and not 0 <= (found := check_number(item, number)) <= 1:
            refuse(f"a share or probability in group {number} is {found}")
    return [reference for item in content for reference in items(item, "ReferencedSOPSequence")]


def _check_images(named: list[Dataset], plan: UsedImages) -> None:
    """Every image is in one group, and no other is."""
    found = [(text(item, "ReferencedSOPInstanceUID"), text(item, "ReferencedSOPClassUID"), frame)
             for item in named for frame in _frames(item)]  # fmt: skip
    wanted = [
        (frame.sop_instance_uid, text(plan.headers[frame.instance], "SOPClassUID"), frame.number)
        for frame in plan.frames
    ]
    if sorted(found) != sorted(wanted):
        wrong = len(set(wanted) ^ set(found)) or len(found) - len(wanted)
        refuse(f"{wrong} of the images are not in one measurement group each, or are not the series'")


def _frames(item: Dataset) -> list[int]:
    frames = value(item, "ReferencedFrameNumber")
    if frames is None:
        return [1]
    return [int(frame) for frame in (frames if hasattr(frames, "__iter__") else [frames])]
