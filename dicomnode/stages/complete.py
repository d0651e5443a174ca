"""When a series, and a study, is complete, and that it is then routed, whoever dies in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from dicomnode.domain.completeness import (
    Need,
    Policy,
    SeriesSigns,
    Signal,
    Stack,
    StudySigns,
    Verdict,
    Wait,
    series_verdict,
    study_verdict,
)
from dicomnode.domain.contiguity import look_at_stack
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.source import Source
from dicomnode.domain.study import Series
from dicomnode.errors import DicomNodeError, InvalidRule
from dicomnode.ports import Clock, Event, RuleRevision, State
from dicomnode.stages.counting import InstanceCounter, NoCounter, SourceQuestions

LOG = logging.getLogger(__name__)
LEFTOVERS_EVERY_S = 3.0
SOURCES_EVERY_S = 2.0
RULES_EVERY_S = 2.0
POLL_LEAST_S = 0.01
_REST = 3.0  # times as long as a sweep took: with hundreds of series at once a sweep is not for nothing
_REST_MOST_S = 2.0


class Router(Protocol):
    """What is done with what is complete; stages.route.RouteStage does it. Both raise DicomNodeError, OSError."""

    def route(self, series: Series) -> list[str]: ...

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """A stack as it was with so many instances."""

    instances: int
    stack: Stack


def _needs_study(revision: RuleRevision) -> bool:
    """One that cannot be read is told of when it is asked."""
    try:
        return parse_rule(revision.document).needs_study
    except InvalidRule:
        return False


class Completer:
    """Closes what is complete by its signs and routes it. Several may run on one database.

    `policy` may be the quiet period alone, in seconds. `sources` gives the settings by calling AE title.
    """

    def __init__(
        self,
        state: State,
        route: Router,
        clock: Clock,
        policy: Policy | float,
        *,
        counter: InstanceCounter | None = None,
        sources: Callable[[], Mapping[str, Source]] | None = None,
    ) -> None:
        self._state, self._route, self._clock = state, route, clock
        self._policy = policy if isinstance(policy, Policy) else Policy(quiet_period_s=policy)
        self._questions = SourceQuestions(counter or NoCounter(), state, clock)
        self._sources = sources
        self._sources_at_s: float | None = None
        self._seen: dict[str, _Seen] = {}  # by Series Instance UID
        self._told: dict[str, str] = {}  # series or study → its last failure, so that the story says it once
        self._awaited = False
        self._awaited_at_s: float | None = None
        self._again_s = 0.0

    def sweep(self) -> int:
        """Closes and routes what is complete; how many series that were."""
        self._learn_sources()
        self._again_s = LEFTOVERS_EVERY_S
        receiving = {signs.series_instance_uid: signs for signs in self._state.receiving_series()}
        for uid, counted in self._questions.collect(receiving).items():
            receiving[uid] = replace(receiving[uid], counted=counted)
        closed = sum(self._look_at(signs) for signs in receiving.values())
        studies = self._state.receiving_studies()
        for study in studies:
            self._look_at_study(study)
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in receiving}
        self._questions.forget_all_but([*receiving.values(), *studies])
        return closed

    def resume(self) -> int:
        """Routes what was closed but never routed; how many series and studies that were."""
        series = sum(map(self._route_series, self._state.complete_unrouted()))
        return series + self._route_studies(self._state.complete_unrouted_studies())

    def run(self, stop: threading.Event, poll_s: float = 0.1) -> None:
        """Until told to stop. Leftovers are looked for at the start and now and then: other hosts die too."""
        resumed_at_s: float | None = None
        while not stop.is_set():
            if resumed_at_s is None or self._clock.monotonic() - resumed_at_s >= LEFTOVERS_EVERY_S:
                self.resume()
                resumed_at_s = self._clock.monotonic()
            began_s = self._clock.monotonic()
            if not self.sweep():
                busy_s = self._clock.monotonic() - began_s
                rest_s = min(_REST * busy_s, _REST_MOST_S)
                self._wait(stop, max(rest_s, min(poll_s, max(POLL_LEAST_S, self._again_s))))

    def close(self) -> None:
        """No more is asked of sources."""
        self._questions.close()

    def _wait(self, stop: threading.Event, poll_s: float) -> None:
        if self._questions.any_open:
            self._questions.wait(poll_s)
        else:
            stop.wait(poll_s)

    def _learn_sources(self) -> None:
        now_s = self._clock.monotonic()
        if self._sources is None or (self._sources_at_s is not None and now_s < self._sources_at_s + SOURCES_EVERY_S):
            return
        self._sources_at_s = now_s
        try:
            self._policy = replace(self._policy, sources=self._sources())
        except DicomNodeError as error:  # a later version of the node may have written more than this one knows
            LOG.error("the settings of senders stay as they were: %s", error)

    # ---------------------------------------------------------------------------------------------- series

    def _look_at(self, signs: SeriesSigns) -> bool:
        """Whether the series was closed now, by us."""
        signs = replace(signs, counting=self._questions.is_open(signs))
        seen = self._seen.get(signs.series_instance_uid)
        stack = seen.stack if seen is not None and seen.instances == signs.instances else None
        verdict = series_verdict(signs, self._policy, stack)
        if isinstance(verdict, Wait) and Need.CONTIGUITY in verdict.needs:
            verdict = series_verdict(signs, self._policy, self._stack(signs))
        if isinstance(verdict, Verdict):
            return self._close(signs, verdict)
        if Need.COUNT in verdict.needs:
            self._questions.ask(signs, self._policy.source(signs.calling_ae_title))
        self._again_s = min(self._again_s, verdict.again_s)
        return False

    def _stack(self, signs: SeriesSigns) -> Stack:
        places = self._state.places(signs.series_instance_uid)
        stack = look_at_stack(places, signs.modality)
        self._seen[signs.series_instance_uid] = _Seen(len(places), stack)
        return stack

    def _close(self, signs: SeriesSigns, verdict: Verdict) -> bool:
        by_time = verdict.signal is Signal.QUIET
        quiet_s = self._policy.quiet_s(signs.calling_ae_title) if by_time else 0.0
        series = self._state.complete_series(signs.series_instance_uid, quiet_s, verdict)
        if series is None:
            return False
        self._route_series(series)
        return True

    def _route_series(self, series: Series) -> bool:
        """A series that cannot be routed stays complete and is tried again as a leftover; the others go on."""
        about = (series.study_instance_uid, series.series_instance_uid)
        return self._routed(about, lambda: self._route.route(series))

    # --------------------------------------------------------------------------------------------- studies

    def _look_at_study(self, signs: StudySigns) -> None:
        signs = replace(signs, counted=self._questions.of_study(signs))
        verdict = study_verdict(signs, self._policy)
        if isinstance(verdict, Wait):
            if Need.COUNT in verdict.needs and self._is_awaited():
                self._questions.ask(signs, self._policy.source(signs.calling_ae_title))
            self._again_s = min(self._again_s, verdict.again_s)
            return
        generation = self._state.complete_study(signs.study_instance_uid, verdict)
        if generation is not None:
            self._route_studies([(signs.study_instance_uid, generation)])

    def _is_awaited(self) -> bool:
        """Whether a rule in force looks at whole studies; else nobody waits for one, and nobody is asked."""
        now_s = self._clock.monotonic()
        if self._awaited_at_s is None or now_s >= self._awaited_at_s + RULES_EVERY_S:
            self._awaited = any(_needs_study(revision) for revision in self._state.enabled_rules())
            self._awaited_at_s = now_s
        return self._awaited

    def _route_studies(self, studies: Iterable[tuple[str, int]]) -> int:
        return sum(self._route_study(uid, generation) for uid, generation in studies)

    def _route_study(self, uid: str, generation: int) -> bool:
        return self._routed((uid, ""), lambda: self._route.route_study(uid, generation))

    # --------------------------------------------------------------------------------------------- failures

    def _routed(self, about: tuple[str, str], route: Callable[[], object]) -> bool:
        study, series = about
        try:
            route()
        except (DicomNodeError, OSError) as error:
            LOG.warning("%s was not routed: %s", f"series {series}" if series else f"study {study}", error)
            self._tell(study, series, error)
            return False
        self._told.pop(series or study, None)
        return True

    def _tell(self, study: str, series: str, error: Exception) -> None:
        if self._told.get(series or study) == str(error):
            return
        self._told[series or study] = str(error)
        event = Event(
            at=self._clock.now(),
            kind="series.routing-failed" if series else "study.routing-failed",
            message=f"Routing failed and will be tried again: {error}",
            study_instance_uid=study,
            series_instance_uid=series,
            detail={"code": getattr(error, "code", type(error).__name__)},
        )
        self._state.record_event(event)
