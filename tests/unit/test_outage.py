"""An outage of the database: the screen says so once and goes on, the worker's loops begin again."""

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError

from dicomnode.node import roles, up
from dicomnode.ports import Event, State


def _outage() -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception("connection refused"))


class _State(State):
    """Answers, is away twice, answers again."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop, self._asked = stop, 0

    def last_event_number(self) -> int:
        return 0

    def events_after(self, number: int, most: int = 200) -> list[tuple[int, Event]]:
        self._asked += 1
        if self._asked in {2, 3}:
            raise _outage()
        if self._asked == 4:
            self._stop.set()
        return [(self._asked, Event(at=datetime.now(UTC), kind="job.finished", message=f"event {self._asked}"))]


def test_the_screen_goes_on_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "FEED_POLL_S", 0.0)
    stop, lines = threading.Event(), []
    up._feed(_State(stop), lambda line: lines.append(line.text), stop)  # type: ignore[abstract]
    away, back = lines[1:3]
    assert [lines[0], lines[3]] == ["event 1", "event 4"]
    assert "away" in away
    assert "connection refused" in away
    assert "back" in back
    assert len(lines) == 4


def test_a_loop_begins_again_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "OUTAGE_POLL_S", 0.0)
    failures = [_outage(), _outage()]
    ended = []

    def loop() -> None:
        if failures:
            raise failures.pop()
        ended.append(True)

    roles.outlast(loop, threading.Event())
    assert ended == [True]


def test_a_loop_with_a_bug_ends() -> None:
    def loop() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        roles.outlast(loop, threading.Event())
