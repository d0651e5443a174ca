"""Which versions a composed model needs, and whether they are there and give what its card asks them for.

Pure: the registry's versions come in as values, so that a change can be judged before it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from dicomnode.domain.measured_output import MeasuredOutput
from dicomnode.domain.model_after import BoxGate, ClassGate, Crop, MapGate, NumberGate, Reference, SegmentGate, Step
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_output import Classification

DEEPEST = 3  # models one after the other, the one that is asked for among them


class Version(Protocol):
    """A registered version."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def card(self) -> ModelCard: ...
    @property
    def active(self) -> bool: ...
    @property
    def shadow(self) -> bool: ...
    @property
    def state(self) -> str: ...  # "failed": its golden cases said no


V = TypeVar("V", bound=Version)
Fault = tuple[str, str]  # path in the card, and words


def resolved(reference: Reference, known: Sequence[V]) -> V | None:
    """The version that is meant; None when it is not there, or not active where the active one is meant."""
    return next((one for one in known if one.name == reference.name and _is_meant(one, reference)), None)


def _is_meant(one: Version, reference: Reference) -> bool:
    if reference.digest:
        return one.digest.startswith(reference.digest)
    return one.version == reference.version if reference.version else one.active


def needed(model: V, known: Sequence[V]) -> dict[str, V]:
    """Every version that comes before a model, by what the cards call it; of a chain the deepest first.

    Only of a model without faults: what is not there is left out.
    """
    found: dict[str, V] = {}
    _gather(model, known, found, DEEPEST)
    return found


def _gather(model: V, known: Sequence[V], found: dict[str, V], deeper: int) -> None:
    for step in model.card.after if deeper else ():
        first = resolved(step.model, known)
        if first is not None:
            _gather(first, known, found, deeper - 1)
            found.setdefault(str(step.model), first)


def faults(model: V, known: Sequence[V], trail: tuple[V, ...] = ()) -> Iterator[Fault]:
    """Why a composed model cannot run with these versions; nothing when it can."""
    trail = (*trail, model)
    for number, step in enumerate(model.card.after):
        path, first = f"after[{number}]", resolved(step.model, known)
        if first is None:
            yield f"{path}.model", _absent(step.model, known)
        elif any((one.name, one.version) == (first.name, first.version) for one in trail):
            yield f"{path}.model", f"it would come after itself: {_in_a_row(trail, first)}"
        elif len(trail) == DEEPEST:
            yield f"{path}.model", f"{_in_a_row(trail, first)} are over {DEEPEST} models in a row"
        else:
            yield from ((f"{path}.{key}", words) for key, words in unserved(model.card, step, first))
            deeper = faults(first, known, trail)
            yield from ((f"{path}.model", f"{_called(first)}, {where}: {words}") for where, words in deeper)


def _called(one: Version) -> str:
    return f"{one.name} {one.version}"


def _in_a_row(trail: Sequence[Version], first: Version) -> str:
    return " after ".join(_called(one) for one in (*trail, first))


def _absent(reference: Reference, known: Sequence[Version]) -> str:
    versions = [one.version for one in known if one.name == reference.name]
    if not versions:
        return f"there is no model {reference.name}: add it first (dicomnode models add)"
    if reference.is_of_active:
        activate = f"dicomnode models activate {reference.name} {versions[-1]}"
        return f"no version of {reference.name} is active: {activate}, or name one ({reference.name}@{versions[-1]})"
    return f"there is no {reference}; of {reference.name} there are: {', '.join(versions)}"


def unserved(card: ModelCard, step: Step, first: Version) -> Iterator[Fault]:
    """What a card asks of the model before it that this does not give; keys of the step, and words."""
    called, theirs = _called(first), first.card
    if first.state == "failed":
        yield "model", f"{called} failed its golden cases and runs nowhere"
    if theirs.roles:
        roles = ", ".join(role.name for role in theirs.roles)
        yield "model", f"{called} needs further series ({roles}): only a model of one series can come first"
    if without := [m for m in card.input.modality if m not in theirs.input.modality]:
        takes = " and ".join(theirs.input.modality)
        yield "model", f"{called} takes {takes}, and not {' and '.join(without)} as the model after it"
    yield from _not_given(step, called, theirs)


def _not_given(step: Step, called: str, theirs: ModelCard) -> Iterator[Fault]:
    use = step.use.around if isinstance(step.use, Crop) else step.use
    match use:
        case SegmentGate():
            yield from _unnamed("segments", "segment", use.segments, called, theirs)
            if theirs.output.of_images:
                yield "segments", f"{called} gives segments of single images, and a volume's are needed"
        case ClassGate():
            yield from _unnamed("class", "class", [use.name], called, theirs)
            yield from _of_one_series(use.images_least, called, theirs.classification, "class")
        case NumberGate():
            yield from _unnamed("measurement", "measurement", [use.name], called, theirs)
            yield from _of_one_series(use.images_least, called, theirs.measurements, "number")
        case BoxGate():
            yield from _unnamed("boxes", "boxes of", use.classes, called, theirs)
            if isinstance(step.use, Crop) and theirs.boxes is not None and theirs.boxes.of_images:
                yield "use", f"{called} gives boxes on single images, which say nothing of depth: it can gate only"
        case MapGate():
            yield from _unnamed("map", "map", [use.name], called, theirs)


def _unnamed(key: str, what: str, names: Sequence[str], called: str, theirs: ModelCard) -> Iterator[Fault]:
    there = _given(key, theirs)
    if unknown := [name for name in names if name not in there]:
        yield (
            key,
            f"{called} has no {what} {' or '.join(unknown)}; it has: {', '.join(there) or _GIVES[theirs.gives]}",
        )


_GIVES = {
    "segments": "segments",
    "classification": "classes",
    "measurements": "measurements",
    "boxes": "boxes",
    "map": "a map",
}


def _given(key: str, card: ModelCard) -> list[str]:
    """Names of what a card gives of that kind."""
    match key:
        case "segments":
            return [one.name for one in card.segments]
        case "class":
            return [one.name for one in card.classification.classes] if card.classification else []
        case "measurement":
            return [one.name for one in card.measurements.values] if card.measurements else []
        case "boxes":
            return [one.name for one in card.boxes.classes] if card.boxes else []
        case _:
            return [card.map.name] if card.map else []


def _of_one_series(
    images_least: int, called: str, output: Classification | MeasuredOutput | None, what: str
) -> Iterator[Fault]:
    if images_least > 1 and output is not None and output.of == "series":
        yield "images_least", f"{called} gives one {what} for the whole series"


# ------------------------------------------------------------------------------------------------- the registry


def broken(known: Sequence[V]) -> dict[str, str]:
    """Versions that are active or shadows and cannot run with what is there: what they are called, and why."""
    found = {}
    for model in known:
        if (model.active or model.shadow) and (why := list(faults(model, known))):
            found[f"{_called(model)}, which is {model.state}"] = "; ".join(words for _, words in why)
    return found


def newly_broken(before: Sequence[V], after: Sequence[V]) -> str:
    """What a change of the registry would break, in words; "" when nothing is."""
    was, then = broken(before), broken(after)
    return ". ".join(f"{called}, could not run: {why}" for called, why in then.items() if was.get(called) != why)
