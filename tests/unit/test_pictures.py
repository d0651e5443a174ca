"""Images that several models look at one by one: decoded once, ahead of the job, and kept while it costs little."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.domain.model_card import parse_model_card
from dicomnode.errors import CannotDecode, InferenceStopped
from dicomnode.ports import InferenceRequest, JobWork
from dicomnode.stages import pictures
from dicomnode.stages.infer import InferStage
from tests.adapters.fake_engine import FakeEngine, FakeSession, Shape
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeClock
from tests.class_models import document
from tests.unit.test_two_series import Bench, work_on

SLICES = [0, 0, 0, 1, 1, 2]  # classes of the made series, as in test_classes_job


class Engine(FakeEngine):
    """Counts what is open."""

    def __init__(self) -> None:
        super().__init__((-800.0, -600.0))
        self.opened = self.open_now = 0

    @contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[FakeSession]:
        self.opened, self.open_now = self.opened + 1, self.open_now + 1
        try:
            yield FakeSession(self, shape, further)
        finally:
            self.open_now -= 1


class Stage:
    def __init__(self, root: Path, decoded: list[int]) -> None:
        self.bench, self.engine, self.decoded = Bench(root), Engine(), decoded
        self.stage = InferStage(FakeInstanceStore(root), self.engine, FakeClock(), 60.0, keep_s=60.0)

    def work(self, number: int = 1, **card: Any) -> JobWork:
        work = work_on(self.bench, parse_model_card(document("regions", **card)))
        return replace(work, model=replace(work.model, id=number, digest=f"{number:02d}" * 32))

    def classes(self, number: int = 1) -> list[int]:
        return self.classes_of(self.work(number))

    def classes_of(self, work: JobWork) -> list[int]:
        return [int(one) for one in np.argmax(self.stage.classify(work).scores, 1)]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    decoded: list[int] = []
    read = pictures.read_frames

    def counted(stack: Any, *arguments: Any) -> None:
        decoded.append(stack.shape[0])
        read(stack, *arguments)

    monkeypatch.setattr(pictures, "read_frames", counted)
    monkeypatch.setattr("dicomnode.stages.answers.IMAGES_AT_ONCE", 2)
    made = Stage(tmp_path, decoded)
    yield made
    made.stage.close()
    assert made.engine.open_now == 0


def test_two_models_on_one_series_decode_it_once(stage: Stage) -> None:
    assert [stage.classes(number) for number in (1, 2)] == [SLICES, SLICES]
    assert (stage.engine.opened, stage.decoded) == (1, [2, 2, 2])
    assert len(stage.engine.runs) == 6  # each asked of three parts


def test_the_same_question_is_asked_once(stage: Stage) -> None:
    assert [stage.classes(), stage.classes()] == [SLICES, SLICES]
    assert len(stage.engine.runs) == 3


def test_models_that_ask_at_once_share_it(stage: Stage) -> None:
    works = [stage.work(number) for number in range(1, 5)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(stage.classes_of, works))
    assert found == [SLICES] * 4
    assert (stage.engine.opened, stage.decoded) == (1, [2, 2, 2])


@pytest.mark.parametrize("of", ["image", "series"])
def test_what_was_classified_ahead_is_there_when_the_job_begins(stage: Stage, of: str) -> None:
    work = stage.work(of=of)
    stage.stage.ahead(work)
    asked = len(stage.engine.runs)
    assert asked > 0
    assert stage.stage.classify(work).scores.shape[0] == (6 if of == "image" else 1)
    assert len(stage.engine.runs) == asked


def test_what_is_large_is_not_kept_for_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.stages.volumes.KEPT_IDLE_MOST_BYTES", 100)
    assert stage.classes(1) == SLICES
    assert stage.engine.open_now == 0
    assert stage.classes(2) == SLICES
    assert (stage.engine.opened, stage.decoded) == (2, [2, 2, 2] * 2)


def test_images_that_could_not_be_read_are_read_anew_the_next_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = pictures.read_frames

    def broken(*arguments: Any) -> None:
        raise CannotDecode("the disk has a bad day")

    monkeypatch.setattr(pictures, "read_frames", broken)
    with pytest.raises(CannotDecode):
        stage.classes()
    monkeypatch.setattr(pictures, "read_frames", sound)
    assert stage.classes() == SLICES


def test_a_cancelled_job_stops_at_the_next_part_and_the_other_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stage.work(1), stage.work(2)
    gate, reached = threading.Event(), threading.Event()
    ask = FakeSession.ask

    def gated(session: FakeSession, request: InferenceRequest) -> Any:
        if request.model.id == 1:
            reached.set()
            assert gate.wait(20)
        return ask(session, request)

    monkeypatch.setattr(FakeSession, "ask", gated)
    with ThreadPoolExecutor(1) as threads:
        cancelled = threads.submit(stage.stage.classify, first)
        assert reached.wait(20)
        first.halt.say("the job is cancelled")
        gate.set()
        assert stage.classes_of(second) == SLICES
        with pytest.raises(InferenceStopped, match="cancelled"):
            cancelled.result(20)
    assert len(stage.engine.runs) == 4  # one part of the first, three of the second
