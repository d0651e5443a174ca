"""Facts of classes: how they are written, what lint says of them, and what explain and replay answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.class_facts import class_fact, classes_given
from dicomnode.domain.conditions import decide
from dicomnode.domain.model_card import card_document, parse_model_card
from dicomnode.domain.rule_classes import about_classes
from dicomnode.domain.rule_lint import Severity, findings_in
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rule_schema import rule_schema
from dicomnode.domain.rules import Rule, classes_asked, rule_document
from dicomnode.domain.study import Element
from dicomnode.errors import InvalidRule
from dicomnode.imaging.attributes import keyword_vrs
from dicomnode.stages.replay import Change, Replay
from tests.unit.evidence_material import evidence
from tests.unit.json_schema import Schema
from tests.unit.test_class_rules import CHEST, classifier, gave
from tests.unit.test_cli_state import Screen
from tests.unit.test_complete_route import _card
from tests.unit.test_rule_lint import DICTIONARY
from tests.unit.test_rule_questions import stored
from tests.unit.test_rule_replay import asked, changes, past_series, past_study

SCHEMA = Schema(rule_schema(keyword_vrs()))
WRITTEN = [
    ({"Class(region)": "Chest"}, "Class(region)"),
    ({"Class( region )": ["Chest", "Head"]}, "Class(region)"),
    ({"ClassCode(a.b-c_d)": {"matches": "^51"}}, "ClassCode(a.b-c_d)"),
    ({"ClassShare(region/Upper leg (left))": {"at_least": 0.5}}, "ClassShare(region/upper leg (left))"),
    ({"ClassProbability(region/ Chest )": {"between": [0.5, 1]}}, "ClassProbability(region/chest)"),
    ({"Class(region)": {"exists": True}}, "Class(region)"),
]


def rule(name: str = "chest", when: Any = None, **more: Any) -> Rule:
    return parse_rule({"name": name, "when": when or CHEST, "model": "torso-ct"} | more, keyword_vrs())


@pytest.mark.parametrize(("when", "subject"), WRITTEN)
def test_how_they_are_written(when: Any, subject: str) -> None:
    read = rule(when=when)
    assert subject in str(rule_document(read)["when"])
    assert parse_rule(rule_document(read), keyword_vrs()) == read
    found = class_fact(subject)
    assert found is not None
    assert classes_asked(read) == {found.model}
    assert SCHEMA.takes({"name": "a", "model": "m", "when": when})


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"Class": "Chest"}, "it is written Class(MODEL), as in Class(slice-ct-region)"),
        ({"Class()": "Chest"}, "it is written Class(MODEL)"),
        ({"Class(region/Chest)": {"at_least": 1}}, "it is written Class(MODEL)"),
        ({"ClassShare(region)": {"at_least": 1}}, "it is written ClassShare(MODEL/CLASS)"),
        ({"Classes(region)": "Chest"}, "facts of classes are Class, ClassCode, ClassShare, ClassProbability"),
        ({"ClassShare(region/Chest)": "much"}, "'much' is no number"),
        ({"ClassShare(region/Chest)": {"contains": "1"}}, "contains does not apply"),
    ],
)
def test_what_is_refused(when: Any, words: str) -> None:
    with pytest.raises(InvalidRule) as error:
        rule(when=when)
    assert words in str(error.value)
    if "much" not in str(when):  # a number in text is what a schema cannot tell
        assert not SCHEMA.takes({"name": "a", "model": "m", "when": when})


def test_what_is_kept_of_a_job() -> None:
    spec = classifier().classification
    assert spec is not None
    found = classes_given("region", spec, gave(Chest=0.4, Head=0.6).details)
    assert found == {
        "Class(region)": Element("LO", ("Chest", "Head")),
        "ClassCode(region)": Element("SH", ("51185008", "69536005")),
        "ClassShare(region/chest)": Element("DS", (0.4,)),
        "ClassProbability(region/chest)": Element("DS", (0.9,)),
        "ClassShare(region/head)": Element("DS", (0.6,)),
        "ClassProbability(region/head)": Element("DS", (0.9,)),
    }
    runs = [
        {"images": "1-3", "class": "Chest", "probability": 0.6, "least": 0.5},
        {"images": "4-4", "class": "(not certain)", "probability": None, "least": None},
        {"images": "5-5", "class": "Chest", "probability": 1.0, "least": 1.0},
    ]
    classes = [{"class": "Chest", "share": 0.8}, {"class": "(not certain)", "share": 0.2}]
    found = classes_given("region", spec, {"classes": classes, "runs": runs})
    assert found["ClassProbability(region/chest)"].values == (0.7,)
    assert found["Class(region)"].values == ("Chest",)
    nothing = classes_given("region", spec, {"classes": [{"class": "(not certain)", "share": 1.0}]})
    assert nothing == {"Class(region)": Element("LO", (), "no class: no class is certain enough of any image")}


def test_several_classes_and_one_share_contradict_each_other_as_they_should() -> None:
    fine = rule(when={"all": [CHEST, {"Class(region)": "Head"}]})
    assert findings_in(fine, DICTIONARY) == []
    share = "ClassShare(region/Chest)"
    (found,) = findings_in(rule(when={"all": [{share: {"at_least": 0.5}}, {share: {"at_most": 0.1}}]}), DICTIONARY)
    assert "no series can have both" in found.remedy


# ---------------------------------------------------------------------------------------------------- lint

CARDS = {
    "region": {"1.0.0": classifier(), "active": classifier()},
    "torso-ct": {"1.0.0": _card("1.0.0"), "active": _card("1.0.0")},
}
RUNS = rule("region", {"Modality": "CT"}, model="region")


@pytest.mark.parametrize(
    ("when", "others", "problem", "remedy", "severity"),
    [
        ({"Class(torso-ct)": "Chest"}, [RUNS], "torso-ct gives no classes", "region", Severity.ERROR),
        ({"Class(region)": "Chets"}, [RUNS], "has no class Chets", "did you mean Chest?", Severity.ERROR),
        ({"ClassShare(region/Knee)": 1}, [RUNS], "has no class knee", "Abdomen, Chest, Head", Severity.ERROR),
        ({"ClassCode(region)": "1"}, [RUNS], "has no class 1", "51185008", Severity.ERROR),
        ({"Class(lungs)": "Chest"}, [RUNS], "no model lungs is registered", "models add", Severity.WARNING),
        (CHEST, [], "no rule that is enabled runs region", "model: region", Severity.WARNING),
        ({"not": CHEST}, [rule("s", model="region", state="shadow")], "no rule", "enable", Severity.WARNING),
    ],
)
def test_lint(when: Any, others: list[Rule], problem: str, remedy: str, severity: Severity) -> None:
    (found,) = about_classes([rule(when=when)], others, CARDS)
    assert problem in found.problem
    assert remedy in found.remedy
    assert found.severity is severity


def test_lint_of_what_only_comes_before_another_model() -> None:
    gate = {"model": "region", "use": "gate", "class": "Chest"}
    later = parse_model_card({**card_document(_card("1.0.0")), "name": "nodules", "after": [gate]})
    (found,) = about_classes([rule(when=CHEST)], [], {**CARDS, "nodules": {"1.0.0": later}})
    assert found.problem.endswith("a series never has a class of it (nodules asks it too, for itself alone)")
    assert "add a rule with `model: region`" in found.remedy


def test_lint_of_what_waits_for_itself_or_for_what_comes_after_it() -> None:
    (itself,) = about_classes([rule(model="region")], [], CARDS)
    assert "but this one, which waits for it" in itself.problem
    (stops,) = about_classes([rule(stop=True, order=1)], [RUNS], CARDS)
    assert "rule region, which runs region, comes after this one" in stops.problem
    assert list(about_classes([rule(stop=True, order=101)], [RUNS], CARDS)) == []
    assert list(about_classes([rule(when={"Class(region)": {"matches": "^Ch"}})], [RUNS], CARDS)) == []


# ------------------------------------------------------------------------------------- explain, test, replay


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    made = Screen(tmp_path)
    made.node.model()
    made.node.state.add_model(classifier(), "1" * 64, Path("/models"))
    made.node.rule("region", model="region")
    made.node.rule("chest", {"all": [{"Modality": "CT"}, CHEST]})
    stored(made, "1.1", [1, 2, 3])
    made.node.sweep()
    return made


def finish(screen: Screen) -> None:
    (job,) = screen.node.state.jobs()
    screen.node.state.start_job(job.job_id)
    screen.node.state.finish_job(job.job_id, gave(Chest=0.4, Head=0.6))
    screen.node.clock.advance(1)
    screen.node.completer.sweep()


def test_explain_says_what_it_waits_for_and_then_what_was_found(screen: Screen) -> None:
    assert "Rule chest waits for the classes that region gives" in screen.run("rules", "explain", "chest", "1")
    finish(screen)
    said = screen.run("rules", "explain", "chest", "1")
    assert "Rule chest matched: Modality is 'CT'; Class(region) is 'Chest\\Head'" in said
    (answer,) = screen.json("rules", "explain", "chest", "1")["answers"]
    assert answer["matches"] is True
    assert "✓ match" in screen.run("rules", "test", "1", "--rule", "chest")


def test_explain_of_what_nobody_classified(screen: Screen) -> None:
    draft = screen.file("name: other\nwhen: {Class(part): Head}\nmodel: torso-ct\n")
    said = screen.run("rules", "explain", draft, "1")
    assert "no class: part has not run on this series" in said
    said = screen.run("rules", "explain", draft, str(screen.folder / "instances"))
    assert "part is not run on files" in said


def test_a_key_that_fits_several_studies_is_no_answer(screen: Screen) -> None:
    for study in ("7", "8"):
        screen.node.receive(f"{study}.1", study=study, PatientID="P1")
    error = screen.fails("rules", "explain", "chest", "P1")
    assert error.exit_code == 2
    assert "2 studies have 'P1'" in str(error)
    assert all(f"\n  {study}" in str(error) for study in ("7", "8"))


def test_replay_takes_what_is_kept(screen: Screen) -> None:
    draft = screen.file("name: heads\nwhen: {ClassShare(region/Head): {at_least: 0.5}}\nmodel: torso-ct\n")
    assert screen.json("rules", "replay", "heads", "--draft", draft, "--since", "all")["counts"]["not-known"] == 1
    finish(screen)
    assert screen.json("rules", "replay", "heads", "--draft", draft, "--since", "all")["counts"]["new"] == 1


@pytest.mark.parametrize("more", [{}, {"choose": ["latest"]}])
def test_replay_of_classes_that_were_never_given_knows_nothing(more: dict[str, Any]) -> None:
    nobody = evidence("1.1", Modality="CT")
    facts = {"Class(region)": Element("LO", (), "no class: its job failed")}
    failed = replace(evidence("1.2", Modality="CT"), facts=facts)
    replay = Replay(None, asked(rule(**more)))
    study = past_study(past_series(nobody))
    assert changes(replay, study) == {"1.1": Change.NOT_KNOWN}
    assert changes(replay, past_study(past_series(failed))) == {"1.2": Change.NEITHER}
    assert not decide(rule(), failed.header, failed.facts).matches
