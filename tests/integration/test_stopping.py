"""A cancel and a timeout that really stop the model: with the real Triton, in a network that heeds nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from dicomnode.adapters.triton import server as server_module
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import triton_name
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.adapters.triton.shared_memory import FOLDER
from dicomnode.domain.halt import Halt
from dicomnode.errors import InferenceStopped, InferenceTimeout
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_models import Stuck, Thresholds, axial, package

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]

SHAPE = (8, 24, 20)  # one window
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))
HU = Rescale(1.0, 0.0)
BRIGHT, DIM = 200, 100  # of the card's -57 to 164: as bright as can be, and above the threshold


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def engine(home: Path) -> Iterator[TritonEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "HEALTH_EVERY_S", 0.5)  # when it looks for what the dead have left
        with TritonServer(home, 1), TritonEngine(home, 1) as client:
            yield client


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return package(tmp_path_factory.mktemp("models") / "stuck", Stuck(), "stuck", 1, engine="torchscript")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return package(tmp_path_factory.mktemp("models") / "quick", Thresholds(), "quick", 1, engine="torchscript")


def ask(
    engine: TritonEngine, model: ModelVersion, value: int, timeout_s: float = 300.0, halt: Halt | None = None
) -> npt.NDArray[np.uint8]:
    with engine.open(SHAPE) as session:
        session.volume[...] = value
        session.volume[:2] = 0
        with labelled(
            session, InferenceRequest(model, GEOMETRY, HU, timeout_s=timeout_s, halt=halt or Halt())
        ) as labels:
            return labels.copy()


def expected() -> npt.NDArray[np.uint8]:
    labels = np.ones(SHAPE, dtype=np.uint8)
    labels[:2] = 0
    return labels


def regions(home: Path) -> dict[str, int]:
    """Bytes of shared memory by name, of clients and of Triton with its models' processes."""
    place = Place(home)
    found = [p for prefix in (place.client_prefix, place.server_prefix) for p in FOLDER.glob(f"{prefix}*")]
    return {path.name: path.stat().st_size for path in found}


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def at_a_call(engine: TritonEngine, model: ModelVersion) -> psutil.Process | None:
    """The model's process, once it is at a call."""
    stub = engine._models.stubs.stub(triton_name(model))
    return psutil.Process(stub.pid) if stub is not None and stub.calls else None


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def in_its_network(engine: TritonEngine, model: ModelVersion) -> psutil.Process:
    until(lambda: at_a_call(engine, model))
    process = at_a_call(engine, model)
    assert process is not None
    before = cpu_s(process)
    until(lambda: cpu_s(process) > before + 0.3)
    return process


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_model_that_heeds_nothing_is_stopped_and_the_others_get_their_answers(
    engine: TritonEngine, home: Path, stuck: ModelVersion, quick: ModelVersion, how: str
) -> None:
    engine.prepare([stuck, quick])
    before = regions(home)
    halt = Halt()
    with ThreadPoolExecutor(3) as threads:
        given_up = threads.submit(ask, engine, stuck, BRIGHT, 300.0 if how == "cancel" else 2.0, halt)
        process = in_its_network(engine, stuck)
        behind = threads.submit(ask, engine, stuck, DIM)  # waits for the same process
        np.testing.assert_array_equal(ask(engine, quick, DIM), expected())
        if how == "cancel":
            halt.say("the job is cancelled")
        error = given_up.exception(60)
        assert isinstance(error, InferenceStopped if how == "cancel" else InferenceTimeout)
        until(lambda: not lives(process))
        np.testing.assert_array_equal(behind.result(120), expected())
    np.testing.assert_array_equal(ask(engine, quick, BRIGHT), expected())
    if how == "timeout":
        assert "stuck 1.0.0 gave no answer within 2 s" in str(error)
    until(lambda: len(regions(home)) <= len(before))  # of the client nothing, of the process that was ended nothing


def test_one_that_waits_its_turn_is_given_up_and_nobody_else_disturbed(
    engine: TritonEngine, stuck: ModelVersion
) -> None:
    """It is in no process yet: the one that is at another's call is left alone."""
    engine.prepare([stuck])
    first, second = Halt(), Halt()
    with ThreadPoolExecutor(2) as threads:
        at_it = threads.submit(ask, engine, stuck, BRIGHT, 300.0, first)
        process = in_its_network(engine, stuck)
        waits = threads.submit(ask, engine, stuck, DIM, 300.0, second)
        second.say("the job is cancelled")
        assert isinstance(waits.exception(60), InferenceStopped)
        assert lives(process)
        assert not at_it.done()
        first.say("the job is cancelled")
        assert isinstance(at_it.exception(60), InferenceStopped)
