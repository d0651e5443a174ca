"""Revisions of rules: who changed what when and why, which is in force, and in which order they are asked."""

from __future__ import annotations

import pytest

from dicomnode.errors import NotFound
from dicomnode.ports import State
from tests.contract.state_bench import Bench, bench, state

__all__ = ["bench", "state"]


def test_a_revision_keeps_its_author_and_its_reason(state: State) -> None:
    state.add_rule("torso", {"n": 1}, author="ada", reason="the first one")
    state.add_rule("torso", {"n": 2}, author="grace", reason="thin slices only — ü")
    first, second = state.rule_history("torso")
    assert (first.revision, first.author, first.reason, first.document) == (1, "ada", "the first one", {"n": 1})
    assert (second.revision, second.author, second.reason) == (2, "grace", "thin slices only — ü")
    assert (first.in_force, second.in_force) == (False, True)
    assert first.created_at is not None
    assert second.created_at is not None
    assert first.created_at <= second.created_at
    assert (first.removed_at, second.removed_at) == (None, None)
    assert state.rules() == [second]


def test_an_equal_document_changes_nothing_not_even_the_reason(state: State) -> None:
    made = state.add_rule("torso", {"n": 1, "m": [1, 2]}, author="ada", reason="first")
    assert state.add_rule("torso", {"m": [1, 2], "n": 1}, author="grace", reason="again") == made
    assert state.rule_history("torso") == [made]


def test_the_same_rule_spelt_otherwise_changes_nothing(state: State) -> None:
    short = {"name": "torso", "when": {"Modality": "CT"}, "model": "m"}
    made = state.add_rule("torso", short, author="ada")
    long = {**short, "when": {"Modality": {"equals": "CT"}}, "order": 100, "state": "enabled", "stop": False}
    assert state.add_rule("torso", long, author="grace") == made
    assert state.add_rule("torso", {**short, "parameters": {"x": 1}}).revision == 2
    assert state.add_rule("torso", {**short, "parameters": {"x": True}}).revision == 3


def test_a_removal_is_part_of_the_history(state: State) -> None:
    state.add_rule("torso", {"n": 1}, author="ada", reason="first")
    state.remove_rule("torso", author="grace", reason="the scanner was sold")
    (only,) = state.rule_history("torso")
    assert (only.in_force, only.removed_by, only.removed_why) == (False, "grace", "the scanner was sold")
    assert only.removed_at is not None
    assert state.rules() == []


def test_a_rule_that_comes_back_is_the_next_revision(state: State) -> None:
    state.add_rule("torso", {"n": 1})
    state.remove_rule("torso", reason="a mistake")
    back = state.add_rule("torso", {"n": 1}, reason="was right after all")
    history = state.rule_history("torso")
    assert [(r.revision, r.in_force, r.removed_why) for r in history] == [(1, False, "a mistake"), (2, True, "")]
    assert history[1] == back


def test_no_history_without_a_rule(state: State) -> None:
    state.add_rule("torso", {})
    with pytest.raises(NotFound, match="no rule abdomen"):
        state.rule_history("abdomen")


def test_rules_are_asked_by_order_then_by_name(state: State) -> None:
    for name, document in {
        "b-late": {"order": 200},
        "a-late": {"order": 200},
        "middle": {},
        "c-early": {"order": 5},
        "middle-too": {"order": 100},
        "negative": {"order": -1},
    }.items():
        state.add_rule(name, document)
    assert [r.name for r in state.enabled_rules()] == [
        "negative",
        "c-early",
        "middle",
        "middle-too",
        "a-late",
        "b-late",
    ]
    assert [r.name for r in state.rules()] == sorted(r.name for r in state.rules())


def test_shadows_are_asked_and_disabled_rules_are_not(state: State) -> None:
    state.add_rule("shadow", {"state": "shadow"})
    state.add_rule("on", {"state": "enabled"})
    state.add_rule("off", {"state": "disabled"})
    state.add_rule("old-off", {"enabled": False})
    state.add_rule("old-on", {"enabled": True})
    state.add_rule("broken", {"state": 7, "order": "first"})
    assert [r.name for r in state.enabled_rules()] == ["broken", "old-on", "on", "shadow"]
    assert len(state.rules()) == 6


def test_the_story_tells_who_and_why(state: State) -> None:
    state.add_rule("torso", {"n": 1}, author="ada", reason="first")
    state.remove_rule("torso", author="grace")
    told = [event.message for _, event in state.events_after(0)]
    assert told == ["Rule torso revision 1 is in force, by ada: first", "Rule torso was removed, by grace"]


def test_text_that_a_database_refuses_is_kept_without_it(bench: Bench) -> None:
    made = bench.state.add_rule("torso", {}, author="a\0da" + "x" * 100, reason="why\0 not")
    assert (made.author, made.reason) == ("ada" + "x" * 61, "why not")
    assert bench.state.rule_history("torso") == [made]
