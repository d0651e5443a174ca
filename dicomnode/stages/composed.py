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

from dicomnode.domain.classification import DIGITS
from dicomnode.domain.composition import faults, needed
from dicomnode.domain.halt import Halt
from dicomnode.domain.model_after import ClassGate, Crop, SegmentGate, Step, Use
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.rules import Parameter
from dicomnode.errors import InferenceError, InferenceStopped, OutOfResources, SeriesRefused
from dicomnode.imaging.box import Box, Found, found, with_margin
from dicomnode.imaging.geometry import VolumeGeometry
from dicomnode.ports import ModelVersion, State
from dicomnode.stages.answers import Labels, Scores


class Asked(Protocol):
    """A decoded series that models are asked about, as a whole or in a box of it."""

    @property
    def geometry(self) -> VolumeGeometry: ...

    def labels(
        self,
        model: ModelVersion,
        parameters: Mapping[str, Parameter],
        timeout_s: float,
        halt: Halt | None = None,
        region: Box | None = None,
    ) -> Labels:
        """In the whole series' grid, 0 outside the region."""

    def classes(
        self,
        model: ModelVersion,
        parameters: Mapping[str, Parameter],
        timeout_s: float,
        halt: Halt | None = None,
        region: Box | None = None,
    ) -> Scores: ...


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
    region: Box | None = None


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


def called(model: ModelVersion) -> str:
    return f"{model.name} {model.version}"


# ----------------------------------------------------------------------------------------------------- verdicts


def _verdict(asking: _Asking, use: Use, first: ModelVersion, region: Box | None) -> _Verdict:
    asked, timeout_s = asking.asked, first.card.timeout_s or asking.timeout_s
    if isinstance(use, ClassGate):
        return by_class(use, first, asked.classes(first, {}, timeout_s, asking.halt, region))
    numbers = numbers_of(first.card, use.segments)
    labels = asked.labels(first, {}, timeout_s, asking.halt, region).where(numbers, first.card.masks.threshold)
    seen = found(labels, numbers)
    return by_segments(use, first, seen, asked.geometry)


def numbers_of(card: ModelCard, names: Sequence[str]) -> list[int]:
    """Of the segments of these names, in a label map."""
    return [segment.number for segment in card.segments if segment.name in names]


def by_segments(use: SegmentGate | Crop, first: ModelVersion, seen: Found, geometry: VolumeGeometry) -> _Verdict:
    """What follows from what was found of the segments that a step names."""
    names, volume_ml = " and ".join(use.segments), seen.voxels * geometry.voxel_volume_mm3 / 1000
    if seen.box is None:
        return _Verdict(f"{called(first)} found no {names.replace(' and ', ' or ')}", passed=False)
    amount = f"{called(first)} found {volume_ml:.1f} mL of {names}"
    if volume_ml < use.minimum_volume_ml:
        return _Verdict(f"{amount}, and {use.minimum_volume_ml:g} mL are needed", passed=False)
    if isinstance(use, SegmentGate):
        return _Verdict(amount, passed=True)
    box = with_margin(seen.box, use.margin_mm, geometry)
    part, whole = (" × ".join(map(str, shape)) for shape in (box.shape, geometry.shape))
    return _Verdict(f"{amount}: the box around it has {part} of {whole} voxels", passed=True, region=box)


def by_class(use: ClassGate, first: ModelVersion, scores: Scores) -> _Verdict:
    """What follows from the probabilities of the class that a step names, (image, class) float32."""
    classes = first.card.classification
    assert classes is not None  # domain.composition.unserved
    number = [one.name for one in classes.classes].index(use.name)
    own = scores.array[:, number].astype(np.float64).round(DIGITS)
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


def models_before(model: ModelVersion, state: State) -> dict[str, ModelVersion]:
    """The versions that come before a model now, by what the cards call them; none of a model by itself."""
    return needed(model, state.models()) if model.card.after else {}


def lacking(model: ModelVersion, state: State) -> str:
    """Why a composed model cannot run now, in words; "" when it can."""
    if not model.card.after:
        return ""
    why = "; ".join(words for _, words in faults(model, state.models()))
    return f"{called(model)} cannot run: {why}" if why else ""
