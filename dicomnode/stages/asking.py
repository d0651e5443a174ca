"""Asking rules about a series without routing it: the same evidence and the same decision, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicomnode.domain.conditions import Decision, comparison_words, decide
from dicomnode.domain.rules import Rule
from dicomnode.domain.study import SeriesState
from dicomnode.errors import CannotDecode
from dicomnode.imaging.series_files import Found, FoundSeries, series_in
from dicomnode.ports import InstanceStore, SeriesView, StudyView
from dicomnode.stages.evidence import gather

_OWN = "it is a result of this node that came back, and these are never routed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rule says of a series; no decision where no rule is asked, for the reason in `never`."""

    found: FoundSeries
    rule: Rule
    decision: Decision | None
    never: str = ""

    @property
    def matches(self) -> bool:
        return self.decision is not None and self.decision.matches

    def why(self) -> str:
        return self.decision.why() if self.decision else f"rule {self.rule.name} is not asked: {self.never}"

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        series, explanation = self.found.series, self.decision.explanation if self.decision else None
        return {
            "study_instance_uid": series.study_instance_uid,
            "series_instance_uid": series.series_instance_uid,
            "modality": series.modality,
            "description": self.found.description,
            "instances": len(series.instances),
            "rule": self.rule.name,
            "model": self.rule.model,
            "matches": self.matches,
            "why": self.why(),
            "decided_by": [comparison_words(c) for c in explanation.deciding()] if explanation else [],
            "when": explanation.document() if explanation else None,
        }


def ask(found: FoundSeries, rules: Sequence[Rule]) -> list[Answer]:
    """An answer a rule; the files are read once for all of them."""
    if found.never:
        return [Answer(found, rule, None, found.never) for rule in rules]
    try:
        evidence = gather(found.series, Path, [rule.when for rule in rules])
    except CannotDecode as error:
        return [Answer(found, rule, None, str(error)) for rule in rules]
    if evidence.no_image:
        return [Answer(found, rule, None, evidence.no_image) for rule in rules]
    return [Answer(found, rule, decide(rule, evidence.header, evidence.facts)) for rule in rules]


def series_of_study(study: StudyView, key: str, store: InstanceStore) -> Found:
    """The series of a study that the node received; of one series alone when the key is its UID."""
    views = [s for s in study.series if s.series_instance_uid == key] or list(study.series)
    return joined(stored_series(study, view, store) for view in views)


def stored_series(study: StudyView, view: SeriesView, store: InstanceStore) -> Found:
    """A received series, from its folder in the store; none when that is gone."""
    folder = Path(store.path(f"instances/{study.study_instance_uid}/{view.series_instance_uid}"))
    if not folder.is_dir():
        return Found((), (f"series {view.series_instance_uid} left out, its files are not in the store ({folder})",))
    never = _OWN if view.state is SeriesState.OWN_RESULT else ""
    found = series_in([folder])
    # a series keeps the name of its first sender, its files have each their own
    return replace(
        found,
        series=tuple(
            replace(f, series=replace(f.series, calling_ae_title=view.calling_ae_title), never=never)
            for f in found.series
        ),
    )


def joined(parts: Iterable[Found]) -> Found:
    all_parts = list(parts)
    return Found(tuple(s for p in all_parts for s in p.series), tuple(w for p in all_parts for w in p.left_out))
