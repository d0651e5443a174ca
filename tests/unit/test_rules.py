"""Reading and printing rules, and what a wrong rule is told."""

from __future__ import annotations

import json
from datetime import time
from typing import Any

import pytest
from hypothesis import given

from dicomnode.domain.job import Priority
from dicomnode.domain.patterns import bounded_pattern
from dicomnode.domain.rule_reading import NESTED_MOST, OF_A_JOB, parse_condition, parse_rule
from dicomnode.domain.rules import (
    FACTS,
    All,
    AnyOf,
    Choice,
    Comparison,
    Not,
    Operator,
    Origin,
    Preference,
    Role,
    Rule,
    RuleState,
    StudyConditions,
    Window,
    condition_document,
    rule_document,
)
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from tests.unit.rule_strategies import conditions, rules

CT = {"Modality": {"equals": "CT"}}
PT = {"Modality": {"equals": "PT"}}
WHOLE: dict[str, Any] = {
    "name": "whole",
    "description": "all that can be said",
    "order": -3,
    "when": CT,
    "study": {"has": [PT, CT], "has_not": [{"Modality": {"equals": "SR"}}]},
    "choose": ["thinnest_slices", {"kernel": ["B30f", "Br40"]}, "latest"],
    "roles": {
        "prior": {"when": CT, "from": "prior", "choose": ["latest"]},
        "pet": {"when": PT, "from": "study"},
    },
    "model": "m",
    "version": "1.0.0",
    "parameters": {"overlap": 0.5, "fast": True, "mode": "soft"},
    "priority": "stat",
    "schedule": ["20:00-06:00", "12:00-13:30"],
    "destinations": ["pacs"],
    "results": ["SR"],
    "stop": True,
    "state": "shadow",
}


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
        ({"order": "1"}, "order"),
        ({"order": True}, "order"),
        ({"order": 1.0}, "order"),
        ({"order": 10**9}, "order"),
        ({"stop": 1}, "stop"),
        ({"state": "on"}, "state"),
        ({"state": "disabled", "enabled": True}, "enabled"),
        ({"state": "enabled", "enabled": False}, "enabled"),
        ({"state": "shadow", "enabled": False}, "enabled"),
        ({"version": 1.0}, "version"),
        ({"version": "../1"}, "version"),
        ({"study": {}}, "study"),
        ({"study": [CT]}, "study"),
        ({"study": {"has": [], "has_not": CT}}, "study.has"),
        ({"study": {"has": [CT, {"Modality": {"is": "PT"}}]}}, "study.has[1].Modality.is"),
        ({"study": {"has_not": {}}}, "study.has_not"),
        ({"study": {"has_no": CT}}, "study.has_no"),
        ({"choose": []}, "choose"),
        ({"choose": None}, "choose"),
        ({"choose": "thinnest"}, "choose"),
        ({"choose": ["latest", "all"]}, "choose[1]"),
        ({"choose": ["latest", "most_instances", "latest"]}, "choose[2]"),
        ({"choose": "kernel"}, "choose"),
        ({"choose": [{"kernel": []}]}, "choose[0].kernel"),
        ({"choose": [{"kernel": ["a", 5]}]}, "choose[0].kernel[1]"),
        ({"choose": [{"latest": True}]}, "choose[0].latest"),
        ({"roles": ["pet"]}, "roles"),
        ({"roles": {"pet": CT}}, "roles.pet.Modality"),
        ({"roles": {"pet": {"choose": "latest"}}}, "roles.pet"),
        ({"roles": {"the pet": {"when": CT}}}, "roles.the pet"),
        ({"roles": {"pet": {"when": {"Modality": []}}}}, "roles.pet.when.Modality"),
        ({"roles": {"pet": {"when": CT, "from": "past"}}}, "roles.pet.from"),
        ({"roles": {"pet": {"when": CT, "choose": "all"}}}, "roles.pet.choose"),
        ({"parameters": [1]}, "parameters"),
        ({"parameters": {"a b": 1}}, "parameters.a b"),
        ({"parameters": {"a": None}}, "parameters.a"),
        ({"parameters": {"a": {"b": 1}}}, "parameters.a"),
        ({"parameters": {"a": float("inf")}}, "parameters.a"),
        ({"schedule": []}, "schedule"),
        ({"schedule": 8}, "schedule"),
        ({"schedule": "20:00"}, "schedule"),
        ({"schedule": ["20:00-06:00", "now"]}, "schedule[1]"),
        ({"schedule": "06:00-06:00"}, "schedule"),
        ({"results": "SEG"}, "results"),
        ({"results": ["SEG", "seg"]}, "results[1]"),
    ],
)
def test_a_wrong_rule_is_refused_by_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse_rule({"name": "r", "model": "m", "when": {"Modality": "CT"}} | change)
    assert caught.value.path == path


def test_a_rule_without_a_model_is_there_to_stop() -> None:
    halt = parse_rule({"name": "halt", "when": CT, "stop": True, "study": {"has": CT}, "order": 3})
    assert (halt.model, halt.stop, halt.needs_study) == ("", True, True)
    assert set(rule_document(halt)) == {"name", "order", "when", "study", "stop", "state"}
    for without in ({}, {"stop": False}):
        with pytest.raises(InvalidRule, match="model is missing; only a rule that says `stop: true`"):
            parse_rule({"name": "halt", "when": CT, **without})


@pytest.mark.parametrize("word", [word for word in OF_A_JOB if word != "model"])
def test_what_means_nothing_without_a_model_is_refused(word: str) -> None:
    everything = {**WHOLE, "choose": "all"}
    with pytest.raises(InvalidRule, match="means nothing in a rule without a model") as caught:
        parse_rule({"name": "halt", "when": CT, "stop": True, word: everything[word]})
    assert caught.value.path == word


def test_all_that_can_be_said_is_read_and_printed_as_it_was() -> None:
    rule = parse_rule(WHOLE, keyword_vrs())
    assert rule_document(rule) == WHOLE
    assert list(rule_document(rule)) == list(WHOLE)
    assert rule == Rule(
        name="whole",
        description="all that can be said",
        order=-3,
        when=_is("Modality", "CT"),
        study=StudyConditions((_is("Modality", "PT"), _is("Modality", "CT")), (_is("Modality", "SR"),)),
        choose=(
            Preference(Choice.THINNEST_SLICES),
            Preference(Choice.KERNEL, ("B30f", "Br40")),
            Preference(Choice.LATEST),
        ),
        roles=(
            Role("prior", _is("Modality", "CT"), Origin.PRIOR, (Preference(Choice.LATEST),)),
            Role("pet", _is("Modality", "PT")),
        ),
        model="m",
        version="1.0.0",
        parameters={"overlap": 0.5, "fast": True, "mode": "soft"},
        priority=Priority.STAT,
        schedule=(Window(time(20), time(6)), Window(time(12), time(13, 30))),
        destinations=("pacs",),
        results=("SR",),
        stop=True,
        state=RuleState.SHADOW,
    )


def test_short_forms_mean_what_the_long_ones_do() -> None:
    short = parse_rule(
        WHOLE
        | {"study": {"has": CT}, "choose": "latest", "schedule": "20:00-06:00"}
        | {"roles": {"pet": {"when": PT, "choose": "latest"}}}
    )
    assert short.study == StudyConditions(has=(_is("Modality", "CT"),))
    assert short.choose == short.roles[0].choose == (Preference(Choice.LATEST),)
    assert short.schedule == (Window(time(20), time(6)),)
    plain = parse_rule(WHOLE | {"choose": "all", "schedule": "now"})
    assert (plain.choose, plain.schedule) == ((), ())


@pytest.mark.parametrize(("enabled", "state"), [(True, RuleState.ENABLED), (False, RuleState.DISABLED)])
def test_a_rule_stored_by_an_older_version_is_read(enabled: bool, state: RuleState) -> None:
    stored = {
        "name": "torso-ct",
        "description": "as version 0.2 wrote it",
        "when": {"all": [CT, {"NumberOfInstances": {"at_least": 10}}]},
        "model": "torso-ct",
        "priority": "high",
        "destinations": ["pacs"],
        "enabled": enabled,
    }
    rule = parse_rule(stored)
    assert (rule.state, rule.enabled, rule.needs_study) == (state, enabled, False)
    assert (rule.version, rule.order, rule.stop, rule.schedule) == ("active", 100, False, ())
    printed = rule_document(rule)
    assert {name: printed[name] for name in stored if name != "enabled"} == {
        name: said for name, said in stored.items() if name != "enabled"
    }
    assert parse_rule(printed) == rule
    assert parse_rule(stored | {"state": str(state)}) == rule


def test_a_shadow_is_asked() -> None:
    assert parse_rule(WHOLE | {"state": "shadow", "enabled": True}).enabled


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({}, False),
        ({"study": {"has_not": CT}}, True),
        ({"choose": ["latest"]}, True),
        ({"choose": "all"}, False),
        ({"roles": {"pet": {"when": PT, "from": "prior"}}}, True),
    ],
)
def test_what_has_to_wait_for_the_study(more: dict[str, Any], needs: bool) -> None:
    assert parse_rule({"name": "a", "model": "m", "when": CT, **more}).needs_study is needs


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
        "(?:(?:(?:){300}){300}){300}x",
        "(?:(?:^){16}){16}x",
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
