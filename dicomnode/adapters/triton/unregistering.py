"""Takes regions away from the server, whose memory goes only when no call reads it any more.

A call that was cancelled is still in flight in the server for a moment after its model has stopped. Until then the
server refuses to forget the region (2.51: "it is currently in use"), or forgets it later (newer ones). Memory of a
GPU must not be freed before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_WAIT_S = 2.0
_POLL_S = 0.02

Gone = Callable[[], bool]
"""Tries to take a region away; whether the server has let go of it."""


class Unregistering:
    """Of one client; safe from several threads."""

    def __init__(self, wait_s: float = _WAIT_S) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._held: list[tuple[Gone, Callable[[], None]]] = []

    def take(self, name: str, gone: Gone, then: Callable[[], None]) -> None:
        """`then` is called once it is gone: now, or when another region is taken away later."""
        self._try_again()
        deadline = time.monotonic() + self._wait_s
        while not gone():
            if time.monotonic() > deadline:
                log.warning("Triton still reads %s; its memory is freed later", name)
                with self._lock:
                    self._held.append((gone, then))
                return
            time.sleep(_POLL_S)
        then()

    def _try_again(self) -> None:
        with self._lock:
            held, self._held = self._held, []
        for gone, then in held:
            if gone():
                then()
            else:
                with self._lock:
                    self._held.append((gone, then))
