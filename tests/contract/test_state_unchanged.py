"""What is sent when a series is done again: nothing twice, nothing that was superseded, nothing that nobody wants."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from dicomnode.adapters.db.tables import JobRow, ResultRow
from dicomnode.domain.destination import Destination, parse_dimse
from dicomnode.domain.job import DeliveryState
from dicomnode.errors import IllegalTransition
from dicomnode.ports import Delivered, DeliveryView, JobFinished, NotDelivered, State
from tests.adapters.state_material import ARCHIVE, STUDY, WEB, finished, instance, new_job, results, routed, succeeded
from tests.contract.state_bench import SERIES, Bench, bench, kinds, state

__all__ = ["bench", "state"]


def write(state: State, statement: sa.Executable) -> None:
    with state.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(statement)


def deliver(state: State, deliveries: Sequence[DeliveryView]) -> None:
    for delivery in deliveries:
        assert state.start_delivery(delivery.delivery_id) is not None
        state.finish_delivery(delivery.delivery_id, Delivered("0x0000"))


def again(state: State, late: int = 4, destinations: tuple[str, ...] = ("archive",)) -> str:
    """A job on the series with one more image, started."""
    state.record_instances([instance(late)])
    found = state.complete_series(SERIES, 0)
    assert found is not None
    (job_id,) = state.record_routing(found, [new_job(state, destinations=destinations)], "again", {})
    assert state.start_job(job_id) is not None
    return job_id


def sent(state: State) -> dict[str, DeliveryState]:
    """Kind and where to → state, of all deliveries there are; each may be there once."""
    views = [delivery for job in state.jobs() for delivery in job.deliveries]
    found = {f"{view.sop_instance_uid} {view.destination}": view.state for view in views}
    assert len(found) == len(views)
    return found


@pytest.mark.parametrize("arrived", [True, False], ids=["delivered", "on its way"])
def test_what_comes_out_unchanged_is_not_sent_again(bench: Bench, arrived: bool) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    first = succeeded(state)
    if arrived:
        deliver(state, state.job(first).deliveries)
    before, tickets = sent(state), len(bench.queue.enqueued_deliveries)
    state.finish_job(again(state), finished())
    assert sent(state) == before
    assert len(bench.queue.enqueued_deliveries) == tickets
    told = [event for event in state.events(STUDY) if event.kind == "delivery.kept"]
    assert len(told) == 2
    assert ("is there already" if arrived else "is on its way") in told[0].message


def test_what_waits_for_its_next_attempt_is_on_its_way(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    (delivery, _) = state.job(succeeded(state)).deliveries
    state.start_delivery(delivery.delivery_id)
    state.finish_delivery(delivery.delivery_id, NotDelivered("connection refused", retryable=True))
    tickets = len(bench.queue.enqueued_deliveries)
    state.finish_job(again(state), finished())
    assert len(bench.queue.enqueued_deliveries) == tickets
    assert DeliveryState.WAITING in sent(state).values()


def test_what_failed_is_sent_again_and_so_is_what_goes_to_a_new_place(state: State) -> None:
    state.add_destination(ARCHIVE)
    state.add_destination(WEB)
    first, second = state.job(succeeded(state)).deliveries
    state.start_delivery(first.delivery_id)
    state.finish_delivery(first.delivery_id, NotDelivered("no", retryable=False))
    deliver(state, [second])
    state.finish_job(again(state, destinations=("archive", "web")), finished())
    now = sent(state)
    assert now[f"{first.sop_instance_uid} archive"] is DeliveryState.QUEUED
    assert now[f"{second.sop_instance_uid} archive"] is DeliveryState.SENT
    assert now[f"{first.sop_instance_uid} web"] is DeliveryState.QUEUED
    assert len(now) == 4


def test_a_destination_that_was_removed_and_added_again_is_the_same_place(state: State) -> None:
    state.add_destination(ARCHIVE)
    deliver(state, state.job(succeeded(state)).deliveries)
    state.remove_destination("archive")
    state.add_destination(ARCHIVE)
    state.finish_job(again(state), finished())
    assert set(sent(state).values()) == {DeliveryState.SENT}
    state.remove_destination("archive")
    state.add_destination(Destination("archive", parse_dimse("ELSEWHERE@192.0.2.7:104")))
    state.finish_job(again(state, 5), finished())
    views = [delivery for job in state.jobs() for delivery in job.deliveries]
    assert sorted(view.state for view in views) == ["queued"] * 2 + ["sent"] * 2


def supersede(state: State, old: str, new: str) -> None:
    write(state, sa.update(ResultRow).where(ResultRow.job_id == old).values(superseded_by=new))


def test_what_was_superseded_before_it_was_sent_is_not_sent(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    old = succeeded(state)
    (waits, queued) = state.job(old).deliveries
    state.start_delivery(waits.delivery_id)
    state.finish_delivery(waits.delivery_id, NotDelivered("connection refused", retryable=True))
    new = again(state)
    supersede(state, old, new)
    state.finish_job(new, finished("2"))
    views = {view.delivery_id: view for view in state.job(old).deliveries}
    assert {views[waits.delivery_id].state, views[queued.delivery_id].state} == {DeliveryState.CANCELLED}
    assert views[queued.delivery_id].reason == f"the result of job {new} supersedes it"
    assert kinds(state).count("delivery.cancelled") == 2
    assert state.start_delivery(queued.delivery_id) is None
    assert {view.state for view in state.job(new).deliveries} == {DeliveryState.QUEUED}
    assert set(state.job(old).superseded.values()) == {new}
    with pytest.raises(IllegalTransition, match=f"job {new}"):
        state.retry_job(old)


def test_what_was_sent_stays_sent_and_what_is_being_sent_is_not_tried_again(state: State) -> None:
    state.add_destination(ARCHIVE)
    old = succeeded(state)
    (there, going) = state.job(old).deliveries
    deliver(state, [there])
    assert state.start_delivery(going.delivery_id) is not None
    new = again(state)
    supersede(state, old, new)
    state.finish_job(new, finished("2"))
    states = {view.delivery_id: view.state for view in state.job(old).deliveries}
    assert states == {there.delivery_id: DeliveryState.SENT, going.delivery_id: DeliveryState.SENDING}
    state.finish_delivery(going.delivery_id, NotDelivered("connection refused", retryable=True))
    views = {view.delivery_id: view for view in state.job(old).deliveries}
    assert views[going.delivery_id].state is DeliveryState.CANCELLED
    assert "supersedes it, and connection refused" in views[going.delivery_id].reason


@pytest.mark.parametrize(
    ("wanted", "goes"), [(["SEG"], {"SEG"}), (["SEG", "SR"], {"SEG", "SR"}), ([], {"SEG", "SR"})]
)
def test_kinds_that_the_rule_does_not_want_are_kept_here(state: State, wanted: list[str], goes: set[str]) -> None:
    state.add_destination(ARCHIVE)
    state.add_destination(WEB)
    job_id = routed(state, destinations=("archive", "web"))
    write(state, sa.update(JobRow).values(options={"parameters": {}, "objects": wanted, "inputs": {}}))
    state.start_job(job_id)
    state.finish_job(job_id, JobFinished(results()))
    view = state.job(job_id)
    assert {result.kind for result in view.results} == {"SEG", "SR"}
    assert {(d.kind, d.destination) for d in view.deliveries} == {(k, d) for k in goes for d in ("archive", "web")}
    told = [event.message for event in state.events(STUDY) if event.kind == "delivery.unwanted"]
    assert [message.split()[0] for message in told] == [kind for kind in ("SEG", "SR") if kind not in goes]
