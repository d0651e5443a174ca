"""Whose turn it is: one line for all, and what limits leave of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.adapters.queue.places import taken
from dicomnode.adapters.queue.tickets import delivery_ticket, is_urgent, job_of, job_ticket, machine_of, queue_of
from dicomnode.domain.job import Priority
from dicomnode.domain.turns import InLine, held_back, turn_of, whose_turn

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def line(*jobs: tuple[str, dict[str, int]]) -> list[InLine]:
    return [InLine(*job) for job in jobs]


def test_free_places_are_of_those_who_stand_first() -> None:
    waiting = line(("a", {"m": 2}), ("b", {"m": 2}), ("c", {"m": 2}))
    assert whose_turn(waiting, {}) == ["a", "b"]
    assert whose_turn(waiting, {"m": 1}) == ["a"]
    assert whose_turn(waiting, {"m": 2}) == []


def test_who_is_kept_back_by_another_limit_leaves_the_place_to_those_behind() -> None:
    waiting = line(("a", {"m": 1, "n": 1}), ("b", {"m": 1}))
    assert whose_turn(waiting, {"n": 1}) == ["b"]
    assert whose_turn(waiting, {}) == ["a"]


def test_who_may_not_begin_is_told_which_limit_keeps_it_back() -> None:
    job = InLine("b", {"m": 1})
    assert held_back(job, [], {}, "m") == ""
    assert held_back(job, [], {"m": 1}, "m") == "waits: of the model m 1 may run at once, and 1 do"
    ahead = line(("a", {"m": 1}))
    words = "waits: of the model m, which comes first, 1 may run at once, and 1 do or come first"
    assert held_back(job, ahead, {}, "own") == words
    assert held_back(job, line(("a", {"m": 1, "n": 1})), {"n": 1}, "m") == ""


def test_the_more_urgent_goes_first_and_then_the_older() -> None:
    later = NOON + timedelta(seconds=2)
    jobs = [(Priority.ROUTINE, NOON), (Priority.STAT, later), (Priority.HIGH, later), (Priority.ROUTINE, later)]
    wanted = [jobs[1], jobs[2], jobs[0], jobs[3]]
    assert sorted(jobs, key=lambda job: turn_of(*job, "x")) == wanted


def test_tickets_and_queues_say_what_they_are_of() -> None:
    assert job_of(job_ticket("0123456789abcdef", 12)) == ("0123456789abcdef", 12)
    assert job_of(delivery_ticket("0123456789abcdef", 12)) is None
    names = [queue_of(machine, urgent=urgent) for machine in ("", "ai-2") for urgent in (False, True)]
    assert len(set(names)) == 4
    assert [machine_of(name) for name in names] == ["", "", "ai-2", "ai-2"]
    assert [is_urgent(name) for name in names] == [False, True] * 2


@dataclass
class Room:
    """ports.Admission with so many places."""

    others: int
    urgent: int

    def places(self, *, urgent: bool) -> int:
        return self.urgent if urgent else self.others


@pytest.mark.parametrize(
    ("counted", "room", "so_many"),
    [
        (0, 2, 0),
        (1, 2, 1),  # one that has just been taken, and has no place yet
        (1, 1, 1),
        (0, 1, 1),  # a STAT job, whose ticket is in another queue, has the other place
        (2, 0, sys.maxsize),
        (0, 0, sys.maxsize),
    ],
)
def test_no_more_tickets_are_taken_than_there_are_places(counted: int, room: int, so_many: int) -> None:
    assert taken(counted, 2, Room(room, 0), "jobs") == so_many
    assert taken(counted, 2, Room(0, room), "stat-jobs@ai-2") == so_many
