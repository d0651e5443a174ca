"""The registry: a version is registered, tried on its golden cases, and then may run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_change import active_before
from dicomnode.errors import NotFound
from dicomnode.ports import ModelVersion, State

Accept = Callable[[ModelVersion], Acceptance]
Warm = Callable[[ModelVersion], None]


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a version that was added or was to be made active."""

    model: ModelVersion
    words: str

    @property
    def accepted(self) -> bool:
        return self.model.acceptance is not None and self.model.acceptance.allows_activation


class Registry:
    """`warm` loads a version before it becomes active, so that no series waits; what it raises prevents that."""

    def __init__(self, state: State, accept: Accept, warm: Warm = lambda model: None) -> None:
        self._state, self._accept, self._warm = state, accept, warm

    def add(
        self,
        card: ModelCard,
        digest: str,
        path: Path,
        *,
        activate: bool | None = None,
        author: str = "",
        reason: str = "",
    ) -> Registered:
        """Registers a version and tries it; `activate` None: only the first version of a name becomes active.

        Raises AlreadyExists, InvalidModelPackage, InferenceError; of an acceptance that failed it only tells.
        """
        model = self._state.add_model(card, digest, path, activate=False, author=author, reason=reason)
        acceptance = self._accept(model)
        model = self._state.record_acceptance(model.name, model.version, acceptance)
        wanted = self._is_first(model) if activate is None else activate
        if not acceptance.allows_activation:
            return Registered(model, _not_accepted(model))
        if wanted:
            self._warm(model)
            model = self._state.activate_model(model.name, model.version, author=author, reason=reason)
        return Registered(model, _added(model, self._state.active_model(model.name)))

    def activate(self, name: str, version: str, *, author: str = "", reason: str = "") -> Registered:
        """Tries a version first that was never tried here. Raises NotFound, IllegalTransition, InferenceError."""
        model = self._tried(name, version)
        if model.acceptance is not None and model.acceptance.allows_activation:
            self._warm(model)
        model = self._state.activate_model(name, version, author=author, reason=reason)
        return Registered(model, _activated(model))

    def rollback(self, name: str, *, author: str = "", reason: str = "") -> Registered:
        """Raises IllegalTransition when no version was active before, InferenceError."""
        before = self._state.model_version(name, active_before(self._state.model_changes(name)))
        if before is not None:
            self._warm(before)
        model = self._state.rollback_model(name, author=author, reason=reason)
        return Registered(model, f"{name} {model.version} is active again: what is routed from now on runs it")

    def shadow(self, name: str, version: str, *, author: str = "", reason: str = "") -> Registered:
        """As activate."""
        self._tried(name, version)
        model = self._state.shadow_model(name, version, author=author, reason=reason)
        words = f"{name} {version} is a shadow: from the next series on it runs beside the active version, unsent"
        return Registered(model, words + _warning(model))

    def _tried(self, name: str, version: str) -> ModelVersion:
        model = self._state.model_version(name, version)
        if model is None:
            raise NotFound(not_there(self._state, name, version))
        if model.acceptance is None:
            model = self._state.record_acceptance(name, version, self._accept(model))
        return model

    def _is_first(self, model: ModelVersion) -> bool:
        """Whether nobody has ever decided which version of this name is to run."""
        return not self._state.model_changes(model.name)


def not_there(state: State, name: str, version: str = "") -> str:
    """Why a model or a version is not found, and what there is."""
    versions = [model.version for model in state.models() if model.name == name]
    if not versions:
        names = ", ".join(sorted({model.name for model in state.models()})) or "none"
        return f"there is no model {name}; there are: {names}; `dicomnode models list` shows all"
    there = f"there are: {', '.join(versions)}; `dicomnode models list` shows all"
    return f"there is no model {name} {version or 'that is active'}; {there}"


def _added(model: ModelVersion, active: ModelVersion | None) -> str:
    if model.active:
        return f"{model.name} {model.version} is active ({model.digest[:12]}){_tried_words(model)}"
    runs = f"{active.version} stays active" if active else "no version of it is active"
    return (
        f"{model.name} {model.version} is registered ({model.digest[:12]}); {runs}; to change that: "
        f"dicomnode models activate {model.name} {model.version}{_tried_words(model)}"
    )


def _activated(model: ModelVersion) -> str:
    return f"{model.name} {model.version} is active: what is routed from now on runs it{_warning(model)}"


def _not_accepted(model: ModelVersion) -> str:
    assert model.acceptance is not None
    head = f"{model.name} {model.version} is registered and {model.acceptance.words}"
    if model.active:
        return f"{head}; it is active: dicomnode models rollback {model.name}"
    return f"{head}; it cannot be activated"


def _tried_words(model: ModelVersion) -> str:
    acceptance = model.acceptance
    if acceptance is not None and acceptance.outcome is AcceptanceOutcome.PASSED:
        return f"; {acceptance.words}"
    return _warning(model)


def _warning(model: ModelVersion) -> str:
    acceptance = model.acceptance
    if acceptance is not None and acceptance.outcome is AcceptanceOutcome.NONE:
        return f"; mind: {acceptance.words}"
    return ""
