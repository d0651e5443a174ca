"""Answers that several jobs ask for: made once, by the first who asks, and no longer than somebody waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dicomnode.domain.halt import Halt
from dicomnode.errors import InferenceTimeout

T = TypeVar("T")


@dataclass(eq=False)
class _Making(Generic[T]):
    """`wanted` is said when all who waited have left; who makes it ahead of all askers waits for nothing."""

    wanted: Halt = field(default_factory=Halt)
    over: Halt = field(default_factory=Halt)
    waiting: int = 0
    answer: T | None = None  # still None when it is over: it failed
    since_s: float = math.inf  # when it was there


class Shared(Generic[T]):
    """Answers by key. `for_others` is what others are given than the one who made it.

    Each is kept for `keep_s` seconds of the clock `monotonic`.
    """

    def __init__(
        self,
        for_others: Callable[[T], T],
        keep_s: float = math.inf,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._for_others, self._keep_s, self._monotonic = for_others, keep_s, monotonic
        self._lock = threading.Lock()
        self._making: dict[str, _Making[T]] = {}

    def get(self, key: str, timeout_s: float, halt: Halt | None, make: Callable[[Halt], T]) -> T:
        """The answer, made here unless it is there or on its way; raises what `make` does.

        `make` is given what is said when nobody waits any more. A failure is of the one who made it: those who waited
        for it make their own. Raises InferenceStopped once `halt` is said, InferenceTimeout.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                self._forget_old()
                others = self._making.get(key)
                making = self._making.setdefault(key, _Making())
                making.waiting += halt is not None
            if others is None:
                return self._made(key, making, halt or Halt(), make)
            answer = self._awaited(making, deadline, halt or Halt())
            if answer is not None:
                return self._for_others(answer)

    def _forget_old(self) -> None:
        begin_s = self._monotonic() - self._keep_s
        for key in [key for key, making in self._making.items() if making.since_s <= begin_s]:
            del self._making[key]

    def _made(self, key: str, making: _Making[T], halt: Halt, make: Callable[[Halt], T]) -> T:
        try:
            with halt.calling(lambda: self._leave(making, halt.why)):
                answer = making.answer = make(making.wanted)
            making.since_s = self._monotonic()
            halt.check()
            return answer
        finally:
            if making.answer is None:
                with self._lock:
                    del self._making[key]
            making.over.say("it is over")

    def _awaited(self, making: _Making[T], deadline: float, halt: Halt) -> T | None:
        """None when it failed."""
        woken = threading.Event()
        with making.over.calling(woken.set), halt.calling(woken.set):
            in_time = woken.wait(max(deadline - time.monotonic(), 0.0))
        if not making.over.is_said:
            self._leave(making, halt.why or "nobody waits for it any more")
        halt.check()
        if not in_time:
            raise InferenceTimeout("the model did not answer in time to another job on this series")
        return making.answer

    def _leave(self, making: _Making[T], why: str) -> None:
        with self._lock:
            making.waiting -= 1
            is_last = not making.waiting
        if is_last:
            making.wanted.say(why)
