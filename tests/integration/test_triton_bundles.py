"""Bundles through the real Triton: loaded and warmed, the same labels as in the worker's own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from tests import model_bundles
from tests.integration.test_bundles import added, of_node, written

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(find_server() is None, reason="there is no tritonserver here"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TritonEngine]:
    with TritonServer(folder / "server", 2), TritonEngine(folder / "server", 2) as real:
        yield real


@pytest.fixture(scope="module")
def series(folder: Path) -> Path:
    return written(folder / "series", downwards=True)


@pytest.mark.parametrize("make", [model_bundles.spleen, model_bundles.normalised, model_bundles.scripted])
def test_a_bundle_is_prepared_and_gives_the_same_labels(
    tmp_path: Path, engine: TritonEngine, series: Path, make: model_bundles.Maker
) -> None:
    model = added(tmp_path / "store", make(tmp_path / "bundle"))
    engine.prepare([model])
    assert engine.describe(model)["chain"]
    found, _ = of_node(engine, model, [series])
    with InProcessEngine(tmp_path / "engine", 2) as inside:
        expected, _ = of_node(inside, model, [series])
    assert found.any()
    np.testing.assert_array_equal(found, expected)
