"""A destination that is changed, removed and added again: what becomes of the deliveries on their way to it."""

from __future__ import annotations

import pytest

from dicomnode.adapters.db.repositories import SqlState
from dicomnode.domain.destination import Destination, parse_dimse, parse_stow
from dicomnode.domain.job import DeliveryState
from dicomnode.errors import AlreadyExists, IllegalTransition, NotFound
from dicomnode.ports import Delivered, DeliveryView, NotDelivered
from tests.adapters.state_material import ARCHIVE, succeeded
from tests.contract.state_bench import Bench, bench, kinds

__all__ = ["bench"]

MOVED = Destination("archive", parse_dimse("ARCHIVE@192.0.2.77:11112"))
AWAY = NotDelivered("connection refused", retryable=True)


def deliveries(bench: Bench, job_id: str) -> list[DeliveryView]:
    return sorted(bench.state.job(job_id).deliveries, key=lambda one: one.kind)


def states(bench: Bench, job_id: str) -> set[DeliveryState]:
    return {one.state for one in deliveries(bench, job_id)}


def tried(bench: Bench, job_id: str) -> None:
    """Every delivery of the job is tried once, in vain."""
    for one in deliveries(bench, job_id):
        bench.state.start_delivery(one.delivery_id)
        bench.state.finish_delivery(one.delivery_id, AWAY)


def test_what_waits_goes_to_the_new_address_at_once(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    first, second = deliveries(bench, job_id)
    state.start_delivery(first.delivery_id)
    state.finish_delivery(first.delivery_id, AWAY)
    assert state.deliveries_on_their_way() == {"archive": 2}
    assert state.add_destination(MOVED, replace=True) == 2
    assert state.destinations() == [MOVED]
    assert states(bench, job_id) == {DeliveryState.QUEUED}
    assert bench.queue.enqueued_deliveries[-1] == (first.delivery_id, 0.0)
    for one in (first, second):
        work = state.start_delivery(one.delivery_id)
        assert work is not None
        assert (work.destination, work.attempt) == (MOVED, 1)
        state.finish_delivery(one.delivery_id, Delivered("0x0000"))
    assert state.deliveries_on_their_way() == {}
    assert kinds(state).count("delivery.moved") == 2


def test_what_is_being_sent_ends_where_it_began_and_its_next_attempt_goes_to_the_new_address(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    arrives, fails = deliveries(bench, job_id)
    for one in (arrives, fails):
        assert state.start_delivery(one.delivery_id) is not None
    assert state.add_destination(MOVED, replace=True) == 0
    state.finish_delivery(arrives.delivery_id, Delivered("0x0000"))
    state.finish_delivery(fails.delivery_id, AWAY)
    work = state.start_delivery(fails.delivery_id)
    assert work is not None
    assert work.destination == MOVED
    assert state.start_delivery(arrives.delivery_id) is None


def test_an_address_is_changed_only_when_it_is_said(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    with pytest.raises(AlreadyExists, match=r"already, ARCHIVE@192\.0\.2\.1:104; --replace changes its address"):
        state.add_destination(MOVED)
    with pytest.raises(AlreadyExists):
        state.add_destination(ARCHIVE)
    number = state.last_event_number()
    assert state.add_destination(ARCHIVE, replace=True) == 0  # nothing changes
    assert state.last_event_number() == number
    assert state.add_destination(Destination("new", MOVED.address), replace=True) == 0
    assert [one.name for one in state.destinations()] == ["archive", "new"]


def test_what_was_delivered_to_the_old_address_is_sent_again_to_the_new_one_only_when_asked(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    for one in deliveries(bench, job_id):
        state.start_delivery(one.delivery_id)
        state.finish_delivery(one.delivery_id, Delivered("0x0000"))
    assert state.add_destination(MOVED, replace=True) == 0
    assert states(bench, job_id) == {DeliveryState.SENT}


def test_no_event_holds_a_password(bench: Bench) -> None:
    state = bench.state
    for host in ("a", "b"):
        state.add_destination(Destination("web", parse_stow(f"http://node:secret@{host}/dicom-web")), replace=True)
    messages = [event.message for _, event in state.events_after(0)]
    assert len(messages) == 2
    assert not any("secret" in message for message in messages)


def test_removing_says_how_many_it_cancelled(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    assert state.remove_destination("archive") == 2
    assert states(bench, job_id) == {DeliveryState.CANCELLED}
    assert state.deliveries_on_their_way() == {}


@pytest.mark.parametrize("again", [ARCHIVE, MOVED])
def test_a_retry_finds_the_destination_that_was_added_again(bench: Bench, again: Destination) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    tried(bench, job_id)
    state.remove_destination("archive")
    with pytest.raises(NotFound, match=f"destinations add archive.*jobs retry {job_id}"):
        state.retry_job(job_id)
    state.add_destination(again)
    state.retry_job(job_id)
    assert states(bench, job_id) == {DeliveryState.QUEUED}
    for one in deliveries(bench, job_id):
        work = state.start_delivery(one.delivery_id)
        assert work is not None
        assert work.destination == again
        state.finish_delivery(one.delivery_id, Delivered("0x0000"))
    with pytest.raises(IllegalTransition):
        state.retry_job(job_id)


def test_a_retry_sends_what_finished_while_the_destination_was_gone(bench: Bench) -> None:
    state = bench.state
    job_id = succeeded(state, destinations=("archive",))
    assert deliveries(bench, job_id) == []
    state.add_destination(ARCHIVE)
    state.retry_job(job_id)
    assert len(deliveries(bench, job_id)) == 2
    assert states(bench, job_id) == {DeliveryState.QUEUED}


def test_a_ticket_for_a_destination_that_is_gone_sends_nothing(bench: Bench) -> None:
    """A job may finish while its destination is being removed: its delivery is written and nobody cancels it."""
    state = bench.state
    assert isinstance(state, SqlState)
    state.add_destination(ARCHIVE)
    job_id = succeeded(state)
    with state.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE destination SET in_force = FALSE")
    (first, *_) = deliveries(bench, job_id)
    assert state.start_delivery(first.delivery_id) is None
    assert DeliveryState.CANCELLED in states(bench, job_id)
