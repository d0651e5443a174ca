"""The States that the suites run on: SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomnode.adapters.db.repositories import open_state
from dicomnode.domain.study import SeriesState
from dicomnode.ports import State
from tests.adapters.state_material import (
    SERIES,
    STUDY,
    RecordingQueue,
)

OTHER = f"{STUDY}.2"


@dataclass
class Bench:
    """A State and what it put into the queue."""

    state: State
    queue: RecordingQueue


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "postgresql":
        url = request.getfixturevalue("emptied_postgresql")
    else:
        url = f"sqlite:///{tmp_path / 'state.db'}"
        (tmp_path / "state.db").write_bytes(request.getfixturevalue("migrated_sqlite").read_bytes())
    queue = RecordingQueue()
    with open_state(url, queue) as state:
        yield Bench(state, queue)


@pytest.fixture
def state(bench: Bench) -> State:
    return bench.state


def series_state(state: State, series: str = SERIES) -> SeriesState:
    return next(s.state for s in state.study(STUDY).series if s.series_instance_uid == series)


def kinds(state: State) -> list[str]:
    return [event.kind for event in state.events(STUDY)]
