"""Whether the instances of a series, as they are now, are a stack without a gap.

A gap says that something is missing; no gap does not say that nothing is, since half a stack has none either.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import mean, median

from dicomnode.domain.completeness import Place, Stack
from dicomnode.domain.quantity import quantity

# Modalities whose single-frame images lie in planes (PS3.3 C.7.6.2); fewer than so many of them are no stack yet
_IN_PLANES = frozenset({"CT", "MR", "PT", "NM"})
STACK_LEAST = 3
# Positions nearer to each other than this are one place, seen at several times or echoes
_SAME_PLACE_MM = 0.01
# How far a step may be from the usual one: a tenth of it, or what rounding of positions makes of thin slices
_STEP_TOLERANCE, _ROUNDING_MM, _ROUNDING_MOST_OF_STEP = 0.1, 0.1, 0.2


def look_at_stack(places: Sequence[Place], modality: str) -> Stack:
    """Of the instances in use; the words say what is missing, or how many images there are."""
    images = sum(place.number_of_frames for place in places)
    announced = max((place.images_announced or 0 for place in places), default=0)
    doubt = (
        _too_few(places, modality) or _number_gap(places) or _plane_gap(places, modality) or _short(images, announced)
    )
    if doubt:
        return Stack(contiguous=False, words=doubt)
    what = quantity(images, "instance") if images == len(places) else quantity(images, "frame")
    all_announced = ", as many as the headers announce" if announced == images else ""
    without_gap = " without a gap" if images > 1 else ""
    return Stack(contiguous=True, words=f"{what}{without_gap}{all_announced}")


def _too_few(places: Sequence[Place], modality: str) -> str:
    """Of a stack's first images nothing can be told; one multi-frame image is a stack by itself."""
    single = sum(place.number_of_frames == 1 for place in places)
    if not places:
        return "no images are here"
    if modality in _IN_PLANES and single == len(places) and single < STACK_LEAST:
        return f"{quantity(single, 'image')} of {modality} may be the first of a stack"
    return ""


def _number_gap(places: Sequence[Place]) -> str:
    """Of instance numbers (0020,0013), which may begin anywhere, and be equal in several planes."""
    numbers = {place.instance_number for place in places}
    known = sorted(number for number in numbers if number is not None)
    if len(known) < len(numbers):
        alone = len(places) == 1 and places[0].number_of_frames > 1
        return "" if alone else "images have no instance number"
    gap = next((a for a, b in itertools.pairwise(known) if b > a + 1), None)
    return "" if gap is None else f"instance number {gap + 1} is missing"


def _plane_gap(places: Sequence[Place], modality: str) -> str:
    planes: dict[str, list[float]] = defaultdict(list)
    for place in places:
        if place.plane and place.position_mm is not None:
            planes[place.plane].append(place.position_mm)
    in_planes = sum(map(len, planes.values()))
    if not in_planes:
        single = any(place.number_of_frames == 1 for place in places)
        return "the images have no positions" if modality in _IN_PLANES and single else ""
    return next((words for positions in planes.values() if (words := _position_gap(positions))), "")


def _position_gap(positions_mm: Sequence[float]) -> str:
    """Of the images parallel to one plane, along its normal."""
    ordered = sorted(positions_mm)
    starts = [k for k, here in enumerate(ordered) if k == 0 or here - ordered[k - 1] > _SAME_PLACE_MM]
    repeats = Counter(end - start for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True))
    if len(repeats) > 1:
        return f"some places were seen {_times(min(repeats))} and some {_times(max(repeats))}"
    distinct = [ordered[k] for k in starts]
    steps = [b - a for a, b in itertools.pairwise(distinct)]
    if not steps:
        return ""
    usual = mean(steps)
    tolerance = max(_STEP_TOLERANCE * usual, min(_ROUNDING_MM, _ROUNDING_MOST_OF_STEP * usual))
    worst = max(steps, key=lambda step: abs(step - usual))
    if math.isclose(worst, usual, abs_tol=tolerance):
        return ""
    return f"two images are {worst:.2f} mm apart, most {median(steps):.2f} mm"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _short(images: int, announced: int) -> str:
    """By NumberOfSlices (0054,0081) or ImagesInAcquisition (0020,1002)."""
    are = "is" if images == 1 else "are"
    return f"{images} of the {announced} images that the headers announce {are} here" if announced > images else ""
