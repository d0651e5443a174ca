"""Whose turn it is: jobs stand in one line, the more urgent first and of the same urgency the older, on every host.

A model's limit lets so many of its jobs run at once. A place that is free belongs to who is first in line for it,
whichever worker asks; a job that another limit keeps back as well leaves it to those behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dicomnode.domain.job import Priority

Turn = tuple[int, float, str]
"""Where a job stands: of two the smaller goes first. Its priority's rank, when it was made (s since 1970), its id."""


def turn_of(priority: Priority, created_at: datetime, job_id: str) -> Turn:
    return priority.rank, created_at.timestamp(), job_id


@dataclass(frozen=True, slots=True)
class InLine:
    """A job and the models it runs that have a limit: name → how many jobs may run that at once."""

    job_id: str
    asks: Mapping[str, int]


def whose_turn(line: Iterable[InLine], running: Mapping[str, int]) -> list[str]:
    """Of those in line the jobs that may begin, all of them together; `running`: jobs of each model."""
    return _places(line, running)[0]


def held_back(job: InLine, ahead: Iterable[InLine], running: Mapping[str, int], own: str) -> str:
    """Why it may not begin now, in words; "" when it may. `ahead`: who stands before it; `own`: its own model."""
    taken = _places(ahead, running)[1]
    for name, most in job.asks.items():
        if taken[name] >= most:
            first = "" if name == own else ", which comes first,"
            words = f"waits: of the model {name}{first} {most} may run at once, and {taken[name]} do"
            return words if running.get(name, 0) >= most else f"{words} or come first"
    return ""


def _places(line: Iterable[InLine], running: Mapping[str, int]) -> tuple[list[str], Counter[str]]:
    """Who in line gets a place, and how many of each model then have one."""
    begin, taken = [], Counter(running)
    for job in line:
        if all(taken[name] < most for name, most in job.asks.items()):
            taken.update(job.asks.keys())
            begin.append(job.job_id)
    return begin, taken
