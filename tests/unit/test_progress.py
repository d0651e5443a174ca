"""What a command does now is shown on a terminal, and nowhere else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from dicomnode import bootstrap
from dicomnode.cli.context import Context
from dicomnode.cli.progress import working
from dicomnode.config import Settings
from dicomnode.domain.acceptance import AcceptanceOutcome
from dicomnode.stages.accept import AcceptStage, synthetic_volumes
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeClock
from tests.made_results import CARD
from tests.unit.test_golden import package as package
from tests.unit.test_golden import version


def context(*, terminal: bool, json: bool = False) -> Context:
    made = Context()
    made.json = json
    made.errors = Console(file=io.StringIO(), force_terminal=terminal, width=60)
    return made


def shown(made: Context) -> str:
    text: str = made.errors.file.getvalue()  # type: ignore[attr-defined]
    return text


def work(made: Context) -> None:
    with working(made, "opens [the network]") as told:
        told("golden case 2 of 3 on openvino f32")


def test_a_terminal_shows_each_thing_as_it_is_told_and_nothing_of_it_stays() -> None:
    work(made := context(terminal=True))
    text = shown(made)
    assert text.index("opens [the network]") < text.index("golden case 2 of 3 on openvino f32")
    assert text.endswith("\x1b[2K")  # the line is wiped


def test_it_is_gone_when_the_work_fails() -> None:
    made = context(terminal=True)
    with pytest.raises(ValueError, match="bad"), working(made, "opens it"):
        raise ValueError("bad")
    assert shown(made).endswith("\x1b[2K")


def test_it_keeps_to_one_line() -> None:
    made = context(terminal=True)
    with working(made, "runs golden case 1 of 3 (a name that is longer than the line) of torso-ct 1.0.0"):
        pass
    assert "runs golden case 1 of 3" in shown(made)
    assert "torso-ct" not in shown(made)


@pytest.mark.parametrize("json", [False, True])
def test_a_pipe_gets_nothing(json: bool) -> None:
    work(made := context(terminal=False, json=json))
    assert shown(made) == ""


def test_with_json_a_terminal_gets_nothing_either() -> None:
    work(made := context(terminal=True, json=True))
    assert shown(made) == ""


def test_acceptance_tells_what_it_does(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def at_hand(_: Settings) -> Iterator[FakeEngine]:
        yield FakeEngine()

    monkeypatch.setattr(bootstrap, "engine_at_hand", at_hand)
    model, told = version(package), list[str]()
    assert bootstrap.accept(Settings(), model, {}, told.append).outcome is AcceptanceOutcome.PASSED
    name = f"{CARD.name} {CARD.version}"
    assert told == [f"loads {name}", f"runs golden case 1 of 1 (a) of {name} on thresholds f32"]


def test_timing_tells_each_run(package: Path) -> None:
    told: list[str] = []
    stage, model = AcceptStage(FakeEngine(), FakeClock(), 60.0, told=told.append), version(package)
    stage.medians_s(model, synthetic_volumes(model), 2)
    assert told[1:] == ["times run 1 of 2", "times run 2 of 2"]
