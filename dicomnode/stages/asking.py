"""Asking rules about series without routing them: the same evidence and the same decision, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicomnode.domain.class_facts import ClassNews
from dicomnode.domain.class_waits import without_waiting
from dicomnode.domain.conditions import Decision, comparison_words
from dicomnode.domain.routing import Asked, OutcomeKind, RuleOutcome, decide_study
from dicomnode.domain.rule_needs import choices_of, conditions_of
from dicomnode.domain.rules import Choice, Origin, Rule, RuleState, classes_asked
from dicomnode.domain.study import Evidence, Series, SeriesState
from dicomnode.errors import CannotDecode
from dicomnode.imaging.series_files import Found, FoundSeries, series_in
from dicomnode.ports import InstanceStore, SeriesView, StudyView
from dicomnode.stages.evidence import gather, unreadable, with_all_facts

_OWN = "it is a result of this node that came back, and these are never routed"
_MATCHES = frozenset({OutcomeKind.MATCHED, OutcomeKind.SHADOW})

# Study Instance UID → evidence of the patient's earlier studies, the newest first
Priors = Callable[[str], Sequence[Sequence[Evidence]]]
# Study Instance UID → Series Instance UID → the classes that jobs gave
Classes = Callable[[str], Mapping[str, ClassNews]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rule says of a series; no outcome where no rule is asked, for the reason in `never`."""

    found: FoundSeries
    rule: Rule
    outcome: RuleOutcome | None
    never: str = ""

    @property
    def decision(self) -> Decision | None:
        """What its condition on the series says; None too where an earlier rule stopped it."""
        return self.outcome.decision if self.outcome else None

    @property
    def matches(self) -> bool:
        return self.outcome is not None and self.outcome.kind in _MATCHES

    def why(self) -> str:
        return self.outcome.words if self.outcome else f"rule {self.rule.name} is not asked: {self.never}"

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        series, explanation = self.found.series, self.decision.explanation if self.decision else None
        said = self.outcome.document() if self.outcome else {}
        return {
            "study_instance_uid": series.study_instance_uid,
            "series_instance_uid": series.series_instance_uid,
            "modality": series.modality,
            "description": self.found.description,
            "instances": len(series.instances),
            "rule": self.rule.name,
            "model": self.rule.model,
            "matches": self.matches,
            "outcome": said.get("outcome", "never"),
            "why": self.why(),
            "decided_by": [comparison_words(c) for c in explanation.deciding()] if explanation else [],
            "when": explanation.document() if explanation else None,
            **{key: said[key] for key in ("study", "choose", "roles", "stopped_by") if key in said},
        }


def short_words(outcome: RuleOutcome) -> str:
    """Without the rule's name, where that stands beside it."""
    if outcome.kind is OutcomeKind.NOT_MATCHED and outcome.decision is not None:
        return outcome.decision.explanation.words()
    return outcome.words.partition(": ")[2] or outcome.words


def ask(
    found: Iterable[FoundSeries],
    rules: Sequence[Rule],
    others: Sequence[Rule] = (),
    priors: Priors | None = None,
    classes: Classes | None = None,
) -> list[Answer]:
    """An answer a rule for each series, study by study; every file is read once.

    `others` are asked too, for they may stop a series, and give no answers. A disabled rule is asked as if it were
    not. Without `priors` the other studies that were found are the earlier ones; without `classes` there are none.
    """
    asked = [Asked(rule.name, 0, _enabled(rule)) for rule in rules]
    context = [Asked(rule.name, 0, rule) for rule in others]
    found = list(found)
    evidence = {f.series.series_instance_uid: _evidence(f, [*rules, *others]) for f in found}
    if models := frozenset[str]().union(*map(classes_asked, (*rules, *others))):
        for study, of_study in _studies(found).items():
            evidence |= dict(_classified(study, of_study, evidence, models, classes))
    earlier = priors or _Earlier(found, evidence)
    needs_priors = any(role.origin is Origin.PRIOR for rule in (*rules, *others) for role in rule.roles)
    answers: list[Answer] = []
    for study, of_study in _studies(found).items():
        shown = [evidence[f.series.series_instance_uid] for f in of_study if not f.never]
        decided = decide_study([*context, *asked], shown, earlier(study) if needs_priors else ())
        outcomes = {(s.series_instance_uid, id(o.asked)): o for s in decided for o in s.outcomes}
        for one in of_study:
            uid = one.series.series_instance_uid
            never = one.never or evidence[uid].no_image
            said = (outcomes.get((uid, id(a))) for a in asked)
            answers += [Answer(one, rule, outcome, never) for rule, outcome in zip(rules, said, strict=True)]
    return answers


def _enabled(rule: Rule) -> Rule:
    return replace(rule, state=RuleState.ENABLED) if rule.state is RuleState.DISABLED else rule


def _studies(found: Iterable[FoundSeries]) -> dict[str, list[FoundSeries]]:
    studies: dict[str, list[FoundSeries]] = {}
    for one in found:
        studies.setdefault(one.series.study_instance_uid, []).append(one)
    return studies


def _evidence(found: FoundSeries, rules: Sequence[Rule]) -> Evidence:
    """Of a series that no rule is asked about, nothing is read."""
    series = found.series
    if found.never:
        return unreadable(series, found.never)
    try:
        evidence = gather(series, Path, [condition for rule in rules for condition in conditions_of(rule)])
    except (CannotDecode, OSError) as error:
        return unreadable(series, str(error))
    measures = any(Choice.THINNEST_SLICES in choices_of(rule) for rule in rules)
    return with_all_facts(evidence, series, Path) if measures and not evidence.no_image else evidence


def _classified(
    study: str,
    found: Iterable[FoundSeries],
    evidence: Mapping[str, Evidence],
    models: frozenset[str],
    classes: Classes | None,
) -> Iterator[tuple[str, Evidence]]:
    """With what jobs gave; of what no job is at it is known that there is none. Files do not tell a generation."""
    news = classes(study) if classes else {}
    of_files = "is not run on files: only what the node received is classified"
    why = "has not run on this series" if classes else of_files
    for one in found:
        uid = one.series.series_instance_uid
        given = news.get(uid, ClassNews(0))
        own = replace(evidence[uid], facts={**evidence[uid].facts, **given.facts}, awaited=given.awaited)
        yield uid, without_waiting(own, sorted(models), why)


class _Earlier:
    """Of files: the other studies among them of the same PatientID, by Study Date."""

    def __init__(self, found: Sequence[FoundSeries], evidence: dict[str, Evidence]) -> None:
        self._studies = {
            study: [evidence[f.series.series_instance_uid] for f in series]
            for study, series in _studies(found).items()
        }

    def __call__(self, study: str) -> list[list[Evidence]]:
        own = self._patient_and_date(study)
        dated = [(self._patient_and_date(other), other) for other in self._studies if other != study]
        before = [(date, other) for (patient, date), other in dated if patient == own[0] and "" < date < own[1]]
        return [self._studies[other] for _, other in sorted(before, reverse=True)] if own[0] else []

    def _patient_and_date(self, study: str) -> tuple[str, str]:
        evidence = self._studies[study]
        return _first(evidence, "PatientID"), _first(evidence, "StudyDate")


def _first(study: Iterable[Evidence], keyword: str) -> str:
    values = (str(v) for e in study if keyword in e.header for v in e.header[keyword].values)
    return next(values, "")


# ------------------------------------------------------------------------------------ what the node received


def series_of_study(study: StudyView, key: str, store: InstanceStore, whole: bool = False) -> Found:
    """The series of a study that the node received; of one series alone when the key is its UID, unless `whole`."""
    views = [s for s in study.series if s.series_instance_uid == key] if not whole else []
    return joined(stored_series(study, view, store) for view in views or study.series)


def stored_series(study: StudyView, view: SeriesView, store: InstanceStore) -> Found:
    """A received series, from its folder in the store; none when that is gone."""
    folder = Path(store.path(f"instances/{study.study_instance_uid}/{view.series_instance_uid}"))
    if not folder.is_dir():
        return Found((), (f"series {view.series_instance_uid} left out, its files are not in the store ({folder})",))
    never = _OWN if view.state is SeriesState.OWN_RESULT else ""
    found = series_in([folder])
    return replace(
        found, series=tuple(replace(f, series=_as_known(f.series, view), never=never) for f in found.series)
    )


def _as_known(series: Series, view: SeriesView) -> Series:
    """A series keeps the name of its first sender, its files have each their own."""
    return replace(series, calling_ae_title=view.calling_ae_title, received_at=view.last_received_at)


def joined(parts: Iterable[Found]) -> Found:
    all_parts = list(parts)
    return Found(
        tuple(_each_once(s for p in all_parts for s in p.series)), tuple(w for p in all_parts for w in p.left_out)
    )


def _each_once(series: Iterable[FoundSeries]) -> Iterator[FoundSeries]:
    """The same series may be found in two places, as a file and in the store."""
    seen: set[str] = set()
    for one in series:
        if one.series.series_instance_uid not in seen:
            seen.add(one.series.series_instance_uid)
            yield one
