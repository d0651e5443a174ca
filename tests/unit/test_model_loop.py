"""What a worker keeps loaded: it follows the registry within moments and asks the engine only when it must."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicomnode.errors import ModelFailed
from dicomnode.node.roles import MODELS_FAILED_S, MODELS_TIDY_S, ModelLoop
from dicomnode.ports import ModelVersion
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import complete, finished, model_card, new_job


class Engine(FakeEngine):
    """Remembers what it was to prepare, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.broken = False

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        self.asked.append([model.version for model in models])
        if self.broken:
            raise ModelFailed("no such network")


class Bench:
    def __init__(self) -> None:
        self.state, self.engine, self.now_s = FakeState(), Engine(), 0.0
        self.loop = ModelLoop(self.state, self.engine, clock=lambda: self.now_s)

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
    assert bench.later() == ["1"]
    assert bench.later(MODELS_TIDY_S) == ["1"]
    bench.engine.broken = True
    assert bench.later(MODELS_TIDY_S) == ["1"]
    assert bench.later(MODELS_TIDY_S) is None
    assert bench.later(MODELS_FAILED_S) == ["1"]


def test_what_tuning_chose_is_loaded_in_place_of_what_was() -> None:
    bench = Bench()
    bench.add("1", activate=True)
    bench.later()
    bench.state.record_tuning("torso-ct", "1", {"chosen": {"engine": "openvino", "precision": "int8"}})
    assert bench.later() == ["1"]
