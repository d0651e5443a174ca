"""A cancel and a timeout that really stop the model: with the real Triton, in a network that heeds nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
import yaml

from dicomnode.adapters.model_store import ModelStore
from dicomnode.adapters.triton import engine as engine_module
from dicomnode.adapters.triton import loaded_models
from dicomnode.adapters.triton import server as server_module
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import triton_name
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.adapters.triton.shared_memory import FOLDER
from dicomnode.domain.halt import Halt
from dicomnode.errors import InferenceStopped, InferenceTimeout, ModelHangs
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_directories import python_model
from tests.triton_models import Stuck, Thresholds, axial, document, package

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


class Hangs(torch.nn.Module):
    """Thresholds, but of no window it ever comes to an end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        burnt = torch.rand(100, 100)
        while bool(x.max() >= 0):  # of every window: intensities are clipped to 0 to 1
            burnt = torch.tanh(burnt @ burnt)
        return torch.cat([0.5 - x, x - 0.5], 1) + 0 * burnt.sum()


def triton_program(folder: Path, hangs_in: str) -> ModelVersion:
    """A program of Triton's Python backend that never comes out of one of its methods; as `models add` takes it."""
    directory = python_model(folder / f"hangs-in-{hangs_in}")
    program = directory / "1" / "model.py"
    endless = f"    def {hangs_in}(self, _):\n        while True:\n            sum(range(1000))\n"
    head, _, execute = program.read_text().partition("    def execute")
    program.write_text(head + endless + (f"\n    def execute{execute}" if hangs_in != "execute" else ""))
    config = directory / "config.pbtxt"
    config.write_text(config.read_text().replace('"thresholds"', f'"{directory.name}"'))
    whole = dict(document("x", 1))
    said = {key: whole[key] for key in ("manufacturer", "intended_use", "limits", "input", "output")}
    (folder / "card.yaml").write_text(yaml.safe_dump(said))
    card, digest, place = ModelStore(folder / "store").add(directory, folder / "card.yaml")
    return ModelVersion(1, card.name, card.version, digest, place, card, True)


def computing(model: ModelVersion) -> list[psutil.Process]:
    """Processes of the model that use a CPU now."""
    begun = {p: cpu_s(p) for p in psutil.process_iter() if runs(p, model)}
    time.sleep(0.5)
    return [p for p, before in begun.items() if lives(p) and cpu_s(p) > before + 0.2]


def runs(process: psutil.Process, model: ModelVersion) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(f"/{triton_name(model)}" in argument for argument in process.cmdline())
    return False


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


def test_a_model_that_hangs_when_it_is_warmed_is_ended_and_said_to_hang(
    engine: TritonEngine, quick: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine_module, loaded_models):
        monkeypatch.setattr(module, "LOAD_S", 12.0)
    hanging = package(tmp_path / "hanging", Hangs(), "hanging", 1, engine="torchscript")
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(engine.load, hanging)
        engine.load(quick)
        np.testing.assert_array_equal(ask(engine, quick, DIM), expected())
        error = loading.exception(120)
    assert isinstance(error, ModelHangs)
    assert str(error).startswith("not ready within 12 s: its process")
    engine.prepare([quick])
    until(lambda: computing(hanging) == [])


@pytest.mark.parametrize(
    ("where", "load_s"), [("initialize", 4.0), pytest.param("execute", 12.0, marks=pytest.mark.slow)]
)
def test_a_program_that_hangs_is_ended_with_its_network(
    engine: TritonEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, load_s: float
) -> None:
    """As a model of Triton's own, in a process beside its host's."""
    for module in (engine_module, loaded_models):
        monkeypatch.setattr(module, "LOAD_S", load_s)
    hanging = triton_program(tmp_path, where)
    with pytest.raises(ModelHangs):
        engine.load(hanging)
    engine.prepare([])
    until(lambda: computing(hanging) == [])


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
