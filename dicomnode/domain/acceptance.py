"""What came of running a model's golden cases here: the document that is kept beside the version.

outcome: passed                # passed, failed; none: the package has no golden cases
engine: OpenVINO 2026.4        # as the engine describes itself
precision: f32
device: CPU
server: triton 2.51.0          # or in-process
host: ai-node-1                # where it was run, by its host name; it says nothing of another machine
cpu: AMD EPYC 7B13
why: "it hangs"                # of what failed without giving any answer
before: [3f2a9c01d4e5]         # of a composed model: digests of the versions that ran before it, as they begin
at: 2026-03-01T12:00:00+00:00
seconds: 3.2
cases:
  - {name: trunk, passed: true, figures: {"Dice Lungs": 1.0}, words: "..."}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class AcceptanceOutcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NONE = "none"  # there is nothing to run


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """One golden case: the figures by which it was judged, and what they mean in words."""

    name: str
    passed: bool
    figures: tuple[tuple[str, float], ...] = ()  # ("Dice Lungs", 0.9995), ("largest difference", 1e-6)
    words: str = ""

    @property
    def shown_figures(self) -> str:
        return ", ".join(f"{name} {value:.6g}" for name, value in self.figures)


@dataclass(frozen=True, slots=True)
class Acceptance:
    outcome: AcceptanceOutcome
    at: datetime
    cases: tuple[CaseOutcome, ...] = ()
    engine: str = ""
    precision: str = ""
    device: str = ""
    server: str = ""
    seconds: float = 0.0
    host: str = ""  # "": of before this was kept
    cpu: str = ""
    before: tuple[str, ...] = ()  # as digests_before gives them
    why: str = ""  # of what failed without giving any answer

    def counts_on(self, host: str) -> bool:
        """Whether it says what the version gives on that machine; of what has no cases there is nothing to say."""
        return self.outcome is AcceptanceOutcome.NONE or self.host == host

    def ran_on(self, described: Mapping[str, str]) -> bool:
        """Whether that was the engine that now runs it; `described` as ports.InferenceEngine.describe gives it."""
        now = tuple(described.get(key, "") for key in ("engine", "precision", "device"))
        return (self.engine, self.precision, self.device) == now

    @property
    def machine(self) -> str:
        """In words; "" when nobody noted it."""
        return f"{self.host} ({self.cpu})" if self.host and self.cpu else self.host

    @property
    def allows_activation(self) -> bool:
        return self.outcome is not AcceptanceOutcome.FAILED

    @property
    def where(self) -> str:
        """The engine in words; "" of what could not be loaded or has nothing to run."""
        return f"{self.engine} {self.precision}, {self.device}" if self.engine else ""

    @property
    def words(self) -> str:
        """What is to be said of it, in one line."""
        if self.outcome is AcceptanceOutcome.NONE:
            return "the package has no golden cases: nobody has checked what this version gives on this machine"
        place = f", at {self.machine}" if self.machine else ""
        where = f"on {self.where}{place}" if self.engine else f"here{place}"
        if self.outcome is AcceptanceOutcome.PASSED:
            count = len(self.cases)
            return f"accepted: {count} golden case{'s' if count != 1 else ''} passed {where}"
        if self.why:
            return f"not accepted {where}: {self.why}"
        failed = [case for case in self.cases if not case.passed]
        return f"not accepted {where}: " + "; ".join(f"case {case.name}: {case.words}" for case in failed)


_DIGITS = 12


def digests_before(digests: Iterable[str]) -> tuple[str, ...]:
    """Of the versions that come before a composed model, as an acceptance names them."""
    return tuple(sorted(digest[:_DIGITS] for digest in digests))


def decisive(acceptances: Sequence[Acceptance]) -> Acceptance | None:
    """Of one version, the newest last: what decides whether it may run anywhere. None: it was never tried.

    Accepted on one machine it may run there; where it is not accepted it is not served.
    """
    allowing = [one for one in acceptances if one.allows_activation]
    return next(reversed(allowing or list(acceptances)), None)


def acceptance_document(acceptance: Acceptance) -> dict[str, Any]:
    """As parse_acceptance reads it; JSON-able."""
    return {
        "outcome": str(acceptance.outcome),
        "engine": acceptance.engine,
        "precision": acceptance.precision,
        "device": acceptance.device,
        "server": acceptance.server,
        "at": acceptance.at.isoformat(),
        "seconds": acceptance.seconds,
        "host": acceptance.host,
        "cpu": acceptance.cpu,
        "before": list(acceptance.before),
        "why": acceptance.why,
        "cases": [
            {"name": case.name, "passed": case.passed, "figures": dict(case.figures), "words": case.words}
            for case in acceptance.cases
        ],
    }


def parse_acceptance(document: Mapping[str, Any]) -> Acceptance:
    """Of a document that this module wrote."""
    return Acceptance(
        outcome=AcceptanceOutcome(document["outcome"]),
        at=datetime.fromisoformat(document["at"]),
        cases=tuple(
            CaseOutcome(case["name"], case["passed"], tuple(sorted(case["figures"].items())), case["words"])
            for case in document["cases"]
        ),
        engine=document["engine"],
        precision=document["precision"],
        device=document["device"],
        server=document["server"],
        seconds=document["seconds"],
        host=document.get("host", ""),
        cpu=document.get("cpu", ""),
        before=tuple(document.get("before", ())),
        why=document.get("why", ""),
    )
