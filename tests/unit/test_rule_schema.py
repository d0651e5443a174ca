"""The JSON Schema of a rule takes what the reader takes, and refuses what has no rule's form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from dicomnode.cli.rule_yaml import Document, documents_in
from dicomnode.domain.rule_reading import OF_A_JOB, parse_rule
from dicomnode.domain.rule_schema import _CHOICE_WORDS, _FACT_WORDS, _ORIGIN_WORDS, DIALECT, rule_schema
from dicomnode.domain.rules import FACTS, Choice, Operator, Origin, Rule, rule_document
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from tests.unit.json_schema import Schema
from tests.unit.rule_strategies import rules
from tests.unit.test_cli_state import Screen
from tests.unit.test_rule_lint import CONTRADICTIONS, FINE

ROOT = Path(__file__).parents[2]
SCHEMA = rule_schema(keyword_vrs())
OWN = Schema(SCHEMA)


def _published() -> list[Any]:
    """Every rule that the manual and the sample data show."""
    texts = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), re.DOTALL)
    texts += [file.read_text(encoding="utf-8") for file in sorted((ROOT / "sample_data" / "rules").rglob("*.yaml"))]
    return [document.value for text in texts for document in documents_in(text) if isinstance(document, Document)]


def _rule(when: Any, **more: Any) -> dict[str, Any]:
    return {"name": "a", "model": "m", "when": when, **more}


CT = {"Modality": "CT"}
RIGHT = [
    *_published(),
    *(_rule(when) for when in FINE),
    *(_rule(when) for when, _ in CONTRADICTIONS),  # well formed all the same
    _rule({"Orientation": ["AXIAL", "coronal"]}),
    _rule({"PixelData": {"exists": False}}),
    _rule({"IsAVolume": {"exists": True}}),
    _rule({"Rows": {"equals": 512, "between": [1, "5"]}}, enabled=False, destinations=[], description=None),
    _rule({"ReceivedTimeOfDay": {"between": ["22:00", "06:00"]}}, order=-5, version="1.0.0+a", stop=True),
    _rule(CT, study={"has": CT, "has_not": [{"Modality": "SR"}, CT]}, state="shadow", enabled=True),
    _rule(CT, choose="all", roles={}, parameters={}, schedule="now", results=[]),
    _rule(CT, choose="latest", schedule="20:00-06:00", results=["SEG", "SR"]),
    _rule(CT, choose=["thinnest_slices", {"kernel": ["B30f"]}, "most_instances", "latest", "lowest_number"]),
    _rule(CT, roles={"pet": {"when": CT}, "1.prior": {"when": CT, "from": "prior", "choose": ["latest"]}}),
    _rule(
        CT,
        parameters={"overlap": 0.5, "fast": True, "mode": "a b", "count": 3},
        schedule=["00:00-07:30", "20:00 - 24:00"],
    ),
    {"name": "a", "when": CT, "stop": True},
    {
        "name": "a",
        "when": CT,
        "stop": True,
        "study": {"has_not": CT},
        "order": 1,
        "state": "disabled",
        "description": "x",
    },
]
WRONG: list[Any] = [
    None,
    [],
    "Modality: CT",
    {},
    {"name": "a", "model": "m"},
    {"name": "a", "when": {"Modality": "CT"}},
    _rule({}),
    _rule(None),
    _rule([{"Modality": "CT"}]),
    _rule({"Modalty": "CT"}),
    _rule({"NumberOfInstance": 3}),
    _rule({"all": []}),
    _rule({"all": {"Modality": "CT"}}),
    _rule({"not": [{"Modality": "CT"}]}),
    _rule({"any": [{"Modality": "CT"}, {}]}),
    _rule({"all": [{"not": {"any": [{"Modality": {"is": "CT"}}]}}]}),
    _rule({"Modality": True}),
    _rule({"Modality": None}),
    _rule({"Modality": ""}),
    _rule({"Modality": {}}),
    _rule({"Modality": []}),
    _rule({"Modality": {"one_of": []}}),
    _rule({"Modality": {"one_of": "CT"}}),
    _rule({"Modality": {"at_least": 3}}),
    _rule({"Modality": {"exists": "yes"}}),
    _rule({"Modality": [["CT"]]}),
    _rule({"SliceThickness": {"contains": 3}}),
    _rule({"SliceThickness": {"between": [3]}}),
    _rule({"SliceThickness": {"between": [1, 2, 3]}}),
    _rule({"SliceThickness": {"matches": 3}}),
    _rule({"PixelData": "x"}),
    _rule({"RequestAttributesSequence": "x"}),
    _rule({"IsAVolume": "true"}),
    _rule({"IsAVolume": {"one_of": [True]}}),
    _rule({"Orientation": "transverse"}),
    _rule({"(0019,10)": "x"}),
    _rule({"Modality": "CT"}, name="two words"),
    _rule({"Modality": "CT"}, priority="urgent"),
    _rule({"Modality": "CT"}, destinations="pacs"),
    _rule({"Modality": "CT"}, enabled="yes"),
    _rule({"Modality": "CT"}, modle="m"),
    {"name": "a", "when": CT, "stop": False},
    *({"name": "a", "when": CT, "stop": True, word: RIGHT[0].get(word, "x")} for word in OF_A_JOB if word != "model"),
    _rule(CT, order="first"),
    _rule(CT, order=1.5),
    _rule(CT, order=True),
    _rule(CT, order=10**7),
    _rule(CT, version=1.0),
    _rule(CT, version="1 0"),
    _rule(CT, stop="yes"),
    _rule(CT, state="on"),
    _rule(CT, study={}),
    _rule(CT, study={"has": []}),
    _rule(CT, study={"has": {}}),
    _rule(CT, study={"has": [[CT]]}),
    _rule(CT, study={"hasnot": CT}),
    _rule(CT, study=[CT]),
    _rule(CT, choose=[]),
    _rule(CT, choose="any"),
    _rule(CT, choose=["all"]),
    _rule(CT, choose=["kernel"]),
    _rule(CT, choose=[{"kernel": []}]),
    _rule(CT, choose=[{"kernel": "B30f"}]),
    _rule(CT, choose=[{"latest": True}]),
    _rule(CT, choose=[{"kernel": ["B30f"], "latest": True}]),
    _rule(CT, roles=[CT]),
    _rule(CT, roles={"pet": CT}),
    _rule(CT, roles={"pet": {"from": "study"}}),
    _rule(CT, roles={"a pet": {"when": CT}}),
    _rule(CT, roles={"pet": {"when": CT, "from": "future"}}),
    _rule(CT, roles={"pet": {"when": CT, "choose": "all"}}),
    _rule(CT, parameters=["overlap"]),
    _rule(CT, parameters={"over lap": 1}),
    _rule(CT, parameters={"overlap": None}),
    _rule(CT, parameters={"overlap": [1]}),
    _rule(CT, parameters={"overlap": ""}),
    _rule(CT, schedule="later"),
    _rule(CT, schedule="8-9"),
    _rule(CT, schedule=[]),
    _rule(CT, schedule=["now"]),
    _rule(CT, results="SEG"),
    _rule(CT, results=["seg"]),
]


_EVERYTHING = parse_rule(
    _rule(
        CT,
        description="x",
        study={"has": CT},
        roles={"pet": {"when": CT}},
        parameters={"overlap": 0.5},
        results=["SEG"],
    )
)


@pytest.mark.parametrize("document", RIGHT, ids=str)
def test_rules_are_taken(document: Any) -> None:
    assert parse_rule(document, keyword_vrs())
    assert OWN.takes(document)


@pytest.mark.parametrize("document", WRONG, ids=str)
def test_what_is_no_rule_is_refused_here_and_by_the_reader(document: Any) -> None:
    assert not OWN.takes(document)
    with pytest.raises(InvalidRule):
        parse_rule(document, keyword_vrs())


@given(rules())
def test_whatever_the_reader_takes_the_schema_takes(rule: Rule) -> None:
    document = json.loads(json.dumps(rule_document(rule)))
    try:
        parse_rule(document, keyword_vrs())
    except InvalidRule:
        return
    assert OWN.takes(document)


def test_the_validator_of_others_agrees() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: only the own check is made")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    assert [d for d in RIGHT if not validator.is_valid(d)] == []
    assert [d for d in WRONG if validator.is_valid(d)] == []


def test_it_is_printed_and_knows_every_word(tmp_path: Path) -> None:
    printed = json.loads(Screen(tmp_path).run("rules", "schema"))
    assert printed == json.loads(json.dumps(SCHEMA))
    assert printed["$schema"] == DIALECT
    assert set(_FACT_WORDS) == set(FACTS)
    assert set(_CHOICE_WORDS) == set(Choice)
    assert set(_ORIGIN_WORDS) == set(Origin)
    assert set(printed["properties"]) == {*rule_document(_EVERYTHING), "enabled"}
    assert all(said.get("description") for said in printed["properties"].values())
    assert set(printed["$defs"]["of-any-kind"]["anyOf"][2]["properties"]) == set(Operator)
