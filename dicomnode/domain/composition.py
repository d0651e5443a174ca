"""Which versions a composed model needs, and whether they are there and give what its card asks them for.

Pure: the registry's versions come in as values, so that a change can be judged before it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from dicomnode.domain.model_after import ClassGate, Reference, Step
from dicomnode.domain.model_card import ModelCard

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
    use, gives = step.use, theirs.classification
    if isinstance(use, ClassGate):
        names = [one.name for one in gives.classes] if gives else []
        if use.name not in names:
            yield "class", f"{called} has no class {use.name}; it has: {', '.join(names) or 'segments'}"
        if use.images_least > 1 and gives is not None and gives.of == "series":
            yield "images_least", f"{called} gives one class for the whole series"
        return
    there = [segment.name for segment in theirs.segments]
    if there and not theirs.output.is_label_map:
        yield "segments", f"{called} gives masks that overlap, or probabilities: one label map is needed"
    if unknown := [name for name in use.segments if name not in there]:
        yield "segments", f"{called} has no segment {' or '.join(unknown)}; it has: {', '.join(there) or 'classes'}"


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
