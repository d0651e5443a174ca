"""The states of a job and of a delivery: one table each, and what an event does in each state.

A job is one model on one series. A delivery is one result to one destination.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from dicomnode.errors import IllegalTransition


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"  # results are stored and their deliveries are written
    REFUSED = "refused"  # the series cannot be processed; the reason is named
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    START = "start"
    FINISH = "finish"
    REFUSE = "refuse"
    POSTPONE = "postpone"  # a retryable failure: back to the queue
    FAIL = "fail"
    CANCEL = "cancel"
    LOSE = "lose"  # its process died: back to the queue
    RETRY = "retry"  # the administrator says so


class DeliveryState(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    WAITING = "waiting"  # for the next attempt
    SENT = "sent"  # it answered that it stored the object
    ACCEPTED = "accepted"  # asked afterwards (QIDO-RS), it shows the object
    COMMITTED = "committed"  # it took the responsibility for it (Storage Commitment, PS3.4 J)
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeliveryEvent(StrEnum):
    START = "start"
    DELIVER = "deliver"
    ACCEPT = "accept"
    COMMIT = "commit"
    LOSE = "lose"  # it said stored, and says now that it has it not: sent again
    POSTPONE = "postpone"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

_J, _JE, _D, _DE = JobState, JobEvent, DeliveryState, DeliveryEvent

JOB_TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (_J.QUEUED, _JE.START): _J.RUNNING,
    (_J.QUEUED, _JE.CANCEL): _J.CANCELLED,
    # a process that died while the job ran left it RUNNING: whoever sees that puts it back, or starts it again
    (_J.RUNNING, _JE.LOSE): _J.QUEUED,
    (_J.RUNNING, _JE.START): _J.RUNNING,
    (_J.RUNNING, _JE.FINISH): _J.SUCCEEDED,
    (_J.RUNNING, _JE.REFUSE): _J.REFUSED,
    (_J.RUNNING, _JE.POSTPONE): _J.QUEUED,
    (_J.RUNNING, _JE.FAIL): _J.FAILED,
    (_J.RUNNING, _JE.CANCEL): _J.CANCELLED,
    (_J.REFUSED, _JE.RETRY): _J.QUEUED,
    (_J.FAILED, _JE.RETRY): _J.QUEUED,
    (_J.CANCELLED, _JE.RETRY): _J.QUEUED,
}

DELIVERY_TRANSITIONS: dict[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (_D.QUEUED, _DE.START): _D.SENDING,
    (_D.QUEUED, _DE.CANCEL): _D.CANCELLED,
    # its destination is away: it waits with the others without an attempt of its own
    (_D.QUEUED, _DE.POSTPONE): _D.WAITING,
    (_D.WAITING, _DE.POSTPONE): _D.WAITING,
    (_D.WAITING, _DE.FAIL): _D.FAILED,
    (_D.SENDING, _DE.START): _D.SENDING,
    (_D.SENDING, _DE.DELIVER): _D.SENT,
    (_D.SENDING, _DE.POSTPONE): _D.WAITING,
    (_D.SENDING, _DE.FAIL): _D.FAILED,
    (_D.SENDING, _DE.CANCEL): _D.CANCELLED,
    (_D.WAITING, _DE.START): _D.SENDING,
    (_D.WAITING, _DE.CANCEL): _D.CANCELLED,
    (_D.WAITING, _DE.RETRY): _D.QUEUED,
    (_D.SENT, _DE.ACCEPT): _D.ACCEPTED,
    (_D.SENT, _DE.COMMIT): _D.COMMITTED,
    (_D.SENT, _DE.LOSE): _D.WAITING,
    (_D.SENT, _DE.FAIL): _D.FAILED,
    (_D.SENT, _DE.RETRY): _D.QUEUED,
    (_D.ACCEPTED, _DE.COMMIT): _D.COMMITTED,
    (_D.ACCEPTED, _DE.RETRY): _D.QUEUED,
    (_D.COMMITTED, _DE.RETRY): _D.QUEUED,
    (_D.FAILED, _DE.CANCEL): _D.CANCELLED,
    (_D.FAILED, _DE.RETRY): _D.QUEUED,
    (_D.CANCELLED, _DE.RETRY): _D.QUEUED,
}

ACTIVE_JOB_STATES = frozenset({JobState.QUEUED, JobState.RUNNING})
OPEN_DELIVERY_STATES = frozenset({DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.WAITING})
# A job's work is done when its results are in one of these; proof comes later, or never
ARRIVED_DELIVERY_STATES = frozenset({DeliveryState.SENT, DeliveryState.ACCEPTED, DeliveryState.COMMITTED})


def next_job_state(state: JobState, event: JobEvent) -> JobState:
    """Raises IllegalTransition, saying what is possible instead."""
    return _next(JOB_TRANSITIONS, "job", state, event)


def next_delivery_state(state: DeliveryState, event: DeliveryEvent) -> DeliveryState:
    """Raises IllegalTransition, saying what is possible instead."""
    return _next(DELIVERY_TRANSITIONS, "delivery", state, event)


def _next(table: dict[tuple[S, E], S], noun: str, state: S, event: E) -> S:
    try:
        return table[state, event]
    except KeyError:
        possible = ", ".join(str(e) for s, e in table if s == state) or "nothing"
        raise IllegalTransition(f"a {noun} that is {state} cannot {event}; possible: {possible}") from None


class Priority(StrEnum):
    """Of a job, in the order in which queues are emptied."""

    STAT = "stat"
    HIGH = "high"
    ROUTINE = "routine"
    LOW = "low"

    @property
    def rank(self) -> int:
        """1 first. Never 0: the engine runs work without a priority before everything else."""
        return list(Priority).index(self) + 1


JOB_ATTEMPTS_MOST = 5
# A job whose process dies while it runs is started again, but one that kills its process each time is not started
# for ever. A host that is switched off often enough must not fail a sound job: hence more than JOB_ATTEMPTS_MOST.
JOB_CRASHES_MOST = 15
DELIVERY_BACKOFF_FIRST_S = 2.0
DELIVERY_BACKOFF_MOST_S = 600.0
DELIVERY_GIVE_UP_AFTER_S = 72 * 3600.0


def delivery_backoff_s(attempts: int, age_s: float) -> float | None:
    """Seconds until the next attempt after `attempts` failed ones; None when it is time to give up.

    Doubles from 2 s to 10 minutes, for 72 hours: a PACS that is down over a weekend loses nothing.
    """
    if age_s >= DELIVERY_GIVE_UP_AFTER_S:
        return None
    return min(DELIVERY_BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 30), DELIVERY_BACKOFF_MOST_S)


def job_backoff_s(attempts: int) -> float | None:
    """Seconds until a job that failed retryably runs again; None after the last attempt."""
    return None if attempts >= JOB_ATTEMPTS_MOST else float(2 ** min(attempts, 6))
