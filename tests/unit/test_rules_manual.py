"""What docs/rules.md shows works as it says, and a rule that is shown as YAML is the rule."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given

from dicomnode.cli.rule_files import read_rules, rule_yaml, rules_in
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import FACTS, Operator, Rule, rule_document
from dicomnode.imaging.attributes import keyword_vrs
from tests.unit.rule_strategies import rules

MANUAL = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")


def test_the_examples_are_rules(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    assert examples
    for example in examples:
        file = tmp_path / "example.yaml"
        file.write_text(example, encoding="utf-8")
        for rule in read_rules(file, keyword_vrs()):
            assert parse_rule(rule_document(rule)) == rule


def test_every_operator_fact_and_vr_is_explained() -> None:
    for name in [*Operator, *FACTS]:
        assert f"`{name}" in MANUAL
    rows = re.findall(r"^\| ([A-Z]{2}[^|]*)\|", MANUAL, re.MULTILINE)
    explained = {vr for row in rows for vr in re.findall("[A-Z]{2}", row)}
    assert explained >= {vr.split(" ")[0] for vr in keyword_vrs().values()}


@given(rules())
def test_yaml_reads_back(rule: Rule) -> None:
    assert rules_in(rule_yaml(rule_document(rule)), "shown") == [rule]
