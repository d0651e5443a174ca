"""Reading and printing rules, and what a wrong rule is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from dicomnode.domain.job import Priority
from dicomnode.domain.patterns import bounded_pattern
from dicomnode.domain.rule_reading import NESTED_MOST, parse_condition, parse_rule
from dicomnode.domain.rules import (
    FACTS,
    All,
    AnyOf,
    Comparison,
    Not,
    Operator,
    Rule,
    condition_document,
    rule_document,
)
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from tests.unit.rule_strategies import conditions, rules


def _is(subject: str, value: Any) -> Comparison:
    return Comparison(subject, Operator.EQUALS, (value,))


def test_the_rule_of_the_manual() -> None:
    document = {
        "name": "torso-ct",
        "when": {
            "all": [
                {"Modality": "CT"},
                {"ImageType": {"contains": "AXIAL"}},
                {"SliceThickness": {"at_most": 5}},
                {
                    "any": [
                        {"BodyPartExamined": ["CHEST", "ABDOMEN"]},
                        {"SeriesDescription": {"matches": "(?i)torso"}},
                    ]
                },
                {"not": {"ImageType": {"contains": "LOCALIZER"}}},
                {"NumberOfInstances": {"at_least": 10}},
            ]
        },
        "model": "torso-ct",
    }
    rule = parse_rule(document, keyword_vrs())
    assert rule == Rule(
        "torso-ct",
        All(
            (
                _is("Modality", "CT"),
                Comparison("ImageType", Operator.CONTAINS, ("AXIAL",)),
                Comparison("SliceThickness", Operator.AT_MOST, (5,)),
                AnyOf(
                    (
                        Comparison("BodyPartExamined", Operator.ONE_OF, ("CHEST", "ABDOMEN")),
                        Comparison("SeriesDescription", Operator.MATCHES, ("(?i)torso",)),
                    )
                ),
                Not(Comparison("ImageType", Operator.CONTAINS, ("LOCALIZER",))),
                Comparison("NumberOfInstances", Operator.AT_LEAST, (10,)),
            )
        ),
        "torso-ct",
    )
    assert (rule.priority, rule.destinations, rule.enabled) == (Priority.ROUTINE, (), True)


def test_several_in_one_mapping_mean_all_of_them() -> None:
    assert parse_condition({"Modality": "CT", "Rows": {"at_least": 2, "at_most": 9}}) == All(
        (
            _is("Modality", "CT"),
            All((Comparison("Rows", Operator.AT_LEAST, (2,)), Comparison("Rows", Operator.AT_MOST, (9,)))),
        )
    )


def test_exists_false_is_not_exists() -> None:
    assert parse_condition({"BodyPartExamined": {"exists": False}}) == Not(
        Comparison("BodyPartExamined", Operator.EXISTS)
    )


def test_paths_and_private_attributes() -> None:
    path = "RequestAttributesSequence.RequestedProcedureDescription"
    private = "(0019,AB,Siemens v1.2: x.y).(0021,01,GE)"
    assert parse_condition({path: "x"}) == _is(path, "x")
    comparison = parse_condition({private: "x"})
    assert isinstance(comparison, Comparison)
    assert comparison.steps == ("(0019,ab,Siemens v1.2: x.y)", "(0021,01,GE)")


@given(rules())
def test_what_is_printed_reads_back(rule: Rule) -> None:
    document = rule_document(rule)
    assert parse_rule(json.loads(json.dumps(document))) == rule
    assert rule_document(parse_rule(document)) == document


@given(conditions())
def test_conditions_read_back(condition: Any) -> None:
    assert parse_condition(condition_document(condition)) == condition


def test_no_fact_has_the_name_of_an_attribute() -> None:
    assert not set(FACTS) & set(keyword_vrs())


WRONG: list[tuple[Any, str, str]] = [
    ({}, "when", "a condition is needed"),
    (None, "when", "not a mapping"),
    ({"all": []}, "when.all", "empty"),
    ({"all": {"Modality": "CT"}}, "when.all", "not a list"),
    ({"any": [{"Modality": "CT"}, {}]}, "when.any[1]", "a condition is needed"),
    ({"Modalty": "CT"}, "when.Modalty", "did you mean Modality"),
    ({"NumberOfInstance": 3}, "when.NumberOfInstance", "NumberOfInstances"),
    ({"not a keyword": "CT"}, "when.not a keyword", "no attribute"),
    ({"(0019,10)": "x"}, "when.(0019,10)", "private tag"),
    (
        {"RequestAttributesSequence.NumberOfInstances": 3},
        "when.RequestAttributesSequence.NumberOfInstances",
        "no fact",
    ),
    ({"Modality": True}, "when.Modality", "quote"),
    ({"IsAVolume": "yes"}, "when.IsAVolume", "true or false"),
    ({"IsAVolume": 1}, "when.IsAVolume", "true or false"),
    ({"IsLocalizer": {"one_of": [True]}}, "when.IsLocalizer.one_of", "true or false"),
    ({"Orientation": "transverse"}, "when.Orientation", "axial"),
    ({"MeasuredSliceSpacing": {"contains": 3}}, "when.MeasuredSliceSpacing.contains", "does not apply"),
    ({"Modality": "C\0T"}, "when.Modality", "control characters"),
    ({"Modality": {"contains": "\ud800"}}, "when.Modality.contains", "control characters"),
    ({"Modality": None}, "when.Modality", "neither text nor a number"),
    ({"Modality": []}, "when.Modality", "empty"),
    ({"Modality": {}}, "when.Modality", "an operator is needed"),
    ({"Modality": {"is": "CT"}}, "when.Modality.is", "known: equals"),
    ({"Modality": {"at_least": "CT"}}, "when.Modality.at_least", "does not apply"),
    ({"Modality": {"exists": "yes"}}, "when.Modality.exists", "not true or false"),
    ({"SliceThickness": {"at_most": "thin"}}, "when.SliceThickness.at_most", "no number"),
    ({"SliceThickness": {"contains": 5}}, "when.SliceThickness.contains", "does not apply"),
    ({"SliceThickness": {"between": [5]}}, "when.SliceThickness.between", "two values"),
    ({"SliceThickness": {"between": [5, 1]}}, "when.SliceThickness.between", "comes after"),
    ({"SliceThickness": float("nan")}, "when.SliceThickness", "not finite"),
    ({"SliceThickness": 10**400}, "when.SliceThickness", "not finite"),
    ({"StudyDate": "last week"}, "when.StudyDate", "no date"),
    ({"StudyDate": {"at_least": "20240230"}}, "when.StudyDate.at_least", "calendar"),
    ({"StudyTime": {"at_least": "25:00"}}, "when.StudyTime.at_least", "no time"),
    ({"PatientAge": {"at_least": "old"}}, "when.PatientAge.at_least", "no age"),
    ({"RequestAttributesSequence": "x"}, "when.RequestAttributesSequence", "only exists"),
    ({"PixelData": "x"}, "when.PixelData", "only exists"),
    ({"SeriesDescription": {"at_least": "torso"}}, "when.SeriesDescription.at_least", "no number"),
    ({"SeriesDescription": {"matches": "("}}, "when.SeriesDescription.matches", "no regular expression"),
    ({"SeriesDescription": {"matches": 5}}, "when.SeriesDescription.matches", "not text"),
    ({"all": [{"Rows": 1}, {"not": {"Columns": "x"}}]}, "when.all[1].not.Columns", "no number"),
]


@pytest.mark.parametrize(("when", "path", "words"), WRONG)
def test_a_wrong_condition_is_refused_by_path_and_reason(when: Any, path: str, words: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse_rule({"name": "r", "model": "m", "when": when}, keyword_vrs())
    assert caught.value.path == path
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "no spaces"}, "name"),
        ({"model": ""}, "model"),
        ({"priority": "urgent"}, "priority"),
        ({"destinations": "pacs"}, "destinations"),
        ({"destinations": ["a b"]}, "destinations[0]"),
        ({"enabled": "no"}, "enabled"),
        ({"description": ["x"]}, "description"),
        ({"whenn": {}}, "whenn"),
    ],
)
def test_a_wrong_rule_is_refused_by_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse_rule({"name": "r", "model": "m", "when": {"Modality": "CT"}} | change)
    assert caught.value.path == path


def test_a_stored_rule_is_read_without_the_dictionary() -> None:
    assert parse_condition({"KeywordOfNextYear": {"at_least": "x"}}) is not None


def test_conditions_nested_too_deep_are_refused() -> None:
    when: Any = {"Modality": "CT"}
    for _ in range(NESTED_MOST + 1):
        when = {"not": when}
    with pytest.raises(InvalidRule, match="nested"):
        parse_condition(when)


@pytest.mark.parametrize(
    "pattern",
    [
        "torso",
        "(?i)(chest|thorax).*(lung|thin)",
        r"^\s*T\d+ .*kernel B\d{2}f?$",
        "(ab)+c",
        "[a-z]+ [0-9]+ .*",
        r"(?P<a>x)?\bAX\b",
        r"(?>ab|a)c*+",
    ],
)
def test_patterns_of_everyday_are_taken(pattern: str) -> None:
    assert bounded_pattern(pattern).characters_most >= 64


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|ab)*c",
        "(a*)*",
        "(a?)+",
        ".*.*.*.*.*.*.*=",
        "a?" * 40 + "a" * 40,
        r"(a)\1",
        "(?=a)b",
        "(?!a)b",
        "(?<=a)b",
        "(a)?(?(1)b|c)",
        "x" * 201,
        "[",
        "(a{1,9}){1,9}" * 3,
    ],
)
def test_patterns_that_could_run_for_long_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the table above is the reason
        bounded_pattern(pattern)


def test_a_text_longer_than_the_pattern_may_be_tried_on_is_not_matched() -> None:
    pattern = bounded_pattern(".*a.*b.*")
    assert pattern.characters_most < 4096
    assert pattern.found_in("xaxb")
    assert not pattern.found_in("ab" + "x" * pattern.characters_most)
