"""A delivery: one result to one destination, from its making to its end."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dicomnode.adapters.db import outages
from dicomnode.adapters.db.session import Unit
from dicomnode.adapters.db.tables import DeliveryRow, DestinationRow, JobRow, ResultRow
from dicomnode.domain.delivery_failure import FailureKind, is_of_the_destination
from dicomnode.domain.delivery_options import Wish, parse_options
from dicomnode.domain.destination import Destination, parse_address
from dicomnode.domain.job import (
    ARRIVED_DELIVERY_STATES,
    DELIVERY_GIVE_UP_AFTER_S,
    OPEN_DELIVERY_STATES,
    DeliveryEvent,
    DeliveryState,
    delivery_backoff_s,
    next_delivery_state,
)
from dicomnode.domain.outage import Turn
from dicomnode.domain.profile import OWN_KINDS, wanted_forms, wanted_kinds
from dicomnode.domain.proof import PROOF_FIRST_S
from dicomnode.domain.result import StoredResult
from dicomnode.errors import NotFound
from dicomnode.ports import Delivered, DeliveryOutcome, DeliveryWork, NotDelivered, NotYet

RETRYABLE = frozenset({DeliveryState.WAITING, DeliveryState.FAILED, DeliveryState.CANCELLED})
NOT_YET_SENT = frozenset({DeliveryState.QUEUED, DeliveryState.WAITING})
DUE_S = 5.0  # after a look is due it has been taken up
_MAY_BE_MADE_AGAIN = frozenset({DeliveryState.FAILED, DeliveryState.CANCELLED})


def deliver_results(unit: Unit, job: JobRow, results: Sequence[ResultRow]) -> None:
    """Makes the deliveries of a job's results; what a destination has already, or soon will, is not sent again.

    Call it after `superseded_by` was set: what this job's results supersede is not sent any more.
    """
    _withdraw(unit, job)
    of_rule = _of_rule(job)
    for result in (result for result in results if of_rule and result.kind not in of_rule):
        _tell(
            unit, result, "delivery.unwanted", f"{result.kind} kept here and not sent: its rule does not want it sent"
        )
    for name in job.destinations:
        destination = destination_in_force(unit, name)
        for result in (result for result in results if not of_rule or result.kind in of_rule):
            if destination is None:
                words = f"{result.kind} not sent: there is no destination {name} any more"
                _tell(unit, result, "delivery.skipped", words)
            elif result.kind in wanted_kinds(of_rule, parse_options(destination.options).wanted):
                _deliver(unit, result, destination)
            elif result.kind in OWN_KINDS:
                words = f"{result.kind} not sent to {name}: its profile {parse_options(destination.options).profile} "
                _tell(unit, result, "delivery.unwanted", f"{words}does not take it")


def forms_for(unit: Unit, job: JobRow) -> tuple[str, ...]:
    """What has to be made beside what the model gives, for the destinations as they are now."""
    rows = [destination_in_force(unit, name) for name in job.destinations]
    profiles = [parse_options(row.options).wanted for row in rows if row is not None]
    return wanted_forms(_of_rule(job), profiles)


def _of_rule(job: JobRow) -> tuple[str, ...]:
    """The kinds that the rule names; a job of before rules could name any has none."""
    return tuple((job.options or {}).get("objects", ()))


def _withdraw(unit: Unit, job: JobRow) -> None:
    """Cancels what was not sent yet of the results that this job's supersede, which are of the same series."""
    query = (
        sa.select(DeliveryRow)
        .join(ResultRow, DeliveryRow.result_id == ResultRow.id)
        .join(JobRow, ResultRow.job_id == JobRow.id)
        .where(JobRow.series_id == job.series_id, ResultRow.superseded_by == job.id)
        .where(DeliveryRow.state.in_(NOT_YET_SENT))
    )
    for row in unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)).all():
        cancel_delivery(unit, row, _superseded(job.id))


def _superseded(job_id: str) -> str:
    return f"the result of job {job_id} supersedes it"


def _deliver(unit: Unit, result: ResultRow, destination: DestinationRow) -> None:
    there = _deliveries_to(unit, result, destination)
    settled = next((d for d in there if d.state not in _MAY_BE_MADE_AGAIN), None)
    same = next((d for d in there if d.destination_id == destination.id), None)
    if settled is not None:
        where = "is there already" if settled.state in ARRIVED_DELIVERY_STATES else "is on its way"
        tell_delivery(unit, settled, "delivery.kept", f"not sent again: the same object {where}")
    elif same is not None:
        retry_delivery(unit, same)
    else:
        _make(unit, result, destination)


def _deliveries_to(unit: Unit, result: ResultRow, destination: DestinationRow) -> list[DeliveryRow]:
    """Of a result to a place, also under a destination that was removed and added again."""
    query = (
        sa.select(DeliveryRow)
        .join(DestinationRow, DeliveryRow.destination_id == DestinationRow.id)
        .where(DeliveryRow.result_id == result.id)
        .where(DestinationRow.kind == destination.kind, DestinationRow.address == destination.address)
    )
    return list(unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)))


def _make(unit: Unit, result: ResultRow, destination: DestinationRow) -> None:
    row = DeliveryRow(
        id=secrets.token_hex(8),
        result_id=result.id,
        destination_id=destination.id,
        state=DeliveryState.QUEUED,
        run=0,
        since=unit.now(),
    )
    unit.session.add(row)
    unit.session.flush()
    _tell(unit, result, "delivery.made", f"{result.kind} queued for {destination.name}", delivery_id=row.id)
    _enqueue(unit, row, delay_s=0.0)


def start_delivery(unit: Unit, delivery_id: str, run: int | None) -> DeliveryWork | None:
    row = locked_delivery(unit, delivery_id)
    if row is None or row.state not in OPEN_DELIVERY_STATES or run not in (None, row.run):
        return None
    if not _follow(unit, row):
        return None
    if outages.turn_of(unit, row.destination) is Turn.PARK:
        _park(unit, row)
        return None
    row.state = next_delivery_state(row.state, DeliveryEvent.START)
    row.attempts, row.next_attempt_at, row.sending_since = row.attempts + 1, None, unit.now()
    result, destination = row.result, destination_of(row.destination)
    return DeliveryWork(row.id, result.job_id, destination, stored_result(result), row.attempts)


def _park(unit: Unit, row: DeliveryRow) -> None:
    """It waits for its destination with the others, without an attempt of its own."""
    now = unit.now()
    aged = (now - row.since).total_seconds() >= DELIVERY_GIVE_UP_AFTER_S
    if aged and row.state is DeliveryState.WAITING:
        _fail(unit, row, f"given up after 72 hours: {row.reason}")
        return
    row.state = next_delivery_state(row.state, DeliveryEvent.POSTPONE)
    row.reason = f"{row.destination.name} is away: {row.destination.down_words}"
    wait_s = outages.parked_s if _another_looks(unit, row) else outages.probe_in_s
    delay_s = wait_s(row.destination, now)
    row.next_attempt_at = now + timedelta(seconds=delay_s)
    _enqueue(unit, row, delay_s)


def _another_looks(unit: Unit, row: DeliveryRow) -> bool:
    """Whether a delivery is at it, or will be when the next look is due; those that looked may all be cancelled."""
    probe_at = row.destination.probe_at
    assert probe_at is not None
    due = DeliveryRow.next_attempt_at <= probe_at + timedelta(seconds=DUE_S)
    looks = sa.or_(
        DeliveryRow.state == DeliveryState.SENDING, sa.and_(DeliveryRow.state == DeliveryState.WAITING, due)
    )
    query = sa.select(DeliveryRow.id).where(
        DeliveryRow.destination_id == row.destination_id, DeliveryRow.id != row.id, looks
    )
    return unit.session.scalar(query.limit(1)) is not None


def may_send(session: Session, delivery_id: str) -> bool:
    """Whether no more than its destination's number of associations are before it: those that began first go."""
    row = session.get_one(DeliveryRow, delivery_id)
    most = destination_of(row.destination).options.associations
    if not most or row.sending_since is None:
        return True
    before = sa.or_(
        DeliveryRow.sending_since < row.sending_since,
        sa.and_(DeliveryRow.sending_since == row.sending_since, DeliveryRow.id < row.id),
    )
    query = sa.select(sa.func.count()).where(
        DeliveryRow.destination_id == row.destination_id, DeliveryRow.state == DeliveryState.SENDING, before
    )
    return (session.scalar(query) or 0) < most


def _follow(unit: Unit, row: DeliveryRow) -> bool:
    """To the address that its destination has now; False when it has none, and the delivery is cancelled."""
    if row.destination.in_force:
        return True
    destination = destination_in_force(unit, row.destination.name)
    if destination is None:
        cancel_delivery(unit, row, "its destination was removed")
        return False
    return _moved(unit, row, destination)


def move_delivery(unit: Unit, row: DeliveryRow, destination: DestinationRow) -> None:
    """One that is not sent yet goes there, and at once: the address it waited for is of the past."""
    if _moved(unit, row, destination) and row.state is DeliveryState.WAITING:
        retry_delivery(unit, row)


def _moved(unit: Unit, row: DeliveryRow, destination: DestinationRow) -> bool:
    """False when the same object is on its way there already, and this delivery is cancelled."""
    if _is_known_there(unit, row, destination):
        cancel_delivery(unit, row, "another delivery takes the same object there")
        return False
    row.destination = destination
    unit.session.flush()
    tell_delivery(unit, row, "delivery.moved", f"goes to {destination_of(destination).shown} now")
    return True


def _is_known_there(unit: Unit, row: DeliveryRow, destination: DestinationRow) -> bool:
    query = sa.select(DeliveryRow.id).where(
        DeliveryRow.result_id == row.result_id, DeliveryRow.destination_id == destination.id
    )
    return unit.session.scalar(query) is not None


def is_taken_over(unit: Unit, row: DeliveryRow) -> bool:
    """Whether another delivery is there of the same object, to the address that its destination has now."""
    destination = destination_in_force(unit, row.destination.name)
    return (
        destination is not None and destination.id != row.destination_id and _is_known_there(unit, row, destination)
    )


def deliver_missing(unit: Unit, job: JobRow) -> int:
    """To destinations that were not there when the job finished, and are now. How many are queued."""
    results = [result for result in job.results if not result.superseded_by]
    made = 0
    for name in job.destinations:
        if (destination := destination_in_force(unit, name)) is None:
            continue
        kinds = wanted_kinds(_of_rule(job), parse_options(destination.options).wanted)
        for result in (result for result in results if result.kind in kinds):
            if name not in {delivery.destination.name for delivery in result.deliveries}:
                _deliver(unit, result, destination)
                made += 1
    return made


def finish_delivery(unit: Unit, delivery_id: str, outcome: DeliveryOutcome, attempt: int | None) -> None:
    row = locked_delivery(unit, delivery_id)
    if row is None or row.state not in OPEN_DELIVERY_STATES or attempt not in (None, row.attempts):
        return  # cancelled meanwhile, or another process has it now
    match outcome:
        case Delivered():
            _delivered(unit, row, outcome)
        case NotDelivered():
            _not_delivered(unit, row, outcome)
        case NotYet():
            row.state = next_delivery_state(row.state, DeliveryEvent.POSTPONE)
            row.attempts, row.next_attempt_at = row.attempts - 1, unit.now() + timedelta(seconds=outcome.delay_s)
            _enqueue(unit, row, outcome.delay_s)


def _delivered(unit: Unit, row: DeliveryRow, outcome: Delivered) -> None:
    row.state = next_delivery_state(row.state, DeliveryEvent.DELIVER)
    row.reason, row.failure, row.delivered_at = outcome.status, "", unit.now()
    tell_delivery(unit, row, "delivery.sent", f"sent: {outcome.status}")
    _expect_proof(unit, row)
    if outages.answers(unit, row.destination):
        release_waiting(unit, row.destination)


def _expect_proof(unit: Unit, row: DeliveryRow) -> None:
    """Soon, if the destination is to be asked and is not known to be unable to answer."""
    options, now = parse_options(row.destination.options), unit.now()
    wish = options.commitment if row.destination.kind == "dimse" else options.verify
    row.asks, row.ask_at, row.proven_at, row.proof_words = 0, None, None, ""
    if wish is Wish.NO:
        return
    until = row.destination.unprovable_until
    if wish is Wish.AUTO and until is not None and now < until:
        row.proof_words = row.destination.unprovable_words
        return
    row.ask_at = now + timedelta(seconds=PROOF_FIRST_S)


def release_waiting(unit: Unit, destination: DestinationRow) -> int:
    """What waits for a destination that is back goes into the queue, which keeps to its limits. How many."""
    query = sa.select(DeliveryRow).where(
        DeliveryRow.destination_id == destination.id, DeliveryRow.state == DeliveryState.WAITING
    )
    waiting = unit.session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)).all()
    for row in waiting:
        row.next_attempt_at = unit.now()
        _enqueue(unit, row, delay_s=0.0)
    return len(waiting)


def _not_delivered(unit: Unit, row: DeliveryRow, outcome: NotDelivered) -> None:
    now, again = unit.now(), row.failure == outcome.failure
    row.reason, row.failure = outcome.reason, outcome.failure
    if row.result.superseded_by:
        cancel_delivery(unit, row, f"{_superseded(row.result.superseded_by)}, and {outcome.reason}")
        return
    away = outcome.retryable and is_of_the_destination(outcome.failure)
    back = False
    if away:
        outages.is_away(unit, row.destination, outcome.reason)
    elif outcome.failure:
        back = outages.answers(unit, row.destination)
    age_s = (now - row.since).total_seconds()
    delay_s = delivery_backoff_s(row.attempts, age_s) if outcome.retryable else None
    if delay_s is None:
        _fail(unit, row, outcome.reason)
    else:
        _postpone(unit, row, outages.probe_in_s(row.destination, now) if away else delay_s, quietly=away and again)
    if back:
        release_waiting(unit, row.destination)


def _postpone(unit: Unit, row: DeliveryRow, delay_s: float, quietly: bool) -> None:
    """`quietly`: the same failure again adds no line to the story, an archive may be away for days."""
    row.state = next_delivery_state(row.state, DeliveryEvent.POSTPONE)
    row.next_attempt_at = unit.now() + timedelta(seconds=delay_s)
    words = f"waiting: {row.reason}; attempt {row.attempts + 1} in {delay_s:.0f} s"
    if not quietly:
        tell_delivery(unit, row, "delivery.waiting", words, next_attempt_at=row.next_attempt_at.isoformat())
    _enqueue(unit, row, delay_s)


def _fail(unit: Unit, row: DeliveryRow, reason: str) -> None:
    row.state = next_delivery_state(row.state, DeliveryEvent.FAIL)
    row.reason, row.next_attempt_at, row.ask_at = reason, None, None
    tell_delivery(unit, row, "delivery.failed", f"failed: {reason}")
    _probe_by_another(unit, row)


def send_again(unit: Unit, row: DeliveryRow, reason: str) -> None:
    """Of one that was sent, and is not there."""
    row.state = next_delivery_state(row.state, DeliveryEvent.LOSE)
    row.reason, row.failure, row.since = reason, str(FailureKind.NOT_COMMITTED), unit.now()
    row.attempts, row.ask_at, row.next_attempt_at = 0, None, unit.now()
    tell_delivery(unit, row, "delivery.lost", f"sent again: {reason}")
    _enqueue(unit, row, delay_s=0.0)


def give_up_sent(unit: Unit, row: DeliveryRow, reason: str) -> None:
    """Of one that was sent, and is not kept however often."""
    row.failure = str(FailureKind.NOT_COMMITTED)
    _fail(unit, row, reason)


def retry_delivery(unit: Unit, row: DeliveryRow) -> None:
    """Back to the queue, as if new, for the address that its destination has now.

    Raises NotFound, IllegalTransition.
    """
    destination = destination_in_force(unit, row.destination.name)
    if destination is None:
        raise NotFound(f"there is no destination {row.destination.name} any more")
    row.destination = destination
    unit.session.flush()
    row.state = next_delivery_state(row.state, DeliveryEvent.RETRY)
    row.attempts, row.reason, row.since, row.next_attempt_at = 0, "", unit.now(), None
    row.failure, row.ask_at, row.proof_words, row.proven_at, row.losses = "", None, "", None, 0
    outages.look_now(unit, destination)
    tell_delivery(unit, row, "delivery.retried", "queued again")
    _enqueue(unit, row, delay_s=0.0)


def cancel_delivery(unit: Unit, row: DeliveryRow, reason: str) -> None:
    """Raises IllegalTransition."""
    row.state = next_delivery_state(row.state, DeliveryEvent.CANCEL)
    row.reason, row.next_attempt_at, row.ask_at = reason, None, None
    tell_delivery(unit, row, "delivery.cancelled", f"cancelled: {reason}")
    _probe_by_another(unit, row)


def _probe_by_another(unit: Unit, row: DeliveryRow) -> None:
    """The one that looked whether its destination is back may be this one, which does so no more."""
    if row.destination.down_since is None or not row.destination.in_force:
        return
    waiting = sa.select(DeliveryRow).where(
        DeliveryRow.destination_id == row.destination_id,
        DeliveryRow.state == DeliveryState.WAITING,
        DeliveryRow.id != row.id,
    )
    other = unit.session.scalar(waiting.order_by(DeliveryRow.next_attempt_at, DeliveryRow.id).limit(1))
    if other is not None:
        delay_s = outages.probe_in_s(row.destination, unit.now())
        other.next_attempt_at = unit.now() + timedelta(seconds=delay_s)
        _enqueue(unit, other, delay_s)


def requeue_delivery(unit: Unit, delivery_id: str, run: int) -> bool:
    """A new ticket for a delivery whose ticket `run` the engine lost; False if things went on meanwhile."""
    row = locked_delivery(unit, delivery_id)
    if row is None or row.state not in OPEN_DELIVERY_STATES or row.run != run:
        return False
    tell_delivery(unit, row, "delivery.requeued", "the queue had lost it")
    _enqueue(unit, row, delay_s=0.0)
    return True


def _enqueue(unit: Unit, row: DeliveryRow, delay_s: float) -> None:
    row.run += 1
    destination = unit.session.get_one(DestinationRow, row.destination_id)
    result = unit.session.get_one(ResultRow, row.result_id)
    priority = unit.session.get_one(JobRow, result.job_id).priority.rank
    unit.queue.add_delivery(
        unit.session, row.id, row.run, destination=destination.name, priority=priority, delay_s=delay_s
    )


def locked_delivery(unit: Unit, delivery_id: str) -> DeliveryRow | None:
    return unit.session.scalar(sa.select(DeliveryRow).where(DeliveryRow.id == delivery_id).with_for_update())


def destination_in_force(unit: Unit, name: str) -> DestinationRow | None:
    return unit.session.scalar(sa.select(DestinationRow).where(DestinationRow.name == name, DestinationRow.in_force))


def destination_of(row: DestinationRow) -> Destination:
    return Destination(row.name, parse_address(row.kind, row.address), parse_options(row.options))


def stored_result(row: ResultRow) -> StoredResult:
    return StoredResult(
        kind=row.kind,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        path=row.path,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )


def tell_delivery(unit: Unit, row: DeliveryRow, kind: str, words: str, **detail: Any) -> None:
    """A line about a delivery, as in "SEG to archive: delivered"."""
    result = unit.session.get_one(ResultRow, row.result_id)
    destination = unit.session.get_one(DestinationRow, row.destination_id)
    _tell(unit, result, kind, f"{result.kind} to {destination.name}: {words}", delivery_id=row.id, detail=detail)


def _tell(unit: Unit, result: ResultRow, kind: str, message: str, **more: Any) -> None:
    series = unit.session.get_one(JobRow, result.job_id).series
    unit.tell(
        kind,
        message,
        study_instance_uid=series.study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        job_id=result.job_id,
        **more,
    )
