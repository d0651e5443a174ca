"""One suite for every inference engine: the fake, the in-process one, and the real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.ports import InferenceEngine, ModelVersion, Rescale
from tests.adapters.fake_engine import FakeEngine
from tests.triton_models import Thresholds, axial, package, random_unet

SHAPE = (12, 40, 36)
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))
SPACING = {"spacing_mm": [1.5, 1.5, 2.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, ModelVersion]:
    return {
        "thresholds": package(folder / "thresholds", Thresholds(), "thresholds", 1, **SPACING),
        "unet": package(folder / "unet", random_unet(), "unet", 2, **SPACING),
    }


@pytest.fixture(scope="module", params=["fake", "in-process", pytest.param("triton", marks=pytest.mark.triton)])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[InferenceEngine]:
    if request.param == "fake":
        yield FakeEngine((53.5,))  # the middle of the card's range
    elif request.param == "in-process":
        with InProcessEngine(folder / "in-process", 2) as inside:
            yield inside
    elif find_server() is None:
        pytest.skip("there is no tritonserver here")
    else:
        with TritonServer(folder / "triton", 2), TritonEngine(folder / "triton", 2) as real:
            yield real


def stored() -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    """Two boxes, one above the threshold, in stored values of half a HU with an offset."""
    volume = np.full(SHAPE, 100, dtype=np.int16)
    volume[3:7, 10:20, 5:30] = 500
    volume[8:10, 30:38, 5:9] = 290  # 45 HU: below
    return volume


RESCALE = Rescale(0.5, -100.0)


def test_labels_lie_where_the_voxels_lie(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    with engine.open(SHAPE) as session:
        assert (session.volume.shape, session.volume.dtype) == (SHAPE, np.dtype(np.int16))
        session.volume[...] = stored()
        with session.run(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120) as labels:
            assert labels.dtype == np.uint8
            np.testing.assert_array_equal(labels, stored() == 500)


def test_one_volume_serves_several_models_and_stays_as_it_is(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        found = []
        for name in ("thresholds", "unet", "thresholds"):
            with session.run(models[name], GEOMETRY, RESCALE, timeout_s=120) as labels:
                found.append(labels.copy())
        np.testing.assert_array_equal(session.volume, stored())
        np.testing.assert_array_equal(found[0], found[2])
        assert found[1].max() <= 2


def test_sessions_may_be_open_side_by_side(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    other = (6, 20, 24)
    with engine.open(SHAPE) as first, engine.open(other) as second:
        first.volume[...], second.volume[...] = 100, 500
        with (
            first.run(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120) as low,
            second.run(models["thresholds"], axial(other, (2.0, 1.5, 1.5)), RESCALE, timeout_s=120) as high,
        ):
            assert (low.shape, int(low.max())) == (SHAPE, 0)
            assert (high.shape, int(high.min())) == (other, 1)


def test_prepared_models_say_what_runs_them(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    engine.prepare(list(models.values()))
    for model in models.values():
        assert {"engine", "precision", "device"} <= set(engine.describe(model))
    engine.prepare([models["unet"]])
    with engine.open(SHAPE) as session:  # a model that was not prepared runs all the same
        session.volume[...] = stored()
        with session.run(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120) as labels:
            assert labels.any()
