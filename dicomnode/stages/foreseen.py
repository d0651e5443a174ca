"""What a change of the registry would come to, for those who only ask: refused where the change would be, by the same
words; golden cases are not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicomnode.domain.acceptance import Acceptance
from dicomnode.domain.composition import faults, newly_broken
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_change import ModelChange, active_before
from dicomnode.domain.quantity import quantity
from dicomnode.errors import AlreadyExists, IllegalTransition, InvalidModelPackage, NotFound
from dicomnode.ports import ModelVersion


@dataclass
class Foreseen:
    """The registry as it would be after the changes that were asked about; `host`: this machine's name."""

    models: Sequence[ModelVersion]
    host: str = ""

    def add(self, card: ModelCard, digest: str, *, cases: int = 0, activate: bool = False) -> str:
        """What would become of a package with so many golden cases, in words.

        Raises AlreadyExists, InvalidModelPackage, IllegalTransition.
        """
        there = self._one(card.name, card.version)
        if there is not None and there.digest != digest:
            raise AlreadyExists(
                f"{card.name} {card.version} is there with other content; give the new one a new version"
            )
        made = there or ModelVersion(0, card.name, card.version, digest, Path("new"), card, False)
        self._check_what_it_needs(made)
        if there is None:
            self.models = [*self.models, made]
        if activate:
            self._become(made, active=True)
        return _added(made, there, cases, active=activate)

    def activate(self, name: str, version: str) -> ModelVersion:
        """Raises NotFound, InvalidModelPackage, IllegalTransition."""
        model = self._startable(name, version)
        return model if model.active else self._become(model, active=True)

    def deactivate(self, name: str) -> ModelVersion:
        """Raises IllegalTransition."""
        model = next((one for one in self.models if one.name == name and one.active), None)
        if model is None:
            raise IllegalTransition(f"no version of {name} is active; `dicomnode models list` shows what is")
        return self._become(model, active=False)

    def rollback(self, name: str, changes: Sequence[ModelChange]) -> ModelVersion:
        """Raises IllegalTransition, NotFound."""
        before = active_before(changes)
        if not before:
            raise IllegalTransition(
                f"no version of {name} was active before; `dicomnode models activate {name} VERSION` chooses one"
            )
        model = self._there(name, before)
        _check_accepted(model, model.acceptance)
        return self._become(model, active=True)

    def shadow(self, name: str, version: str) -> ModelVersion:
        """As activate."""
        model = self._startable(name, version)
        if model.active:
            raise IllegalTransition(f"{name} {version} is active; a shadow is another version beside it")
        return self._become(model, shadow=True)

    def unshadow(self, name: str) -> ModelVersion:
        """Raises IllegalTransition."""
        model = next((one for one in self.models if one.name == name and one.shadow), None)
        if model is None:
            raise IllegalTransition(f"no version of {name} is a shadow; `dicomnode models list` shows what is")
        return self._become(model, shadow=False)

    # ----------------------------------------------------------------------------------------------------- parts

    def _one(self, name: str, version: str) -> ModelVersion | None:
        return next((one for one in self.models if (one.name, one.version) == (name, version)), None)

    def _there(self, name: str, version: str) -> ModelVersion:
        model = self._one(name, version)
        if model is None:
            raise NotFound(f"there is no model {name} {version} (dicomnode models list)")
        return model

    def _startable(self, name: str, version: str) -> ModelVersion:
        model = self._there(name, version)
        self._check_what_it_needs(model)
        _check_accepted(model, model.acceptance_on(self.host))
        _check_accepted(model, model.acceptance)
        return model

    def _check_what_it_needs(self, model: ModelVersion) -> None:
        for path, words in faults(model, self.models) if model.card.after else ():
            raise InvalidModelPackage(words, f"model.yaml.{path}")

    def _become(self, model: ModelVersion, *, active: bool | None = None, shadow: bool | None = None) -> ModelVersion:
        """Of each name one at most is active, and one a shadow."""

        def changed(one: ModelVersion) -> ModelVersion:
            its = one.version == model.version
            if active is not None:
                one = replace(one, active=active and its, shadow=one.shadow and not (active and its))
            return one if shadow is None else replace(one, shadow=shadow and its)

        then = _of_name(self.models, model.name, changed)
        if words := newly_broken(self.models, then):
            raise IllegalTransition(f"{words}; nothing was changed")
        self.models = then
        return self._there(model.name, model.version)


def _of_name(
    models: Sequence[ModelVersion], name: str, change: Callable[[ModelVersion], ModelVersion]
) -> list[ModelVersion]:
    return [change(one) if one.name == name else one for one in models]


def _check_accepted(model: ModelVersion, acceptance: Acceptance | None) -> None:
    called = f"{model.name} {model.version}"
    if model.path == Path():
        raise IllegalTransition(f"the files of {called} were removed; dicomnode models add its package again")
    if acceptance is not None and not acceptance.allows_activation:
        raise IllegalTransition(f"{called} is {acceptance.words}")


def _added(made: ModelVersion, there: ModelVersion | None, cases: int, *, active: bool) -> str:
    called, tried = f"{made.name} {made.version}", f"its {quantity(cases, 'golden case')}"
    if there is not None:
        return f"{called} is there already, {there.state}{f'; {tried} would be run again' if cases else ''}"
    becomes = f"{called} would be {'active' if active else 'registered'}"
    if not cases:
        return f"{becomes}; it has no golden cases, so nobody would have checked what it gives on this machine"
    return (
        f"{becomes}, once {tried} {'passes' if cases == 1 else 'pass'} here"
        if active
        else f"{becomes}, and {tried} run"
    )
