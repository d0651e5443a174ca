"""A model's shadow version gets a job beside the active one, whose results go nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.domain.job import Priority
from tests.unit.test_complete_route import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.destination("pacs")
    for version in ("1.0.0", "2.0.0"):
        made.model(version)
    made.state.activate_model("torso-ct", "1.0.0")
    made.state.shadow_model("torso-ct", "2.0.0")
    return made


def jobs(node: Node) -> list[tuple[str, Priority, bool]]:
    return sorted((job.model, job.priority, job.shadow) for job in node.state.jobs())


def route(node: Node, **rule: object) -> None:
    node.rule(**rule)
    node.receive()
    node.sweep()


def test_the_shadow_runs_beside_the_active_version_with_low_priority(node: Node) -> None:
    route(node, priority="stat")
    assert jobs(node) == [("torso-ct 1.0.0", Priority.STAT, False), ("torso-ct 2.0.0", Priority.LOW, True)]
    (said,) = node.routed()["rules"]
    assert (said["model"], said["shadow"]) == ("torso-ct 1.0.0", "torso-ct 2.0.0")
    (shadow,) = [job for job in node.state.jobs() if job.shadow]
    work = node.state.start_job(shadow.job_id)
    assert work is not None
    assert work.destinations == ()


def test_a_rule_that_names_its_version_has_no_shadow(node: Node) -> None:
    route(node, version="1.0.0")
    assert jobs(node) == [("torso-ct 1.0.0", Priority.ROUTINE, False)]


def test_without_an_active_version_nothing_runs_and_the_versions_are_named(node: Node) -> None:
    node.state.deactivate_model("torso-ct")
    route(node)
    assert jobs(node) == []
    assert (
        "no version of torso-ct is active, of 1.0.0, 2.0.0 (dicomnode models activate torso-ct 2.0.0)" in node.why()
    )
