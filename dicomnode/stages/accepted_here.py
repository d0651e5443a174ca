"""Served is what gives on this machine and its engine what its golden cases say it must, and nothing else.

A version that was accepted on another machine, or on another engine, is tried here before its first job; what comes
of it is kept beside what came of it elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Event
from zlib import crc32

from dicomnode.domain.acceptance import Acceptance, AcceptanceOutcome, digests_before
from dicomnode.errors import DicomNodeError
from dicomnode.ports import Admission, Admitted, Clock, EngineState, InferenceEngine, JobFailed, JobOutcome, JobWork
from dicomnode.ports import ModelVersion as Model
from dicomnode.stages.preceding import called, models_before
from dicomnode.stages.registry import Accept

log = logging.getLogger(__name__)

NOT_ACCEPTED = "not-accepted"
BEATS_WITHIN_S = 20.0
"""A worker whose last heartbeat is older is not counted on."""

PATIENCE_S, AGAIN_S = 5.0, 2.0
"""For so long after a model began to load its jobs wait for it here; then they leave their place to others."""

_LOOK_S, _LOOK_LATER_S = 0.05, 1.0
_TOLD_AFTER_S = 0.3  # what is loaded in a moment is not worth a word

Alone = Callable[[Model], AbstractContextManager[None]]


def not_alone(model: Model) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class AcceptedHere:
    """`accept` runs golden cases on `engine`; `alone`: of this host's processes one at a time tries a version."""

    state: EngineState
    engine: InferenceEngine
    accept: Accept
    host: str
    clock: Clock
    alone: Alone = not_alone
    closed: Event = field(default_factory=Event)
    _tried: dict[tuple[str, ...], Acceptance] = field(default_factory=dict)
    _coming: dict[str, float] = field(default_factory=dict)  # since when what is being loaded is, by its digest

    def known(self, model: Model, before: Mapping[str, Model]) -> Acceptance | None:
        """What is known of it on this machine and the engine that it runs on now; None: it is to be tried.

        What failed here is tried again by each process that begins: the machine may have been mended meanwhile.
        Raises InferenceError.
        """
        own = model.acceptance_on(self.host)
        if own is None or own.outcome is AcceptanceOutcome.NONE:
            return own
        if own.outcome is AcceptanceOutcome.FAILED:
            return self._tried.get(self._key(model, before))
        same = own.before == _digests(before) and own.ran_on(self.engine.describe(model))
        return own if same else None

    def tried(self, model: Model, before: Mapping[str, Model]) -> Acceptance:
        """As known, and tries it where nothing is; raises InferenceError, InvalidModelPackage."""
        if (known := self.known(model, before)) is not None:
            return known
        with self.alone(model):
            now = self.state.model_version(model.name, model.version) or model
            if (known := self.known(now, before)) is not None:  # another process was first
                return known
            self.engine.describe(model)  # what cannot be loaded now says so, and is not taken for wrong
            log.info("the golden cases of %s are run on this host", called(model))
            acceptance = self.accept(model, before)
            self.state.record_acceptance(model.name, model.version, acceptance)
            self._tried[self._key(model, before)] = acceptance
        if not acceptance.allows_activation:
            log.error("%s is %s; it is not served here", called(model), acceptance.words)
        return acceptance

    def try_one(self, model: Model) -> None:
        """Of those that are to be served; raises InferenceError, InvalidModelPackage."""
        self.tried(model, models_before(model, self.state))

    def begins(self, model: Model) -> None:
        """It is being loaded: its jobs wait."""
        self._coming[model.digest] = self.clock.monotonic()

    def ends(self, model: Model) -> None:
        self._coming.pop(model.digest, None)

    def hangs(self, model: Model, why: str) -> None:
        """It gave no answer for as long as it may: it is not served here until it is tried again."""
        before = models_before(model, self.state)
        acceptance = Acceptance(
            AcceptanceOutcome.FAILED, self.clock.now(), host=self.host, before=_digests(before), why=why
        )
        self._tried[self._key(model, before)] = acceptance
        self.state.record_acceptance(model.name, model.version, acceptance)

    def refuses(self, model: Model) -> str:
        """Why it hung here, until somebody has tried it again; "" of what did not."""
        own = model.acceptance_on(self.host)
        if own is None or not own.why:
            return ""
        mine = self._tried.get(self._key(model, models_before(model, self.state)))
        return mine.why if mine is not None else ""

    def not_come(self, model: Model, hold: Callable[[str], bool]) -> Admitted | None:
        """None once it is loaded, which a job waits for a little, and does not where it takes long already."""
        told_at_s = self.clock.monotonic() + _TOLD_AFTER_S
        while (since_s := self._coming.get(model.digest)) is not None:
            if self.clock.monotonic() >= since_s + PATIENCE_S:
                return Admitted(False, elsewhere=_loads(model, self.host), again_s=AGAIN_S)
            if self.closed.wait(_LOOK_S if self.clock.monotonic() < told_at_s else _LOOK_LATER_S):
                return Admitted(False)
            if self.clock.monotonic() >= told_at_s and not hold(_loads(model, self.host)):
                return Admitted(False)
        return None

    def _key(self, model: Model, before: Mapping[str, Model]) -> tuple[str, ...]:
        return (model.digest, model.chosen_engine, model.chosen_precision, *_digests(before))

    def elsewhere(self, refused: Sequence[Model]) -> list[str]:
        """Machines whose workers live, and of which it is not known that they do not serve one of these."""
        pulses = [pulse for pulse in self.state.executors() if pulse.age_s <= BEATS_WITHIN_S]
        machines = {pulse.executor.machine for pulse in pulses} - {self.host}
        failed = {one.host for model in refused for one in model.acceptances if not one.allows_activation}
        return sorted(machines - failed)


def _digests(before: Mapping[str, Model]) -> tuple[str, ...]:
    return digests_before(first.digest for first in before.values())


@dataclass
class OnlyAccepted:
    """ports.Admission: lets go on to another one what this machine serves, and only that."""

    here: AcceptedHere
    then: Admission

    @contextmanager
    def admitted(self, work: JobWork, hold: Callable[[str], bool]) -> Iterator[Admitted]:
        answer = self._judged(work, hold)
        if answer is not None:
            yield answer
            return
        with self.then.admitted(work, hold) as admitted:
            yield admitted

    def ended(self, work: JobWork, outcome: JobOutcome) -> None:
        self.then.ended(work, outcome)

    def places(self, *, urgent: bool) -> int:
        return self.then.places(urgent=urgent)

    def close(self) -> None:
        self.here.closed.set()
        self.then.close()

    def _judged(self, work: JobWork, hold: Callable[[str], bool]) -> Admitted | None:
        """None: all that the job runs is served here."""
        refused: dict[Model, Acceptance] = {}
        for model, before in _each(work, self.here.state):
            if (not_come := self.here.not_come(model, hold)) is not None:
                return not_come
            try:
                if self.here.known(model, before) is None and not hold(_waits(model, self.here.host)):
                    return Admitted(False)
                acceptance = self.here.tried(model, before)
            except DicomNodeError as error:
                words = f"the golden cases of {called(model)} could not be run at {self.here.host}: {error}"
                return Admitted(False, JobFailed(error.code, words, error.retryable))
            if not acceptance.allows_activation:
                refused[model] = acceptance
        return self._refused(work.job_id, refused) if refused else None

    def _refused(self, job_id: str, refused: Mapping[Model, Acceptance]) -> Admitted:
        words = "; ".join(f"{called(model)} is {acceptance.words}" for model, acceptance in refused.items())
        if others := self.here.elsewhere(list(refused)):
            machine = others[crc32(job_id.encode()) % len(others)]
            return Admitted(False, elsewhere=f"waits for {machine}: {words}", machine=machine)
        remedy = "mend the machine and start its worker again, or activate another version, and retry the job"
        return Admitted(False, JobFailed(NOT_ACCEPTED, f"{words}, and no other worker serves it: {remedy}", False))


def _waits(model: Model, host: str) -> str:
    return f"waits: the golden cases of {called(model)} are run at {host} first"


def _loads(model: Model, host: str) -> str:
    return f"waits: {called(model)} is being loaded at {host}"


def _each(work: JobWork, state: EngineState) -> Iterator[tuple[Model, Mapping[str, Model]]]:
    """Every version that the job runs, with those that come before it in turn."""
    for first in work.before.values():
        yield first, models_before(first, state)
    yield work.model, work.before
