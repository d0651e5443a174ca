"""What is told of a job's results beside the objects themselves: rows for `dicomnode jobs show`, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.boxes_output import BoxesOutput
from dicomnode.domain.classification import Run, class_name, shares
from dicomnode.domain.findings import ImageBox, VolumeBox
from dicomnode.domain.map_output import MapOutput
from dicomnode.domain.measured_output import MeasuredOutput
from dicomnode.domain.model_card import Classification, ModelCard
from dicomnode.domain.quantity import quantity
from dicomnode.encoding.sr_classes import spec_of
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.masked_images import RegionStatistics
from dicomnode.imaging.measure import SegmentStatistics
from dicomnode.imaging.regions import central_region
from dicomnode.imaging.volume import VolumePlan
from dicomnode.ports import JobWork

Boxes = Sequence[VolumeBox] | Sequence[ImageBox]


def unwanted(work: JobWork) -> list[str]:
    """What is to be said of kinds of results that the rule wants sent in vain."""
    gives = (*work.model.card.output.result_kinds, *work.model.card.output.forms)
    never = [kind for kind in work.objects if kind not in gives]
    why = [reason for kind in never if (reason := work.model.card.output.why_not(kind))]
    words = f"the rule wants {' and '.join(never)}, which {work.model.name} does not give"
    return ["; ".join([words, *why])] if never else []


def impossible(work: JobWork) -> list[str]:
    """What is to be said of forms that a destination's profile wants, and that there cannot be."""
    why = {kind: work.model.card.output.why_not(kind) for kind in work.forms if kind not in work.objects}
    return [f"no {kind}: {reason}" for kind, reason in why.items() if reason]


def notes_on(work: JobWork, kinds: Sequence[str]) -> list[str]:
    """What is to be said of masks: of the kinds of results that there are, and of those that the rule wants sent."""
    found = any(kind.startswith("SEG") for kind in kinds)
    return [*([] if found else ["nothing was found: no SEG, and the SR says so"]), *unwanted(work)]


def class_rows(found: Sequence[Run], spec: Classification, probabilities: list[list[float]]) -> dict[str, Any]:
    """What `dicomnode jobs show` prints: the share of each class, and the runs of images; images count from 1."""
    return {
        "classes": [
            {"class": class_name(share.number, spec), "images": share.images, "share": share.share}
            for share in shares(found)
        ],
        "runs": [
            {
                "images": f"{run.first + 1}-{run.last + 1}",
                "class": class_name(run.number, spec),
                "probability": run.mean,
                "least": run.least,
            }
            for run in found
        ],
        "probabilities": [[round(p, 4) for p in row] for row in probabilities],
    }


def class_notes(work: JobWork, found: Sequence[Run]) -> list[str]:
    """What is to be said of images that nothing is said of, and of what the rule wants sent in vain."""
    unsaid = sum(run.images for run in found if run.number is None)
    total = sum(run.images for run in found)
    notes = []
    if unsaid:
        what = f"{unsaid} of {total} images" if spec_of(work.model.card).of == "image" else "the series"
        notes.append(f"no class is certain enough of {what}, and the SR says so")
    return [*notes, *unwanted(work)]


def measurement_rows(statistics: list[SegmentStatistics], card: ModelCard, unit: str) -> list[dict[str, Any]]:
    """What `dicomnode jobs show` prints; None where a segment is empty."""
    names = {segment.number: segment.name for segment in card.segments}
    shown_unit = "HU" if unit == "[hnsf'U]" else unit
    return [
        {
            "segment": names[found.segment_number],
            "volume_ml": round(found.volume_ml, 3),
            "mean": None if found.mean is None else round(found.mean, 2),
            "unit": shown_unit,
        }
        for found in statistics
    ]


def region_rows(found: Sequence[RegionStatistics], card: ModelCard, unit: str) -> list[dict[str, Any]]:
    """As measurement_rows, of segments on single images, which count from 1; None for an area that nobody knows."""
    names = {segment.number: segment.name for segment in card.segments}
    return [
        {
            "image": one.image + 1,
            "segment": names[one.segment_number],
            "area_mm2": None if one.area_mm2 is None else round(one.area_mm2, 2),
            "pixels": one.pixels,
            "mean": None if one.values.mean is None else round(one.values.mean, 2),
            "unit": "HU" if unit == "[hnsf'U]" else unit,
        }
        for one in found
    ]


def pixel_notes(plan: ImagesPlan) -> list[str]:
    """How far sizes on the images can be believed."""
    sizes = {stack.pixel_size for stack in plan.stacks}
    notes = [f"the images are {plan.colour}: values are of their luminance"] if plan.colour else []
    if None in sizes:
        notes.append("an image does not say how large its pixels are in the patient: sizes on it are in pixels")
    if any(size is not None and size.at_detector for size in sizes):
        notes.append("sizes are as at the detector, and larger than in the patient: Pixel Spacing is not calibrated")
    return notes


def number_rows(rows: Sequence[Sequence[float]], spec: MeasuredOutput) -> list[dict[str, Any]]:
    """The network's numbers; None where one is no measurement. Images count from 1."""
    return [
        {
            **({"image": number} if spec.of == "image" else {}),
            "measurement": one.name,
            "value": value if one.is_one(value) else None,
            "unit": "" if one.unit == "1" else one.unit,
        }
        for number, row in enumerate(rows, 1)
        for one, value in zip(spec.values, row, strict=True)
    ]


def number_notes(rows: Sequence[Sequence[float]], spec: MeasuredOutput) -> list[str]:
    """Which numbers are none, or cannot be."""
    wrong = [one.name for row in rows for one, value in zip(spec.values, row, strict=True) if not one.is_one(value)]
    several = quantity(len(wrong), "number is no measurement", "numbers are no measurements")
    return [f"{several} ({', '.join(dict.fromkeys(wrong))}), and the SR says so"] if wrong else []


def box_rows(found: Boxes, plan: VolumePlan | ImagesPlan, spec: BoxesOutput) -> list[dict[str, Any]]:
    """The boxes with their sizes; slices and images count from 1."""
    return [{"finding": spec.classes[box.number].name, "score": box.score, **_extent(box, plan)} for box in found]


def not_found(found: Boxes, spec: BoxesOutput) -> list[str]:
    """What was looked for in vain."""
    there = {box.number for box in found}
    absent = [one.name for number, one in enumerate(spec.classes) if number not in there]
    return [f"Not found: {', '.join(absent)}"] if absent else []


def _extent(box: VolumeBox | ImageBox, plan: VolumePlan | ImagesPlan) -> dict[str, Any]:
    if isinstance(box, VolumeBox) and isinstance(plan, VolumePlan):
        region = central_region(box, plan)
        sides = {"length_mm": region.length_mm, "width_mm": region.width_mm, "depth_mm": region.depth_mm}
        return {"slice": region.slice_index + 1, **{name: round(side, 1) for name, side in sides.items()}}
    assert isinstance(box, ImageBox)
    across, down = (round(high - low, 1) for low, high in zip(box.low, box.high, strict=True))
    return {"image": box.image + 1, "columns": across, "rows": down}


def map_row(values: npt.NDArray[np.float32], spec: MapOutput) -> dict[str, Any]:
    """(slice, row, column) float32, in the card's unit."""
    ends = {"least": values.min(), "mean": values.mean(dtype=np.float64), "highest": values.max()}
    shown = {name: float(f"{float(value):.6g}") for name, value in ends.items()}
    return {"map": spec.name, **shown, "unit": spec.unit}
