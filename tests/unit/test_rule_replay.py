"""rules replay: a draft beside the rule in force, over what was received."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.study import SeriesState
from dicomnode.stages.replay import other_differences, received_since, replay
from tests.unit.test_cli_state import Screen
from tests.unit.test_rule_questions import stored

LONG_AGO = "5000w"  # the fake's clock stands still in the past
DRAFT = "name: torso\nmodel: torso-ct\nwhen: {SeriesDescription: {contains: chest}}\npriority: high\n"


@pytest.fixture
def past(tmp_path: Path) -> Screen:
    """A CT, a chest CT, a chest MR and an US that were routed, one whose files are gone, and one still coming in."""
    screen = Screen(tmp_path)
    screen.node.rule("torso", {"Modality": "CT"})
    stored(screen, "1.1", [1])
    stored(screen, "1.2", [2], SeriesDescription="Chest 1 mm")
    stored(screen, "1.3", [3], Modality="MR", SeriesDescription="Chest T2")
    stored(screen, "1.4", [4], Modality="US")
    screen.node.receive("1.5", 5)
    screen.node.sweep()
    screen.node.receive("1.6", 6)
    return screen


def test_a_draft_is_compared_series_by_series(past: Screen) -> None:
    told = past.json("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", LONG_AGO)
    answers = {s["series_instance_uid"]: (s["in_force"], s["draft"]) for s in told["series"]}
    assert answers == {
        "1.1": (True, False),
        "1.2": (True, True),
        "1.3": (False, True),
        "1.4": (False, False),
        "1.5": (None, None),
        "1.6": (None, None),
    }
    assert told["other_changes"] == {"priority": ["routine", "high"]}
    reasons = {s["series_instance_uid"]: s["why"] for s in told["series"]}
    assert "not in the store" in reasons["1.5"]
    assert reasons["1.6"] == "it is still being received"


def test_the_screen_shows_the_differences_and_counts_the_rest(past: Screen) -> None:
    said = past.run("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", LONG_AGO)
    assert "SeriesDescription is missing" in said
    assert "SeriesDescription is 'Chest T2', with 'chest'" in said
    assert "Chest 1 mm" not in said
    for words in (
        "6 series of 1 studies",
        "only the draft takes: 1",
        "only the rule in force takes: 1",
        "both take: 1",
        "neither takes: 1",
        "could not be asked about: 2",
        "priority: routine → high",
    ):
        assert words in said


def test_without_a_draft_the_series_that_the_rule_takes_are_shown(past: Screen) -> None:
    said = past.run("rules", "replay", "torso", "--since", LONG_AGO)
    assert said.count("Modality is 'CT'") == 2
    assert "it takes: 2" in said


def test_nothing_is_changed(past: Screen) -> None:
    before = (past.node.state.jobs(), past.node.state.rules(), len(past.node.state.story))
    past.run("rules", "replay", "torso", "--draft", past.file(DRAFT), "--since", LONG_AGO)
    assert (past.node.state.jobs(), past.node.state.rules(), len(past.node.state.story)) == before


def test_own_results_are_never_asked_about(past: Screen) -> None:
    past.node.state._series["1.1"].state = SeriesState.OWN_RESULT
    rule = parse_rule(past.node.state.rules()[0].document)
    first = next(replay(past.node.state.studies(), [rule], past.node.store))
    assert (first.answers[0].matches, "never routed" in first.answers[0].never) == (False, True)


def test_how_far_back(past: Screen) -> None:
    studies = past.node.state.studies()
    at = studies[0].received_at
    assert received_since(studies, at) == studies
    assert received_since(studies, at + timedelta(seconds=1)) == []
    assert received_since(studies, None) == studies
    assert "0 series of 0 studies" in past.run("rules", "replay", "torso", "--since", "0h") or at > datetime.now(UTC)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "soon"], "'soon' is no time such as 12h"),
        (["--most", "0"], "--most"),
    ],
)
def test_wrong_calls_are_refused(past: Screen, words: list[str], said: str) -> None:
    result = past._invoke("rules", "replay", "torso", *words)
    assert (result.exit_code, said in result.output) == (2, True)


def test_what_is_not_there(past: Screen) -> None:
    assert "did you mean torso?" in str(past.fails("rules", "replay", "torsos"))
    two = past.file(DRAFT + "---\n" + DRAFT)
    assert "a draft is one rule" in str(past.fails("rules", "replay", "torso", "--draft", two))


def test_a_bound_on_the_studies_is_told(past: Screen) -> None:
    assert "these are the newest 1" in past.run("rules", "replay", "torso", "--since", LONG_AGO, "--most", "1")


def test_differences_beside_the_condition() -> None:
    rule = parse_rule({"name": "a", "model": "m", "when": {"Rows": 1}})
    draft = parse_rule({"name": "b", "model": "n", "when": {"Rows": 2}, "destinations": ["pacs"]})
    assert other_differences(rule, draft) == {"model": ("m", "n"), "destinations": ([], ["pacs"])}
