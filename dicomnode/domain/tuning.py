"""What came of trying a model on every engine of this machine, and which it runs on from then on.

chosen: {engine: openvino, precision: bf16}
machine: AMD EPYC, 2 threads
at: 2026-03-01T12:00:00+00:00
runs: 5
candidates:
  - {engine: torchscript, precision: fp32, ran: TorchScript 2.13.0 f32, seconds: 4.1, network_s: 3.9, dice: 1.0,
     right: true, words: "what the others are compared with"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dicomnode.domain.engines import Candidate

DICE, LARGEST_DIFFERENCE = "Dice", "largest difference"
# A candidate must be so much faster than the one before it in the table: less is noise, and the plainer one wins.
_WORTH_IT = 0.95


@dataclass(frozen=True, slots=True)
class Tried:
    """One engine with one precision; figures are 0 where it did not run."""

    engine: str
    precision: str
    right: bool
    words: str
    ran: str = ""  # engine, release and precision as they really were
    seconds: float = 0.0  # a whole inference, the median
    network_s: float = 0.0  # of which the network
    dice: float | None = None  # the least of all segments and volumes, against the reference; of masks
    difference: float | None = None  # the largest of a probability, against the reference; of classes

    @property
    def figure(self) -> tuple[str, str]:
        """What it was judged by, named, and its value; "" where it did not run."""
        if self.difference is not None:
            return LARGEST_DIFFERENCE, f"{self.difference:.4f}"
        return DICE, "" if self.dice is None else f"{self.dice:.4f}"

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.engine, self.precision)


@dataclass(frozen=True, slots=True)
class Tuning:
    candidates: tuple[Tried, ...]  # the reference first
    machine: str
    at: datetime
    runs: int

    @property
    def chosen(self) -> Tried:
        return choose(self.candidates)


def choose(tried: Sequence[Tried]) -> Tried:
    """The fastest of those that are right; one that is hardly faster than a plainer one is not worth it."""
    right = [one for one in tried if one.right]
    best = right[0]
    for one in right[1:]:
        if one.seconds < _WORTH_IT * best.seconds:
            best = one
    return best


def chosen_document(candidate: Candidate) -> dict[str, Any]:
    """As far as ModelVersion.tuning is about what runs."""
    return {"chosen": {"engine": candidate.engine, "precision": candidate.precision}}


def tuning_document(tuning: Tuning) -> Mapping[str, Any]:
    """What is kept beside a version, JSON-able."""
    return {
        **chosen_document(tuning.chosen.candidate),
        "machine": tuning.machine,
        "at": tuning.at.isoformat(),
        "runs": tuning.runs,
        "candidates": [asdict(one) for one in tuning.candidates],
    }
