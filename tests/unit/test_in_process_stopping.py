"""Without Triton: what a cancel and a timeout can do about a network that runs in a thread of the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.adapters.triton import in_process
from dicomnode.adapters.triton.hosts.model import Host, HostSettings
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.domain.halt import Halt
from dicomnode.errors import InferenceStopped, InferenceTimeout
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_models import Thresholds, axial, package

SHAPE = (4, 16, 16)
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))


class Gated(Host):
    """Inside its network until it is let go, whatever it is asked meanwhile."""

    inside, go = threading.Event(), threading.Event()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        self.inside.set()
        assert self.go.wait(30)
        return super().execute(requests)


@pytest.fixture
def model(tmp_path: Path) -> ModelVersion:
    return package(tmp_path / "model", Thresholds(), "thresholds", 1, engine="torchscript")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessEngine:
    def gated(backend: Any, settings: HostSettings) -> Host:
        return Gated(backend, settings)

    monkeypatch.setattr(in_process, "open_host", gated)
    Gated.inside, Gated.go = threading.Event(), threading.Event()
    return InProcessEngine(tmp_path / "engine", 1)


def ask(engine: InProcessEngine, model: ModelVersion, timeout_s: float, halt: Halt | None = None) -> int:
    with engine.open(SHAPE) as session:
        session.volume[...] = 100
        with labelled(
            session, InferenceRequest(model, GEOMETRY, Rescale(1.0, 0.0), timeout_s=timeout_s, halt=halt or Halt())
        ) as labels:
            return int(np.count_nonzero(labels))


def networks() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "network"}


def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_a_cancelled_job_ends_at_once_and_others_go_on_after_the_network(
    engine: InProcessEngine, model: ModelVersion
) -> None:
    halt = Halt()
    with ThreadPoolExecutor(2) as threads:
        cancelled = threads.submit(ask, engine, model, 30.0, halt)
        assert Gated.inside.wait(30)
        other = threads.submit(ask, engine, model, 30.0)
        halt.say("the job is cancelled")
        with pytest.raises(InferenceStopped, match="cancelled"):
            cancelled.result(30)
        assert not other.done()
        Gated.go.set()
        assert other.result(30) == np.prod(SHAPE)


def test_who_is_cancelled_while_another_computes_leaves_nothing_that_waits(
    engine: InProcessEngine, model: ModelVersion
) -> None:
    """Its volume would lie in memory until the other network is done."""
    halt, before = Halt(), networks()
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(ask, engine, model, 30.0)
        assert Gated.inside.wait(30)
        cancelled = threads.submit(ask, engine, model, 30.0, halt)
        until(lambda: len(networks() - before) == 2)
        halt.say("the job is cancelled")
        with pytest.raises(InferenceStopped, match="cancelled"):
            cancelled.result(30)
        until(lambda: len(networks() - before) == 1)
        assert not other.done()
        Gated.go.set()
        assert other.result(30) == np.prod(SHAPE)


def test_what_is_loaded_is_described_while_a_network_computes(engine: InProcessEngine, model: ModelVersion) -> None:
    """A job asks when it is done: it is not to wait for the next one's network."""
    engine.prepare([model])
    with ThreadPoolExecutor(2) as threads:
        computing = threads.submit(ask, engine, model, 30.0)
        assert Gated.inside.wait(30)
        assert threads.submit(engine.describe, model).result(20)["server"] == "in-process"
        threads.submit(engine.prepare, [model]).result(20)
        assert not computing.done()
        Gated.go.set()
        assert computing.result(30) == np.prod(SHAPE)


def test_a_timeout_ends_the_job_and_not_the_network(engine: InProcessEngine, model: ModelVersion) -> None:
    with pytest.raises(InferenceTimeout, match=r"thresholds 1\.0\.0 gave no answer within 0\.2 s"):
        ask(engine, model, 0.2)
    Gated.go.set()
    assert ask(engine, model, 30.0) == np.prod(SHAPE)


def test_who_is_cancelled_before_its_turn_never_runs(engine: InProcessEngine, model: ModelVersion) -> None:
    halt = Halt()
    halt.say("the job is cancelled")
    with pytest.raises(InferenceStopped):
        ask(engine, model, 30.0, halt)
    assert not Gated.inside.is_set()
