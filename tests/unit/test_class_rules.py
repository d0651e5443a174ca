"""Rules that ask for the classes that a model gave: what waits for them, what comes of it, and never for ever."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.completeness import Signal, Verdict
from dicomnode.domain.job import JobState
from dicomnode.domain.model_card import ModelCard, parse_model_card
from dicomnode.domain.study import SeriesState
from dicomnode.ports import JobFailed, JobFinished, JobRefused, JobView
from tests.unit.test_complete_route import CARD, Node

CHEST: dict[str, Any] = {"Class(region)": "chest"}
_CODES = {"Head": "69536005", "Chest": "51185008", "Abdomen": "818983003"}


def classifier(name: str = "region") -> ModelCard:
    classes = [
        {"name": one, "code": {"value": code, "scheme": "SCT", "meaning": one}} for one, code in _CODES.items()
    ]
    finding = {"value": "363698007", "scheme": "SCT", "meaning": "Finding Site"}
    card = CARD | {
        "name": name,
        "input": {"modality": ["CT"], "size": [64, 64], "intensity": {"from": [0, 1]}},
        "network": {"file": "models/model.onnx"},
        "output": {"classification": {"of": "image", "finding": finding, "classes": classes}},
    }
    return parse_model_card(card)


def gave(**shares: float) -> JobFinished:
    """As stages.encode.class_rows says it, of a hundred images."""
    classes = [{"class": name, "images": int(100 * share), "share": share} for name, share in shares.items()]
    runs, first = [], 1
    for name, share in shares.items():
        last = first + int(100 * share) - 1
        runs.append({"images": f"{first}-{last}", "class": name, "probability": 0.9, "least": 0.5})
        first = last + 1
    return JobFinished((), details={"classes": classes, "runs": runs})


class ClassNode(Node):
    def jobs(self, model: str = "torso-ct", *states: JobState) -> list[JobView]:
        return [j for j in self.state.jobs() if j.model.startswith(model) and (not states or j.state in states)]

    def classified(self, outcome: JobFinished | JobFailed | JobRefused | None = None, model: str = "region") -> None:
        """Its one waiting job runs and ends so, and the worker looks again."""
        (job,) = self.jobs(model, JobState.QUEUED)
        self.state.start_job(job.job_id)
        self.state.finish_job(job.job_id, outcome or gave(Chest=0.4, Abdomen=0.6))
        self.look()

    def look(self) -> None:
        self.clock.advance(1.0)
        self.completer.sweep()

    def study(self) -> None:
        """Its study becomes complete and is decided."""
        count = sum(series.instances for series in self.state.study("1").series)
        generation = self.state.complete_study("1", Verdict(Signal.QUIET, "nothing came", count))
        assert generation is not None
        self.route.route_study("1", generation)

    def outcomes(self, series: str = "1.1") -> Mapping[str, str]:
        """What each rule came to, as the story has it last."""
        told = ("series.routed", "series.not-routed", "series.waits")
        events = [e for e in self.state.events("1") if e.kind in told and e.series_instance_uid == series]
        return {rule["rule"]: rule["outcome"] for rule in events[-1].detail["rules"]}


@pytest.fixture
def node(tmp_path: Path) -> ClassNode:
    made = ClassNode(tmp_path)
    made.model()
    made.state.add_model(classifier(), "1" * 64, Path("/models"))
    made.rule("region", model="region")
    made.receive()
    return made


def test_a_rule_waits_for_the_class_and_runs_when_it_is_there(node: ClassNode) -> None:
    node.rule("chest", CHEST)
    node.sweep()
    assert [len(node.jobs("region")), len(node.jobs())] == [1, 0]
    assert "chest waits for the classes that region gives" in node.why()
    assert node.outcomes() == {"chest": "waits-for-classes", "region": "matched"}
    node.classified()
    assert node.outcomes() == {"chest": "matched", "region": "matched"}
    (job,) = node.jobs()
    assert job.rule == "chest revision 1"
    assert "Class(region) is 'Chest\\Abdomen'" in node.why()
    assert len(node.jobs("region")) == 1  # not again


def test_a_rule_for_another_class_does_not_match(node: ClassNode) -> None:
    node.rule("head", {"Class(region)": ["Head"]})
    node.sweep()
    node.classified()
    assert node.jobs() == []
    assert "head did not match: Class(region) is 'Chest\\Abdomen', none of 'Head'" in node.why()
    assert node.series_state() is SeriesState.ROUTED


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({"ClassShare(region/Chest)": {"at_least": 0.4}}, True),
        ({"ClassShare(region/chest)": {"at_least": 0.5}}, False),
        ({"ClassShare(region/Head)": {"at_most": 0.1}}, True),
        ({"ClassProbability(region/Abdomen)": {"at_least": 0.9}}, True),
        ({"ClassProbability(region/Head)": {"at_most": 1}}, False),
        ({"ClassCode(region)": "51185008"}, True),
        ({"not": {"Class(region)": "Head"}}, True),
        ({"not": CHEST}, False),
        ({"any": [CHEST, {"Modality": "MR"}]}, True),
    ],
)
def test_what_can_be_asked(node: ClassNode, when: Any, matches: bool) -> None:
    node.rule("asks", when)
    node.sweep()
    assert node.jobs() == []
    node.classified()
    assert bool(node.jobs()) is matches


def test_what_the_rest_settles_does_not_wait(node: ClassNode) -> None:
    node.rule("mr", {"all": [{"Modality": "MR"}, CHEST]})
    node.rule("ct", {"any": [{"Modality": "CT"}, CHEST]})
    node.sweep()
    assert node.outcomes() == {"ct": "matched", "mr": "not-matched", "region": "matched"}
    assert len(node.jobs()) == 1


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (JobFailed("boom", "the network is broken", retryable=False), "failed: the network is broken"),
        (JobRefused("no", "a colour image"), "was refused: a colour image"),
    ],
)
def test_a_classifier_that_fails_is_told_and_waited_for_no_longer(node: ClassNode, outcome: Any, words: str) -> None:
    node.rule("chest", CHEST)
    node.rule("other", {"not": CHEST})
    node.sweep()
    node.classified(outcome)
    (job,) = node.jobs("region")
    assert node.outcomes() == {"chest": "not-matched", "other": "matched", "region": "matched"}
    assert f"Class(region) is not known (no class: job {job.job_id} of region {words})" in node.why()
    node.state.retry_job(job.job_id)
    node.classified()
    assert node.outcomes()["chest"] == "matched"


def test_a_job_that_an_administrator_ends_is_waited_for_no_longer(node: ClassNode) -> None:
    node.rule("chest", CHEST)
    node.sweep()
    node.state.cancel_job(node.jobs("region")[0].job_id)
    node.look()
    assert "was cancelled: by the administrator" in node.why()
    assert node.outcomes()["chest"] == "not-matched"


@pytest.mark.parametrize("why", ["none", "inactive", "shadow", "segments"])
def test_classes_that_nothing_gives_are_not_waited_for(node: ClassNode, why: str) -> None:
    asked = "torso-ct" if why == "segments" else "region"
    match why:
        case "none":
            node.state.remove_rule("region")
        case "inactive":
            node.state.deactivate_model("region")
        case "shadow":
            node.rule("region", model="region", state="shadow")
        case "segments":
            node.rule("segments")
    node.rule("chest", {f"Class({asked})": "chest"})
    node.sweep()
    assert node.outcomes()["chest"] == "not-matched"
    words = {"inactive": "no version of region is active", "segments": "torso-ct 1.0.0 gives no classes"}
    assert f"no class: {words.get(why, 'no rule runs region on this series')}" in node.why()


def test_rules_that_wait_for_one_another_do_not(node: ClassNode) -> None:
    node.state.add_model(classifier("part"), "2" * 64, Path("/models"))
    node.rule("region", {"Class(part)": "Chest"}, model="region")
    node.rule("part", CHEST, model="part")
    node.sweep()
    assert node.outcomes() == {"part": "not-matched", "region": "not-matched"}
    assert node.series_state() is SeriesState.NOT_ROUTED


def test_one_classifier_after_another(node: ClassNode) -> None:
    node.state.add_model(classifier("part"), "2" * 64, Path("/models"))
    node.rule("part", CHEST, model="part")
    node.rule("heads", {"Class(part)": "Head"})
    node.sweep()
    assert node.outcomes() == {"heads": "waits-for-classes", "part": "waits-for-classes", "region": "matched"}
    node.classified()
    assert node.outcomes() == {"heads": "waits-for-classes", "part": "matched", "region": "matched"}
    node.classified(gave(Head=1.0), model="part")
    assert node.outcomes() == {"heads": "matched", "part": "matched", "region": "matched"}
    assert [len(node.jobs(model)) for model in ("region", "part", "torso-ct")] == [1, 1, 1]
    for _ in range(5):
        node.look()
    assert len(node.state.jobs()) == 3


def test_what_comes_after_a_rule_that_may_stop_it_waits_as_well(node: ClassNode) -> None:
    node.rule("region", model="region", order=1)
    node.rule("no-heads", {"Class(region)": "Head"}, stop=True, order=2)
    node.rule("rest", order=3)
    node.sweep()
    assert node.outcomes() == {
        "region": "matched", "no-heads": "waits-for-classes", "rest": "waits-for-classes"
    }  # fmt: skip
    assert (
        "rule rest waits for rule no-heads, which may stop it once the classes that region gives"
        in node.why().lower()
    )
    node.classified()
    assert node.outcomes() == {"region": "matched", "no-heads": "not-matched", "rest": "matched"}


def test_a_series_that_is_classified_again_after_late_images_is_asked_about_those(node: ClassNode) -> None:
    node.rule("chest", CHEST)
    node.sweep()
    node.classified(gave(Head=1.0))
    node.receive(number=2)
    node.sweep()
    assert node.outcomes()["chest"] == "waits-for-classes"  # what was said of the part is forgotten
    node.classified(gave(Head=0.5, Chest=0.5))
    assert node.outcomes()["chest"] == "matched"


def test_a_version_that_became_active_meanwhile_does_not_run_again(node: ClassNode) -> None:
    node.rule("all")
    node.rule("chest", CHEST)
    node.sweep()
    node.model("2.0.0")
    node.classified()
    assert sorted((j.rule, j.model) for j in node.jobs()) == [
        ("all revision 1", "torso-ct 1.0.0"), ("chest revision 1", "torso-ct 2.0.0")
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------- the study


def test_a_study_that_was_decided_is_decided_again(node: ClassNode) -> None:
    """The class comes after the study was complete: choose waits for it."""
    node.receive("1.2")
    node.rule("best", CHEST, choose=["most_instances"])
    node.sweep()
    node.study()
    assert node.jobs() == []
    assert node.outcomes("1.1")["best"] == "waits-for-classes"
    for job in node.jobs("region", JobState.QUEUED):
        node.state.start_job(job.job_id)
        node.state.finish_job(job.job_id, gave(Chest=1.0))
    node.look()
    node.study()
    assert len(node.jobs()) == 1
    node.look()
    assert sorted(node.outcomes(uid)["best"] for uid in ("1.1", "1.2")) == ["matched", "not-chosen"]


def test_a_class_that_another_series_of_the_study_has(node: ClassNode) -> None:
    node.receive("1.2", Modality="PT")
    node.rule("pet", {"Modality": "PT"}, study={"has": [CHEST]})
    node.sweep()
    assert node.series_state("1.2") is SeriesState.WAITING
    node.study()
    assert node.series_state("1.2") is SeriesState.WAITING
    assert "waits for the classes that region gives of its study" in node.why("1.2")
    node.classified()
    node.study()
    assert [job.series_instance_uid for job in node.jobs()] == ["1.2"]
    assert node.series_state("1.2") is SeriesState.ROUTED


def test_a_series_waits_no_longer_than_the_rule_is_there(node: ClassNode) -> None:
    node.receive("1.2", Modality="PT")
    node.rule("pet", {"Modality": "PT"}, choose=["latest"])
    node.sweep()
    assert node.series_state("1.2") is SeriesState.WAITING
    node.state.remove_rule("pet")
    node.study()
    assert node.series_state("1.2") is SeriesState.NOT_ROUTED
