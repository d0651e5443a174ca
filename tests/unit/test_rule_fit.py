"""rules lint beside the models and destinations of a node: what a rule asks of them and they cannot give."""

from __future__ import annotations

from typing import Any

import pytest

from dicomnode.domain.clauses import Dictionary
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.domain.rule_fit import ACTIVE, Cards, missing
from dicomnode.domain.rule_lint import Finding, Severity
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule
from dicomnode.imaging.attributes import keyword_vrs, single_valued_keywords
from tests.unit.test_model_card import CARD

DICTIONARY = Dictionary(keyword_vrs(), single_valued_keywords())
PET = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 20000], "to": [0, 1]}}
THRESHOLD = {
    "threshold": {"type": "number", "default": 0.5, "at_least": 0, "at_most": 1, "description": "of the map"}
}


def _card(version: str, **more: Any) -> ModelCard:
    return parse_model_card({**CARD, "name": "m", "version": version, **more})


PLAIN, WITH_PET = _card("1.0.0", parameters=THRESHOLD), _card("2.0.0", inputs=[PET])
ON_MR = _card("3.0.0", input={**CARD["input"], "modality": ["MR"]})
CARDS: Cards = {
    "m": {"1.0.0": PLAIN, "2.0.0": WITH_PET, "3.0.0": ON_MR, ACTIVE: PLAIN},
    "resting": {"1.0.0": PLAIN},
}
PET_ROLE = {"pet": {"when": {"Modality": "PT"}}}


def _rule(**more: Any) -> Rule:
    return parse_rule({"name": "a", "model": "m", "when": {"Modality": "CT"}, **more}, keyword_vrs())


def _found(rule: Rule, cards: Cards | None = CARDS) -> list[tuple[str, str, str]]:
    modalities = {name: versions[ACTIVE].input.modality for name, versions in CARDS.items() if ACTIVE in versions}
    return [(f.path, f.problem, f.remedy) for f in missing(rule, modalities, ["pacs"], DICTIONARY, cards)]


@pytest.mark.parametrize(
    ("more", "path", "problem", "remedy"),
    [
        ({"model": "n"}, "model", "no model n is registered", "models add FOLDER"),
        ({"model": "n", "version": "1.0.0"}, "model", "no model n is registered", "models add FOLDER"),
        ({"model": "resting"}, "model", "no version of the model resting is active", "1.0.0"),
        ({"version": "1.0"}, "version", "version 1.0 of the model m is not registered", "`version: active`"),
        ({"version": "3.0.0"}, "when.Modality", "the model m takes MR, and the rule says Modality equals 'CT'", ""),
        ({"roles": PET_ROLE}, "roles.pet", "the model m has no such role; its roles: none", "remove it"),
        (
            {"version": "2.0.0"},
            "roles",
            "the model m needs a series as pet, and the rule names none",
            "add pet: {when: {Modality: PT}, from: study}",
        ),
        (
            {"version": "2.0.0", "roles": {"pet": {"when": {"all": [{"Rows": 5}, {"Modality": "NM"}]}}}},
            "roles.pet.when.all[1].Modality",
            "the model takes PT as pet, and the rule says Modality equals 'NM'",
            "name a modality",
        ),
        (
            {"parameters": {"treshold": 0.5}},
            "parameters.treshold",
            "has no such parameter",
            "did you mean threshold?",
        ),
        (
            {"parameters": {"x": 1}},
            "parameters.x",
            "has no such parameter",
            "it takes: overlap, minimum_volume_ml, thr",
        ),
        ({"parameters": {"threshold": 2}}, "parameters.threshold", "2 is over 1", "of the map"),
        ({"parameters": {"overlap": "half"}}, "parameters.overlap", "'half' is not a number", "share of a window"),
        ({"results": ["SEG", "MAP"]}, "results[1]", "the model m gives no MAP", "SEG, SR, SEG-LABELMAP"),
        (
            {"destinations": ["pacs", "pac"]},
            "destinations[1]",
            "destination pac does not exist",
            "did you mean pacs?",
        ),
    ],
)
def test_what_cannot_be_given_is_found(more: dict[str, Any], path: str, problem: str, remedy: str) -> None:
    ((where, what, how),) = _found(_rule(**more))
    assert where == path
    assert problem in what
    assert remedy in how
    assert how


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"version": "1.0.0", "parameters": {"threshold": 1, "overlap": 0, "minimum_volume_ml": 2.5}},
        {"version": "2.0.0", "roles": PET_ROLE},
        {"version": "2.0.0", "roles": {"pet": {"when": {"SeriesDescription": "PET"}}}},
        {"when": {"Modality": "MR"}, "version": "3.0.0", "results": ["SR", "SEG"]},
    ],
)
def test_what_can_be_given_is_left_alone(more: dict[str, Any]) -> None:
    assert _found(_rule(**more)) == []


def test_several_things_at_once_are_all_found() -> None:
    rule = _rule(version="2.0.0", roles={"Pet": {"when": {"Modality": "PT"}}}, parameters={"a": 1}, results=["X"])
    assert [path for path, _, _ in _found(rule)] == ["roles.Pet", "roles", "parameters.a", "results[0]"]


def test_without_the_cards_nothing_is_said_of_them() -> None:
    assert _found(_rule(parameters={"x": 1}, results=["PDF"], roles=PET_ROLE), None) == []
    assert _found(_rule(model="n", version="9"), None) == []  # it may be registered without being active
    assert [path for path, _, _ in _found(_rule(model="n"), None)] == ["model"]


def test_a_rule_that_runs_nothing_needs_nothing() -> None:
    halt = parse_rule({"name": "halt", "when": {"Modality": "CT"}, "stop": True})
    assert missing(halt, {}, [], DICTIONARY, {}) == []


# ------------------------------------------------------------------------------------ what only warns


def _severities(rule: Rule) -> list[tuple[str, Severity]]:
    modalities = {"m": CARDS["m"][ACTIVE].input.modality}
    return [(f.path, f.severity) for f in missing(rule, modalities, ["pacs"], DICTIONARY, CARDS)]


def test_what_may_come_later_is_no_error() -> None:
    assert _severities(_rule(model="n", destinations=["gone"])) == [
        ("model", Severity.WARNING),
        ("destinations[0]", Severity.WARNING),
    ]
    assert _severities(_rule(version="9")) == [("version", Severity.WARNING)]
    assert _severities(_rule(model="resting")) == [("model", Severity.WARNING)]


def test_what_the_model_does_not_have_is_an_error() -> None:
    assert _severities(_rule(version="3.0.0", parameters={"x": 1}, results=["MAP"], roles=PET_ROLE)) == [
        ("when.Modality", Severity.ERROR),
        ("roles.pet", Severity.ERROR),
        ("parameters.x", Severity.ERROR),
        ("results[0]", Severity.ERROR),
    ]


@pytest.mark.parametrize(("overlap", "times"), [(0.81, "62"), (0.9, "422"), (0.99, "421875")])
def test_a_high_overlap_costs_time(overlap: float, times: str) -> None:
    """The card's own is 0.25: along each axis (1 - 0.25) / (1 - overlap) times the windows."""
    (finding,) = missing(_rule(parameters={"overlap": overlap}), {}, ["pacs"], DICTIONARY, CARDS)
    assert (finding.path, finding.severity) == ("parameters.overlap", Severity.ADVICE)
    assert f"an overlap of {overlap:g} is up to {times} times the windows" in finding.problem
    assert "0.8 or less" in finding.remedy


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.8])
def test_a_usual_overlap_is_left_alone(overlap: float) -> None:
    assert _found(_rule(parameters={"overlap": overlap})) == []


def test_an_overlap_of_one_never_ends_and_is_an_error() -> None:
    assert _severities(_rule(parameters={"overlap": 1})) == [("parameters.overlap", Severity.ERROR)]


def test_a_prior_is_never_in_the_frame_of_reference_of_today() -> None:
    """A card that says nothing asks for one frame of reference (PS3.3 C.7.4.1.1.1)."""
    followed = _card("4.0.0", inputs=[{**PET, "role": "before", "modality": ["CT"]}])
    anywhere = _card("5.0.0", inputs=[{**PET, "role": "before", "modality": ["CT"], "frame_of_reference": "any"}])
    cards = {"m": {"4.0.0": followed, "5.0.0": anywhere, ACTIVE: followed}}

    def found(version: str, origin: str) -> list[Finding]:
        rule = _rule(version=version, roles={"before": {"when": {"Modality": "CT"}, "from": origin}})
        return missing(rule, {"m": ["CT"]}, ["pacs"], DICTIONARY, cards)

    (finding,) = found("4.0.0", "prior")
    assert (finding.path, finding.severity) == ("roles.before.from", Severity.WARNING)
    assert "needs before in the frame of reference of the main series" in finding.problem
    assert "frame_of_reference: any" in finding.remedy
    assert found("4.0.0", "study") == found("5.0.0", "prior") == []
