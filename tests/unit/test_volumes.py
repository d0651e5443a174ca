"""Volumes that jobs share: decoded once, run through a model once, and closed when nobody needs them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dicomnode.domain.study import Series, StoredInstance
from dicomnode.errors import EngineUnavailable, InferenceTimeout, NotAVolume
from dicomnode.ports import InferenceRequest, ModelVersion
from dicomnode.stages.answers import Question
from dicomnode.stages.volumes import Volumes
from tests.adapters.fake_engine import FakeEngine, FakeSession, Shape
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeClock
from tests.made_results import CARD
from tests.made_series import classic, write

NONE: Mapping[str, Series] = {}


class Engine(FakeEngine):
    """Counts what is open; `gate` closed, a run waits."""

    def __init__(self) -> None:
        super().__init__((-800.0, -600.0))
        self.open_now, self.opened = 0, 0
        self.gate = threading.Event()
        self.gate.set()
        self.meet: threading.Barrier | None = None  # where runs wait until all are there

    @contextlib.contextmanager
    def open(self, shape: Shape, further: Sequence[Shape] = ()) -> Iterator[FakeSession]:
        self.opened, self.open_now = self.opened + 1, self.open_now + 1
        self.gate.wait(20)
        try:
            yield Session(self, shape, further)
        finally:
            self.open_now -= 1


class Session(FakeSession):
    @contextlib.contextmanager
    def ask(self, request: InferenceRequest) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        assert isinstance(self._engine, Engine)
        if self._engine.meet is not None:
            self._engine.meet.wait(20)
        with super().ask(request) as answers:
            yield answers


class Bench:
    def __init__(self, root: Path, keep_s: float = 60.0) -> None:
        self.store, self.engine = FakeInstanceStore(root), Engine()
        self.volumes = Volumes(self.store, self.engine, FakeClock(), keep_s)

    def series(self, slices: int = 4, folder: str = "a") -> Series:
        images = classic(slices)
        write(images, self.store.root / folder)
        stored = tuple(
            StoredInstance(
                str(d.SOPInstanceUID), str(d.SOPClassUID), "1.2.840.10008.1.2.1", f"{folder}/{k:03d}.dcm", k
            )
            for k, d in enumerate(images)
        )
        first = images[0]
        return Series(str(first.StudyInstanceUID), str(first.SeriesInstanceUID), "CT", "SCANNER", "NODE", stored)


def model(number: int = 1) -> ModelVersion:
    return ModelVersion(number, CARD.name, CARD.version, f"{number:02d}" * 32, Path(), CARD, active=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_two_models_one_after_the_other_share_the_volume(bench: Bench) -> None:
    series = bench.series()
    for number in (1, 2):
        with bench.volumes.open(series, NONE) as opened:
            assert not opened.labels(Question(model(number), {}, 5.0)).made_before
    assert (bench.engine.opened, len(bench.engine.runs)) == (1, 2)


def test_several_models_run_at_the_same_time_on_one_volume(bench: Bench) -> None:
    series, together = bench.series(), threading.Barrier(3)
    bench.engine.meet = together

    def ask(number: int) -> bool:
        with bench.volumes.open(series, NONE) as opened:
            return opened.labels(Question(model(number), {}, 20.0)).made_before

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(ask, range(3))) == [False] * 3
    assert (bench.engine.opened, len(bench.engine.runs)) == (1, 3)


def test_nobody_changes_the_volume_that_others_look_at(bench: Bench) -> None:
    with (
        bench.volumes.open(bench.series(), NONE) as opened,
        pytest.raises(ValueError, match="read-only"),
    ):
        opened.volume[0, 0, 0] = 7


def test_the_same_question_is_not_asked_of_the_model_twice(bench: Bench) -> None:
    series = bench.series()
    with bench.volumes.open(series, NONE) as opened:
        first = opened.labels(Question(model(), {}, 5.0))
    with bench.volumes.open(series, NONE) as opened:
        second = opened.labels(Question(model(), {}, 5.0))
        assert second.made_before
        np.testing.assert_array_equal(first.array, second.array)
        assert not opened.labels(Question(model(), {"minimum_volume_ml": 1.0}, 5.0)).made_before
    assert len(bench.engine.runs) == 2


def test_threads_that_ask_at_once_wait_for_one_answer(bench: Bench) -> None:
    series = bench.series()
    bench.engine.gate.clear()

    def ask() -> bool:
        with bench.volumes.open(series, NONE) as opened:
            return opened.labels(Question(model(), {}, 20.0)).made_before

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask) for _ in range(4)]
        bench.engine.gate.set()
        assert sorted(one.result(20) for one in asked) == [False, True, True, True]
    assert (bench.engine.opened, len(bench.engine.runs)) == (1, 1)


def test_one_that_waits_for_another_has_its_own_patience(bench: Bench) -> None:
    series = bench.series()
    bench.engine.gate.clear()
    with ThreadPoolExecutor(1) as threads, bench.volumes.open(series, NONE) as opened:
        other = threads.submit(opened.labels, Question(model(), {}, 20.0))
        while not opened._labels._making:
            pass
        with pytest.raises(InferenceTimeout, match="to another job"):
            opened.labels(Question(model(), {}, 0.01))
        bench.engine.gate.set()
        other.result(20)


def test_a_failure_is_not_kept(bench: Bench) -> None:
    bench.engine.failures = [EngineUnavailable("gone for a moment")]
    with bench.volumes.open(bench.series(), NONE) as opened:
        with pytest.raises(EngineUnavailable):
            opened.labels(Question(model(), {}, 5.0))
        assert not opened.labels(Question(model(), {}, 5.0)).made_before


def test_who_waited_for_one_that_failed_tries_by_itself(bench: Bench) -> None:
    series = bench.series()
    bench.engine.gate.clear()
    bench.engine.failures = [EngineUnavailable("gone for a moment")]
    with ThreadPoolExecutor(2) as threads, bench.volumes.open(series, NONE) as opened:
        asked = [threads.submit(opened.labels, Question(model(), {}, 20.0)) for _ in range(2)]
        bench.engine.gate.set()
        outcomes = [one.exception(20) or one.result() for one in asked]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["EngineUnavailable", "Labels"]


def test_one_more_image_is_another_volume(bench: Bench) -> None:
    for slices in (4, 5):
        with bench.volumes.open(bench.series(slices), NONE) as opened:
            assert opened.labels(Question(model(), {}, 5.0)).array.shape[0] == slices
    assert bench.engine.opened == 2


def test_another_series_makes_room(bench: Bench) -> None:
    with bench.volumes.open(bench.series(), NONE) as opened:
        opened.labels(Question(model(), {}, 5.0))
    assert bench.engine.open_now == 1, "kept for the next job"
    with bench.volumes.open(bench.series(5, "b"), NONE):
        assert bench.engine.open_now == 0


def test_what_is_in_use_stays_open(bench: Bench) -> None:
    with bench.volumes.open(bench.series(), NONE) as opened:
        opened.labels(Question(model(), {}, 5.0))
        with bench.volumes.open(bench.series(5, "b"), NONE) as other:
            other.labels(Question(model(), {}, 5.0))
            assert bench.engine.open_now == 2
        bench.volumes.close()
        assert bench.engine.open_now == 1
    bench.volumes.close()
    assert bench.engine.open_now == 0


def test_nothing_is_kept_after_its_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep_s=0.0)
    with bench.volumes.open(bench.series(), NONE) as opened:
        opened.labels(Question(model(), {}, 5.0))
    assert (bench.engine.open_now, bench.volumes._kept) == (0, {})


def test_what_cannot_be_opened_is_not_kept(bench: Bench) -> None:
    with pytest.raises(NotAVolume), bench.volumes.open(bench.series(1), NONE):
        pass
    assert bench.volumes._kept == {}
