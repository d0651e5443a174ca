"""One suite for every inference engine: the fake, the in-process one, and the real Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.domain.rules import Parameter
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion
from tests.adapters.fake_engine import FakeEngine
from tests.asked import labelled, scored
from tests.class_models import AboveHalf, classifier
from tests.triton_models import Above, Both, Thresholds, axial, package, random_unet

SHAPE = (12, 40, 36)
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))
SPACING = {"spacing_mm": [1.5, 1.5, 2.0]}
WINDOW = {"low": -57, "high": 164}
PET = {"role": "pet", "modality": ["PT"], "intensity": {"from": [0, 20000]}}
PARAMETERS = {
    "threshold": {"type": "number", "default": 0.5, "at_least": 0, "at_most": 1},
    "side": {"type": "text", "default": "above", "one_of": ["above", "below"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, ModelVersion]:
    return {
        "thresholds": package(folder / "thresholds", Thresholds(), "thresholds", 1, **SPACING),
        "unet": package(folder / "unet", random_unet(3), "unet", 2, window=[16, 16, 16], **SPACING),
        "both": package(folder / "both", Both(), "both", 1, inputs=[PET], **SPACING),
        "images": classifier(folder / "images", AboveHalf(), "images", **WINDOW),
        "series": classifier(folder / "series", AboveHalf(), "series", of="series", **WINDOW),
        "above": package(folder / "above", Above(), "above", 1, parameters=PARAMETERS, **SPACING),
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
        with labelled(session, InferenceRequest(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120)) as labels:
            assert labels.dtype == np.uint8
            np.testing.assert_array_equal(labels, stored() == 500)


def test_one_volume_serves_several_models_and_stays_as_it_is(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        found = []
        for name in ("thresholds", "unet", "thresholds"):
            with labelled(session, InferenceRequest(models[name], GEOMETRY, RESCALE, timeout_s=120)) as labels:
                found.append(labels.copy())
        np.testing.assert_array_equal(session.volume, stored())
        np.testing.assert_array_equal(found[0], found[2])
        assert found[1].max() <= 2


def test_frozen_volumes_are_read_only_and_serve_as_before(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        session.freeze()
        with pytest.raises(ValueError, match="read-only"):
            session.volume[0] = 0
        for _ in range(2):
            with labelled(
                session, InferenceRequest(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120)
            ) as labels:
                np.testing.assert_array_equal(labels, stored() == 500)


def test_sessions_may_be_open_side_by_side(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    other = (6, 20, 24)
    with engine.open(SHAPE) as first, engine.open(other) as second:
        first.volume[...], second.volume[...] = 100, 500
        with (
            labelled(first, InferenceRequest(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120)) as low,
            labelled(
                second, InferenceRequest(models["thresholds"], axial(other, (2.0, 1.5, 1.5)), RESCALE, timeout_s=120)
            ) as high,
        ):
            assert (low.shape, int(low.max())) == (SHAPE, 0)
            assert (high.shape, int(high.min())) == (other, 1)


def test_prepared_models_say_what_runs_them(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    few = [models["thresholds"], models["both"]]
    engine.prepare(few)
    for model in few:
        assert {"engine", "precision", "device"} <= set(engine.describe(model))
    engine.prepare([models["unet"]])
    with engine.open(SHAPE) as session:  # a model that was not prepared runs all the same
        session.volume[...] = stored()
        with labelled(session, InferenceRequest(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120)) as labels:
            assert labels.any()


def pet() -> tuple[np.ndarray[tuple[int, int, int], np.dtype[np.int16]], Placement]:
    """A coarser grid, turned upside down, over the middle of the CT; stored values of 2 Bq/ml with an offset."""
    shape, step = (8, 12, 14), np.array([-4.0, 3.0, 3.0])
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = step
    top = GEOMETRY.affine @ [10, 6, 5, 1]  # the first voxel's centre is that of a CT voxel
    affine[:3, 3], affine[3, 3] = top[:3], 1
    volume = np.zeros(shape, dtype=np.int16)
    volume[:3, 2:6, :] = 9000
    return volume, Placement(VolumeGeometry(shape, affine), Rescale(2.0, -50.0))


def test_two_series_reach_the_network_each_from_where_it_lies(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    hot, placement = pet()
    with engine.open(SHAPE, [placement.geometry.shape]) as session:
        session.volume[...] = stored()
        (second,) = session.further
        assert (second.shape, second.dtype) == (hot.shape, np.dtype(np.int16))
        second[...] = hot
        with labelled(
            session, InferenceRequest(models["both"], GEOMETRY, RESCALE, timeout_s=120, further=[placement])
        ) as labels:
            found = labels.copy()
        second[...] = 0
        with labelled(
            session, InferenceRequest(models["both"], GEOMETRY, RESCALE, timeout_s=120, further=[placement])
        ) as labels:
            assert not labels.any()  # dense everywhere it was, and no tracer
    # PET slices 0 to 2 are CT slices 10, 8 and 6; half way to the next one or beside the block uptake falls to 8950
    # of 20000. Rows 2 to 5 are 10 to 16, all columns 4 to 32 (half a voxel more at both ends).
    wanted = np.zeros(SHAPE, dtype=np.uint8)
    wanted[6:12, 10:17, 4:33] = 1
    wanted[stored() != 500] = 0
    np.testing.assert_array_equal(found, wanted)
    assert wanted.sum() == 7 * 25


def test_the_same_session_serves_models_of_one_and_of_two_series(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    hot, placement = pet()
    with engine.open(SHAPE, [placement.geometry.shape]) as session:
        session.volume[...] = stored()
        session.further[0][...] = hot
        with labelled(
            session, InferenceRequest(models["both"], GEOMETRY, RESCALE, timeout_s=120, further=[placement])
        ) as labels:
            two = int(labels.sum())
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        with labelled(session, InferenceRequest(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120)) as labels:
            assert int(labels.sum()) > two > 0


def test_small_parts_are_dropped_when_the_rule_says_so(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        session.volume[0, 0, 0] = 500  # 0.0045 mL
        for least, kept in ((0.0, True), (0.004, True), (0.005, False)):
            parameters = {"minimum_volume_ml": least}
            with labelled(
                session,
                InferenceRequest(models["thresholds"], GEOMETRY, RESCALE, timeout_s=120, parameters=parameters),
            ) as labels:
                assert bool(labels[0, 0, 0]) is kept
                assert labels[5, 15, 15] == 1


def test_the_networks_own_parameters_reach_it(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    if isinstance(engine, FakeEngine):
        pytest.skip("a fake network has no parameters")
    values = ((stored() * 0.5 - 100.0) + 57) / (164 + 57)
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        cases: list[tuple[dict[str, Parameter], npt.NDArray[np.bool_]]] = [
            ({}, values > 0.5),
            ({"threshold": 0.4}, values > 0.4),
            ({"threshold": 0.4, "side": "below"}, values < 0.4),
        ]
        for parameters, wanted in cases:
            with labelled(
                session, InferenceRequest(models["above"], GEOMETRY, RESCALE, timeout_s=120, parameters=parameters)
            ) as labels:
                np.testing.assert_array_equal(labels, wanted)


def test_windows_overlap_as_the_job_wants_it(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    """A network that sees borders gives other scores with other windows; what is far from them stays."""
    if isinstance(engine, FakeEngine):
        pytest.skip("a fake network has no windows")
    found = []
    with engine.open(SHAPE) as session:
        session.volume[...] = np.random.default_rng(0).integers(50, 500, SHAPE)
        for overlap in (0.25, 0.25, 0.75):
            with labelled(
                session,
                InferenceRequest(models["unet"], GEOMETRY, RESCALE, timeout_s=120, parameters={"overlap": overlap}),
            ) as labels:
                found.append(labels.copy())
    np.testing.assert_array_equal(found[0], found[1])
    differing = float((found[0] != found[2]).mean())
    assert 0 < differing < 0.2


def test_each_image_of_any_size_has_a_class_of_its_own(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    with engine.open((40, 12, 20), [(3, 30, 40)]) as session:
        session.volume[...] = np.where(np.arange(40) % 3 == 0, 500, 100)[:, None, None]
        session.further[0][...] = np.array([100, 500, 100])[:, None, None]
        first = scored(session, InferenceRequest(models["images"], None, RESCALE, timeout_s=120))
        other = scored(session, InferenceRequest(models["images"], None, RESCALE, which=1, timeout_s=120))
        some = scored(session, InferenceRequest(models["images"], None, RESCALE, images=slice(3, 9), timeout_s=120))
    np.testing.assert_array_equal(some, first[3:9])
    assert (first.shape, first.dtype) == ((40, 3), np.dtype(np.float32))
    np.testing.assert_array_equal(first.argmax(1), (np.arange(40) % 3 == 0).astype(int))
    np.testing.assert_array_equal(other.argmax(1), [0, 1, 0])
    np.testing.assert_allclose(first.sum(1), 1, atol=1e-5)


def test_a_whole_series_has_one_class(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    with engine.open(SHAPE) as session:
        for value, expected in ((100, 0), (500, 1)):
            session.volume[...] = value
            scores = scored(session, InferenceRequest(models["series"], GEOMETRY, RESCALE, timeout_s=120))
            assert (scores.shape, int(scores.argmax())) == ((1, 3), expected)


def test_models_that_give_classes_say_what_runs_them(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    engine.prepare([models["images"], models["series"]])
    for name in ("images", "series"):
        assert {"engine", "precision", "device"} <= set(engine.describe(models[name]))
