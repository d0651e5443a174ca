"""Daily hours: by the clock on the wall, over midnight and over changes of the clock."""

from __future__ import annotations

import time as system
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.rules import Window, window_text
from dicomnode.domain.schedule import NODE_ZONE, next_start, parse_window
from tests.unit.rule_strategies import windows

BERLIN = ZoneInfo("Europe/Berlin")  # 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00
MINUTE = timedelta(minutes=1)


def _at(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


def _start(hours: str | list[str], now: datetime) -> str | None:
    start = next_start([parse_window(h) for h in ([hours] if isinstance(hours, str) else hours)], now)
    assert start is None or start.tzinfo is UTC
    return f"{start.astimezone(BERLIN):%d %H:%M}" if start else None


# ----------------------------------------------------------------------------------------------- reading


def test_hours_are_read() -> None:
    assert parse_window("20:00-06:30") == Window(time(20), time(6, 30))
    assert parse_window(" 08:15 - 12:00 ") == Window(time(8, 15), time(12))
    assert parse_window("20:00-24:00") == Window(time(20), time(0))


@given(windows)
def test_hours_that_are_printed_read_back(window: Window) -> None:
    assert parse_window(window_text(window)) == window


@pytest.mark.parametrize(
    "text", ["", "20:00", "20-06", "8:00-9:00", "24:00-06:00", "20:60-21:00", "20:00-25:00", "20:00-06:00 daily"]
)
def test_what_are_no_hours_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 20:00-06:00"):
        parse_window(text)


@pytest.mark.parametrize("text", ["06:00-06:00", "00:00-24:00"])
def test_hours_without_an_end_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="say now"):
        parse_window(text)


# ------------------------------------------------------------------------------------------- an ordinary day


@pytest.mark.parametrize(
    ("hours", "now", "start"),
    [
        ([], "12:00", None),
        ("08:00-12:00", "08:00", None),
        ("08:00-12:00", "11:59:59", None),
        ("08:00-12:00", "12:00", "22 08:00"),
        ("08:00-12:00", "07:59", "21 08:00"),
        ("20:00-06:00", "23:30", None),
        ("20:00-06:00", "00:00", None),
        ("20:00-06:00", "05:59", None),
        ("20:00-06:00", "06:00", "21 20:00"),
        ("20:00-00:00", "00:00", "21 20:00"),
        (["20:00-06:00", "12:00-13:00"], "07:00", "21 12:00"),
        (["20:00-06:00", "12:00-13:00"], "13:00", "21 20:00"),
    ],
)
def test_the_next_start(hours: str | list[str], now: str, start: str | None) -> None:
    assert _start(hours, _at(f"2026-11-21T{now}")) == start


# ---------------------------------------------------------------------------------- changes of the clock


@pytest.mark.parametrize(
    ("hours", "now", "start"),
    [
        ("02:15-02:45", "2026-03-29T01:00", "30 02:15"),  # there is no such time on the 29th
        ("02:30-06:00", "2026-03-29T01:00", "29 03:30"),  # never before the hours, nor after them
        ("04:00-06:00", "2026-03-28T23:00", "29 04:00"),
        ("22:00-02:30", "2026-03-29T03:00", "29 22:00"),
        ("04:00-06:00", "2026-10-24T23:00", "25 04:00"),
    ],
)
def test_days_on_which_the_clock_changes(hours: str, now: str, start: str) -> None:
    assert _start(hours, _at(now)) == start


def test_an_hour_that_is_there_twice_is_open_twice() -> None:
    window = [parse_window("02:15-02:45")]
    first, second = _at("2026-10-25T02:15"), _at("2026-10-25T02:15", fold=1)
    assert next_start(window, _at("2026-10-25T02:00")) == first.astimezone(UTC)
    assert next_start(window, _at("2026-10-25T02:50")) == second.astimezone(UTC)
    assert next_start(window, _at("2026-10-25T02:50", fold=1)) == _at("2026-10-26T02:15").astimezone(UTC)


def _opens(several: list[Window], now: datetime) -> datetime | None:
    """Found by walking through the minutes."""
    moment = now.astimezone(UTC).replace(second=0, microsecond=0)
    for step in range(3 * 24 * 60):
        if next_start(several, (moment + step * MINUTE).astimezone(BERLIN)) is None:
            return moment + step * MINUTE if step else None
    raise AssertionError("never")


_nights = st.sampled_from(["2026-03-27T20:00", "2026-10-23T20:00", "2026-11-20T20:00"])


@given(st.lists(windows, min_size=1, max_size=2), _nights, st.integers(0, 3 * 24 * 60))
def test_it_is_the_first_minute_that_is_in_the_hours(several: list[Window], night: str, minutes: int) -> None:
    now = (_at(night).astimezone(UTC) + minutes * MINUTE).astimezone(BERLIN)
    start, first = next_start(several, now), _opens(several, now)
    if start is None or first is None:
        assert start is first
        return
    assert next_start(several, start.astimezone(BERLIN)) is None
    jumped_over = _at("2026-03-29T01:59").astimezone(UTC) < first < _at("2026-03-29T04:00").astimezone(UTC)
    assert start == first or (jumped_over and timedelta() < start - first < timedelta(hours=1))


# --------------------------------------------------------------------------------------- the node's own zone


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    system.tzset()
    yield
    monkeypatch.undo()
    system.tzset()


@pytest.mark.usefixtures("in_berlin")
@given(st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1)))
def test_the_nodes_zone_knows_when_the_clock_changes(moment: datetime) -> None:
    utc = moment.replace(tzinfo=UTC)
    here, there = utc.astimezone(NODE_ZONE), utc.astimezone(BERLIN)
    assert (here.replace(tzinfo=None), here.fold, here.utcoffset()) == (
        there.replace(tzinfo=None),
        there.fold,
        there.utcoffset(),
    )
    assert here.astimezone(UTC) == utc


@pytest.mark.usefixtures("in_berlin")
def test_hours_tomorrow_are_those_after_the_change_of_the_clock() -> None:
    now = datetime(2026, 3, 28, 22, tzinfo=UTC).astimezone(NODE_ZONE)
    assert next_start([parse_window("04:00-06:00")], now) == datetime(2026, 3, 29, 2, tzinfo=UTC)
    assert next_start([parse_window("02:15-02:45")], now) == datetime(2026, 3, 30, 0, 15, tzinfo=UTC)
