"""How work is told that nobody wants it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicomnode.errors import InferenceStopped


class Halt:
    """Said once, by any thread, with the reason. Who does the work asks now and then, or is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said = threading.Event()
        self._calls: dict[object, Callable[[], None]] = {}
        self.why = ""

    @property
    def is_said(self) -> bool:
        return self._said.is_set()

    def say(self, why: str) -> None:
        """Repeats are harmless: the first reason stays."""
        with self._lock:
            if self.is_said:
                return
            self.why = why
            self._said.set()
            calls = list(self._calls.values())
        for call in calls:
            call()

    def check(self) -> None:
        """Raises InferenceStopped once it was said."""
        if self.is_said:
            raise InferenceStopped(self.why)

    def wait(self, timeout_s: float) -> bool:
        """Until it is said, or the time is over; whether it was said."""
        return self._said.wait(timeout_s)

    @contextmanager
    def calling(self, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called when it is said inside the block, or was before: by the thread that says it, so briefly."""
        key = object()
        with self._lock:
            self._calls[key] = end
            said = self.is_said
        if said:
            end()
        try:
            yield
        finally:
            with self._lock:
                self._calls.pop(key, None)
