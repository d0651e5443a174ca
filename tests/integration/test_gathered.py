"""Several requests of single images, gathered by Triton: each gets what it would have got alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion
from tests.asked import scored
from tests.class_models import Brightness, classifier

pytestmark = [pytest.mark.triton, pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here")]

CLOSE = 1e-5


def images(number: int) -> npt.NDArray[np.int16]:
    """(image, row, column) int16: each request's images are its own, in number and size."""
    shape = (1 + 7 * (number % 5), 20 + number, 30)
    return np.random.default_rng(number).integers(0, 1000, shape).astype(np.int16)


def ask(engine: InferenceEngine, model: ModelVersion, number: int) -> npt.NDArray[np.float32]:
    given = images(number)
    slices, rows, columns = given.shape
    with engine.open((slices, rows, columns)) as session:
        session.volume[...] = given
        return scored(session, InferenceRequest(model, None, Rescale(1.0, 0.0), timeout_s=120.0))


def test_each_request_gets_its_own_scores(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", Brightness(), "brightness", scores="logits")
    with InProcessEngine(tmp_path / "inside", 1) as inside:
        expected = [ask(inside, model, number) for number in range(24)]
    with TritonServer(tmp_path / "triton", 1), TritonEngine(tmp_path / "triton", 1) as engine:
        engine.prepare([model])
        with ThreadPoolExecutor(12) as threads:
            found = list(threads.map(lambda number: ask(engine, model, number), range(24)))
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == wanted.shape
        assert float(np.abs(got - wanted).max()) <= CLOSE
    assert len({one.tobytes() for one in expected}) == 24
