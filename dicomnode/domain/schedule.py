"""When a job may start: daily hours by the clock on the node's wall, over midnight and over changes of the clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from dicomnode.domain.rules import Window

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_DAYS_AHEAD = 3  # hours that the clock jumps over today are there tomorrow


def parse_window(text: str) -> Window:
    """20:00-06:00; raises ValueError with what is wrong in words."""
    match = _WINDOW.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is neither now nor daily hours such as 20:00-06:00")
    window = Window(time(int(match[1]), int(match[2])), time(int(match[3] or 0), int(match[4] or 0)))
    if window.start == window.end:
        raise ValueError(f"{text!r} is the whole day or no time at all; say now if any time will do")
    return window


def next_start(windows: Sequence[Window], now: datetime) -> datetime | None:
    """The next moment in one of the windows, in UTC; None when it is now, or when there are no windows.

    `now` is aware, in a zone that knows its changes of the clock: NODE_ZONE or a ZoneInfo. Hours that the clock
    jumps over are left out that day; if only the start is jumped over, it comes later by as much as the jump.
    """
    if not windows or _is_open(windows, now):
        return None
    zone, moment = now.tzinfo, now.astimezone(UTC)
    assert zone is not None, "an aware datetime is needed"
    days = [now.date() + timedelta(days=ahead) for ahead in range(_DAYS_AHEAD)]
    starts = (start for window in windows for day in days for start in _starts(window, day, zone))
    return min(s for s in starts if s > moment and _is_open(windows, s.astimezone(zone)))


def _starts(window: Window, day: date, zone: tzinfo) -> Iterator[datetime]:
    """Twice when the clock is put back over it (PEP 495)."""
    for fold in (0, 1):
        yield datetime.combine(day, window.start.replace(fold=fold), zone).astimezone(UTC)


def _is_open(windows: Sequence[Window], now: datetime) -> bool:
    return any(_within(window, now.time()) for window in windows)


def _within(window: Window, clock: time) -> bool:
    if window.start < window.end:
        return window.start <= clock < window.end
    return clock >= window.start or clock < window.end


class _NodeZone(tzinfo):
    """The time zone that this computer is set to, with its changes of the clock, past and to come.

    datetime.astimezone() without a zone gives a fixed offset, which is wrong on the other side of a change.
    """

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return moment.replace(tzinfo=None).astimezone().utcoffset() if moment else None

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None  # not asked for: the offset is all that converting takes

    def tzname(self, moment: datetime | None) -> str | None:
        return moment.replace(tzinfo=None).astimezone().tzname() if moment else None

    def fromutc(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)


NODE_ZONE: tzinfo = _NodeZone()
