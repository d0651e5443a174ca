"""Rejections: senders that the node turned away, for the log and for the administrator, without flooding either."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dicomnode.stages.index import Story

log = logging.getLogger(__name__)

# A modality that is turned away tries again within seconds, for days perhaps.
AGAIN_AFTER_S = 600.0
# Of a program that tries one AE title after the other no more than this is told, and kept in memory.
KINDS_MOST = 50


@dataclass(frozen=True, slots=True)
class Rejection:
    """An association that was rejected (PS3.8 9.3.4), or one of whose presentation contexts some were (9.3.3.2)."""

    kind: str  # association.rejected or context.rejected, as the event is called
    calling_ae_title: str
    address: str  # the peer's
    words: str  # what was turned away and why, naming the setting


class Rejections:
    """Tells of each kind of rejection at once, and of its repetitions from time to time, with their number."""

    def __init__(self, tell: Callable[[Story], None], monotonic: Callable[[], float]) -> None:
        self._tell, self._monotonic = tell, monotonic
        self._told: dict[Rejection, _Told] = {}
        self._lock = threading.Lock()

    def add(self, rejection: Rejection) -> None:
        with self._lock:
            times = self._times(rejection, self._monotonic())
        if times:
            story = story_of(rejection, times)
            log.warning("%s", story.message)
            self._tell(story)

    def _times(self, rejection: Rejection, now_s: float) -> int:
        """How many are to be told of now; 0 when it is too early to tell of it again."""
        told = self._told.get(rejection)
        if told is None:
            if len(self._told) >= KINDS_MOST:
                self._told = {r: t for r, t in self._told.items() if now_s - t.at_s < AGAIN_AFTER_S}
            if len(self._told) >= KINDS_MOST:
                return 0
            self._told[rejection] = _Told(now_s)
            return 1
        told.untold += 1
        if now_s - told.at_s < AGAIN_AFTER_S:
            return 0
        times, self._told[rejection] = told.untold, _Told(now_s)
        return times


@dataclass(slots=True)
class _Told:
    at_s: float
    untold: int = 0  # since then


def story_of(rejection: Rejection, times: int) -> Story:
    who = f"{_printable(rejection.calling_ae_title) or 'a sender without an AE title'} at {rejection.address}"
    again = f" ({times} times since it was last told)" if times > 1 else ""
    detail = {"calling_ae_title": rejection.calling_ae_title, "address": rejection.address, "times": times}
    return Story(rejection.kind, f"turned away {who}: {_printable(rejection.words)}{again}", detail=detail)


def _printable(text: str) -> str:
    """What a stranger sends must not write lines of its own into the log."""
    return "".join(character if character.isprintable() else "?" for character in text.strip())
