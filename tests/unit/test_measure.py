from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.imaging.measure import measure

SHAPE = (3, 4, 5)
GEOMETRY = VolumeGeometry(SHAPE, np.diag([2.5, 0.5, 0.8, 1.0]))


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.uint8, SHAPE, elements=st.integers(0, 3)),
    arrays(np.int16, SHAPE, elements=st.integers(-32768, 32767)),
    st.sampled_from([Rescale(1, -1024), Rescale(0.37, 12), Rescale(-2, 0)]),
)
def test_statistics_are_those_of_the_voxels(labels: np.ndarray, volume: np.ndarray, rescale: Rescale) -> None:
    for s in measure(labels, volume, GEOMETRY, rescale, [1, 2, 3]):
        values = volume[labels == s.segment_number].astype(np.float64) * rescale.slope + rescale.intercept
        assert s.voxels == values.size
        assert s.volume_ml == pytest.approx(values.size * 2.5 * 0.5 * 0.8 / 1000)
        if not values.size:
            assert (s.mean, s.standard_deviation, s.minimum, s.maximum) == (None,) * 4
            continue
        assert s.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-9)
        assert s.standard_deviation == pytest.approx(values.std(), rel=1e-9, abs=1e-6)
        assert (s.minimum, s.maximum) == pytest.approx((values.min(), values.max()))


def test_a_sheared_voxel_is_measured_by_its_volume() -> None:
    affine = np.array([[0, 0, 1, 0], [1.5, 1, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]])
    [s] = measure(
        np.ones(SHAPE, np.uint8), np.zeros(SHAPE, np.int16), VolumeGeometry(SHAPE, affine), Rescale(1, 0), [1]
    )
    assert s.volume_ml == pytest.approx(60 * 4 / 1000)


def test_grids_must_agree() -> None:
    with pytest.raises(ValueError, match="differ"):
        measure(np.zeros((3, 4, 4), np.uint8), np.zeros(SHAPE, np.int16), GEOMETRY, Rescale(1, 0), [1])
