"""Every state × event of jobs and deliveries: what it leads to, or that it is refused and says what is possible."""

from __future__ import annotations

import itertools

import pytest

from dicomnode.domain.job import (
    ACTIVE_JOB_STATES,
    ARRIVED_DELIVERY_STATES,
    DELIVERY_BACKOFF_MOST_S,
    DELIVERY_GIVE_UP_AFTER_S,
    DELIVERY_TRANSITIONS,
    JOB_ATTEMPTS_MOST,
    JOB_CRASHES_MOST,
    JOB_TRANSITIONS,
    OPEN_DELIVERY_STATES,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    Priority,
    delivery_backoff_s,
    job_backoff_s,
    next_delivery_state,
    next_job_state,
)
from dicomnode.errors import IllegalTransition

# rows: states; columns: events in the order of their enumeration; "." is refused
JOBS = """
            start    finish     refuse   postpone  fail    cancel     lose    retry
queued      running  .          .        .         .       cancelled  .       .
running     running  succeeded  refused  queued    failed  cancelled  queued  .
succeeded   .        .          .        .         .       .          .       .
refused     .        .          .        .         .       .          .       queued
failed      .        .          .        .         .       .          .       queued
cancelled   .        .          .        .         .       .          .       queued
"""
DELIVERIES = """
            start    deliver  accept    commit     lose     postpone  fail    cancel     retry
queued      sending  .        .         .          .        waiting   .       cancelled  .
sending     sending  sent     .         .          .        waiting   failed  cancelled  .
waiting     sending  .        .         .          .        waiting   failed  cancelled  queued
sent        .        .        accepted  committed  waiting  .         failed  .          queued
accepted    .        .        .         committed  .        .         .       .          queued
committed   .        .        .         .          .        .         .       .          queued
failed      .        .        .         .          .        .         .       cancelled  queued
cancelled   .        .        .         .          .        .         .       .          queued
"""


def cells(table: str) -> dict[tuple[str, str], str]:
    head, *rows = [line.split() for line in table.strip().splitlines()]
    return {(row[0], event): to for row in rows for event, to in zip(head, row[1:], strict=True)}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_every_event_in_every_state_of_a_job(state: JobState, event: JobEvent) -> None:
    wanted = cells(JOBS)[state, event]
    if wanted == ".":
        with pytest.raises(IllegalTransition, match=f"a job that is {state} cannot {event}; possible: "):
            next_job_state(state, event)
    else:
        assert next_job_state(state, event) == wanted


@pytest.mark.parametrize(("state", "event"), list(itertools.product(DeliveryState, DeliveryEvent)))
def test_every_event_in_every_state_of_a_delivery(state: DeliveryState, event: DeliveryEvent) -> None:
    wanted = cells(DELIVERIES)[state, event]
    if wanted == ".":
        with pytest.raises(IllegalTransition, match=f"a delivery that is {state} cannot {event}; possible: "):
            next_delivery_state(state, event)
    else:
        assert next_delivery_state(state, event) == wanted


def test_a_refusal_names_what_is_possible_or_says_nothing_is() -> None:
    with pytest.raises(IllegalTransition, match=r"possible: start, cancel$"):
        next_job_state(JobState.QUEUED, JobEvent.RETRY)
    with pytest.raises(IllegalTransition, match=r"possible: nothing$"):
        next_job_state(JobState.SUCCEEDED, JobEvent.CANCEL)


def test_every_state_can_be_reached_from_the_first() -> None:
    assert _reached(JOB_TRANSITIONS, JobState.QUEUED) == set(JobState)
    assert _reached(DELIVERY_TRANSITIONS, DeliveryState.QUEUED) == set(DeliveryState)


def _reached(table: dict, first: object) -> set:  # type: ignore[type-arg]
    found = {first}
    while more := {to for (state, _), to in table.items() if state in found} - found:
        found |= more
    return found


def test_what_is_active_can_be_cancelled_and_nothing_else_can() -> None:
    assert {s for s, e in JOB_TRANSITIONS if e is JobEvent.CANCEL} == ACTIVE_JOB_STATES
    assert {s for s, e in DELIVERY_TRANSITIONS if e is DeliveryEvent.CANCEL} == (
        OPEN_DELIVERY_STATES | {DeliveryState.FAILED}  # so that it is no longer asked about
    )


def test_what_arrived_stays_so_unless_it_is_lost_or_sent_again() -> None:
    leaving = {(s, e) for s, e in DELIVERY_TRANSITIONS if s in ARRIVED_DELIVERY_STATES}
    assert {e for _, e in leaving} == {
        DeliveryEvent.ACCEPT,
        DeliveryEvent.COMMIT,
        DeliveryEvent.LOSE,
        DeliveryEvent.FAIL,
        DeliveryEvent.RETRY,
    }


def test_a_delivery_is_tried_for_three_days_ever_more_rarely() -> None:
    delays = [delivery_backoff_s(n, age_s=0) for n in range(1, 400)]
    assert delays[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(d for d in delays if d) == DELIVERY_BACKOFF_MOST_S == delays[-1]
    assert delivery_backoff_s(10_000, DELIVERY_GIVE_UP_AFTER_S - 1) == DELIVERY_BACKOFF_MOST_S
    assert delivery_backoff_s(1, DELIVERY_GIVE_UP_AFTER_S) is None


def test_a_job_is_tried_a_few_times() -> None:
    assert [job_backoff_s(n) for n in range(1, JOB_ATTEMPTS_MOST + 1)] == [2.0, 4.0, 8.0, 16.0, None]
    assert JOB_CRASHES_MOST > 10  # a node that is killed ten times while a job runs must not fail the job


def test_no_priority_has_the_rank_of_work_without_one() -> None:
    assert [p.rank for p in (Priority.STAT, Priority.HIGH, Priority.ROUTINE, Priority.LOW)] == [1, 2, 3, 4]
