"""Proof of deliveries on both databases: who is asked when, and what becomes of the answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomnode.adapters.db.repositories import SqlState
from dicomnode.domain.delivery_options import DeliveryOptions, Wish
from dicomnode.domain.job import DeliveryState
from dicomnode.domain.proof import LOST_MOST, ProofAnswer
from dicomnode.errors import IllegalTransition, NotFound
from dicomnode.ports import Delivered, DeliveryFilter, DeliveryView, NotDelivered, ProofWork, State
from tests.adapters.state_material import ARCHIVE, STUDY, WEB, succeeded
from tests.contract.state_bench import Bench
from tests.contract.state_bench import bench as bench

DEMANDED = replace(ARCHIVE, options=DeliveryOptions(commitment=Wish.YES))
NEVER = replace(ARCHIVE, options=DeliveryOptions(commitment=Wish.NO))


def sent(state: State, destination: str = "archive") -> list[DeliveryView]:
    """The deliveries of a new job, all sent, and due to be asked about."""
    job = state.job(succeeded(state, destinations=(destination,)))
    for delivery in job.deliveries:
        work = state.start_delivery(delivery.delivery_id)
        assert work is not None
        state.finish_delivery(delivery.delivery_id, Delivered("stored"), work.attempt)
    make_due(state)
    return views(state)


def make_due(state: State) -> None:
    assert isinstance(state, SqlState)
    with state.engine.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("UPDATE delivery SET ask_at = delivered_at WHERE ask_at IS NOT NULL")


def views(state: State) -> list[DeliveryView]:
    return sorted(state.deliveries(), key=lambda view: view.kind)


def due(state: State) -> ProofWork:
    (work,) = state.proofs_due()
    return work


def test_all_that_one_destination_was_sent_is_asked_about_once_and_committed(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    assert {view.state for view in sent(state)} == {DeliveryState.SENT}
    work = due(state)
    assert work.destination == ARCHIVE
    assert {r.sop_instance_uid for r in work.references} == {view.sop_instance_uid for view in views(state)}
    assert {r.study_instance_uid for r in work.references} == {STUDY}
    assert state.proofs_due() == []  # nobody else gets it
    uids = frozenset(r.sop_instance_uid for r in work.references)
    assert state.proof_answered(work.transaction_uid, ProofAnswer(uids, words="ARCHIVE committed"))
    for view in views(state):
        assert (view.state, view.proof) == (DeliveryState.COMMITTED, "ARCHIVE committed")
        assert view.proven_at is not None
        assert view.ask_at is None
    kinds = [event.kind for event in state.events(STUDY)]
    assert kinds.count("delivery.committed") == 2


def test_found_by_a_search_is_accepted(bench: Bench) -> None:
    state = bench.state
    state.add_destination(WEB)
    sent(state, "web")
    work = due(state)
    uids = frozenset(r.sop_instance_uid for r in work.references)
    state.proof_answered(work.transaction_uid, ProofAnswer(uids, committed=False, words="found"))
    assert {view.state for view in views(state)} == {DeliveryState.ACCEPTED}


def test_a_partial_failure_sends_that_object_again_and_commits_the_other(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    seg, sr = sent(state)
    work = due(state)
    answer = ProofAnswer(frozenset({sr.sop_instance_uid}), {seg.sop_instance_uid: 0x0112}, words="ok")
    state.proof_answered(work.transaction_uid, answer)
    lost, kept = views(state)
    assert kept.state is DeliveryState.COMMITTED
    assert lost.state is DeliveryState.WAITING
    assert lost.failure == "not-committed"
    assert "archive does not commit to it: 0x0112 no such object instance" in lost.reason
    assert bench.queue.enqueued_deliveries[-1] == (lost.delivery_id, 0.0)


def test_what_is_never_kept_is_given_up_after_some_times(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    seg, sr = sent(state)
    for _ in range(LOST_MOST + 1):
        work = due(state)
        failed = {seg.sop_instance_uid: 0x0112, sr.sop_instance_uid: 0x0122}
        state.proof_answered(work.transaction_uid, ProofAnswer(frozenset(), failed))
        if state.start_delivery(seg.delivery_id) is not None:
            state.finish_delivery(seg.delivery_id, Delivered("stored"))
        make_due(state)
    lost, told = views(state)
    assert lost.state is DeliveryState.FAILED
    assert lost.reason.startswith(f"sent {LOST_MOST + 1} times, and each time said to be stored; ")
    assert told.state is DeliveryState.SENT  # it will never commit to that kind of object: told of, and left alone
    assert "0x0122 referenced SOP class not supported" in told.proof
    assert told.ask_at is None


def test_a_failure_that_may_pass_is_asked_again(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    seg, _ = sent(state)
    state.proof_answered(due(state).transaction_uid, ProofAnswer(frozenset(), {seg.sop_instance_uid: 0x0213}))
    again = views(state)[0]
    assert again.state is DeliveryState.SENT
    assert again.ask_at is not None
    assert "0x0213 resource limitation" in again.proof


def test_silence_is_asked_again_and_a_late_answer_to_the_first_request_counts(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    seg, _ = sent(state)
    first = due(state)
    state.proof_put_off(first.transaction_uid, "has not answered yet")
    assert views(state)[0].proof == "has not answered yet"
    make_due(state)
    second = due(state)
    assert second.transaction_uid != first.transaction_uid
    assert state.proof_answered(first.transaction_uid, ProofAnswer(frozenset({seg.sop_instance_uid}), words="late"))
    assert views(state)[0].state is DeliveryState.COMMITTED
    state.proof_answered(second.transaction_uid, ProofAnswer(frozenset(), {seg.sop_instance_uid: 0x0112}))
    assert views(state)[0].state is DeliveryState.COMMITTED


def test_a_transaction_that_nobody_asked_commits_nothing(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    uids = frozenset(view.sop_instance_uid for view in sent(state))
    due(state)
    assert not state.proof_answered("2.25.1", ProofAnswer(uids))
    assert {view.state for view in views(state)} == {DeliveryState.SENT}


def test_what_was_not_asked_for_under_a_transaction_is_not_believed(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    state.add_destination(WEB)
    job = state.job(succeeded(state, destinations=("archive", "web")))
    for delivery in job.deliveries:
        state.start_delivery(delivery.delivery_id)
        state.finish_delivery(delivery.delivery_id, Delivered("stored"))
    make_due(state)
    to_archive = next(work for work in state.proofs_due() if work.destination == ARCHIVE)
    uids = frozenset(view.sop_instance_uid for view in views(state))
    state.proof_answered(to_archive.transaction_uid, ProofAnswer(uids, words="x"))
    found = {(view.destination, view.state) for view in views(state)}
    assert found == {("archive", DeliveryState.COMMITTED), ("web", DeliveryState.SENT)}


def test_a_peer_that_cannot_prove_is_left_in_peace_and_the_words_say_why(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    sent(state)
    state.proof_unsupported(due(state).transaction_uid, "ARCHIVE does no Storage Commitment")
    for view in views(state):
        assert (view.state, view.ask_at) == (DeliveryState.SENT, None)
        assert view.proof == "ARCHIVE does no Storage Commitment"
    first = views(state)[0]
    state.retry_delivery(first.delivery_id)
    state.start_delivery(first.delivery_id)
    state.finish_delivery(first.delivery_id, Delivered("stored"))
    again = state.delivery(first.delivery_id)
    assert (again.ask_at, again.proof) == (None, "ARCHIVE does no Storage Commitment")
    state.add_destination(DEMANDED, replace=True)  # the administrator says that it can
    assert state.destination_views()[0].unprovable == ""


def test_where_proof_is_demanded_a_peer_is_asked_again(bench: Bench) -> None:
    state = bench.state
    state.add_destination(DEMANDED)
    sent(state)
    state.proof_unsupported(due(state).transaction_uid, "ARCHIVE does no Storage Commitment")
    view = views(state)[0]
    assert view.ask_at is not None
    assert view.proof == "ARCHIVE does no Storage Commitment"


def test_where_proof_is_not_wanted_nobody_is_asked(bench: Bench) -> None:
    state = bench.state
    state.add_destination(NEVER)
    assert {view.ask_at for view in sent(state)} == {None}
    assert state.proofs_due() == []


def test_a_destination_that_is_away_is_not_asked(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    seg, _ = sent(state)
    state.retry_delivery(seg.delivery_id)
    state.start_delivery(seg.delivery_id)
    state.finish_delivery(seg.delivery_id, NotDelivered("connection refused", True, "no-connection"))
    assert state.proofs_due() == []


def test_deliveries_are_found_by_state_destination_failure_and_study(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    seg, sr = sent(state)
    state.retry_delivery(seg.delivery_id)
    state.start_delivery(seg.delivery_id)
    state.finish_delivery(seg.delivery_id, NotDelivered("0xA900 data set does not match", False, "status"))

    def found(**which: object) -> list[str]:
        return [view.delivery_id for view in state.deliveries(DeliveryFilter(**which))]  # type: ignore[arg-type]

    assert found(states=(DeliveryState.FAILED,)) == [seg.delivery_id]
    assert found(failure="status") == [seg.delivery_id]
    assert sorted(found(destination="archive", study_instance_uid=STUDY)) == sorted([seg.delivery_id, sr.delivery_id])
    assert found(destination="web") == found(study_instance_uid="1.2.3") == found(job_id="x") == []
    view = state.delivery(seg.delivery_id[:10])
    assert (view.address, view.study_instance_uid) == ("ARCHIVE@192.0.2.1:104", STUDY)
    with pytest.raises(NotFound, match="dicomnode deliveries list"):
        state.delivery("nothing")


def test_a_delivery_is_dropped_and_retried_and_tried_out(bench: Bench) -> None:
    state = bench.state
    state.add_destination(ARCHIVE)
    job = state.job(succeeded(state))
    first = job.deliveries[0].delivery_id
    assert state.drop_delivery(first, dry_run=True).after.state is DeliveryState.CANCELLED
    assert state.delivery(first).state is DeliveryState.QUEUED
    change = state.drop_delivery(first, reason="sent by hand")
    assert (change.before.state, change.after.state) == (DeliveryState.QUEUED, DeliveryState.CANCELLED)
    assert state.delivery(first).reason == "dropped by the administrator: sent by hand"
    assert state.start_delivery(first) is None
    assert state.retry_delivery(first).after.state is DeliveryState.QUEUED
    with pytest.raises(IllegalTransition, match="in the queue already"):
        state.retry_delivery(first)
    state.start_delivery(first)
    state.finish_delivery(first, Delivered("stored"))
    with pytest.raises(IllegalTransition, match="cannot cancel"):
        state.drop_delivery(first)


def test_associations_at_once_are_those_that_began_first(bench: Bench) -> None:
    state = bench.state
    state.add_destination(replace(ARCHIVE, options=DeliveryOptions(associations=1)))
    first, second = (delivery.delivery_id for delivery in state.job(succeeded(state)).deliveries)
    state.start_delivery(first)
    state.start_delivery(second)
    may = {key: state.may_send(key) for key in (first, second)}
    assert sorted(may.values()) == [False, True]
    going = next(key for key, goes in may.items() if goes)
    state.finish_delivery(going, Delivered("stored"))
    assert state.may_send(second if going == first else first)
