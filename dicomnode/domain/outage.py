"""A destination that is away: one delivery looks whether it is back, the others wait."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from dicomnode.domain.job import DELIVERY_BACKOFF_FIRST_S, DELIVERY_BACKOFF_MOST_S

# What waits looks after it by itself so long after the next probe was due, should that have been forgotten
PARKED_S = 3600.0
# A process that dies while it probes leaves the turn to another after this
_PROBE_LEASE_S = 900.0


@dataclass(frozen=True, slots=True)
class Health:
    """Of a destination; `down_since` is None while it answers."""

    down_since: datetime | None = None
    failures: int = 0  # in a row
    probe_at: datetime | None = None
    words: str = ""


class Turn(StrEnum):
    SEND = "send"
    PROBE = "probe"
    PARK = "park"


def turn(health: Health, now: datetime) -> Turn:
    """What a delivery does whose time has come."""
    if health.down_since is None:
        return Turn.SEND
    return Turn.PROBE if health.probe_at is None or now >= health.probe_at else Turn.PARK


def probing(health: Health, now: datetime) -> Health:
    return replace(health, probe_at=now + timedelta(seconds=_PROBE_LEASE_S))


def after_failure(health: Health, now: datetime, words: str) -> Health:
    """The next probe doubles its distance, from 2 s to 10 minutes."""
    failures = health.failures + 1
    pause_s = min(DELIVERY_BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 30), DELIVERY_BACKOFF_MOST_S)
    return Health(health.down_since or now, failures, now + timedelta(seconds=pause_s), words)


def parked_s(health: Health, now: datetime) -> float:
    """How long a delivery sleeps that may not probe."""
    assert health.probe_at is not None
    return max(0.0, (health.probe_at - now).total_seconds()) + PARKED_S


def lasted(health: Health, now: datetime) -> str:
    """How long it was away, in words: 26 h, 5 min or 8 s."""
    assert health.down_since is not None
    seconds = (now - health.down_since).total_seconds()
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
