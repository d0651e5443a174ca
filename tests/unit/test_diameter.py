"""The longest line across a segment, against all pairs of pixels and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.imaging.diameter import longest_diameter
from dicomnode.imaging.volume import plan_volume
from tests.made_series import OBLIQUE, classic

PLAN = plan_volume(classic(orientation=OBLIQUE, spacing=(0.7, 0.9)))


def test_a_row_of_pixels_is_as_long_as_it_is_wide() -> None:
    mask = np.zeros(PLAN.geometry.shape, bool)
    mask[2, 4, 3:9] = True
    found = longest_diameter(mask, PLAN.frames)
    assert found is not None
    assert (found.length_mm, found.slice_index) == (pytest.approx(6 * 0.9), 2)


def test_an_empty_mask_has_none() -> None:
    assert longest_diameter(np.zeros(PLAN.geometry.shape, bool), PLAN.frames) is None


@given(st.integers(0, 1 << 30), st.floats(0.02, 0.5))
def test_no_two_pixels_of_a_region_lie_farther_apart_within_a_slice(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(PLAN.geometry.shape, bool)
    k, row, column = (int(rng.integers(1, n - 1)) for n in mask.shape)
    mask[k, row - 1 : row + 2, column - 1 : column + 2] = rng.random((3, 3)) < 0.5 + share
    mask[k, row] |= mask[k, row].any()  # connected by a whole row
    mask[k, :row] = mask[k, row + 1 :] = False
    found = longest_diameter(mask, PLAN.frames)
    if not mask.any():
        assert found is None
        return
    assert found is not None
    centres = np.argwhere(mask[k]) * np.array([0.7, 0.9])
    farthest = max((float(np.linalg.norm(a - b)) for a, b in itertools.combinations(centres, 2)), default=0.0)
    assert farthest <= found.length_mm <= farthest + 2 * 0.9
    ends = np.array(found.ends)
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(found.length_mm)
