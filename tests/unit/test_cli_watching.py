"""`--watch` of studies and jobs: a line a change in a file, the screen drawn over on a terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

from dicomnode.cli import watch
from dicomnode.errors import NotFound
from tests.adapters.state_material import SERIES, STUDY, instance, routed
from tests.unit.test_cli_studies_jobs import OTHER, Screen, screen

__all__ = ["screen"]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Between two looks of --watch something is done, and after the last one ^C comes."""

    def go_on(*doings: Callable[[], object]) -> list[float]:
        waited: list[float] = []
        left = list(doings)

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(watch, "sleep", sleep)
        return waited

    return go_on


def nothing() -> None:
    """Nothing changes."""


def test_a_watched_list_is_a_line_a_change(screen: Screen, looks: Callable[..., list[float]]) -> None:
    first = routed(screen.state)
    waited = looks(nothing, lambda: screen.state.start_job(first), lambda: routed(screen.state, OTHER))
    told = screen.lines("jobs", "list", "--watch", "--every", "2.5")
    assert [(job["job_id"] == first, job["state"]) for job in told] == [
        (True, "queued"),
        (True, "running"),
        (False, "queued"),
    ]
    assert waited == [2.5] * 4


def test_a_watched_story_is_a_line_an_event_and_the_steps_when_they_change(
    screen: Screen, looks: Callable[..., list[float]]
) -> None:
    job_id = routed(screen.state)
    before = len(screen.state.events(STUDY))
    looks(nothing, lambda: screen.state.start_job(job_id))
    told = screen.lines("studies", "why", STUDY, "--watch")
    events = [line["event"]["kind"] for line in told if "event" in line]
    assert len(events) == before + 1
    assert events[-1] == "job.started"
    assert sum("next_steps" in line for line in told) == 2


def test_into_a_file_the_table_comes_again_when_it_changes(screen: Screen, looks: Callable[..., list[float]]) -> None:
    screen.state.record_instances([instance(1)])
    looks(nothing, nothing, lambda: screen.state.complete_series(SERIES, 0))
    said = screen.run("studies", "list", "--watch")
    assert said.count("accession") == 2
    assert said.index("1 CT receiving") < said.index("1 CT complete")


def test_on_a_terminal_the_screen_is_drawn_over(screen: Screen, looks: Callable[..., list[float]]) -> None:
    job_id = routed(screen.state)
    screen.context.console = Console(width=120, height=12, force_terminal=True)
    looks(lambda: screen.state.cancel_job(job_id))
    said = screen.run("studies", "why", STUDY, "--watch")
    assert "waits for a worker" in said
    assert "jobs retry" in said, "the end stays in sight on a small screen"
    assert "First instance of the study" not in said
    looks(nothing)
    assert job_id[:8] in screen.run("jobs", "list", "--watch")


def test_watching_what_is_not_there_fails_at_once(screen: Screen, looks: Callable[..., list[float]]) -> None:
    waited = looks()
    assert isinstance(screen.fails("studies", "why", "nobody", "--watch"), NotFound)
    assert waited == []
