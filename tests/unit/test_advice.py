"""What an administrator is told to do about a study: on a node of real stages, a fake database and a fake store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dicomnode.cli.study_story import Story, _drawn
from dicomnode.domain.completeness import Policy
from dicomnode.domain.destination import Destination, parse_dimse
from dicomnode.domain.job import JobState
from dicomnode.domain.study import SeriesState
from dicomnode.ports import Delivered, Event, JobFilter, JobRefused
from dicomnode.stages.advice import next_steps
from dicomnode.stages.situation import Situation, situation
from tests.adapters.state_material import finished
from tests.unit.test_complete_route import SR, Node

PET: Mapping[str, Any] = {"study": {"has": [{"Modality": "PT"}]}}
C_FIND = "C-FIND to PACS@192.0.2.1:104"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.model()
    made.destination("pacs")
    return made


def seen(node: Node, uid: str = "1") -> Situation:
    study = node.state.study(uid)
    jobs = node.state.jobs(JobFilter(study_instance_uid=uid))[::-1]
    policy = Policy(quiet_period_s=5.0)
    return situation(node.state, study, jobs, node.state.events(uid), policy, node.clock.now())


def steps(node: Node, uid: str = "1") -> list[str]:
    return next_steps(seen(node, uid))


def story(node: Node, uid: str = "1") -> str:
    """The screen of `studies why`, in one line."""
    found = seen(node, uid)
    events = tuple(node.state.events(uid))
    console = Console(width=200)
    with console.capture() as screen:
        console.print(_drawn(Story(found.study, events, tuple(found.jobs), tuple(next_steps(found)))))
    return " ".join(screen.get().split())


def at(node: Node, in_s: float) -> str:
    node.clock.advance(in_s)
    moment = node.clock.now().astimezone().strftime("%H:%M:%S")
    node.clock.advance(-in_s)
    return moment


def run(node: Node, tag: str = "1") -> str:
    """The one job that is queued, done and its results sent."""
    (job,) = [job.job_id for job in node.state.jobs() if job.state is JobState.QUEUED]
    node.state.start_job(job)
    node.state.finish_job(job, finished(tag, "1.1"))
    for delivery in node.state.job(job).deliveries:
        node.state.start_delivery(delivery.delivery_id)
        node.state.finish_delivery(delivery.delivery_id, Delivered("stored"))
    return job


# ------------------------------------------------------------------------------------------- fewer than there are


def received(node: Node, images: int, series: str = "1.1", **header: Any) -> None:
    for number in range(1, images + 1):
        node.receive(series, number, **header)


def test_a_series_that_was_closed_with_fewer_than_its_source_has_is_to_be_sent_again(node: Node) -> None:
    node.rule()
    received(node, 2, SeriesDescription="Thorax")
    node.state.record_count("1.1", 5, C_FIND)
    node.clock.advance(60)
    node.completer.sweep()
    run(node)
    assert steps(node) == [
        f"the CT series 'Thorax' was taken as complete with 2 instances, but 3 are missing, as {C_FIND} says: send "
        "it again from the modality or the PACS (what is here already does no harm); when the rest comes, it is "
        "complete again, its jobs run again, and their results supersede these"
    ]
    assert "Nothing" not in story(node)


def test_when_the_rest_came_nothing_is_to_be_done(node: Node) -> None:
    node.rule()
    received(node, 2)
    node.state.record_count("1.1", 5, C_FIND)
    node.clock.advance(60)
    node.completer.sweep()
    run(node)
    received(node, 5)
    node.sweep()
    run(node, "2")
    assert steps(node) == []
    assert "Nothing: everything that was to be sent has arrived" in story(node)


def test_one_that_is_missing_is_not_several(node: Node) -> None:
    node.rule()
    received(node, 1)
    node.state.record_count("1.1", 2, C_FIND)
    node.clock.advance(60)
    node.completer.sweep()
    assert any("was taken as complete with 1 instance, but 1 is missing, as" in step for step in steps(node))


def closed(node: Node, kind: str, series: str, instances: int, **signs: Any) -> None:
    """As the event of a decision keeps it."""
    detail = {"instances": instances, "signal": "quiet", "signs": {"said": {}, **signs}}
    node.state.record_event(Event(node.clock.now(), kind, "complete", "1", series, detail=detail))


def test_what_an_mpps_names_and_is_not_here_is_to_be_sent_again(node: Node) -> None:
    node.rule()
    received(node, 2)
    node.sweep()
    run(node)
    announced = {"kind": "mpps", "state": "completed", "expected": 3, "missing": 1}
    closed(node, "series.complete", "1.1", 2, announced=[announced])
    (step,) = steps(node)
    assert "but 1 is missing, as the MPPS says: send it again" in step


def test_a_study_that_lacks_whole_series_is_to_be_sent_again(node: Node) -> None:
    node.rule()
    received(node, 2)
    node.sweep()
    run(node)
    node.clock.advance(30)
    node.completer.sweep()
    assert steps(node) == []
    closed(node, "study.complete", "", 2, counted={"instances": 9, "source": C_FIND})
    assert [step.split(":")[0] for step in steps(node)] == [
        "the study was taken as complete with 2 instances, but 7 are missing, as C-FIND to PACS@192.0.2.1"
    ]
    closed(node, "series.complete", "1.1", 2, counted={"instances": 9, "source": C_FIND})
    assert len(steps(node)) == 1, "the series lacks all that the study lacks"


# ------------------------------------------------------------------------------------------ what a rule names


def test_a_model_that_is_not_registered_is_to_be_added(node: Node) -> None:
    node.rule()
    node.rule("lung", model="lung-nodules")
    received(node, 3)
    node.sweep()
    run(node)
    assert steps(node) == [
        "rule lung matched, but model lung-nodules is not registered (dicomnode models list shows those that are): "
        "dicomnode models add FOLDER, or name another in the rule; then dicomnode studies rerun 1.1"
    ]


def test_a_model_that_is_registered_but_not_active_is_to_be_activated(node: Node) -> None:
    node.rule()
    node.model()
    node.state.deactivate_model("torso-ct")
    received(node, 3)
    node.sweep()
    assert steps(node) == [
        "rule torso matched, but no version of model torso-ct is active: dicomnode models activate torso-ct 1.0.0; "
        "then dicomnode studies rerun 1.1"
    ]


def test_a_version_that_is_not_registered_and_then_is(node: Node) -> None:
    node.rule(version="2.0.0")
    received(node, 3)
    received(node, 3, "1.2")
    node.sweep()
    assert node.series_state() is SeriesState.NOT_ROUTED
    (step,) = steps(node)
    assert "version 2.0.0 of model torso-ct is not registered" in step
    assert step.endswith("then dicomnode studies rerun 1"), "both series at once"
    node.model("2.0.0")
    (step,) = steps(node)
    assert step == (
        "rule torso matched, but version 2.0.0 of model torso-ct was not there; that has changed since: "
        "dicomnode studies rerun 1"
    )


def test_a_rule_that_was_changed_or_removed_since(node: Node) -> None:
    node.rule("lung", model="lung-nodules")
    received(node, 3)
    node.sweep()
    node.rule("lung")
    assert "that has changed since: dicomnode studies rerun 1.1" in steps(node)[0]
    node.state.remove_rule("lung")
    assert not any("lung" in step for step in steps(node))


def test_a_destination_that_does_not_exist_is_to_be_added(node: Node) -> None:
    node.rule(destinations=["pacs", "web"])
    received(node, 3)
    node.sweep()
    run(node)
    (step,) = steps(node)
    assert step.startswith("rule torso names destination web, which does not exist: dicomnode destinations add web")
    node.state.add_destination(Destination("web", parse_dimse("WEB@127.0.0.1:104")))
    assert "that has changed since: dicomnode studies rerun 1.1" in steps(node)[0]


def test_results_that_had_nowhere_to_go_are_told(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.model()
    node.rule()
    received(node, 3)
    node.sweep()
    job = run(node)
    (step,) = steps(node)
    assert step.startswith(f"the SEG and SR of job {job} went nowhere, since there was no destination")
    assert step.endswith("then: dicomnode studies rerun 1.1")


def test_results_that_their_rule_does_not_want_sent_are_no_trouble(node: Node) -> None:
    node.rule(results=["PDF"])
    received(node, 3)
    node.sweep()
    run(node)
    assert steps(node) == []


# --------------------------------------------------------------------------------------------------- waiting


def test_a_series_that_waits_says_for_what_and_until_when(node: Node) -> None:
    received(node, 2)
    node.clock.advance(1)
    until = at(node, 4)
    assert steps(node) == [
        "the CT series is still being received (which association brought it is not known; the last instance came "
        f"1.0 s ago); nothing has to be done: it goes on by itself at {until} at the latest, and sooner when it "
        "is seen to be complete; when it does not, no worker runs: dicomnode status"
    ]
    node.clock.advance(10)
    assert "it goes on within seconds; when it does not, no worker runs" in steps(node)[0]


def test_a_series_of_which_there_is_more_waits_longer_and_says_how_to_go_on(node: Node) -> None:
    received(node, 2)
    node.state.record_count("1.1", 5, C_FIND)
    node.clock.advance(6)
    (step,) = steps(node)
    assert f"({C_FIND} says 5 instances, and 2 are here; " in step
    assert "when the sender has stopped, send the rest again from there" in step
    assert f"at {at(node, 54)} at the latest it goes on with what is here" in step


def test_an_association_that_is_held_open_is_waited_for(node: Node) -> None:
    node.receive("1.1", 1)
    known = node.state.study("1").series[0]
    assert known.instances == 1
    held = replace(_instance(node), association="scp/1/1")
    node.state.record_instances([held])
    node.clock.advance(10)
    (step,) = steps(node)
    assert "an association from CT1 is open" in step
    assert f"at {at(node, 50)} at the latest" in step


def _instance(node: Node) -> Any:
    from tests.adapters.state_material import instance

    return instance(2, "1.1", study_instance_uid="1", calling_ae_title="CT1")


def test_a_series_whose_rules_wait_for_the_study_is_not_one_that_goes_nowhere(node: Node) -> None:
    node.rule("pet-ct", **PET)
    received(node, 3)
    node.sweep()
    assert steps(node) == [
        "rule pet-ct waits until the whole study is here (the last instance came 5.0 s ago); nothing has to be done: "
        f"it goes on by itself at {at(node, 15)} at the latest, and sooner when it is seen to be complete; when it "
        "does not, no worker runs: dicomnode status"
    ]
    said = story(node)
    assert "The CT series waits for its study: rule pet-ct waits for the whole study: Modality is 'CT'" in said
    assert "it needs a series with Modality equals 'PT'" in said
    assert "waiting CT 1.1, 3 instances" in said
    assert "not routed" not in said
    assert "not-routed" not in said


def test_what_the_whole_study_adds_to_a_series_with_a_job_is_said_by_itself(node: Node) -> None:
    node.rule("pet-ct", **PET)
    node.rule()
    received(node, 3)
    node.sweep()
    node.clock.advance(20)
    node.completer.sweep()
    told = [event.message for event in node.state.events("1") if event.kind == "series.routed"]
    assert told[0].startswith("The CT series was routed: rule torso matched")
    assert told[1] == (
        "The CT series gets no further job, now that its study is complete: rule pet-ct did not match: no series of "
        "the study has Modality equals 'PT'"
    )


def test_once_the_study_is_there_it_is_decided(node: Node) -> None:
    node.rule("pet-ct", **PET)
    received(node, 3)
    node.sweep()
    node.clock.advance(20)
    node.completer.sweep()
    assert "not-routed CT 1.1" in story(node)
    assert "the CT series goes nowhere, for the reason above" in steps(node)[0]


# ------------------------------------------------------------------------------------------- what goes nowhere


def test_of_a_report_nothing_is_to_be_done(node: Node) -> None:
    node.rule()
    node.receive("1.1", sop_class=SR, Modality="SR", Rows=None)
    node.sweep()
    assert steps(node) == []
    said = story(node)
    assert "SR 1.1, 1 instance " in said
    assert "What to do → Nothing: no model was to run on it" in said
    assert "image" not in said.split("What to do")[0].replace("no image", "")


def test_what_cannot_be_read_is_to_be_sent_again(node: Node) -> None:
    node.rule()
    node.receive("1.1", content=b"nothing that is DICOM")
    node.sweep()
    assert steps(node) == [
        "the CT series cannot be read, for the reason above; send it again from where it came from"
    ]


def test_a_series_with_a_gap_is_to_be_sent_again(node: Node) -> None:
    node.rule()
    received(node, 3)
    node.sweep()
    (job,) = node.state.jobs()
    node.state.start_job(job.job_id)
    node.state.finish_job(job.job_id, JobRefused("missing-slices", "1 slice is missing"))
    (step,) = steps(node)
    assert "(1 slice is missing); send the whole series again from the modality or the PACS" in step


# ------------------------------------------------------------------------------------- superseded, and the signs


def test_what_was_superseded_stays_where_it_was_sent_and_the_newer_one_is_named(node: Node) -> None:
    node.rule()
    received(node, 3)
    node.sweep()
    old = run(node)
    received(node, 4)
    node.sweep()
    new = run(node, "2")
    said = story(node)
    assert (
        f"its results are newer than those of job {old} and supersede them; what was sent of the old ones stays at "
        "its destination, since DICOM knows no replacing"
    ) in said
    for kind in ("SEG", "SR"):
        newer = f"superseded: the newer one is that of job {new[:8]} (dicomnode jobs show has its UIDs)"
        assert f"{kind} to pacs: sent, stored; {newer}" in said
    assert said.count("since DICOM knows no replacing") == 3
    assert steps(node) == []


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ("announced", "Complete because the MPPS names it"),
        ("counted", "Complete because the source counts it (no surer sign: the MPPS names it)"),
        ("released", "Complete because CT1 released it (no surer sign: the MPPS names it; the source counts it)"),
        ("quiet", "Taken as complete because nothing came (no surer sign: the MPPS names it; the source counts it; "),
    ],
)
def test_which_sign_it_was_is_said_in_plain_words(node: Node, signal: str, words: str) -> None:
    node.rule()
    received(node, 3)
    node.sweep()
    said = {
        "announced": "the MPPS names it",
        "counted": "the source counts it",
        "released": "CT1 released it",
        "quiet": "nothing came",
    }
    detail = {"instances": 3, "signal": signal, "signs": {"said": said}}
    node.state.record_event(Event(node.clock.now(), "series.complete", "complete", "1", "1.1", detail=detail))
    assert words in story(node)
    assert f"signal {signal}" not in story(node)
