"""Which classes rules wait for, and which will never come: a rule does not wait for a job that nobody makes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dicomnode.domain.class_facts import known_by, models_of, no_classes, open_subjects
from dicomnode.domain.conditions import settled
from dicomnode.domain.rules import Condition, Rule, facts_in
from dicomnode.domain.study import Evidence

Awaited = tuple[str, str]  # Series Instance UID, and the model whose classes of it are not known yet


@dataclass(frozen=True, slots=True)
class Prospect:
    """A rule that runs a model on a series, or may do so: `after` what it waits for itself, if for anything."""

    series_instance_uid: str
    model: str
    after: frozenset[Awaited] = frozenset()


def open_classes(condition: Condition, evidence: Evidence) -> frozenset[str]:
    """The facts that it asks for and that a model may give yet; none of a series without images."""
    return frozenset() if evidence.no_image else open_subjects(facts_in(condition), evidence.facts)


def awaited_classes(condition: Condition, evidence: Evidence) -> frozenset[Awaited]:
    """What has to be known before it can be said whether it holds; nothing where the rest settles the matter."""
    subjects = open_classes(condition, evidence)
    if not subjects or settled(condition, evidence.header, evidence.facts, subjects) is not None:
        return frozenset()
    return frozenset((evidence.series_instance_uid, model) for model in models_of(subjects))


def awaited_in_study(rule: Rule, study: Iterable[Evidence], shown: Iterable[Evidence]) -> frozenset[Awaited]:
    """What has to be known of any series before a rule on the study can be decided.

    `shown` are the series that the rule may take; `study` is all of it.
    """
    of_all = (*rule.study.has, *rule.study.has_not)
    of_shown = (*((rule.when,) if rule.choose else ()), *(role.when for role in rule.roles))
    pairs = [(condition, evidence) for condition in of_all for evidence in study]
    pairs += [(condition, evidence) for condition in of_shown for evidence in shown]
    return frozenset().union(*(awaited_classes(condition, evidence) for condition, evidence in pairs))


def never_coming(
    awaited: Collection[Awaited], study: Iterable[Evidence], prospects: Sequence[Prospect]
) -> frozenset[Awaited]:
    """Of what rules wait for, what no job gives: none is at it, and no rule makes one that does not wait for it."""
    coming = {(e.series_instance_uid, model) for e in study for model in e.awaited}
    waiting = list(prospects)
    while ready := [p for p in waiting if not p.after or p.after & coming]:
        coming |= {(p.series_instance_uid, p.model) for p in ready}
        waiting = [p for p in waiting if p not in ready]
    return frozenset(awaited) - coming


def with_nothing_given(
    study: Iterable[Evidence], never: frozenset[Awaited], lacks: Mapping[str, str]
) -> Iterator[Evidence]:
    """Evidence in which it is known that these classes are not given; `lacks` says of a model why it cannot run."""
    for evidence in study:
        models = [model for uid, model in sorted(never) if uid == evidence.series_instance_uid]
        facts = dict(evidence.facts)
        for model in models:
            facts |= no_classes(model, lacks.get(model) or f"no rule runs {model} on this series")
        yield replace(evidence, facts=facts) if models else evidence


def without_waiting(evidence: Evidence, models: Iterable[str], why: str) -> Evidence:
    """As with_nothing_given, of whatever is not known and of which no job is at it."""
    unknown = [m for m in models if known_by(m) not in evidence.facts and m not in evidence.awaited]
    facts = dict(evidence.facts)
    for model in unknown:
        facts |= no_classes(model, f"{model} {why}")
    return replace(evidence, facts=facts) if unknown else evidence
