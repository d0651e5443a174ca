"""Rules over the past: what they would say today of the series that the node has received."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dicomnode.domain.rules import Rule, rule_document
from dicomnode.domain.study import SeriesState
from dicomnode.ports import InstanceStore, SeriesView, StudyView
from dicomnode.stages.asking import Answer, ask, stored_series


@dataclass(frozen=True, slots=True)
class Replayed:
    """A series and an answer a rule, in the order of the rules; none where `left_out` says why nobody was asked."""

    study: StudyView
    series: SeriesView
    answers: tuple[Answer, ...] = ()
    left_out: str = ""


def replay(studies: Iterable[StudyView], rules: Sequence[Rule], store: InstanceStore) -> Iterator[Replayed]:
    """One series after the other, each read when it is asked for."""
    for study in studies:
        for view in study.series:
            yield _replayed(study, view, rules, store)


def _replayed(study: StudyView, view: SeriesView, rules: Sequence[Rule], store: InstanceStore) -> Replayed:
    if view.state is SeriesState.RECEIVING:
        return Replayed(study, view, left_out="it is still being received")
    found = stored_series(study, view, store)
    if not found.series:
        return Replayed(study, view, left_out="its files are not in the store any more")
    return Replayed(study, view, tuple(ask(found.series[0], rules)))


def received_since(studies: Iterable[StudyView], since: datetime | None) -> list[StudyView]:
    return [study for study in studies if since is None or study.received_at >= since]


def other_differences(rule: Rule, draft: Rule) -> dict[str, tuple[object, object]]:
    """What a draft changes beside its condition: name → (in force, in the draft)."""
    before, after = rule_document(rule), rule_document(draft)
    names = [n for n in before if n not in ("name", "description", "when") and before[n] != after[n]]
    return {name: (before[name], after[name]) for name in names}
