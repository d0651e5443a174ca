"""What a worker keeps loaded: it follows the registry within moments and asks the engine only when it must."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from dicomnode.errors import InferenceError, InferenceTimeout, ModelFailed, ModelHangs
from dicomnode.node.model_loop import FAILED_S, TIDY_S, ModelLoop
from dicomnode.ports import ModelVersion
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import complete, finished, model_card, new_job


class Engine(FakeEngine):
    """Remembers what it was to prepare, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.loaded: list[str] = []
        self.broken: dict[str, InferenceError] = {}
        self.let_go = threading.Event()  # of version "slow"

    def load(self, model: ModelVersion) -> None:
        self.loaded.append(model.version)
        if model.version == "slow":
            assert self.let_go.wait(30)
        if model.version in self.broken:
            raise self.broken[model.version]

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        self.asked.append([model.version for model in models])


class Trial:
    """Golden cases pass."""

    def __init__(self) -> None:
        self.coming: set[str] = set()
        self.hanging: dict[str, str] = {}

    def begins(self, model: ModelVersion) -> None:
        self.coming.add(model.version)

    def ends(self, model: ModelVersion) -> None:
        self.coming.remove(model.version)

    def try_one(self, model: ModelVersion) -> None:
        assert model.version in self.coming

    def hangs(self, model: ModelVersion, why: str) -> None:
        self.hanging[model.version] = why

    def refuses(self, model: ModelVersion) -> str:
        return self.hanging.get(model.version, "")


class Bench:
    def __init__(self, patience_s: float = 30.0) -> None:
        self.state, self.engine, self.now_s = FakeState(), Engine(), 0.0
        self.trial, self.said = Trial(), dict[str, str]()
        self.loop = ModelLoop(
            self.state, self.engine, self.trial, self.say, clock=lambda: self.now_s, patience_s=patience_s
        )

    def say(self, troubles: Mapping[str, str]) -> None:
        self.said = dict(troubles)

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(3000):
            if condition():
                return
            time.sleep(0.01)
        pytest.fail("it did not come about")

    def add(self, version: str, *, activate: bool = False) -> None:
        self.state.add_model(model_card(version=version), version * 64, Path("/m"), activate=activate)

    def later(self, seconds: float = 0.1) -> list[str] | None:
        """What the engine was asked for, if it was."""
        self.now_s += seconds
        before = len(self.engine.asked)
        self.loop.prepare()
        return self.engine.asked[-1] if len(self.engine.asked) > before else None


def test_it_follows_what_is_active_or_a_shadow() -> None:
    bench = Bench()
    assert bench.later() == []
    bench.add("1", activate=True)
    bench.add("2")
    assert bench.later() == ["1"]
    assert bench.later() is None
    bench.state.shadow_model("torso-ct", "2")
    assert bench.later() == ["1", "2"]
    bench.state.activate_model("torso-ct", "2")
    assert bench.later() == ["2"]


def test_a_version_stays_while_jobs_of_it_wait_or_run() -> None:
    bench = Bench()
    (job_id,) = bench.state.record_routing(complete(bench.state), [new_job(bench.state, version="1")], "so", {})
    bench.add("2", activate=True)
    assert bench.later() == ["1", "2"]
    bench.state.start_job(job_id)
    assert bench.later() is None
    bench.state.finish_job(job_id, finished())
    assert bench.later() == ["2"]


def test_the_engine_is_asked_again_now_and_then_and_later_after_a_failure() -> None:
    bench = Bench()
    bench.add("1", activate=True)
    bench.add("2")
    bench.state.shadow_model("torso-ct", "2")
    bench.engine.broken["2"] = ModelFailed("no such network")
    assert bench.later() == ["1"]
    assert bench.said == {"torso-ct 2": "no such network"}
    assert bench.later(TIDY_S) is None
    assert bench.later(FAILED_S) == ["1"]
    bench.engine.broken.clear()
    assert bench.later(FAILED_S) == ["1", "2"]
    assert bench.said == {}
    assert bench.later(TIDY_S) == ["1", "2"]
    assert bench.engine.loaded == ["1", "2", "2", "2"]  # what is up is not loaded again


def test_one_that_takes_long_keeps_no_other_from_coming_up() -> None:
    bench = Bench(patience_s=0.0)
    bench.add("slow", activate=True)
    bench.add("2")
    bench.state.shadow_model("torso-ct", "2")
    bench.until(lambda: bench.later(FAILED_S) == ["2"])
    assert bench.said["torso-ct slow"].startswith("it is being loaded, since ")
    assert bench.trial.coming == {"slow"}
    bench.engine.let_go.set()
    bench.until(lambda: bench.later() == ["slow", "2"])
    assert (bench.said, bench.trial.coming) == ({}, set())
    assert bench.engine.loaded.count("slow") == 1


@pytest.mark.parametrize("error", [ModelHangs("it hangs"), InferenceTimeout("it hangs")])
def test_one_that_hangs_is_not_served_and_not_tried_again(error: InferenceError) -> None:
    bench = Bench()
    bench.add("1", activate=True)
    bench.engine.broken["1"] = error
    assert bench.later() == []
    assert bench.said == {"torso-ct 1": "it hangs"}
    assert bench.later(FAILED_S) == []
    assert bench.engine.loaded == ["1"]
    bench.trial.hanging.clear()  # somebody has tried it again
    bench.engine.broken.clear()
    assert bench.later(FAILED_S) == ["1"]
    assert bench.said == {}


def test_what_tuning_chose_is_loaded_in_place_of_what_was() -> None:
    bench = Bench()
    bench.add("1", activate=True)
    bench.later()
    bench.state.record_tuning("torso-ct", "1", {"chosen": {"engine": "openvino", "precision": "int8"}})
    assert bench.later() == ["1"]
