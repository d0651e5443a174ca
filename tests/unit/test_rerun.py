"""A study done again: by the rules in force then, those that look at the whole study too."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.domain.job import JobState
from dicomnode.domain.study import SeriesState, StudyState
from tests.unit.test_complete_route import Node

STUDY = "1"
STUDY_QUIET_S = 60.0


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A CT and a PT, complete and routed, their study too, by a rule that wants both."""
    node = Node(tmp_path)
    node.model()
    node.destination("pacs")
    node.rule("pet-ct", study={"has": [{"Modality": "PT"}]})
    node.receive("1.1", Modality="CT")
    node.receive("1.2", Modality="PT")
    settle(node)
    return node


def settle(node: Node) -> None:
    """Everything that is complete is routed, and so is the study."""
    node.completer.resume()
    for _ in range(3):
        node.sweep()
    node.clock.advance(STUDY_QUIET_S)
    node.sweep()
    assert node.state.study(STUDY).state is StudyState.ROUTED


def jobs(node: Node) -> list[tuple[str, JobState]]:
    """Rule and state, the oldest first."""
    return [(job.rule.split()[0], job.state) for job in node.state.jobs()[::-1]]


def test_rules_about_the_study_are_decided_again_too(node: Node) -> None:
    assert jobs(node) == [("pet-ct", JobState.QUEUED)]
    node.clock.advance(1)
    assert set(node.state.rerun_study(STUDY)) == {"1.1", "1.2"}
    settle(node)
    assert jobs(node) == [("pet-ct", JobState.CANCELLED), ("pet-ct", JobState.QUEUED)]
    assert node.series_state("1.1") is SeriesState.ROUTED
    assert node.series_state("1.2") is SeriesState.NOT_ROUTED


def test_by_the_rules_in_force_now(node: Node) -> None:
    node.state.remove_rule("pet-ct")
    node.rule("ct", {"Modality": "CT"})
    node.clock.advance(1)
    node.state.rerun_study("1.1")
    settle(node)
    assert jobs(node) == [("pet-ct", JobState.CANCELLED), ("ct", JobState.QUEUED)]
    assert "rule ct matched" in node.why("1.1").lower()


def test_a_study_without_a_rule_any_more_goes_nowhere(node: Node) -> None:
    node.state.remove_rule("pet-ct")
    node.state.rerun_study(STUDY)
    settle(node)
    assert jobs(node) == [("pet-ct", JobState.CANCELLED)]
    assert node.series_state("1.1") is SeriesState.NOT_ROUTED
