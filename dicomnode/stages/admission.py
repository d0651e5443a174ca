"""Lets jobs begin: so many at once, the urgent ones first, and each when there is memory for it.

Whoever is first in line is waited for: nobody who came later, and is no more urgent, begins before it, so that a
large job is not overtaken by small ones for ever. For places each worker has a line of its own; whoever has a place
stands in the line of its host for memory. One job alone is always tried if it could fit at all. Who has no place in
its worker is left to others, which may have one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from dicomnode.domain.admission import (
    NOTHING,
    WITHOUT_END,
    Decision,
    Extent,
    Needs,
    Places,
    Room,
    Verdict,
    decide,
    in_turn,
    learned,
    needs_of,
)
from dicomnode.domain.job import Priority
from dicomnode.domain.model_after import Crop
from dicomnode.domain.turns import Turn, turn_of
from dicomnode.ports import (
    Admitted,
    JobFailed,
    JobFinished,
    JobOutcome,
    JobWork,
    Ledger,
    Machine,
    ModelVersion,
    Peaks,
)
from dicomnode.stages.peaks import OwnPeaks

LOOK_EVERY_S = 1.0
"""How often who waits looks whether there is room: nobody says so when another program ends."""
GLANCE_EVERY_S = 0.05
"""How often the first of a worker looks at what the others of its host have: some files, a tenth of a millisecond."""
_AFTER_OTHERS = "waits for memory: a job that goes before it waits for some too"

Sizes = Callable[[JobWork], tuple[Extent, ...]]


@dataclass(eq=False, slots=True)
class _Waiting:
    """A job in line. `release` gives its memory back, `leave` its place in the host's line, None: it has none."""

    turn: Turn
    needs: Needs
    has_to_wait: bool = False  # False: that is not known yet, or it begins
    release: Callable[[], None] = lambda: None
    leave: Callable[[], None] | None = None

    @property
    def is_urgent(self) -> bool:
        return self.turn[0] == Priority.STAT.rank

    def leave_line(self) -> None:
        if self.leave is not None:
            self.leave()
            self.leave = None


@dataclass
class OwnLedger:
    """ports.Ledger of one process, whose lock keeps others out."""

    _promises: list[Room] = field(default_factory=list)
    _free_before: Room = WITHOUT_END
    _line: list[Turn] = field(default_factory=list)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def promised(self) -> list[Room]:
        return list(self._promises)

    def free_before(self) -> Room:
        return self._free_before

    def add(self, room: Room, free: Room) -> Callable[[], None]:
        if not self._promises:
            self._free_before = free
        self._promises.append(room)
        return lambda: self._promises.remove(room)

    def stand(self, turn: Turn) -> Callable[[], None]:
        self._line.append(turn)
        return lambda: self._line.remove(turn)

    def first(self) -> Turn | None:
        return min(self._line, default=None)

    def glance(self) -> object:
        return len(self._promises), tuple(self._line)


@dataclass
class InTurn:
    """ports.Admission: at most `at_once` jobs, and beside them one that is STAT.

    `sizes` says how large a job's series are, `taken` what a model's last run took, `peaks` keeps that; `ledger`: of
    what was promised to all that run here. Without a machine memory is not looked at.
    """

    at_once: int
    machine: Machine | None = None
    sizes: Sizes = lambda work: ()
    windows_at_once: int = 1
    taken: Callable[[ModelVersion], Mapping[str, float]] = lambda model: {}
    peaks: Peaks = field(default_factory=OwnPeaks)
    ledger: Ledger = field(default_factory=OwnLedger)
    look_every_s: float = LOOK_EVERY_S
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _line: list[_Waiting] = field(default_factory=list)
    _running: list[_Waiting] = field(default_factory=list)
    _changes: int = 0
    _closed: bool = False

    @contextmanager
    def admitted(self, work: JobWork, hold: Callable[[str], bool]) -> Iterator[Admitted]:
        waiting = _Waiting(turn_of(work.priority, work.created_at, work.job_id), self._needs(work))
        answer = self._wait(waiting, hold)
        try:
            yield answer
        finally:
            if answer.may_begin:
                with self._changed:
                    waiting.release()
                    self._running.remove(waiting)
                    self._say_so()

    def ended(self, work: JobWork, outcome: JobOutcome) -> None:
        if not isinstance(outcome, JobFinished) or self.machine is None or not (sizes := self.sizes(work)):
            return
        for model in (work.model, *work.before.values()):
            if taken := self.taken(model):
                self.peaks.learn(model, taken, sizes[0].voxels)

    def places(self, *, urgent: bool) -> int:
        with self._changed:
            return self._places([one for one in self._line if one.is_urgent or not urgent]).left(urgent=urgent)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._say_so()

    # ------------------------------------------------------------------------------------------------- waiting

    def _wait(self, waiting: _Waiting, hold: Callable[[str], bool]) -> Admitted:
        with self._changed:
            self._line.append(waiting)
            self._line.sort(key=lambda each: each.turn)
        try:
            while not self._closed:
                before = self.ledger.glance()
                decision, seen = self._look(waiting)
                if decision.verdict is not Verdict.WAIT:
                    return _answer(decision)
                if decision.words and not hold(decision.words):
                    break
                self._until_changed(seen, before if waiting.leave else None)
            return Admitted(False)
        finally:
            with self._changed:
                waiting.leave_line()
                if waiting in self._line:
                    self._line.remove(waiting)
                self._say_so()

    def _look(self, waiting: _Waiting) -> tuple[Decision, int]:
        """What becomes of it as things stand, and after how many changes that is."""
        with self._changed:
            decision = self._decision(waiting)
            if decision.verdict is Verdict.BEGIN:
                self._line.remove(waiting)
                self._running.append(waiting)
            elif decision.words and not waiting.has_to_wait:
                waiting.has_to_wait = True
                self._say_so()  # to those behind it, who wait for it from now on
            return decision, self._changes

    def _until_changed(self, seen: int, before: object) -> None:
        """Or until something went on in another worker of this host, where `before` is how it stood there."""
        end = time.monotonic() + self.look_every_s
        while (left_s := end - time.monotonic()) > 0:
            with self._changed:
                if self._changed.wait_for(lambda: self._changes != seen, min(left_s, GLANCE_EVERY_S)):
                    return
            if before is not None and self.ledger.glance() != before:
                return

    def _say_so(self) -> None:
        """With the lock held."""
        self._changes += 1
        self._changed.notify_all()

    def _decision(self, waiting: _Waiting) -> Decision:
        """With the lock held."""
        before = self._line[: self._line.index(waiting)]
        if not (places := self._places(before)).left(urgent=waiting.is_urgent):
            waiting.leave_line()  # who cannot begin whatever is free keeps no other worker's job waiting
            return Decision(Verdict.ELSEWHERE, places.words(urgent=waiting.is_urgent))
        if before:
            waiting.leave_line()
            return Decision(Verdict.WAIT, _AFTER_OTHERS if before[0].has_to_wait else "")
        if self.machine is None:
            return Decision(Verdict.BEGIN)
        with self.ledger.alone():
            waiting.leave = waiting.leave or self.ledger.stand(waiting.turn)
            if self.ledger.first() != waiting.turn:
                return Decision(Verdict.WAIT, _AFTER_OTHERS)
            return self._judged(waiting, self.machine)

    def _places(self, before: Sequence[_Waiting]) -> Places:
        """With the lock held; those that wait before it have theirs, too."""
        urgent = [one.is_urgent for one in (*self._running, *before)]
        return Places(self.at_once, sum(urgent), len(urgent) - sum(urgent))

    def _judged(self, waiting: _Waiting, machine: Machine) -> Decision:
        """What runs may still take what it was admitted with: it is not free, though nobody has it yet."""
        promised, free = self.ledger.promised(), machine.free()
        left = free.least_of(self.ledger.free_before() - sum(promised, NOTHING)) if promised else free
        decision = decide(waiting.needs, left, machine.total(), is_alone=not promised)
        if decision.verdict is Verdict.BEGIN:
            waiting.release = self.ledger.add(waiting.needs.likely, free)
            waiting.leave_line()
        return decision

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
        peak = self.peaks.of(model)
        if peak is None:
            return estimate
        memory, voxels = peak
        larger = max(sizes[0].voxels / max(voxels, 1), 1.0)
        return learned(estimate, {kind: size * larger for kind, size in memory.items()})


def _answer(decision: Decision) -> Admitted:
    match decision.verdict:
        case Verdict.NEVER:
            return Admitted(False, JobFailed("too-large", decision.words, retryable=False))
        case Verdict.ELSEWHERE:
            return Admitted(False, elsewhere=decision.words)
        case _:
            return Admitted(True)
