"""The stage that closes studies: what it counts, whom it asks, what it drops."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dicomnode.domain.completeness import SourceCount
from dicomnode.domain.study import SeriesState
from dicomnode.errors import DestinationUnavailable
from tests.adapters.state_material import SERIES, STUDY, instance
from tests.unit.test_complete_signals import Node, node

__all__ = ["node"]

OTHER = f"{STUDY}.2"
PET_CT = {
    "name": "pet-ct",
    "description": "fuses",
    "when": {"Modality": "CT"},
    "roles": {"pet": {"when": {"Modality": "PT"}}},
    "model": "fusion",
}
ANY_CT = {"name": "ct", "description": "one series is enough", "when": {"Modality": "CT"}, "model": "torso-ct"}


@pytest.fixture
def asking(node: Node) -> Node:
    """A rule needs the study; its two series of 40 images were counted by their source, as the next sweep sees."""
    node.state.add_rule("pet-ct", PET_CT)
    for series, association in ((SERIES, "r/1/1"), (OTHER, "r/1/2")):
        node.receive(*range(1, 41), series=series, association=association, calling_ae_title="PACS")
        node.release(association)
    node.counter.instances = 40
    node.after(0.3)
    node.wait_for_answers()
    return node


def test_a_study_is_routed_at_once_when_the_source_has_no_more(asking: Node) -> None:
    asking.counter.study = SourceCount(80, 2)
    assert asking.answered() == 2, "both series, by their counts"
    assert asking.answered() == 0
    assert asking.router.studies == [(STUDY, 1)]
    (told,) = [event for event in asking.state.events(STUDY) if event.kind == "study.complete"]
    assert told.message == (
        "The study is complete: 80 instances; "
        "C-FIND to PACS@192.0.2.1:104 says 80 instances in 2 series, and 80 in 2 series are here"
    )
    assert told.detail["signal"] == "counted"
    assert told.detail["signs"]["counted"]["instances"] == 80
    assert asking.clock.monotonic() < 1


@pytest.mark.parametrize("rules", [[], [ANY_CT], [PET_CT | {"state": "disabled"}]])
def test_nobody_is_asked_for_a_study_that_no_rule_needs(node: Node, rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        node.state.add_rule(rule["name"], rule)
    node.receive(1, calling_ae_title="PACS")
    node.counter.instances, node.counter.study = 1, SourceCount(1, 1)
    for _ in range(30):
        node.after(0.3)
        node.answered()
    assert node.signal() == "counted"
    assert node.counter.asked_of_studies() == 0
    assert node.router.studies == []


def test_a_new_rule_that_needs_the_study_has_it_asked_for_within_seconds(node: Node) -> None:
    node.receive(1, calling_ae_title="PACS")
    node.counter.instances, node.counter.study = 1, SourceCount(1, 1)
    node.after(0.3)
    node.answered()
    node.release()
    node.after(0.3)
    node.state.add_rule("pet-ct", PET_CT)
    node.after(2.0)
    node.answered()
    assert node.router.studies == [(STUDY, 1)]


def test_a_source_that_has_more_of_the_study_is_asked_ever_more_seldom_and_not_for_ever(asking: Node) -> None:
    asking.counter.study = SourceCount(90, 2)
    for _ in range(350):
        asking.after(0.2)
        asking.answered()
        if asking.router.studies:
            break
    assert 59.0 < asking.clock.monotonic() < 61.0
    assert 5 <= asking.counter.asked_of_studies() <= 9
    assert (
        "C-FIND to PACS@192.0.2.1:104 says 90 instances in 2 series, and 80 in 2 series are here"
        in asking.words("study.complete")[0]
    )


def test_a_study_is_not_complete_while_what_brought_it_goes_on(asking: Node) -> None:
    """A PT may follow the CT in the same association, and its archive may get it no sooner than we do."""
    asking.state.add_rule(
        "no-pet", {**PET_CT, "name": "no-pet", "roles": {}, "study": {"has_not": [{"Modality": "PT"}]}}
    )
    asking.receive(1, series=f"{STUDY}.3", association="r/1/3", calling_ae_title="PACS", plane="")
    asking.counter.study = SourceCount(81, 3)
    for _ in range(55):
        asking.after(0.1)
        asking.answered()
        asking.counter.instances = 1
        if asking.router.studies:
            break
    assert 4.9 < asking.clock.monotonic() < 5.5, "silent for the quiet period"
    assert "says 81 instances in 3 series" in asking.words("study.complete")[0]


def test_a_source_that_has_more_series_is_asked_as_seldom(asking: Node) -> None:
    asking.counter.study = SourceCount(80, 3)
    for _ in range(150):
        asking.after(0.2)
        asking.answered()
    assert 4 <= asking.counter.asked_of_studies() <= 8
    assert "nothing came for" in asking.words("study.complete")[0]


def test_the_rest_of_a_study_comes_and_is_counted_at_once(asking: Node) -> None:
    asking.counter.study = SourceCount(120, 3)
    for _ in range(50):
        asking.after(0.1)
        asking.answered()
    assert asking.router.studies == []
    asking.receive(*range(1, 41), series=f"{STUDY}.3", association="r/1/3", calling_ae_title="PACS")
    asking.release("r/1/3")
    for _ in range(6):
        asking.after(0.1)
        asking.answered()
    assert asking.router.studies == [(STUDY, 1)]
    assert "says 120 instances in 3 series" in asking.words("study.complete")[0]


def test_an_answer_about_the_study_from_before_more_images_came_is_dropped(asking: Node) -> None:
    asking.counter.study = SourceCount(80, 2)
    asking.counter.gate.clear()
    assert asking.after(0.1) == 2
    assert asking.completer._questions.under_way
    asking.receive(1, series=f"{STUDY}.3", association="r/1/3", calling_ae_title="PACS", plane="")
    asking.counter.gate.set()
    asking.answered()
    assert asking.router.studies == []


def test_a_failure_of_a_question_about_a_study_is_told_of_the_study(asking: Node) -> None:
    asking.counter.error = DestinationUnavailable("PACS@192.0.2.1:104: connection refused; start the peer")
    for _ in range(40):
        asking.after(0.1)
        asking.answered()
    assert asking.counter.asked_of_studies() == 1
    assert asking.words("study.count-failed") == [
        "PACS could not be asked how many instances the study has: "
        "PACS@192.0.2.1:104: connection refused; start the peer"
    ]
    asking.after(17.0)
    assert asking.router.studies == [(STUDY, 1)], "by the quiet period, as without a source"


def test_own_results_are_named_with_the_question(asking: Node) -> None:
    own = instance(1, f"{STUDY}.9", modality="SEG", manufacturer="dicomnode", calling_ae_title="PACS")
    asking.state.record_instances([own])
    asking.answered()
    asking.answered()
    assert asking.counter.own_series[-1] == frozenset({f"{STUDY}.9"})


def test_late_images_open_both_again(node: Node) -> None:
    node.receive(*range(1, 41))
    node.release()
    node.after(0.5)
    node.after(20.0)
    node.receive(*range(41, 51), association="r/1/2")
    node.release("r/1/2")
    assert node.after(0.5) == 1
    node.after(20.0)
    assert node.router.studies == [(STUDY, 1), (STUDY, 2)]
    assert node.state.study(STUDY).series[0].state is SeriesState.NOT_ROUTED


def test_the_loop_looks_again_when_there_is_reason_to(node: Node) -> None:
    stop = threading.Event()
    node.receive(*range(1, 41), calling_ae_title="PACS")
    node.clock.advance(1.0)
    node.counter.instances = 40
    thread = threading.Thread(target=node.completer.run, args=(stop, 0.01))
    thread.start()
    while not node.router.series and thread.is_alive():
        stop.wait(0.005)
    stop.set()
    thread.join(10)
    assert node.signal() == "counted"
