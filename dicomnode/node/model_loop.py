"""What a worker keeps loaded, and what it says of the models that do not come up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from dicomnode.errors import DatabaseAway, DicomNodeError, InferenceTimeout, ModelHangs
from dicomnode.ports import EngineState, InferenceEngine, ModelVersion
from dicomnode.stages.preceding import called

log = logging.getLogger(__name__)

POLL_S = 0.5
TIDY_S = 5.0  # what was in use when it was to be unloaded, or what a command left loaded, is looked at again
FAILED_S = 30.0  # what could not be loaded is tried again
PATIENCE_S = 45.0  # that others wait for a model: then the next is begun, and the worker is ready without it
_LOOK_S = 0.05

Key = tuple[str, ...]
Say = Callable[[Mapping[str, str]], None]


class Trial(Protocol):
    """stages.accepted_here.AcceptedHere."""

    def begins(self, model: ModelVersion) -> None:
        """Jobs of the version wait until `ends`."""

    def ends(self, model: ModelVersion) -> None:
        """However that came out."""

    def try_one(self, model: ModelVersion) -> None:
        """Runs the golden cases of a version that was not accepted on this machine; raises InferenceError."""

    def hangs(self, model: ModelVersion, why: str) -> None:
        """It is not served by this process."""

    def refuses(self, model: ModelVersion) -> str:
        """Why it does not come up in this process, as `hangs` was told; "" when nothing is known against it."""


class ModelLoop:
    """Keeps loaded and warm what may be asked for: active versions, shadows, and those that jobs still wait for.

    A version that is active from now on is loaded beside the one before it, which is unloaded once its last job is
    done and no call of it runs. `trial` runs the golden cases of what was not accepted on this machine. Each version
    is brought up in a thread of its own, one after the other: who takes longer than `patience_s` goes on beside the
    others, and one that hangs is not tried again by this process. `say` is told what does not come up, and why.
    """

    def __init__(
        self,
        state: EngineState,
        engine: InferenceEngine,
        trial: Trial | None = None,
        say: Say = lambda troubles: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._state, self._engine, self._trial, self._say, self._clock = state, engine, trial, say, clock
        self._patience_s, self._stop = patience_s, threading.Event()
        self._prepared: frozenset[Key] | None = None
        self._again_at_s = 0.0
        self._coming: dict[Key, _Coming] = {}
        self._up: set[Key] = set()
        self.troubles: Mapping[str, str] = {}  # by name and version

    def prepare(self) -> None:
        used = self._state.models_in_use()
        versions = frozenset(map(_key, used))
        if versions == self._prepared and self._clock() < self._again_at_s and not self._has_news():
            return
        is_news, self._prepared = versions != self._prepared, versions
        troubles = self._bring_up(used)
        ready = [model for model in used if _key(model) in self._up]
        troubles |= self._keep(ready)
        if is_news and not troubles:
            log.info("ready to run: %s", ", ".join(map(called, used)) or "no model")
        self._tell(troubles)
        self._again_at_s = self._clock() + (FAILED_S if troubles else TIDY_S)

    def run(self, stop: threading.Event) -> None:
        self._stop = stop
        while not stop.wait(POLL_S):
            self.prepare()

    def _has_news(self) -> bool:
        return any(coming.done.is_set() for coming in self._coming.values())

    def _bring_up(self, used: Sequence[ModelVersion]) -> dict[str, str]:
        """Those that are not up yet; what became of each that did not come."""
        wanted = set(map(_key, used))
        self._up &= wanted
        self._coming = {key: coming for key, coming in self._coming.items() if key in wanted}
        troubles = {}
        for model in used:
            key = _key(model)
            if key in self._up:
                continue
            if why := self._brought_up(model, key):
                troubles[called(model)] = why
            else:
                self._up.add(key)
        return troubles

    def _brought_up(self, model: ModelVersion, key: Key) -> str:
        """Why it is not up, in words."""
        if self._trial is not None and (why := self._trial.refuses(model)):
            return why
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = _Coming(model, self._engine, self._trial)
        if not coming.waited_for(self._patience_s, self._stop):
            return f"it is being loaded, since {coming.at:%H:%M:%S} UTC"
        del self._coming[key]
        return coming.why

    def _keep(self, ready: Sequence[ModelVersion]) -> dict[str, str]:
        """What the server lost is loaded again; what nobody needs is unloaded."""
        try:
            self._engine.prepare(ready)
        except DicomNodeError as error:
            log.warning("models are not ready: %s", error)
            self._up.clear()  # each is asked for itself the next time
            return {"the models": str(error)}
        return {}

    def _tell(self, troubles: Mapping[str, str]) -> None:
        if troubles != self.troubles:
            for name, why in troubles.items():
                log.warning("%s is not served by this process: %s", name, why)
            self.troubles = troubles
            self._say(troubles)


class _Coming:
    """A version that is being loaded and tried, in a thread that nobody has to wait for."""

    def __init__(self, model: ModelVersion, engine: InferenceEngine, trial: Trial | None) -> None:
        self._model, self._engine, self._trial = model, engine, trial
        self._since_s, self.at = time.monotonic(), datetime.now(UTC)
        self.done, self.why = threading.Event(), ""
        if trial is not None:
            trial.begins(model)
        threading.Thread(target=self._run, name="load", daemon=True).start()

    def waited_for(self, patience_s: float, stop: threading.Event) -> bool:
        """Whether it has ended."""
        while not self.done.wait(_LOOK_S):
            if stop.is_set() or time.monotonic() > self._since_s + patience_s:
                return False
        return True

    def _run(self) -> None:
        try:
            self.why = self._brought_up()
        finally:
            if self._trial is not None:
                self._trial.ends(self._model)
            self.done.set()

    def _brought_up(self) -> str:
        try:
            self._engine.load(self._model)
            if self._trial is not None:
                self._trial.try_one(self._model)
        except (ModelHangs, InferenceTimeout) as error:
            if self._trial is not None:
                self._hangs(self._trial, str(error))
            return str(error)
        except DicomNodeError as error:
            log.warning("%s is not ready: %s", called(self._model), error)
            return str(error)
        return ""

    def _hangs(self, trial: Trial, why: str) -> None:
        try:
            trial.hangs(self._model, why)
        except DatabaseAway as error:
            log.warning("that %s hangs could not be recorded: %s", called(self._model), error)


def _key(model: ModelVersion) -> Key:
    return (model.name, model.digest, model.chosen_engine, model.chosen_precision)
