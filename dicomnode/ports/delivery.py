"""Who sends results."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dicomnode.domain.destination import Destination
from dicomnode.domain.result import StoredResult


class ResultSink(Protocol):
    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        """Sends one object; the peer's answer in words. Raises DestinationUnavailable, DestinationRefused."""

    def echo(self, destination: Destination) -> str:
        """C-ECHO, or a QIDO-RS request; the answer in words. Raises as `send` does."""
