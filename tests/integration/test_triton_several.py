"""Several models on one volume in the real Triton: at the same time, on shared cores, none in the way of another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicomnode.adapters.triton.client import shared_input, shared_output
from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.hosts.sharing import SharedCores
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.repository import write_self_test
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.adapters.triton.session import TritonSession
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceRequest, ModelVersion
from tests.asked import labelled
from tests.triton_models import Slow, Thresholds, axial, package

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]

SHAPE = (20, 64, 60)
GEOMETRY = axial(SHAPE, (3.0, 1.1, 1.1))
HU = Rescale(1.0, 0.0)

_VANDAL = """
import os
import sys

sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

import torch
import triton_python_backend_utils as backend
from torch.utils.dlpack import from_dlpack


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            given = from_dlpack(backend.get_input_tensor_by_name(request, "INPUT").to_dlpack())
            given.fill_(7)
            made = [backend.Tensor.from_dlpack("OUTPUT", given)]
            answers.append(backend.InferenceResponse(made))
        return answers
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "triton"


@pytest.fixture(scope="module")
def engine(home: Path) -> Iterator[TritonEngine]:
    with TritonServer(home, 2), TritonEngine(home, 2) as client:
        yield client


def stored() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-100, 200, SHAPE, dtype=np.int16)


def labels_of(session: TritonSession, model: ModelVersion) -> npt.NDArray[np.uint8]:
    with labelled(session, InferenceRequest(model, GEOMETRY, HU, timeout_s=250)) as labels:
        return labels.copy()


def test_models_compute_at_the_same_time_on_one_volume_and_share_the_cores(
    engine: TritonEngine, home: Path, tmp_path: Path
) -> None:
    """Each takes a second or more: while both do, whoever came third would have a third of the cores."""
    models = [package(tmp_path / name, Slow(), name, 2, engine="torchscript") for name in ("one", "other")]
    engine.prepare(models)
    cores, ended = SharedCores(Place(home).cache / "at-work", "who looks", 6), threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not ended.wait(0.02):
            seen.add(cores.threads)

    with engine.open(SHAPE) as session, ThreadPoolExecutor(3) as threads:
        session.volume[...] = stored()
        looking = threads.submit(look)
        try:
            together = list(threads.map(lambda model: labels_of(session, model), models))
        finally:
            ended.set()
        looking.result(30)
        assert 2 in seen, f"never both at once: {seen}"
        np.testing.assert_array_equal(session.volume, stored())
        for model, labels in zip(models, together, strict=True):
            np.testing.assert_array_equal(labels, labels_of(session, model))
    for model in models:
        assert engine.taken(model).get("host_bytes", 0.0) >= 0.0
        assert "taken" not in engine.describe(model)


def test_what_a_model_writes_into_its_input_does_not_reach_the_volume(engine: TritonEngine, home: Path) -> None:
    place = Place(home)
    name = write_self_test(place.repository)
    vandal = place.repository / "vandal"
    (vandal / "1").mkdir(parents=True)
    config = (place.repository / name / "config.pbtxt").read_text()
    (vandal / "config.pbtxt").write_text(config.replace(name, "vandal"))
    (vandal / "1" / "model.py").write_text(_VANDAL)
    client, pattern = engine._client, np.arange(1000, dtype=np.int16)
    client.load("vandal", 60.0)
    with client.shared(place.client_prefix, pattern.nbytes) as given, client.shared(place.client_prefix, 2000) as got:
        volume = given.array(pattern.shape, np.int16)
        volume[...] = pattern
        client.infer(
            "vandal", [shared_input("INPUT", pattern.shape, np.int16, given)], [shared_output("OUTPUT", got)], 60.0
        )
        assert (got.array(pattern.shape, np.int16) == 7).all(), "it wrote, into what it was given"
        np.testing.assert_array_equal(volume, pattern)


def test_a_model_that_ran_alone_uses_all_cores_again(engine: TritonEngine, home: Path, tmp_path: Path) -> None:
    model = package(tmp_path / "quick", Thresholds(), "quick", 1)
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        labels_of(session, model)
    assert SharedCores(Place(home).cache / "at-work", "who looks", 6).threads == 6
