"""rules add, enable, disable, shadow, remove, history, diff, show: who changed what, when and why."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dicomnode.cli.rule_lookup import author_or_user
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import RuleState
from tests.unit.test_cli_state import RULE, Screen


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


@pytest.fixture
def changed(screen: Screen) -> Screen:
    """A rule of two revisions, made by two people."""
    screen.run("rules", "add", screen.file(RULE), "--author", "ada", "--reason", "the first one")
    screen.node.clock.advance(3600)
    second = RULE.replace("Modality: CT", "Modality: CT\n    - SliceThickness: {at_most: 3}")
    screen.run("rules", "add", screen.file(second), "--author", "grace", "--reason", "thin slices only")
    return screen


def state(screen: Screen) -> RuleState:
    return parse_rule(screen.node.state.rules()[0].document).state


# --------------------------------------------------------------------------------------------- who and why


def test_the_author_is_the_user_unless_one_is_given(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "lovelace")
    screen.run("rules", "add", screen.file(RULE))
    assert screen.node.state.rules()[0].author == "lovelace"
    assert author_or_user("ada") == "ada"


@pytest.mark.parametrize("error", [OSError, KeyError])
def test_a_process_whose_user_has_no_name(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise error("no name")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert author_or_user("") == "unknown"


def test_a_change_is_told_place_by_place_when_it_is_made(changed: Screen) -> None:
    third = changed.file(RULE.replace("Modality: CT", "Modality: CT\n    - SliceThickness: {at_most: 2}"))
    said = changed.run("rules", "add", third, "--dry-run")
    assert "would be changed" in said
    assert "changed when.all[1].SliceThickness.at_most: 3 → 2" in said
    assert len(changed.node.state.rule_history("torso")) == 2


def test_a_rule_stored_before_there_were_more_defaults_is_as_it_was(screen: Screen) -> None:
    condition = {"all": [{"Modality": "CT"}, {"not": {"ImageType": {"contains": "LOCALIZER"}}}]}
    screen.node.state.add_rule(
        "torso", {"name": "torso", "when": condition, "model": "torso-ct", "destinations": ["pacs"], "enabled": True}
    )
    assert "is unchanged (revision 1)" in screen.run("rules", "add", screen.file(RULE))
    assert len(screen.node.state.rule_history("torso")) == 1


# ------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("word", ["disable", "shadow"])
def test_a_state_is_a_revision_with_its_reason(changed: Screen, word: str) -> None:
    becomes = {"disable": "disabled", "shadow": "shadow"}[word]
    assert f"rule torso revision 3 is {becomes}" in changed.run("rules", word, "torso", "--reason", "review")
    assert state(changed) == becomes
    assert changed.node.state.rules()[0].reason == "review"
    assert "nothing was changed" in changed.run("rules", word, "torso")
    assert len(changed.node.state.rule_history("torso")) == 3
    back = changed.run("rules", "enable", "torso")
    assert "revision 4 is enabled" in back
    assert "note: no model torso-ct is registered" in back
    assert state(changed) is RuleState.ENABLED
    documents = [r.document for r in changed.node.state.rule_history("torso")]
    assert documents[3] == documents[1]


def test_states_can_be_tried(changed: Screen) -> None:
    said = changed.run("rules", "disable", "torso", "--dry-run")
    assert "would be disabled" in said
    assert state(changed) is RuleState.ENABLED
    told = changed.json("rules", "shadow", "torso", "--dry-run")
    assert (told["changed"], told["state"], told["revision"]) == (False, "shadow", 2)
    assert changed.json("rules", "shadow", "torso")["changed"] is True


def test_a_rule_that_cannot_be_read_can_be_disabled(screen: Screen) -> None:
    screen.node.state.add_rule("old", {"name": "old", "when": {"Modality": {"was": "CT"}}, "enabled": True})
    screen.run("rules", "disable", "old")
    assert screen.node.state.enabled_rules() == []
    assert screen.node.state.rules()[0].document == {
        "name": "old",
        "when": {"Modality": {"was": "CT"}},
        "state": "disabled",
    }
    assert "cannot be read" in screen.run("rules", "enable", "old")


# ------------------------------------------------------------------------------------------------ history


def test_the_history_tells_everything_the_oldest_first(changed: Screen) -> None:
    changed.run("rules", "remove", "torso", "--author", "ada", "--reason", "the scanner was sold")
    changed.node.clock.advance(60)
    changed.run("rules", "add", changed.file(RULE), "--author", "grace", "--reason", "and bought back")
    said = changed.run("rules", "history", "torso")
    told = [
        "torso@1",
        "ada",
        "the first one",
        "torso@2",
        "grace",
        "thin slices only",
        "+ when.all[1]: SliceThickness at most 3",
        "removed",
        "ada",
        "the scanner was sold",
        "torso@3",
        "in force, enabled",
        "and bought back",
        "- when.all[1]: SliceThickness at most 3",
    ]
    place = 0
    for words in told:
        assert words in said[place:], words
        place = said.index(words, place) + len(words)


def test_the_history_of_a_rule_that_was_removed(changed: Screen) -> None:
    changed.run("rules", "remove", "torso", "--reason", "a mistake")
    one, two = changed.json("rules", "history", "torso")
    assert (one["in_force"], two["in_force"], two["removed_why"]) == (False, False, "a mistake")
    assert [c["path"] for c in two["changes"]] == ["when.all[1]"]
    error = changed.fails("rules", "show", "torso")
    assert "was removed on 2026-03-01" in str(error)
    assert "rules history torso" in str(error)
    assert "SliceThickness" in changed.run("rules", "show", "torso@2")


@pytest.mark.parametrize(
    "words", [["history", "torsos"], ["show", "torsos"], ["show", "torsos@1"], ["diff", "torsos"]]
)
def test_what_is_not_there(changed: Screen, words: list[str]) -> None:
    assert "did you mean torso?" in str(changed.fails("rules", *words))


def test_a_revision_that_is_not_there(changed: Screen) -> None:
    assert "rule torso has no revision 7; there are: 1, 2" in str(changed.fails("rules", "show", "torso@7"))
    assert "there are: 1, 2" in str(changed.fails("rules", "show", "torso@"))


def test_an_earlier_revision_is_shown_and_can_be_added_again(changed: Screen) -> None:
    first = changed.run("rules", "show", "torso@1")
    assert "revision 3 is in force" in changed.run("rules", "add", changed.file(first))
    documents = [r.document for r in changed.node.state.rule_history("torso")]
    assert documents[2] == documents[0]
    assert changed.json("rules", "show", "torso@2")["author"] == "grace"


def test_on_a_terminal_the_revision_stands_above_the_rule(changed: Screen) -> None:
    changed.context.console = Console(width=100, force_terminal=True, color_system=None)
    said = changed.run("rules", "show", "torso@1")
    assert "# revision 1, by ada on 2026-03-01" in said
    assert "the first one; not in force" in said


# --------------------------------------------------------------------------------------------------- diff


@pytest.mark.parametrize(
    "words",
    [["torso@1", "torso@2"], ["torso", "1", "2"], ["torso@1", "torso"], ["torso", "1"], ["torso"]],
)
def test_two_revisions_in_every_way_to_name_them(changed: Screen, words: list[str]) -> None:
    said = changed.run("rules", "diff", *words)
    assert "torso@1 → torso@2" in said
    assert "+ when.all[1]: SliceThickness at most 3" in said
    told = changed.json("rules", "diff", *words)
    (only,) = told["differences"]
    assert (only["change"], only["path"]) == ("added", "when.all[1]")
    assert only["after"] == {"SliceThickness": {"at_most": 3}}


def test_a_file_against_the_rule_in_force_and_another_rule(changed: Screen) -> None:
    other = changed.file(RULE.replace("name: torso", "name: other").replace("pacs", "archive"), "other.yaml")
    said = changed.run("rules", "diff", "torso@1", other)
    assert "~ name: torso → other" in said
    assert "~ destinations: [pacs] → [archive]" in said
    same = changed.file(RULE, "same.yaml")
    assert "no difference" in changed.run("rules", "diff", "torso", "1", "1")
    assert "no difference" in changed.run("rules", "diff", "torso@1", same)


def test_differences_are_in_colour(changed: Screen) -> None:
    changed.context.console = Console(width=100, force_terminal=True, color_system="standard")
    assert "\x1b[32m+ when.all" in changed.run("rules", "diff", "torso")
    assert "\x1b[31m- when.all" in changed.run("rules", "diff", "torso", "2", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["torso", "1", "x"], "two rules or revisions are compared"),
        (["torso@1"], "two rules or revisions are compared"),
        (["a", "b", "c", "d"], "two rules or revisions are compared"),
    ],
)
def test_what_cannot_be_compared(changed: Screen, words: list[str], said: str) -> None:
    assert said in str(changed.fails("rules", "diff", *words))


def test_nothing_to_compare_with(screen: Screen) -> None:
    screen.run("rules", "add", screen.file(RULE))
    assert "one revision only" in str(screen.fails("rules", "diff", "torso"))
    two = screen.file(RULE + "---\n" + RULE)
    assert "one rule is compared" in str(screen.fails("rules", "diff", "torso", two))


# --------------------------------------------------------------------------------------------------- list


def test_rules_are_listed_in_the_order_in_which_they_are_asked(screen: Screen) -> None:
    def add(name: str, more: str) -> None:
        screen.run(
            "rules", "add", screen.file(RULE.replace("name: torso", f"name: {name}") + more), "--author", "ada"
        )

    add("b", "")
    add("z-first", "order: 5\nversion: 1.0.0\n")
    add("a", "state: shadow\n")
    rows: list[dict[str, Any]] = screen.json("rules", "list")
    assert [(r["order"], r["name"], r["state"], r["revision"], r["author"]) for r in rows] == [
        (5, "z-first", "enabled", 1, "ada"),
        (100, "a", "shadow", 1, "ada"),
        (100, "b", "enabled", 1, "ada"),
    ]
    assert rows[0]["model"] == "torso-ct 1.0.0"
    assert rows[0]["since"].startswith("2026-03-01T12:00:00")
    said = screen.run("rules", "list")
    assert said.index("z-first@1") < said.index("a@1") < said.index("b@1")


# ------------------------------------------------------------------------------------- two rules, by name


def test_two_rules_are_compared_by_name_and_by_revision(changed: Screen) -> None:
    changed.node.rule("other", {"Modality": "MR"})
    said = changed.run("rules", "diff", "torso", "other")
    assert "torso@2 → other@1" in said
    assert "~ name: torso → other" in said
    told = changed.json("rules", "diff", "other", "torso@1")
    assert (told["from"], told["to"]) == ("other@1", "torso@1")
    assert {
        "change": "changed",
        "path": "when.all[0].Modality.equals",
        "before": "MR",
        "after": "CT",
    }.items() <= next(d for d in told["differences"] if d["path"].endswith("Modality.equals")).items()


def test_the_json_of_an_earlier_revision(changed: Screen) -> None:
    told = changed.json("rules", "show", "torso@1")
    assert (told["revision"], told["in_force"], told["reason"]) == (1, False, "the first one")
    assert "SliceThickness" not in str(told["document"])
