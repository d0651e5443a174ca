"""Routes what is complete beside the sweep: a series of thousands of images delays no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from typing import Any, Protocol

from dicomnode.domain.study import Series
from dicomnode.errors import DicomNodeError
from dicomnode.ports import Clock, Event, State

LOG = logging.getLogger(__name__)
ROUTED_AT_ONCE = 4  # reading headers takes one core, whatever the number: it is for the small not to wait for the big


class Router(Protocol):
    """What is done with what is complete; stages.route.RouteStage does it. Both raise DicomNodeError, OSError."""

    def route(self, series: Series) -> list[str]: ...

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]: ...


class AtOnce(Executor):
    """Does what it is given before it goes on."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


_About = tuple[str, str]  # Study Instance UID; Series Instance UID, or "" for the study itself
_Key = tuple[_About, int]  # and its generation: what was opened again meanwhile is routed anew


class Routings:
    """Those that are under way, and what was told of those that failed. Used by one thread, the sweep's."""

    def __init__(self, state: State, route: Router, clock: Clock, executor: Executor) -> None:
        self._state, self._route, self._clock, self._executor = state, route, clock, executor
        self._open: dict[_Key, Future[bool]] = {}
        self._told: dict[_About, str] = {}  # the last failure, so that the story says it once

    def close(self) -> None:
        """What waits for its turn is left over for the next worker; what is under way is waited for."""
        self._executor.shutdown(cancel_futures=True)

    @property
    def under_way(self) -> Collection[Future[bool]]:
        return self._open.values()

    def series(self, series: Series) -> bool:
        """Whether it was routed, or is going to be: one that fails stays complete and is a leftover."""
        about = (series.study_instance_uid, series.series_instance_uid)
        return self._begin(about, series.generation, lambda: self._route.route(series))

    def study(self, study_instance_uid: str, generation: int) -> bool:
        """As series."""
        about = (study_instance_uid, "")
        return self._begin(about, generation, lambda: self._route.route_study(study_instance_uid, generation))

    def check(self) -> None:
        """Forgets those that are over, and raises what one of them ended with: the database is away, it may be."""
        for key, routing in [(key, routing) for key, routing in self._open.items() if routing.done()]:
            del self._open[key]
            if not routing.cancelled():
                routing.result()

    def _begin(self, about: _About, generation: int, route: Callable[[], object]) -> bool:
        if (about, generation) in self._open:
            return False
        routing = self._executor.submit(self._routed, about, route)
        if routing.done():
            return routing.result()
        self._open[about, generation] = routing
        return True

    def _routed(self, about: _About, route: Callable[[], object]) -> bool:
        study, series = about
        try:
            route()
        except (DicomNodeError, OSError) as error:
            LOG.warning("%s was not routed: %s", f"series {series}" if series else f"study {study}", error)
            self._tell(about, error)
            return False
        self._told.pop(about, None)
        return True

    def _tell(self, about: _About, error: Exception) -> None:
        if self._told.get(about) == str(error):
            return
        self._told[about] = str(error)
        study, series = about
        event = Event(
            at=self._clock.now(),
            kind="series.routing-failed" if series else "study.routing-failed",
            message=f"Routing failed and will be tried again: {error}",
            study_instance_uid=study,
            series_instance_uid=series,
            detail={"code": getattr(error, "code", type(error).__name__)},
        )
        self._state.record_event(event)
