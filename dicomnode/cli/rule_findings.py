"""What `rules lint` finds in rules, for every command that tells it: lint, add, enable and explain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dicomnode.domain.clauses import Dictionary
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.rule_classes import about_classes
from dicomnode.domain.rule_fit import ACTIVE, missing
from dicomnode.domain.rule_lint import Finding, findings_in, never_asked, same_names, twins
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, RuleState
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs, single_valued_keywords
from dicomnode.ports import RuleRevision, State

_OF_THE_NODE = frozenset({"model", "version", "destinations"})  # that something is not there says where it is named


def alone(rules: Sequence[Rule]) -> list[Finding]:
    """In these rules alone."""
    each = [finding for rule in rules for finding in findings_in(rule, _dictionary())]
    return [*each, *same_names(rules), *_among(rules, [])]


def in_the_node(state: State, rules: Sequence[Rule]) -> list[Finding]:
    """In these rules, beside the models and destinations there are and the other rules in force."""
    names = {rule.name for rule in rules}
    others, _ = stored(revision for revision in state.rules() if revision.name not in names)
    each = [finding for rule in rules for finding in findings_in(rule, _dictionary())]
    classes = about_classes(rules, others, _cards(state))
    return [*each, *same_names(rules), *_missing(state, rules), *classes, *_among(rules, others)]


def stored(revisions: Iterable[RuleRevision]) -> tuple[list[Rule], list[Finding]]:
    """With the dictionary: what was taken by an older version may never match."""
    rules, findings = [], []
    for revision in revisions:
        try:
            rules.append(parse_rule(revision.document, keyword_vrs()))
        except InvalidRule as error:
            remedy = f"dicomnode rules show {revision.name} > {revision.name}.yaml, mend it and add it again"
            findings += [Finding(revision.name, each.path, each.message, remedy) for each in error.each]
    return rules, findings


def _dictionary() -> Dictionary:
    return Dictionary(keyword_vrs(), single_valued_keywords())


def _missing(state: State, rules: Sequence[Rule]) -> Iterator[Finding]:
    cards = _cards(state)
    modalities = {name: versions[ACTIVE].input.modality for name, versions in cards.items() if ACTIVE in versions}
    destinations = [destination.name for destination in state.destinations()]
    for rule in rules:
        yield from missing(rule, modalities, destinations, _dictionary(), cards)


def _among(rules: Sequence[Rule], others: Sequence[Rule]) -> Iterator[Finding]:
    yield from twins(rules, others)
    yield from never_asked(rules, others, _dictionary())


def _cards(state: State) -> dict[str, dict[str, ModelCard]]:
    """Model → version → card, as domain.rule_fit takes them."""
    cards: dict[str, dict[str, ModelCard]] = {}
    for model in state.models():
        cards.setdefault(model.name, {})[model.version] = model.card
        if model.active:
            cards[model.name][ACTIVE] = model.card
    return cards


# ------------------------------------------------------------------------------------------------- as notes


def notes_on(state: State, rule: Rule) -> list[str]:
    """Whether it is asked at all, and what will not work."""
    return [*notes_on_state(rule), *(finding_words(finding) for finding in in_the_node(state, [rule]))]


def notes_on_state(rule: Rule) -> list[str]:
    enable = f"dicomnode rules enable {rule.name}"
    match rule.state:
        case RuleState.DISABLED:
            return [f"the rule is disabled; {enable}"]
        case RuleState.SHADOW:
            return [f"the rule is a shadow: it is asked, and what it says recorded, but nothing runs ({enable})"]
    return []


def finding_words(finding: Finding) -> str:
    """On one line, without the rule's name."""
    where = "" if finding.path.partition("[")[0] in _OF_THE_NODE else f"{finding.path}: "
    return f"{where}{finding.problem}; {finding.remedy}"
