"""One suite of what models may give beside labels and classes, on every inference engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.in_process import InProcessEngine
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.server import TritonServer
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion
from tests import made_series
from tests.adapters.fake_engine import FakeEngine
from tests.output_cards import OUTPUTS, output_package

SHAPE = (12, 40, 36)
RESCALE = Rescale(0.5, -100.0)
# Slices from the top down, and no axis along one of the patient's
_ROW, _COLUMN = np.array(made_series.OBLIQUE[:3]), np.array(made_series.OBLIQUE[3:])
_AFFINE = np.eye(4)
_AFFINE[:3] = np.column_stack([-2.0 * np.cross(_ROW, _COLUMN), 1.5 * _COLUMN, 1.5 * _ROW, [-40.0, 12.5, 300.25]])
OBLIQUE = VolumeGeometry(SHAPE, _AFFINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, ModelVersion]:
    return {name: output_package(folder, name) for name in OUTPUTS}


@pytest.fixture(scope="module", params=["fake", "in-process", pytest.param("triton", marks=pytest.mark.triton)])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[InferenceEngine]:
    if request.param == "fake":
        yield FakeEngine((53.5, 133.5))
    elif request.param == "in-process":
        with InProcessEngine(folder / "in-process", 2) as inside:
            yield inside
    elif find_server() is None:
        pytest.skip("there is no tritonserver here")
    else:
        with TritonServer(folder / "triton", 2), TritonEngine(folder / "triton", 2) as real:
            yield real


def stored() -> npt.NDArray[np.int16]:
    """-50 HU with two boxes in each other of 110 and 150 HU."""
    volume = np.full(SHAPE, 100, dtype=np.int16)
    volume[3:7, 10:20, 5:30] = 420
    volume[4:6, 12:15, 8:20] = 500
    return volume


def asked(
    engine: InferenceEngine, model: ModelVersion, geometry: VolumeGeometry | None = OBLIQUE, **how: Any
) -> dict[str, npt.NDArray[Any]]:
    with engine.open(SHAPE) as session:
        session.volume[...] = how.pop("volume", stored())
        with session.ask(InferenceRequest(model, geometry, RESCALE, timeout_s=120, **how)) as answers:
            return {name: array.copy() for name, array in answers.items()}


def image(shape: tuple[int, int]) -> npt.NDArray[np.int16]:
    """(row, column), -50 with a box of 110 that is nowhere near its middle, and one of 150 in that."""
    rows, columns = shape
    plane = np.full(shape, 100, dtype=np.int16)
    plane[rows // 5 : rows // 2, columns // 2 : columns * 9 // 10] = 420
    plane[rows // 4 : rows // 3, columns * 3 // 5 : columns * 4 // 5] = 500
    return plane


def expected(plane: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    return (np.where(plane > 466, 2, np.where(plane > 307, 1, 0))).astype(np.uint8)


@pytest.mark.parametrize("spaced", [False, True], ids=["fitted", "in windows"])
def test_masks_of_images_lie_on_the_images_own_pixels(engine: InferenceEngine, folder: Path, spaced: bool) -> None:
    """Larger than the network takes, and with pixels that are not square where they are looked at by mm."""
    shape = (2, 61, 45)
    given = {"size": [32, 24], **({"pixel_spacing_mm": [0.5, 0.5]} if spaced else {})}
    model = output_package(folder / f"spaced-{spaced}", "masks-on-images", input=given)
    planes = np.stack([image((61, 45)), image((61, 45))[::-1]])
    geometry = VolumeGeometry((1, 61, 45), np.diag([1.0, 0.5, 1.0, 1.0])) if spaced else None
    with engine.open((1, 8, 8), [shape]) as session:
        session.further[0][...] = planes
        asked_of = InferenceRequest(model, geometry, RESCALE, which=1, timeout_s=120, images=slice(1, 2))
        with session.ask(asked_of) as answers:
            found = {name: array.copy() for name, array in answers.items()}
    assert set(found) == {"LABELMAP"}
    labels = found["LABELMAP"]
    assert (labels.shape, labels.dtype) == ((1, 61, 45), np.dtype(np.uint8))
    wanted = expected(planes[1])
    wrong = np.argwhere(labels[0] != wanted)
    # a pixel of the network's is two of the image's at most: what is wrong is beside an edge
    edges = np.zeros_like(wanted, dtype=bool)
    for axis in (0, 1):
        for step in (1, -1, 2, -2):
            edges |= np.roll(wanted, step, axis) != wanted
    assert all(edges[row, column] for row, column in wrong), wrong
    assert len(wrong) < 0.12 * wanted.size


def test_probabilities_and_overlapping_masks_of_images(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    planes = np.stack([image(SHAPE[1:])] * SHAPE[0])
    both = asked(engine, models["both-on-images"], None, volume=planes)
    assert both["LABELMAP"].shape == SHAPE
    assert both["PROBABILITIES"].shape == (2, *SHAPE)
    overlap = asked(engine, models["overlap-on-images"], None, volume=planes)
    assert set(overlap) == {"PROBABILITIES"}
    first, second = overlap["PROBABILITIES"][:, 0] >= 128
    assert first.sum() > second.sum() > 0
    assert not (second & ~first).any()  # what is brightest is of both


def test_numbers_of_a_series_and_of_each_image(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    found = asked(engine, models["numbers"])["SCORES"]
    assert (found.shape, found.dtype) == ((1, 2), np.dtype(np.float32))
    np.testing.assert_allclose(found[0, 0], 150, atol=0.01)
    of_images = asked(engine, models["numbers-of-images"], None, images=slice(2, 6))["SCORES"]
    assert of_images.shape == (4, 2)
    np.testing.assert_allclose(of_images[[0, 1], 0], [-50, 110], atol=0.01)


def test_masks_may_overlap(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    found = asked(engine, models["overlap"])
    assert set(found) == {"PROBABILITIES"}
    probabilities = found["PROBABILITIES"]
    assert (probabilities.shape, probabilities.dtype) == ((2, *SHAPE), np.dtype(np.uint8))
    np.testing.assert_array_equal(probabilities[0] >= 128, stored() >= 420)
    np.testing.assert_array_equal(probabilities[1] >= 128, stored() == 500)


def test_probabilities_come_with_labels(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    found = asked(engine, models["both"])
    wanted = (stored() >= 420).astype(np.uint8) + (stored() == 500)
    np.testing.assert_array_equal(found["LABELMAP"], wanted)
    np.testing.assert_array_equal(found["PROBABILITIES"][1] >= 128, wanted == 2)


def test_a_map_has_the_values_where_they_lie(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    found = asked(engine, models["map"])["MAP"]
    assert (found.shape, found.dtype) == (SHAPE, np.dtype(np.float32))
    np.testing.assert_allclose(found, stored() * 0.5 - 100, atol=0.01)


def test_a_box_lies_in_the_patient(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    """Obliquely, with slices from the top down: what the box holds is what is bright, voxel for voxel."""
    (found,) = asked(engine, models["boxes"])["BOXES"]
    centre, halves, score, number = found[:3], found[3:12].reshape(3, 3), found[12], found[13]
    assert (score >= 0.5, number) == (True, 0)
    places = OBLIQUE.affine[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + OBLIQUE.affine[:3, 3:]
    along = (halves @ (places - centre[:, None])) / (halves**2).sum(1)[:, None]
    inside = (np.abs(along) <= 1).all(0).reshape(SHAPE)
    np.testing.assert_array_equal(inside, stored() >= 420)
    sides = sorted(2 * np.linalg.norm(halves, axis=1))
    np.testing.assert_allclose(sides, [8.0, 15.0, 37.5], atol=0.01)


def test_nothing_found_is_no_box(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    nothing = asked(engine, models["boxes"], volume=np.full(SHAPE, 100, np.int16))["BOXES"]
    assert nothing.shape == (0, 14)
    unsure = asked(engine, models["boxes"], parameters={"score_least": 0.99})["BOXES"]
    assert unsure.shape == (0, 14)
    on_images = asked(engine, models["boxes-on-images"], None, images=slice(0, 2))["BOXES"]
    assert on_images.shape == (0, 7)


def test_boxes_on_images_are_in_their_pixels(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    """As near as a coarser image can tell."""
    found = asked(engine, models["boxes-on-images"], None, images=slice(2, 5))["BOXES"]
    assert found[:, 0].tolist() == [1, 2]
    np.testing.assert_allclose(found[0, 1:5], [5, 10, 30, 20], atol=3)
    assert (found[:, 5] >= 0.5).all()
    assert (found[:, 6] == 0).all()


def test_small_parts_are_dropped_from_masks_that_overlap(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    if isinstance(engine, FakeEngine):
        pytest.skip("the fake drops parts of labels alone")
    volume = stored()
    volume[0, 0, 0] = 500  # 0.0045 mL
    for least, kept in ((0.004, True), (0.005, False)):
        parameters = {"minimum_volume_ml": least}
        found = asked(engine, models["overlap"], volume=volume, parameters=parameters)["PROBABILITIES"]
        assert [bool(one[0, 0, 0] >= 128) for one in found] == [kept, kept]
        assert found[1, 4, 13, 10] >= 128
        both = asked(engine, models["both"], volume=volume, parameters=parameters)
        assert bool(both["LABELMAP"][0, 0, 0]) is kept
        assert bool(both["PROBABILITIES"][1, 0, 0, 0]) is kept


def test_every_kind_says_what_runs_it(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    engine.prepare(list(models.values()))
    for model in models.values():
        assert {"engine", "precision", "device"} <= set(engine.describe(model))
