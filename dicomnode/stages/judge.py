"""Judge: how far what a model gave is from what it must give, in the figures that go with what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.domain.acceptance import CaseOutcome
from dicomnode.domain.golden import DICE_LEAST, DIFFERENCE_MOST, MM_MOST, RELATIVE_MOST, GoldenCase
from dicomnode.domain.model_card import ModelCard
from dicomnode.imaging.golden import dice
from dicomnode.imaging.masks import SegmentMasks

Array = npt.NDArray[Any]
_AXES = {
    "classification": "(image, class)",
    "measurements": "(image, value)",
    "map": "(slice, row, column)",
    "boxes": "(box, numbers)",
}


def answer_of(card: ModelCard, arrays: Mapping[str, Array], threshold: float) -> Array:
    """Of a session's answers, the array that golden cases expect (see domain.golden.EXPECTED), as one of its own."""
    if card.gives != "segments" or not card.masks.overlap:
        return arrays[card.output.arrays[0]].copy()
    masks = SegmentMasks.of_answers(arrays, threshold)
    return np.stack([masks.of(segment.number) for segment in card.segments]).view(np.uint8)


def nothing_of(card: ModelCard, shape: tuple[int, int, int]) -> Array:
    """What stands for an answer, as answer_of has it, of a model that was kept from looking at a volume."""
    if card.classification is not None:
        return np.zeros((0, len(card.classification.classes)), np.float32)
    if card.measurements is not None:
        return np.zeros((0, len(card.measurements.values)), np.float32)
    if card.boxes is not None:
        return np.zeros((0, 7 if card.boxes.of_images else 14), np.float32)
    if card.map is not None:
        return np.zeros(shape, np.float32)
    return np.zeros((len(card.segments), *shape) if card.masks.overlap else shape, np.uint8)


def judged(card: ModelCard, case: GoldenCase, found: Array, expected: Array) -> CaseOutcome:
    """An answer against the one that the package expects."""
    if card.gives == "segments":
        return _judged_masks(card, case, found, expected)
    if found.shape != expected.shape:
        words = f"what is expected is {expected.shape}, {_AXES[card.gives]}, the answer {found.shape}"
        return CaseOutcome(case.name, False, (), words)
    figures = differences(card, found, expected)
    most = {"score": case.difference_most, "number": case.relative_most, "corner": case.corner_most}
    # a NaN is over everything
    wrong = [
        f"{_words(name, value)}, {most[name]:g} is allowed" for name, value in figures if not value <= most[name]
    ]
    shown = tuple((f"largest difference of a {name}" if name != "score" else "largest difference", round(value, 6))
                  for name, value in figures)  # fmt: skip
    return CaseOutcome(case.name, not wrong, shown, "; ".join(wrong) or "as expected")


def differences(card: ModelCard, found: Array, expected: Array) -> list[tuple[str, float]]:
    """Of arrays of one shape, the largest of each kind: of a score; of a number, as a share of the range of what is
    expected; of a box's corner, mm or pixels.
    """
    if card.gives == "classification":
        return [("score", _largest(found, expected))]
    if card.gives in ("measurements", "map"):
        return [("number", _relative(found, expected))]
    of_images = card.input.is_of_images
    score, where = (5, slice(0, 5)) if of_images else (12, slice(0, 12))
    paired = _paired(found, expected, where)
    corner = _largest(paired[:, where], expected[:, where])
    if not np.array_equal(paired[:, -1], expected[:, -1]):
        corner = np.inf  # another class is another box
    return [("corner", corner), ("score", _largest(paired[:, score], expected[:, score]))]


def _paired(found: Array, expected: Array, where: slice) -> Array:
    """The boxes in the order of those that they are nearest to: scores may come out in another order."""
    left, order = list(range(len(found))), []
    for box in expected:
        apart = [np.abs(found[n, where] - box[where]).max() + 1e6 * (found[n, -1] != box[-1]) for n in left]
        order.append(left.pop(int(np.argmin(apart))))
    return found[order]


def _largest(found: Array, expected: Array) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))


def _relative(found: Array, expected: Array) -> float:
    """Numbers stand beside each other in columns, a map has one range; where that is 0, that of the value itself."""
    axis = 0 if expected.ndim == 2 and len(expected) > 1 else None
    span = np.ptp(expected, axis=axis) if axis == 0 or expected.ndim == 3 else np.abs(expected)
    span = np.where(span > 0, span, np.maximum(np.abs(expected).max(initial=0.0), 1e-6))
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(found.astype(np.float64) - expected) / span)
    return float(apart.max(initial=0.0))


def _words(name: str, value: float) -> str:
    return f"a {name} differs by {value:.4f}"


def _judged_masks(card: ModelCard, case: GoldenCase, found: Array, expected: Array) -> CaseOutcome:
    """Label maps (slice, row, column) uint8, or masks (segment, slice, row, column) uint8 where they overlap."""
    if found.shape != expected.shape:
        words = f"what is expected is {expected.shape}, the volume {found.shape}"
        return CaseOutcome(case.name, False, (), words)
    shares = dices(card, found, expected)
    wrong = [
        f"Dice of {segment.name} is {value:.4f}, {case.dice_least[segment.number]:g} is needed"
        for segment, value in zip(card.segments, shares, strict=True)
        if value < case.dice_least[segment.number]
    ]
    named = zip(card.segments, shares, strict=True)
    figures = tuple((f"Dice {segment.name}", round(value, 6)) for segment, value in named)
    return CaseOutcome(case.name, not wrong, figures, "; ".join(wrong) or "as expected")


def dices(card: ModelCard, found: Array, expected: Array) -> list[float]:
    """Of each segment of the card."""
    if card.masks.overlap:
        return [dice(one, other, 1) for one, other in zip(found, expected, strict=True)]
    return [dice(found, expected, segment.number) for segment in card.segments]


def likeness(card: ModelCard, found: Sequence[Array], expected: Sequence[Array]) -> tuple[float, str]:
    """The least Dice of answers to those of another engine, or the largest difference; and what is wrong with it."""
    pairs = list(zip(found, expected, strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        return float(card.gives != "segments"), "it gives another number of boxes than the reference"
    if card.gives == "segments":
        least = min(share for one, other in pairs for share in dices(card, one, other))
        enough = least >= DICE_LEAST
        return least, "" if enough else f"Dice {least:.4f} against the reference; {DICE_LEAST} is needed"
    most = {"score": DIFFERENCE_MOST, "number": RELATIVE_MOST, "corner": MM_MOST}
    figures = [figure for one, other in pairs for figure in differences(card, one, other)]
    wrong = [
        f"{_words('probability' if name == 'score' else name, value)} from the reference's; {most[name]} is allowed"
        for name, value in figures
        if not value <= most[name]
    ]
    worst = max((value if np.isfinite(value) else 1.0 for _, value in figures), default=0.0)
    return worst, wrong[0] if wrong else ""
