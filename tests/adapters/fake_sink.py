"""A ResultSink for tests: destinations are folders in memory that can be down or refuse."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

from dicomnode.domain.destination import Destination
from dicomnode.domain.result import StoredResult
from dicomnode.errors import DeliveryError, DestinationRefused, DestinationUnavailable


class FakeSink:
    """`received[destination name][SOP Instance UID]` is what arrived; `attempts` counts every call of send."""

    def __init__(self) -> None:
        self.received: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.attempts = 0
        self._down: set[str] = set()
        self._refusing: set[str] = set()
        self._lock = threading.Lock()

    def stop(self, name: str) -> None:
        self._down.add(name)

    def start(self, name: str) -> None:
        self._down.discard(name)

    def refuse(self, name: str) -> None:
        self._refusing.add(name)

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        with self._lock:
            self.attempts += 1
            content = _content(file)
            self._check(destination)
            if destination.name in self._refusing:
                raise DestinationRefused(f"{destination.shown} answered 0xA900 data set does not match SOP class")
            self.received[destination.name][result.sop_instance_uid] = content
        return "stored"

    def echo(self, destination: Destination) -> str:
        self._check(destination)
        return f"{destination.shown} answered"

    def _check(self, destination: Destination) -> None:
        if destination.name in self._down:
            raise DestinationUnavailable(f"{destination.shown}: connection refused: nothing listens there")


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DeliveryError(f"the result's file cannot be read: {error}") from error
    if content[128:132] != b"DICM":
        raise DeliveryError("the result's file is no DICOM file")
    return content
