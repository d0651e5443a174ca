"""The registry: a version is registered, tried on its golden cases, and then may run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome
from dicomnode.domain.composition import faults, needed, newly_broken
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_change import active_before
from dicomnode.errors import IllegalTransition, InvalidModelPackage, ModelFailed, NotFound
from dicomnode.ports import ModelVersion, State
from dicomnode.stages.preceding import models_before

# A version's golden cases, run through the versions that come before it, by what the cards call those
Accept = Callable[[ModelVersion, Mapping[str, ModelVersion]], Acceptance]
Warm = Callable[[ModelVersion], None]


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a version that was added or was to be made active."""

    model: ModelVersion
    words: str
    acceptance: Acceptance | None = None  # of this machine

    @property
    def accepted(self) -> bool:
        return self.acceptance is not None and self.acceptance.allows_activation


class Registry:
    """`warm` loads a version before it becomes active, so that no series waits; what it raises prevents that.

    `host` is this machine's name: what was accepted on another one is tried here first.
    """

    def __init__(self, state: State, accept: Accept, warm: Warm = lambda model: None, host: str = "") -> None:
        self._state, self._accept, self._warm, self._host = state, accept, warm, host

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

        A composed model whose first ones are not there, or do not give what it asks for, is not registered. Raises
        AlreadyExists, InvalidModelPackage, InferenceError; of an acceptance that failed it only tells.
        """
        _check_what_it_needs(ModelVersion(0, card.name, card.version, digest, path, card, False), self._state)
        model = self._state.add_model(card, digest, path, activate=False, author=author, reason=reason)
        acceptance = self._accept(model, models_before(model, self._state))
        model = self._state.record_acceptance(model.name, model.version, acceptance)
        wanted = self._is_first(model) if activate is None else activate
        if not acceptance.allows_activation:
            return Registered(model, _not_accepted(model, acceptance), acceptance)
        if wanted:
            self._try_after(model)
            self._warm_added(model)
            model = self._state.activate_model(model.name, model.version, author=author, reason=reason)
        return Registered(model, _added(model, self._state.active_model(model.name), acceptance), acceptance)

    def activate(self, name: str, version: str, *, author: str = "", reason: str = "") -> Registered:
        """Tries a version first that was never tried on this machine.

        Raises NotFound, IllegalTransition, InferenceError.
        """
        model, acceptance = self._tried(name, version)
        self._try_after(model)
        self._warm_all(model)
        model = self._state.activate_model(name, version, author=author, reason=reason)
        return Registered(model, _activated(model, acceptance), acceptance)

    def rollback(self, name: str, *, author: str = "", reason: str = "") -> Registered:
        """Raises IllegalTransition when no version was active before, InferenceError."""
        before = self._state.model_version(name, active_before(self._state.model_changes(name)))
        if before is not None:
            self._try_after(before)
            self._warm_all(before)
        model = self._state.rollback_model(name, author=author, reason=reason)
        return Registered(model, f"{name} {model.version} is active again: what is routed from now on runs it")

    def shadow(self, name: str, version: str, *, author: str = "", reason: str = "") -> Registered:
        """As activate."""
        _, acceptance = self._tried(name, version)
        model = self._state.shadow_model(name, version, author=author, reason=reason)
        words = f"{name} {version} is a shadow: from the next series on it runs beside the active version, unsent"
        return Registered(model, words + _warning(acceptance), acceptance)

    def _tried(self, name: str, version: str) -> tuple[ModelVersion, Acceptance]:
        """A version that is accepted on this machine; raises IllegalTransition of another."""
        model = self._state.model_version(name, version)
        if model is None:
            raise NotFound(not_there(self._state, name, version))
        if model.card.after:  # what it was tried with may have changed since
            _check_what_it_needs(model, self._state)
        acceptance = model.acceptance_on(self._host)
        if acceptance is None or model.card.after:
            acceptance = self._accept(model, models_before(model, self._state))
            model = self._state.record_acceptance(name, version, acceptance)
        if not acceptance.allows_activation:
            raise IllegalTransition(f"{name} {version} is {acceptance.words}; nothing else was changed")
        return model, acceptance

    def _warm_added(self, model: ModelVersion) -> None:
        """Raises as _warm_all, and says what is to be done about a version that is registered and does not run."""
        try:
            self._warm_all(model)
        except ModelFailed as error:
            raise ModelFailed(
                f"{' '.join(str(error).split())}. {model.name} {model.version} is registered and not active: where "
                "something is missing here, add it again once it is there; where the package is at fault, "
                f"dicomnode models remove {model.name} {model.version}, and add the right one"
            ) from error

    def _warm_all(self, model: ModelVersion) -> None:
        """With what comes before it, of which some may be named by a version that is not active."""
        for first in models_before(model, self._state).values():
            self._warm(first)
        self._warm(model)

    def _try_after(self, model: ModelVersion) -> None:
        """Tries the models in use that would come after this version if it were active, before it is.

        Raises IllegalTransition when one cannot run after it, or fails its golden cases.
        """
        now = self._state.models()
        then = [replace(m, active=m.version == model.version) if m.name == model.name else m for m in now]
        if words := newly_broken(now, then):
            raise IllegalTransition(f"{words}; nothing was changed")
        for other in then:
            changed = needed(other, then)
            if (other.active or other.shadow) and _digests(changed) != _digests(needed(other, now)):
                self._try_with(other, changed, model)

    def _try_with(self, other: ModelVersion, before: Mapping[str, ModelVersion], model: ModelVersion) -> None:
        acceptance = self._accept(other, before)
        if not acceptance.allows_activation:
            raise IllegalTransition(
                f"{other.name} {other.version}, which is {other.state}, runs after {model.name}, and with "
                f"{model.version} it is {acceptance.words}; nothing was changed"
            )
        self._state.record_acceptance(other.name, other.version, acceptance)

    def _is_first(self, model: ModelVersion) -> bool:
        """Whether nobody has ever decided which version of this name is to run."""
        return not self._state.model_changes(model.name)


def _digests(before: Mapping[str, ModelVersion]) -> dict[str, str]:
    return {called: first.digest for called, first in before.items()}


def _check_what_it_needs(model: ModelVersion, state: State) -> None:
    """Raises InvalidModelPackage with the path of the first thing that a composed model asks for in vain."""
    for path, words in faults(model, state.models()) if model.card.after else ():
        raise InvalidModelPackage(words, f"model.yaml.{path}")


def not_there(state: State, name: str, version: str = "") -> str:
    """Why a model or a version is not found, and what there is."""
    versions = [model.version for model in state.models() if model.name == name]
    if not versions:
        names = ", ".join(sorted({model.name for model in state.models()})) or "none"
        return f"there is no model {name}; there are: {names}; `dicomnode models list` shows all"
    there = f"there are: {', '.join(versions)}; `dicomnode models list` shows all"
    return f"there is no model {name} {version or 'that is active'}; {there}"


def _added(model: ModelVersion, active: ModelVersion | None, acceptance: Acceptance) -> str:
    if model.active:
        return f"{model.name} {model.version} is active ({model.digest[:12]}){_tried_words(acceptance)}"
    runs = f"{active.version} stays active" if active else "no version of it is active"
    return (
        f"{model.name} {model.version} is registered ({model.digest[:12]}); {runs}; to change that: "
        f"dicomnode models activate {model.name} {model.version}{_tried_words(acceptance)}"
    )


def _activated(model: ModelVersion, acceptance: Acceptance) -> str:
    return f"{model.name} {model.version} is active: what is routed from now on runs it{_warning(acceptance)}"


def _not_accepted(model: ModelVersion, acceptance: Acceptance) -> str:
    head = f"{model.name} {model.version} is registered and {acceptance.words}"
    if model.active:
        return f"{head}; it is active, and not served here: dicomnode models rollback {model.name}"
    if model.state == "failed":
        return f"{head}; it cannot be activated"
    return f"{head}; it cannot be activated from this machine, nor is it served here"


def _tried_words(acceptance: Acceptance) -> str:
    return f"; {acceptance.words}" if acceptance.outcome is AcceptanceOutcome.PASSED else _warning(acceptance)


def _warning(acceptance: Acceptance) -> str:
    return f"; mind: {acceptance.words}" if acceptance.outcome is AcceptanceOutcome.NONE else ""
