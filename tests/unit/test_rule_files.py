"""Rules in YAML files: what is wrong is told by line, column and path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from dicomnode.cli.rule_files import read_rules, rule_yaml, rules_in
from dicomnode.cli.rule_yaml import Document, documents_in
from dicomnode.domain.rules import Rule, rule_document
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from tests.unit.rule_strategies import rules

GOOD = """\
# thin slices of the trunk
name: torso-ct
order: 10
when:
  all:
    - Modality: CT
    - not:
        ImageType: {contains: LOCALIZER}
    - SliceThickness: {at_most: 5}
      RequestAttributesSequence.ScheduledProcedureStepID:
        - A1
        - "0042"
study:
  has: [{Modality: PT}]
choose:
  - thinnest_slices
  - kernel: [B30f, Br40]
roles:
  pet: {when: {Modality: PT}, choose: [most_instances]}
model: torso-ct
parameters: {overlap: 0.5}
schedule: 20:00-06:00
destinations: [pacs]
results: [SEG]
stop: false
state: shadow
"""


def test_a_whole_rule_is_read(tmp_path: Path) -> None:
    file = tmp_path / "torso.yaml"
    file.write_text(GOOD, encoding="utf-8")
    (rule,) = read_rules(file, keyword_vrs())
    assert rule_document(rule) == {
        "name": "torso-ct",
        "order": 10,
        "when": {
            "all": [
                {"Modality": {"equals": "CT"}},
                {"not": {"ImageType": {"contains": "LOCALIZER"}}},
                {
                    "all": [
                        {"SliceThickness": {"at_most": 5}},
                        {"RequestAttributesSequence.ScheduledProcedureStepID": {"one_of": ["A1", "0042"]}},
                    ]
                },
            ]
        },
        "study": {"has": [{"Modality": {"equals": "PT"}}]},
        "choose": ["thinnest_slices", {"kernel": ["B30f", "Br40"]}],
        "roles": {"pet": {"when": {"Modality": {"equals": "PT"}}, "from": "study", "choose": ["most_instances"]}},
        "model": "torso-ct",
        "version": "active",
        "parameters": {"overlap": 0.5},
        "priority": "routine",
        "schedule": ["20:00-06:00"],
        "destinations": ["pacs"],
        "results": ["SEG"],
        "stop": False,
        "state": "shadow",
    }


# What is written instead, and what is said of it then
MISTAKES = [
    ("name: torso-ct", "nome: torso-ct", "2:1: nome: unknown (did you mean name?); known: name, "),
    ("name: torso-ct\n", "", "2:1: name is missing"),
    ("order: 10", "order: first", "3:1: order: order is a whole number"),
    ("- Modality: CT", "- Modalty: CT", "6:7: when.all[0].Modalty: 'Modalty' is no attribute's keyword"),
    ("{contains: LOC", "{contain: LOC", "8:21: when.all[1].not.ImageType.contain: unknown (did you mean contains?)"),
    ("at_most: 5", "at_most: thin", "9:24: when.all[2].SliceThickness.at_most: 'thin' is no number"),
    ('"0042"', "[]", "12:11: when.all[2].RequestAttributesSequence.ScheduledProcedureStepID[1]: [] is neither text"),
    ("has: [{Modality: PT}]", "has: [{}]", "14:9: study.has[0]: a condition is needed"),
    ("- thinnest_slices", "- thinnest", "16:5: choose[0]: 'thinnest' is not one of thinnest_slices"),
    ("[B30f, Br40]", "B30f", "17:5: choose[1].kernel: 'B30f' is not a list"),
    ("{when: {Modality: PT}, choose", "{choose", "19:3: roles.pet: when is missing"),
    ("choose: [most_instances]", "choose: all", "19:31: roles.pet.choose: a role takes one series"),
    ("model: torso-ct\n", "", "2:1: model is missing; only a rule that says `stop: true` may go without"),
    ("{overlap: 0.5}", "{overlap: [1]}", "21:14: parameters.overlap: [1] is neither text nor a number"),
    ("20:00-06:00", "at night", "22:1: schedule: 'at night' is neither now nor daily hours such as 20:00-06:00"),
    ("[SEG]", "[seg]", "24:11: results[0]: 'seg' is not allowed"),
    ("stop: false", "stop: 0", "25:1: stop: 0 is not true or false"),
    ("state: shadow", "state: shadow\nenabled: false", "27:1: enabled: it contradicts `state: shadow`"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_found_where_it_stands(right: str, wrong: str, said: str) -> None:
    assert GOOD.count(right) == 1
    with pytest.raises(InvalidRule) as caught:
        rules_in(GOOD.replace(right, wrong), "torso.yaml", keyword_vrs())
    assert str(caught.value.each[0]).startswith(f"torso.yaml:{said}")


def test_lines_are_those_of_the_file_for_the_second_rule_too() -> None:
    text = f"{GOOD}---\n{GOOD.replace('Modality: CT', 'Modality: []')}"
    with pytest.raises(InvalidRule) as caught:
        rules_in(text, "torso.yaml", keyword_vrs())
    assert caught.value.path == "torso.yaml:33:7: when.all[0].Modality"


def test_a_key_that_is_no_text() -> None:
    with pytest.raises(InvalidRule, match=r"torso.yaml:1:1: this is not a mapping of names to values: quote 5"):
        rules_in("5: a\n", "torso.yaml")


@given(rules())
def test_every_path_of_a_document_has_a_place(rule: Rule) -> None:
    shown = rule_yaml(rule_document(rule))
    (document,) = documents_in(shown)
    assert isinstance(document, Document)
    lines = shown.splitlines()
    for name in rule_document(rule):
        line, column = document.places[name]
        assert lines[line - 1][column - 1 :].startswith(f"{name}:")
    assert document.place("when.no.such[3].path") == document.places["when"]
    assert document.place("no such path") == (1, 1)
