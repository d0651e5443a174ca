"""`rules lint`: which rules it looks at, what it prints, and when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.domain.rule_lint import Severity, findings_in, never_asked, same_names, twins
from tests.unit.test_cli_state import Screen
from tests.unit.test_rule_lint import DICTIONARY, rule

# ------------------------------------------------------------------------------------------------- command


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


def _lint(screen: Screen, *words: str) -> tuple[int, str]:
    result = screen._invoke("rules", "lint", *words)
    return result.exit_code, " ".join(result.output.split())


def test_rules_in_force_are_looked_at(screen: Screen) -> None:
    screen.node.rule("old", {"SeriesDescription": {"at_least": "thin"}})
    screen.node.rule("odd", {"Modalty": "CT"})
    screen.node.rule("empty", {"Modality": {"one_of": []}})
    screen.node.rule("torso", {"Modality": "CT"})
    code, said = _lint(screen)
    assert code == 1
    assert "rule old, when.SeriesDescription.at_least: 'thin' is no number" in said
    assert "rule odd, when.Modalty: 'Modalty' is no attribute's keyword and no fact; did you mean Modality?" in said
    assert "rule empty, when.Modality.one_of: the list is empty" in said
    assert "rule torso, model: no model torso-ct is registered → dicomnode models add FOLDER" in said
    assert "5 things are wrong (1 rule read)" in said


def test_nothing_is_wrong(screen: Screen) -> None:
    screen.node.model()
    screen.node.destination("pacs")
    screen.node.rule()
    assert _lint(screen) == (0, "1 rule: nothing is wrong")
    assert screen.json("rules", "lint") == {"rules": 1, "findings": []}


def test_a_file_beside_the_rules_in_force(screen: Screen) -> None:
    screen.node.model()
    screen.node.destination("pacs")
    screen.node.rule("torso", {"Modality": "CT"})
    twin = screen.file("name: other\nmodel: torso-ct\nwhen: {Modality: CT}\n")
    assert "the same series as rule torso" in _lint(screen, twin)[1]
    next_revision = screen.file("name: torso\nmodel: torso-ct\nwhen: {Modality: CT}\n")
    assert _lint(screen, next_revision)[0] == 0


def test_files_alone_need_no_database(screen: Screen) -> None:
    del screen.context.__dict__["state"]
    screen.context.given["home"] = screen.folder / "no" / "such" / "home"
    good = screen.file("name: torso\nmodel: gone\nwhen: {Modality: CT}\n", "good.yaml")
    bad = screen.file("name: torso\nmodel: gone\nwhen: [\n", "bad.yaml")
    assert _lint(screen, good, "--files-only") == (0, "1 rule: nothing is wrong")
    code, said = _lint(screen, good, bad, "--files-only")
    assert (code, "bad.yaml:4:1" in said.replace(" ", "")) == (1, True)
    assert _lint(screen, "--files-only")[0] == 2
    assert not (screen.folder / "no").exists()


# ---------------------------------------------------------------------------------------- how bad it is


def test_contradictions_are_errors_and_what_says_nothing_a_warning() -> None:
    never = rule({"all": [{"Modality": "CT"}, {"Modality": "MR"}]})
    idle = rule({"Modality": "CT", "NumberOfInstances": 10}, choose=["most_instances"])
    always = rule({"Modality": "CT"}, study={"has": {"Modality": "CT"}})
    assert [f.severity for f in findings_in(never, DICTIONARY)] == [Severity.ERROR]
    assert [f.severity for f in findings_in(idle, DICTIONARY)] == [Severity.WARNING]
    assert [f.severity for f in findings_in(always, DICTIONARY)] == [Severity.WARNING]


def test_rules_in_one_anothers_way_are_warnings() -> None:
    one, two = rule({"Modality": "CT"}, "one"), rule({"Modality": "CT"}, "two")
    stop = rule({"Modality": "CT"}, "stop", stop=True, order=1)
    assert {f.severity for f in [*twins([one, two]), *never_asked([one], [stop], DICTIONARY)]} == {Severity.WARNING}
    assert {f.severity for f in same_names([one, one])} == {Severity.ERROR}


def test_a_warning_fails_and_an_advice_does_not(screen: Screen) -> None:
    screen.node.model()
    screen.node.destination("pacs")
    screen.node.rule("slow", {"Modality": "CT"}, parameters={"overlap": 0.95})
    code, said = _lint(screen)
    assert code == 0
    assert "advice: rule slow, parameters.overlap: an overlap of 0.95" in said
    screen.node.rule("absent", {"Modality": "CT"}, model="absent")
    code, said = _lint(screen)
    assert code == 1
    assert "warning: rule absent, model: no model absent is registered" in said
    assert "1 thing is wrong (2 rules read)" in said
