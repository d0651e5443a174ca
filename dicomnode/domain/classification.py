"""What a model's probabilities say of a series: runs of adjacent images of one class, and the share of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from dicomnode.domain.model_output import Classification

# Other kernels give the same network's probabilities to five digits or so; more would make another result of each.
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent images of one class: the first and the last of them, counted from 0; `number` None: nothing certain.

    Probabilities are those of that class over the images: their mean, and the least of them; None with no class.
    `means`: of every class, in the card's order.
    """

    first: int
    last: int
    number: int | None  # of the class, in the card's order, from 0
    mean: float | None
    least: float | None
    means: tuple[float, ...] = ()

    @property
    def images(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the images are of a class; `number` as of Run."""

    number: int | None
    images: int
    share: float  # of all images, 0 to 1


def decided(probabilities: Sequence[float], spec: Classification) -> int | None:
    """The most probable class, the first of equals; None when its probability is below what the card asks for."""
    best = max(range(len(probabilities)), key=lambda number: probabilities[number])
    return best if probabilities[best] >= spec.certain_from else None


def runs(probabilities: Sequence[Sequence[float]], spec: Classification) -> list[Run]:
    """Of images in their order; each has a probability for every class."""
    found = [decided(row, spec) for row in probabilities]
    grouped = [list(group) for _, group in groupby(range(len(found)), key=lambda k: (found[k] is None, found[k]))]
    return [_run(group, found[group[0]], probabilities) for group in grouped]


def _run(images: Sequence[int], number: int | None, probabilities: Sequence[Sequence[float]]) -> Run:
    means = tuple(
        round(fmean(of_class), DIGITS) for of_class in zip(*(probabilities[k] for k in images), strict=True)
    )
    if number is None:
        return Run(images[0], images[-1], None, None, None, means)
    least = round(min(probabilities[k][number] for k in images), DIGITS)
    return Run(images[0], images[-1], number, means[number], least, means)


def shares(found: Sequence[Run]) -> list[Share]:
    """The most frequent class first; what is not certain comes last."""
    total = sum(run.images for run in found)
    counts: dict[int | None, int] = {}
    for run in found:
        counts[run.number] = counts.get(run.number, 0) + run.images
    ordered = sorted(counts.items(), key=lambda item: (item[0] is None, -item[1]))
    return [Share(number, images, round(images / total, DIGITS)) for number, images in ordered]


def class_name(number: int | None, spec: Classification) -> str:
    return "(not certain)" if number is None else spec.classes[number].name
