"""Who sends results, and asks whether they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dicomnode.domain.destination import Destination
from dicomnode.domain.proof import ProofAnswer
from dicomnode.domain.result import StoredResult
from dicomnode.ports.work import ProofWork


class ResultSink(Protocol):
    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        """Sends one object; the peer's answer in words. Raises DestinationUnavailable, DestinationRefused."""

    def echo(self, destination: Destination) -> str:
        """C-ECHO, or a QIDO-RS request; the answer in words. Raises as `send` does."""


class Prover(Protocol):
    def prove(self, work: ProofWork) -> ProofAnswer:
        """Asks a destination whether it keeps objects; what it does not answer now it may answer later.

        Raises ProofUnsupported, DestinationUnavailable, DestinationRefused.
        """
