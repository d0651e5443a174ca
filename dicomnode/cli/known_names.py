"""Names that a filter asks for: one that nothing ever had is a slip, and the error says what there is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from dicomnode.errors import NotFound
from dicomnode.ports import JobFilter, State

_LISTED_MOST = 20
_MEANT_MOST = 3
_LIKE = 0.6  # of difflib's ratio: from here on a name may be meant


def check_names(state: State, *, rule: str, model: str, destination: str) -> None:
    """Raises NotFound. What was removed is known still: jobs may name it."""
    if rule:
        _check_rule(state, rule)
    if model:
        _check_model(state, model)
    if destination:
        _check_destination(state, destination)


def _check_rule(state: State, name: str) -> None:
    known = [rule.name for rule in state.rules()]
    if name in known:
        return
    try:
        state.rule_history(name)
    except NotFound:
        raise NotFound(unknown("rule", name, known, "dicomnode rules list")) from None


def _check_model(state: State, words: str) -> None:
    """NAME, or NAME VERSION."""
    name, _, version = words.partition(" ")
    models = state.models()
    if name not in {model.name for model in models}:
        raise NotFound(unknown("model", name, sorted({model.name for model in models}), "dicomnode models list"))
    versions = [model.version for model in models if model.name == name]
    if version.strip() and version.strip() not in versions:
        raise NotFound(f"model {name} has no version {version.strip()}; there are: {', '.join(versions)}")


def _check_destination(state: State, name: str) -> None:
    known = [destination.name for destination in state.destinations()]
    if name not in known and not state.jobs(JobFilter(destination=name), most=1):
        raise NotFound(unknown("destination", name, known, "dicomnode destinations list"))


def unknown(noun: str, name: str, known: Sequence[str], listing: str) -> str:
    """What there is instead, the names that are most like it first."""
    if not known:
        return f"there is no {noun} {name}; there is none at all yet: {listing}"
    likeness = {one: difflib.SequenceMatcher(None, name.casefold(), one.casefold()).ratio() for one in known}
    nearest = sorted(known, key=lambda one: -likeness[one])
    near = [one for one in nearest[:_MEANT_MOST] if likeness[one] >= _LIKE]
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    more = f" and {len(known) - _LISTED_MOST} more" if len(known) > _LISTED_MOST else ""
    return f"there is no {noun} {name}; {meant}There are: {', '.join(nearest[:_LISTED_MOST])}{more} ({listing})"
