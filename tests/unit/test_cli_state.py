"""rules, studies and jobs on the command line, on a State in memory."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from dicomnode.cli import jobs, rules, studies
from dicomnode.cli.context import Context
from dicomnode.domain.job import JobState
from dicomnode.domain.result import StoredResult
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.errors import DicomNodeError, InvalidRule, NotFound
from dicomnode.ports import Delivered, JobFailed, JobFinished, JobRefused, NotDelivered
from tests.unit.test_complete_route import Node

RULE = """
name: torso
when:
  all:
    - Modality: CT
    - not: {ImageType: {contains: LOCALIZER}}
model: torso-ct
destinations: [pacs]
"""


class Screen:
    """A command line of 100 columns on a node without a database."""

    def __init__(self, folder: Path) -> None:
        self.node, self.folder = Node(folder), folder
        self.context = Context()
        self.context.__dict__["state"] = self.node.state
        self.context.__dict__["store"] = self.node.store
        self.context.console = Console(width=100)

    def run(self, *words: str) -> str:
        result = self._invoke(*words)
        assert result.exit_code == 0, result.output
        return str(result.output)

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def fails(self, *words: str) -> DicomNodeError:
        result = self._invoke(*words)
        assert isinstance(result.exception, DicomNodeError), result.output
        return result.exception

    def _invoke(self, *words: str) -> Result:
        app = {"rules": rules.app, "studies": studies.app, "jobs": jobs.app}[words[0]]
        self.context.json = False
        return CliRunner().invoke(app, list(words[1:]), obj=self.context)

    def file(self, text: str, name: str = "rule.yaml") -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


# --------------------------------------------------------------------------------------------------- rules


def test_a_rule_is_added_listed_shown_and_removed(screen: Screen) -> None:
    said = screen.run("rules", "add", screen.file(RULE))
    assert "rule torso revision 1 is in force" in said
    assert "no model torso-ct is registered" in said
    assert "destination pacs does not exist" in said
    assert "torso" in screen.run("rules", "list")
    assert "'LOCALIZER'" in screen.run("rules", "list")
    assert "was removed" in screen.run("rules", "remove", "torso")
    assert screen.node.state.rules() == []


def test_what_is_shown_can_be_added_again_and_changes_nothing(screen: Screen) -> None:
    screen.run("rules", "add", screen.file(RULE))
    shown = screen.run("rules", "show", "torso")
    assert "is unchanged (revision 1)" in screen.run("rules", "add", screen.file(shown))


def test_a_changed_rule_is_a_new_revision(screen: Screen) -> None:
    screen.run("rules", "add", screen.file(RULE))
    (change,) = screen.json("rules", "add", screen.file(RULE + "priority: stat\n"))
    assert (change["revision"], screen.node.state.rules()[0].document["priority"]) == (2, "stat")


def test_dry_runs_change_nothing(screen: Screen) -> None:
    assert "would be added" in screen.run("rules", "add", screen.file(RULE), "--dry-run")
    assert screen.node.state.rules() == []
    screen.run("rules", "add", screen.file(RULE))
    assert "would be removed" in screen.run("rules", "remove", "torso", "--dry-run")
    assert len(screen.node.state.rules()) == 1


def test_all_files_are_checked_before_any_is_added(screen: Screen) -> None:
    good, bad = screen.file(RULE, "good.yaml"), screen.file(RULE.replace("Modality", "Modalty"), "bad.yaml")
    error = screen.fails("rules", "add", good, bad)
    assert isinstance(error, InvalidRule)
    assert str(error).endswith("bad.yaml:5:7: when.all[0].Modalty: 'Modalty' is no attribute's keyword and no fact; "
                               "did you mean Modality?")  # fmt: skip
    assert screen.node.state.rules() == []


def test_several_rules_in_one_file(screen: Screen) -> None:
    screen.run("rules", "add", screen.file(f"{RULE}---\n{RULE.replace('name: torso', 'name: other')}"))
    assert [r["name"] for r in screen.json("rules", "list")] == ["other", "torso"]


def test_a_broken_rule_in_the_database_is_listed_as_such(screen: Screen) -> None:
    screen.node.state.add_rule("old", {"name": "old", "model": "m", "when": {"Modality": {"was": "CT"}}})
    assert "broken" in screen.run("rules", "list")


def test_rules_that_are_not_there(screen: Screen) -> None:
    screen.run("rules", "add", screen.file(RULE))
    error = screen.fails("rules", "show", "torsos")
    assert isinstance(error, NotFound)
    assert "did you mean torso?" in str(error)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("0123", "0123"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("5", 5),
        ("-2.50", -2.5),
        ('"5"', "5"),
        ("truely", "truely"),
    ],
)
def test_yaml_is_read_as_it_looks(screen: Screen, written: str, read: object) -> None:
    """Through a private attribute, of which nobody knows the VR."""
    text = RULE.replace("    - Modality: CT", f'    - "(0019,10,ACME)": {written}')
    screen.run("rules", "add", screen.file(text))
    document = screen.node.state.rules()[0].document
    assert document["when"]["all"][0]["(0019,10,ACME)"]["equals"] == read
    assert parse_rule(document)
    again = screen.run("rules", "show", "torso")
    assert "is unchanged" in screen.run("rules", "add", screen.file(again))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no rule"),
        ("name: [", "rule.yaml:"),
        ("name: a\nname: b\n", "rule.yaml:2:1: name is written twice"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("- 1\n", "not a mapping"),
        ("when: !!python/object:os.system {}\n", "rule.yaml:1:7"),
        ("\x00", "rule.yaml"),
        ("name: " + "9" * 5000, "rule.yaml"),
        ("[" * 5000, "rule.yaml"),
    ],
)
def test_files_that_are_no_rules(screen: Screen, text: str, words: str) -> None:
    assert words in str(screen.fails("rules", "add", screen.file(text)))


def test_a_file_that_is_not_there(screen: Screen) -> None:
    assert "gone.yaml" in str(screen.fails("rules", "add", "gone.yaml"))


# ---------------------------------------------------------------------------------------- studies and jobs

SEG = StoredResult("SEG", "1.2.840.10008.5.1.4.1.1.66.4", "9.1", "9", "results/9.1.dcm", 12_345, "0" * 64)


@pytest.fixture
def routed(screen: Screen) -> Screen:
    """A study with a CT series that has a job, and an MR series that has none."""
    node = screen.node
    node.model()
    node.destination("pacs")
    node.rule(when={"Modality": "CT"})
    node.receive("1.1", Modality="CT", SeriesDescription="Torso 5.0")
    node.receive("1.2", Modality="MR")
    node.sweep()
    return screen


def _job(screen: Screen) -> str:
    return screen.node.state.jobs()[0].job_id


def _finished(screen: Screen) -> str:
    state = screen.node.state
    state.start_job(_job(screen))
    screen.node.clock.advance(2.5)
    state.finish_job(_job(screen), JobFinished((SEG,), {"infer": 2.0}, {"engine": "triton"}))
    return state.enqueued_deliveries[0][0]


def test_studies_and_their_series(routed: Screen) -> None:
    assert "1 CT routed" in routed.run("studies", "list")
    shown = routed.run("studies", "show", "1")
    assert "not-routed" in shown
    assert "CT1" in shown
    assert [s["state"] for s in routed.json("studies", "show", "1.2")["series"]] == ["routed", "not-routed"]
    assert len(routed.json("studies", "list")) == 1


def test_nothing_received_yet(screen: Screen) -> None:
    assert "no study yet" in screen.run("studies", "list")
    assert screen.json("studies", "list") == []
    assert isinstance(screen.fails("studies", "why", "1"), NotFound)
    assert "no job yet" in screen.run("jobs", "list")


def test_why_tells_the_story_the_reasons_and_what_to_do(routed: Screen) -> None:
    said = routed.run("studies", "why", "1")
    assert "Rule torso matched: Modality is 'CT'" in said
    assert "Rule torso did not match: Modality is 'MR', not 'CT'" in said
    assert f"Job {_job(routed)} waits for a worker" in " ".join(said.split())
    assert said.index("What happened") < said.index("The series") < said.index("What to do")
    told = routed.json("studies", "why", "1")
    kinds = [e["kind"] for e in told["story"] if e["series_instance_uid"] == "1.1"]
    assert kinds.index("series.complete") < kinds.index("series.routed") < kinds.index("job.made")
    assert len(told["next_steps"]) == 1


def test_every_way_that_a_job_ends_says_what_to_do(routed: Screen) -> None:
    state, job = routed.node.state, _job(routed)
    ways = [
        (JobFailed("model-failed", "it broke", retryable=False), f"jobs retry {job}"),
        (JobRefused("not-a-volume", "a slice is missing"), "a slice is missing"),
        (JobFailed("engine-unavailable", "Triton is down", retryable=True), "tried again by itself"),
    ]
    for outcome, words in ways:
        state.start_job(job)
        state.finish_job(job, outcome)
        assert any(words in step for step in routed.json("studies", "why", "1")["next_steps"])
        if state.job(job).state is not JobState.QUEUED:
            state.retry_job(job)


def test_a_delivery_that_waits_and_then_arrives(routed: Screen) -> None:
    delivery = _finished(routed)
    routed.node.state.start_delivery(delivery)
    routed.node.state.finish_delivery(delivery, NotDelivered("connection refused", retryable=True))
    steps = routed.json("studies", "why", "1")["next_steps"]
    assert any("destinations echo pacs" in step and "connection refused" in step for step in steps)
    assert "connection refused; attempt 2" in " ".join(routed.run("jobs", "show", _job(routed)).split())
    routed.node.state.start_delivery(delivery)
    routed.node.state.finish_delivery(delivery, Delivered("0x0000"))
    steps = routed.json("studies", "why", "1")["next_steps"]
    assert not any("pacs" in step for step in steps)


def test_jobs_are_listed_by_state_and_shown(routed: Screen) -> None:
    job = _job(routed)
    assert job[:8] in routed.run("jobs", "list", "--state", "queued")
    assert "no job is as asked for" in routed.run("jobs", "list", "--state", "failed")
    _finished(routed)
    assert "SEG queued pacs" in routed.run("jobs", "list")
    shown = routed.run("jobs", "show", job)
    for words in (
        "torso-ct 1.0.0",
        "torso revision 1",
        "infer 2.00 s",
        "engine      triton",
        "results/9.1.dcm",
        "2.50 s",
    ):
        assert words in shown
    assert routed.json("jobs", "show", job)["timings_s"] == {"infer": 2.0}
    assert [j["state"] for j in routed.json("jobs", "list")] == ["succeeded"]


def test_jobs_are_cancelled_and_retried(routed: Screen) -> None:
    state, job = routed.node.state, _job(routed)
    assert "nothing was changed" in routed.run("jobs", "cancel", job, "--dry-run")
    assert state.job(job).state is JobState.QUEUED
    routed.run("jobs", "cancel", job)
    assert state.job(job).state is JobState.CANCELLED
    assert any("jobs retry" in step for step in routed.json("studies", "why", "1")["next_steps"])
    assert routed.json("jobs", "retry", job)["was"] == "cancelled"
    assert state.job(job).state is JobState.QUEUED
    assert f"dicomnode jobs prioritise {job}" in str(routed.fails("jobs", "retry", job))
    assert isinstance(routed.fails("jobs", "show", "zzz"), NotFound)


def test_a_study_that_nobody_routed_says_what_to_change(screen: Screen) -> None:
    screen.node.receive()
    screen.node.sweep()
    told = screen.json("studies", "why", "1")
    assert told["study"]["series"][0]["why"] == "no rule exists; add one with dicomnode rules add FILE"
    assert "dicomnode rules list" in told["next_steps"][0]


def test_a_study_that_is_still_coming_in(screen: Screen) -> None:
    screen.node.receive()
    (step,) = screen.json("studies", "why", "1")["next_steps"]
    assert "still being received" in step


def test_long_reasons_are_cut_in_the_story_and_whole_under_the_series(screen: Screen) -> None:
    for number in range(12):
        screen.node.rule(f"rule-{number}", {"Modality": "MR"})
    screen.node.receive()
    screen.node.sweep()
    said = screen.run("studies", "why", "1")
    assert "…" in said
    assert said.count("Modality is 'CT', not 'MR'") >= 12


def test_times_are_shown_day_by_day(routed: Screen) -> None:
    routed.node.clock.advance(timedelta(days=2).total_seconds())
    _finished(routed)
    said = routed.run("studies", "why", "1")
    days = {f"2026-03-0{day}" for day in (1, 2, 3, 4) if f"2026-03-0{day}" in said}
    assert len(days) == 2
