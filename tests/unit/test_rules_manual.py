"""What docs/rules.md shows works as it says, and a rule that is shown as YAML is the rule."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given

from dicomnode.cli.rule_files import read_rules, rule_yaml, rules_in
from dicomnode.domain.clauses import Dictionary
from dicomnode.domain.job import Priority
from dicomnode.domain.rule_lint import findings_in, never_asked
from dicomnode.domain.rule_reading import OF_A_JOB, OF_EVERY_RULE, parse_rule
from dicomnode.domain.rules import FACTS, Choice, Operator, Origin, Rule, RuleState, rule_document
from dicomnode.imaging.attributes import keyword_vrs, single_valued_keywords
from tests.unit.rule_strategies import rules

MANUAL = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)


def test_the_examples_are_rules(tmp_path: Path) -> None:
    assert EXAMPLES
    for example in EXAMPLES:
        file = tmp_path / "example.yaml"
        file.write_text(example, encoding="utf-8")
        for rule in read_rules(file, keyword_vrs()):
            assert parse_rule(rule_document(rule)) == rule


def test_the_examples_together_show_all_of_the_language() -> None:
    shown = [rule for example in EXAMPLES for rule in rules_in(example, "manual", keyword_vrs())]
    said = {word for rule in shown for word in rule_document(rule)}
    assert said >= {"description", "study", "choose", "roles", "parameters", "schedule", "results", "destinations"}
    assert {rule.stop for rule in shown} == {True, False}
    assert {role.origin for rule in shown for role in rule.roles} == set(Origin)
    assert any(not rule.model for rule in shown)
    assert any(rule.version != "active" for rule in shown)


def test_the_examples_have_nothing_that_lint_would_find() -> None:
    dictionary = Dictionary(keyword_vrs(), single_valued_keywords())
    for example in EXAMPLES:
        rules_shown = rules_in(example, "manual", keyword_vrs())
        found = [finding for rule in rules_shown for finding in findings_in(rule, dictionary)]
        assert [*found, *never_asked(rules_shown, [], dictionary)] == []


def test_every_word_of_the_language_is_explained() -> None:
    for name in [*OF_EVERY_RULE, *OF_A_JOB]:
        assert re.search(rf"^\| `{name}` \|", MANUAL, re.MULTILINE) or name == "enabled", name
    for name in [*Operator, *FACTS, *Choice, *RuleState, *Priority]:
        assert f"`{name}" in MANUAL


def test_every_vr_is_explained() -> None:
    rows = re.findall(r"^\| ([A-Z]{2}[^|]*)\|", MANUAL, re.MULTILINE)
    explained = {vr for row in rows for vr in re.findall("[A-Z]{2}", row)}
    assert explained >= {vr.split(" ")[0] for vr in keyword_vrs().values()}


@given(rules())
def test_yaml_reads_back(rule: Rule) -> None:
    assert rules_in(rule_yaml(rule_document(rule)), "shown") == [rule]
