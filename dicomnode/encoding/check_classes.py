"""The gate in front of delivery for reports of classes; see check."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_measurement_report, check_number, groups_of
from dicomnode.encoding.check_boxes import check_surface
from dicomnode.encoding.content_items import code_of
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.sr_classes import UNDETERMINED, spec_of
from dicomnode.imaging.box import Box
from dicomnode.imaging.headers import items, odd_values_accepted, text, value
from dicomnode.imaging.volume import VolumePlan

_TRACKED = (("112039", "DCM"), ("112040", "DCM"))


def check_classes(
    report: Dataset, plan: UsedImages, card: ModelCard, further: Further = NONE, region: Box | None = None
) -> None:
    """Raises NonConformant naming what is wrong with an SR on the classes of the plan's images."""
    with odd_values_accepted():
        check_measurement_report(report, plan, further)
        groups = groups_of(report)
        named = [_check_group(group, number, card) for number, group in enumerate(groups, 1)]
        if region is None or not isinstance(plan, VolumePlan):
            check_images([item for each in named for item in each], plan)
        else:
            check_region(groups, plan)


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


def check_region(groups: Sequence[Dataset], plan: VolumePlan) -> None:
    """Each group has the surface of what was looked at (TID 1411)."""
    for number, group in enumerate(groups, 1):
        shapes = [item for item in items(group, "ContentSequence") if text(item, "ValueType") == "SCOORD3D"]
        if not shapes:
            refuse(f"measurement group {number} does not say which region of the series it is of")
        check_surface(shapes, number, plan)


def check_images(named: Sequence[Dataset], plan: UsedImages, times: int = 1) -> None:
    """Every image is named in as many groups, and no other is."""
    frames: dict[str, list[int]] = {}
    for frame in plan.frames:
        frames.setdefault(frame.sop_instance_uid, []).append(frame.number)
    found = [
        (uid, text(item, "ReferencedSOPClassUID"), frame)
        for item in named
        for uid in [text(item, "ReferencedSOPInstanceUID")]
        for frame in _frames(item, frames.get(uid, [1]))
    ]
    wanted = times * [
        (frame.sop_instance_uid, text(plan.headers[frame.instance], "SOPClassUID"), frame.number)
        for frame in plan.frames
    ]
    if sorted(found) != sorted(wanted):
        wrong = len(set(wanted) ^ set(found)) or len(found) - len(wanted)
        groups = "one measurement group" if times == 1 else f"{times} measurement groups"
        refuse(f"{wrong} of the images are not in {groups} each, or are not the series'")


def _frames(item: Dataset, every: Sequence[int]) -> Sequence[int]:
    """Those that a reference is to: all, where it names none."""
    frames = value(item, "ReferencedFrameNumber")
    if frames is None:
        return every
    return [int(frame) for frame in (frames if hasattr(frames, "__iter__") else [frames])]
