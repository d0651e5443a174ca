"""What the rules are asked about a whole study: the evidence of its series and of the patient's earlier studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomnode.domain.class_facts import open_subjects
from dicomnode.domain.conditions import settled
from dicomnode.domain.rules import (
    FACTS_OF_ALL_HEADERS,
    Choice,
    Condition,
    Origin,
    Preference,
    Rule,
    classes_asked,
    facts_in,
)
from dicomnode.domain.study import Evidence, Series
from dicomnode.errors import CannotDecode
from dicomnode.ports import InstanceStore, State
from dicomnode.stages.evidence import first_look, is_open, unreadable, with_all_facts, with_classes, with_notes

PRIORS_MOST = 10


@dataclass(frozen=True, slots=True)
class Found:
    series: dict[str, Series]  # by Series Instance UID
    evidence: list[Evidence]  # of each
    priors: list[list[Evidence]]  # of earlier studies, the newest first


@dataclass(frozen=True, slots=True)
class _Wish:
    """A condition that is asked of a series, and how one of those that fit is then chosen."""

    condition: Condition
    choose: tuple[Preference, ...] = ()

    def needs_all_facts(self, evidence: Evidence) -> bool:
        if is_open(self.condition, evidence):
            return True
        measured = any(preference.choice is Choice.THINNEST_SLICES for preference in self.choose)
        return measured and may_hold(self.condition, evidence)


def may_hold(condition: Condition, evidence: Evidence) -> bool:
    headers = frozenset[str]() if evidence.all_facts else FACTS_OF_ALL_HEADERS
    unknown = headers | open_subjects(facts_in(condition), evidence.facts)
    return settled(condition, evidence.header, evidence.facts, unknown) is not False


class StudyEvidence:
    """Finds it for these rules: what was recorded, completed from the files where a rule needs more, and kept."""

    def __init__(self, state: State, store: InstanceStore, rules: Sequence[Rule]) -> None:
        self._state, self._store, self._rules = state, store, rules

    def find(self, study_instance_uid: str) -> Found:
        series = {s.series_instance_uid: s for s in self._state.study_series(study_instance_uid)}
        kept = {e.series_instance_uid: e for e in self._state.study_evidence(study_instance_uid)}
        wishes = list(_of_study(self._rules))
        evidence = [self._of(one, kept.get(uid), wishes) for uid, one in series.items()]
        if any(map(classes_asked, self._rules)):
            news = self._state.class_news(study_instance_uid)
            evidence = [with_classes(one, news) for one in evidence]
        return Found(series, evidence, self._priors(study_instance_uid, evidence))

    def _of(self, series: Series, kept: Evidence | None, wishes: Sequence[_Wish]) -> Evidence:
        known = kept if kept is not None and kept.generation == series.generation else self._read(series)
        asked = [wish for wish in wishes if not known.no_image]
        found = known
        if not known.all_facts and any(wish.needs_all_facts(known) for wish in asked):
            found = with_all_facts(known, series, self._place)
        if found is not kept:
            self._state.record_evidence(found)
        return with_notes(found)

    def _read(self, series: Series) -> Evidence:
        try:
            return first_look(series, self._place)
        except CannotDecode as error:
            return unreadable(series, str(error))

    def _priors(self, study_instance_uid: str, study: Sequence[Evidence]) -> list[list[Evidence]]:
        """Nothing is looked for that no rule needs."""
        asking = [rule for rule in self._rules if any(may_hold(rule.when, e) for e in study if not e.no_image)]
        wishes = list(_of_priors(asking))
        if not wishes:
            return []
        return [self._prior(uid, wishes) for uid in self._state.prior_studies(study_instance_uid, PRIORS_MOST)]

    def _prior(self, study_instance_uid: str, wishes: Sequence[_Wish]) -> list[Evidence]:
        kept = self._state.study_evidence(study_instance_uid)
        return [self._completed(evidence, wishes) for evidence in kept if not evidence.no_image]

    def _completed(self, evidence: Evidence, wishes: Sequence[_Wish]) -> Evidence:
        if evidence.all_facts or not any(wish.needs_all_facts(evidence) for wish in wishes):
            return with_notes(evidence)
        found = with_all_facts(evidence, self._state.series(evidence.series_instance_uid), self._place)
        self._state.record_evidence(found)
        return found

    def _place(self, path: str) -> Path:
        return Path(self._store.path(path))


def _of_study(rules: Iterable[Rule]) -> Iterable[_Wish]:
    for rule in rules:
        yield _Wish(rule.when, rule.choose)
        yield from (_Wish(condition) for condition in (*rule.study.has, *rule.study.has_not))
        yield from (_Wish(role.when, role.choose) for role in rule.roles if role.origin is Origin.STUDY)


def _of_priors(rules: Iterable[Rule]) -> Iterable[_Wish]:
    for rule in rules:
        yield from (_Wish(role.when, role.choose) for role in rule.roles if role.origin is Origin.PRIOR)
