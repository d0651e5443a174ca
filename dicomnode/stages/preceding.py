"""Which versions come before a composed model, and why it cannot run when one is missing."""

from __future__ import annotations

from dicomnode.domain.composition import faults, needed
from dicomnode.ports import ModelVersion, State


def called(model: ModelVersion) -> str:
    return f"{model.name} {model.version}"


def models_before(model: ModelVersion, state: State) -> dict[str, ModelVersion]:
    """The versions that come before a model now, by what the cards call them; none of a model by itself."""
    return needed(model, state.models()) if model.card.after else {}


def lacking(model: ModelVersion, state: State) -> str:
    """Why a composed model cannot run now, in words; "" when it can."""
    if not model.card.after:
        return ""
    why = "; ".join(words for _, words in faults(model, state.models()))
    return f"{called(model)} cannot run: {why}" if why else ""
