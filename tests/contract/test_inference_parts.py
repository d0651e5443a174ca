"""A box of a volume given to a model by itself: what every inference engine does with it."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.imaging.box import Box, geometry_of_part
from dicomnode.imaging.geometry import Placement, VolumeGeometry
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion
from tests.asked import labelled, scored
from tests.contract.test_inference_engine import GEOMETRY, RESCALE, SHAPE, engine, folder, models, stored

__all__ = ["engine", "folder", "models"]

WHOLE_SLICES = Box((2, 0, 0), (9, 40, 36))
INNER = Box((2, 8, 3), (9, 36, 32))
ONE_VOXEL = Box((4, 12, 7), (5, 13, 8))
TILTED = VolumeGeometry(SHAPE, GEOMETRY.affine + np.eye(4, k=-1) * [0.7, 0, 0, 0])


@pytest.mark.parametrize("box", [WHOLE_SLICES, INNER, ONE_VOXEL])
@pytest.mark.parametrize("geometry", [GEOMETRY, TILTED])
def test_a_part_gives_what_a_volume_of_its_own_gives(
    engine: InferenceEngine, models: dict[str, ModelVersion], box: Box, geometry: VolumeGeometry
) -> None:
    rng, place = np.random.default_rng(4), geometry_of_part(geometry, box)
    values = rng.integers(0, 500, SHAPE, dtype=np.int16)
    model = models["unet"]
    with engine.open(SHAPE) as session, engine.open(box.shape) as alone:
        session.volume[...], alone.volume[...] = values, values[box.slices]
        with (
            session.part(box) as part,
            labelled(part, InferenceRequest(model, place, RESCALE, timeout_s=120)) as labels,
            labelled(alone, InferenceRequest(model, place, RESCALE, timeout_s=120)) as expected,
        ):
            assert labels.shape == box.shape
            np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(session.volume, values)


def test_labels_of_a_part_lie_where_the_voxels_lie(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    with engine.open(SHAPE) as session:
        session.volume[...] = stored()
        for box in (WHOLE_SLICES, INNER):
            place = geometry_of_part(GEOMETRY, box)
            with session.part(box) as part:
                for model in ("thresholds", "thresholds"):
                    with labelled(part, InferenceRequest(models[model], place, RESCALE, timeout_s=120)) as labels:
                        np.testing.assert_array_equal(labels, (stored() == 500)[box.slices])


def test_further_series_are_read_where_the_part_lies(
    engine: InferenceEngine, models: dict[str, ModelVersion]
) -> None:
    pet = np.zeros(SHAPE, dtype=np.int16)
    pet[:, :15, :18] = 30000
    with engine.open(SHAPE, [SHAPE]) as session:
        session.volume[...], session.further[0][...] = stored(), pet
        with (
            session.part(INNER) as part,
            labelled(
                part,
                InferenceRequest(
                    models["both"],
                    geometry_of_part(GEOMETRY, INNER),
                    RESCALE,
                    timeout_s=120,
                    further=[Placement(GEOMETRY, RESCALE)],
                ),
            ) as labels,
        ):
            expected = (stored() == 500) & (pet > 0)
            np.testing.assert_array_equal(labels, expected[INNER.slices])


def test_a_part_is_classified_by_itself(engine: InferenceEngine, models: dict[str, ModelVersion]) -> None:
    place = geometry_of_part(GEOMETRY, INNER)
    with engine.open(SHAPE) as session, engine.open(INNER.shape) as alone:
        session.volume[...], alone.volume[...] = stored(), stored()[INNER.slices]
        whole = scored(session, InferenceRequest(models["series"], GEOMETRY, RESCALE, timeout_s=120))
        expected = scored(alone, InferenceRequest(models["series"], place, RESCALE, timeout_s=120))
        with session.part(INNER) as part:
            found = scored(part, InferenceRequest(models["series"], place, RESCALE, timeout_s=120))
        assert found.shape == whole.shape == (1, 3)
        np.testing.assert_array_equal(found, expected)
