"""One attempt to bring one result to one destination."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dicomnode.domain.destination import Destination
from dicomnode.domain.result import StoredResult
from dicomnode.errors import DeliveryError
from dicomnode.ports import (
    Delivered,
    DeliveryOutcome,
    DeliveryWork,
    InstanceStore,
    NotDelivered,
    ResultSink,
)


class DestinationSink:
    """A `ResultSink` for every destination: the sink of its kind ("dimse" or "stow")."""

    def __init__(self, sinks: Mapping[str, ResultSink]) -> None:
        self._sinks = sinks

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        return self._sinks[destination.kind].send(destination, file, result)

    def echo(self, destination: Destination) -> str:
        return self._sinks[destination.kind].echo(destination)


class DeliverStage:
    """Repeats are harmless: a result keeps its SOP Instance UID. When to try again is the engine's decision."""

    def __init__(self, sink: ResultSink, store: InstanceStore) -> None:
        self._sink, self._store = sink, store

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        """Raises nothing that a destination or a disk can cause."""
        file = self._store.path(work.result.path)
        if damage := what_is_wrong(file, work.result):
            return NotDelivered(damage, retryable=False)
        try:
            return Delivered(self._sink.send(work.destination, file, work.result))
        except DeliveryError as error:
            return NotDelivered(str(error), error.retryable)


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
