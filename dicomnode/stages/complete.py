"""When a series is complete, and that it is then routed, whoever dies in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from dicomnode.domain.study import Series
from dicomnode.errors import DicomNodeError
from dicomnode.ports import Clock, Event, State
from dicomnode.stages.route import RouteStage

LOG = logging.getLogger(__name__)
LEFTOVERS_EVERY_S = 30.0


class Completer:
    """Closes series in which nothing arrives any more and routes them. Several may run on one database."""

    def __init__(self, state: State, route: RouteStage, clock: Clock, quiet_period_s: float) -> None:
        self._state, self._route, self._clock = state, route, clock
        self._quiet_period_s = quiet_period_s
        self._told: dict[str, str] = {}  # series → its last failure, so that the story says it once

    def sweep(self) -> int:
        """Closes and routes what is quiet; how many series that were."""
        closed = 0
        for uid in self._state.quiet_series(self._quiet_period_s):
            series = self._state.complete_series(uid, self._quiet_period_s)
            if series is not None:
                closed += 1
                self._route_one(series)
        return closed

    def resume(self) -> int:
        """Routes what was closed but never routed; how many series that were."""
        return self._route_all(self._state.complete_unrouted())

    def run(self, stop: threading.Event, poll_s: float = 0.25) -> None:
        """Until told to stop. Leftovers are looked for at the start and now and then: other hosts die too."""
        resumed_at_s: float | None = None
        while not stop.is_set():
            if resumed_at_s is None or self._clock.monotonic() - resumed_at_s >= LEFTOVERS_EVERY_S:
                self.resume()
                resumed_at_s = self._clock.monotonic()
            if not self.sweep():
                stop.wait(poll_s)

    def _route_all(self, all_series: Iterable[Series]) -> int:
        return sum(self._route_one(series) for series in all_series)

    def _route_one(self, series: Series) -> bool:
        """A series that cannot be routed stays complete and is tried again as a leftover; the others go on."""
        try:
            self._route.route(series)
        except (DicomNodeError, OSError) as error:
            LOG.warning("series %s was not routed: %s", series.series_instance_uid, error)
            self._tell(series, error)
            return False
        self._told.pop(series.series_instance_uid, None)
        return True

    def _tell(self, series: Series, error: Exception) -> None:
        if self._told.get(series.series_instance_uid) == str(error):
            return
        self._told[series.series_instance_uid] = str(error)
        event = Event(
            at=self._clock.now(),
            kind="series.routing-failed",
            message=f"Routing failed and will be tried again: {error}",
            study_instance_uid=series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            detail={"code": getattr(error, "code", type(error).__name__)},
        )
        self._state.record_event(event)
