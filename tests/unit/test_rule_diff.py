"""Differences of rules, place by place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain.rule_diff import Change, Difference, rule_differences, value_words
from dicomnode.domain.rules import rule_document
from tests.unit.rule_strategies import rules

NO_LOCALIZER = {"not": {"ImageType": {"contains": "LOCALIZER"}}}
RULE: dict[str, Any] = {
    "name": "torso",
    "model": "torso-ct",
    "when": {
        "all": [
            {"Modality": {"equals": "CT"}},
            {"SliceThickness": {"at_most": 5}},
            NO_LOCALIZER,
        ]
    },
}


def changed(**more: Any) -> list[str]:
    return [f"{d.change}: {d.words()}" for d in rule_differences(RULE, RULE | more)]


def when(*parts: Any) -> dict[str, Any]:
    return {"all": list(parts)}


def test_no_difference_between_a_rule_and_itself_with_its_defaults() -> None:
    assert rule_differences(RULE, RULE | {"priority": "routine", "destinations": []}) == []
    assert rule_differences(RULE, RULE | {"enabled": True}) == []


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (
            [
                {"Modality": "CT"},
                {"SliceThickness": {"at_most": 3}},
                NO_LOCALIZER,
            ],
            ["changed: when.all[1].SliceThickness.at_most: 5 → 3"],
        ),
        (
            [
                {"BodyPartExamined": "CHEST"},
                {"Modality": "CT"},
                {"SliceThickness": {"at_most": 3}},
                NO_LOCALIZER,
            ],
            [
                "added: when.all[0]: BodyPartExamined equals 'CHEST'",
                "changed: when.all[2].SliceThickness.at_most: 5 → 3",
            ],
        ),
        (
            [{"Modality": "CT"}, {"SliceThickness": {"at_most": 5}}],
            ["removed: when.all[2]: not (ImageType contains 'LOCALIZER')"],
        ),
        (
            [{"Modality": "CT"}, {"SliceThickness": {"at_least": 5}}, {"not": {"ImageType": {"contains": "AXIAL"}}}],
            [
                "changed: when.all[1]: SliceThickness at most 5 → SliceThickness at least 5",
                "changed: when.all[2].not.ImageType.contains: LOCALIZER → AXIAL",
            ],
        ),
    ],
)
def test_conditions_find_each_other(conditions: list[Any], said: list[str]) -> None:
    assert changed(when=when(*conditions)) == said


def test_one_condition_that_became_several() -> None:
    one = RULE | {"when": {"Modality": {"equals": "CT"}}}
    found = rule_differences(one, RULE)
    assert [d.change for d in found] == [Change.ADDED, Change.ADDED]
    assert [d.path for d in found] == ["when.all[1]", "when.all[2]"]
    assert [d.change for d in rule_differences(RULE, one)] == [Change.REMOVED, Change.REMOVED]


def test_what_is_no_condition() -> None:
    assert changed(priority="stat", destinations=["pacs"], model="other") == [
        "changed: model: torso-ct → other",
        "changed: priority: routine → stat",
        "changed: destinations: [] → [pacs]",
    ]
    assert changed(choose=["latest", {"kernel": ["Br40", "Bl57"]}]) == [
        'changed: choose: all → [latest, {"kernel": ["Br40", "Bl57"]}]'
    ]


def test_a_document_that_nobody_can_read_is_compared_as_it_is() -> None:
    (found,) = rule_differences({"name": "old", "was": [1]}, {"name": "old", "was": [2, 1]})
    assert (found.change, found.path, found.after) == (Change.CHANGED, "was", [2, 1])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true"),
        ("", '""'),
        (5, "5"),
        ("CT", "CT"),
        (["a", 1], "[a, 1]"),
        ({"overlap": 0.5}, '{"overlap": 0.5}'),
    ],
)
def test_values_in_words(value: Any, words: str) -> None:
    assert value_words(value) == words


def test_conditions_in_words_only_where_there_are_conditions() -> None:
    condition = {"Modality": {"equals": "CT"}}
    for path in ("when", "when.all[0]", "study.has[0]", "study.has_not[1].not", "roles.pet.when"):
        assert Difference(Change.ADDED, path, after=condition).words() == f"{path}: Modality equals 'CT'"
    assert Difference(Change.ADDED, "parameters", after={"when": 1}).words() == 'parameters: {"when": 1}'
    assert (
        Difference(Change.ADDED, "when", after={"Modality": {"was": 1}}).words() == 'when: {"Modality": {"was": 1}}'
    )


@given(st.data())
def test_no_rule_differs_from_itself_and_every_other_one_does(data: st.DataObject) -> None:
    one, other = (rule_document(data.draw(rules())) for _ in range(2))
    assert rule_differences(one, one) == []
    assert bool(rule_differences(one, other)) == (one != other)
