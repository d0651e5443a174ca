"""When a series, and a study, is complete, and that it is then routed, whoever dies in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

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
from dicomnode.domain.rules import classes_asked
from dicomnode.domain.source import Source
from dicomnode.errors import DicomNodeError, InvalidRule
from dicomnode.ports import Clock, RuleRevision, State
from dicomnode.stages.counting import InstanceCounter, NoCounter, SourceQuestions
from dicomnode.stages.route_beside import AtOnce, Router, Routings

LOG = logging.getLogger(__name__)
LEFTOVERS_EVERY_S = 3.0
CLASSIFIED_EVERY_S = 0.25
LEFT_OVER_S = 30.0  # for so long what is complete may be under way in a worker, its own or another one's
SOURCES_EVERY_S = 2.0
RULES_EVERY_S = 2.0
POLL_LEAST_S = 0.01
GROWING_POLL_S = 0.03  # where images come in: the sender's release, from which results are waited for, is near
_REST = 3.0  # times as long as a sweep took: with hundreds of series at once a sweep is not for nothing
_REST_MOST_S = 2.0


class Expecting(Protocol):
    """What wants to know early; stages.ahead.Ahead does."""

    def expect(self, series_instance_uid: str, instances: int) -> None:
        """The series will most likely be complete with so many; called often, and returns at once."""

    def arriving(self, series_instance_uid: str, instances: int) -> None:
        """Of the series there are so many, and more will come; as expect."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A stack as it was with so many instances."""

    instances: int
    stack: Stack


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the rules in force look at beside a series itself."""

    studies: bool = False
    classes: bool = False


def _wanted(revisions: Iterable[RuleRevision]) -> _Wanted:
    """One that cannot be read is told of when it is asked."""
    rules = []
    for revision in revisions:
        with suppress(InvalidRule):
            rules.append(parse_rule(revision.document))
    return _Wanted(any(rule.needs_study for rule in rules), any(map(classes_asked, rules)))


class Completer:
    """Closes what is complete by its signs and routes it. Several may run on one database.

    `policy` may be the quiet period alone, in seconds. `sources` gives the settings by calling AE title. `executor`,
    which is its own then, routes; without one the sweep waits for each.
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
        expecting: Expecting | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._state, self._clock, self._expecting = state, clock, expecting
        self._routings = Routings(state, route, clock, executor or AtOnce())
        self._policy = policy if isinstance(policy, Policy) else Policy(quiet_period_s=policy)
        self._questions = SourceQuestions(counter or NoCounter(), state, clock)
        self._sources = sources
        self._sources_at_s: float | None = None
        self._seen: dict[str, _Seen] = {}  # by Series Instance UID
        self._arrived: dict[str, int] = {}  # Series Instance UID → instances when it was last looked at
        self._wanted = _Wanted()
        self._wanted_at_s: float | None = None
        self._classified_at_s: float | None = None
        self._again_s = 0.0

    def sweep(self) -> int:
        """Closes what is complete and has it routed; how many series that were."""
        self._routings.check()
        self._learn_sources()
        self._take_up_classified()
        self._again_s = LEFTOVERS_EVERY_S
        receiving = {signs.series_instance_uid: signs for signs in self._state.receiving_series()}
        for uid, counted in self._questions.collect(receiving).items():
            receiving[uid] = replace(receiving[uid], counted=counted)
        closed = sum(self._look_at(signs) for signs in receiving.values())
        studies = self._state.receiving_studies()
        for study in studies:
            self._look_at_study(study)
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in receiving}
        self._arrived = {uid: signs.instances for uid, signs in receiving.items()}
        self._questions.forget_all_but([*receiving.values(), *studies])
        return closed

    def resume(self, older_than_s: float = 0.0) -> int:
        """Has routed what was closed so long ago but never routed; how many series and studies that were."""
        self._routings.check()
        series = sum(map(self._routings.series, self._state.complete_unrouted(older_than_s)))
        studies = self._state.complete_unrouted_studies(older_than_s)
        return series + sum(self._routings.study(uid, generation) for uid, generation in studies)

    def run(self, stop: threading.Event, poll_s: float = 0.1) -> None:
        """Until told to stop. Leftovers are looked for at the start and now and then: other hosts die too."""
        started_s, resumed_at_s = self._clock.monotonic(), None
        while not stop.is_set():
            began_s = self._clock.monotonic()
            if resumed_at_s is None or began_s - resumed_at_s >= LEFTOVERS_EVERY_S:
                # what was there before this worker, whose predecessor may have died, does not wait for so long
                self.resume(min(LEFT_OVER_S, max(LEFTOVERS_EVERY_S, began_s - started_s)))
                resumed_at_s = began_s = self._clock.monotonic()
            if not self.sweep():
                busy_s = self._clock.monotonic() - began_s
                rest_s = min(_REST * busy_s, _REST_MOST_S)
                self._wait(stop, max(rest_s, min(poll_s, max(POLL_LEAST_S, self._again_s))))

    def _take_up_classified(self) -> None:
        """What a classifier's end had put to the rules again does not wait for the leftovers."""
        now_s = self._clock.monotonic()
        if self._classified_at_s is not None and now_s < self._classified_at_s + CLASSIFIED_EVERY_S:
            return
        self._classified_at_s = now_s
        if self._rules_want().classes:
            self.resume(LEFT_OVER_S)

    def close(self) -> None:
        """No more is asked of sources, and no more routed; what is under way ends."""
        self._questions.close()
        self._routings.close()

    def _wait(self, stop: threading.Event, poll_s: float) -> None:
        """Less long when a source answers, or something was routed: its study may be complete."""
        under_way: list[Future[Any]] = [*self._questions.under_way, *self._routings.under_way]
        if under_way:
            wait(under_way, poll_s, FIRST_COMPLETED)
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
        verdict = self._verdict(signs, self._policy)
        if isinstance(verdict, Verdict):
            return self._close(signs, verdict)
        self._expect(signs)
        if Need.COUNT in verdict.needs:
            self._questions.ask(signs, self._policy.source(signs.calling_ae_title))
        self._again_s = min(self._again_s, verdict.again_s)
        if signs.instances != self._arrived.get(signs.series_instance_uid):
            self._again_s = min(self._again_s, GROWING_POLL_S)
        return False

    def _verdict(self, signs: SeriesSigns, policy: Policy) -> Verdict | Wait:
        seen = self._seen.get(signs.series_instance_uid)
        stack = seen.stack if seen is not None and seen.instances == signs.instances else None
        verdict = series_verdict(signs, policy, stack)
        if isinstance(verdict, Wait) and Need.CONTIGUITY in verdict.needs:
            return series_verdict(signs, policy, self._stack(signs))
        return verdict

    def _expect(self, signs: SeriesSigns) -> None:
        if self._expecting is None:
            return
        likely = self._verdict(signs, self._policy.at_once())
        if isinstance(likely, Verdict) and likely.signal is not Signal.QUIET:
            self._expecting.expect(signs.series_instance_uid, signs.instances)
        else:
            self._expecting.arriving(signs.series_instance_uid, signs.instances)

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
        self._routings.series(series)
        return True

    # --------------------------------------------------------------------------------------------- studies

    def _look_at_study(self, signs: StudySigns) -> None:
        signs = replace(signs, counted=self._questions.of_study(signs))
        verdict = study_verdict(signs, self._policy)
        if isinstance(verdict, Wait):
            if Need.COUNT in verdict.needs and self._rules_want().studies:
                self._questions.ask(signs, self._policy.source(signs.calling_ae_title))
            self._again_s = min(self._again_s, verdict.again_s)
            return
        generation = self._state.complete_study(signs.study_instance_uid, verdict)
        if generation is not None:
            self._routings.study(signs.study_instance_uid, generation)

    def _rules_want(self) -> _Wanted:
        """Where none looks at whole studies nobody waits for one, and nobody is asked."""
        now_s = self._clock.monotonic()
        if self._wanted_at_s is None or now_s >= self._wanted_at_s + RULES_EVERY_S:
            self._wanted = _wanted(self._state.enabled_rules())
            self._wanted_at_s = now_s
        return self._wanted
