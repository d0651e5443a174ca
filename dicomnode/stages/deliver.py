"""One attempt to bring one result to one destination."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.destination import Destination
from dicomnode.domain.result import REPORT, StoredResult
from dicomnode.errors import DeliveryError
from dicomnode.ports import (
    Delivered,
    DeliveryOutcome,
    DeliveryWork,
    InstanceStore,
    NotDelivered,
    NotYet,
    ResultSink,
)

TURN_POLL_S, TURN_POLLS, TURN_AGAIN_S = 0.2, 25, 2.0
REPORT_WAITS_S = 2.0
"""For the images of its job; what takes longer goes beside them."""


class DestinationSink:
    """A `ResultSink` for every destination: the sink of its kind ("dimse" or "stow")."""

    def __init__(self, sinks: Mapping[str, ResultSink]) -> None:
        self._sinks = sinks

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        return self._sinks[destination.kind].send(destination, file, result)

    def echo(self, destination: Destination) -> str:
        return self._sinks[destination.kind].echo(destination)


class Turns(Protocol):
    """Who may use a destination's associations now; ports.State knows it."""

    def may_send(self, delivery_id: str) -> bool: ...


class DeliverStage:
    """Repeats are harmless: a result keeps its SOP Instance UID. When to try again is the engine's decision."""

    def __init__(
        self,
        sink: ResultSink,
        store: InstanceStore,
        turns: Turns | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Without `turns` a destination's limit on associations is not looked at."""
        self._sink, self._store, self._turns, self._sleep = sink, store, turns, sleep
        self._images_first = _ImagesFirst()

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        """Raises nothing that a destination or a disk can cause."""
        file = self._store.path(work.result.path)
        if damage := what_is_wrong(file, work.result):
            return NotDelivered(damage, retryable=False, failure=FailureKind.FILE)
        if not self._has_turn(work):
            return NotYet(TURN_AGAIN_S)
        try:
            with self._images_first.in_order(work):
                return Delivered(self._sink.send(work.destination, file, work.result))
        except DeliveryError as error:
            return NotDelivered(str(error), error.retryable, error.failure)

    def _has_turn(self, work: DeliveryWork) -> bool:
        """Waits for it, but not so long that a worker could not be stopped."""
        if self._turns is None or not work.destination.options.associations:
            return True
        for _ in range(TURN_POLLS):
            if self._turns.may_send(work.delivery_id):
                return True
            self._sleep(TURN_POLL_S)
        return False


class _ImagesFirst:
    """Of one job, what is drawn over the images goes before the report about it, which is begun at the same time.

    Sent at once they hinder each other: the SEG, which a radiologist waits for, would be there after the report.
    """

    def __init__(self) -> None:
        self._on_their_way: Counter[tuple[str, str]] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def in_order(self, work: DeliveryWork) -> Iterator[None]:
        key = (work.job_id, work.destination.name)
        if work.result.kind == REPORT:
            with self._changed:
                self._changed.wait_for(lambda: not self._on_their_way[key], REPORT_WAITS_S)
            yield
            return
        self._count(key, 1)
        try:
            yield
        finally:
            self._count(key, -1)

    def _count(self, key: tuple[str, str], more: int) -> None:
        with self._changed:
            self._on_their_way[key] += more
            if not self._on_their_way[key]:
                del self._on_their_way[key]
            self._changed.notify_all()


def what_is_wrong(file: Path, result: StoredResult) -> str:
    """Why the stored file must not be sent; empty when it may."""
    again = "run the job again: dicomnode jobs retry"
    try:
        size_bytes = file.stat().st_size
    except FileNotFoundError:
        return f"{result.path} is missing from the instance store; {again}"
    except OSError as error:
        return f"{result.path} cannot be read: {error.strerror}"
    if size_bytes != result.size_bytes:
        return f"{result.path} is damaged: {size_bytes} of {result.size_bytes} bytes; {again}"
    return ""
