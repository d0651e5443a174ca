"""Lets jobs begin: so many at once, the urgent ones first, and each when there is memory for it.

Whoever is first in line is waited for: nobody who came later, and is no more urgent, begins before it, so that a
large job is not overtaken by small ones for ever. One job alone is always tried if it could fit at all.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from dicomnode.domain.admission import (
    NOTHING,
    WITHOUT_END,
    Decision,
    Extent,
    Needs,
    Room,
    Verdict,
    decide,
    in_turn,
    learned,
    needs_of,
)
from dicomnode.domain.job import Priority
from dicomnode.domain.model_after import Crop
from dicomnode.ports import Admitted, JobFailed, JobFinished, JobOutcome, JobWork, Machine, ModelVersion

LOOK_EVERY_S = 1.0
"""How often who waits looks whether there is room: nobody says so when another program ends."""

Sizes = Callable[[JobWork], tuple[Extent, ...]]


@dataclass(eq=False, slots=True)
class _Waiting:
    """A job in line; `order`: of two the smaller goes first, the more urgent or else the older one."""

    order: tuple[int, datetime, int]
    needs: Needs

    @property
    def is_urgent(self) -> bool:
        return self.order[0] == Priority.STAT.rank


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a model's process took beside the volumes, of a main series of so many voxels."""

    memory: Mapping[str, float]  # as ports.InferenceEngine.taken has it
    voxels: int


@dataclass
class InTurn:
    """ports.Admission: at most `at_once` jobs, and beside them one that is STAT.

    `sizes` says how large a job's series are, `taken` what a model's last run took; without a machine memory is not
    looked at.
    """

    at_once: int
    machine: Machine | None = None
    sizes: Sizes = lambda work: ()
    windows_at_once: int = 1
    taken: Callable[[ModelVersion], Mapping[str, float]] = lambda model: {}
    look_every_s: float = LOOK_EVERY_S
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _line: list[_Waiting] = field(default_factory=list)
    _running: list[_Waiting] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _free_before: Room = WITHOUT_END  # when the first of those that run began
    _took: dict[str, _Taken] = field(default_factory=dict)  # a version's digest → its last run
    _changes: int = 0
    _closed: bool = False

    @contextmanager
    def admitted(self, work: JobWork, hold: Callable[[str], bool]) -> Iterator[Admitted]:
        waiting = _Waiting((work.priority.rank, work.created_at, next(self._numbers)), self._needs(work))
        answer = self._wait(waiting, hold)
        try:
            yield answer
        finally:
            if answer.may_begin:
                with self._changed:
                    self._running.remove(waiting)
                    self._say_so()

    def ended(self, work: JobWork, outcome: JobOutcome) -> None:
        taken = self.taken(work.model) if isinstance(outcome, JobFinished) else {}
        if taken and self.machine is not None and (sizes := self.sizes(work)):
            self._took[work.model.digest] = _Taken(dict(taken), sizes[0].voxels)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._say_so()

    # ------------------------------------------------------------------------------------------------- waiting

    def _wait(self, waiting: _Waiting, hold: Callable[[str], bool]) -> Admitted:
        with self._changed:
            self._line.append(waiting)
            self._line.sort(key=lambda each: each.order)
        try:
            while not self._closed:
                with self._changed:
                    seen, decision = self._changes, self._decision(waiting)
                    if decision.verdict is Verdict.BEGIN:
                        self._begin(waiting)
                        return Admitted(True)
                if decision.verdict is Verdict.NEVER:
                    return Admitted(False, JobFailed("too-large", decision.words, retryable=False))
                if decision.words and not hold(decision.words):
                    break
                self._until_changed(seen)
            return Admitted(False)
        finally:
            with self._changed:
                self._line.remove(waiting)
                self._say_so()

    def _until_changed(self, seen: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, self.look_every_s)

    def _say_so(self) -> None:
        """With the lock held."""
        self._changes += 1
        self._changed.notify_all()

    def _decision(self, waiting: _Waiting) -> Decision:
        """With the lock held."""
        most = self.at_once + 1 if waiting.is_urgent else self.at_once
        if waiting is not self._line[0] or len(self._running) >= most:
            return Decision(Verdict.WAIT)
        if self.machine is None:
            return Decision(Verdict.BEGIN)
        return decide(waiting.needs, self._free(), self.machine.total(), is_alone=not self._running)

    def _begin(self, waiting: _Waiting) -> None:
        """With the lock held."""
        if not self._running and self.machine is not None:
            self._free_before = self.machine.free()
        self._running.append(waiting)

    def _free(self) -> Room:
        """What runs may still take what it was admitted with: it is not free, though nobody has it yet."""
        assert self.machine is not None
        promised = sum((each.needs.likely for each in self._running), NOTHING)
        now = self.machine.free()
        return now.least_of(self._free_before - promised) if self._running else now

    def _needs(self, work: JobWork) -> Needs:
        if self.machine is None or not (sizes := self.sizes(work)):
            return Needs()
        own = self._needs_of(work.model, sizes)
        if any(isinstance(step.use, Crop) for step in work.model.card.after):
            own = Needs(likely=own.likely)  # of a box it may take far less: only what comes first is sure
        return in_turn([own, *(self._needs_of(first, sizes[:1]) for first in work.before.values())])

    def _needs_of(self, model: ModelVersion, sizes: Sequence[Extent]) -> Needs:
        assert self.machine is not None
        estimate = needs_of(model.card, sizes, windows_at_once=self.windows_at_once, on_gpu=self.machine.has_gpu)
        took = self._took.get(model.digest)
        if took is None:
            return estimate
        larger = max(sizes[0].voxels / max(took.voxels, 1), 1.0)
        return learned(estimate, {kind: size * larger for kind, size in took.memory.items()})
