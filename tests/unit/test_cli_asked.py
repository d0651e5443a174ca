"""studies and jobs, asked for what is not clear, not there, not to be had or done already; and how a job is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from dicomnode.adapters.db.tables import JobRow
from dicomnode.cli import root
from dicomnode.domain.job import JOB_TRANSITIONS, JobEvent, JobState
from dicomnode.domain.job_changes import JobWish, can, why_not
from dicomnode.errors import Ambiguous, IllegalTransition, NotFound
from dicomnode.ports import JobFailed, JobFinished, NotDelivered
from tests.adapters.state_material import ARCHIVE, SERIES, STUDY, WEB, finished, instance, new_job, routed, succeeded
from tests.unit.test_cli_studies_jobs import OTHER, Screen, delivered, failed, late, screen
from tests.unit.test_cli_watching import looks, nothing

__all__ = ["looks", "screen"]

LONG = "1.2.826.0.1.3680043.8.498." + "7" * 37  # 63 characters
UID = re.compile(r"[\d.]{20,}")


def three_studies(screen: Screen) -> list[str]:
    """Of the patient P-17; the newest first."""
    for n in (1, 2, 3):
        screen.state.record_instances(
            [instance(1, f"7.{n}.1", study_instance_uid=f"7.{n}", accession_number=f"A-{n}")]
        )
        screen.state.clock.advance(60)
    return ["7.3", "7.2", "7.1"]


def placed(screen: Screen) -> None:
    """Gives every file a place that can be one of the store's."""
    screen.write(sa.text("UPDATE instance SET path = 'instances/1/2/' || id || '.dcm'"))
    screen.write(sa.text("UPDATE result SET path = 'results/1/2/' || id || '.dcm'"))


# --------------------------------------------------------------------------------------------------- several


@pytest.mark.parametrize(
    "words", [("forget", "--yes"), ("forget", "--dry-run"), ("rerun",), ("rerun", "--dry-run")], ids=" ".join
)
def test_what_changes_a_study_wants_to_know_which(screen: Screen, words: tuple[str, ...]) -> None:
    uids = three_studies(screen)
    error = screen.fails("studies", words[0], "P-17", *words[1:])
    assert isinstance(error, Ambiguous)
    assert error.exit_code == 1
    listed = [line.split("  ") for line in str(error).splitlines()[1:]]
    assert listed == [["", uid, "2026-01-02", "CT thorax"] for uid in uids]
    assert "3 studies have 'P-17'" in str(error)
    assert "by its UID" in str(error)
    assert len(screen.state.studies()) == 3
    placed(screen)
    screen.run("studies", words[0], "7.2", *words[1:])


def test_what_shows_a_study_shows_each(screen: Screen) -> None:
    uids = three_studies(screen)
    for verb in ("show", "why"):
        said = screen.run("studies", verb, "P-17")
        assert "3 studies fit P-17, newest first:" in said
        places = [said.index(f" {n} of 3 ") for n in (1, 2, 3)]
        assert places == sorted(places)
        for place, uid in zip(places, uids, strict=True):
            assert said.index(uid) < places[0], "they are listed first"
            assert said.index(uid, place) > place
    assert [s["study_instance_uid"] for s in screen.json("studies", "show", "P-17")] == uids
    assert [s["study"]["study_instance_uid"] for s in screen.json("studies", "why", "P-17")] == uids
    assert "of 3" not in screen.run("studies", "show", "A-2")
    assert screen.json("studies", "show", "A-2")["study_instance_uid"] == "7.2"


def test_of_many_studies_the_newest_are_drawn_and_all_are_listed(screen: Screen) -> None:
    for n in range(8):
        screen.state.record_instances([instance(1, f"7.{n}.1", study_instance_uid=f"7.{n}")])
    said = screen.run("studies", "show", "P-17")
    assert "8 studies fit" in said
    assert "5 of 8" in said
    assert "6 of 8" not in said
    assert "The 3 older ones are not shown" in said
    assert all(f"7.{n} " in said for n in range(8))
    assert len(screen.json("studies", "show", "P-17")) == 8


def test_several_stories_are_watched_at_once(screen: Screen, looks: Callable[..., list[float]]) -> None:
    three_studies(screen)
    looks(nothing, lambda: screen.state.complete_series("7.2.1", 0))
    told = [line["event"] for line in screen.lines("studies", "why", "P-17", "--watch") if "event" in line]
    assert {event["study_instance_uid"] for event in told} == {"7.1", "7.2", "7.3"}
    assert (told[-1]["kind"], told[-1]["study_instance_uid"]) == ("series.complete", "7.2")


def test_jobs_of_a_patient_are_those_of_each_study(screen: Screen) -> None:
    first = routed(screen.state)
    three_studies(screen)
    found = screen.state.complete_series("7.2.1", 0)
    assert found is not None
    assert [job["job_id"] for job in screen.json("jobs", "list", "--study", "P-17")] == [first]
    assert screen.json("jobs", "list", "--study", "7.2") == []


def test_a_job_of_which_too_little_is_given_is_one_of_those_listed(screen: Screen) -> None:
    ids = [routed(screen.state, f"{STUDY}.{n}") for n in range(1, 20)]
    shared = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)
    error = screen.fails("jobs", "show", shared)
    assert isinstance(error, Ambiguous)
    assert all(i in str(error) for i in ids if i[0] == shared)


# ------------------------------------------------------------------------------------------------- not there


@pytest.mark.parametrize("verb", ["show", "why", "rerun", "forget --yes", "forget --dry-run"])
def test_a_study_that_is_not_there_says_where_to_look(screen: Screen, verb: str) -> None:
    name, *options = verb.split()
    assert "dicomnode studies list" in str(screen.fails("studies", name, "nobody", *options))
    screen.state.record_instances([instance(1)])
    screen.state.forget_study(STUDY)
    error = screen.fails("studies", "show", STUDY)
    assert "was forgotten on 2026-03-01" in str(error)
    assert "dicomnode studies list" in str(error)


@pytest.mark.parametrize("words", [("show",), ("retry",), ("cancel",), ("prioritise", "stat")], ids=" ".join)
def test_a_job_that_is_not_there_says_where_to_look(screen: Screen, words: tuple[str, ...]) -> None:
    error = screen.fails("jobs", words[0], "zzzz", *words[1:])
    assert isinstance(error, NotFound)
    assert "dicomnode jobs list" in str(error)


@pytest.mark.parametrize("noun", ["studies", "jobs"])
def test_a_filter_by_a_name_that_nothing_has_says_what_there_is(screen: Screen, noun: str) -> None:
    screen.state.add_destination(ARCHIVE)
    routed(screen.state)
    for option, slip, words in (
        ("--rule", "Torzo", "no rule Torzo; did you mean torso? There are: torso (dicomnode rules list)"),
        ("--model", "torso", "no model torso; did you mean torso-ct? There are: torso-ct (dicomnode models list)"),
        ("--model", "torso-ct 9.9.9", "model torso-ct has no version 9.9.9; there are: 1.0.0"),
        ("--destination", "zzz", "no destination zzz; There are: archive (dicomnode destinations list)"),
    ):
        error = screen.fails(noun, "list", option, slip)
        assert isinstance(error, NotFound)
        assert error.exit_code == 1
        assert words.lower() in str(error).lower()


def test_a_name_that_jobs_still_bear_may_be_asked_for(screen: Screen) -> None:
    """Of a rule that was removed, and of a destination that is not there any more or never was."""
    job_id = routed(screen.state)
    screen.state.remove_rule("torso")
    for option, name in (("--rule", "torso"), ("--destination", "archive")):
        assert [job["job_id"] for job in screen.json("jobs", "list", option, name)] == [job_id]
    assert "there is none at all yet" in str(screen.fails("jobs", "list", "--destination", "web"))


@pytest.mark.parametrize("noun", ["studies", "jobs"])
def test_from_then_until_before_is_no_time(screen: Screen, noun: str) -> None:
    now = screen.state.clock.now().astimezone()
    said = screen.run(noun, "list", "--since", "2h", "--until", "4h", status=2)
    said = " ".join(said.replace("│", " ").split())
    for hours in (2, 4):
        assert f"{now - timedelta(hours=hours):%Y-%m-%d %H:%M:%S}" in said
    screen.run(noun, "list", "--since", "2026-02-01", "--until", "2026-02-01", status=2)
    screen.run(noun, "list", "--since", "4h", "--until", "2h")


# ------------------------------------------------------------------------------------------------- job states


def in_state(screen: Screen, state: JobState) -> str:
    job_id = routed(screen.state)
    if state is not JobState.QUEUED and state is not JobState.CANCELLED:
        screen.state.start_job(job_id)
    match state:
        case JobState.SUCCEEDED:
            screen.state.finish_job(job_id, finished())
        case JobState.FAILED:
            screen.state.finish_job(job_id, JobFailed("model-failed", "it broke", retryable=False))
        case JobState.CANCELLED:
            screen.state.cancel_job(job_id)
    return job_id


@pytest.mark.parametrize(
    ("verb", "state", "command"),
    [
        ("retry", JobState.QUEUED, "dicomnode jobs prioritise {job} stat --now"),
        ("retry", JobState.RUNNING, "dicomnode jobs cancel {job}"),
        ("retry", JobState.SUCCEEDED, "dicomnode studies rerun {series}"),
        ("cancel", JobState.SUCCEEDED, "dicomnode studies forget {study} --dry-run"),
        ("cancel", JobState.FAILED, "dicomnode jobs retry {job}"),
        ("cancel", JobState.CANCELLED, "dicomnode jobs retry {job}"),
        ("prioritise", JobState.RUNNING, "dicomnode jobs show {job}"),
        ("prioritise", JobState.SUCCEEDED, "dicomnode studies rerun {series}"),
        ("prioritise", JobState.FAILED, "dicomnode jobs retry {job}"),
        ("prioritise", JobState.CANCELLED, "dicomnode jobs retry {job}"),
    ],
)
def test_what_cannot_be_had_names_the_command_that_helps(
    screen: Screen, verb: str, state: JobState, command: str
) -> None:
    job = in_state(screen, state)
    words = ("jobs", verb, job, *(("stat",) if verb == "prioritise" else ()))
    error = screen.fails(*words)
    assert isinstance(error, IllegalTransition)
    assert command.format(job=job, series=SERIES, study=STUDY) in str(error)
    tried = screen.fails(*words, "--dry-run")
    assert (type(tried), str(tried)) == (type(error), str(error))
    assert screen.state.job(job).state is state


def test_a_job_whose_results_came_out_unchanged_names_the_one_that_has_them(screen: Screen) -> None:
    screen.state.add_destination(ARCHIVE)
    first = succeeded(screen.state)
    screen.state.rerun_study(STUDY)
    found = screen.state.complete_unrouted()[0]
    (again,) = screen.state.record_routing(found, [new_job(screen.state)], "again", {})
    screen.state.start_job(again)
    screen.state.finish_job(again, finished())
    for verb in ("retry", "cancel"):
        said = str(screen.fails("jobs", verb, again))
        assert f"(unchanged: the same results as job {first}); to have it done again: dicomnode studies rerun" in said


@pytest.mark.parametrize("state", JobState)
def test_every_wish_is_granted_as_the_transitions_are_or_has_words(state: JobState) -> None:
    for wish, event in ((JobWish.RETRY, JobEvent.RETRY), (JobWish.CANCEL, JobEvent.CANCEL)):
        assert can(wish, state) == ((state, event) in JOB_TRANSITIONS)
    assert can(JobWish.PRIORITISE, state) == (state is JobState.QUEUED)
    for wish in JobWish:
        if not can(wish, state):
            words = why_not(wish, state, job="J", series="1.2", study="1.1")
            assert words.startswith("job J ")
            assert "dicomnode " in words


def test_a_change_says_from_which_state_to_which(screen: Screen) -> None:
    job = failed(screen)
    assert "would go from failed to queued; nothing was changed" in screen.run("jobs", "retry", job, "--dry-run")
    assert screen.state.job(job).state is JobState.FAILED
    done = screen.json("jobs", "retry", job)
    assert (done["was"], done["state"], done["dry_run"]) == ("failed", "queued", False)
    assert f"job {job} (torso-ct 1.0.0) went from queued to cancelled" in screen.run("jobs", "cancel", job[:9])


def test_of_a_running_job_it_is_said_what_becomes_of_its_work(screen: Screen) -> None:
    job = in_state(screen, JobState.RUNNING)
    said = screen.run("jobs", "cancel", job, "--dry-run")
    assert "would go from running to cancelled; what it is doing now is stopped; nothing was changed" in said


def test_deliveries_say_from_which_state_to_which(screen: Screen) -> None:
    screen.state.add_destination(ARCHIVE)
    job = succeeded(screen.state)
    said = screen.run("jobs", "cancel", job)
    assert "went SEG to archive from queued to cancelled, SR to archive from queued to cancelled" in said
    assert [d["state"] for d in screen.json("jobs", "retry", job, "--dry-run")["deliveries"]] == ["queued", "queued"]
    assert {str(d.state) for d in screen.state.job(job).deliveries} == {"cancelled"}


def test_a_priority_that_it_has_is_no_change(screen: Screen) -> None:
    job = routed(screen.state)
    events = screen.state.events(STUDY)
    for options in ((), ("--now",), ("--dry-run",)):
        said = screen.run("jobs", "prioritise", job, "routine", *options)
        assert "has priority routine already" in said
        assert said.count("nothing was changed") == 1
    assert screen.json("jobs", "prioritise", job, "routine")["changed"] is False
    assert screen.state.events(STUDY) == events
    late(screen, job)
    would = screen.run("jobs", "prioritise", job, "routine", "--now", "--dry-run")
    assert "would go from waiting for the hours of its rule to now; nothing was changed" in would
    assert "went from priority routine to low" in screen.run("jobs", "prioritise", job, "low")


# ----------------------------------------------------------------------------------------- what stays there


def test_what_was_sent_is_said_to_stay(screen: Screen) -> None:
    for destination in (ARCHIVE, WEB):
        screen.state.add_destination(destination)
    job = succeeded(screen.state, destinations=("archive", "web"))
    for delivery in screen.state.job(job).deliveries:
        screen.state.start_delivery(delivery.delivery_id)
        if (delivery.kind, delivery.destination) == ("SR", "web"):
            screen.state.finish_delivery(delivery.delivery_id, NotDelivered("no", retryable=False))
    delivered(screen, job)
    sent = "what was sent to archive (1 SEG, 1 SR) and web (1 SEG) stays there"
    placed(screen)
    for words in (("rerun", "--dry-run"), ("forget", "--dry-run"), ("forget", "--yes")):
        assert sent in screen.run("studies", words[0], STUDY, words[1]), words
    (left,) = screen.state.events(STUDY)
    assert left.detail["sent"] == {"archive": {"SEG": 1, "SR": 1}, "web": {"SEG": 1}}


def test_a_rerun_of_one_series_speaks_of_its_results_alone(screen: Screen) -> None:
    screen.state.add_destination(ARCHIVE)
    delivered(screen, succeeded(screen.state))
    routed(screen.state, OTHER)
    assert "archive (1 SEG, 1 SR)" in screen.run("studies", "rerun", SERIES, "--dry-run")
    assert "archive" not in screen.run("studies", "rerun", OTHER, "--dry-run")
    assert screen.json("studies", "rerun", STUDY)["sent"] == {"archive": {"SEG": 1, "SR": 1}}


# ---------------------------------------------------------------------------------------------- how it looks


DETAILS = {
    "engine": {"engine": "OpenVINO 2026.4.1", "precision": "f32", "server": "triton 2.51.0"},
    "notes": [],
    "parameters": {"overlap": 0.5, "minimum_volume_ml": 2.0},
    "inputs": {"pet": LONG},
    "measurements": [
        {"segment": "Lungs", "volume_ml": 3434.396, "mean": -773.11, "unit": "HU"},
        {"segment": "Bone", "volume_ml": 0.0, "mean": None, "unit": "HU"},
    ],
    "worker_peak_bytes": 323579904,
}
TIMINGS = {"plan": 0.23, "infer": 7.12, "infer: before": 0.29, "infer: network": 6.4, "encode": 0.5}


@pytest.fixture
def done_job(screen: Screen) -> str:
    """A job with long UIDs, two inputs, parameters and all details."""
    series = f"{LONG[:-1]}1"
    screen.state.record_instances([instance(1, series, study_instance_uid=LONG)])
    (ours,) = [job_id for job_id in [routed(screen.state, f"{LONG[:-1]}2")] if job_id]
    screen.state.start_job(ours)
    result = finished("3", f"{LONG[:-1]}2").results[0]
    screen.state.finish_job(ours, JobFinished((result,), TIMINGS, DETAILS))
    options = {"parameters": {"overlap": 0.5}, "objects": [], "inputs": {"pet": LONG}}
    screen.write(sa.update(JobRow).values(options=options))
    return ours


@pytest.mark.parametrize(("terminal", "width"), [(True, 80), (False, 80), (True, 120), (True, 50), (False, 20)])
def test_a_job_is_shown_in_words_and_no_uid_is_broken(
    screen: Screen, done_job: str, terminal: bool, width: int
) -> None:
    screen.context.console = Console(width=width, force_terminal=terminal, no_color=True, color_system=None)
    lines = screen.lines_of("jobs", "show", done_job)
    shown = "\n".join(lines)
    assert not set("{}[]'") & set(shown)
    job = screen.state.job(done_job)
    for uid in (LONG, job.series_instance_uid, job.study_instance_uid, job.results[0].path):
        assert any(uid in line for line in lines), uid
    words = " ".join(shown.split())
    for said in (
        "infer 7.12 s (before 0.29 s, network 6.40 s)",
        "engine OpenVINO 2026.4.1, precision f32, server triton 2.51.0",
        "measured Lungs: 3434.396 ml, mean -773.11 HU Bone: 0 ml",
        "peak memory 323.6 MB",
        "parameters overlap: 0.5, by its rule minimum_volume_ml: 2 ml",
    ):
        assert said in words
    assert "notes" not in words
    if terminal and width >= 80:
        assert max(len(line) for line in lines if "/" not in line) <= width


def test_the_json_of_a_job_is_as_it_was(screen: Screen, done_job: str) -> None:
    told = screen.json("jobs", "show", done_job)
    assert told["details"] == DETAILS
    assert told["timings_s"] == TIMINGS
    assert told["inputs"] == {"pet": LONG}


def test_a_study_is_shown_with_the_whole_uid_of_its_series(screen: Screen) -> None:
    screen.state.record_instances([instance(1, f"{LONG[:-1]}1", study_instance_uid=LONG)])
    screen.context.console = Console(width=80, force_terminal=True, color_system=None)
    lines = screen.lines_of("studies", "show", LONG)
    assert any(line.strip() == f"{LONG[:-1]}1" for line in lines)
    assert any("CT Thorax, 1 instance from SCANNER" in line for line in lines)


def test_lists_are_not_squeezed_into_a_pipe(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    failed(screen)
    screen.write(sa.update(JobRow).values(reason="a reason of many words " * 8))
    screen.context.console = Console(width=40)
    assert any("many words a reason of many words" in line for line in screen.lines_of("jobs", "list"))
    screen.write(sa.text("UPDATE study SET description = ''"))
    assert any(f" …{STUDY[-12:]} " in line for line in screen.lines_of("studies", "list"))
    screen.write(sa.text("UPDATE study SET patient_id = '', accession_number = ''"))
    assert any(f" {STUDY} " in line for line in screen.lines_of("studies", "list"))


def test_deliveries_of_a_job_are_told_together(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    for destination in (ARCHIVE, WEB):
        screen.state.add_destination(destination)
    job = succeeded(screen.state, destinations=("archive", "web"))
    (first, *_) = screen.state.job(job).deliveries
    screen.state.start_delivery(first.delivery_id)
    said = screen.run("jobs", "list")
    assert said.count(" and ") == 1
    assert f"{first.kind} sending {first.destination}" in said


def test_a_watched_job_is_a_line_a_change(screen: Screen, looks: Callable[..., list[float]]) -> None:
    job = routed(screen.state)
    looks(nothing, lambda: screen.state.start_job(job))
    assert [told["state"] for told in screen.lines("jobs", "show", job, "--watch")] == ["queued", "running"]


def test_errors_and_answers_are_not_broken_in_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen(tmp_path, monkeypatch)
    job = routed(screen.state)
    screen.context.console = Console(width=40)
    screen.context.errors = Console(width=40, stderr=True)
    monkeypatch.setattr(root, "Context", lambda: screen.context)
    for words, status in ((["jobs", "retry", job], 1), (["jobs", "cancel", job, "--dry-run"], 0)):
        monkeypatch.setattr("sys.argv", ["dicomnode", *words])
        with pytest.raises(SystemExit) as ended:
            root.main()
        assert ended.value.code == status
    said = capsys.readouterr()
    assert said.err == (
        f"illegal-transition: job {job} is queued already; to have it run before the others: "
        f"dicomnode jobs prioritise {job} stat --now\n"
    )
    assert said.out == f"job {job} (torso-ct 1.0.0) would go from queued to cancelled; nothing was changed\n"
