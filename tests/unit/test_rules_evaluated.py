"""What conditions say of headers: VR by VR, clause by clause, in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.domain.conditions import (
    NOT_LOOKED_AT,
    Explanation,
    comparison_words,
    decide,
    explain,
    found_words,
    settled,
)
from dicomnode.domain.routing import Asked, decide_study
from dicomnode.domain.rule_reading import parse_condition, parse_rule
from dicomnode.domain.rules import All, AnyOf, Comparison, Condition, Not, Rule, condition_document, rule_document
from dicomnode.domain.study import Element, Evidence, Header
from tests.unit.rule_strategies import SUBJECTS, conditions, headers, rules


def _holds(when: Any, header: Header, facts: Header | None = None) -> bool:
    return explain(parse_condition(when), header, facts or {}).holds


# ----------------------------------------------------------------------------------------------- properties


@given(rules(), headers(), headers())
def test_a_printed_and_read_rule_decides_as_before(rule: Rule, header: Header, facts: Header) -> None:
    again = parse_rule(json.loads(json.dumps(rule_document(rule))))
    assert decide(again, header, facts).matches == decide(rule, header, facts).matches


def _evidence(number: int, header: Header, facts: Header) -> Evidence:
    return Evidence(f"1.2.{number}", 1, header, facts)


def _said(several: list[Rule], study: list[Evidence], priors: list[list[Evidence]]) -> str:
    """What all rules come to for every series, as the database keeps it."""
    asked = [Asked(f"{number} {rule.name}", 1, rule) for number, rule in enumerate(several)]
    outcomes = [o for complete in (True, False) for o in decide_study(asked, study, priors, complete)]
    return json.dumps([[o.document() for o in series.outcomes] for series in outcomes], allow_nan=False)


_several_rules = st.lists(rules(), min_size=1, max_size=2)
_series = st.lists(st.tuples(headers(), headers()), min_size=1, max_size=3).map(
    lambda pairs: [_evidence(number, *pair) for number, pair in enumerate(pairs)]
)


@settings(max_examples=50)
@given(_several_rules, _series, st.lists(_series, max_size=1))
def test_printed_and_read_rules_decide_a_whole_study_as_before(
    several: list[Rule], study: list[Evidence], priors: list[list[Evidence]]
) -> None:
    again = [parse_rule(json.loads(json.dumps(rule_document(rule)))) for rule in several]
    assert _said(again, study, priors) == _said(several, study, priors)


@settings(max_examples=30)
@given(_several_rules, st.integers(1, 2))
def test_studies_without_any_attribute_raise_nothing(several: list[Rule], count: int) -> None:
    study = [_evidence(number, {}, {}) for number in range(count)]
    assert _said(several, study, [[]])


@given(conditions())
def test_missing_attributes_make_every_comparison_false_and_raise_nothing(condition: Condition) -> None:
    def all_missing(c: Condition) -> bool:
        match c:
            case All(parts):
                return all(all_missing(p) for p in parts)
            case AnyOf(parts):
                return any(all_missing(p) for p in parts)
            case Not(part):
                return not all_missing(part)
            case _:
                return False

    assert explain(condition, {}, {}).holds == all_missing(condition)


def _combined(explanation: Explanation) -> bool:
    parts = [_combined(part) for part in explanation.parts]
    match explanation.condition:
        case All():
            return all(parts)
        case AnyOf():
            return any(parts)
        case Not():
            return not parts[0]
        case _:
            return explanation.holds


@given(conditions(), headers())
def test_the_clauses_combine_to_the_decision(condition: Condition, header: Header) -> None:
    explanation = explain(condition, header, {})
    assert _combined(explanation) == explanation.holds
    assert explanation.document()["holds"] == explanation.holds


@given(conditions(), headers())
def test_what_is_kept_suits_every_database(condition: Condition, header: Header) -> None:
    """PostgreSQL takes neither NUL nor lone surrogates nor NaN, and a reason is no place for a long text."""
    explanation = explain(condition, header, {})
    kept = explanation.words() + json.dumps(explanation.document(), allow_nan=False, ensure_ascii=False)
    kept.encode("utf-8")
    assert "\0" not in kept
    assert "x" * 300 not in kept


def _with_others_turned_over(explanation: Explanation, deciding: list[int]) -> bool:
    """The condition's truth if every comparison but the deciding ones said the opposite."""
    parts = [_with_others_turned_over(part, deciding) for part in explanation.parts]
    match explanation.condition:
        case All():
            return all(parts)
        case AnyOf():
            return any(parts)
        case Not():
            return not parts[0]
        case _:
            return explanation.holds if id(explanation) in deciding else not explanation.holds


@given(conditions(), headers())
def test_the_deciding_clauses_alone_decide(condition: Condition, header: Header) -> None:
    explanation = explain(condition, header, {})
    deciding = explanation.deciding()
    assert deciding
    assert _with_others_turned_over(explanation, [id(d) for d in deciding]) == explanation.holds
    assert all(comparison_words(clause) for clause in deciding)


_UNKNOWN = st.sets(st.sampled_from(sorted(subject for subject in SUBJECTS if "." not in subject)))


@given(conditions(), headers(), headers(), _UNKNOWN)
def test_what_is_settled_holds_whatever_is_not_known(
    condition: Condition, header: Header, others: Header, unknown: set[str]
) -> None:
    said = settled(condition, header, {}, unknown)
    facts = {subject: others.get(subject, Element(SUBJECTS[subject], ())) for subject in unknown}
    assert said is None or explain(condition, header, facts).holds == said


@given(conditions(), headers())
def test_nothing_unknown_leaves_nothing_open(condition: Condition, header: Header) -> None:
    assert settled(condition, header, {}, ()) == explain(condition, header, {}).holds


@given(conditions(), headers(), _UNKNOWN)
def test_what_was_not_looked_at_decides_nothing(condition: Condition, header: Header, unknown: set[str]) -> None:
    if settled(condition, header, {}, unknown) is None:
        return
    facts = {subject: Element(SUBJECTS[subject], (), NOT_LOOKED_AT) for subject in unknown}
    explanation = explain(condition, header, facts)
    deciding = explanation.deciding()
    assert deciding
    assert _with_others_turned_over(explanation, [id(d) for d in deciding]) == explanation.holds
    assert "not looked at" not in explanation.words()


@given(conditions(), headers())
def test_a_clause_says_of_itself_what_it_says_in_the_tree(condition: Condition, header: Header) -> None:
    for clause in explain(condition, header, {}).deciding():
        assert isinstance(clause.condition, Comparison)
        alone = parse_condition(condition_document(clause.condition))
        assert explain(alone, header, {}).holds == clause.holds


# ------------------------------------------------------------------------------------------- operator × VR

TABLE: list[tuple[str, tuple[Any, ...], Any, bool]] = [
    # numbers
    ("DS", (5.0,), 5, True),
    ("DS", (5.0,), "5.00", True),
    ("DS", (0.699999988079071,), 0.7, True),
    ("DS", (0.71,), 0.7, False),
    ("DS", (5.0000001,), {"at_most": 5}, True),
    ("DS", (5.1,), {"at_most": 5}, False),
    ("DS", (0.5, 7.0), {"at_least": 5}, True),
    ("DS", (3.0,), {"between": [3, 5]}, True),
    ("DS", (5.0,), {"between": [3, 5]}, True),
    ("DS", (5.5,), {"between": [3, 5]}, False),
    ("DS", (3.0,), [1, 3], True),
    ("DS", (1.25,), {"matches": r"^1\.25$"}, True),
    ("DS", (5.0,), {"matches": "^5$"}, True),
    ("DS", (5.0,), {"contains": 5}, False),
    ("DS", ("1.2.3",), {"at_least": 0}, False),
    ("DS", (float("nan"),), {"at_least": 0}, False),
    ("DS", ("7,5", 7.5), {"at_least": 7}, True),
    ("IS", (12,), {"at_least": 10}, True),
    ("UL", (4000000001,), 4000000000, False),
    ("US or SS", (3,), {"at_most": 3}, True),
    # dates and times
    ("DA", ("20240131",), "2024-01-31", True),
    ("DA", ("20240131",), 20240131, True),
    ("DA", ("2024.01.31",), "2024-01", True),
    ("DA", ("20240131",), {"at_least": "2024"}, True),
    ("DA", ("20231231",), {"at_least": "2024"}, False),
    ("DA", ("20241231",), {"at_most": "2024"}, True),
    ("DA", ("20250101",), {"at_most": "2024-12"}, False),
    ("DA", ("20240229",), {"between": ["2024-02", "2024-02"]}, True),
    ("DA", ("00000000",), {"at_least": "2024"}, False),
    ("DA", ("unknown",), "2024", False),
    ("TM", ("143005.25",), {"at_least": "14:30"}, True),
    ("TM", ("1430",), {"at_most": "14:30"}, True),
    ("TM", ("143059.999999",), {"at_most": "14:30"}, True),
    ("TM", ("143100",), {"at_most": "14:30"}, False),
    ("TM", ("10:11:12",), "101112", True),
    ("TM", ("101112.5",), "101112", True),
    ("TM", ("235960",), {"at_least": 23}, True),
    ("TM", ("99",), {"at_least": "00"}, False),
    ("DT", ("20240131143000.000000+0100",), "20240131133000+0000", True),
    ("DT", ("20240131143000",), {"at_least": "2024-01-31 14:30"}, True),
    ("DT", ("2024",), {"at_most": "2024-06"}, False),
    ("DT", ("20240131",), "2024", True),
    # ages, in years
    ("AS", ("018Y",), {"at_least": 18}, True),
    ("AS", ("018M",), {"at_least": 18}, False),
    ("AS", ("018M",), 1.5, True),
    ("AS", ("052W",), {"at_most": "1Y"}, True),
    ("AS", ("18 years",), {"at_least": 18}, False),
    ("AS", ("045",), 45, True),
    # person names
    ("PN", ("DOE^JOHN^^^",), "Doe^John", True),
    ("PN", ("Äneas^Rüdiger",), "A\u0308NEAS^RU\u0308DIGER", True),
    ("PN", ("Люкceмбypг",), {"contains": "люк"}, True),
    ("PN", ("Doe^John",), "Doe", False),
    ("PN", ("Yamada^Tarou=山田^太郎=やまだ^たろう",), "山田^太郎", True),
    ("PN", ("Yamada^Tarou=山田^太郎=やまだ^たろう",), "yamada^tarou", True),
    ("PN", ("Yamada^Tarou=山田^太郎=",), "Yamada^Tarou=山田^太郎", True),
    ("PN", ("Yamada^Tarou=山田^太郎",), {"contains": "太郎"}, True),
    ("PN", ("Yamada^Tarou=山田^太郎",), {"contains": "u=山"}, True),
    ("PN", ("Yamada^Tarou=山田^太郎",), "Yamada^太郎", False),
    # codes
    ("CS", ("ORIGINAL", "PRIMARY", "AXIAL"), {"contains": "AXIAL"}, True),
    ("CS", ("ORIGINAL", "PRIMARY", "AXIAL_2"), {"contains": "AXIAL"}, False),
    ("CS", ("ORIGINAL", "PRIMARY", "AXIAL"), "PRIMARY", True),
    ("CS", ("Chest",), ["CHEST", "ABDOMEN"], True),
    ("CS", ("NO",), "NO", True),
    ("CS", ("AXIAL",), {"at_least": 1}, False),
    ("CS", ("ORIGINAL", "AXIAL"), {"matches": "^AX"}, True),
    # text
    ("LO", ("Torso 1.0 B31f ",), {"contains": "b31F"}, True),
    ("LO", ("Torso",), "torso", True),
    ("LO", ("Torso",), {"matches": "torso"}, False),
    ("LO", ("Torso",), {"matches": "(?i)torso"}, True),
    ("LO", ("0123",), 123, False),
    ("LO", ("123",), 123, True),
    ("LO", ("3.5",), {"at_least": 3}, True),
    ("LO", ("three",), {"at_least": 3}, False),
    ("UN", ("12.5",), {"at_most": 13}, True),
    # identifiers
    ("AE", ("CT1 ",), "CT1", True),
    ("AE", ("ct1",), "CT1", False),
    ("UI", ("1.2.840.1",), {"contains": "1.2.840."}, True),
    ("UI", ("1.2.840.1",), {"at_least": 1}, False),
    # neither
    ("SQ", ({},), {"exists": True}, True),
    ("SQ", (), {"exists": True}, False),
    ("SQ", ({},), "x", False),
    ("LO", (), "x", False),
    ("LO", (), {"exists": False}, True),
]


@pytest.mark.parametrize(("vr", "values", "said", "holds"), TABLE)
def test_operators_by_vr(vr: str, values: tuple[Any, ...], said: Any, holds: bool) -> None:
    assert _holds({"Attribute": said}, {"Attribute": Element(vr, values)}) is holds


def test_every_operator_meets_every_vr_without_an_error() -> None:
    vrs = "AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV ZZ"
    operations: list[dict[str, Any]] = [
        {"equals": "1"}, {"one_of": [1, "x"]}, {"contains": "1"}, {"matches": "1"}, {"at_least": "1"},
        {"at_most": 1}, {"between": [0, 2]}, {"exists": True},
    ]  # fmt: skip
    for vr in vrs.split():
        for operation in operations:
            for value in ("", "1", "\ud800", "x" * 100_000, 1, 1.5, float("inf"), {}, b"\xff", None):
                header = {"Attribute": Element(vr, (value,))}
                explanation = explain(parse_condition({"Attribute": operation}), header, {})
                assert comparison_words(explanation).startswith("Attribute is")


def test_nested_sequences_are_searched_item_by_item() -> None:
    items = ({"CodeValue": Element("SH", ("A",))}, {}, {"CodeValue": Element("SH", ("B",))})
    header = {"Outer": Element("SQ", ({"Inner": Element("SQ", items)},)), "Flat": Element("LO", ("x",))}
    assert _holds({"Outer.Inner.CodeValue": "B"}, header)
    assert not _holds({"Outer.Inner.CodeValue": "C"}, header)
    assert not _holds({"Outer.Inner": "C"}, header)
    assert not _holds({"Flat.Inner": "C"}, header)
    assert _holds({"not": {"Outer.Missing": "C"}}, header)


def test_a_fact_goes_before_an_attribute() -> None:
    facts = {"NumberOfInstances": Element("IS", (12,))}
    assert _holds({"NumberOfInstances": {"at_least": 10}}, {}, facts)


# --------------------------------------------------------------------------------------------------- words

CT = {
    "Modality": Element("CS", ("CT",)),
    "ImageType": Element("CS", ("ORIGINAL", "PRIMARY", "LOCALIZER")),
    "SliceThickness": Element("DS", (7.0,)),
    "PatientName": Element("PN", ("Doe^John",)),
    "BodyPartExamined": Element("CS", ()),
    "StudyDate": Element("DA", ("yesterday",)),
}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"Modality": "CT"}, "Modality is 'CT'"),
        ({"Modality": "MR"}, "Modality is 'CT', not 'MR'"),
        ({"Modality": ["MR", "PT"]}, "Modality is 'CT', none of 'MR', 'PT'"),
        ({"ImageType": {"contains": "AXIAL"}}, r"ImageType is 'ORIGINAL\PRIMARY\LOCALIZER', without 'AXIAL'"),
        ({"not": {"ImageType": {"contains": "PRIMARY"}}}, r"ImageType is 'ORIGINAL\PRIMARY\LOCALIZER', with 'PRIMARY'"),  # noqa: E501
        ({"SliceThickness": {"at_most": 5}}, "SliceThickness is 7, over 5"),
        ({"SliceThickness": {"at_least": 5}}, "SliceThickness is 7, at least 5"),
        ({"SliceThickness": {"between": [1, 5]}}, "SliceThickness is 7, not from 1 to 5"),
        ({"BodyPartExamined": "CHEST"}, "BodyPartExamined is empty"),
        ({"Laterality": "L"}, "Laterality is missing"),
        ({"not": {"Laterality": "L"}}, "Laterality is missing"),
        ({"Modality": {"exists": False}}, "Modality is there"),
        ({"PatientName": "Roe^Jane"}, "PatientName is (a name), not 'Roe^Jane'"),
        (
            {"StudyDate": {"at_least": "2024"}},
            "StudyDate is 'yesterday' ('yesterday' is no date such as 20240131 or 2024-01-31)",
        ),
        ({"Modality": "MR", "SliceThickness": 5}, "Modality is 'CT', not 'MR'; SliceThickness is 7, not 5"),
        ({"any": [{"Modality": "CT"}, {"SliceThickness": 5}]}, "Modality is 'CT'"),
    ],
)  # fmt: skip
def test_words(said: Any, words: str) -> None:
    assert explain(parse_condition(said), CT, {}).words() == words


def test_why_names_the_rule_and_what_decided() -> None:
    rule = parse_rule({"name": "torso-ct", "model": "m", "when": {"Modality": "CT", "Rows": {"exists": True}}})
    header = {"Modality": Element("CS", ("MR",)), "Rows": Element("US", (512,))}
    assert decide(rule, header, {}).why() == "rule torso-ct did not match: Modality is 'MR', not 'CT'"
    matched = decide(rule, header | {"Modality": Element("CS", ("CT",))}, {}).why()
    assert matched == "rule torso-ct matched: Modality is 'CT'; Rows is there"


def test_many_clauses_are_counted_not_listed() -> None:
    when = {"all": [{f"Attribute{i}": "x"} for i in range(9)]}
    words = explain(parse_condition(when), {}, {}).words()
    assert words == "Attribute0 is missing; Attribute1 is missing; Attribute2 is missing; and 6 more"


@pytest.mark.parametrize(
    ("said", "header"),
    [
        ({"PatientID": {"matches": "^TEST"}}, {"PatientID": Element("LO", ("ID-4711",))}),
        ({"PatientBirthDate": {"at_least": "1960-01-01"}}, {"PatientBirthDate": Element("DA", ("19500312",))}),
        ({"PatientBirthDate": {"at_least": "1960-01-01"}}, {"PatientBirthDate": Element("DA", ("about 1950",))}),
        ({"PatientComments": {"contains": "test"}}, {"PatientComments": Element("LT", ("Mr Doe is allergic",))}),
        ({"AccessionNumber": "1"}, {"AccessionNumber": Element("SH", ("ACC9",))}),
        (
            {"OtherPatientIDsSequence.PatientID": "1"},
            {"OtherPatientIDsSequence": Element("SQ", ({"PatientID": Element("LO", ("OTHER-1",))},))},
        ),
    ],
)
def test_what_identifies_the_patient_is_not_kept(said: Any, header: Header) -> None:
    explanation = explain(parse_condition(said), header, {})
    kept = json.dumps(explanation.document()) + explanation.words()
    for element in header.values():
        for value in element.values:
            values = [v.values[0] for v in value.values()] if isinstance(value, dict) else [value]
            assert all(str(v) not in kept for v in values), kept
    assert "(not shown: it identifies the patient)" in explanation.words()
    assert "not shown" not in found_words(explanation, in_full=True), "whoever asks sees it"


def test_what_describes_a_body_is_kept() -> None:
    explanation = explain(
        parse_condition({"PatientWeight": {"at_most": 30}}), {"PatientWeight": Element("DS", (70,))}, {}
    )
    assert explanation.words() == "PatientWeight is 70, over 30"


@pytest.mark.parametrize("operands", [["unknown", "045Y"], ["045Y", "unknown"]])
def test_one_operand_that_does_not_compare_says_nothing_of_the_others(operands: list[str]) -> None:
    condition, age = parse_condition({"PatientAge": {"one_of": operands}}), {"PatientAge": Element("AS", ("045Y",))}
    assert explain(condition, age, {}).holds
    assert settled(condition, age, {}) is True
    other = explain(condition, {"PatientAge": Element("AS", ("046Y",))}, {})
    assert (other.holds, other.note) == (False, "")
    neither = explain(parse_condition({"PatientAge": {"one_of": ["unknown", "old"]}}), age, {})
    assert (neither.holds, bool(neither.note)) == (False, True)


def test_no_name_of_a_person_is_kept() -> None:
    explanation = explain(parse_condition({"PatientName": {"matches": "Do."}}), CT, {})
    assert explanation.holds
    assert "Doe" not in json.dumps(explanation.document()) + explanation.words()
