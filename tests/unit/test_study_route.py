"""The second phase: what a complete study adds to its series, late images, and what rules are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.completeness import Signal, Verdict
from dicomnode.domain.conditions import NOT_LOOKED_AT
from dicomnode.domain.job import JobState
from dicomnode.domain.rules import FACTS_OF_ALL_HEADERS
from dicomnode.domain.schedule import NODE_ZONE
from dicomnode.domain.study import Element, ReceivedInstance, Series, SeriesState
from dicomnode.imaging.headers import Instance, read_instances
from dicomnode.ports import JobView
from dicomnode.stages.evidence import FactFinder
from tests.unit.test_complete_route import SR, Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.model()
    made.destination("pacs")
    return made


def study(node: Node, uid: str = "1") -> list[str]:
    """Ids of the jobs that come when the study is complete."""
    node.sweep()
    view = node.state.study(uid)
    own = SeriesState.OWN_RESULT
    count = sum(series.instances for series in view.series if series.state is not own)
    generation = node.state.complete_study(uid, Verdict(Signal.QUIET, "nothing came", count))
    assert generation is not None
    return node.route.route_study(uid, generation)


def jobs(node: Node, *states: JobState) -> list[JobView]:
    return [job for job in node.state.jobs() if job.state in (states or (JobState.QUEUED,))]


def events(node: Node, series: str = "") -> list[str]:
    of = [e for e in node.state.events("1") if e.series_instance_uid == series and not e.job_id]
    return [e.kind for e in of if "rout" in e.kind or e.kind == "series.waits"]


PET: dict[str, Any] = {"roles": {"pet": {"when": {"Modality": "PT"}}}}
THINNEST: dict[str, Any] = {"choose": ["thinnest_slices"]}


def test_a_pair_of_series_makes_a_job_when_the_study_is_there(node: Node) -> None:
    node.rule("pet-ct", **PET)
    node.receive("1.1")
    node.receive("1.2", Modality="PT", SeriesNumber=7)
    assert [len(study(node)), len(jobs(node))] == [1, 1]
    (job,) = jobs(node)
    assert (job.series_instance_uid, job.inputs) == ("1.1", {"pet": "1.2"})
    assert node.series_state("1.1") is SeriesState.ROUTED
    assert node.why("1.1") == "rule pet-ct matched: Modality is 'CT'; pet is PT series 7"
    assert node.why("1.2") == "rule pet-ct did not match: Modality is 'PT', not 'CT'"
    assert events(node, "1.1") == ["series.waits", "series.routed"]
    assert events(node, "1.2") == ["series.not-routed"]
    assert events(node) == ["study.routed"]
    (said,) = node.routed("1.1")["rules"]
    assert (said["outcome"], said["model"], said["roles"][0]["series"]) == ("matched", "torso-ct 1.0.0", "1.2")


def test_it_happens_by_itself_when_nothing_comes_any_more(node: Node) -> None:
    node.rule("pet-ct", **PET)
    node.receive("1.1")
    node.receive("1.2", Modality="PT")
    assert node.sweep() == 2
    assert jobs(node) == []
    node.clock.advance(3600)
    node.completer.sweep()
    assert [job.inputs for job in jobs(node)] == [{"pet": "1.2"}]


def test_what_waits_says_so_before(node: Node) -> None:
    node.rule("pet-ct", **PET)
    node.receive("1.1")
    node.sweep()
    assert node.why() == (
        "rule pet-ct waits for the whole study: Modality is 'CT'; it needs a series as pet, with Modality equals 'PT'"
    )
    assert node.series_state() is SeriesState.WAITING
    assert jobs(node) == []


def test_a_study_without_the_partner_says_why_nothing_ran(node: Node) -> None:
    node.rule("pet-ct", **PET)
    node.receive("1.1")
    assert study(node) == []
    assert node.series_state() is SeriesState.NOT_ROUTED
    assert node.why() == "rule pet-ct did not match: no series of the study fits as pet: Modality equals 'PT'"
    assert events(node) == ["study.not-routed"]


def test_rules_that_look_at_one_series_run_at_once_and_only_once(node: Node) -> None:
    node.rule("a")
    node.rule("b", **THINNEST)
    node.receive("1.1")
    node.sweep()
    assert [job.rule for job in jobs(node)] == ["a revision 1"]
    node.rule("a", priority="stat")  # a revision between the phases is for the next study
    assert len(study(node)) == 1
    assert sorted(job.rule for job in jobs(node)) == ["a revision 1", "b revision 1"]


def test_a_study_that_no_rule_looks_at_is_routed_without_a_word(node: Node) -> None:
    node.rule()
    node.receive("1.1")
    assert study(node) == []
    assert events(node) == []
    assert events(node, "1.1") == ["series.routed"]


def test_a_study_whose_series_no_such_rule_takes_is_routed_without_a_word(node: Node) -> None:
    node.rule("a")
    node.rule("b", when={"Modality": "MR"}, **THINNEST)
    node.receive("1.1")
    assert study(node) == []
    assert events(node) == []


def test_the_chosen_one_runs_and_the_others_say_which_it_was(node: Node) -> None:
    node.rule(**THINNEST)
    node.receive("1.1", SliceThickness=5, SeriesNumber=1)
    node.receive("1.2", SliceThickness=1, SeriesNumber=2)
    study(node)
    assert [job.series_instance_uid for job in jobs(node)] == ["1.2"]
    assert (
        node.why("1.1") == "rule torso did not choose it: CT series 2 was chosen: thinnest slices, 1 mm against 5 mm"
    )


def test_a_rule_that_may_stop_holds_the_others_back_until_the_study_is_there(node: Node) -> None:
    node.rule("a", order=1, stop=True, **THINNEST)
    node.rule("b")
    node.receive("1.1", SliceThickness=5, SeriesNumber=1)
    node.receive("1.2", SliceThickness=1, SeriesNumber=2)
    node.sweep()
    assert jobs(node) == []
    assert len(study(node)) == 2
    assert {(j.series_instance_uid, j.rule) for j in jobs(node)} == {("1.1", "b revision 1"), ("1.2", "a revision 1")}


def test_a_thinner_series_that_comes_late_takes_the_place_of_the_chosen_one(node: Node) -> None:
    node.rule(**THINNEST)
    node.receive("1.1", SliceThickness=5, SeriesNumber=1)
    study(node)
    (first,) = jobs(node)
    node.receive("1.2", SliceThickness=1, SeriesNumber=2)
    study(node)
    (job,) = jobs(node)
    assert job.series_instance_uid == "1.2"
    (gone,) = jobs(node, JobState.CANCELLED)
    assert (gone.job_id, gone.code) == (first.job_id, "superseded")
    assert node.series_state("1.1") is SeriesState.NOT_ROUTED
    assert "CT series 2 was chosen" in node.why("1.1")


def test_what_was_cancelled_for_another_series_comes_back_when_it_is_chosen_again(node: Node) -> None:
    node.rule("torso", choose=["most_instances"])
    node.receive("1.1", number=1)
    study(node)
    for number in (1, 2):
        node.receive("1.2", number=number)
    study(node)
    assert [job.series_instance_uid for job in jobs(node)] == ["1.2"]
    for number in (2, 3):
        node.receive("1.1", number=number)
    study(node)
    assert [job.series_instance_uid for job in jobs(node)] == ["1.1"]


def test_what_did_not_change_is_not_made_again_whatever_became_of_it(node: Node) -> None:
    node.rule(**PET)
    node.receive("1.1")
    node.receive("1.2", Modality="PT")
    study(node)
    node.state.cancel_job(jobs(node)[0].job_id)
    node.receive("1.3", Modality="MR")
    assert study(node) == []
    assert [job.code for job in node.state.jobs()] == ["cancelled"]
    assert events(node, "1.1") == ["series.waits", "series.routed"]


def test_late_images_of_the_partner_make_the_job_again(node: Node) -> None:
    node.rule(**PET)
    node.receive("1.1")
    node.receive("1.2", Modality="PT")
    (first,) = study(node)
    assert node.state.start_job(first) is not None
    node.receive("1.2", number=2, Modality="PT")
    (second,) = study(node)
    assert [job.job_id for job in jobs(node)] == [second]
    assert [job.job_id for job in jobs(node, JobState.CANCELLED)] == [first]


def test_images_that_come_while_the_study_is_routed_leave_it_to_the_next_time(node: Node) -> None:
    node.rule(**THINNEST)
    node.receive("1.1")
    node.sweep()
    generation = node.state.complete_study("1", Verdict(Signal.QUIET, "nothing came", 1))
    assert generation is not None
    node.receive("1.1", number=2)
    assert node.route.route_study("1", generation) == []
    assert len(study(node)) == 1


def test_reports_are_part_of_the_study_and_own_results_are_not(node: Node) -> None:
    node.rule(study={"has_not": [{"Modality": "SR"}]})
    node.receive("1.1")
    own = ReceivedInstance(
        "9.1", SR, "1.2.840.10008.1.2.1", "1", "9", "9.1.dcm", 1, "0" * 64, node.clock.now(), "A", "B",
        modality="SR", manufacturer="dicomnode",
    )  # fmt: skip
    node.state.record_instances([own])
    assert len(study(node)) == 1
    node.receive("1.2", sop_class=SR, Modality="SR", Rows=None, SeriesNumber=5)
    assert study(node) == []
    assert "the study has SR series 5, which it must not" in node.why("1.1")
    assert [job.code for job in node.state.jobs()] == ["superseded"]


# ---------------------------------------------------------------------------------------------- what a job is


def test_all_that_a_rule_says_is_in_the_job(node: Node) -> None:
    node.model("2.0.0")
    clock = node.clock.now().astimezone(NODE_ZONE)
    first, last = (f"{clock + timedelta(hours=hours):%H}:00" for hours in (8, 10))
    node.rule(
        version="1.0.0",
        parameters={"overlap": 0.5},
        results=["SEG"],
        schedule=f"{first}-{last}",
        priority="low",
        **PET,
    )
    node.receive("1.1")
    node.receive("1.2", Modality="PT")
    (job_id,) = study(node)
    (view,) = jobs(node)
    assert (view.model, str(view.priority), view.parameters) == ("torso-ct 1.0.0", "low", {"overlap": 0.5})
    assert view.not_before is not None
    assert f"{view.not_before.astimezone(NODE_ZONE):%H:%M}" == first
    ((_, delay_s),) = node.state.enqueued_jobs
    assert delay_s == (view.not_before - node.clock.now()).total_seconds() > 0
    assert node.state.start_job(job_id) is None
    node.clock.advance(delay_s)
    work = node.state.start_job(job_id)
    assert work is not None
    assert (work.parameters, work.objects) == ({"overlap": 0.5}, ("SEG",))
    assert work.inputs["pet"].series_instance_uid == "1.2"


def test_a_version_that_is_not_there_is_named_with_what_to_do(node: Node) -> None:
    node.rule(version="9.9.9")
    node.receive()
    node.sweep()
    assert jobs(node) == []
    assert node.why().endswith(
        "; but no version 9.9.9 of torso-ct is registered (dicomnode models add FOLDER, or let the rule say "
        "version: active)"
    )


def test_a_rule_that_only_stops_makes_no_job(node: Node) -> None:
    node.state.add_rule("a", {"name": "a", "when": {"Modality": "CT"}, "stop": True})
    node.rule("b")
    node.receive()
    node.sweep()
    assert jobs(node) == []
    assert node.why() == (
        "rule a matched: Modality is 'CT'; no rule after it is asked. Rule b was not asked: rule a stopped it"
    )


def test_a_shadow_makes_no_job(node: Node) -> None:
    node.rule("a", state="shadow")
    node.rule("b", state="shadow", **THINNEST)
    node.receive()
    assert study(node) == []
    assert node.state.jobs() == []
    assert node.series_state() is SeriesState.NOT_ROUTED
    assert node.why().startswith("rule a, a shadow, would have matched: Modality is 'CT'. Rule b, a shadow,")


# -------------------------------------------------------------------------------------------------- evidence


def _counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often all headers of a series were read."""
    calls: list[int] = []

    def counted(paths: Sequence[Path | str]) -> list[Instance]:
        calls.append(len(paths))
        return read_instances(paths)

    monkeypatch.setattr("dicomnode.imaging.series_facts.read_instances", counted)
    return lambda: len(calls)


def test_headers_are_read_for_a_choice_that_needs_them_and_kept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _counting(monkeypatch)
    node.rule(**THINNEST)
    node.receive("1.1")
    node.receive("1.2", Modality="MR")
    study(node)
    assert read() == 1  # of the CT; no choice is made among MR series
    facts = {e.series_instance_uid: e.all_facts for e in node.state.study_evidence("1")}
    assert facts == {"1.1": True, "1.2": False}
    node.receive("1.3", Modality="MR")
    study(node)
    assert read() == 1


def test_evidence_of_fewer_images_is_not_used(node: Node) -> None:
    node.rule(choose=["most_instances"])
    node.receive("1.1", SeriesNumber=1)
    node.receive("1.2", SeriesNumber=2)
    study(node)
    node.receive("1.2", number=2, SeriesNumber=2)
    node.clock.advance(9)
    grown = node.state.complete_series("1.2", 5)
    assert grown is not None
    node.state.record_routing(grown, [], "by a node that keeps no evidence", {})
    study(node)
    assert {e.series_instance_uid: e.generation for e in node.state.study_evidence("1")} == {"1.1": 1, "1.2": 2}
    assert [job.series_instance_uid for job in jobs(node)] == ["1.2"]


def test_a_rule_after_one_that_stops_costs_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _counting(monkeypatch)
    node.state.add_rule("a", {"name": "a", "order": 1, "when": {"Modality": "CT"}, "stop": True})
    node.rule("b", when={"IsAVolume": True})
    node.receive("1.1")
    node.sweep()
    assert read() == 0
    node.receive("1.2", Modality="MR")
    node.sweep()
    assert read() == 1


def test_evidence_is_what_rules_were_asked_about(node: Node) -> None:
    node.rule(when={"all": [{"Modality": "MR"}, {"IsAVolume": True}]})
    node.receive("1.1", SliceThickness=5)
    node.receive("1.2", sop_class=SR, Modality="SR", Rows=None)
    node.receive("1.3", content=b"rubbish")
    node.sweep()
    image, report, rubbish = node.state.study_evidence("1")
    assert image.header["SliceThickness"] == Element("DS", (5.0,))
    assert image.facts["CallingAETitle"] == Element("AE", ("CT1",))
    assert not any(element.note == NOT_LOOKED_AT for element in image.facts.values())
    assert not image.all_facts
    assert report.no_image == "the series holds no image to work on: it is SR"
    assert (rubbish.header, rubbish.all_facts) == ({}, True)
    assert rubbish.no_image == "1.3.1.dcm is no DICOM Part 10 file"


def test_there_is_evidence_even_before_there_are_rules(node: Node) -> None:
    node.receive()
    node.sweep()
    (found,) = node.state.study_evidence("1")
    assert found.header["Modality"] == Element("CS", ("CT",))


def test_the_time_of_day_is_that_of_the_last_image_by_the_clock_on_the_wall(node: Node) -> None:
    node.receive(number=1)
    node.clock.advance(3)
    node.receive(number=2)
    came = node.clock.now()
    node.sweep()
    (found,) = node.state.study_evidence("1")
    assert found.facts["ReceivedTimeOfDay"] == Element("TM", (came.astimezone(NODE_ZONE).strftime("%H%M%S"),))


def test_what_is_lacking_is_found_later(node: Node) -> None:
    node.rule()
    node.receive("1.1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    node.receive("1.2", content=b"rubbish")
    node.sweep()
    finder = FactFinder(node.state, node.store)
    assert [finder.some(), finder.some()] == [1, 0]
    image, _ = node.state.study_evidence("1")
    assert image.all_facts
    assert image.facts.keys() >= FACTS_OF_ALL_HEADERS
    assert image.facts["IsLocalizer"].values == (True,)
    assert image.facts["NumberOfInstances"].values == (1,)


def test_a_header_outlives_its_files(node: Node) -> None:
    node.receive(BodyPartExamined="CHEST")
    node.sweep()
    node.store.path("1.1.1.dcm").unlink()
    assert FactFinder(node.state, node.store).some() == 1
    (found,) = node.state.study_evidence("1")
    assert found.header["BodyPartExamined"].values == ("CHEST",)
    assert found.facts["IsAVolume"].values == (False,)
    assert found.all_facts


def test_what_is_lacking_of_a_series_that_was_received_before_there_was_evidence(node: Node) -> None:
    node.receive()
    node.clock.advance(9)
    series = node.state.complete_series("1.1", 5)
    assert series is not None
    node.state.record_routing(series, [], "as it was once done", {})
    assert node.state.study_evidence("1") == []
    assert FactFinder(node.state, node.store).some() == 1
    assert node.state.study_evidence("1")[0].all_facts


def test_series_without_any_evidence_are_looked_for_at_the_start_and_then_seldom(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding that there is none reads every series there is."""
    asked: list[bool] = []
    look = node.state.series_without_facts

    def watched(most: int = 10, *, without_any: bool = True) -> list[Series]:
        asked.append(without_any)
        return look(most, without_any=without_any)

    monkeypatch.setattr(node.state, "series_without_facts", watched)
    node.receive()
    node.clock.advance(9)
    series = node.state.complete_series("1.1", 5)
    assert series is not None
    node.state.record_routing(series, [], "as an older node did it", {})
    finder = FactFinder(node.state, node.store)
    assert [finder.some() for _ in range(900)] == [1] + [0] * 899
    assert asked == [True, True] + [False] * 898
    for _ in range(200):
        finder.some()
    assert asked.count(True) == 3


# ---------------------------------------------------------------------------------------------------- priors


BEFORE: dict[str, Any] = {"roles": {"before": {"when": {"Modality": "CT"}, "from": "prior", **THINNEST}}}


def _received(node: Node, study_uid: str, date: str, *series: str, **header: Any) -> None:
    for uid in series:
        node.receive(uid, study=study_uid, PatientID="P", StudyDate=date, **header)
    node.sweep()


def test_a_prior_is_found_by_patient_and_date(node: Node) -> None:
    node.rule(when={"StudyDate": "2026-02-01"}, **BEFORE)
    _received(node, "7", "20240101", "7.1")
    _received(node, "8", "20250101", "8.1", "8.2")
    _received(node, "9", "20260301", "9.1")
    node.receive("6.1", study="6", PatientID="Q", StudyDate="20260101")
    _received(node, "1", "20260201", "1.1")
    assert len(study(node)) == 1
    assert jobs(node)[0].inputs == {"before": "8.1"}
    assert "before is CT series 8.1 of an earlier study" in node.why("1.1")
    assert {e.series_instance_uid: e.all_facts for e in node.state.study_evidence("8")} == {"8.1": True, "8.2": True}


def test_priors_are_not_looked_for_without_need(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[str]:
        raise AssertionError("priors were looked for")

    node.rule(when={"Modality": "MR"}, **BEFORE)
    node.rule("here", **PET)
    node.receive("1.1")
    monkeypatch.setattr(node.state, "prior_studies", refuse)
    assert study(node) == []


def test_reports_of_earlier_studies_are_no_priors(node: Node) -> None:
    node.rule(when={"StudyDate": "2026-02-01"}, roles={"before": {"when": {"StudyDate": "2025"}, "from": "prior"}})
    _received(node, "8", "20250101", "8.1", sop_class=SR, Modality="SR", Rows=None)
    _received(node, "1", "20260201", "1.1")
    assert study(node) == []
    assert "no earlier study of the patient has a series that fits as before" in node.why("1.1")
