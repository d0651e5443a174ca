"""studies and jobs on the command line: filters, the story, doing again, forgetting."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from dicomnode.adapters.db.tables import JobRow, ResultRow, StudyRow
from dicomnode.cli import jobs, moments, studies
from dicomnode.cli.context import Context
from dicomnode.config import Settings
from dicomnode.domain.job import JobState, Priority
from dicomnode.domain.study import SeriesState
from dicomnode.errors import DicomNodeError, IllegalTransition, NotFound, UsageError
from dicomnode.ports import Delivered, JobFailed, NotDelivered, Quarantined
from dicomnode.stages.forget import in_words
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import ARCHIVE, SERIES, STUDY, complete, finished, instance, routed, succeeded

OTHER = f"{STUDY}.2"
EVENING = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)


class Screen:
    """A command line of 120 columns on a node without a database."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.store = FakeState(), FakeInstanceStore(folder)
        monkeypatch.setattr(moments, "now", self.state.clock.now)
        for module in ("jobs", "study_story"):
            name = "moments_now" if module == "jobs" else "now"
            monkeypatch.setattr(f"dicomnode.cli.{module}.{name}", self.state.clock.now)
        self.context = Context()
        self.context.__dict__ |= {"state": self.state, "store": self.store, "_read": (Settings(), [])}
        self.context.console = Console(width=120)

    def run(self, *words: str, status: int = 0) -> str:
        result = self._invoke(*words)
        assert result.exit_code == status, (result.output, result.exception)
        return " ".join(result.output.split())

    def json(self, *words: str) -> Any:
        result = self._invoke(*words, "--json")
        assert result.exit_code == 0, result.exception
        return json.loads(result.output)

    def lines(self, *words: str) -> list[Any]:
        result = self._invoke(*words, "--json")
        assert result.exit_code == 0, result.exception
        return [json.loads(line) for line in result.output.splitlines()]

    def lines_of(self, *words: str) -> list[str]:
        """As they are on the screen."""
        result = self._invoke(*words)
        assert result.exit_code == 0, result.exception
        return result.output.splitlines()

    def fails(self, *words: str) -> DicomNodeError:
        result = self._invoke(*words)
        assert isinstance(result.exception, DicomNodeError), result.output
        return result.exception

    def _invoke(self, *words: str) -> Result:
        self.context.json = False
        app = {"studies": studies.app, "jobs": jobs.app}[words[0]]
        return CliRunner().invoke(app, list(words[1:]), obj=self.context)

    def write(self, statement: sa.Executable) -> None:
        with self.state.engine.begin() as connection:
            connection.execute(statement)

    def steps(self) -> str:
        return " ".join(self.json("studies", "why", STUDY)["next_steps"])


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(tmp_path, monkeypatch)


def delivered(screen: Screen, job_id: str) -> None:
    for delivery in screen.state.job(job_id).deliveries:
        screen.state.start_delivery(delivery.delivery_id)
        screen.state.finish_delivery(delivery.delivery_id, Delivered("0x0000 Success"))


def failed(screen: Screen, series: str = SERIES) -> str:
    job_id = routed(screen.state, series)
    screen.state.start_job(job_id)
    screen.state.finish_job(job_id, JobFailed("model-failed", "it broke", retryable=False))
    return job_id


def late(screen: Screen, job_id: str) -> None:
    """Makes the job wait for the evening."""
    screen.write(sa.update(JobRow).where(JobRow.id == job_id).values(not_before=EVENING))


# -------------------------------------------------------------------------------------------------- filters


def test_studies_are_asked_for_by_state_rule_model_and_destination(screen: Screen) -> None:
    failed(screen)
    screen.state.record_instances([instance(1, "7.1.1", study_instance_uid="7.1")])

    def found(*options: str) -> list[str]:
        return [study["study_instance_uid"] for study in screen.json("studies", "list", *options)]

    assert found() == ["7.1", STUDY]
    assert found("--state", "receiving") == ["7.1"]
    assert found("--state", "receiving", "--state", "routed") == ["7.1", STUDY]
    assert found("--job-state", "failed") == [STUDY]
    assert found("--job-state", "failed", "--rule", "torso", "--model", "torso-ct 1.0.0") == [STUDY]
    assert found("--destination", "archive") == [STUDY]
    assert found("--destination", "archive", "--job-state", "queued") == []
    assert found("--most", "1") == ["7.1"]
    assert "no study is as asked for" in screen.run("studies", "list", "--job-state", "running")
    assert "no study yet" not in screen.run("studies", "list", "--job-state", "running")


def test_jobs_are_asked_for_by_several_states_and_a_study(screen: Screen) -> None:
    first, second = failed(screen), routed(screen.state, OTHER)
    screen.state.record_instances([instance(1, "7.1.1", study_instance_uid="7.1", accession_number="A-99")])

    def found(*options: str) -> set[str]:
        return {job["job_id"] for job in screen.json("jobs", "list", *options)}

    assert found("--state", "failed", "--state", "queued") == {first, second}
    assert found("--state", "failed") == {first}
    assert found("--study", "A-23") == {first, second}
    assert found("--study", "A-99") == set()
    assert found("--rule", "torso", "--model", "torso-ct", "--destination", "archive") == {first, second}
    assert found("--model", "torso-ct 1.0.0", "--state", "failed") == {first}
    assert "no job is as asked for" in screen.run("jobs", "list", "--state", "running")
    assert "it has no job; why: dicomnode studies why A-99" in screen.run("jobs", "list", "--study", "A-99")
    assert isinstance(screen.fails("jobs", "list", "--study", "nobody"), NotFound)


def test_times_say_how_long_ago_or_when(screen: Screen) -> None:
    routed(screen.state)
    screen.state.clock.advance(3 * 3600)
    for since, found in (("4h", 1), ("2h", 0), ("1d", 1), ("2026-03-01T11:59:59+00:00", 1), ("2026-03-02", 0)):
        assert len(screen.json("jobs", "list", "--since", since)) == found, since
        assert len(screen.json("studies", "list", "--since", since)) == found, since
        assert len(screen.json("studies", "list", "--until", since)) == 1 - found, since


@pytest.mark.parametrize("text", ["yesterday", "30", "d30", "2026-13-01", "-1h"])
def test_a_time_that_cannot_be_read_says_how_to_write_one(screen: Screen, text: str) -> None:
    assert "2026-01-31" in screen.run("jobs", "list", "--since", text, status=2)
    assert "8w" in screen.run("studies", "list", "--until", text, status=2)


def test_moments() -> None:
    assert moments.moment("", "--since") is None
    assert moments.age("90m") == timedelta(hours=1.5)
    assert moments.age("8w") == timedelta(weeks=8)
    assert moments.moment("2026-01-31T14:30+01:00", "--since") == datetime(2026, 1, 31, 13, 30, tzinfo=UTC)
    local = moments.moment("2026-01-31", "--since")
    assert local is not None
    assert local.astimezone().replace(tzinfo=None) == datetime(2026, 1, 31)
    with pytest.raises(typer.BadParameter):
        moments.age("2026-01-31")


# ------------------------------------------------------------------------------------------------------ why


def test_why_says_what_every_job_and_delivery_came_to(screen: Screen) -> None:
    screen.state.add_destination(ARCHIVE)
    job_id = succeeded(screen.state)
    delivered(screen, job_id)
    said = screen.run("studies", "why", STUDY)
    assert f"succeeded torso-ct 1.0.0 on Thorax, job {job_id[:8]}, by torso revision 1" in said
    assert "SEG to archive: sent, 0x0000 Success" in said
    told = screen.json("studies", "why", STUDY)
    assert [job["job_id"] for job in told["jobs"]] == [job_id]
    screen.write(sa.update(ResultRow).values(superseded_by="feedfacefeedface"))
    assert "superseded: the newer one is that of job feedface" in screen.run("studies", "why", STUDY)
    assert "superseded by job feedfacefeedface" in screen.run("jobs", "show", job_id)


def test_what_lies_in_quarantine_is_shown_with_its_reason(screen: Screen) -> None:
    job = routed(screen.state)
    screen.state.start_job(job)
    aside = Quarantined("SR", "PatientID differs", "/quarantine/j-SR.dcm")
    screen.state.finish_job(job, JobFailed("non-conformant", aside.words, False, (aside,)))
    expected = [{"job_id": job, "result": "SR", "reason": "PatientID differs", "place": aside.place}]
    assert screen.json("jobs", "show", job)["quarantined"] == expected
    assert screen.json("studies", "show", STUDY)["quarantined"] == expected
    assert f"in quarantine SR: PatientID differs job {job}, {aside.place}" in screen.run("studies", "show", STUDY)
    assert f"in quarantine SR: PatientID differs {aside.place}" in screen.run("jobs", "show", job)
    kinds = [event["kind"] for event in screen.json("studies", "why", STUDY)["story"]]
    assert kinds[-2:] == ["job.quarantined", "job.failed"]
    screen.run("jobs", "retry", job)  # the next attempt has nothing there yet
    assert screen.json("jobs", "show", job)["quarantined"] == []


def test_a_form_in_quarantine_keeps_no_other_result_from_being_sent(screen: Screen) -> None:
    job = routed(screen.state)
    screen.state.start_job(job)
    aside = Quarantined("PDF", "it has no page", problem="no space left")
    screen.state.finish_job(job, replace(finished(), quarantined=(aside,)))
    assert screen.json("jobs", "show", job)["state"] == "succeeded"
    assert "in quarantine PDF: it has no page it could not be kept" in screen.run("jobs", "show", job)


def test_a_result_that_is_sent_nowhere_is_told(screen: Screen) -> None:
    succeeded(screen.state, destinations=())
    said = screen.run("studies", "why", STUDY)
    assert "SEG kept here, sent nowhere" in said


def test_why_says_with_what_parameters_and_inputs_a_job_runs(screen: Screen) -> None:
    job_id = routed(screen.state)
    options = {"parameters": {"overlap": 0.5}, "objects": [], "inputs": {"pet": "1.2.3"}}
    screen.write(sa.update(JobRow).values(options=options))
    for said in (screen.run("studies", "why", STUDY), screen.run("jobs", "show", job_id)):
        assert "overlap" in said
        assert "pet: " in said
        assert "1.2.3" in said


def test_a_job_that_waits_for_the_evening_says_so_and_how_to_run_it_now(screen: Screen) -> None:
    job_id = routed(screen.state)
    late(screen, job_id)
    evening = EVENING.astimezone().strftime("%Y-%m-%d %H:%M")
    assert f"until {evening}; now instead: dicomnode jobs prioritise {job_id} high --now" in screen.steps()
    assert f"not before {evening}" in screen.run("studies", "why", STUDY).lower()
    assert "not before" in screen.run("jobs", "list")
    screen.state.clock.advance(9 * 3600)
    assert "waits for a worker" in screen.steps()
    assert "--now" not in screen.steps()


def test_a_job_that_is_tried_again_says_what_was_wrong(screen: Screen) -> None:
    job_id = routed(screen.state)
    screen.state.start_job(job_id)
    screen.state.finish_job(job_id, JobFailed("engine-unavailable", "Triton is down", retryable=True))
    assert "Triton is down); it is tried again by itself" in screen.steps()


def test_a_job_that_waits_says_for_what_wherever_it_is_asked(screen: Screen) -> None:
    job_id = routed(screen.state)
    assert "waits for a worker" in screen.run("jobs", "list")
    words = "waits for memory: needs 3.1 GB, 2.0 GB free"
    assert screen.state.hold_job(job_id, 1, words)
    assert f"has not begun yet ({words}); it does so by itself" in screen.steps()
    assert words in screen.run("jobs", "show", job_id)
    assert "waits for memory" in screen.run("jobs", "list")


def test_a_study_that_waits_says_for_what(screen: Screen) -> None:
    screen.state.record_instances([instance(1)])
    screen.state.clock.advance(1)
    assert "still being received (" in screen.steps()
    found = screen.state.complete_series(SERIES, 0)
    assert found is not None
    assert "waits to be routed" in screen.steps()
    said = {"rule": "pet", "outcome": "waits-for-study", "matches": False, "words": "rule pet waits for the study"}
    screen.state.record_routing(found, [], "rule pet waits for the study", {"rules": [said]})
    screen.write(sa.update(StudyRow).values(state="receiving"))
    assert "rule pet waits until the whole study is here (" in screen.steps()
    assert "studies rerun" not in screen.steps(), "it is not decided yet"
    screen.write(sa.update(StudyRow).values(state="complete"))
    assert "rule pet is about to be decided" in screen.steps()
    screen.write(sa.update(StudyRow).values(state="routed"))
    assert "rule pet" not in screen.steps()


def test_nothing_is_to_be_done_about_what_was_superseded(screen: Screen) -> None:
    screen.state.add_destination(ARCHIVE)
    job_id = succeeded(screen.state)
    delivery = screen.state.job(job_id).deliveries[0]
    screen.state.start_delivery(delivery.delivery_id)
    screen.state.finish_delivery(delivery.delivery_id, NotDelivered("no", retryable=False))
    assert f"jobs retry {job_id}" in screen.steps()
    screen.write(sa.update(ResultRow).values(superseded_by="feedfacefeedface"))
    assert screen.steps() == ""


def test_the_signal_of_completeness_is_told_with_what_the_others_said(screen: Screen) -> None:
    found = complete(screen.state)
    screen.state.record_routing(found, [], "no rule", {"rules": []})
    detail = {"signal": "counted", "signs": {"said": {"counted": "the PACS says 3", "quiet": "nothing came for 1 s"}}}
    told = screen.state.events(STUDY)
    screen.state.record_event(type(told[0])(told[0].at, "series.complete", "complete", STUDY, SERIES, detail=detail))
    said = screen.run("studies", "why", STUDY)
    assert "Complete because the PACS says 3" in said
    assert "nothing came for 1 s" not in said, "a lesser sign, which decided nothing"


# --------------------------------------------------------------------------------------------- doing it again


def test_a_study_is_routed_again(screen: Screen) -> None:
    routed(screen.state)
    assert "1 series of study" in screen.run("studies", "rerun", "A-23", "--dry-run")
    assert screen.state.study(STUDY).series[0].state is SeriesState.ROUTED
    assert screen.json("studies", "rerun", SERIES, "--dry-run")["series"] == [SERIES]
    done = screen.json("studies", "rerun", "A-23")
    assert (done["series"], done["dry_run"]) == ([SERIES], False)
    assert screen.state.study(STUDY).series[0].state is SeriesState.COMPLETE
    assert "nothing is routed again: it is still being received" in screen.run("studies", "rerun", "A-23")
    assert isinstance(screen.fails("studies", "rerun", "nobody"), NotFound)


def test_of_a_study_of_own_results_nothing_is_routed_again(screen: Screen) -> None:
    screen.state.record_instances([instance(1, manufacturer="dicomnode", modality="SEG")])
    assert "nothing but results" in screen.run("studies", "rerun", STUDY)


def test_a_job_is_put_first(screen: Screen) -> None:
    job_id = routed(screen.state)
    late(screen, job_id)
    assert "nothing was changed" in screen.run("jobs", "prioritise", job_id, "stat", "--dry-run")
    assert screen.state.job(job_id).priority is Priority.ROUTINE
    assert "it still waits for the hours of its rule" in screen.run("jobs", "prioritise", job_id[:12], "stat")
    assert screen.state.job(job_id).priority is Priority.STAT
    done = screen.json("jobs", "prioritise", job_id, "high", "--now")
    assert (done["was"], done["priority"]) == ("stat", "high")
    assert "still waits" not in done["message"]
    assert screen.state.job(job_id).not_before is None
    screen.state.start_job(job_id)
    assert isinstance(screen.fails("jobs", "prioritise", job_id, "stat"), IllegalTransition)
    screen.run("jobs", "prioritise", job_id, "urgent", status=2)


# ------------------------------------------------------------------------------------------------ forgetting


def filed(screen: Screen) -> None:
    """A study whose files lie in the store, with a job that failed."""
    made = []
    for number in (1, 2):
        content = f"image {number}".encode()
        spooled = screen.store.spool([content], calling_ae_title="A", called_ae_title="B")
        one = instance(number)
        stored = screen.store.file(
            spooled, study=STUDY, series=SERIES, instance=one.sop_instance_uid, sha256=one.sha256
        )
        screen.store.discard(spooled)
        made.append(instance(number, path=stored.path))
    screen.state.record_instances(made)
    screen.state.complete_series(SERIES, 0)


def test_a_study_is_forgotten_with_its_files(screen: Screen) -> None:
    filed(screen)
    assert isinstance(screen.fails("studies", "forget", "A-23"), UsageError)
    would = screen.json("studies", "forget", "A-23", "--dry-run")
    assert (would["instances"], would["sent"], would["dry_run"]) == (2, {}, True)
    assert len(screen.store.files_of(STUDY)) == 2
    done = screen.json("studies", "forget", "A-23", "--yes")
    assert (done["study_instance_uid"], done["instances"], done["files"]) == (STUDY, 2, 2)
    assert screen.store.files_of(STUDY) == []
    assert not screen.store.path(f"instances/{STUDY}").exists()
    assert isinstance(screen.fails("studies", "show", STUDY), NotFound)
    assert isinstance(screen.fails("studies", "forget", "A-23", "--yes"), NotFound)


def test_what_a_crash_left_is_removed_by_forgetting_again(screen: Screen) -> None:
    filed(screen)
    screen.state.forget_study(STUDY)
    assert len(screen.store.files_of(STUDY)) == 2
    assert "0 instances, 0 jobs, 0 results; 2 files removed" in screen.run("studies", "forget", STUDY, "--yes")
    assert screen.store.files_of(STUDY) == []


def test_files_that_belong_to_another_study_stay(screen: Screen) -> None:
    """An image that names this study, but whose series was first seen in another one."""
    screen.state.record_instances([instance(9, SERIES, study_instance_uid="7.7")])
    spooled = screen.store.spool([b"x"], calling_ae_title="A", called_ae_title="B")
    one = instance(1)
    stored = screen.store.file(spooled, study=STUDY, series=SERIES, instance=one.sop_instance_uid, sha256=one.sha256)
    screen.store.discard(spooled)
    screen.state.record_instances(
        [instance(1, path=stored.path), instance(1, OTHER, path=f"instances/{STUDY}/{OTHER}/1.dcm")]
    )
    screen.run("studies", "forget", STUDY, "--yes")
    assert screen.store.files_of(STUDY) == [stored.path]
    assert screen.state.study("7.7").series[0].instances == 2


def test_a_study_with_work_is_not_forgotten_and_says_what_to_do(screen: Screen) -> None:
    filed(screen)
    job_id = routed(screen.state, OTHER)
    for how in ("--dry-run", "--yes"):
        assert f"dicomnode jobs cancel {job_id}" in str(screen.fails("studies", "forget", STUDY, how))
    assert len(screen.store.files_of(STUDY)) == 2


def test_all_states_of_a_job_can_be_asked_for(screen: Screen) -> None:
    for state in JobState:
        assert screen.json("jobs", "list", "--state", state) == []


def test_attempts_in_a_row_are_one_line_that_says_since_when(screen: Screen) -> None:
    screen.state.add_destination(ARCHIVE)
    (seg, sr) = screen.state.job(succeeded(screen.state)).deliveries
    began = screen.state.clock.now().astimezone().strftime("%H:%M:%S")
    for attempt in range(1, 6):
        for delivery in (seg, sr):
            screen.state.start_delivery(delivery.delivery_id)
            screen.state.finish_delivery(delivery.delivery_id, NotDelivered(f"refused {attempt}", retryable=True))
        screen.state.clock.advance(60)
    told = screen.run("studies", "why", STUDY)
    happened = told.split("What to do")[0].split("The jobs")[0]
    assert happened.count("to archive: waiting:") == 2
    assert "SEG to archive: waiting: refused 5; attempt 6 in 32 s (since " + began + ")" in happened
    steps = screen.json("studies", "why", STUDY)["next_steps"]
    assert [step for step in steps if "SEG and SR did not reach archive (refused 5)" in step] == steps
    assert len([e for e in screen.json("studies", "why", STUDY)["story"] if e["kind"] == "delivery.waiting"]) == 10
    screen.state.start_delivery(seg.delivery_id)
    screen.state.finish_delivery(seg.delivery_id, Delivered("0x0000"))
    assert screen.run("studies", "why", STUDY).count("to archive: waiting:") == 2


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"series": 1, "instances": 1, "jobs": 1, "results": 0}, "1 series, 1 instance, 1 job, 0 results"),
        ({"files": 12}, "12 files"),
        ({"files": 1}, "1 file"),
    ],
)
def test_counts_in_words(counts: dict[str, int], words: str) -> None:
    assert in_words(counts) == words
