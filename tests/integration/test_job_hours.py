"""Jobs with hours, on the real engine: a ticket that comes too early starts nothing and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.db.tables import JobRow
from dicomnode.adapters.queue import DbosQueue
from dicomnode.adapters.queue.engine import DbosJobEngine
from dicomnode.domain.job import JobState
from dicomnode.ports import Delivered, DeliveryOutcome, DeliveryWork, JobOutcome, JobWork
from tests.adapters.state_material import ARCHIVE, STUDY, finished, routed


class Handlers:
    def __init__(self) -> None:
        self.performed: list[str] = []

    def perform(self, work: JobWork) -> JobOutcome:
        self.performed.append(work.job_id)
        return finished(work.series.series_instance_uid[-1], work.series.series_instance_uid)

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome:
        return Delivered("0x0000")


@pytest.fixture
def state(migrated_url: str) -> Iterator[SqlState]:
    with DbosQueue(migrated_url) as queue, open_state(migrated_url, queue) as state:
        state.add_destination(ARCHIVE)
        yield state


def test_a_job_waits_for_its_hour_and_others_do_not(migrated_url: str, state: SqlState) -> None:
    later, now = routed(state, f"{STUDY}.1"), routed(state, f"{STUDY}.2")
    begins = datetime.now(UTC) + timedelta(seconds=4)
    with state.engine.begin() as connection:
        connection.execute(sa.update(JobRow).where(JobRow.id == later).values(not_before=begins))
    handlers = Handlers()
    with DbosJobEngine(migrated_url, state, handlers, stop_timeout_s=1) as engine:
        assert engine.wait_idle(60)
    assert handlers.performed == [now, later]
    job = state.job(later)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
    assert job.started_at is not None
    assert job.started_at >= begins
