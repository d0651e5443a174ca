"""rules lint: what can never work is found, and what can is left alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.cli.rule_files import read_rules
from dicomnode.domain.clauses import Dictionary, implies
from dicomnode.domain.conditions import explain
from dicomnode.domain.rule_fit import missing
from dicomnode.domain.rule_lint import findings_in, never_asked, same_names, twins
from dicomnode.domain.rule_reading import parse_condition, parse_rule
from dicomnode.domain.rules import All, AnyOf, Condition, Not, Rule
from dicomnode.domain.study import Element, Header
from dicomnode.imaging.attributes import keyword_vrs, single_valued_keywords
from tests.unit.rule_strategies import conditions

DICTIONARY = Dictionary(keyword_vrs(), single_valued_keywords())
ROOT = Path(__file__).parents[2]


def rule(when: Any, name: str = "a", **more: Any) -> Rule:
    return parse_rule({"name": name, "model": "m", "when": when, **more}, keyword_vrs())


def found(when: Any) -> list[tuple[str, str]]:
    return [(finding.path, finding.problem) for finding in findings_in(rule(when), DICTIONARY)]


CONTRADICTIONS: list[tuple[Any, str]] = [
    ({"all": [{"Modality": "CT"}, {"Modality": "MR"}]}, "when.all[1].Modality"),
    ({"all": [{"Modality": ["CT", "PT"]}, {"Modality": ["mr", "US"]}]}, "when.all[1].Modality"),
    ({"all": [{"Modality": "CT"}, {"not": {"Modality": "CT"}}]}, "when.all[1].not.Modality"),
    ({"all": [{"Modality": "CT"}, {"not": {"Modality": ["CT", "MR"]}}]}, "when.all[1].not.Modality"),
    ({"all": [{"Modality": "CT"}, {"not": {"any": [{"Rows": 5}, {"Modality": "CT"}]}}]}, "when.all[1].not.any[1]"),
    ({"all": [{"Modality": "CT"}, {"any": [{"Modality": "MR"}, {"Rows": 512}]}]}, "when.all[1].any[0].Modality"),
    ({"not": {"all": [{"Modality": "CT"}, {"Modality": "MR"}]}}, "when.not.all[1].Modality"),
    ({"any": [{"all": [{"Modality": "CT"}, {"Modality": "MR"}]}, {"Rows": 1}]}, "when.any[0].all[1].Modality"),
    ({"SliceThickness": {"at_least": 5, "at_most": 3}}, "when.all[1].SliceThickness"),
    ({"SliceThickness": {"between": [1, 2], "equals": 3}}, "when.all[1].SliceThickness"),
    ({"all": [{"StudyDate": "2023"}, {"StudyDate": {"at_least": "2024-01"}}]}, "when.all[1].StudyDate"),
    ({"all": [{"PatientAge": {"at_least": 18}}, {"PatientAge": {"at_most": "17Y"}}]}, "when.all[1].PatientAge"),
    ({"all": [{"SeriesDescription": "Chest"}, {"SeriesDescription": {"contains": "abd"}}]}, "when.all[1]"),
    ({"all": [{"ImageType": "AXIAL"}, {"ImageType": {"exists": False}}]}, "when.all[1].not.ImageType"),
    ({"all": [{"ImageType": "AXIAL"}, {"not": {"ImageType": "AXIAL"}}]}, "when.all[1].not.ImageType"),
    ({"all": [{"IsAVolume": True}, {"IsAVolume": False}]}, "when.all[1].IsAVolume"),
    ({"NumberOfInstances": {"at_least": 10, "at_most": 9}}, "when.all[1].NumberOfInstances"),
    ({"all": [{"(0019,10,ACME)": 1}, {"not": {"(0019,10,ACME)": 1}}]}, "when.all[1].not"),
    ({"all": [{"Rows": {"at_most": 3}}, {"not": {"Rows": {"at_most": 5}}}]}, "when.all[1].not.Rows"),
    (
        {"all": [{"SeriesDescription": "thin abd"}, {"not": {"SeriesDescription": {"contains": "abd"}}}]},
        "when.all[1]",
    ),
    (
        {"all": [{"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}}, {"ReceivedTimeOfDay": "12:30"}]},
        "when.all[1].ReceivedTimeOfDay",
    ),
]
FINE: list[Any] = [
    {"Modality": "CT"},
    {"all": [{"Modality": ["CT", "PT"]}, {"Modality": ["PT", "MR"]}]},
    {"all": [{"ImageType": "ORIGINAL"}, {"ImageType": "PRIMARY"}, {"not": {"ImageType": "LOCALIZER"}}]},
    {"any": [{"Modality": "CT"}, {"Modality": "MR"}]},
    {"SliceThickness": {"at_least": 3, "at_most": 3}},
    {"all": [{"StudyDate": "2024"}, {"StudyDate": {"at_least": "2024-06"}}]},
    {"all": [{"Orientation": "axial"}, {"Orientation": "coronal"}]},
    {"all": [{"(0019,10,ACME)": 1}, {"(0019,10,ACME)": 2}]},
    {"all": [{"SeriesDescription": {"contains": "a"}}, {"SeriesDescription": {"contains": "b"}}]},
    {"all": [{"SeriesDescription": "a"}, {"SeriesDescription": {"matches": "b"}}]},
    {
        "all": [
            {"RequestAttributesSequence.ScheduledProcedureStepID": "1"},
            {"RequestAttributesSequence.ScheduledProcedureStepID": "2"},
        ]
    },
    {"all": [{"Modality": "CT"}, {"not": {"all": [{"Modality": "CT"}, {"Rows": 1}]}}]},
    {"all": [{"not": {"Modality": "CT"}}, {"not": {"Modality": "MR"}}]},
    {"ImageComments": r"a\b"},
    {"all": [{"Rows": {"at_most": 5}}, {"not": {"Rows": {"at_most": 3}}}]},
    {"all": [{"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}}, {"ReceivedTimeOfDay": {"at_most": "05:00"}}]},
]


@pytest.mark.parametrize(("when", "path"), CONTRADICTIONS)
def test_contradictions_are_found_where_they_are(when: Any, path: str) -> None:
    ((where, problem),) = found(when)
    assert where.startswith(path)
    assert "says" in problem


@pytest.mark.parametrize("when", FINE)
def test_what_can_be_true_is_left_alone(when: Any) -> None:
    assert found(when) == []


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"ImageType": r"ORIGINAL\PRIMARY"}, "is 2 values"),
        ({"not": {"ImageType": {"contains": r"A\B\C"}}}, "is 3 values"),
        ({"any": [{"StationName": ["x" * 17, "y"]}, {"Rows": 1}]}, "longer than the 16 characters that a SH holds"),
    ],
)
def test_values_that_never_come(when: Any, words: str) -> None:
    ((_, problem),) = found(when)
    assert words in problem


# ----------------------------------------------------------------------------------- what is found is true

_POOL: list[Any] = [
    *({"Modality": value} for value in ("CT", "mr", ["CT", "PT"], {"contains": "CT"}, {"exists": True})),
    *({"ImageType": value} for value in ("CT", "mr", ["CT", "PT"], {"contains": "CT"}, {"exists": False})),
    *({"SliceThickness": value} for value in (1, [1, 2], {"at_least": 2}, {"at_most": 1}, {"between": [1, 2]})),
    *({"StudyDate": value} for value in ("2023", "2024-01-31", {"at_most": "2023"}, {"at_least": "2024-02"})),
    *({"SeriesDescription": value} for value in ("ct", "a ct", {"contains": "CT"}, {"matches": "mr"})),
    *({"IsAVolume": value} for value in (True, False)),
    *({"StudyTime": value} for value in ("22", "23:30", {"between": ["22:00", "06:00"]}, {"at_most": "05:59"})),
]
_VRS = {
    "Modality": "CS",
    "ImageType": "CS",
    "SliceThickness": "DS",
    "StudyDate": "DA",
    "SeriesDescription": "LO",
    "IsAVolume": "FLAG",
    "StudyTime": "TM",
}
_VALUES: dict[str, list[Any]] = {
    "CS": ["CT", "MR", "PT"],
    "DS": [1.0, 1.5, 2.0, 3.0],
    "DA": ["20230101", "2023", "20240131", "20240201", "rubbish"],
    "LO": ["CT", "a CT", "mr", ""],
    "FLAG": [True, False],
    "TM": ["220000", "2330", "05", "060030", "120000", "rubbish"],
}
_conditions = st.recursive(
    st.sampled_from(_POOL),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=2, max_size=2).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


@st.composite
def _series(draw: st.DrawFn) -> Header:
    """One value each but of Image Type, as the standard has it."""
    header = {}
    for subject, vr in _VRS.items():
        count = draw(st.integers(0, 3 if subject == "ImageType" else 1))
        values = draw(st.lists(st.sampled_from(_VALUES[vr]), min_size=count, max_size=count))
        header[subject] = Element(vr, tuple(values))
    return header


_ALWAYS_NEEDED = re.compile(r"when(\.all\[\d+\])*(\.not(\.any\[\d+\])?)?\.[A-Z]\w+")


@given(st.lists(_conditions, min_size=2, max_size=4), _series())
def test_a_condition_that_contradicts_itself_is_never_true(parts: list[Any], series: Header) -> None:
    when = {"all": parts}
    if any(_ALWAYS_NEEDED.fullmatch(path) for path, _ in found(when)):
        assert not explain(parse_condition(when), series, series).holds


_COMPARISONS = [parse_condition(when) for when in _POOL]


@given(st.sampled_from(_COMPARISONS), st.sampled_from(_COMPARISONS), _series())
def test_what_one_comparison_implies_is_true(one: Condition, other: Condition, series: Header) -> None:
    if implies(one, other, DICTIONARY) and explain(one, series, series).holds:
        assert explain(other, series, series).holds


@given(_conditions, _conditions, _series())
def test_what_one_condition_implies_is_true(one: Any, other: Any, series: Header) -> None:
    first, second = parse_condition(one), parse_condition(other)
    if implies(first, second, DICTIONARY) and explain(first, series, series).holds:
        assert explain(second, series, series).holds


@given(conditions(), conditions())
def test_a_condition_implies_itself_and_its_parts(one: Condition, other: Condition) -> None:
    assert implies(one, one, DICTIONARY)
    assert implies(All((other, one)), one, DICTIONARY)
    assert implies(one, AnyOf((other, one)), DICTIONARY)
    assert implies(Not(AnyOf((other, one))), Not(one), DICTIONARY)
    assert implies(Not(one), Not(All((other, one))), DICTIONARY)


IMPLIED: list[tuple[Any, Any]] = [
    ({"Modality": "ct"}, {"Modality": ["CT", "MR"]}),
    ({"Modality": ["CT", "MR"]}, {"Modality": {"exists": True}}),
    ({"SliceThickness": {"at_most": 3}}, {"SliceThickness": {"at_most": 5}}),
    ({"SliceThickness": {"between": [2, 3]}}, {"SliceThickness": {"at_least": 2}}),
    ({"SliceThickness": 2}, {"SliceThickness": {"between": [1, 3]}}),
    ({"StudyDate": "2024-02"}, {"StudyDate": {"between": ["2024", "2024"]}}),
    ({"StudyDate": {"between": ["2024-02", "2024-03"]}}, {"StudyDate": ["2023", "2024"]}),
    ({"PatientAge": {"at_least": "18Y"}}, {"PatientAge": {"at_least": 17.5}}),
    ({"ReceivedTimeOfDay": "23"}, {"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}}),
    (
        {"ReceivedTimeOfDay": {"between": ["23:00", "05:00"]}},
        {"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}},
    ),
    ({"SeriesDescription": "Thin Abdomen"}, {"SeriesDescription": {"contains": "abd"}}),
    ({"SeriesDescription": {"contains": "abdomen"}}, {"SeriesDescription": {"contains": "ABD"}}),
    ({"SeriesDescription": {"at_least": 5}}, {"SeriesDescription": {"at_least": 3}}),
    ({"ImageType": {"contains": "AXIAL"}}, {"ImageType": ["AXIAL", "PRIMARY"]}),
    ({"Modality": "CT"}, {"not": {"Modality": "MR"}}),
    ({"IsAVolume": True}, {"not": {"IsAVolume": False}}),
    ({"not": {"Modality": ["CT", "MR"]}}, {"not": {"Modality": "CT"}}),
    ({"Modality": {"exists": False}}, {"not": {"Modality": "CT"}}),
    ({"all": [{"Rows": 512}, {"Modality": "CT"}]}, {"any": [{"Modality": "CT"}, {"Columns": 3}]}),
    ({"any": [{"Modality": "CT"}, {"Modality": "PT"}]}, {"Modality": ["CT", "MR", "PT"]}),
    ({"not": {"any": [{"Rows": 1}, {"Columns": 1}]}}, {"not": {"all": [{"Rows": 1}, {"Columns": 1}]}}),
]
NOT_IMPLIED: list[tuple[Any, Any]] = [
    ({"Modality": ["CT", "MR"]}, {"Modality": "CT"}),
    ({"SliceThickness": {"at_most": 5}}, {"SliceThickness": {"at_most": 3}}),
    ({"SliceThickness": {"at_least": 2}}, {"SliceThickness": {"between": [1, 9]}}),
    ({"StudyDate": "2024"}, {"StudyDate": "2024-02"}),
    ({"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}}, {"ReceivedTimeOfDay": {"at_least": "22:00"}}),
    ({"ImageType": "AXIAL"}, {"not": {"ImageType": "LOCALIZER"}}),  # it has several values
    ({"Orientation": "axial"}, {"not": {"Orientation": "coronal"}}),
    ({"SeriesDescription": {"contains": "abd"}}, {"SeriesDescription": "abd"}),
    ({"SeriesDescription": {"matches": "abd"}}, {"SeriesDescription": {"contains": "abd"}}),
    ({"SeriesDescription": "5"}, {"SeriesDescription": {"at_least": 3}}),
    ({"not": {"IsAVolume": True}}, {"IsAVolume": False}),  # it may not be known
    ({"not": {"Modality": "CT"}}, {"Modality": {"exists": False}}),
    ({"(0019,10,ACME)": 1}, {"(0019,10,ACME)": [1, 2]}),  # nobody knows its VR
    ({"Rows": 1}, {"Columns": 1}),
    ({"any": [{"Modality": "CT"}, {"Rows": 1}]}, {"Modality": "CT"}),
]


@pytest.mark.parametrize(("one", "other"), IMPLIED)
def test_what_follows_is_found(one: Any, other: Any) -> None:
    assert implies(parse_condition(one, keyword_vrs()), parse_condition(other, keyword_vrs()), DICTIONARY)


@pytest.mark.parametrize(("one", "other"), NOT_IMPLIED)
def test_what_does_not_follow_is_left_alone(one: Any, other: Any) -> None:
    assert not implies(parse_condition(one, keyword_vrs()), parse_condition(other, keyword_vrs()), DICTIONARY)


def test_conditions_nested_deep_are_compared_in_no_time() -> None:
    one: Any = {"Modality": "CT"}
    other: Any = {"Modality": "MR"}
    for number in range(14):
        word, counter = ("all", "any") if number % 2 else ("any", "all")
        one = {word: [one, {"Rows": number}, {"Columns": number}]}
        other = {counter: [other, {"Rows": number + 100}, {"Columns": number + 100}]}
    assert not implies(parse_condition(one), parse_condition(other), DICTIONARY)


# ------------------------------------------------------------------------------------ the whole of one rule


@pytest.mark.parametrize(
    ("more", "path", "words"),
    [
        (
            {"study": {"has": {"all": [{"Modality": "CT"}, {"Modality": "MR"}]}}},
            "study.has[0].all[1].Modality",
            "says",
        ),
        ({"study": {"has_not": [{"Rows": 1}, {"ImageType": "A\\B"}]}}, "study.has_not[1].ImageType", "is 2 values"),
        (
            {"study": {"has": {"Modality": "PT"}, "has_not": {"Modality": "PT"}}},
            "study.has_not[0]",
            "study.has[0] asks",
        ),
        ({"study": {"has_not": {"Modality": ["CT", "MR"]}}}, "study.has_not[0]", "when asks for one"),
        ({"study": {"has": [{"Rows": 5}, {"Modality": ["CT", "MR"]}]}}, "study.has[1]", "always true"),
        (
            {"study": {"has_not": {"Modality": "PT"}}, "roles": {"pet": {"when": {"Modality": "PT", "Rows": 5}}}},
            "study.has_not[0]",
            "roles.pet.when asks",
        ),
        ({"roles": {"pet": {"when": {"Rows": {"at_least": 5, "at_most": 3}}}}}, "roles.pet.when.all[1].Rows", "says"),
        ({"choose": ["latest", "most_instances"]}, "choose[1]", "never decides: when.all[1].NumberOfInstances says"),
        ({"choose": [{"kernel": ["B30F", "Br40"]}]}, "choose[0]", "never decides"),
        (
            {"roles": {"pet": {"when": {"MeasuredSliceSpacing": 3}, "choose": ["thinnest_slices"]}}},
            "roles.pet.choose[0]",
            "roles.pet.when.MeasuredSliceSpacing says",
        ),
    ],
)
def test_what_the_parts_of_a_rule_say_of_one_another(more: dict[str, Any], path: str, words: str) -> None:
    when = {"all": [{"Modality": "CT"}, {"NumberOfInstances": 10}, {"ConvolutionKernel": "B30f"}]}
    for state in ("enabled", "shadow", "disabled"):
        (finding,) = findings_in(rule(when, state=state, **more), DICTIONARY)
        assert finding.path == path
        assert words in finding.problem


@pytest.mark.parametrize(
    "more",
    [
        {"study": {"has": {"Modality": "PT"}, "has_not": {"Modality": ["SR", "SEG"]}}},
        {"study": {"has": {"Modality": "CT", "Rows": 5}, "has_not": {"Modality": "CT", "Rows": 6}}},
        {"study": {"has_not": {"Modality": "PT"}}, "roles": {"pet": {"when": {"Modality": "PT"}, "from": "prior"}}},
        {"choose": [{"kernel": ["Br40", "B30f"]}, "thinnest_slices", "latest", "lowest_number"]},
        {"when": {"NumberOfInstances": [10, 20]}, "choose": ["most_instances"]},
        {"when": {"not": {"NumberOfInstances": 10}}, "choose": ["most_instances"]},
    ],
)
def test_parts_that_go_together_are_left_alone(more: dict[str, Any]) -> None:
    when = more.pop("when", {"Modality": "CT", "ConvolutionKernel": "B30f"})
    assert findings_in(rule(when, **more), DICTIONARY) == []


# ---------------------------------------------------------------------------------------- among other rules


def test_twins_are_found_in_any_order_of_parts() -> None:
    one = rule({"all": [{"Modality": "CT"}, {"Rows": 512}]}, "one")
    two = rule({"all": [{"Rows": 512}, {"Modality": "CT"}]}, "two", priority="stat")
    other_model = rule({"all": [{"Rows": 512}, {"Modality": "CT"}]}, "three", model="n")
    off = rule({"all": [{"Rows": 512}, {"Modality": "CT"}]}, "four", enabled=False)
    shadow = rule({"all": [{"Rows": 512}, {"Modality": "CT"}]}, "five", state="shadow")
    (finding,) = twins([one, two, other_model, off, shadow])
    assert (finding.rule, "rule one" in finding.problem) == ("two", True)
    assert [f.rule for f in twins([two], [one])] == ["two"]
    assert [f.path for f in same_names([one, two, rule({"Rows": 1}, "one")])] == ["name"]


@pytest.mark.parametrize(
    "more",
    [
        {"version": "1.0.0"},
        {"parameters": {"overlap": 0.5}},
        {"results": ["SR"], "destinations": ["ris"]},
        {"choose": ["latest"]},
        {"study": {"has": {"Modality": "PT"}}},
        {"study": {"has_not": {"Modality": "PT"}}},
        {"roles": {"pet": {"when": {"Modality": "PT"}}}},
    ],
)
def test_rules_that_do_different_work_are_no_twins(more: dict[str, Any]) -> None:
    one, two = rule({"Modality": "CT"}, "one"), rule({"Modality": "CT"}, "two", **more)
    assert list(twins([one, two])) == []
    assert [f.rule for f in twins([one, two, rule({"Modality": "CT"}, "three", **more)])] == ["three"]


def test_one_that_stops_has_no_twin_after_it() -> None:
    first, second = rule({"Modality": "CT"}, "one", stop=True), rule({"Modality": "CT"}, "two")
    assert list(twins([second, first])) == []
    assert [f.rule for f in twins([rule({"Modality": "CT"}, "two", stop=True), rule({"Modality": "CT"}, "one")])]


def _stop(when: Any, **more: Any) -> Rule:
    return parse_rule({"name": "halt", "when": when, "stop": True, "order": 10, **more}, keyword_vrs())


THIN_CT = {"Modality": "CT", "SliceThickness": {"at_most": 3}}


@pytest.mark.parametrize(
    ("stop", "more"),
    [
        (_stop({"Modality": ["CT", "MR"]}), {}),
        (_stop({"SliceThickness": {"at_most": 5}}, model="m"), {"state": "disabled"}),
        (_stop({"Modality": "CT"}, order=100, name="Halt"), {}),  # of the same order: by name
        (
            _stop({"Modality": "CT"}, study={"has": {"Modality": "PT"}}),
            {"study": {"has": {"Modality": "PT", "Rows": 5}}},
        ),
        (_stop({"Modality": "CT"}, study={"has": {"SliceThickness": {"exists": True}}}), {}),
        (
            _stop({"Modality": "CT"}, study={"has_not": {"Modality": "PT", "Rows": 5}}),
            {"study": {"has_not": {"Modality": "PT"}}},
        ),
    ],
)
def test_a_rule_after_one_that_stops_all_its_series_is_found(stop: Rule, more: dict[str, Any]) -> None:
    stopped = rule(THIN_CT, "thin", **more)
    (finding,) = never_asked([stopped], [stop], DICTIONARY)
    assert (finding.rule, finding.path) == ("thin", "order")
    assert f"rule {stop.name} (order {stop.order}) takes all" in finding.problem
    (finding,) = never_asked([stop], [stopped], DICTIONARY)
    assert (finding.rule, finding.path) == (stop.name, "stop")
    assert len(list(never_asked([stop, stopped], [], DICTIONARY))) == 1
    assert list(never_asked([], [stop, stopped], DICTIONARY)) == []


@pytest.mark.parametrize(
    ("stop", "more"),
    [
        (_stop({"Modality": "CT"}, order=101), {}),  # asked after it
        (_stop({"Modality": "CT"}, state="shadow"), {}),
        (_stop({"Modality": "CT"}, state="disabled"), {}),
        (_stop({"Modality": "CT", "Rows": 512}), {}),
        (_stop({"Modality": "CT"}, model="m", choose=["latest"]), {}),  # leaves the others
        (_stop({"Modality": "CT"}, model="m", roles={"pet": {"when": {"Modality": "PT"}}}), {}),
        (_stop({"Modality": "CT"}, study={"has": {"Modality": "PT"}}), {}),
        (
            _stop({"Modality": "CT"}, study={"has_not": {"Modality": "PT"}}),
            {"study": {"has_not": {"Modality": "SR"}}},
        ),
        (rule({"Modality": "CT"}, "halt", order=10), {}),
    ],
)
def test_a_rule_that_may_still_get_a_series_is_left_alone(stop: Rule, more: dict[str, Any]) -> None:
    assert list(never_asked([rule(THIN_CT, "thin", **more), stop], [], DICTIONARY)) == []


# ----------------------------------------------------------------------------------------- and of the node


def test_what_the_node_does_not_have() -> None:
    asked = rule({"Modality": "CT"}, destinations=["pac", "pacs"])
    paths = [(f.path, f.remedy) for f in missing(asked, {}, ["pacs"], DICTIONARY)]
    assert paths == [
        ("model", "dicomnode models add FOLDER"),
        ("destinations[0]", "dicomnode destinations add pac ..., or did you mean pacs?"),
    ]
    assert missing(asked, {"m": ["CT"]}, ["pac", "pacs"], DICTIONARY) == []
    (finding,) = missing(asked, {"m": ["MR", "PT"]}, ["pac", "pacs"], DICTIONARY)
    assert finding.problem == "the model m takes MR or PT, and the rule says Modality equals 'CT'"


def test_the_rules_that_are_shown_to_everyone_are_clean() -> None:
    files = sorted((ROOT / "sample_data" / "rules").rglob("*.yaml"))
    assert files
    shown = [r for file in files for r in read_rules(file, keyword_vrs())]
    assert [f for r in shown for f in findings_in(r, DICTIONARY)] == []
    assert [*same_names(shown), *twins(shown), *never_asked(shown, [], DICTIONARY)] == []
