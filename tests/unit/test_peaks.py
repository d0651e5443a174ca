"""What models took of memory outlasts the worker that saw it, for each version, machine and engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.admission import Extent
from dicomnode.errors import EngineUnavailable
from dicomnode.ports import JobFinished, JobWork, ModelVersion
from dicomnode.stages.admission import InTurn
from dicomnode.stages.peaks import KeptPeaks
from tests.adapters.fake_engine import FakeEngine
from tests.adapters.fake_machine import FakeMachine
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import model_card, routed


class Engine(FakeEngine):
    on = "thresholds"
    is_away = False

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        if self.is_away:
            raise EngineUnavailable("away")
        return {**super().describe(model), "engine": self.on}


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
def work(state: FakeState) -> JobWork:
    found = state.waiting_job(routed(state), 1)
    assert found is not None
    return found


def test_another_worker_of_the_machine_knows_what_the_first_learned(state: FakeState, work: JobWork) -> None:
    engine = Engine()
    KeptPeaks(state, engine, "a").learn(work.model, {"host_bytes": 3e9}, 1000)
    again = KeptPeaks(state, engine, "a")
    assert again.of(work.model) == ({"host_bytes": 3e9}, 1000)
    assert KeptPeaks(state, engine, "b").of(work.model) is None
    engine.on = "OpenVINO"
    assert again.of(work.model) is None
    engine.is_away = True
    assert again.of(work.model) is None
    again.learn(work.model, {"host_bytes": 1.0}, 1)  # of an engine that nobody knows
    engine.is_away, engine.on = False, "thresholds"
    assert again.of(work.model) == ({"host_bytes": 3e9}, 1000)


def test_what_is_nearly_the_same_is_not_written_again(state: FakeState, work: JobWork) -> None:
    written, keep = list[float](), state.record_peak

    def record(digest: str, host: str, engine: str, memory: Mapping[str, float], voxels: int) -> None:
        written.append(memory["host_bytes"])
        keep(digest, host, engine, memory, voxels)

    state.record_peak = record  # type: ignore[method-assign]
    peaks = KeptPeaks(state, Engine(), "a")
    for size, voxels in ((3e9, 1000), (3.01e9, 1000), (2.99e9, 1010), (3.5e9, 1000), (3.5e9, 2000)):
        peaks.learn(work.model, {"host_bytes": size}, voxels)
    assert written == [3e9, 3.5e9, 3.5e9]
    assert KeptPeaks(state, Engine(), "a").of(work.model) == ({"host_bytes": 3.5e9}, 2000)


def test_of_a_composed_job_every_model_is_learned(state: FakeState, work: JobWork) -> None:
    first = state.add_model(model_card("body"), "b" * 64, work.model.path)
    engine = Engine()
    engine.runs = ["torso-ct", "body"]
    turns = InTurn(1, FakeMachine(), lambda job: (Extent(1000),), taken=engine.taken)
    turns.peaks = KeptPeaks(state, engine, "a")
    turns.ended(replace(work, before={"body": first}), JobFinished(()))
    later = KeptPeaks(state, engine, "a")
    assert (later.of(first), later.of(work.model)) == (({"host_bytes": 1e6}, 1000),) * 2


def test_a_version_that_is_gone_leaves_nothing_behind(state: FakeState) -> None:
    model = state.add_model(model_card("body"), "b" * 64, Path("/models/body"))
    peaks = KeptPeaks(state, Engine(), "a")
    peaks.learn(model, {"host_bytes": 1e9}, 10)
    state.deactivate_model("body")
    state.remove_model("body", "1.0.0")
    assert KeptPeaks(state, Engine(), "a").of(model) is None
    KeptPeaks(state, Engine(), "a").learn(model, {"host_bytes": 2e9}, 10)
    assert state.peak(model.digest, "a", "thresholds f32") is None
