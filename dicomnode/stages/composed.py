"""Composed models: what those that come first say of a series decides whether and where the one after them looks.

They are asked as a job would ask them, in the same volume: where a job of theirs runs on it too, nothing is computed
twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicomnode.domain.classification import DIGITS
from dicomnode.domain.findings import ImageBox, VolumeBox, image_boxes, volume_boxes
from dicomnode.domain.halt import Halt
from dicomnode.domain.measured_output import rounded
from dicomnode.domain.model_after import (
    BoxGate,
    ClassGate,
    Crop,
    Limits,
    MapGate,
    NumberGate,
    Place,
    SegmentGate,
    Step,
    Use,
)
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.quantity import quantity
from dicomnode.errors import InferenceError, InferenceStopped, OutOfResources, SeriesRefused
from dicomnode.imaging.box import Box, Found, around, found, found_of, with_margin
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ModelVersion
from dicomnode.stages.answers import Labels, Question, Scores, gives_arrays
from dicomnode.stages.preceding import called


class Asked(Protocol):
    """A decoded series that models are asked about, as a whole or in a box of it."""

    @property
    def geometry(self) -> VolumeGeometry: ...

    def labels(self, question: Question, halt: Halt | None = None) -> Labels:
        """In the whole series' grid, 0 outside the region."""

    def classes(self, question: Question, halt: Halt | None = None) -> Scores: ...


@dataclass(frozen=True, slots=True)
class First:
    """A model that came first, what it was for, and what it said, in words."""

    model: ModelVersion
    step: Step
    words: str


@dataclass(frozen=True, slots=True)
class Lead:
    """What came of the models before one: where it looks, or why it does not."""

    firsts: tuple[First, ...] = ()
    region: Box | None = None  # None: everywhere
    skipped: str = ""  # why nothing is looked for; "": it is


@dataclass(frozen=True, slots=True)
class _Verdict:
    words: str
    passed: bool
    region: Box | None = None  # where to look; None: as before
    place: Box | None = None  # where it was found


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who is asked, and how: `timeout_s` of models whose card names none, `halt` when nobody waits any more."""

    asked: Asked
    before: Mapping[str, ModelVersion]
    timeout_s: float
    halt: Halt | None


def led(
    asked: Asked,
    model: ModelVersion,
    before: Mapping[str, ModelVersion],
    timeout_s: float,
    halt: Halt | None = None,
) -> Lead:
    """Asks what comes before a model, in the card's order, until one of them says no; `timeout_s` for each.

    `before`: the versions by what the cards call them. Raises SeriesRefused, InferenceError, OutOfResources.
    """
    return _led(_Asking(asked, before, timeout_s, halt), model)


def _led(asking: _Asking, model: ModelVersion) -> Lead:
    lead = Lead()
    for step in model.card.after:
        lead = _followed(asking, lead, step, model)
        if lead.skipped:
            break
    return lead


def _first(step: Step, model: ModelVersion, before: Mapping[str, ModelVersion]) -> ModelVersion:
    first = before.get(str(step.model))
    if first is None:
        raise SeriesRefused(
            f"the model {model.name} runs after {step.model}, which was not there when this job was made: "
            "dicomnode models list shows what is; rerun the study"
        )
    return first


def _followed(asking: _Asking, lead: Lead, step: Step, model: ModelVersion) -> Lead:
    first = _first(step, model, asking.before)
    own = _led(asking, first)
    with _named(first):
        verdict = (
            _Verdict(f"{called(first)} did not look: {own.skipped}", passed=False)
            if own.skipped
            else _verdict(asking, step.use, first, own.region)
        )
    absent = step.use.absent if isinstance(step.use, Crop) else "skip"
    if not verdict.passed and absent == "refuse":
        raise SeriesRefused(f"the model {model.name} looks around what another one finds, and {verdict.words}")
    skipped = verdict.words if not verdict.passed and absent == "skip" else ""
    words = verdict.words if verdict.passed or skipped else f"{verdict.words}; the whole series is looked at"
    return Lead((*lead.firsts, *own.firsts, First(first, step, words)), verdict.region or lead.region, skipped)


@contextmanager
def _named(first: ModelVersion) -> Iterator[None]:
    """Says of which model it is that something fails: the job is another one's."""
    try:
        yield
    except InferenceStopped:
        raise
    except (InferenceError, OutOfResources) as error:
        raise type(error)(f"{called(first)}, which comes first: {error}") from error


# ----------------------------------------------------------------------------------------------------- verdicts


def _verdict(asking: _Asking, use: Use, first: ModelVersion, region: Box | None) -> _Verdict:
    if isinstance(use, ClassGate):
        return by_class(use, first, _few(asking, first, region))
    if isinstance(use, NumberGate):
        return by_number(use, first, _few(asking, first, region))
    if isinstance(use, Crop):
        return _cropped(use, _place(asking, use.around, first, region), asking.asked.geometry)
    return _place(asking, use, first, region)


def _few(asking: _Asking, first: ModelVersion, region: Box | None) -> npt.NDArray[np.float32]:
    return asking.asked.classes(_question(asking, first, region), asking.halt).array


def _labels(asking: _Asking, first: ModelVersion, region: Box | None) -> Labels:
    return asking.asked.labels(_question(asking, first, region), asking.halt)


def _question(asking: _Asking, first: ModelVersion, region: Box | None) -> Question:
    return Question(first, {}, first.card.timeout_s or asking.timeout_s, region)


def _place(asking: _Asking, use: Place, first: ModelVersion, region: Box | None) -> _Verdict:
    """Whether something is there; where, is what the verdict's region says."""
    geometry = asking.asked.geometry
    if isinstance(use, BoxGate):
        if not gives_arrays(first):
            return by_boxes(use, first, image_boxes(_few(asking, first, region).tolist()), geometry)
        rows = _labels(asking, first, region).arrays["BOXES"].tolist()
        return by_boxes(use, first, volume_boxes(rows), geometry)
    found_labels = _labels(asking, first, region)
    if isinstance(use, MapGate):
        return by_map(use, first, _within(found_labels.arrays["MAP"], use.limits, region), geometry)
    numbers = numbers_of(first.card, use.segments)
    labels = found_labels.where(numbers, first.card.masks.threshold)
    return by_segments(use, first, found(labels, numbers), geometry)


def _within(values: npt.NDArray[np.float32], limits: Limits, region: Box | None) -> Found:
    """Of a map; outside the region that its model was given it says nothing."""
    mask = np.isfinite(values)
    if limits.at_least is not None:
        mask &= values >= limits.at_least
    if limits.at_most is not None:
        mask &= values <= limits.at_most
    if region is not None:
        inside = np.zeros_like(mask)
        inside[region.slices] = True
        mask &= inside
    return found_of(mask)


def numbers_of(card: ModelCard, names: Sequence[str]) -> list[int]:
    """Of the segments of these names, in a label map."""
    return [segment.number for segment in card.segments if segment.name in names]


def _cropped(use: Crop, verdict: _Verdict, geometry: VolumeGeometry) -> _Verdict:
    if not verdict.passed:
        return verdict
    if verdict.place is None:
        return _Verdict(f"{verdict.words}, none of them in the volume", passed=False)
    box = with_margin(verdict.place, use.margin_mm, geometry)
    part, whole = (" × ".join(map(str, shape)) for shape in (box.shape, geometry.shape))
    return _Verdict(f"{verdict.words}: the box around it has {part} of {whole} voxels", passed=True, region=box)


def by_segments(use: SegmentGate, first: ModelVersion, seen: Found, geometry: VolumeGeometry) -> _Verdict:
    """What follows from what was found of the segments that a step names."""
    names = " and ".join(use.segments)
    return _by_volume(names, " or ".join(use.segments), use.minimum_volume_ml, first, seen, geometry)


def by_map(use: MapGate, first: ModelVersion, seen: Found, geometry: VolumeGeometry) -> _Verdict:
    """What follows from where a map is as high, or as low, as a step asks."""
    what = f"{use.name} of {use.limits.words}"
    return _by_volume(what, what, use.minimum_volume_ml, first, seen, geometry)


def _by_volume(
    what: str, either: str, least_ml: float, first: ModelVersion, seen: Found, geometry: VolumeGeometry
) -> _Verdict:
    if seen.box is None:
        return _Verdict(f"{called(first)} found no {either}", passed=False)
    volume_ml = seen.voxels * geometry.voxel_volume_mm3 / 1000
    amount = f"{called(first)} found {volume_ml:.1f} mL of {what}"
    if volume_ml < least_ml:
        return _Verdict(f"{amount}, and {least_ml:g} mL are needed", passed=False)
    return _Verdict(amount, passed=True, place=seen.box)


def by_boxes(
    use: BoxGate, first: ModelVersion, boxes: Sequence[VolumeBox] | Sequence[ImageBox], geometry: VolumeGeometry
) -> _Verdict:
    """What follows from the boxes of the classes that a step names; those on single images lie in no volume."""
    output = first.card.boxes
    assert output is not None  # domain.composition.unserved
    names = [one.name for one in output.classes]
    fit = [box for box in boxes if names[box.number] in use.classes and box.score >= use.at_least]
    place = around([box for box in fit if isinstance(box, VolumeBox)], geometry)
    words = f"{called(first)} found {quantity(len(fit), 'box', 'boxes')} of {' and '.join(use.classes)}"
    words += f" with a score of at least {use.at_least:g}" if use.at_least else ""
    if len(fit) < use.boxes_least:
        return _Verdict(f"{words}, and {use.boxes_least} are needed", passed=False)
    return _Verdict(words, passed=True, place=place)


def by_number(use: NumberGate, first: ModelVersion, array: npt.NDArray[np.float32]) -> _Verdict:
    """What follows from the numbers of the name that a step asks for, (image, value) float32."""
    output = first.card.measurements
    assert output is not None  # domain.composition.unserved
    at = [one.name for one in output.values].index(use.name)
    spec, numbers = output.values[at], [row[at] for row in rounded(array.astype(float).tolist())]
    enough = sum(spec.is_one(number) and use.limits.hold(number) for number in numbers)
    unit = "" if spec.unit == "1" else f" {spec.unit}"
    if output.of == "series":
        measured = f"a {use.name} of {numbers[0]:g}{unit}" if spec.is_one(numbers[0]) else f"no {use.name}"
        words, needed_words = f"{called(first)} gives {measured}", f"{use.limits.words}{unit} is needed"
    else:
        words = f"{called(first)} gives {use.name} of {use.limits.words}{unit} on {enough} of {len(numbers)} images"
        needed_words = f"{use.images_least} are needed"
    passed = enough >= use.images_least
    return _Verdict(words if passed else f"{words}, and {needed_words}", passed)


def by_class(use: ClassGate, first: ModelVersion, array: npt.NDArray[np.float32]) -> _Verdict:
    """What follows from the probabilities of the class that a step names, (image, class) float32."""
    classes = first.card.classification
    assert classes is not None  # domain.composition.unserved
    number = [one.name for one in classes.classes].index(use.name)
    own = array[:, number].astype(np.float64).round(DIGITS)
    enough = int((own >= use.at_least).sum())
    if classes.of == "series":
        words = f"{called(first)} gives {use.name} a probability of {float(own[0]):.2f}"
        needed_words = f"{use.at_least:g} is needed"
    else:
        words = f"{called(first)} sees {use.name} on {enough} of {len(own)} images"
        needed_words = f"{use.images_least} with a probability of at least {use.at_least:g} are needed"
    passed = enough >= use.images_least
    return _Verdict(words if passed else f"{words}, and {needed_words}", passed)


# ------------------------------------------------------------------------------------------------ the versions
