"""The gate in front of delivery for reports of boxes; see check."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.check import check_measurement_report, check_number, groups_of
from dicomnode.encoding.content_items import code_of
from dicomnode.encoding.references import NONE, Further, UsedImages
from dicomnode.encoding.refusal import refuse
from dicomnode.encoding.sr_boxes import boxes_of
from dicomnode.imaging.headers import items, odd_values_accepted, text, value, whole
from dicomnode.imaging.volume import VolumePlan

_FINDING, _TRACKING_UID = ("121071", "DCM"), ("112040", "DCM")
_PRESENCE, _ABSENT, _PROBABILITY = ("121052", "DCM"), ("121054", "DCM"), ("122157", "DCM")
_BEYOND_MM = 1.0  # of the source's corners: rounding, and no more


def check_boxes(report: Dataset, plan: UsedImages, card: ModelCard, further: Further = NONE) -> None:
    """Raises NonConformant naming what is wrong with an SR of boxes."""
    with odd_values_accepted():
        check_measurement_report(report, plan, further)
        classes = {(one.code.value, one.code.scheme) for one in boxes_of(card).classes}
        seen: dict[str, list[str]] = {}
        said = set()
        for number, group in enumerate(groups_of(report), 1):
            content = items(group, "ContentSequence")
            finding = next((code_of(i, "ConceptCodeSequence") for i in content if code_of(i) == _FINDING), None)
            if finding not in classes:
                refuse(f"measurement group {number} is of {finding}, which is none of the card's classes")
            said.add(finding)
            kind = _check_group(content, number, plan)
            seen.setdefault(_tracking(content, number), []).append(kind)
        if said != classes:
            refuse("the report does not say of every class of the card what was found, or that nothing was")
        wanted = ["region", "surface"] if isinstance(plan, VolumePlan) else ["region"]
        if any(kinds not in (wanted, ["absent"]) for kinds in seen.values()):
            refuse("a finding has not one region on an image, and one surface in a volume, under one Tracking UID")


def _tracking(content: list[Dataset], number: int) -> str:
    found = next((str(item.UID) for item in content if code_of(item) == _TRACKING_UID), "")
    if not found:
        refuse(f"measurement group {number} has no {_TRACKING_UID}")
    return found


def _check_group(content: list[Dataset], number: int, plan: UsedImages) -> str:
    """Whether it says "absent", shows a "region" or a "surface"."""
    for item in content:
        if text(item, "ValueType") == "NUM":
            found = check_number(item, number)
            if found < 0 or (code_of(item) == _PROBABILITY and found > 1):
                refuse(f"a size or probability in group {number} is {found}")
    presence = [code_of(i, "ConceptCodeSequence") for i in content if code_of(i) == _PRESENCE]
    shapes = [item for item in content if text(item, "ValueType") in ("SCOORD", "SCOORD3D")]
    if presence == [_ABSENT] and not shapes:
        return "absent"
    if len(shapes) == 1 and text(shapes[0], "ValueType") == "SCOORD":
        _check_region(shapes[0], number, plan)
        return "region"
    if not shapes or not isinstance(plan, VolumePlan) or any(text(s, "ValueType") != "SCOORD3D" for s in shapes):
        refuse(f"measurement group {number} neither shows where something is nor says that there is nothing")
    check_surface(shapes, number, plan)
    return "surface"


def _check_region(item: Dataset, number: int, plan: UsedImages) -> None:
    """A closed line within an image of the series (PS3.3 C.18.6)."""
    points = _points(item, 2)
    if text(item, "GraphicType") != "POLYLINE" or points is None or not np.array_equal(points[0], points[-1]):
        refuse(f"the region of group {number} is no closed line")
    references = [r for source in items(item, "ContentSequence") for r in items(source, "ReferencedSOPSequence")]
    frames = {(frame.sop_instance_uid, frame.number): plan.headers[frame.instance] for frame in plan.frames}
    keys = [(text(r, "ReferencedSOPInstanceUID"), whole(r, "ReferencedFrameNumber") or 1) for r in references]
    if len(keys) != 1 or keys[0] not in frames:
        refuse(f"the region of group {number} is not on an image of the series")
    header = frames[keys[0]]
    if (points < 0).any() or (points > [whole(header, "Columns") or 0, whole(header, "Rows") or 0]).any():
        refuse(f"the region of group {number} leaves its image")


def check_surface(shapes: list[Dataset], number: int, plan: VolumePlan) -> None:
    """Closed polygons in the source's frame of reference, and nowhere else than the source (PS3.3 C.18.9)."""
    frame_of_reference = text(plan.first, "FrameOfReferenceUID")
    if any(text(item, "ReferencedFrameOfReferenceUID") != frame_of_reference for item in shapes):
        refuse(f"the surface of group {number} is in another frame of reference than the source")
    for item in shapes:
        points = _points(item, 3)
        if text(item, "GraphicType") != "POLYGON" or points is None or not np.array_equal(points[0], points[-1]):
            refuse(f"the surface of group {number} is not of closed polygons")
        low, high = _corners(plan)
        if (points < low - _BEYOND_MM).any() or (points > high + _BEYOND_MM).any():
            refuse(f"the surface of group {number} leaves the source's volume")


def _corners(plan: VolumePlan) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """(3,) least and greatest LPS mm of the source, to the outer edges of its voxels."""
    grid = np.indices((2, 2, 2)).reshape(3, -1) * np.array(plan.geometry.shape)[:, None] - 0.5
    places = plan.geometry.affine[:3, :3] @ grid + plan.geometry.affine[:3, 3:]
    return places.min(1), places.max(1)


def _points(item: Dataset, axes: int) -> np.ndarray | None:  # type: ignore[type-arg]
    """(n, axes) float64; None where there are none."""
    found = value(item, "GraphicData")
    if found is None or not hasattr(found, "__len__") or len(found) < 3 * axes or len(found) % axes:
        return None
    points = np.array(found, dtype=np.float64).reshape(-1, axes)
    return points if np.isfinite(points).all() else None
